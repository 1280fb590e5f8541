//! A server on loopback that answers, is busy, hangs, resets its connections, and can be killed and started anew.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    routing::any,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use tower::{ServiceExt, service_fn};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Answered,
    Busy,
    Hangs,
    Reset,
}

/// What becomes of the next requests, one after the other; all others are answered.
#[derive(Clone, Default)]
pub(crate) struct Fates {
    next: Arc<Mutex<VecDeque<Fate>>>,
    pub(crate) seen: Arc<AtomicUsize>,
}

impl Fates {
    pub(crate) fn are(&self, fates: impl IntoIterator<Item = Fate>) {
        *self.next.lock().unwrap() = fates.into_iter().collect();
        self.seen.store(0, SeqCst);
    }

    /// Returns with whether it is busy, if at all.
    pub(crate) async fn befall(&self, connection: &Connection) -> Result<(), StatusCode> {
        self.seen.fetch_add(1, SeqCst);
        let next = self.next.lock().unwrap().pop_front();
        match next.unwrap_or(Fate::Answered) {
            Fate::Answered => Ok(()),
            Fate::Busy => Err(StatusCode::SERVICE_UNAVAILABLE),
            Fate::Hangs => pending().await,
            Fate::Reset => {
                connection.reset();
                pending().await
            }
        }
    }

    pub(crate) fn seen(&self) -> usize {
        self.seen.load(SeqCst)
    }
}

/// To have the connection of a request reset.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Notify>);

impl Connection {
    pub(crate) fn reset(&self) {
        self.0.notify_one();
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    service: Router,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves what befalls its requests.
    pub(crate) async fn of(fates: Fates) -> Self {
        let answer = async |State(fates): State<Fates>, Extension(connection): Extension<Connection>| {
            fates.befall(&connection).await.map(|()| "fine")
        };
        Self::start(Router::new().fallback(any(answer)).with_state(fates)).await
    }

    pub(crate) async fn start(service: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, task: tokio::spawn(serve(listener, service.clone())), service }
    }

    /// Stops at once, with a reset of every connection.
    pub(crate) async fn kill(&mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    pub(crate) async fn start_anew(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.task = tokio::spawn(serve(listener, self.service.clone()));
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, service: Router) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve_connection(stream, service.clone()));
    }
}

async fn serve_connection(stream: TcpStream, service: Router) {
    // However it is dropped, the other side sees a reset.
    stream.set_zero_linger().unwrap();
    let reset = Connection(Arc::new(Notify::new()));
    let connection = reset.clone();
    let service = service_fn(move |request: Request<_>| {
        let (service, connection) = (service.clone(), connection.clone());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(connection);
            let Ok(response) = service.oneshot(request).await;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = Builder::new(TokioExecutor::new());
    let connection = connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::select! {
        _ = connection => {}
        () = reset.0.notified() => {}
    }
}
