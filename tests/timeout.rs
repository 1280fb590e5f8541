//! Timeout, behaviour by behaviour: what it limits, what it reports, and what a late timer means.
#![cfg(test)]

mod support;

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use futures::{
    future::poll_immediate,
    stream::{FuturesUnordered, StreamExt},
};
use support::{Log, Script, Step, as_it_says, ms, secs};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, advance, sleep},
};
use withstand::{
    Attempt, Backoff, Bulkhead, CallOptions, Context, Describe, Error, EventKind, Fallback, Hedge, Operation, Outcome,
    Phase, Pipeline, Policy, Retry, RetryBuilder, Scope, TimedOut, Timeout, Verdict,
};

fn retry(attempts: u32, delay: Duration) -> RetryBuilder {
    Retry::builder().max_attempts(attempts).backoff(Backoff::custom(move |_| Some(delay))).without_budget()
}

fn slow(takes: Duration) -> Script {
    Script::new([Step { takes, gives: Ok(7) }])
}

#[track_caller]
fn timed_out<T: std::fmt::Debug, E: std::fmt::Debug>(result: Result<T, Error<E>>) -> TimedOut {
    match result {
        Err(Error::Timeout(timed_out)) => timed_out,
        other => panic!("no timeout: {other:?}"),
    }
}

/// The scopes, phases and reporters of all `TimedOut` events.
fn reported(log: &Log) -> Vec<(Scope, Phase, Option<String>)> {
    let of = |heard: support::Heard| match heard.kind {
        EventKind::TimedOut { scope, phase, .. } => Some((scope, phase, heard.policy)),
        _ => None,
    };
    log.all().into_iter().filter_map(of).collect()
}

/// Holds a call before it lets it through.
struct Hold(Duration);

impl Describe for Hold {}

