//! Bodies that break, in both directions.

use std::{
    io,
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
};

use http_body::Frame;
use reqwest::Body;
use withstand::{
    Error, Reason, Retry, Verdict,
    reqwest::{Covers, classify_error},
};

use super::{
    OK, UNAVAILABLE, causes, circuit, ms, outbound, permits, repeats, shared,
    upstream::{Act, LENGTH, acting, answering},
    with,
};

const BUFFERED: Covers = Covers::BufferedBody { up_to: 1000 };

#[tokio::test]
async fn a_body_that_breaks_is_the_callers_to_deal_with_if_the_call_is_about_the_head() {
    let upstream = acting(|_| Act::HalfABody).await;
    let client = outbound().build().unwrap();
    let response = client.get(upstream.url()).send().await.unwrap();
    assert_eq!(response.status(), OK);
    let error = response.text().await.unwrap_err();
    assert_eq!(classify_error(&error), Verdict::transient().label("http_body"), "{error:?}");
    let circuit = circuit(&client, &upstream.url());
    assert_eq!((upstream.count(), circuit.calls, circuit.failures), (1, 1, 0));
}

#[tokio::test]
async fn a_body_that_breaks_is_fetched_again_if_it_is_buffered() {
    let upstream = acting(|number| if number < 3 { Act::HalfABody } else { Act::Answer("all of it") }).await;
    let client = outbound().covers(BUFFERED).build().unwrap();
    let response = client.get(upstream.url()).send().await.unwrap();
    assert_eq!(response.url().as_str(), upstream.url());
    assert_eq!(response.text().await.unwrap(), "all of it");
    let circuit = circuit(&client, &upstream.url());
    assert_eq!((upstream.count(), circuit.calls, circuit.failures), (3, 3, 2));
}

#[tokio::test]
async fn the_error_of_a_body_is_that_of_the_call_if_it_is_buffered() {
    let upstream = acting(|_| Act::HalfABody).await;
    let client = outbound().build().unwrap();
    // Not repeated, because it is a POST.
    let error = client.post(upstream.url()).covers(BUFFERED).send().await.unwrap_err();
    assert_eq!(classify_error(error.operation().unwrap()), Verdict::transient().label("http_body"), "{error:?}");
    assert_eq!(upstream.count(), 1);
    let hung = acting(|_| Act::HangInBody).await;
    let error = client.post(hung.url()).covers(BUFFERED).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn a_body_that_is_longer_than_what_is_buffered_comes_whole_all_the_same() {
    let long = || "0123456789".repeat(100_000);
    let upstream = answering(move |_| async move { long() }).await;
    let client = outbound().build().unwrap();
    for up_to in [0, 1, 4096, 999_999, 1_000_000, usize::MAX] {
        let response = client.get(upstream.url()).covers(Covers::BufferedBody { up_to }).send().await.unwrap();
        assert_eq!(response.content_length(), Some(1_000_000), "{up_to}");
        assert!(response.text().await.unwrap() == long(), "{up_to}");
    }
}

#[tokio::test]
async fn a_streamed_body_holds_its_permit_until_it_is_read() {
    let upstream = answering(|_| async { "hello" }).await;
    let client = with(Retry::builder(), 1).build().unwrap();
    let url = upstream.url();
    let streamed = || client.get(&url).covers(Covers::StreamedBody).send();

    let response = streamed().await.unwrap();
    assert_eq!((permits(&client, &url).in_use, circuit(&client, &url).calls), (1, 0));
    let refused = streamed().await.unwrap_err();
    assert!(matches!(&refused, Error::Rejected(rejection) if rejection.reason() == Reason::BulkheadFull), "{refused}");
    assert_eq!(response.url().as_str(), url);
    assert_eq!(response.text().await.unwrap(), "hello");
    assert_eq!((permits(&client, &url).in_use, circuit(&client, &url).calls), (0, 1));

    // Dropped halfway, it gives its permit back and says nothing about the host.
    drop(streamed().await.unwrap());
    assert_eq!((permits(&client, &url).in_use, circuit(&client, &url).calls), (0, 1));
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn a_streamed_body_that_breaks_is_the_outcome_and_not_fetched_again() {
    let upstream = acting(|_| Act::HalfABody).await;
    let (repeats, observer) = repeats();
    let client = outbound().covers(Covers::StreamedBody).observer(observer).build().unwrap();
    let mut response = client.get(upstream.url()).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), LENGTH / 2);
    assert_eq!(circuit(&client, &upstream.url()).calls, 0);
    let error = response.chunk().await.unwrap_err();
    assert_eq!(classify_error(&error), Verdict::transient().label("http_body"), "{error:?}");
    // It is that of reading, as without a pipeline, and not one that says only that the call has failed.
    let plain = reqwest::get(upstream.url()).await.unwrap().bytes().await.unwrap_err();
    assert_eq!(causes(&error).last(), causes(&plain).last());
    assert!(!causes(&error).contains(&"the operation failed".to_owned()), "{error:?}");
    let circuit = circuit(&client, &upstream.url());
    assert_eq!((upstream.count(), circuit.calls, circuit.failures, repeats.load(Relaxed)), (2, 1, 1, 0));
    assert_eq!(permits(&client, &upstream.url()).in_use, 0);
}

