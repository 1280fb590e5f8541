//! Bodies that are read while their call goes on: what ends first, and what comes of it.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
};

use reqwest::{Error as ReqwestError, Response};
use tokio::time::{Instant, sleep, timeout};
use withstand::{
    Bulkhead, CircuitBreaker, Context, Describe, Error, Fallback, Hedge, HedgeDelay, LayerState, Operation, Outcome,
    Policy, Reason, Rejection, Retry, Verdict,
    reqwest::{Client, Covers, classify_error},
};

use super::{
    causes, circuit, ms, permits,
    upstream::{Act, LENGTH, Upstream, acting},
    with,
};

const HEAD: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\n";

/// The first answer begins when a hedge is under way already, and goes on when the hedge has been answered.
async fn overtaken(rest: &'static [(u64, &'static str)]) -> Upstream {
    acting(move |number| if number == 1 { Act::Script(rest) } else { Act::Script(&[(400, HEAD), (0, "two")]) }).await
}

#[tokio::test]
async fn a_body_is_read_to_its_end_though_a_hedge_has_ended_its_call() {
    let upstream = overtaken(&[(200, HEAD), (0, "o"), (600, "n"), (100, "e")]).await;
    let client = Client::builder("outbound", reqwest::Client::new()).covers(Covers::StreamedBody);
    let client = client.each_host(|pipeline, _| {
        pipeline
            .hedge(Hedge::builder().delay(HedgeDelay::fixed(ms(50))))
            .bulkhead(Bulkhead::builder().limit(2))
            .circuit_breaker(CircuitBreaker::builder())
            .build()
    });
    let client = client.build().unwrap();
    let mut response = client.get(upstream.url()).send().await.unwrap();
    assert_eq!(response.content_length(), Some(3));
    // Permits, calls and failures.
    let seen = || {
        let (mut held, mut judged) = (0, (0, 0));
        for layer in client.hosts().instances().swap_remove(0).handle().snapshot().layers {
            match layer.state {
                LayerState::Bulkhead(bulkhead) => held = bulkhead.in_use,
                LayerState::CircuitBreaker(circuit) => judged = (circuit.calls, circuit.failures),
                _ => {}
            }
        }
        (held, judged)
    };
    assert_eq!(response.chunk().await.unwrap().unwrap(), "o");
    assert_eq!(seen(), (2, (0, 0)));
    assert_eq!(response.chunk().await.unwrap().unwrap(), "n");
    assert_eq!(seen(), (0, (1, 0)), "the hedge has ended the call");
    assert_eq!(response.chunk().await.unwrap().unwrap(), "e");
    assert_eq!(response.chunk().await.unwrap(), None);
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn a_body_that_breaks_when_a_hedge_has_ended_its_call_is_an_error_for_its_reader() {
    let upstream = overtaken(&[(200, HEAD), (0, "o"), (600, "n")]).await;
    let client = Client::builder("outbound", reqwest::Client::new()).covers(Covers::StreamedBody);
    let client =
        client.each_host(|pipeline, _| pipeline.hedge(Hedge::builder().delay(HedgeDelay::fixed(ms(50)))).build());
    let response = client.build().unwrap().get(upstream.url()).send().await.unwrap();
    let error = response.text().await.unwrap_err();
    assert_eq!(classify_error(&error), Verdict::transient().label("http_body"), "{error:?}");
    let plain = acting(|_| Act::HalfABody).await;
    let plain = reqwest::get(plain.url()).await.unwrap().bytes().await.unwrap_err();
    assert_eq!(causes(&error).last(), causes(&plain).last(), "that of reading");
    assert_eq!(upstream.count(), 2);
}

/// Makes two attempts, looks away until both are answered, looks at both at once, and says what it is told to.
struct Twins {
    refuses: bool,
}

impl Describe for Twins {}

impl<T: Send, E: Send> Policy<T, E> for Twins {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let (mut one, mut two) = (pin!(op.attempt(cx)), pin!(op.attempt(cx)));
        let mut both = poll_fn(|task| match (one.as_mut().poll(task), two.as_mut().poll(task)) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            (Poll::Pending, Poll::Ready(outcome)) => Poll::Ready(outcome),
            (Poll::Ready(_), _) => panic!("the first waits for its body"),
        });
        assert!(timeout(ms(100), &mut both).await.is_err(), "both are sent, and not answered yet");
        sleep(ms(400)).await;
        let outcome = both.await;
        if self.refuses { Outcome::rejected(Rejection::new("twins", Reason::Shed)) } else { outcome }
    }
}

