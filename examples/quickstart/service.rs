//! The service: ten replicas on loopback, real HTTP, with the faults of the [`script`](crate::script).

use std::{
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::mpsc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    client::REPEATED,
    script::{self, Fate},
};

/// The running service. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) replicas: Vec<SocketAddr>,
    pub(crate) started: Instant,
    arrivals: mpsc::Receiver<Arrival>,
    _tasks: JoinSet<io::Result<()>>,
}

/// A request that reached the service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Duration,
    /// Whether it repeats an earlier request of the same call: a retry or a hedge.
    pub(crate) repeated: bool,
}

#[derive(Clone)]
struct Replica {
    number: u32,
    started: Instant,
    arrivals: mpsc::Sender<Arrival>,
}

impl Service {
    /// Starts the replicas, and with them the script.
    pub(crate) async fn start() -> io::Result<Self> {
        let mut listeners = Vec::new();
        for _ in 0..script::REPLICAS {
            listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        }
        let replicas = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;

        let (sender, arrivals) = mpsc::channel();
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, listener) in (0..).zip(listeners) {
            let replica = Replica { number, started, arrivals: sender.clone() };
            let app = Router::new().route("/users/{id}", get(user)).with_state(replica);
            tasks.spawn(axum::serve(listener, app).into_future());
        }
        Ok(Self { replicas, started, arrivals, _tasks: tasks })
    }

    /// Stops it, and tells which requests reached it.
    pub(crate) fn stop(self) -> Vec<Arrival> {
        self.arrivals.try_iter().collect()
    }
}

async fn user(State(replica): State<Replica>, Path(id): Path<u32>, headers: HeaderMap) -> Response {
    let at = replica.started.elapsed();
    // The receiver is gone only when the run is over.
    replica.arrivals.send(Arrival { at, repeated: headers.contains_key(REPEATED) }).ok();

    match script::fate(at, replica.number, id) {
        Fate::Answered(after) => {
            sleep(after).await;
            format!("user number {id}").into_response()
        }
        Fate::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Fate::TooMany(seconds) => (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())]).into_response(),
        Fate::Hangs => pending().await,
    }
}
