//! Policies that several pipelines share, and pipelines inside others.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use withstand::{
    Bulkhead, BulkheadConfig, CircuitBreaker, CircuitBreakerConfig, Hedge, HedgeDelay, Pipeline, PipelineConfig,
    Registry, Retry, RetryConfig, TimeoutConfig,
};

use super::{Tune, settings};
use crate::support::{Log, ms, secs};

/// How long a probe may be out: opens the circuit, and lets one hang.
async fn lease(breaker: &CircuitBreaker) -> Duration {
    breaker.reset();
    breaker.admit().unwrap().failure("");
    sleep(secs(5)).await;
    let _probe = breaker.admit().unwrap();
    let begin = Instant::now();
    breaker.subscribe().changed().await;
    begin.elapsed()
}

fn breaker() -> Arc<CircuitBreaker> {
    Arc::new(CircuitBreaker::builder().count_window(1).min_calls(1).probes(1).build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_not_given_follows_what_is_inside_up_and_down() {
    let breaker = breaker();
    let users = Pipeline::builder("users").circuit_breaker(breaker.clone()).timeout(secs(20)).build().unwrap();
    assert_eq!(lease(&breaker).await, secs(40));
    users.handle().tuned(TimeoutConfig::new(secs(50)));
    assert_eq!(lease(&breaker).await, secs(100));
    users.handle().tuned(TimeoutConfig::new(secs(6)));
    assert_eq!(lease(&breaker).await, secs(12));
    users.handle().tuned(settings!(CircuitBreakerConfig { probe_lease: secs(7) }));
    users.handle().tuned(TimeoutConfig::new(secs(5)));
    assert_eq!(lease(&breaker).await, secs(7), "one that was given does not");
}

#[tokio::test(start_paused = true)]
async fn a_shared_breaker_follows_the_slowest_of_its_pipelines() {
    let breaker = breaker();
    let build =
        |limit| Pipeline::builder("users").circuit_breaker(breaker.clone()).timeout(secs(limit)).build().unwrap();
    let (fast, slow) = (build(10), build(30));
    assert_eq!(lease(&breaker).await, secs(60));
    fast.handle().tuned(TimeoutConfig::new(secs(15)));
    assert_eq!(lease(&breaker).await, secs(60), "of the slow one, which did not change");
    slow.handle().tuned(TimeoutConfig::new(secs(20)));
    assert_eq!(lease(&breaker).await, secs(40));
    drop(slow);
    fast.handle().tuned(TimeoutConfig::new(secs(10)));
    assert_eq!(lease(&breaker).await, secs(20), "one that is gone counts no more");
}

#[tokio::test(start_paused = true)]
async fn a_shared_hedge_follows_the_fastest_of_its_pipelines() {
    let hedge = Arc::new(Hedge::builder().delay(HedgeDelay::quantile(0.9).starting(secs(99))).build().unwrap());
    let build = |limit| Pipeline::builder("users").hedge(hedge.clone()).timeout(secs(limit)).build().unwrap();
    let (fast, slow) = (build(2), build(30));
    assert_eq!(hedge.current_delay(), Some(secs(1)));
    slow.handle().tuned(TimeoutConfig::new(secs(20)));
    assert_eq!(hedge.current_delay(), Some(secs(1)));
    fast.handle().tuned(TimeoutConfig::new(secs(50)));
    assert_eq!(hedge.current_delay(), Some(secs(10)));
}

#[tokio::test(start_paused = true)]
async fn what_follows_in_an_outer_pipeline_follows_the_inner_one() {
    let breaker = breaker();
    let inner = Arc::new(Pipeline::builder("inner").timeout(secs(20)).build().unwrap());
    let outer = Pipeline::builder("outer").circuit_breaker(breaker.clone()).layer(inner.clone()).build().unwrap();
    assert_eq!(lease(&breaker).await, secs(40));
    inner.handle().tuned(TimeoutConfig::new(secs(30)));
    assert_eq!(lease(&breaker).await, secs(60), "though it was changed through the inner one");
    let inside = settings!(TimeoutConfig { name: "inner/timeout".to_owned(), limit: secs(6) });
    assert_eq!(outer.handle().tuned(inside), ["inner/timeout: limit 30s -> 6s"]);
    assert_eq!(lease(&breaker).await, secs(12));
    assert!(inner.explain().to_string().contains("limit 6s"));
}

#[test]
fn what_one_pipeline_would_take_and_another_that_shares_it_would_not_is_refused() {
    let shared = Arc::new(Bulkhead::builder().limit(5).queue(5).max_wait(ms(50)).build().unwrap());
    let patient = Pipeline::builder("patient").timeout(secs(9)).bulkhead(shared.clone()).build().unwrap();
    let _hasty = Pipeline::builder("hasty").timeout(ms(100)).bulkhead(shared.clone()).build().unwrap();
    let wait = |wait| settings!(BulkheadConfig { max_wait: wait });
    assert_eq!(
        patient.handle().refusal(wait(ms(100))),
        "pipeline `hasty`, policy `bulkhead`: max_wait is 100ms; accepted: less than 100ms, the limit of the timeout \
         `timeout` around it"
    );
    patient.handle().tuned(wait(ms(99)));

    let inner = Arc::new(Pipeline::builder("inner").timeout(secs(1)).build().unwrap());
    let _outer = Pipeline::builder("outer").timeout(secs(2)).layer(inner.clone()).build().unwrap();
    assert_eq!(
        inner.handle().refusal(TimeoutConfig::new(secs(2))),
        "pipeline `outer`, policy `inner/timeout`: limit is 2s; accepted: less than 2s, the limit of the timeout \
         `timeout` around it"
    );
}

#[test]
fn a_shared_policy_changes_once_and_all_observers_hear_of_it() {
    let log = Log::new();
    let shared = Arc::new(Bulkhead::builder().limit(5).build().unwrap());
    let build = |name| Pipeline::builder(name).bulkhead(shared.clone()).observer(log.clone()).build().unwrap();
    let _all = [build("sharing"), build("sharing"), build("beside")];
    let config = PipelineConfig::new("sharing").layer(settings!(BulkheadConfig { limit: 6 }));
    let changes = Registry::global().update(&config).unwrap();
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["bulkhead: limit 5 -> 6"]);
    let heard: Vec<_> = log.all().into_iter().map(|heard| (heard.pipeline.unwrap(), heard.kind)).collect();
    let told_by = |name: &str, what: &str| {
        heard.iter().filter(|(by, kind)| by == name && format!("{kind:?}").starts_with(what)).count()
    };
    for what in ["Reconfigured", "LimitChanged"] {
        assert_eq!((told_by("sharing", what), told_by("beside", what)), (2, 1), "{what}");
    }
}

#[test]
fn the_observers_of_both_hear_of_a_pipeline_inside_another() {
    let (inside, outside) = (Log::new(), Log::new());
    let inner = Arc::new(Pipeline::builder("inner").retry(Retry::builder()).observer(inside.clone()).build().unwrap());
    let _outer = Pipeline::builder("outer").layer(inner.clone()).observer(outside.clone()).build().unwrap();
    inner.handle().tuned(settings!(RetryConfig { max_attempts: 2 }));
    let heard = |log: &Log| {
        let line = |heard: crate::support::Heard| (heard.pipeline.unwrap(), heard.policy.unwrap());
        log.all().into_iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(heard(&inside), [("inner".to_owned(), "retry".to_owned())]);
    assert_eq!(heard(&outside), [("outer".to_owned(), "inner/retry".to_owned())]);
}

#[test]
fn one_policy_in_two_places_is_asked_for_once() {
    let shared = Arc::new(Bulkhead::builder().limit(5).build().unwrap());
    let inner = Pipeline::builder("inner").bulkhead(shared.clone()).build().unwrap();
    let outer = Pipeline::builder("outer").bulkhead(shared.clone()).layer(inner).build().unwrap();
    let limit = |name: &str, limit| settings!(BulkheadConfig { name: name.to_owned(), limit: limit }).into();
    let error = outer.handle().tune([limit("bulkhead", 6), limit("inner/bulkhead", 7)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pipeline `outer`: layers is `bulkhead` and `inner/bulkhead`, which are one policy; accepted: each policy once"
    );
    assert_eq!(shared.limit(), 5);
}
