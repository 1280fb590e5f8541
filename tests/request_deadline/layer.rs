//! What the layer makes of a request, under the paused clock.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::Request, response::Response, routing::get};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower_service::Service;
use withstand::{Deadline, DeadlineLayer, Pipeline, RequestDeadline, Timeout};

const HEADER: &str = "x-request-timeout-ms";

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A handler that says how many milliseconds it and its calls see, or that there is no deadline.
async fn tell(request: RequestDeadline) -> String {
    let pipeline = Pipeline::builder("inner").build().unwrap();
    let seen = pipeline.call(|| async { Ok::<_, ()>(Deadline::current()) }).await.unwrap();
    assert_eq!(seen, request.deadline());
    seen.map_or_else(|| "none".to_owned(), |deadline| deadline.remaining_millis().to_string())
}

async fn get_with(layer: DeadlineLayer, values: &[&[u8]]) -> (u16, String) {
    let mut request = Request::get("/");
    for value in values {
        request = request.header("X-Request-Timeout-Ms", *value);
    }
    let mut app = Router::new().route("/", get(tell)).layer(layer);
    read(app.call(request.body(Body::empty()).unwrap()).await.unwrap()).await
}

async fn read(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_request_is_its_headers_up_to_a_limit() {
    let layer = DeadlineLayer::from_header(HEADER).at_most(ms(5_000)).build().unwrap();
    let rows: [(&[&[u8]], &str); 9] = [
        (&[b"250"], "250"),
        (&[b"100m"], "100"),
        (&[b"2S"], "2000"),
        (&[b"3H"], "5000"),
        (&[b"99999999999999999999999999999"], "5000"),
        (&[b"300", b"nonsense", b"200"], "200"),
        (&[b"soon"], "none"),
        (&[b"\xff\xfe"], "none"),
        (&[], "none"),
    ];
    for (values, expected) in rows {
        assert_eq!(get_with(layer.clone(), values).await, (200, expected.to_owned()), "{values:?}");
    }
    let layer = DeadlineLayer::from_header(HEADER).default_timeout(ms(700)).build().unwrap();
    for (values, expected) in [(&[] as &[&[u8]], "700"), (&[b"soon"], "700"), (&[b"9000"], "9000")] {
        assert_eq!(get_with(layer.clone(), values).await, (200, expected.to_owned()), "{values:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_time_is_answered_and_its_handler_is_not_called() {
    let called = Arc::new(AtomicU32::new(0));
    let count = called.clone();
    let handler = async move || {
        count.fetch_add(1, Relaxed);
    };
    let layer = DeadlineLayer::from_header(HEADER).build().unwrap();
    let mut app = Router::new().route("/", get(handler)).layer(layer);
    for value in ["0", "-7", "0S"] {
        let response = app.call(Request::get("/").header(HEADER, value).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 504);
    }
    assert_eq!(called.load(Relaxed), 0);
}

/// Counts when it is gone.
struct Gone(Arc<AtomicU32>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_out_of_time_is_dropped_with_its_calls_and_answered_for() {
    let gone = Arc::new(AtomicU32::new(0));
    for calls in [false, true] {
        let kept = gone.clone();
        let handler = async move || {
            let _handler = Gone(kept.clone());
            if !calls {
                return pending().await;
            }
            // It would answer by another status: but it is ended, and not its call alone.
            let timeout = Timeout::new(ms(10_000)).unwrap();
            let call = timeout.call(|| async {
                let _call = Gone(kept.clone());
                pending::<Result<(), ()>>().await
            });
            call.await.map_err(|_| axum::http::StatusCode::BAD_GATEWAY)
        };
        let layer = DeadlineLayer::from_header(HEADER).build().unwrap();
        let mut app = Router::new().route("/", get(handler)).layer(layer);
        let began = Instant::now();
        let request = Request::get("/").header(HEADER, "80").body(Body::empty()).unwrap();
        let response = app.call(request).await.unwrap();
        assert_eq!((response.status().as_u16(), began.elapsed()), (504, ms(80)));
    }
    assert_eq!(gone.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_ready_when_the_time_is_up_is_heard() {
    let handler = async || {
        sleep(ms(80)).await;
        "just in time"
    };
    let layer = DeadlineLayer::from_header(HEADER).build().unwrap();
    let mut app = Router::new().route("/", get(handler)).layer(layer);
    let request = Request::get("/").header(HEADER, "80").body(Body::empty()).unwrap();
    assert_eq!(read(app.call(request).await.unwrap()).await, (200, "just in time".to_owned()));
}

#[test]
fn nonsense_is_refused_by_name() {
    let refused = |builder: withstand::DeadlineLayerBuilder| builder.build().unwrap_err().to_string();
    let layer = || DeadlineLayer::from_header(HEADER);
    for (builder, field) in [
        (DeadlineLayer::from_header("no name"), "header"),
        (DeadlineLayer::from_header(""), "header"),
        (layer().at_most(Duration::ZERO), "at_most"),
        (layer().at_most(Duration::MAX), "at_most"),
        (layer().default_timeout(Duration::ZERO), "default_timeout"),
        (layer().default_timeout(ms(61_000)), "default_timeout"),
    ] {
        let error = refused(builder);
        assert!(error.contains(field), "{error}");
    }
}
