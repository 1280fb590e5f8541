//! A service on loopback that does what the path asks for.

use std::{
    collections::HashMap,
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use withstand::MetricsObserver;

/// How many requests came for each path.
pub(crate) type Requests = Arc<Mutex<HashMap<String, u32>>>;

/// Serves the operation, and the metrics as a service of one's own would.
pub(crate) async fn serve(prometheus: PrometheusHandle) -> (SocketAddr, Requests) {
    let requests = Requests::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = get(move || async move {
        MetricsObserver::record_gauges();
        prometheus.render()
    });
    let service =
        Router::new().route("/do/{what}/{key}", get(answer)).with_state(requests.clone()).route("/metrics", metrics);
    drop(tokio::spawn(async move { axum::serve(listener, service).await }));
    (address, requests)
}

async fn answer(
    State(requests): State<Requests>,
    Path((what, key)): Path<(String, String)>,
) -> (StatusCode, &'static str) {
    let before = {
        let mut requests = requests.lock().unwrap();
        let count = requests.entry(format!("{what}/{key}")).or_default();
        *count += 1;
        *count - 1
    };
    match what.as_str() {
        "ok" => (StatusCode::OK, "fine"),
        "missing" => (StatusCode::NOT_FOUND, "who?"),
        "busy" => (StatusCode::TOO_MANY_REQUESTS, "later"),
        "broken" => (StatusCode::SERVICE_UNAVAILABLE, "no"),
        "flaky" if before == 0 => (StatusCode::SERVICE_UNAVAILABLE, "not yet"),
        "slow-first" if before == 0 => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            (StatusCode::OK, "too late")
        }
        "hang" => pending().await,
        _ => (StatusCode::OK, "fine"),
    }
}
