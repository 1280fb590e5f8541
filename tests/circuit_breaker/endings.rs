//! How a call ends, and what the breaker makes of it.

use std::{
    future::{Future, pending},
    sync::Arc,
    task::{self, Wake},
};

use tokio::time::{Instant, timeout};
use withstand::{
    Backoff, Bulkhead, CallOptions, CallOutcome, CircuitBreaker, CircuitState, Classification, Context, Describe,
    Error, Event, EventKind, Fallback, Operation, Outcome, Pipeline, Policy, Reason, Retry, Verdict, VerdictKind,
};

use crate::{
    support::{Log, caught},
    users::{ByItself, Heard, Reply, Users, eager, ms, poll, reply, sleep},
};

/// A breaker that counts everything and never opens.
fn counting() -> Arc<CircuitBreaker> {
    Arc::new(CircuitBreaker::builder().count_window(100).min_calls(100).build().unwrap())
}

fn counted(breaker: &CircuitBreaker) -> (u32, u32, u32) {
    let seen = breaker.snapshot();
    (seen.calls, seen.failures, seen.slow_calls)
}

/// What unwinds when the future is driven.
async fn panics<F: Future<Output: std::fmt::Debug>>(future: F) -> String {
    caught(future).await.expect_err("it did not panic")
}

#[tokio::test(start_paused = true)]
async fn each_verdict_counts_as_the_table_says() {
    for (letter, calls, failures) in
        [('S', 1, 0), ('F', 1, 1), ('U', 1, 1), ('X', 1, 1), ('T', 0, 0), ('I', 0, 0), ('R', 0, 0)]
    {
        let users = Users::around(&counting(), "users");
        users.call(letter).await.ok();
        assert_eq!(users.window(), (calls, failures, 0), "{letter}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_is_counted_neither_way_however_much_there_is_of_it() {
    let users = Users::around(&counting(), "users");
    users.play(&"SFT".repeat(5)).await;
    users.play(&"SFI".repeat(5)).await;
    users.play(&"SFR".repeat(5)).await;
    assert_eq!(users.window(), (30, 15, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_a_success_closes_and_an_ok_that_is_a_failure_opens() {
    let breaker = Arc::new(eager().build().unwrap());
    let verdict = |result: Result<&u16, &&str>| match result {
        Ok(503) => Verdict::transient().label("http_503"),
        Ok(_) | Err(&"404") => Verdict::success().into(),
        Err(_) => Verdict::failure().into(),
    };
    let heard = Heard::default();
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).classify(verdict);
    let users = builder.observer(heard.observer()).build().unwrap();
    for _ in 0..10 {
        assert_eq!(users.call(|| async { Err("404") }).await, Err(Error::Operation("404")));
    }
    assert_eq!(counted(&breaker), (10, 0, 0));
    for _ in 0..5 {
        assert_eq!(users.call(|| async { Ok(503) }).await, Ok(503));
    }
    assert_eq!(heard.words(), [r#"opened by FailureRate, "http_503""#]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_operation_is_a_failure_and_unwinds_unchanged() {
    let users = Users::new(eager().min_calls(1));
    let answer = panics(users.pipeline.call(async || -> Reply {
        sleep(10).await;
        panic!("boom")
    }));
    assert_eq!(answer.await, "boom");
    assert!(users.state().is_open());
    assert_eq!(users.heard.words(), [r#"opened by FailureRate, "panic""#]);

    // In the closure itself, before there is a future.
    let users = Users::new(eager().min_calls(1));
    let make = || -> std::future::Ready<Reply> { panic!("no future") };
    assert_eq!(panics(users.pipeline.call(make)).await, "no future");
    assert!(users.state().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_has_failed() {
    let users = Users::half_open(eager().probes(1)).await;
    assert_eq!(panics(users.pipeline.call(async || -> Reply { panic!("boom") })).await, "boom");
    assert_eq!(users.heard.words(), ["half-opened", "probe failed, 0/1", r#"opened by Probe, "panic""#]);
}

/// Something of the user's inside the breaker panics, and that is not counted.
async fn blameless<P>(breaker: &CircuitBreaker, pipeline: Pipeline<P, ByItself>, letter: char)
where
    P: Policy<(), Classification>,
{
    assert_eq!(panics(pipeline.call(|| async move { reply(letter) })).await, "mine");
    assert_eq!(counted(breaker), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_backoff_or_a_fallback_inside_is_not_the_dependencys() {
    let breaker = counting();
    let backoff = Backoff::custom(|_| panic!("mine"));
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).classifier(ByItself);
    blameless(&breaker, builder.retry(Retry::builder().backoff(backoff)).build().unwrap(), 'F').await;

    let breaker = counting();
    let fallback = Fallback::from_outcome(|_: &Outcome<(), Classification>| panic!("mine"));
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).classifier(ByItself);
    blameless(&breaker, builder.fallback(fallback.handles([VerdictKind::Failure])).build().unwrap(), 'X').await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_classifier_is_not_the_dependencys_and_frees_the_probe() {
    let breaker = Arc::new(eager().count_window(1).min_calls(1).probes(1).build().unwrap());
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker));
    let judge = |error: &&str| if *error == "odd" { panic!("mine") } else { Verdict::transient() };
    let users = builder.classify_errors(judge).build().unwrap();
    assert_eq!(panics(users.call(|| async { Err::<(), _>("odd") })).await, "mine");
    assert_eq!((breaker.state(), counted(&breaker)), (CircuitState::Closed, (0, 0, 0)));

    users.call(|| async { Err::<(), _>("down") }).await.unwrap_err();
    sleep(1_000).await;
    assert_eq!(panics(users.call(|| async { Err::<(), _>("odd") })).await, "mine");
    assert_eq!((breaker.state(), breaker.snapshot().probes_in_flight), (CircuitState::HalfOpen, 0));
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_always_panics_changes_nothing_at_all() {
    let breaker = Arc::new(eager().count_window(1).min_calls(1).probes(2).build().unwrap());
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).classifier(ByItself);
    let users = builder.observer(|_: &Event<'_>| panic!("mine")).build().unwrap();
    let call = |letter| users.call(move || async move { reply(letter) });
    call('F').await.unwrap_err();
    assert!(breaker.state().is_open());
    assert!(call('S').await.unwrap_err().is_rejected());
    sleep(1_000).await;
    // Out of a `Drop` a panic would abort the process.
    let mut probe = Box::pin(users.call(pending::<Reply>));
    assert!(poll(&mut probe).is_pending());
    drop(probe);
    panics(users.call(async || -> Reply { panic!("boom") })).await;
    assert!(breaker.state().is_open());
    sleep(1_000).await;
    call('S').await.unwrap();
    call('S').await.unwrap();
    drop(breaker.isolate());
    breaker.reset();
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_dropped_at_any_await_point_frees_its_slot_at_once() {
    const STEPS: usize = 7;
    for steps in 0..=STEPS {
        let users = Users::half_open(eager().probes(1)).await;
        let operation = async || {
            for _ in 0..STEPS {
                tokio::task::yield_now().await;
            }
            pending::<Reply>().await
        };
        let mut call = Box::pin(users.pipeline.call(operation));
        for _ in 0..steps {
            assert!(poll(&mut call).is_pending());
            assert_eq!(users.refused().await.0, Reason::CircuitHalfOpen);
        }
        drop(call);
        assert_eq!(users.probes(), (0, 0, 0), "dropped after {steps} polls");
        users.play("S").await;
        assert_eq!(users.state(), CircuitState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_drops_is_counted_neither_way() {
    let users = Users::around(&counting(), "users");
    timeout(ms(500), users.take(1_000, 'F')).await.unwrap_err();
    let (call, _signal) = users.begin();
    drop(call);
    assert_eq!(users.window(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_the_slow_call_duration_was_slow() {
    let users = Users::new(CircuitBreaker::builder().count_window(2).slow_call(ms(100)).slow_rate(1.0));
    timeout(ms(99), users.take(1_000, 'S')).await.unwrap_err();
    assert_eq!(users.window(), (0, 0, 0));
    timeout(ms(100), users.take(1_000, 'S')).await.unwrap_err();
    assert_eq!(users.window(), (1, 0, 1));
    timeout(ms(500), users.take(1_000, 'S')).await.unwrap_err();
    assert_eq!(users.heard.words(), [r#"opened by SlowRate, "slow""#]);

    let users = Users::half_open(eager().probes(1).slow_call(ms(100))).await;
    timeout(ms(100), users.take(1_000, 'S')).await.unwrap_err();
    assert!(users.state().is_open());
}

/// Nobody knows how it would have ended.
#[tokio::test(start_paused = true)]
async fn a_slow_call_that_is_dropped_neither_ends_nor_lengthens_a_run_of_failures() {
    let run = CircuitBreaker::builder().consecutive_failures(3).consecutive_span(ms(0));
    let users = Users::new(run.count_window(100).min_calls(100).slow_call(ms(100)));
    users.play("FF").await;
    for _ in 0..3 {
        timeout(ms(100), users.take(1_000, 'S')).await.unwrap_err();
        assert_eq!((users.state(), users.breaker.snapshot().consecutive_failures), (CircuitState::Closed, 2));
    }
    assert_eq!(users.window(), (5, 2, 3));
    users.play("F").await;
    assert_eq!(users.heard.words(), [r#"opened by Consecutive, "transient""#]);
}

#[tokio::test(start_paused = true)]
async fn slowness_counts_from_the_start_of_the_operation_and_not_from_admission() {
    let breaker = Arc::new(CircuitBreaker::builder().count_window(100).slow_call(ms(100)).build().unwrap());
    let queue = Bulkhead::builder().limit(1).queue(10).max_wait(ms(10_000));
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).bulkhead(queue);
    let users = builder.classifier(ByItself).build().unwrap();
    let quick = || {
        users.call(|| async {
            sleep(60).await;
            Ok(())
        })
    };
    let (first, second, third) = tokio::join!(quick(), quick(), quick());
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(counted(&breaker), (3, 0, 0));

    // And one that is dropped while it waits has not begun.
    let mut running = Box::pin(users.call(pending::<Reply>));
    assert!(poll(&mut running).is_pending());
    timeout(ms(5_000), quick()).await.unwrap_err();
    assert_eq!(counted(&breaker), (3, 0, 0));
    drop(running);
    assert_eq!(counted(&breaker), (4, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_retry_outside_is_slow_by_itself() {
    let breaker = Arc::new(CircuitBreaker::builder().count_window(100).slow_call(ms(100)).build().unwrap());
    let retry = Retry::builder().max_attempts(3).backoff(Backoff::constant(ms(500))).name("again");
    let builder = Pipeline::builder("users").retry(retry).circuit_breaker(Arc::clone(&breaker));
    let users = builder.classifier(ByItself).build().unwrap();
    let operation = |attempt: withstand::Attempt| async move {
        sleep(if attempt.number() == 2 { 150 } else { 20 }).await;
        reply('F')
    };
    users.call_with(CallOptions::new(), operation).await.unwrap_err();
    assert_eq!(counted(&breaker), (3, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_dependency_opens_the_circuit_through_the_attempt_timeout_inside() {
    let breaker = Arc::new(eager().min_calls(5).build().unwrap());
    let heard = Heard::default();
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).timeout(ms(200));
    let users = builder.classifier(ByItself).observer(heard.observer()).build().unwrap();
    for _ in 0..5 {
        assert!(users.call(pending::<Reply>).await.unwrap_err().is_timeout());
    }
    assert!(users.call(pending::<Reply>).await.unwrap_err().is_rejected());
    let words = heard.words();
    assert_eq!(
        words.iter().filter(|word| word.starts_with("opened")).collect::<Vec<_>>(),
        [r#"opened by FailureRate, "timeout""#]
    );
}

#[tokio::test(start_paused = true)]
async fn a_hanging_dependency_opens_the_circuit_through_a_total_timeout_outside() {
    let breaker = Arc::new(eager().min_calls(5).build().unwrap());
    let heard = Heard::default();
    let builder = Pipeline::builder("users").timeout(ms(200)).circuit_breaker(Arc::clone(&breaker));
    let users = builder.classifier(ByItself).observer(heard.observer()).build().unwrap();
    for _ in 0..5 {
        assert!(users.call(pending::<Reply>).await.unwrap_err().is_timeout());
    }
    assert!(users.call(pending::<Reply>).await.unwrap_err().is_rejected());
    assert!(heard.words().contains(&r#"opened by FailureRate, "timeout""#.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_dependency_opens_the_circuit_through_the_callers_own_deadline() {
    let breaker = eager().min_calls(5).build().unwrap();
    for _ in 0..5 {
        let options = CallOptions::new().deadline(Instant::now() + ms(200));
        let answer = breaker.call_with(options, |_| pending::<Result<(), &str>>()).await;
        assert!(answer.unwrap_err().is_timeout());
    }
    assert!(breaker.state().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_by_its_caller_at_the_deadline_it_gave_is_a_failure_and_before_it_is_not() {
    for (millis, failures) in [(199, 0), (200, 1)] {
        let breaker = counting();
        let options = CallOptions::new().deadline(Instant::now() + ms(200));
        let mut call = Box::pin(breaker.call_with(options, |_| pending::<Result<(), &str>>()));
        assert!(poll(&mut call).is_pending());
        sleep(millis).await;
        drop(call);
        assert_eq!(counted(&breaker), (failures, failures, 0), "dropped after {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_calls_nothing_and_counts_as_nothing() {
    let users = Users::half_open(eager().probes(1)).await;
    let options = CallOptions::new().deadline(Instant::now());
    let answer = users.pipeline.call_with(options, async |_| -> Reply { panic!("called") }).await;
    assert!(answer.unwrap_err().is_timeout());
    assert_eq!((users.state(), users.probes()), (CircuitState::HalfOpen, (0, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_before_anything_reached_the_dependency_is_not_its_failure() {
    let breaker = counting();
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(ms(10_000)).build().unwrap());
    let held = bulkhead.acquire().await.unwrap();
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).bulkhead(Arc::clone(&bulkhead));
    let users = builder.classifier(ByItself).build().unwrap();
    let soon = || CallOptions::new().deadline(Instant::now() + ms(200));
    assert!(users.call_with(soon(), |_| pending::<Reply>()).await.unwrap_err().is_timeout());
    assert_eq!(counted(&breaker), (0, 0, 0));
    drop(held);
    assert!(users.call_with(soon(), |_| pending::<Reply>()).await.unwrap_err().is_timeout());
    assert_eq!(counted(&breaker), (1, 1, 0));

    let breaker = counting();
    let queue = Bulkhead::builder().limit(0).queue(1);
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).bulkhead(queue);
    let full = builder.classifier(ByItself).build().unwrap();
    assert!(full.call(pending::<Reply>).await.unwrap_err().is_rejected());
    assert_eq!(counted(&breaker), (0, 0, 0));
}

/// Takes its time before it lets a call through: a policy of the user's own.
struct Dawdling;

impl Describe for Dawdling {}

impl<T: Send, E: Send> Policy<T, E> for Dawdling {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        sleep(1_000).await;
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_its_deadline_before_it_reached_the_dependency_is_not_its_failure() {
    let breaker = counting();
    let builder = Pipeline::builder("users").timeout(ms(200)).circuit_breaker(Arc::clone(&breaker)).layer(Dawdling);
    let users = builder.classifier(ByItself).build().unwrap();
    assert!(users.call(pending::<Reply>).await.unwrap_err().is_timeout());
    assert_eq!(counted(&breaker), (0, 0, 0));
}

/// A process that stands still: time jumps, and the timer fires far too late.
#[tokio::test(start_paused = true)]
async fn a_timeout_after_this_process_stood_still_is_not_the_dependencys_failure() {
    for outside in [false, true] {
        let breaker = counting();
        let (outer, inner) = if outside { (Some(ms(200)), None) } else { (None, Some(ms(200))) };
        let layer = |limit: Option<_>| limit.map(|limit| withstand::Timeout::new(limit).unwrap());
        let builder = Pipeline::builder("users").layer(layer(outer)).circuit_breaker(Arc::clone(&breaker));
        let users = builder.layer(layer(inner)).classifier(ByItself).build().unwrap();
        let mut call = Box::pin(users.call(pending::<Reply>));
        assert!(poll(&mut call).is_pending());
        tokio::time::advance(ms(700)).await;
        assert!(call.await.unwrap_err().is_timeout());
        assert_eq!(counted(&breaker), (0, 0, 0), "timeout outside: {outside}");
    }
}

/// Drops what is inside after a while, and says so: a policy of the user's own.
struct Impatient;

impl Describe for Impatient {}

impl<T: Send, E: Send> Policy<T, E> for Impatient {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        match timeout(ms(50), op.attempt(cx)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::rejected(withstand::Rejection::new("impatient", Reason::Shed)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_the_users_own_that_drops_the_call_abandons_it() {
    let breaker = counting();
    let builder = Pipeline::builder("users").layer(Impatient).circuit_breaker(Arc::clone(&breaker));
    let users = builder.classifier(ByItself).build().unwrap();
    assert!(users.call(pending::<Reply>).await.unwrap_err().is_rejected());
    assert_eq!(counted(&breaker), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_reported_as_rejected_and_reaches_nothing() {
    let log = Log::new();
    let breaker = Arc::new(eager().build().unwrap());
    let isolation = breaker.isolate();
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker));
    let users = builder.observer(log.clone()).build().unwrap();
    users.call(|| async { Ok::<_, &str>(()) }).await.unwrap_err();
    drop(isolation);
    let finished = log.pick(|event| match event {
        EventKind::CallFinished { outcome, reason, rejected_by, attempts, .. } => {
            Some((outcome, reason, rejected_by.map(|name| name.to_string()), attempts))
        }
        _ => None,
    });
    let by = Some("circuit_breaker".to_owned());
    assert_eq!(finished, [(CallOutcome::Rejected, Some(Reason::Isolated), by, 0)]);
    assert_eq!(log.count(|event| matches!(event, EventKind::AttemptStarted { .. })), 0);
}

#[tokio::test(start_paused = true)]
async fn the_event_of_an_attempt_says_whether_it_was_a_probe() {
    let log = Log::new();
    let breaker = Arc::new(eager().count_window(1).min_calls(1).probes(1).build().unwrap());
    let builder = Pipeline::builder("users").circuit_breaker(breaker).classifier(ByItself);
    let users = builder.observer(log.clone()).build().unwrap();
    for (letter, pause) in [('F', 1_000), ('S', 0), ('S', 0)] {
        users.call(|| async move { reply(letter) }).await.ok();
        sleep(pause).await;
    }
    let probes = log.pick(|event| match event {
        EventKind::AttemptFinished { probe, .. } => Some(probe),
        _ => None,
    });
    assert_eq!(probes, [false, true, false]);
}

/// A subscriber to be woken that does not survive it.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("mine")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_subscriber_who_is_told_of_a_probe_frees_it_whatever_came_before_in_the_same_call() {
    let slow = eager().probes(2).slow_call(ms(15));
    let users = Users::half_open(slow).await;
    let retry = Retry::builder().max_attempts(2).backoff(Backoff::custom(|_| Some(ms(20))));
    let builder = Pipeline::builder("repeats").retry(retry).circuit_breaker(Arc::clone(&users.breaker));
    let repeats = builder.classifier(ByItself).build().unwrap();
    let mut changes = users.breaker.subscribe();
    let mut change = Box::pin(changes.changed());
    let subscribe = async {
        sleep(10).await;
        let bomb = Arc::new(Bomb).into();
        assert!(change.as_mut().poll(&mut task::Context::from_waker(&bomb)).is_pending());
        sleep(1_000).await;
    };
    // The first attempt says nothing; the second is another probe.
    let call = panics(repeats.call(|| async { reply('T') }));
    let (panic, ()) = tokio::join!(call, subscribe);
    assert_eq!(panic, "mine");
    assert_eq!((users.state(), users.probes()), (CircuitState::HalfOpen, (0, 0, 0)));
}
