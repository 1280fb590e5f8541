//! Clients of hyper and reqwest with a pipeline around them, and a server that has every kind of bad day.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt};
use withstand::{
    Backoff, Bulkhead, CircuitBreaker, Classification, Classify, Error, Jitter, Pipeline, Reason, Retry, Timeout,
    Verdict,
    http::{HttpClassifier, call_options},
    layers,
    tower::PipelineLayer,
};

use crate::{
    ms,
    server::{
        Fate::{self, Answered, Busy, Hangs, Reset},
        Fates, Server,
    },
};

struct Http;

impl Http {
    fn judge(result: Result<http::StatusCode, bool>) -> Classification {
        match result {
            Ok(status) if status.is_server_error() => Verdict::transient().label("http_5xx"),
            Ok(_) => Verdict::success().into(),
            Err(true) => Verdict::unreached().label("connect"),
            Err(false) => Verdict::transient().label("broken_off"),
        }
    }
}

impl<B> Classify<http::Response<B>, legacy::Error> for Http {
    fn classify(&self, result: Result<&http::Response<B>, &legacy::Error>) -> Classification {
        Self::judge(result.map(http::Response::status).map_err(legacy::Error::is_connect))
    }
}

impl Classify<reqwest::Response, reqwest::Error> for Http {
    fn classify(&self, result: Result<&reqwest::Response, &reqwest::Error>) -> Classification {
        Self::judge(result.map(reqwest::Response::status).map_err(reqwest::Error::is_connect))
    }
}

type Users = Pipeline<layers![Retry, Arc<Bulkhead>, CircuitBreaker, Timeout], Http>;

fn users(bulkhead: Arc<Bulkhead>) -> Users {
    let breaker = CircuitBreaker::builder()
        .consecutive_failures(4)
        .consecutive_span(Duration::ZERO)
        .open_for(ms(200))
        .growth(1.0);
    Pipeline::builder("users")
        .retry(Retry::builder().backoff(Backoff::constant(ms(10))).without_budget())
        .bulkhead(bulkhead)
        .circuit_breaker(breaker)
        .timeout(ms(250))
        .classifier(Http)
        .build()
        .unwrap()
}

/// The status, or why there is none.
type Answer = Result<u16, Error<()>>;

/// Drives a client, which clones of `get` share, through all that can happen to it.
async fn withstands(get: impl AsyncFn(SocketAddr) -> Answer, bulkhead: &Bulkhead) {
    let fates = Fates::default();
    let mut server = Server::of(fates.clone()).await;
    let gets = async |next: &[Fate]| {
        fates.are(next.iter().copied());
        (get(server.address).await, fates.seen())
    };
    assert_eq!(gets(&[Answered]).await, (Ok(200), 1));
    assert_eq!(gets(&[Busy, Answered]).await, (Ok(200), 2));
    assert_eq!(gets(&[Reset, Reset, Answered]).await, (Ok(200), 3));
    let started = Instant::now();
    assert_eq!(gets(&[Hangs, Answered]).await, (Ok(200), 2));
    assert!(started.elapsed() >= ms(250));
    assert_eq!(gets(&[Busy; 3]).await, (Ok(503), 3), "what the last attempt gave, as it is");
    assert_eq!(gets(&[Answered]).await, (Ok(200), 1));

    server.kill().await;
    assert!(get(server.address).await.unwrap_err().is_operation(), "three attempts, all of them unreached");
    assert!(get(server.address).await.is_err());
    let error = get(server.address).await.unwrap_err();
    assert_eq!(error.rejection().map(withstand::Rejection::reason), Some(Reason::CircuitOpen));
    server.start_anew().await;
    assert!(get(server.address).await.unwrap_err().is_rejected(), "the break has not ended");
    sleep(ms(250)).await;
    assert_eq!(get(server.address).await, Ok(200));

    // The caller goes away while the server hangs.
    fates.are([Hangs]);
    assert!(tokio::time::timeout(ms(50), get(server.address)).await.is_err());
    assert_eq!(bulkhead.in_use(), 0);
    assert_eq!(get(server.address).await, Ok(200));
}

fn bulkhead() -> Arc<Bulkhead> {
    Arc::new(Bulkhead::builder().limit(1).build().unwrap())
}

