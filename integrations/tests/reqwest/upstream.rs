//! The servers: one of axum that answers as it is told, and one of bare sockets that breaks off as it is told.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use reqwest::header::HeaderMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn key(&self) -> Option<&str> {
        self.headers.get("idempotency-key").map(|key| key.to_str().unwrap())
    }
}

/// A server, and what it has seen.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn note(&self, request: Seen) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.push(request);
        seen.len()
    }
}

async fn bound(address: &str) -> (TcpListener, Upstream) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, Upstream { address, seen: Arc::default() })
}

/// A server of axum's. Each request is answered by its number, from 1.
pub(crate) async fn answering<F, R>(answer: F) -> Upstream
where
    F: Fn(usize) -> R + Clone + Send + Sync + 'static,
    R: Future<Output: IntoResponse> + Send + 'static,
{
    answering_on("127.0.0.1:0", answer).await
}

pub(crate) async fn answering_on<F, R>(address: &str, answer: F) -> Upstream
where
    F: Fn(usize) -> R + Clone + Send + Sync + 'static,
    R: Future<Output: IntoResponse> + Send + 'static,
{
    let (listener, upstream) = bound(address).await;
    let noted = upstream.clone();
    let app = axum::Router::new().fallback(move |request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let number = noted.note(Seen { headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() });
        let response: Response<Body> = answer(number).await.into_response();
        response
    });
    drop(tokio::spawn(async move { axum::serve(listener, app).await }));
    upstream
}

/// What a server of bare sockets does with a request once it has read it.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    /// The connection is reset: no answer.
    Reset,
    /// All of it, and the connection is closed.
    Answer(&'static str),
    /// The head and half of the body, and then it is dead.
    HalfABody,
    /// The head and half of the body, and then nothing.
    HangInBody,
    /// The head and a body without end.
    Flood,
    /// Each text after so many milliseconds more, and the connection is closed.
    Script(&'static [(u64, &'static str)]),
}

/// The bodies of [`Act::HalfABody`] and [`Act::HangInBody`], had they come.
pub(crate) const LENGTH: usize = 20;

/// A server that does for each request what belongs to its number, from 1.
pub(crate) async fn acting<F: Fn(usize) -> Act + Send + Sync + 'static>(act: F) -> Upstream {
    let (listener, upstream) = bound("127.0.0.1:0").await;
    let (noted, act) = (upstream.clone(), Arc::new(act));
    drop(tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (noted, act) = (noted.clone(), act.clone());
            drop(tokio::spawn(async move { serve(socket, &noted, &*act).await }));
        }
    }));
    upstream
}

async fn serve(mut socket: TcpStream, noted: &Upstream, act: &(dyn Fn(usize) -> Act + Send + Sync)) {
    let Some(request) = read(&mut socket).await else { return };
    match act(noted.note(request)) {
        Act::Reset => {
            // Gone without a farewell: the other side reads "connection reset".
            #[allow(deprecated, reason = "zero seconds do not block")]
            socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
        Act::Answer(body) => {
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
        Act::Flood => {
            let endless = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".as_bytes();
            let mut written = socket.write_all(endless).await;
            while written.is_ok() {
                written = socket.write_all(&[b'x'; 16 * 1024]).await;
            }
        }
        Act::Script(script) => {
            for (after, text) in script {
                tokio::time::sleep(std::time::Duration::from_millis(*after)).await;
                socket.write_all(text.as_bytes()).await.unwrap();
            }
        }
        Act::HalfABody => half(&mut socket).await,
        Act::HangInBody => {
            half(&mut socket).await;
            std::future::pending().await
        }
    }
}

async fn half(socket: &mut TcpStream) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
    socket.write_all(format!("{head}{}", "x".repeat(LENGTH / 2)).as_bytes()).await.unwrap();
}

async fn read(socket: &mut TcpStream) -> Option<Seen> {
    let mut text = Vec::new();
    let head = loop {
        if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    };
    let head_text = String::from_utf8_lossy(&text[..head]).to_lowercase();
    let headers: HeaderMap = head_text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
    while text.len() < head + 4 + length {
        if socket.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen { headers, body: String::from_utf8_lossy(&text[head + 4..]).into_owned() })
}
