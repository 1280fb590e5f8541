//! Two services over loopback: what a client asks of the first one reaches the second, and nobody passes it on by hand
//! but for the header.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
    routing::get,
};
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{net::TcpListener, sync::Notify, time::Instant};
use withstand::{Deadline, DeadlineLayer, Pipeline};

const HEADER: &str = "x-request-timeout-ms";

#[expect(clippy::disallowed_methods, reason = "a server runs beside its clients")]
async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// What any client does to tell the next service: it asks what is left where it sends.
async fn fetch(address: SocketAddr, path: &str, left: Option<u64>) -> Result<(StatusCode, String), String> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::get(format!("http://{address}{path}"));
    if let Some(left) = left {
        request = request.header(HEADER, left);
    }
    let response = client.request(request.body(Body::empty()).unwrap()).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Counts when it is gone, and tells.
struct Gone(Arc<AtomicU32>, Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
        self.1.notify_one();
    }
}

/// Service A: its handler calls B through a pipeline and passes no deadline.
fn front(b: SocketAddr, gone: Arc<AtomicU32>, told: Arc<Notify>) -> Router {
    let pipeline = Arc::new(Pipeline::standard("b").build().unwrap());
    let handler = move |path: &'static str| {
        let (pipeline, gone, told) = (pipeline.clone(), gone.clone(), told.clone());
        async move {
            let answer = pipeline.call(|| async {
                let _gone = Gone(gone.clone(), told.clone());
                let left = Deadline::current().map(Deadline::remaining_millis);
                fetch(b, path, left).await
            });
            match answer.await {
                Ok((_, body)) => (StatusCode::OK, body),
                Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
            }
        }
    };
    let hang = handler.clone();
    Router::new()
        .route("/left", get(move || handler("/left")))
        .route("/hang", get(move || hang("/hang")))
        .layer(DeadlineLayer::from_header(HEADER).build().unwrap())
}

/// Service B: says what header it got.
fn back() -> Router {
    let said = async |headers: HeaderMap| match headers.get(HEADER) {
        Some(value) => value.to_str().unwrap().to_owned(),
        None => "none".to_owned(),
    };
    Router::new().route("/left", get(said)).route("/hang", get(pending::<String>))
}

#[tokio::test]
async fn the_service_behind_gets_less_time_than_the_client_gave() {
    let b = serve(back()).await;
    let a = serve(front(b, Arc::default(), Arc::default())).await;
    // The attempt itself may take 1 s, so from there on that counts.
    for (asked, most) in [(Some(600), 600), (Some(5_000), 1_000), (None, 1_000)] {
        let (status, left) = fetch(a, "/left", asked).await.unwrap();
        let left: u64 = left.parse().unwrap();
        assert!(status == 200 && left <= most && left + 500 > most, "{left} ms of {asked:?} ms");
    }
}

#[tokio::test]
async fn a_handler_out_of_time_answers_504_and_its_attempt_is_cancelled() {
    let (gone, told) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let b = serve(back()).await;
    let a = serve(front(b, gone.clone(), told.clone())).await;
    let began = Instant::now();
    let (status, _) = fetch(a, "/hang", Some(100)).await.unwrap();
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(began.elapsed() >= Duration::from_millis(100) && began.elapsed() < Duration::from_millis(900));
    told.notified().await;
    assert_eq!(gone.load(Relaxed), 1);
}