impl<T: Send, E: Send> Policy<T, E> for Hold {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        sleep(self.0).await;
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_faster_passes_and_what_is_slower_ends_at_the_limit() {
    let timeout = Timeout::new(ms(50)).unwrap();
    assert_eq!(timeout.call(|| async { slow(ms(49)).attempt().await }).await, Ok(7));
    let started = Instant::now();
    let at = timed_out(timeout.call(|| async { slow(ms(51)).attempt().await }).await);
    assert_eq!(started.elapsed(), ms(50));
    assert_eq!((at.limit(), at.scope(), at.phase(), at.attempts()), (ms(50), Scope::Total, Phase::Attempt, 1));
    let error = timeout.guard(pending::<Result<(), ()>>()).await;
    assert_eq!(timed_out(error), at, "the same of a single future");
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_when_the_time_is_up_is_delivered() {
    let timeout = Timeout::new(ms(50)).unwrap();
    assert_eq!(timeout.call(|| async { slow(ms(50)).attempt().await }).await, Ok(7));
    let fails = timeout.call(|| async {
        sleep(ms(50)).await;
        Err::<(), _>("its own error")
    });
    assert_eq!(fails.await, Err(Error::Operation("its own error")));
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_timeout_tells_what_it_limits() {
    let op = || pending::<Result<(), ()>>();
    let alone = Pipeline::builder("alone").timeout(ms(50)).build().unwrap();
    assert_eq!(timed_out(alone.call(op).await).scope(), Scope::Total);
    let outside = Pipeline::builder("outside").timeout(ms(50)).retry(retry(2, ms(1))).build().unwrap();
    assert_eq!(timed_out(outside.call(op).await).scope(), Scope::Total);
    let in_retry = Pipeline::builder("retry").retry(retry(2, ms(1))).timeout(ms(50)).build().unwrap();
    assert_eq!(timed_out(in_retry.call(op).await).scope(), Scope::Attempt);
    let in_hedge = Pipeline::builder("hedge").hedge(Hedge::builder().delay(ms(10))).timeout(ms(50)).build().unwrap();
    assert_eq!(timed_out(in_hedge.call(op).await).scope(), Scope::Attempt);
}

#[tokio::test(start_paused = true)]
async fn the_nearest_of_all_limits_ends_the_call_and_is_the_one_that_is_reported() {
    let pipeline = |log: &Log| {
        Pipeline::builder("api")
            .timeout(ms(100))
            .retry(retry(5, ms(10)))
            .timeout(ms(60))
            .observer(log.clone())
            .build()
            .unwrap()
    };
    // The attempt's at 60 ms; the second attempt is cut short by the total at 100 ms.
    let log = Log::new();
    let started = Instant::now();
    let at = timed_out(pipeline(&log).call(pending::<Result<(), ()>>).await);
    assert_eq!((started.elapsed(), at.limit(), at.scope(), at.attempts()), (ms(100), ms(100), Scope::Total, 2));
    let inner = (Scope::Attempt, Phase::Attempt, Some("timeout-2".to_owned()));
    assert_eq!(reported(&log), [inner.clone(), (Scope::Total, Phase::Attempt, Some("timeout".to_owned()))]);

    // The caller's own, at 80 ms.
    let log = Log::new();
    let options = CallOptions::new().deadline(Instant::now() + ms(80));
    let at = timed_out(pipeline(&log).call_with(options, |_| pending::<Result<(), ()>>()).await);
    assert_eq!((at.limit(), at.scope(), at.attempts()), (ms(80), Scope::Deadline, 2));
    assert_eq!(reported(&log), [inner, (Scope::Deadline, Phase::Attempt, None)]);
}

#[tokio::test(start_paused = true)]
async fn of_equal_deadlines_the_outer_one_is_reported() {
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .timeout(ms(100))
        .retry(retry(2, ms(40)))
        .timeout(ms(60))
        .classify_errors(as_it_says)
        .observer(log.clone())
        .build()
        .unwrap();
    // The second attempt begins at 40 ms: its own limit ends with the total one.
    let late = Step { takes: secs(9), gives: Ok(0) };
    let script = Script::new([Step { takes: ms(0), gives: Err(Verdict::transient()) }, late]);
    let at = timed_out(pipeline.call(|| script.attempt()).await);
    assert_eq!((at.limit(), at.scope(), script.attempts()), (ms(100), Scope::Total, 2));
    assert_eq!(reported(&log), [(Scope::Total, Phase::Attempt, Some("timeout".to_owned()))]);

    let options = CallOptions::new().deadline(Instant::now() + ms(100));
    let timeout = Timeout::new(ms(100)).unwrap();
    let at = timed_out(timeout.call_with(options, |_| pending::<Result<u32, Verdict>>()).await);
    assert_eq!(at.scope(), Scope::Deadline, "the caller's own is the outermost");
    let holds = Pipeline::builder("api").timeout(ms(100)).layer(Hold(ms(100))).build().unwrap();
    let options = CallOptions::new().deadline(Instant::now() + ms(100));
    let at = timed_out(holds.call_with(options, |_| async { Ok::<_, ()>(1) }).await);
    assert_eq!(at.scope(), Scope::Deadline, "whoever sees the time pass first");
}

#[tokio::test(start_paused = true)]
async fn the_phase_tells_what_the_call_was_doing() {
    let at = |error| timed_out::<(), ()>(Err(error));
    let held = Pipeline::builder("held").timeout(ms(50)).layer(Hold(secs(9))).build().unwrap();
    let entry = at(held.call(|| async { Ok(()) }).await.unwrap_err());
    assert_eq!((entry.phase(), entry.attempts()), (Phase::Entry, 0));

    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(ms(49)).build().unwrap());
    let _taken = bulkhead.try_acquire().unwrap();
    let queues = Pipeline::builder("queues").bulkhead(bulkhead.clone()).build().unwrap();
    let options = CallOptions::new().deadline(Instant::now() + ms(30));
    let queue = at(queues.call_with(options, |_| async { Ok(()) }).await.unwrap_err());
    assert_eq!((queue.phase(), queue.attempts(), queue.scope()), (Phase::Queue, 0, Scope::Deadline));

    let falls_back = Pipeline::builder("falls back")
        .timeout(ms(50))
        .fallback(Fallback::from_future(|_: &Outcome<(), ()>| pending()).limit(ms(49)))
        .build()
        .unwrap();
    let fallback = falls_back.call(|| async {
        sleep(ms(20)).await;
        Err(())
    });
    let fallback = at(fallback.await.unwrap_err());
    assert_eq!((fallback.phase(), fallback.attempts()), (Phase::Fallback, 1));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_transient_if_an_attempt_reached_the_operation_and_a_rejection_if_none_did() {
    let reached = Pipeline::builder("reached").timeout(ms(50)).build().unwrap();
    let outcome = reached.outcome(pending::<Result<(), ()>>).await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::transient(), "timeout"));
    let held = Pipeline::builder("held").timeout(ms(50)).layer(Hold(secs(9))).build().unwrap();
    let outcome = held.outcome(|| async { Ok::<(), ()>(()) }).await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::rejected(), "timeout"));
}

