//! Probes that do not reach the dependency, and what happens beside a call and is not of its making.

use std::{
    future::{Future, pending},
    sync::Arc,
    task::Poll,
};

use futures::future::join;
use tokio::time::{Instant, timeout};
use withstand::{
    Bulkhead, CallOptions, CircuitBreaker, CircuitState, Context, Describe, Fallback, Frame, Operation, Outcome,
    Pipeline, Policy, Verdict, VerdictKind,
};

use crate::{
    support::caught,
    users::{ByItself, Reply, Users, eager, ms, poll, reply, sleep},
};

/// Half-open, with a single probe.
async fn half_open() -> Arc<CircuitBreaker> {
    Users::half_open(eager().probes(1)).await.breaker
}

fn within(millis: u64) -> CallOptions {
    CallOptions::new().deadline(Instant::now() + ms(millis))
}

fn assert_untouched(breaker: &CircuitBreaker) {
    let seen = breaker.snapshot();
    assert_eq!(seen.state, CircuitState::HalfOpen);
    assert_eq!((seen.probes_in_flight, seen.probe_successes, seen.probe_failures), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_a_layer_inside_refuses_decides_nothing() {
    let breaker = half_open().await;
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker));
    let users = builder.bulkhead(Bulkhead::builder().limit(0)).classifier(ByItself).build().unwrap();
    for _ in 0..5 {
        assert!(users.call(pending::<Reply>).await.unwrap_err().is_rejected());
        assert_untouched(&breaker);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_times_out_before_it_reached_the_dependency_decides_nothing() {
    let breaker = half_open().await;
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(ms(10_000)).build().unwrap());
    let _held = bulkhead.acquire().await.unwrap();
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).bulkhead(Arc::clone(&bulkhead));
    let users = builder.classifier(ByItself).build().unwrap();
    for _ in 0..5 {
        assert!(users.call_with(within(200), |_| pending::<Reply>()).await.unwrap_err().is_timeout());
        assert_untouched(&breaker);
    }
}

#[tokio::test(start_paused = true)]
async fn a_substitute_does_not_close_a_circuit() {
    let breaker = half_open().await;
    let fallback = Fallback::value(()).handles([VerdictKind::Transient]);
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker));
    let users = builder.fallback(fallback).classifier(ByItself).build().unwrap();
    for _ in 0..5 {
        users.call(|| async { reply('F') }).await.unwrap();
        assert_untouched(&breaker);
    }
    users.call(|| async { reply('S') }).await.unwrap();
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_minimum_of_a_window_is_none_for_probes() {
    for (letters, state) in [("SS", "closed"), ("F", "open")] {
        let run = CircuitBreaker::builder().consecutive_failures(1).consecutive_span(ms(0)).time_window(ms(30_000));
        let users = Users::new(run.min_calls(1_000).open_for(ms(1_000)).probes(2));
        users.play("F").await;
        sleep(1_000).await;
        users.play(letters).await;
        assert_eq!(users.state().as_str(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_beside_a_call_in_the_same_task_is_not_the_dependencys() {
    let closed = Users::new(eager().min_calls(1));
    let half_open = Users::half_open(eager().probes(1)).await;
    for users in [closed, half_open] {
        let before = users.state();
        let beside = async {
            sleep(10).await;
            panic!("mine")
        };
        let call = users.pipeline.call(pending::<Reply>);
        assert_eq!(caught(join(call, beside)).await.map(|_: (_, ())| ()), Err("mine".to_owned()));
        assert_eq!((users.state(), users.window(), users.probes()), (before, (0, 0, 0), (0, 0, 0)));
    }
}

/// Sets a deadline of its own, and keeps it: a policy of the user's own.
struct Strict;

impl Describe for Strict {}

impl<T: Send, E: Send> Policy<T, E> for Strict {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let frame = Frame::with_limit(cx, ms(50));
        match timeout(ms(50), op.attempt(cx.within(&frame))).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Outcome::new(Err(frame.timed_out().into()), Verdict::transient()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_publishes_a_deadline_and_keeps_it_makes_a_hang_visible() {
    let breaker = Arc::new(eager().build().unwrap());
    let builder = Pipeline::builder("users").layer(Strict).circuit_breaker(Arc::clone(&breaker));
    let users = builder.classifier(ByItself).build().unwrap();
    for _ in 0..2 {
        assert!(users.call(pending::<Reply>).await.unwrap_err().is_timeout());
    }
    assert!(breaker.state().is_open());
}

/// How a hang is counted that several limits end at the same moment.
async fn counted<F: Future<Output: std::fmt::Debug>>(breaker: &CircuitBreaker, hang: F) -> (u32, u32) {
    let began = Instant::now();
    hang.await;
    assert_eq!(began.elapsed(), ms(200));
    let seen = breaker.snapshot();
    (seen.calls, seen.failures)
}

#[tokio::test(start_paused = true)]
async fn a_hang_that_ends_at_several_deadlines_at_once_is_one_failure() {
    let breaker = || Arc::new(CircuitBreaker::builder().count_window(10).build().unwrap());

    let inside = breaker();
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&inside)).timeout(ms(200));
    let users = builder.classifier(ByItself).build().unwrap();
    assert_eq!(counted(&inside, users.call_with(within(200), |_| pending::<Reply>())).await, (1, 1));

    let outside = breaker();
    let builder = Pipeline::builder("users").timeout(ms(200)).circuit_breaker(Arc::clone(&outside));
    let users = builder.classifier(ByItself).build().unwrap();
    assert_eq!(counted(&outside, users.call_with(within(200), |_| pending::<Reply>())).await, (1, 1));

    let both = breaker();
    let inner = Pipeline::builder("inner").circuit_breaker(Arc::clone(&both)).timeout(ms(200));
    let inner = inner.classifier(ByItself).build().unwrap();
    let outer = Pipeline::builder("outer").timeout(ms(200)).build().unwrap();
    assert_eq!(counted(&both, outer.forward(|| inner.outcome(pending::<Reply>))).await, (1, 1));

    // By the caller, who keeps the deadline himself.
    let by_hand = breaker();
    let call = timeout(ms(200), by_hand.call_with(within(200), |_| pending::<Reply>()));
    assert_eq!(counted(&by_hand, call).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_polled_took_no_slot() {
    let users = Users::half_open(eager().probes(1)).await;
    let idle = users.pipeline.call(pending::<Reply>);
    let mut probe = Box::pin(users.pipeline.call(pending::<Reply>));
    assert!(poll(&mut probe).is_pending());
    drop(idle);
    assert_eq!(users.probes(), (1, 0, 0));
}

#[test]
fn without_a_limit_it_needs_no_runtime() {
    let breaker = eager().build().unwrap();
    let call = |letter| match poll(&mut Box::pin(breaker.call(move || async move { reply(letter) }))) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waits, and there is nothing to wait for"),
    };
    for _ in 0..2 {
        assert!(call('F').unwrap_err().is_operation());
    }
    assert!(breaker.state().is_open());
    assert!(call('S').unwrap_err().is_rejected());
    breaker.reset();
    call('S').unwrap();
}