async fn twins(refuses: bool) -> Result<Response, Error<ReqwestError>> {
    let upstream = acting(|_| Act::Script(&[(250, HEAD), (0, "one")])).await;
    let client = Client::builder("outbound", reqwest::Client::new()).covers(Covers::StreamedBody);
    let client = client.each_host(move |pipeline, _| pipeline.layer(Twins { refuses }).build());
    client.build().unwrap().get(upstream.url()).send().await
}

#[tokio::test]
async fn of_two_answers_at_the_same_moment_one_is_the_callers() {
    let response = twins(false).await.unwrap();
    assert_eq!(response.content_length(), Some(3));
    assert_eq!(response.text().await.unwrap(), "one");
}

#[tokio::test]
async fn a_call_that_fails_at_the_moment_of_its_answer_has_failed() {
    let error = twins(true).await.unwrap_err();
    assert!(error.is_rejected(), "{error:?}");
}

#[tokio::test]
async fn what_a_fallback_makes_of_a_body_that_breaks_is_no_end_of_that_body() {
    let upstream = acting(|_| Act::HalfABody).await;
    let client = Client::builder("outbound", reqwest::Client::new()).covers(Covers::StreamedBody);
    let client = client.each_host(|pipeline, _| {
        let substitute = |_: &Error<ReqwestError>| Response::from(axum::http::Response::new("instead"));
        pipeline.fallback(Fallback::from_error(substitute)).build()
    });
    let mut response = client.build().unwrap().get(upstream.url()).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), LENGTH / 2);
    let error = response.chunk().await.unwrap_err();
    assert_eq!(causes(&error).last().unwrap(), "unexpected end of file", "{error:?}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_ended_by_the_timeout_even_if_there_is_always_more_to_read() {
    let upstream = acting(|_| Act::Flood).await;
    let client = with(Retry::builder(), 1).covers(Covers::StreamedBody).build().unwrap();
    let (began, mut response) = (Instant::now(), client.get(upstream.url()).send().await.unwrap());
    let error = loop {
        match response.chunk().await {
            Ok(chunk) => assert!(chunk.is_some() && began.elapsed() < ms(5000), "it goes on and on"),
            Err(error) => break error,
        }
        // A reader that is slower than the server: it never has to wait.
        sleep(ms(5)).await;
    };
    assert!(causes(&error).iter().any(|cause| cause.contains("timed out")), "{error:?}");
    assert_eq!((permits(&client, &upstream.url()).in_use, circuit(&client, &upstream.url()).failures), (0, 1));
}

/// Has something to do after each attempt, and tells when it is done.
struct Afterwards(Arc<AtomicBool>);

impl Describe for Afterwards {}

impl<T: Send, E: Send> Policy<T, E> for Afterwards {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let outcome = op.attempt(cx).await;
        sleep(ms(100)).await;
        self.0.store(true, Relaxed);
        outcome
    }
}

#[tokio::test]
async fn a_body_ends_when_its_call_does_and_not_before() {
    for (act, whole) in [(Act::Answer("hello"), true), (Act::HalfABody, false)] {
        let upstream = acting(move |_| act).await;
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let client = Client::builder("outbound", reqwest::Client::new()).covers(Covers::StreamedBody);
        let client = client.each_host(move |pipeline, _| pipeline.layer(Afterwards(told.clone())).build());
        let response = client.build().unwrap().get(upstream.url()).send().await.unwrap();
        assert!(!done.load(Relaxed));
        assert_eq!(response.bytes().await.is_ok(), whole);
        assert!(done.load(Relaxed));
    }
}

#[tokio::test]
async fn a_streamed_body_says_how_long_it_is() {
    let upstream = acting(|_| Act::Answer("hello")).await;
    let client = Client::new("outbound", reqwest::Client::new()).unwrap();
    let response = client.get(upstream.url()).covers(Covers::StreamedBody).send().await.unwrap();
    assert_eq!(response.content_length(), Some(5));
    assert_eq!(response.text().await.unwrap(), "hello");
}
