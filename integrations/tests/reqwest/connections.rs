//! Connections that are reset, refused, or go nowhere.

use std::{error::Error as _, net::TcpListener};

use axum::http::Method;
use reqwest::{
    Client as Plain,
    dns::{Name, Resolve, Resolving},
};
use withstand::{Backoff, Retry, Verdict, reqwest::classify_error};

use super::{
    OK, circuit, ms, outbound,
    upstream::{Act, acting, answering_on},
};

#[tokio::test]
async fn a_get_is_repeated_after_a_reset_and_a_post_is_not() {
    for (method, expected) in [(Method::GET, 2), (Method::PUT, 2), (Method::POST, 1), (Method::PATCH, 1)] {
        let upstream = acting(|number| if number == 1 { Act::Reset } else { Act::Answer("hello") }).await;
        let client = outbound().build().unwrap();
        let result = client.request(method.clone(), upstream.url()).body("x").send().await;
        assert_eq!(upstream.count(), expected, "{method}");
        if expected > 1 {
            assert_eq!(result.unwrap().text().await.unwrap(), "hello", "{method}");
        } else {
            let error = result.unwrap_err();
            let error = error.operation().expect("reqwest's own error");
            assert_eq!(classify_error(error), Verdict::transient().label("http_request"), "{:?}", error.source());
            // It is held against the host all the same.
            assert_eq!(circuit(&client, &upstream.url()).failures, 1);
        }
    }
}

#[tokio::test]
async fn a_post_with_a_key_is_repeated_after_a_reset_with_the_same_key() {
    let upstream = acting(|number| if number == 1 { Act::Reset } else { Act::Answer("paid") }).await;
    let client = outbound().build().unwrap();
    let response = client.post(upstream.url()).body("7 EUR").idempotency_key().send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "paid");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].key().is_some() && seen[0].key() == seen[1].key(), "{seen:?}");
    assert_eq!(seen[0].body, seen[1].body);
}

/// Never finds anybody.
struct Nowhere;

impl Resolve for Nowhere {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(std::future::pending())
    }
}

/// A port where nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_post_is_repeated_after_a_refused_connection_since_nothing_was_done() {
    let port = free_port();
    let retry = Retry::builder().max_attempts(10).backoff(Backoff::constant(ms(100)));
    let client = withstand::reqwest::Client::builder("outbound", Plain::new())
        .each_host(move |pipeline, _| pipeline.retry(retry.clone()).build())
        .build()
        .unwrap();
    let call = tokio::spawn(client.post(format!("http://127.0.0.1:{port}/")).body("7 EUR").send());
    tokio::time::sleep(ms(150)).await;
    assert!(!call.is_finished());
    let upstream = answering_on(&format!("127.0.0.1:{port}"), |_| async { OK }).await;
    assert_eq!(call.await.unwrap().unwrap().status(), OK);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn errors_of_a_connection_that_never_was_are_unreached() {
    let refused = Plain::new().get(format!("http://127.0.0.1:{}/", free_port())).send().await.unwrap_err();
    assert_eq!(classify_error(&refused), Verdict::unreached().label("http_connect"), "{refused:?}");

    let unknown = Plain::new().get("http://nobody.invalid/").send().await.unwrap_err();
    assert_eq!(classify_error(&unknown), Verdict::unreached().label("http_dns"), "{unknown:?}");

    // The time to connect is up before anybody was reached: no mere timeout, after which a POST might have been done.
    let lost = Plain::builder().connect_timeout(ms(50)).dns_resolver(Nowhere).build().unwrap();
    let lost = lost.get("http://lost.example/").send().await.unwrap_err();
    assert!(lost.is_timeout());
    assert_eq!(classify_error(&lost), Verdict::unreached().label("http_connect"), "{lost:?}");
}

#[tokio::test]
async fn mistakes_of_the_caller_are_held_against_nobody() {
    let client = outbound().build().unwrap();
    for wrong in ["no url", "/relative", "data:,hello", "http://"] {
        let error = client.get(wrong).send().await.unwrap_err();
        let error = error.operation().expect("reqwest's own error");
        assert_eq!(classify_error(error), Verdict::ignored().label("http_builder"), "{wrong}: {error:?}");
    }
    assert!(client.hosts().is_empty());
}

#[tokio::test]
async fn redirects_that_go_in_circles_are_a_failure_and_not_repeated() {
    let upstream = super::upstream::answering(|_| async { axum::response::Redirect::temporary("/") }).await;
    let client = outbound().build().unwrap();
    let error = client.get(upstream.url()).send().await.unwrap_err();
    assert_eq!(classify_error(error.operation().unwrap()), Verdict::failure().label("http_redirect"));
    // The ten that reqwest follows, in one attempt.
    assert_eq!(upstream.count(), 11);
}

#[tokio::test]
async fn a_status_that_was_made_an_error_is_judged_as_the_status() {
    let upstream = super::upstream::answering(|_| async { super::UNAVAILABLE }).await;
    let error = Plain::new().get(upstream.url()).send().await.unwrap().error_for_status().unwrap_err();
    assert_eq!(classify_error(&error), Verdict::transient().label("http_503"));
}
