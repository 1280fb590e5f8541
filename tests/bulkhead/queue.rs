//! The queue: its order, its bound, its time limit, and those who leave it.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::{join, join_all};
use tokio::time::{Instant, sleep, timeout};
use withstand::{
    Bulkhead, CallOptions, Context, Describe, Error, EventKind, Hedge, HedgeDelay, HedgeSuppression, Operation,
    Outcome, Phase, Pipeline, Policy, Reason, Scope, TimedOut, VerdictKind, WaitEnd,
};

use crate::{
    all_permits, begun, poll_once, ready,
    support::{Log, ms},
};

fn queueing(limit: usize, queue: usize, max_wait: Duration) -> Bulkhead {
    Bulkhead::builder().limit(limit).queue(queue).max_wait(max_wait).build().unwrap()
}

fn reason<T, E>(result: Result<T, Error<E>>) -> Reason {
    result.err().and_then(|error| error.rejection().map(withstand::Rejection::reason)).expect("a rejection")
}

async fn takes(time: Duration) -> Result<(), Infallible> {
    sleep(time).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_admitted_in_the_order_in_which_they_came() {
    let bulkhead = queueing(3, 50, ms(10_000));
    let order = Mutex::new(Vec::new());
    let call = |index: u32| {
        let (bulkhead, order) = (&bulkhead, &order);
        async move {
            bulkhead
                .call(|| async move {
                    order.lock().unwrap().push(index);
                    // Of different lengths, so that the permits come free in another order than they were taken.
                    takes(ms(u64::from(7 + index * 5 % 11))).await
                })
                .await
        }
    };
    let results = join_all((0..53).map(call)).await;
    assert!(results.iter().all(Result::is_ok));
    assert!(order.into_inner().unwrap().into_iter().eq(0..53));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_never_overtakes_one_who_waits() {
    let bulkhead = queueing(1, 2, ms(100));
    let holder = ready(bulkhead.acquire()).unwrap();
    let mut first = begun(bulkhead.acquire());
    drop(holder);
    // The permit is free, and it is the first one's, who does not know yet.
    assert!(bulkhead.try_acquire().is_err());
    let mut second = begun(bulkhead.acquire());
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (1, 2));
    let permit = ready(first.as_mut()).unwrap();
    assert!(poll_once(second.as_mut()).is_pending());
    drop(permit);
    drop(ready(second.as_mut()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_room_for_so_many() {
    let bulkhead = queueing(1, 1, ms(100));
    let done = AtomicU32::new(0);
    let call = || async {
        takes(ms(10)).await?;
        done.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(())
    };
    let (runs, waits, rejected) =
        tokio::join!(bulkhead.call(call), bulkhead.call(call), async { reason(ready(bulkhead.call(call))) });
    assert!(runs.is_ok() && waits.is_ok());
    assert_eq!(rejected, Reason::BulkheadFull);
    assert_eq!(done.load(Ordering::Relaxed), 2);

    // Both places are as they were.
    let running = begun(bulkhead.call(call));
    let waiting = begun(bulkhead.call(call));
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (1, 1));
    assert_eq!(reason(ready(bulkhead.call(call))), Reason::BulkheadFull);
    drop((running, waiting));
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_longer_than_max_wait_is_rejected_then_and_not_before() {
    let bulkhead = queueing(1, 5, ms(20));
    let _held = bulkhead.try_acquire().unwrap();
    let start = Instant::now();
    let called = AtomicU32::new(0);
    let call = || async {
        called.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(())
    };
    assert_eq!(reason(bulkhead.call(call).await), Reason::QueueTimeout);
    assert_eq!(start.elapsed(), ms(20));
    let rejection = bulkhead.acquire().await.unwrap_err();
    assert_eq!((rejection.reason(), rejection.retry_after()), (Reason::QueueTimeout, None));
    assert_eq!(start.elapsed(), ms(40));
    assert_eq!((called.load(Ordering::Relaxed), bulkhead.queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_free_in_time_is_taken_at_once() {
    let bulkhead = queueing(1, 1, ms(1000));
    let start = Instant::now();
    let (_, waited) = tokio::join!(bulkhead.call(|| takes(ms(200))), async {
        bulkhead.call(|| async { Ok::<_, Infallible>(start.elapsed()) }).await
    });
    assert_eq!(waited.unwrap(), ms(200));
}

/// Takes 10 ms before each attempt.
struct Slow;
impl Describe for Slow {}
impl<T: Send, E: Send> Policy<T, E> for Slow {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        sleep(ms(10)).await;
        op.attempt(cx).await
    }
}

/// How a call ends that comes to a queue 10 ms after it began, with 30 ms in all, and what is told of it.
async fn refused_in_the_queue(max_wait: Duration) -> (Outcome<(), Infallible>, Duration, Vec<EventKind>) {
    let log = Log::new();
    let bulkhead = Bulkhead::builder().limit(1).queue(1).max_wait(max_wait).build().unwrap();
    let bulkhead = Arc::new(bulkhead);
    let pipeline = Pipeline::builder("users")
        .timeout(ms(30))
        .layer(Slow)
        .bulkhead(bulkhead.clone())
        .observer(log.clone())
        .build()
        .unwrap();
    let _held = bulkhead.try_acquire().unwrap();
    let start = Instant::now();
    let outcome = pipeline.outcome(|| async { Ok::<(), Infallible>(()) }).await;
    assert_eq!(bulkhead.queued(), 0);
    (outcome, start.elapsed(), log.kinds())
}

fn count(told: &[EventKind], is_meant: impl Fn(&EventKind) -> bool) -> usize {
    told.iter().filter(|kind| is_meant(kind)).count()
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_in_the_queue_is_a_timeout_that_called_nothing() {
    // At the same moment it is the deadline's as well: nothing could be called any more.
    for max_wait in [21, 20] {
        let (outcome, after, told) = refused_in_the_queue(ms(max_wait)).await;
        assert_eq!(after, ms(30));
        assert_eq!(outcome.verdict().kind(), VerdictKind::Rejected);
        let error = outcome.result.unwrap_err();
        let timed_out = error.timed_out().expect("a timeout");
        assert_eq!((timed_out.limit(), timed_out.scope()), (ms(30), Scope::Total));
        assert_eq!((timed_out.phase(), timed_out.attempts()), (Phase::Queue, 0));
        assert_eq!(count(&told, |kind| matches!(kind, EventKind::Waited { end: WaitEnd::Deadline, .. })), 1);
        assert_eq!(count(&told, |kind| matches!(kind, EventKind::Rejected { .. })), 0);
        assert_eq!(count(&told, |kind| matches!(kind, EventKind::AttemptStarted { .. })), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_in_the_queue_is_told_as_one() {
    let (_, _, told) = refused_in_the_queue(ms(21)).await;
    let is_meant = |kind: &EventKind| matches!(kind, EventKind::TimedOut { scope: Scope::Total, phase: Phase::Queue, limit, .. } if *limit == ms(30));
    assert_eq!(count(&told, is_meant), 1);
}

#[tokio::test(start_paused = true)]
async fn max_wait_before_the_deadline_is_a_rejection() {
    let (outcome, after, told) = refused_in_the_queue(ms(19)).await;
    assert_eq!(after, ms(29));
    assert_eq!(outcome.verdict().kind(), VerdictKind::Rejected);
    assert_eq!(reason(outcome.result), Reason::QueueTimeout);
    let is_meant = |kind: &EventKind| matches!(kind, EventKind::Rejected { reason: Reason::QueueTimeout, .. });
    assert_eq!(count(&told, is_meant), 1);
    assert_eq!(count(&told, |kind| matches!(kind, EventKind::TimedOut { .. })), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_together_with_the_deadline_is_of_no_use() {
    let bulkhead = queueing(1, 1, ms(1000));
    let called = AtomicU32::new(0);
    let options = CallOptions::new().deadline(Instant::now() + ms(50));
    let (_, late) = tokio::join!(
        bulkhead.call(|| takes(ms(50))),
        bulkhead.call_with(options, |_| async {
            called.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(())
        })
    );
    let error = late.unwrap_err();
    assert_eq!(error.timed_out().map(TimedOut::scope), Some(Scope::Deadline));
    assert_eq!(called.load(Ordering::Relaxed), 0);
    assert_eq!(all_permits(&bulkhead).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_the_queue_and_the_next_moves_up() {
    let bulkhead = queueing(1, 3, ms(100));
    let holder = ready(bulkhead.acquire()).unwrap();
    let first = begun(bulkhead.acquire());
    let mut second = begun(bulkhead.acquire());
    let third = begun(bulkhead.acquire());
    assert_eq!(bulkhead.queued(), 3);
    drop(first);
    assert_eq!(bulkhead.queued(), 2);
    let _fourth = begun(bulkhead.acquire());
    drop(third);
    drop(holder);
    let permit = ready(second.as_mut()).unwrap();
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (1, 1));
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn a_permit_given_to_one_who_goes_away_goes_to_the_next() {
    let bulkhead = queueing(1, 2, ms(100));
    let holder = ready(bulkhead.acquire()).unwrap();
    let given = begun(bulkhead.acquire());
    let mut next = begun(bulkhead.acquire());
    drop(holder);
    drop(given);
    drop(ready(next.as_mut()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn each_wait_is_reported_once_with_its_end() {
    let log = Log::new();
    let pipeline = Pipeline::builder("users")
        .bulkhead(Bulkhead::builder().limit(1).queue(3).max_wait(ms(50)))
        .observer(log.clone())
        .build()
        .unwrap();
    let call = |time: u64| pipeline.call(move || takes(ms(time)));
    let leaves = async { timeout(ms(15), call(1)).await.is_err() };
    let hangs = async {
        sleep(ms(21)).await;
        call(100).await
    };
    let late = async {
        sleep(ms(25)).await;
        call(1).await
    };
    let (_, waits, left, _, late) = tokio::join!(call(20), call(20), leaves, hangs, late);
    assert!(waits.is_ok() && left && late.is_err());
    let waits = log.pick(|kind| match kind {
        EventKind::Waited { waited, depth, end, .. } => Some((waited, depth, end)),
        _ => None,
    });
    let expected = [
        (ms(15), 2, WaitEnd::Cancelled),
        (ms(20), 1, WaitEnd::Admitted),
        (ms(19), 1, WaitEnd::Admitted),
        (ms(50), 2, WaitEnd::QueueTimeout),
    ];
    assert_eq!(waits, expected);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_never_waits() {
    let log = Log::new();
    let pipeline = Pipeline::builder("users")
        .hedge(Hedge::builder().delay(HedgeDelay::parallel()).max_hedges(2).without_budget())
        .bulkhead(Bulkhead::builder().limit(1).queue(10).max_wait(ms(100)))
        .observer(log.clone())
        .build()
        .unwrap();
    pipeline.call(|| takes(ms(10))).await.unwrap();
    let bulkhead_full = |kind: &EventKind| matches!(kind, EventKind::Rejected { reason: Reason::BulkheadFull, .. });
    assert_eq!(log.count(bulkhead_full), 2);
    let suppressed =
        |kind: &EventKind| matches!(kind, EventKind::HedgeSuppressed { why: HedgeSuppression::Bulkhead, .. });
    assert_eq!(log.count(suppressed), 2);
    assert_eq!(log.count(|kind| matches!(kind, EventKind::Waited { .. })), 0);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_waits_does_not_make_room_for_its_hedge() {
    let log = Log::new();
    let pipeline = Pipeline::builder("users")
        .hedge(Hedge::builder().delay(HedgeDelay::parallel()).without_budget())
        .bulkhead(Bulkhead::builder().limit(1).queue(10).max_wait(ms(100)))
        .observer(log.clone())
        .build()
        .unwrap();
    let (first, second) = tokio::join!(pipeline.call(|| takes(ms(10))), pipeline.call(|| takes(ms(10))));
    assert!(first.is_ok() && second.is_ok());
    let admitted = |kind: &EventKind| matches!(kind, EventKind::Waited { end: WaitEnd::Admitted, depth: 1, .. });
    assert_eq!(log.count(admitted), 1);
    assert_eq!(log.count(|kind| matches!(kind, EventKind::AttemptStarted { hedge: 1, .. })), 0);
}

#[tokio::test(start_paused = true)]
async fn unless_told_otherwise_there_is_no_queue_and_in_a_queue_nobody_waits_longer_than_100_ms() {
    let bulkhead = Bulkhead::builder().limit(1).build().unwrap();
    let _held = bulkhead.try_acquire().unwrap();
    assert_eq!(ready(bulkhead.acquire()).unwrap_err().reason(), Reason::BulkheadFull);

    let queued = Bulkhead::builder().limit(1).queue(1).build().unwrap();
    let _held = queued.try_acquire().unwrap();
    let start = Instant::now();
    assert_eq!(queued.acquire().await.unwrap_err().reason(), Reason::QueueTimeout);
    assert_eq!(start.elapsed(), ms(100));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_with_its_permit_at_the_deadline_ended_with_the_deadline() {
    let log = Log::new();
    let bulkhead = Arc::new(queueing(1, 1, ms(1000)));
    let pipeline =
        Pipeline::builder("users").bulkhead(bulkhead.clone()).layer(Unreached).observer(log.clone()).build().unwrap();
    let options = CallOptions::new().deadline(Instant::now() + ms(50));
    let call = pipeline.call_with(options, |_| async { Ok::<_, Infallible>(()) });
    // The one who has it gives it back first.
    let (_, late) = join(bulkhead.call(|| takes(ms(50))), call).await;
    assert_eq!(late.unwrap_err().timed_out().map(TimedOut::phase), Some(Phase::Queue));
    let ends = log.pick(|kind| match kind {
        EventKind::Waited { end, .. } => Some(end),
        _ => None,
    });
    assert_eq!(ends, [WaitEnd::Deadline]);
    assert_eq!(bulkhead.in_use(), 0);
}

/// What no call may come to.
struct Unreached;
impl Describe for Unreached {}
impl<T: Send, E: Send> Policy<T, E> for Unreached {
    async fn run<Op: Operation<T, E>>(&self, _: Op, _: Context<'_>) -> Outcome<T, E> {
        panic!("it was let through")
    }
}