#[tokio::test(start_paused = true)]
async fn what_would_begin_at_the_deadline_is_not_called() {
    let pipeline = Pipeline::builder("api").timeout(ms(50)).layer(Hold(ms(50))).build().unwrap();
    let script = Script::always(Ok(0));
    let at = timed_out(pipeline.call(|| script.attempt()).await);
    assert_eq!((script.attempts(), at.attempts()), (0, 0));
}

/// Repeats whatever comes.
struct Twice;

impl Describe for Twice {}

impl<T: Send, E: Send> Policy<T, E> for Twice {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let _first = op.attempt(cx.with_attempt(1)).await;
        op.attempt(cx.with_attempt(2)).await
    }
}

#[tokio::test(start_paused = true)]
async fn all_attempts_within_the_limit_are_counted_whoever_sees_the_time_pass() {
    let inner = Timeout::builder(ms(60)).name("inner").build().unwrap();
    let twice = Pipeline::builder("api").timeout(ms(100)).layer(Twice).layer(inner).layer(Hold(ms(50)));
    let at = timed_out(twice.build().unwrap().call(|| async { Err::<(), _>(()) }).await);
    assert_eq!((at.scope(), at.limit(), at.attempts()), (Scope::Total, ms(100), 1));
}

#[tokio::test(start_paused = true)]
async fn every_call_that_ends_as_a_timeout_was_reported_as_one() {
    // Whoever sees the time pass first: the timer, a queue, the operation, or the entry.
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(secs(9)).build().unwrap());
    let _taken = bulkhead.try_acquire().unwrap();
    let by_queue = Pipeline::builder("queue").bulkhead(bulkhead.clone());
    let by_hold = Pipeline::builder("hold").layer(Hold(ms(50)));
    let (queue, hold, timer, entry) = (Log::new(), Log::new(), Log::new(), Log::new());
    let options = CallOptions::new().deadline(Instant::now() + ms(50));
    let op = |_: Attempt| pending::<Result<(), ()>>();
    let answers = tokio::join!(
        async { by_queue.observer(queue.clone()).build().unwrap().call_with(options, op).await },
        async { by_hold.observer(hold.clone()).build().unwrap().call_with(options, op).await },
        async { Pipeline::builder("timer").observer(timer.clone()).build().unwrap().call_with(options, op).await },
    );
    assert_eq!(timed_out(answers.0).phase(), Phase::Queue);
    assert_eq!(timed_out(answers.1).phase(), Phase::Entry);
    assert_eq!(timed_out(answers.2).phase(), Phase::Attempt);
    let late = Pipeline::builder("entry").observer(entry.clone()).build().unwrap();
    assert_eq!(timed_out(late.call_with(options, op).await).phase(), Phase::Entry);
    let events = [&queue, &hold, &timer, &entry].map(|log| {
        let reported = reported(log);
        assert_eq!(reported.len(), 1, "{log:?}");
        (reported[0].0, reported[0].1)
    });
    let phases = [Phase::Queue, Phase::Entry, Phase::Attempt, Phase::Entry];
    assert_eq!(events, phases.map(|phase| (Scope::Deadline, phase)));
}

