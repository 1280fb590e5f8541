//! Hedged requests.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::sleep;
use withstand::{
    Bulkhead, Hedge, HedgeDelay, Timeout, layers,
    reqwest::{Client, ClientBuilder, Covers},
};

use super::{
    OK, ms, repeats,
    upstream::{Act, acting, answering},
};

type Hedged = ClientBuilder<layers![Hedge, Bulkhead, Timeout]>;

fn hedged() -> Hedged {
    Client::builder("outbound", reqwest::Client::new()).each_host(|pipeline, _| {
        pipeline
            .hedge(Hedge::builder().delay(HedgeDelay::fixed(ms(50))))
            .bulkhead(Bulkhead::builder().limit(10))
            .timeout(Duration::from_secs(2))
            .build()
    })
}

/// The first request takes so long that another is sent.
async fn slow_at_first() -> super::upstream::Upstream {
    answering(|number| async move {
        if number == 1 {
            sleep(ms(500)).await;
        }
        format!("answer {number}")
    })
    .await
}

#[tokio::test]
async fn a_post_is_hedged_only_with_a_key_which_both_carry() {
    for keyed in [false, true] {
        let upstream = slow_at_first().await;
        let client = hedged().build().unwrap();
        let post = client.post(upstream.url());
        let response = if keyed { post.idempotency_key().send().await } else { post.send().await };
        let text = response.unwrap().text().await.unwrap();
        let seen = upstream.seen();
        if keyed {
            assert_eq!((text.as_str(), seen.len()), ("answer 2", 2));
            assert!(seen[0].key().is_some() && seen[0].key() == seen[1].key(), "{seen:?}");
        } else {
            assert_eq!((text.as_str(), seen.len()), ("answer 1", 1));
        }
    }
}

#[tokio::test]
async fn a_stream_is_never_hedged() {
    let upstream = slow_at_first().await;
    let body = reqwest::Body::wrap("a body that is not said to be one that can be cloned".to_owned());
    let (repeats, observer) = repeats();
    let response = hedged().observer(observer).build().unwrap().put(upstream.url()).body(body).send().await.unwrap();
    assert_eq!((response.text().await.unwrap().as_str(), upstream.count(), repeats.load(Relaxed)), ("answer 1", 1, 0));
}

#[tokio::test]
async fn a_hedge_that_is_first_streams_its_body_to_the_end() {
    let upstream = slow_at_first().await;
    let client = hedged().covers(Covers::StreamedBody).build().unwrap();
    let response = client.get(upstream.url()).send().await.unwrap();
    assert_eq!((response.status(), upstream.count()), (OK, 2));
    assert_eq!(response.text().await.unwrap(), "answer 2");
    let host = client.hosts().instances().swap_remove(0);
    let snapshot = format!("{:?}", host.handle().snapshot());
    assert!(snapshot.contains("in_use: 0"), "{snapshot}");
}

#[tokio::test]
async fn nothing_is_sent_behind_the_back_of_who_reads_a_body() {
    // Half of it comes at once, and then nothing for longer than the delay.
    let upstream = acting(|_| Act::HangInBody).await;
    let client = hedged().covers(Covers::StreamedBody).build().unwrap();
    let mut response = client.get(upstream.url()).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    let rest = tokio::time::timeout(ms(300), response.chunk()).await;
    assert!(rest.is_err(), "{rest:?}");
    assert_eq!(upstream.count(), 1);
}
