//! A pipeline around the routes of an axum service: it protects the service from its clients.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    error_handling::HandleErrorLayer,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::ServiceBuilder;
use withstand::{Bulkhead, CircuitBreaker, Error, Pipeline, Verdict, tower::PipelineLayer};

use crate::{ms, server::Server};

/// What a client is told.
async fn answer(error: Error<Infallible>) -> Response {
    match error {
        Error::Timeout(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
        Error::Rejected(rejection) => {
            let after = rejection.retry_after().unwrap_or_default().as_secs_f64().ceil();
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, after.to_string())]).into_response()
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Routes that hang, that fail, and one that gives a body back; how often the one that fails was called.
async fn serve(bulkhead: Arc<Bulkhead>) -> (Server, Arc<AtomicUsize>) {
    let pipeline = Pipeline::builder("inbound")
        .timeout(ms(300))
        .bulkhead(bulkhead)
        .circuit_breaker(CircuitBreaker::builder().consecutive_failures(3).consecutive_span(Duration::ZERO))
        .classify(|result: Result<&Response, &Infallible>| match result {
            Ok(response) if response.status().is_server_error() => Verdict::failure(),
            Ok(_) => Verdict::success(),
            Err(never) => match *never {},
        })
        .build()
        .unwrap();
    let failed = Arc::new(AtomicUsize::new(0));
    let counted = failed.clone();
    let fail = async move || {
        counted.fetch_add(1, SeqCst);
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let routes = Router::new()
        .route("/echo", post(|body: Body| async { body }))
        .route("/hang", get(pending::<()>))
        .route("/fail", get(fail))
        .layer(ServiceBuilder::new().layer(HandleErrorLayer::new(answer)).layer(PipelineLayer::guard(pipeline)));
    (Server::start(routes).await, failed)
}

fn bulkhead() -> Arc<Bulkhead> {
    Arc::new(Bulkhead::builder().limit(2).build().unwrap())
}

#[tokio::test]
async fn requests_with_bodies_that_cannot_be_cloned_pass_through() {
    let (server, _) = serve(bulkhead()).await;
    let body = Full::new(Bytes::from("said")).map_err(|never| match never {});
    let request = reqwest::Client::new().post(server.url() + "echo").body(reqwest::Body::wrap(body));
    let response = request.send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (200, "said"));
}

#[tokio::test]
async fn what_takes_too_long_is_a_504_and_what_is_too_much_a_503_at_once() {
    let bulkhead = bulkhead();
    let (server, _) = serve(bulkhead.clone()).await;
    let client = reqwest::Client::new();
    let hanging = || tokio::spawn(client.get(server.url() + "hang").send());
    let hanging = [hanging(), hanging()];
    while bulkhead.in_use() < 2 {
        sleep(ms(5)).await;
    }
    let started = Instant::now();
    let refused = client.get(server.url() + "hang").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()[RETRY_AFTER].to_str().unwrap()), (503, "0"));
    assert!(started.elapsed() < ms(250), "it waited for those that hang");
    for hanging in hanging {
        assert_eq!(hanging.await.unwrap().unwrap().status(), 504);
    }
    assert_eq!(bulkhead.in_use(), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_permit_back() {
    let bulkhead = bulkhead();
    let (server, _) = serve(bulkhead.clone()).await;
    let client = reqwest::Client::builder().timeout(ms(60)).build().unwrap();
    assert!(client.get(server.url() + "hang").send().await.unwrap_err().is_timeout());
    let gone = Instant::now();
    while bulkhead.in_use() > 0 {
        sleep(ms(5)).await;
    }
    assert!(gone.elapsed() < ms(200), "the timeout of the server has given it back");
}

#[tokio::test]
async fn a_handler_that_keeps_failing_is_not_called_and_clients_are_told_when_to_come_back() {
    let (server, failed) = serve(bulkhead()).await;
    let client = reqwest::Client::new();
    for _ in 0..3 {
        assert_eq!(client.get(server.url() + "fail").send().await.unwrap().status(), 500);
    }
    let refused = client.get(server.url() + "fail").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()[RETRY_AFTER].to_str().unwrap()), (503, "5"));
    assert_eq!(failed.load(SeqCst), 3);
}
