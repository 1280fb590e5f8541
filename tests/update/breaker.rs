//! Thresholds, breaks and phases of a circuit breaker. Counts and states are kept.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, advance, sleep};
use withstand::{
    CircuitBreaker, CircuitBreakerBuilder, CircuitBreakerConfig, CircuitState, Pipeline, Recorded, layers,
};

use super::{Tune, settings};
use crate::support::{ms, secs};

type Users = Pipeline<layers![Arc<CircuitBreaker>]>;

fn users(breaker: CircuitBreakerBuilder) -> (Users, Arc<CircuitBreaker>) {
    let breaker = Arc::new(breaker.build().unwrap());
    (Pipeline::builder("users").circuit_breaker(breaker.clone()).build().unwrap(), breaker)
}

fn counting(calls: u32) -> CircuitBreakerBuilder {
    CircuitBreaker::builder().count_window(calls)
}

fn succeed(breaker: &CircuitBreaker) -> Recorded {
    breaker.admit().unwrap().success()
}

fn fail(breaker: &CircuitBreaker) -> Recorded {
    breaker.admit().unwrap().failure("")
}

fn open_for(breaker: &CircuitBreaker) -> Duration {
    match breaker.state() {
        CircuitState::Open { retry_after, .. } => retry_after,
        state => panic!("it is {state}"),
    }
}

/// Opens it by failures, or again by failed probes.
fn open(breaker: &CircuitBreaker) -> Duration {
    while !breaker.state().is_open() {
        fail(breaker);
    }
    open_for(breaker)
}

#[tokio::test(start_paused = true)]
async fn thresholds_change_and_the_counts_are_kept() {
    let (users, breaker) = users(counting(100).min_calls(50).failure_rate(0.9));
    for _ in 0..5 {
        fail(&breaker);
    }
    for _ in 0..5 {
        succeed(&breaker);
    }
    assert_eq!(
        users.handle().tuned(settings!(CircuitBreakerConfig { min_calls: 10 })),
        ["circuit_breaker: min_calls 50 -> 10"]
    );
    let seen = breaker.snapshot();
    assert_eq!((seen.calls, seen.failures, seen.failure_rate), (10, 5, Some(0.5)));
    fail(&breaker);
    assert!(breaker.state().is_closed(), "6 of 11 are fewer than 90 %");
    assert_eq!(
        users.handle().tuned(settings!(CircuitBreakerConfig { failure_rate: 0.5 })),
        ["circuit_breaker: failure_rate 0.9 -> 0.5"]
    );
    assert!(breaker.state().is_closed(), "with the next completion, not by itself");
    succeed(&breaker);
    let opening = breaker.snapshot().opening.unwrap();
    assert_eq!((opening.calls, opening.failure_rate), (12, 0.5));
}