#[tokio::test]
async fn a_client_of_hyper_withstands_a_server_that_is_busy_hangs_resets_and_is_killed() {
    let bulkhead = bulkhead();
    let client: legacy::Client<HttpConnector, Full<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let service = PipelineLayer::new(users(bulkhead.clone())).layer(client);
    let get = async |address: SocketAddr| {
        let request = http::Request::get(format!("http://{address}/")).body(Full::default()).unwrap();
        let response = service.clone().oneshot(request).await;
        response.map(|response| response.status().as_u16()).map_err(|error| error.map(drop))
    };
    withstands(get, &bulkhead).await;
}

#[tokio::test]
async fn a_client_of_reqwest_withstands_a_server_that_is_busy_hangs_resets_and_is_killed() {
    let bulkhead = bulkhead();
    let layer = PipelineLayer::with_requests(users(bulkhead.clone()), reqwest::Request::try_clone);
    let service = layer.layer(reqwest::Client::new());
    let get = async |address: SocketAddr| {
        let url = format!("http://{address}/").parse().unwrap();
        let response = service.clone().oneshot(reqwest::Request::new(reqwest::Method::GET, url)).await;
        response.map(|response| response.status().as_u16()).map_err(|error| error.map(drop))
    };
    withstands(get, &bulkhead).await;
}

#[tokio::test]
async fn a_body_that_reqwest_cannot_replay_is_sent_once() {
    let fates = Fates::default();
    let server = Server::of(fates.clone()).await;
    let layer = PipelineLayer::with_requests(users(bulkhead()), reqwest::Request::try_clone);
    let mut service = layer.layer(reqwest::Client::new());
    let mut post = async |body: reqwest::Body| {
        fates.are([Busy, Answered]);
        let mut request = reqwest::Request::new(reqwest::Method::POST, server.url().parse().unwrap());
        *request.body_mut() = Some(body);
        (service.call(request).await.unwrap().status().as_u16(), fates.seen())
    };
    assert_eq!(post("bytes".into()).await, (200, 2));
    assert_eq!(post(reqwest::Body::wrap(Full::new(Bytes::from("a stream")))).await, (503, 1));
}

#[tokio::test]
async fn with_the_words_of_http_a_get_is_repeated_and_a_post_is_only_where_nothing_was_carried_out() {
    let fates = Fates::default();
    let mut server = Server::of(fates.clone()).await;
    let classifier = HttpClassifier::new().errors(|error: &legacy::Error| match error.is_connect() {
        true => Verdict::unreached(),
        false => Verdict::transient(),
    });
    let backoff = Backoff::constant(ms(100)).jitter(Jitter::None);
    let pipeline = Pipeline::builder("http").retry(Retry::builder().backoff(backoff)).classifier(classifier);
    let client: legacy::Client<HttpConnector, Full<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let service = PipelineLayer::new(pipeline.build().unwrap())
        .call_options(|request: &http::Request<Full<Bytes>>| call_options(request.method(), request.headers()))
        .layer(client);
    let url = server.url();
    let send = async |method: http::Method| {
        let request = http::Request::builder().method(method).uri(&url).body(Full::default()).unwrap();
        service.clone().oneshot(request).await.map(|response| response.status().as_u16())
    };
    for (method, answer) in [(http::Method::GET, (200, 2)), (http::Method::POST, (503, 1))] {
        fates.are([Busy, Answered]);
        assert_eq!((send(method).await.unwrap(), fates.seen()), answer);
    }
    server.kill().await;
    let (sent, ()) = tokio::join!(send(http::Method::POST), async {
        sleep(ms(5)).await;
        server.start_anew().await;
    });
    assert_eq!(sent.unwrap(), 200, "the first attempt found nobody");
}

#[tokio::test]
async fn a_request_of_reqwest_is_copied_for_each_attempt_that_is_sent() {
    let fates = Fates::default();
    let server = Server::of(fates.clone()).await;
    let copies = Arc::new(AtomicUsize::new(0));
    let counted = copies.clone();
    let layer = PipelineLayer::with_requests(users(bulkhead()), move |request: &reqwest::Request| {
        counted.fetch_add(1, SeqCst);
        request.try_clone()
    });
    let mut service = layer.layer(reqwest::Client::new());
    fates.are([Busy, Answered]);
    let request = reqwest::Request::new(reqwest::Method::GET, server.url().parse().unwrap());
    assert_eq!(service.call(request).await.unwrap().status(), 200);
    assert_eq!((copies.load(SeqCst), fates.seen()), (2, 2));
}
