//! Probes that never end: a lease, and what becomes of them after it.

use std::{future::pending, sync::Arc, time::Duration};

use withstand::{
    Bulkhead, CircuitBreaker, CircuitState, Describe, Error, EventKind, Pipeline, Policy, Reason, Timeout, Verdict,
};

use crate::users::{ByItself, Reply, Users, eager, ms, poll, reply, sleep};

#[tokio::test(start_paused = true)]
async fn a_hung_probe_fails_with_the_end_of_its_lease_and_its_late_verdict_is_void() {
    let users = Users::half_open(eager().probes(1).probe_lease(ms(3_000))).await;
    let (hung, signal) = users.begin();
    sleep(2_999).await;
    assert_eq!(users.state(), CircuitState::HalfOpen);
    sleep(1).await;
    assert!(users.state().is_open());
    assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(1_000)));
    sleep(1_000).await;
    let (second, _signal) = users.begin();

    signal.give(Ok(()));
    hung.await.unwrap();
    assert_eq!((users.state(), users.probes()), (CircuitState::HalfOpen, (1, 0, 0)));
    drop(second);
    let expected = [
        "half-opened",
        "probe expired after 3s",
        r#"opened by Lease, "lease""#,
        "rejected: CircuitOpen",
        "half-opened",
    ];
    assert_eq!(users.heard.words(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_break_after_a_lease_begins_with_the_end_of_the_lease_and_not_with_the_next_call() {
    let users = Users::half_open(eager().probes(1).probe_lease(ms(3_000))).await;
    let (_hung, _signal) = users.begin();
    sleep(3_400).await;
    assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(600)));
    sleep(600).await;
    users.play("S").await;
    assert_eq!(users.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_is_one_failure_among_the_probes_and_its_slot_is_free() {
    let users = Users::half_open(eager().probes(3).close_after(2).probe_lease(ms(3_000))).await;
    let (hung, signal) = users.begin();
    let (slow, slow_signal) = {
        sleep(1_000).await;
        users.begin()
    };
    sleep(2_000).await;
    assert_eq!(users.probes(), (1, 0, 1));
    users.play("S").await;
    assert_eq!(users.refused().await, (Reason::CircuitHalfOpen, Some(1_000)));
    signal.give(reply('F'));
    hung.await.unwrap_err();
    assert_eq!((users.state(), users.probes()), (CircuitState::HalfOpen, (1, 1, 1)));
    slow_signal.give(Ok(()));
    slow.await.unwrap();
    assert_eq!(users.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_refused_is_never_told_to_wait_longer_than_a_break_nor_less_than_nothing() {
    let users = Users::half_open(eager().probes(1).probe_lease(ms(5_000))).await;
    let (_hung, _signal) = users.begin();
    for (slept, expected) in [(0, 1_000), (3_900, 1_000), (350, 750), (749, 1)] {
        sleep(slept).await;
        assert_eq!(users.refused().await, (Reason::CircuitHalfOpen, Some(expected)));
    }
    for _ in 0..20 {
        sleep(977).await;
        // Until the break after the lease is over, and no probe is out any more.
        let CircuitState::Open { retry_after: expected, .. } = users.state() else { break };
        assert_eq!(users.refusal().await.retry_after(), Some(expected));
        assert!(expected <= ms(1_000));
    }
    users.play("S").await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_after_its_lease_takes_nothing_back() {
    let users = Users::half_open(eager().probes(1).probe_lease(ms(3_000))).await;
    let (hung, _signal) = users.begin();
    sleep(4_000).await;
    let (probe, signal) = users.begin();
    drop(hung);
    assert_eq!(users.probes(), (1, 0, 0));
    signal.give(Ok(()));
    probe.await.unwrap();
    assert_eq!(users.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_after_its_lease_has_failed_though_nobody_had_noticed() {
    let half_open = async || Users::half_open(eager().probes(1).probe_lease(ms(3_000))).await;
    let failed = |users: &Users| {
        assert!(users.state().is_open(), "as it was before the probe was given up");
        let expected = ["half-opened", "probe expired after 3s", r#"opened by Lease, "lease""#];
        assert_eq!(users.heard.words(), expected);
    };
    let dropped = half_open().await;
    let (call, _signal) = dropped.begin();
    sleep(3_500).await;
    assert!(dropped.state().is_open());
    drop(call);
    failed(&dropped);

    let throttled = half_open().await;
    let (call, signal) = throttled.begin();
    sleep(3_500).await;
    signal.give(reply('T'));
    call.await.unwrap_err();
    failed(&throttled);

    let by_hand = half_open().await;
    let ticket = by_hand.breaker.admit().unwrap();
    sleep(3_500).await;
    drop(ticket);
    failed(&by_hand);
}

/// The lease of the probes that a breaker sends out through this pipeline.
async fn lease_through<P, C>(breaker: &CircuitBreaker, pipeline: &Pipeline<P, C>) -> Duration
where
    P: Policy<(), withstand::Classification> + Describe,
    C: withstand::Classify<(), withstand::Classification>,
{
    let mut changes = breaker.subscribe();
    let mut probe = Box::pin(pipeline.call(pending::<Reply>));
    assert!(poll(&mut probe).is_pending());
    let began = tokio::time::Instant::now();
    // As a caller who drives the call no further: even its timeouts do not fire.
    let opened = async { while !changes.changed().await.is_open() {} };
    tokio::time::timeout(ms(1_000_000), opened).await.expect("the lease ends");
    began.elapsed()
}

/// Half-open, with a single probe, and with no lease of its own.
async fn without_a_lease() -> Arc<CircuitBreaker> {
    let breaker = CircuitBreaker::builder().count_window(1).min_calls(1).open_for(ms(1_000)).growth(1.0).probes(1);
    let breaker = Arc::new(breaker.build().unwrap());
    breaker.call(|| async { Err::<(), _>("down") }).await.unwrap_err();
    sleep(1_000).await;
    breaker
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_inside_a_lease_is_a_minute() {
    let breaker = without_a_lease().await;
    let pipeline =
        Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).classifier(ByItself).build().unwrap();
    assert_eq!(lease_through(&breaker, &pipeline).await, ms(60_000));
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_twice_what_the_layers_inside_can_take_and_ten_seconds_at_least() {
    let breaker = without_a_lease().await;
    let builder = Pipeline::builder("quick").timeout(ms(90_000)).circuit_breaker(Arc::clone(&breaker));
    let quick = builder.timeout(ms(1_000)).classifier(ByItself).build().unwrap();
    assert_eq!(lease_through(&breaker, &quick).await, ms(10_000));

    let breaker = without_a_lease().await;
    let queue = Bulkhead::builder().limit(1).queue(1).max_wait(ms(2_000));
    let builder = Pipeline::builder("queued").circuit_breaker(Arc::clone(&breaker)).bulkhead(queue);
    let queued = builder.timeout(ms(7_000)).classifier(ByItself).build().unwrap();
    assert_eq!(lease_through(&breaker, &queued).await, ms(18_000));
}

#[tokio::test(start_paused = true)]
async fn of_several_pipelines_the_longest_decides_the_lease_whichever_came_first() {
    for limits in [[8_000, 20_000], [20_000, 8_000]] {
        let breaker = without_a_lease().await;
        let [first, second] = limits.map(|limit| {
            let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).timeout(ms(limit));
            builder.classifier(ByItself).build().unwrap()
        });
        assert_eq!(lease_through(&breaker, &first).await, ms(40_000), "{limits:?}");
        sleep(1_000).await;
        assert_eq!(lease_through(&breaker, &second).await, ms(40_000), "{limits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_without_a_limit_is_longer_than_one_with_a_short_one() {
    for unlimited_first in [true, false] {
        let breaker = without_a_lease().await;
        let shared = || Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker));
        let unlimited = || shared().classifier(ByItself).build().unwrap();
        let limited = || shared().timeout(ms(1_000)).classifier(ByItself).build().unwrap();
        if unlimited_first {
            let (unlimited, _limited) = (unlimited(), limited());
            assert_eq!(lease_through(&breaker, &unlimited).await, ms(60_000));
        } else {
            let (_limited, unlimited) = (limited(), unlimited());
            assert_eq!(lease_through(&breaker, &unlimited).await, ms(60_000));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_asked_for_is_not_changed_by_a_pipeline() {
    let breaker = eager().count_window(1).min_calls(1).probes(1).probe_lease(ms(30_000)).build().unwrap();
    let breaker = Arc::new(breaker);
    breaker.call(|| async { Err::<(), _>("down") }).await.unwrap_err();
    sleep(1_000).await;
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).timeout(ms(1_000));
    let pipeline = builder.classifier(ByItself).build().unwrap();
    assert_eq!(lease_through(&breaker, &pipeline).await, ms(30_000));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_times_out_inside_needs_no_lease() {
    let heard = crate::users::Heard::default();
    let breaker = Arc::new(eager().count_window(1).min_calls(1).probes(1).build().unwrap());
    let timeout = Timeout::new(ms(200)).unwrap();
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).timeout(timeout);
    let pipeline = builder.classifier(ByItself).observer(heard.observer()).build().unwrap();
    pipeline.call(async || Reply::Err(Verdict::transient().label("down"))).await.unwrap_err();
    sleep(1_000).await;
    heard.take();

    let answer = pipeline.call(pending::<Reply>).await;
    assert!(matches!(answer, Err(Error::Timeout(_))));
    assert!(breaker.state().is_open());
    let events = heard.take();
    assert!(!events.iter().any(|event| matches!(event, EventKind::ProbeExpired { .. })));
    assert!(matches!(events.last(), Some(EventKind::Opened { label: "timeout", .. })), "{events:?}");
}