#[tokio::test(start_paused = true)]
async fn raising_a_threshold_keeps_what_would_have_opened_it_from_opening_it() {
    let (users, breaker) = users(counting(100).min_calls(4));
    for _ in 0..3 {
        fail(&breaker);
    }
    users.handle().tuned(settings!(CircuitBreakerConfig { min_calls: 6 }));
    fail(&breaker);
    fail(&breaker);
    assert!(breaker.state().is_closed());
    fail(&breaker);
    assert!(breaker.state().is_open());
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_and_their_span() {
    let (users, breaker) = users(CircuitBreaker::builder().consecutive_failures(10));
    let tuned = |config| users.handle().tuned(config);
    for _ in 0..3 {
        fail(&breaker);
    }
    assert_eq!(
        tuned(settings!(CircuitBreakerConfig { consecutive_failures: 4 })),
        ["circuit_breaker: consecutive_failures 10 -> 4"]
    );
    fail(&breaker);
    assert!(breaker.state().is_closed(), "4 in a row, but in no time");
    assert_eq!(
        tuned(settings!(CircuitBreakerConfig { consecutive_span: secs(0) })),
        ["circuit_breaker: consecutive_span 1s -> 0ns"]
    );
    assert_eq!(breaker.snapshot().consecutive_failures, 4);
    fail(&breaker);
    assert!(breaker.state().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_break_goes_on_as_it_began_and_the_next_one_is_as_is_said_now() {
    let (users, breaker) = users(counting(1).min_calls(1).open_for(secs(5)).growth(1.0).probes(1));
    let tuned = |config| users.handle().tuned(config);
    assert_eq!(open(&breaker), secs(5));
    assert_eq!(
        tuned(settings!(CircuitBreakerConfig { open_for: secs(20), max_open_for: secs(50) })),
        ["circuit_breaker: open_for 5s -> 20s", "circuit_breaker: max_open_for 60s -> 50s"]
    );
    assert_eq!(open_for(&breaker), secs(5), "as it began");
    sleep(secs(5)).await;
    assert_eq!(open(&breaker), secs(20));
    tuned(settings!(CircuitBreakerConfig { growth: 2.0 }));
    sleep(secs(20)).await;
    assert_eq!(open(&breaker), secs(50), "the third one: 20 s twice doubled, and no more than the longest");
    tuned(settings!(CircuitBreakerConfig { max_open_for: secs(20), jitter: 1.0 }));
    sleep(secs(50)).await;
    let jittered = open(&breaker);
    assert!((secs(20)..=secs(40)).contains(&jittered), "{jittered:?}");
    assert!(breaker.snapshot().reopenings == 3);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_phase_goes_on_as_it_began_and_the_next_one_is_as_is_said_now() {
    let (users, breaker) = users(counting(1).min_calls(1).probes(2).growth(1.0));
    let tuned = |config| users.handle().tuned(config);
    open(&breaker);
    sleep(secs(5)).await;
    let first = breaker.admit().unwrap();
    assert_eq!(
        tuned(settings!(CircuitBreakerConfig { probes: 4, close_after: 3 })),
        ["circuit_breaker: probes 2 -> 4", "circuit_breaker: close_after 2 -> 3"]
    );
    let second = breaker.admit().unwrap();
    assert!(breaker.admit().is_err(), "two, as the phase began");
    first.success();
    second.failure("");
    assert!(breaker.state().is_open());
    sleep(secs(5)).await;
    let probes: Vec<_> = (0..4).map(|_| breaker.admit().unwrap()).collect();
    assert!(breaker.admit().is_err(), "four in this one");
    let mut probes = probes.into_iter();
    probes.next().unwrap().failure("");
    for _ in 0..2 {
        probes.next().unwrap().success();
    }
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    probes.next().unwrap().success();
    assert!(breaker.state().is_closed());
}

#[tokio::test(start_paused = true)]
async fn probes_that_were_raised_while_it_was_open_are_those_of_its_half_open_phase() {
    let (users, breaker) = users(counting(1).min_calls(1).probes(1));
    open(&breaker);
    users.handle().tuned(settings!(CircuitBreakerConfig { probes: 3 }));
    sleep(secs(5)).await;
    let probes: Vec<_> = (0..3).map(|_| breaker.admit().unwrap()).collect();
    assert!(breaker.admit().is_err());
    for probe in probes {
        probe.success();
    }
    assert!(breaker.state().is_closed(), "close_after was not given, and follows the probes");
}

#[tokio::test(start_paused = true)]
async fn slow_calls_are_watched_from_now_on_or_no_more() {
    let (users, breaker) = users(counting(4).min_calls(4));
    let slow = async || {
        let answer = users.call(|| async {
            sleep(ms(500)).await;
            Ok::<_, ()>(())
        });
        answer.await.is_ok()
    };
    assert!(slow().await && slow().await && slow().await && slow().await);
    assert_eq!(
        users.handle().tuned(settings!(CircuitBreakerConfig { slow_call: ms(500) })),
        ["circuit_breaker: slow_call none -> 500ms", "circuit_breaker: slow_rate none -> 0.8"]
    );
    assert!(slow().await && slow().await);
    assert_eq!(breaker.snapshot().slow_calls, 2, "those before were not watched");
    users.handle().tuned(settings!(CircuitBreakerConfig { slow_call: secs(3600) }));
    assert!(slow().await && slow().await && breaker.state().is_closed());
    assert_eq!(
        users.handle().tuned(settings!(CircuitBreakerConfig { slow_call: ms(400), slow_rate: 0.25 })),
        ["circuit_breaker: slow_call 3600s -> 400ms", "circuit_breaker: slow_rate 0.8 -> 0.25"]
    );
    assert!(slow().await);
    assert!(breaker.state().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given() {
    let (users, breaker) = users(counting(1).min_calls(1).probes(1).growth(1.0));
    let lease = async || {
        open(&breaker);
        sleep(secs(5)).await;
        let probe = breaker.admit().unwrap();
        let (begin, mut changes) = (Instant::now(), breaker.subscribe());
        changes.changed().await;
        assert!(breaker.state().is_open());
        probe.success();
        begin.elapsed()
    };
    assert_eq!(lease().await, secs(60));
    assert_eq!(
        users.handle().tuned(settings!(CircuitBreakerConfig { probe_lease: secs(7) })),
        ["circuit_breaker: probe_lease none -> 7s"]
    );
    assert_eq!(lease().await, secs(7));
    users.handle().tuned(settings!(CircuitBreakerConfig { probe_lease: secs(70) }));
    assert_eq!(lease().await, secs(70));
}

#[tokio::test(start_paused = true)]
async fn no_state_is_lost() {
    let (users, breaker) = users(counting(1).min_calls(1).probes(1));
    let everything = || {
        settings!(CircuitBreakerConfig {
            failure_rate: 0.1,
            min_calls: 2,
            slow_call: secs(9),
            slow_rate: 0.3,
            open_for: secs(2),
            growth: 1.5,
            max_open_for: secs(8),
            jitter: 0.0,
            probes: 5,
            close_after: 4,
            probe_lease: secs(50)
        })
    };
    let isolation = breaker.isolate();
    assert_eq!(users.handle().tuned(everything()).len(), 10);
    assert_eq!(breaker.state(), CircuitState::Isolated);
    drop(isolation);
    open(&breaker);
    advance(secs(1)).await;
    let before = breaker.snapshot();
    users.handle().tuned(settings!(CircuitBreakerConfig { open_for: secs(7), min_calls: 1 }));
    assert_eq!(breaker.snapshot(), before);
}

#[tokio::test(start_paused = true)]
async fn a_default_that_was_given_by_its_value_is_no_default_any_more() {
    let (users, breaker) = users(counting(1).min_calls(1));
    let tuned = |config| users.handle().tuned(config);
    assert_eq!(tuned(settings!(CircuitBreakerConfig { close_after: 3, max_open_for: secs(60) })), [""; 0]);
    assert_eq!(tuned(settings!(CircuitBreakerConfig { probes: 5 })), ["circuit_breaker: probes 3 -> 5"]);
    assert!(users.explain().to_string().contains("probes 5, close_after 3"), "{}", users.explain());
    assert_eq!(
        users.handle().refusal(settings!(CircuitBreakerConfig { open_for: secs(61) })),
        "pipeline `users`, policy `circuit_breaker`: max_open_for is 60s; accepted: at least open_for, 61s"
    );
    drop(breaker);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_by_a_full_half_open_circuit_is_told_to_come_back_after_a_break_of_now() {
    let (users, breaker) = users(counting(1).min_calls(1).probes(1));
    open(&breaker);
    sleep(secs(5)).await;
    let probe = breaker.admit().unwrap();
    let retry_after = || breaker.admit().unwrap_err().retry_after();
    assert_eq!(retry_after(), Some(secs(5)));
    users.handle().tuned(settings!(CircuitBreakerConfig { open_for: secs(2) }));
    assert_eq!(retry_after(), Some(secs(2)));
    drop(probe);
}
