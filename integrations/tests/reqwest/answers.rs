//! What comes back, and what it leads to.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::Instant;
use withstand::Retry;

use super::{
    OK, UNAVAILABLE, circuit, ms, outbound, permits,
    upstream::{Upstream, answering},
    with,
};

/// Answers like this at first, and then all is well.
async fn once(status: StatusCode, headers: &'static [(&'static str, &'static str)]) -> Upstream {
    answering(move |number| async move {
        let mut response = axum::response::Response::new(axum::body::Body::from("hello"));
        if number == 1 {
            *response.status_mut() = status;
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
        }
        response
    })
    .await
}

#[tokio::test]
async fn an_unavailable_service_is_asked_again_after_as_many_seconds_as_it_says() {
    let upstream = once(UNAVAILABLE, &[("retry-after", "1")]).await;
    let (client, began) = (outbound().build().unwrap(), Instant::now());
    let response = client.get(upstream.url()).send().await.unwrap();
    assert_eq!(response.status(), OK);
    assert_eq!(response.url().as_str(), upstream.url());
    assert_eq!(response.text().await.unwrap(), "hello");
    assert!((ms(1000)..ms(1900)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn a_date_is_heeded_by_the_clock_of_the_server_however_wrong_that_is() {
    const BEHIND: &[(&str, &str)] =
        &[("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 07:28:01 GMT")];
    let upstream = once(UNAVAILABLE, BEHIND).await;
    let (client, began) = (outbound().build().unwrap(), Instant::now());
    assert_eq!(client.get(upstream.url()).send().await.unwrap().status(), OK);
    assert!((ms(1000)..ms(1900)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_post_that_was_throttled_is_repeated_and_no_circuit_counts_it() {
    let upstream = once(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "1")]).await;
    let (client, began) = (outbound().build().unwrap(), Instant::now());
    assert_eq!(client.post(upstream.url()).body("once").send().await.unwrap().status(), OK);
    assert!(began.elapsed() >= ms(1000), "{:?}", began.elapsed());
    assert_eq!(upstream.seen().iter().map(|request| request.body.as_str()).collect::<Vec<_>>(), ["once", "once"]);
    let circuit = circuit(&client, &upstream.url());
    assert_eq!((circuit.calls, circuit.failures), (1, 0));
}

#[tokio::test]
async fn a_post_that_failed_is_not_repeated_without_a_key_and_with_one_it_carries_the_same_each_time() {
    for keyed in [false, true] {
        let upstream = answering(|_| async { UNAVAILABLE }).await;
        let client = outbound().build().unwrap();
        let post = client.post(upstream.url()).json(&["a"]);
        let post = if keyed { post.idempotency_key() } else { post };
        assert_eq!(post.send().await.unwrap().status(), UNAVAILABLE);
        let seen = upstream.seen();
        if keyed {
            assert_eq!(seen.len(), 3);
            assert!(seen[0].key().is_some() && seen.iter().all(|request| request.key() == seen[0].key()), "{seen:?}");
            assert!(seen.iter().all(|request| request.body == "[\"a\"]"), "{seen:?}");
        } else {
            assert_eq!(seen.len(), 1);
        }
    }
}

#[tokio::test]
async fn two_calls_never_share_a_key_and_gets_need_none() {
    let upstream = answering(|_| async { OK }).await;
    let client = outbound().makes_idempotency_keys().build().unwrap();
    client.post(upstream.url()).send().await.unwrap();
    client.post(upstream.url()).send().await.unwrap();
    client.post(upstream.url()).header("Idempotency-Key", "mine").send().await.unwrap();
    client.get(upstream.url()).send().await.unwrap();
    let seen = upstream.seen();
    assert!(seen[0].key().is_some() && seen[1].key().is_some() && seen[0].key() != seen[1].key(), "{seen:?}");
    assert_eq!((seen[2].key(), seen[3].key()), (Some("mine"), None));
}

#[tokio::test]
async fn answers_that_nothing_would_change_are_asked_for_once() {
    for (status, failures) in [(StatusCode::NOT_FOUND, 0), (StatusCode::NOT_IMPLEMENTED, 1)] {
        let upstream = answering(move |_| async move { status }).await;
        let client = outbound().build().unwrap();
        assert_eq!(client.get(upstream.url()).send().await.unwrap().status(), status);
        assert_eq!(upstream.count(), 1);
        assert_eq!(circuit(&client, &upstream.url()).failures, failures, "{status}");
    }
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up_and_holds_nothing() {
    let upstream = answering(|_| async { std::future::pending::<StatusCode>().await }).await;
    let client = with(Retry::builder().max_attempts(2), 1).build().unwrap();
    let error = client.get(upstream.url()).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(upstream.count(), 2);
    assert_eq!(permits(&client, &upstream.url()).in_use, 0);
    assert_eq!(circuit(&client, &upstream.url()).failures, 2);
}

#[tokio::test]
async fn a_timeout_of_reqwest_s_own_limits_an_attempt() {
    let upstream = answering(|number| async move {
        if number == 1 {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        OK
    })
    .await;
    let client = outbound().build().unwrap();
    let response = client.get(upstream.url()).map(|request| request.timeout(ms(100))).send().await;
    assert_eq!(response.unwrap().status(), OK);
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn each_attempt_tells_the_server_how_much_time_is_left() {
    let upstream = once(UNAVAILABLE, &[]).await;
    let client = outbound().deadline_header("X-Request-Timeout-Ms").build().unwrap();
    client.get(upstream.url()).send().await.unwrap();
    client.get(upstream.url()).deadline(Instant::now() + ms(100)).send().await.unwrap();
    let left: Vec<u64> = upstream
        .seen()
        .iter()
        .map(|seen| seen.headers["x-request-timeout-ms"].to_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(left.len(), 3);
    assert!(left[..2].iter().all(|left| (100..=400).contains(left)) && left[2] <= 100, "{left:?}");
}