#[tokio::test]
async fn a_streamed_body_that_hangs_is_ended_by_the_timeout_of_its_attempt() {
    let upstream = acting(|_| Act::HangInBody).await;
    let client = with(Retry::builder(), 1).covers(Covers::StreamedBody).build().unwrap();
    let response = client.get(upstream.url()).send().await.unwrap();
    let error = response.bytes().await.unwrap_err();
    assert!(causes(&error).iter().any(|cause| cause.contains("timed out")), "{error:?}");
    let circuit = circuit(&client, &upstream.url());
    assert_eq!((upstream.count(), circuit.failures), (1, 1));
    assert_eq!(permits(&client, &upstream.url()).in_use, 0);
}

#[tokio::test]
async fn an_answer_that_is_a_failure_ends_its_call_with_its_head() {
    let upstream = answering(|_| async { (UNAVAILABLE, "why") }).await;
    let client = outbound().covers(Covers::StreamedBody).build().unwrap();
    let response = client.get(upstream.url()).send().await.unwrap();
    assert_eq!((upstream.count(), circuit(&client, &upstream.url()).failures), (3, 3));
    assert_eq!(permits(&client, &upstream.url()).in_use, 0);
    assert_eq!(response.text().await.unwrap(), "why");
}

#[tokio::test]
async fn a_task_can_send_and_read() {
    let upstream = answering(|_| async { "hello" }).await;
    let client = shared(outbound().covers(Covers::StreamedBody).build().unwrap());
    let url = upstream.url();
    let call = tokio::spawn(async move { client.get(url).send().await.unwrap().text().await.unwrap() });
    assert_eq!(call.await.unwrap(), "hello");
}

/// A body that can be sent once: its text, and then an error if it is a broken one.
struct Stream {
    text: Option<&'static str>,
    broken: bool,
}

impl http_body::Body for Stream {
    type Data = <Body as http_body::Body>::Data;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, io::Error>>> {
        match self.text.take() {
            Some(text) => Poll::Ready(Some(Ok(Frame::data(text.into())))),
            None if self.broken => Poll::Ready(Some(Err(io::Error::other("the file is gone")))),
            None => Poll::Ready(None),
        }
    }
}

fn stream(broken: bool) -> Body {
    Body::wrap(Stream { text: Some("streamed"), broken })
}

#[tokio::test]
async fn a_request_whose_body_is_a_stream_is_sent_once_whatever_comes_back() {
    let unavailable = answering(|_| async { UNAVAILABLE }).await;
    let throttled = answering(|_| async { axum::http::StatusCode::TOO_MANY_REQUESTS }).await;
    let reset = acting(|_| Act::Reset).await;
    for covers in [Covers::Head, BUFFERED, Covers::StreamedBody] {
        for upstream in [&unavailable, &throttled, &reset] {
            let before = upstream.count();
            let (repeats, observer) = repeats();
            let client = outbound().observer(observer).build().unwrap();
            // Even with a key, and with a method that could be repeated.
            drop(client.put(upstream.url()).idempotency_key().body(stream(false)).covers(covers).send().await);
            assert_eq!((upstream.count() - before, repeats.load(Relaxed)), (1, 0));
        }
    }
    assert_eq!(unavailable.seen()[0].body, "streamed");
}

#[tokio::test]
async fn a_request_whose_body_is_a_stream_is_tried_once_where_nobody_listens() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (repeats, observer) = repeats();
    let client = outbound().observer(observer).build().unwrap();
    let error = client.post(format!("http://{gone}/")).body(stream(false)).send().await.unwrap_err();
    assert_eq!(classify_error(error.operation().unwrap()), Verdict::unreached().label("http_connect"));
    assert_eq!((circuit(&client, &format!("http://{gone}/")).calls, repeats.load(Relaxed)), (1, 0));
}

#[tokio::test]
async fn a_stream_that_was_not_sent_yet_can_still_be_after_a_refusal_of_ours() {
    let upstream = answering(|_| async { "hello" }).await;
    let client = with(Retry::builder().retry_rejected().max_attempts(20), 1).build().unwrap();
    let url = upstream.url();
    let held = client.get(&url).covers(Covers::StreamedBody).send().await.unwrap();
    let call = tokio::spawn(client.post(&url).body(stream(false)).send());
    tokio::time::sleep(ms(30)).await;
    drop(held);
    assert_eq!(call.await.unwrap().unwrap().status(), OK);
    assert_eq!(upstream.seen()[1].body, "streamed");
}

#[tokio::test]
async fn a_stream_of_the_caller_that_breaks_is_held_against_nobody() {
    let upstream = answering(|_| async { OK }).await;
    let client = outbound().build().unwrap();
    let error = client.post(upstream.url()).body(stream(true)).send().await.unwrap_err();
    assert_eq!(classify_error(error.operation().unwrap()), Verdict::ignored().label("http_request_body"), "{error:?}");
    assert_eq!(circuit(&client, &upstream.url()).calls, 0);
}

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be_is_a_failure() {
    let upstream = answering(|_| async { "no JSON" }).await;
    let client = outbound().build().unwrap();
    let error = client.get(upstream.url()).send().await.unwrap().json::<Vec<u32>>().await.unwrap_err();
    assert_eq!(classify_error(&error), Verdict::failure().label("http_decode"), "{error:?}");
}
