//! What servers and proxies do to streams of HTTP/2: a server that speaks in frames and says just that.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use withstand::{CallOptions, Idempotency, Verdict};

use crate::world::{channel, retrying, say};

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// `RST_STREAM` of the first request.
fn reset(code: u8) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, code]
}

/// `GOAWAY`, with the last stream that was begun.
fn go_away(last: u8, code: u8) -> Vec<u8> {
    vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, code]
}

/// Answers each request with these bytes; with none, closes the connection when it is there.
async fn serve(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            drop(tokio::spawn(answered(stream, answer.clone())));
        }
    }));
    address
}

async fn answered(mut stream: TcpStream, answer: Vec<u8>) -> std::io::Result<()> {
    stream.write_all(&SETTINGS).await?;
    stream.read_exact(&mut [0; 24]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        // The headers of the request.
        if head[3] == 1 {
            if answer.is_empty() {
                return Ok(());
            }
            stream.write_all(&answer).await?;
        }
    }
}

#[tokio::test]
async fn what_is_refused_was_not_begun_and_other_resets_are_failures() {
    let once = CallOptions::new().idempotency(Idempotency::Unsafe);
    let refused = (Verdict::unreached(), "grpc_refused");
    let failed = (Verdict::failure(), "grpc_protocol");
    let cases = [
        ("REFUSED_STREAM", reset(7), refused),
        // Nothing after stream 0 was begun, whatever for.
        ("GOAWAY, NO_ERROR", go_away(0, 0), refused),
        ("GOAWAY, ENHANCE_YOUR_CALM", go_away(0, 11), refused),
        ("ENHANCE_YOUR_CALM", reset(11), (Verdict::throttled(), "grpc_refused")),
        ("NO_ERROR", reset(0), failed),
        ("PROTOCOL_ERROR", reset(1), failed),
        ("INTERNAL_ERROR", reset(2), failed),
        ("CANCEL", reset(8), failed),
        ("INADEQUATE_SECURITY", reset(12), failed),
    ];
    for (name, frame, expected) in cases {
        let address = serve(frame).await;
        let outcome = say(&retrying(1), &channel(address), once).await;
        assert_eq!((outcome.verdict(), outcome.label()), expected, "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_when_the_request_is_there_may_have_been_heard() {
    let address = serve(Vec::new()).await;
    let outcome = say(&retrying(1), &channel(address), CallOptions::new()).await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::transient(), "grpc_connection"), "{outcome:?}");
}

#[tokio::test]
async fn a_connection_that_ends_before_it_is_used_is_no_failure_that_would_not_be_repeated() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    }));
    let mut unreached = 0;
    for _ in 0..20 {
        let outcome = say(&retrying(1), &channel(address), CallOptions::new()).await;
        let verdict = outcome.verdict();
        unreached += u32::from(matches!(verdict, Verdict::Unreached { .. }));
        // Whether the request was on its way by then only the network knows.
        assert!(matches!(verdict, Verdict::Unreached { .. } | Verdict::Transient { .. }), "{outcome:?}");
    }
    // tonic calls it CANCELLED, though nobody has cancelled anything.
    assert!(unreached > 0);
}

#[tokio::test]
async fn a_peer_that_speaks_no_http_2_is_a_failure_or_a_broken_connection_and_never_unreached() {
    for answer in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\0\0\0\0\0\0\0\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
    {
        let address = serve(answer.to_vec()).await;
        let outcome = say(&retrying(1), &channel(address), CallOptions::new()).await;
        let verdict = outcome.verdict();
        assert!(matches!(verdict, Verdict::Failure | Verdict::Transient { .. }), "{outcome:?}");
    }
}