/// Tells when it is dropped.
struct Connection<'a>(&'a AtomicBool);

impl<'a> Connection<'a> {
    fn open(closed: &'a AtomicBool) -> Self {
        assert!(closed.swap(false, Relaxed), "the connection before is still open");
        Self(closed)
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn the_attempt_that_timed_out_is_gone_before_anything_else_begins() {
    let closed = Arc::new(AtomicBool::new(true));
    let seen = closed.clone();
    let pipeline = Pipeline::builder("api")
        .fallback(Fallback::from_future(move |_: &Outcome<u32, ()>| {
            assert!(seen.load(Relaxed), "a fallback begins while the attempt holds its connection");
            async { Some(Ok(42)) }
        }))
        .retry(retry(3, ms(0)))
        .timeout(ms(50))
        .build()
        .unwrap();
    let answer = pipeline
        .call(|| async {
            let _connection = Connection::open(&closed);
            pending().await
        })
        .await;
    assert_eq!(answer, Ok(42));

    let seen = closed.clone();
    let guards = Pipeline::builder("guards")
        .fallback(Fallback::from_error(move |_: &Error<()>| seen.load(Relaxed)))
        .timeout(ms(50))
        .build()
        .unwrap();
    let gone = guards.guard(async {
        let _connection = Connection::open(&closed);
        pending().await
    });
    assert_eq!(gone.await, Ok(true), "the same of a single future");
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_by_its_caller_is_no_timeout() {
    let log = Log::new();
    let pipeline = Pipeline::builder("api").timeout(ms(100)).observer(log.clone()).build().unwrap();
    let call = pipeline.call(pending::<Result<(), ()>>);
    assert!(tokio::time::timeout(ms(50), call).await.is_err());
    sleep(secs(1)).await;
    assert_eq!(reported(&log), []);
}

#[test]
fn a_call_that_is_ready_at_once_makes_no_timer() {
    // A runtime without timers panics when one is made.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let pipeline = Pipeline::standard("api").build().unwrap();
    let soon = || CallOptions::new().deadline(Instant::now() + secs(60));
    runtime.block_on(async {
        let timeout = Timeout::new(secs(1)).unwrap();
        assert_eq!(timeout.call(|| async { Ok::<_, ()>(1) }).await, Ok(1));
        assert_eq!(timeout.guard(async { Ok::<_, ()>(2) }).await, Ok(2));
        assert_eq!(pipeline.call_with(soon(), |_| async { Ok::<_, ()>(3) }).await, Ok(3));
    });
    let makes_one = runtime
        .block_on(support::caught(async { Timeout::new(secs(1)).unwrap().call(pending::<Result<(), ()>>).await }));
    assert!(makes_one.is_err(), "or this test shows nothing");
}

/// Works on without waiting while the clock moves on, then waits for ever.
async fn busy_then_pending() -> Result<u32, Verdict> {
    advance(ms(80)).await;
    pending().await
}

/// Polls what is inside with a waker of its own, from the so-many-th poll on.
struct Apart {
    from: u32,
}

impl Describe for Apart {}

impl<T: Send, E: Send> Policy<T, E> for Apart {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let mut attempt = Box::pin(op.attempt(cx));
        for _ in 0..self.from {
            if let Some(outcome) = poll_immediate(&mut attempt).await {
                return outcome;
            }
        }
        FuturesUnordered::from_iter([attempt]).next().await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_polled_with_a_waker_of_its_own_is_ended_in_time_as_well() {
    for from in 0..3 {
        let apart = Pipeline::builder("p").timeout(ms(300)).layer(Apart { from }).timeout(ms(100));
        let apart = apart.retry(retry(3, ms(20))).timeout(ms(30)).build().unwrap();
        let begun = Instant::now();
        let timed_out = timed_out(apart.call(pending::<Result<u32, Verdict>>).await);
        let times = (begun.elapsed(), timed_out.attempts(), timed_out.limit());
        assert_eq!(times, (ms(80), 1, ms(30)), "attempts at 0 and 50, and a third at 100 would be too late");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_all_timeouts_begins_when_the_operation_is_first_pending() {
    let total = Pipeline::builder("p").timeout(ms(100)).retry(retry(2, ms(0))).build().unwrap();
    let begun = Instant::now();
    assert_eq!(timed_out(total.call(busy_then_pending).await).scope(), Scope::Total);
    assert_eq!(begun.elapsed(), ms(180));

    let both = Pipeline::builder("p").timeout(ms(250)).retry(retry(2, ms(0))).timeout(ms(100)).build().unwrap();
    let begun = Instant::now();
    assert_eq!(timed_out(both.call(busy_then_pending).await).scope(), Scope::Total);
    assert_eq!(begun.elapsed(), ms(330), "the second attempt begins at 180 and would last until 360");
}

#[tokio::test(start_paused = true)]
async fn the_time_begins_at_once_for_an_operation_that_asks_for_its_deadline() {
    let timeout = Timeout::new(ms(100)).unwrap();
    let begun = Instant::now();
    let call = timeout.call_with(CallOptions::new(), |attempt: Attempt| {
        assert_eq!(attempt.deadline(), Some(Instant::now() + ms(100)));
        busy_then_pending()
    });
    timed_out(call.await);
    assert_eq!(begun.elapsed(), ms(100));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_told_how_much_time_is_left() {
    let timeout = Timeout::new(ms(50)).unwrap();
    let answer = timeout.call_with(CallOptions::new(), |attempt| async move {
        assert_eq!(attempt.remaining(), Some(ms(50)));
        sleep(ms(30)).await;
        assert_eq!(attempt.remaining(), Some(ms(20)));
        Ok::<_, ()>(attempt.deadline().unwrap())
    });
    let started = Instant::now();
    assert_eq!(answer.await, Ok(started + ms(50)));
    let none = Retry::builder().build().unwrap();
    let none = none.call_with(CallOptions::new(), |attempt| async move { Ok::<_, ()>(attempt.remaining()) });
    assert_eq!(none.await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_beyond_all_time_is_none() {
    let far = Instant::now() + secs(100 * 365 * 24 * 60 * 60);
    let timeout = Timeout::new(secs(30 * 365 * 24 * 60 * 60)).unwrap();
    let call = timeout.call_with(CallOptions::new().deadline(far), |_| async { slow(secs(1000)).attempt().await });
    assert_eq!(call.await, Ok(7));
}

#[test]
fn limits_that_mean_no_timeout_are_refused() {
    for (limit, value) in [(Duration::ZERO, "0ns"), (Duration::MAX, "18446744073709551615.999999999s")] {
        let error = Timeout::new(limit).unwrap_err();
        assert_eq!((error.field(), error.value()), ("limit", value));
        let error = Pipeline::builder("api").timeout(limit).build().unwrap_err();
        assert_eq!(error.pipeline().map(ToString::to_string), Some("api".to_owned()));
        assert_eq!((error.field(), error.value()), ("limit", value));
    }
    assert_eq!(Timeout::builder(ms(1)).name("").build().unwrap_err().field(), "name");
    assert_eq!(Timeout::new(ms(1)).unwrap().limit(), ms(1));
}

/// A call within 100 ms that waits for what another task sends at 150 ms, while the process stands still until `wakes`.
async fn stalled(wakes: Duration, log: &Log) -> Outcome<u32, Verdict> {
    let pipeline =
        Pipeline::builder("api").timeout(ms(100)).classify_errors(as_it_says).observer(log.clone()).build().unwrap();
    let (sender, receiver) = oneshot::channel();
    let slot = std::sync::Mutex::new(Some(receiver));
    let mut network = JoinSet::new();
    network.spawn(async {
        sleep(ms(150)).await;
        sender.send(9).unwrap_or_default();
    });
    tokio::task::yield_now().await;
    let call = pipeline.outcome(|| {
        let receiver = slot.lock().unwrap().take().unwrap();
        async { receiver.await.map_err(|_| Verdict::transient()) }
    });
    tokio::join!(call, advance(wakes)).0
}

#[tokio::test(start_paused = true)]
async fn after_a_stall_what_has_arrived_meanwhile_is_delivered() {
    for (wakes, delivered) in [(150, false), (200, false), (201, true), (5_000, true)] {
        let log = Log::new();
        let outcome = stalled(ms(wakes), &log).await;
        assert_eq!(outcome.result.is_ok(), delivered, "woken at {wakes} ms");
        assert!(!outcome.is_stalled());
        assert_eq!(reported(&log).len(), usize::from(!delivered));
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_after_a_stall_is_marked_and_tells_how_late_it_was() {
    let log = Log::new();
    let pipeline = Pipeline::builder("api").timeout(ms(100)).observer(log.clone()).build().unwrap();
    let (outcome, ()) = tokio::join!(pipeline.outcome(pending::<Result<(), ()>>), advance(ms(1_100)));
    assert!(outcome.is_stalled());
    assert_eq!(outcome.verdict(), Verdict::transient());
    let late = log.pick(|kind| match kind {
        EventKind::TimedOut { limit, elapsed, late_by, .. } => Some((limit, elapsed, late_by)),
        _ => None,
    });
    assert_eq!(late, [(ms(100), ms(1_100), ms(1_000))]);
    assert!(!pipeline.outcome(pending::<Result<(), ()>>).await.is_stalled(), "the next one is an ordinary timeout");
}

#[tokio::test(start_paused = true)]
async fn after_a_stall_nested_timeouts_end_as_well() {
    let pipeline = Pipeline::builder("api").timeout(ms(200)).retry(retry(9, ms(1))).timeout(ms(100)).build().unwrap();
    let options = CallOptions::new().deadline(Instant::now() + ms(300));
    let call = pipeline.call_with(options, |_| pending::<Result<(), ()>>());
    let (answer, ()) = tokio::join!(call, advance(secs(5)));
    assert_eq!(timed_out(answer).scope(), Scope::Attempt, "the innermost ends it, and no time is left for a repeat");
}

/// Looks every so often whether the attempt has ended, and does not poll it in between.
struct Samples(Duration);

impl Describe for Samples {}

impl<T: Send, E: Send> Policy<T, E> for Samples {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let mut attempt = pin!(op.attempt(cx));
        loop {
            if let Some(outcome) = poll_immediate(attempt.as_mut()).await {
                return outcome;
            }
            sleep(self.0).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_polled_when_its_time_is_up_ends_when_it_is() {
    let sampled =
        Pipeline::builder("p").layer(Samples(ms(20))).retry(retry(2, ms(25))).timeout(ms(50)).build().unwrap();
    let begun = Instant::now();
    let call = tokio::time::timeout(secs(10), sampled.call(pending::<Result<u32, Verdict>>));
    assert_eq!(timed_out(call.await.expect("it ends")).attempts(), 1);
    // The first at 60 ms for 50, the pause at 100 for 85, the second at 160 for 150.
    assert_eq!(begun.elapsed(), ms(160));
}

/// Gives up its turn before each poll of the attempt.
struct Yields;

impl Describe for Yields {}

impl<T: Send, E: Send> Policy<T, E> for Yields {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let mut attempt = pin!(op.attempt(cx));
        let mut polls = 0;
        poll_fn(move |task| {
            polls += 1;
            assert!(polls < 1000, "it does not end");
            if polls % 2 == 1 {
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            attempt.as_mut().poll(task)
        })
        .await
    }
}

#[tokio::test(start_paused = true)]
async fn what_gives_up_its_turn_before_each_poll_is_ended_in_time() {
    let yields = Pipeline::builder("p").layer(Yields).retry(retry(2, ms(25))).timeout(ms(50)).build().unwrap();
    let begun = Instant::now();
    assert_eq!(timed_out(yields.call(pending::<Result<u32, Verdict>>).await).limit(), ms(50));
    assert_eq!(begun.elapsed(), ms(125));
}

/// On the real clock: a paused one stands still while a task is busy.
#[tokio::test]
async fn what_never_runs_out_of_work_is_ended_as_well() {
    let permits = tokio::sync::Semaphore::new(1);
    let timeout = Timeout::new(ms(20)).unwrap();
    let busy = timeout.call(|| async {
        // Always ready, until tokio's budget for one turn is used up.
        for _ in 0..u32::MAX {
            drop(permits.acquire().await);
        }
        Ok::<(), ()>(())
    });
    assert!(busy.await.unwrap_err().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn a_call_is_ended_beside_one_that_leaves_it_no_cooperative_budget() {
    let timeout = Timeout::new(ms(20)).unwrap();
    let mut call = pin!(timeout.call(pending::<Result<(), ()>>));
    let begun = Instant::now();
    let result = loop {
        let poll = poll_fn(|task| {
            while pin!(tokio::task::consume_budget()).poll(task).is_ready() {}
            Poll::Ready(call.as_mut().poll(task))
        });
        if let Poll::Ready(result) = poll.await {
            break result;
        }
        assert!(begun.elapsed() < secs(1), "it never ends");
        advance(ms(1)).await;
    };
    assert_eq!(timed_out(result).limit(), ms(20));
    assert!(begun.elapsed() <= ms(22), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_guarded_future_keeps_the_callers_deadline() {
    let pipeline = Pipeline::builder("api").timeout(secs(5)).build().unwrap();
    let options = CallOptions::new().deadline(Instant::now() + ms(70));
    let error = pipeline.guard_with(options, pending::<Result<(), ()>>()).await.unwrap_err();
    let timed_out = error.timed_out().unwrap();
    assert_eq!((timed_out.scope(), timed_out.limit()), (Scope::Deadline, ms(70)));
}

#[tokio::test(start_paused = true)]
async fn each_call_has_a_time_of_its_own_though_they_share_the_timeout() {
    let timeout = Timeout::new(ms(50)).unwrap();
    let takes = async |begins, takes| {
        sleep(ms(begins)).await;
        let started = Instant::now();
        let answer = timeout.call(|| async { slow(ms(takes)).attempt().await }).await;
        (answer.is_ok(), started.elapsed())
    };
    let (first, second, third) = tokio::join!(takes(0, 90), takes(30, 40), takes(40, 60));
    assert_eq!([first, second, third], [(false, ms(50)), (true, ms(40)), (false, ms(50))]);
    assert_eq!(takes(0, 49).await, (true, ms(49)), "nor does one that fired end a later one");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_callers_is_the_limit_of_one_call_alone() {
    let timeout = Timeout::new(ms(50)).unwrap();
    for (left, ends, scope) in [(20, 20, Scope::Deadline), (80, 50, Scope::Total), (30, 30, Scope::Deadline)] {
        let started = Instant::now();
        let options = CallOptions::new().deadline(started + ms(left));
        let at = timed_out(timeout.call_with(options, |_| pending::<Result<(), ()>>()).await);
        assert_eq!((started.elapsed(), at.limit(), at.scope()), (ms(ends), ms(ends), scope));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_moves_to_another_task_is_woken_there_by_its_timer() {
    let pipeline = Pipeline::builder("users").timeout(ms(50)).build().unwrap();
    let mut call = Box::pin(pipeline.call(pending::<Result<u32, ()>>));
    for _ in 0..3 {
        let elsewhere = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(call.as_mut().poll(elsewhere).is_pending(), "its timer is set in a task that never wakes");
        sleep(ms(10)).await;
    }
    let began = Instant::now();
    assert!(call.await.unwrap_err().is_timeout());
    assert_eq!(began.elapsed(), ms(20));
}
