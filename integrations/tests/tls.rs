//! The reqwest client and TLS: a handshake that fails is a connection that never was.
#![cfg(test)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use reqwest::{Certificate, Client as Plain};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{RootCertStore, ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer, server::WebPkiClientVerifier},
};
use withstand::{
    Backoff, Classification, Error, Retry, Verdict, layers,
    reqwest::{Client, classify_error},
};

const UNREACHED: (Verdict, &str) = (Verdict::unreached(), "http_connect");
const TRANSIENT: (Verdict, &str) = (Verdict::transient(), "http_request");

/// What the server does with a connection.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Closes it at once.
    Close,
    /// Closes it once the client has said hello.
    CloseAfterHello,
    /// Resets it once the client has said hello.
    Reset,
    /// Answers the hello in plain HTTP.
    Plain,
    /// Reads the hello and says nothing.
    Hang,
    /// Has a certificate that nobody vouches for.
    Untrusted,
    /// Has a certificate for another name.
    OtherName,
    /// Wants a certificate of the client, which has none.
    WantsCertificate,
    /// Answers over TLS.
    Answer,
    /// Reads the request over TLS, and closes.
    CloseAfterRequest,
}

fn certificate(name: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed([name.to_owned()]).unwrap()
}

/// A server, the certificate to trust, and what it has seen.
struct Server {
    address: SocketAddr,
    trusted: Certificate,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

/// A server that does with each connection what belongs to its number, and what belongs to the last with all others.
async fn server(acts: &'static [Act]) -> Server {
    let _already = ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let known = Arc::new(certificate("127.0.0.1"));
    let server = Server {
        address: listener.local_addr().unwrap(),
        trusted: Certificate::from_der(known.cert.der()).unwrap(),
        connections: Arc::default(),
        requests: Arc::default(),
    };
    let (connections, requests) = (server.connections.clone(), server.requests.clone());
    drop(tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let number = connections.fetch_add(1, Relaxed);
            let act = *acts.get(number).or(acts.last()).unwrap();
            let (known, requests) = (known.clone(), requests.clone());
            drop(tokio::spawn(async move { serve(socket, act, &known, &requests).await }));
        }
    }));
    server
}

async fn serve(mut socket: TcpStream, act: Act, known: &CertifiedKey<KeyPair>, requests: &AtomicUsize) {
    let used = match act {
        Act::Close => return,
        Act::CloseAfterHello | Act::Reset | Act::Plain | Act::Hang => {
            socket.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
            match act {
                #[allow(deprecated, reason = "zero seconds do not block")]
                Act::Reset => socket.set_linger(Some(Duration::ZERO)).unwrap(),
                Act::Plain => socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap(),
                Act::Hang => std::future::pending().await,
                _ => {}
            }
            return;
        }
        Act::Untrusted => &certificate("127.0.0.1"),
        Act::OtherName => &certificate("127.0.0.2"),
        Act::WantsCertificate | Act::Answer | Act::CloseAfterRequest => known,
    };
    let config = ServerConfig::builder();
    let config = if matches!(act, Act::WantsCertificate) {
        let mut roots = RootCertStore::empty();
        roots.add(known.cert.der().clone()).unwrap();
        config.with_client_cert_verifier(WebPkiClientVerifier::builder(roots.into()).build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let key = PrivatePkcs8KeyDer::from(used.signing_key.serialize_der());
    let config = config.with_single_cert(vec![used.cert.der().clone()], key.into()).unwrap();
    let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(socket).await else { return };
    read_request(&mut stream).await;
    requests.fetch_add(1, Relaxed);
    if matches!(act, Act::Answer) {
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
        stream.shutdown().await.unwrap();
    }
}

/// Reads the head and the one byte of the body.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) {
    let mut text = Vec::new();
    while !text.windows(5).any(|five| five == b"\r\n\r\nx") {
        if stream.read_buf(&mut text).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

fn plain(server: &Server) -> Plain {
    let plain = Plain::builder().tls_certs_only([server.trusted.clone()]).connect_timeout(Duration::from_millis(300));
    plain.build().unwrap()
}

fn client(server: &Server) -> Client<layers![Retry]> {
    let retry = Retry::builder().backoff(Backoff::constant(Duration::from_millis(5)));
    let client = Client::builder("outbound", plain(server));
    client.each_host(move |pipeline, _| pipeline.retry(retry.clone()).build()).build().unwrap()
}

/// What becomes of a POST without a key.
async fn post(server: &Server) -> Result<String, Error<reqwest::Error>> {
    let response = client(server).post(format!("https://{}/", server.address)).body("x").send().await?;
    response.text().await.map_err(Error::Operation)
}

fn said(classification: Classification) -> (Verdict, &'static str) {
    (classification.verdict(), classification.label())
}

#[tokio::test]
async fn a_handshake_that_fails_is_unreached_and_a_post_is_sent_again_since_nothing_was_sent() {
    const CASES: [&[Act]; 7] = [
        &[Act::Close, Act::Answer],
        &[Act::CloseAfterHello, Act::Answer],
        &[Act::Reset, Act::Answer],
        &[Act::Plain, Act::Answer],
        &[Act::Hang, Act::Answer],
        &[Act::Untrusted, Act::Answer],
        &[Act::OtherName, Act::Answer],
    ];
    for acts in CASES {
        let server = server(acts).await;
        let error = plain(&server).get(format!("https://{}/", server.address)).send().await.unwrap_err();
        assert_eq!(said(classify_error(&error)), UNREACHED, "{acts:?}: {error:?}");
        assert_eq!(error.is_timeout(), matches!(acts[0], Act::Hang), "{error:?}");

        // Begins anew with the first act.
        server.connections.store(0, Relaxed);
        assert_eq!(post(&server).await.unwrap(), "hello", "{acts:?}");
        assert_eq!((server.connections.load(Relaxed), server.requests.load(Relaxed)), (2, 1), "{acts:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_never_right_ends_with_the_error_of_the_last_attempt() {
    let server = server(&[Act::Untrusted]).await;
    let error = post(&server).await.unwrap_err();
    assert_eq!(said(classify_error(error.operation().unwrap())), UNREACHED, "{error:?}");
    assert_eq!((server.connections.load(Relaxed), server.requests.load(Relaxed)), (3, 0));
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_handshake_may_have_carried_out_a_post() {
    // With TLS 1.3 a client hears that its certificate is missing when it has sent its request already.
    const CASES: [(&[Act], usize); 2] = [(&[Act::CloseAfterRequest], 1), (&[Act::WantsCertificate], 0)];
    for (acts, requests) in CASES {
        let server = server(acts).await;
        let error = post(&server).await.unwrap_err();
        assert_eq!(said(classify_error(error.operation().unwrap())), TRANSIENT, "{acts:?}: {error:?}");
        assert_eq!((server.connections.load(Relaxed), server.requests.load(Relaxed)), (1, requests), "{acts:?}");
    }
}
