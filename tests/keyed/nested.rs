//! Keyed policies inside another pipeline.

use std::sync::Mutex;

use tokio::time::Instant;
use withstand::{
    Backoff, CallOptions, CircuitBreaker, ClassifyErrors, Jitter, Keyed, Pipeline, Reason, Rejection, Retry, Timeout,
    Verdict, VerdictKind, layers,
};

use super::brittle;
use crate::support::{Script, as_it_says, ms, secs};

type Layers = layers![Option<Retry>, CircuitBreaker, Timeout];
type Classifier = ClassifyErrors<fn(&Verdict) -> Verdict>;

fn retry(attempts: u32) -> withstand::RetryBuilder {
    let backoff = Backoff::constant(ms(10)).jitter(Jitter::None);
    Retry::builder().max_attempts(attempts).backoff(backoff).without_budget()
}

/// A pipeline for each host, with so many attempts. A single one needs no retry, which would have the last word.
fn hosts(attempts: u32) -> Keyed<String, Pipeline<Layers, Classifier>> {
    Keyed::builder(move |_| {
        Pipeline::builder("host")
            .layer((attempts > 1).then(|| retry(attempts).build()).transpose()?)
            .circuit_breaker(brittle()?)
            .timeout(secs(1))
            .classify_errors(as_it_says as fn(&Verdict) -> Verdict)
            .build()
    })
    .build()
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_verdict_of_a_hosts_pipeline_is_the_one_that_is_seen_outside() {
    let (hosts, service) = (hosts(1), Pipeline::builder("service").retry(retry(2).max_hint(secs(5))).build().unwrap());
    let throttled = Script::always(Err(Verdict::throttled().retry_after(secs(2))));
    let before = Instant::now();
    let answer = service.forward(|| async { hosts.get("a").outcome(|| throttled.attempt()).await }).await;
    assert_eq!(answer.unwrap_err().operation().map(Verdict::kind), Some(VerdictKind::Throttled));
    assert_eq!(throttled.attempts(), 2);
    assert!(before.elapsed() >= secs(2), "the hint came through");

    let fine = Script::always(Err(Verdict::success()));
    service.forward(|| async { hosts.get("a").outcome(|| fine.attempt()).await }).await.unwrap_err();
    assert_eq!(fine.attempts(), 1, "nothing to repeat");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_one_hosts_circuit_is_no_failure_to_a_breaker_outside() {
    let (hosts, outside) = (hosts(1), brittle().unwrap());
    let service = Pipeline::builder("service").circuit_breaker(std::sync::Arc::new(outside)).build().unwrap();
    let down = Script::always(Err(Verdict::transient()));
    hosts.get("a").call(|| down.attempt()).await.unwrap_err();
    for _ in 0..3 {
        let error = service.forward(|| async { hosts.get("a").outcome(|| down.attempt()).await }).await.unwrap_err();
        assert_eq!(error.rejection().map(Rejection::reason), Some(Reason::CircuitOpen));
    }
    let fine = Script::always(Ok(7));
    assert_eq!(service.forward(|| async { hosts.get("b").outcome(|| fine.attempt()).await }).await, Ok(7));
    assert_eq!(down.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_outside_goes_from_a_host_that_is_down_to_one_that_is_not() {
    let (hosts, asked) = (&hosts(1), &Mutex::new(Vec::new()));
    let retry = retry(3).retry_rejected().max_hint(ms(0));
    let service = Pipeline::builder("service").timeout(secs(1)).retry(retry).build().unwrap();
    let before = Instant::now();
    let call = || {
        service.forward_with(CallOptions::new(), |attempt| async move {
            let host = ["a", "b"][(attempt.number() as usize - 1) % 2];
            let ask = || async {
                asked.lock().unwrap().push(host);
                if host == "a" { Err(Verdict::transient()) } else { Ok(host) }
            };
            hosts.get(host).outcome(ask).await
        })
    };
    assert_eq!(call().await, Ok("b"));
    assert_eq!(call().await, Ok("b"));
    assert_eq!(*asked.lock().unwrap(), ["a", "b", "b"], "the second call is refused by the circuit of the first host");
    assert!(before.elapsed() < ms(50), "nobody waits for the end of a break");
}

#[tokio::test(start_paused = true)]
async fn what_a_retry_inside_has_given_up_on_is_not_repeated_outside() {
    let (hosts, service) = (hosts(3), Pipeline::builder("service").retry(retry(3)).build().unwrap());
    let throttled = Script::always(Err(Verdict::throttled()));
    service.forward(|| async { hosts.get("a").outcome(|| throttled.attempt()).await }).await.unwrap_err();
    assert_eq!(throttled.attempts(), 3);
}
