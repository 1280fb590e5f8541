//! When a hedge begins.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{self, Waker},
    time::Duration,
};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};
use withstand::{
    Bulkhead, CallOptions, Context, Describe, Error, Hedge, HedgeBuilder, HedgeDelay, HedgeSuppression, HedgeTrigger,
    Idempotency, Operation, Outcome, Pipeline, Policy, Scope,
};

use crate::{
    stage::{HANG, Stage, answers, by_fault, every, fails, finished, hedged, hedges, suppressed},
    support::{Log, ms},
};

#[tokio::test(start_paused = true)]
async fn hedges_begin_one_delay_after_the_other() {
    let log = Log::new();
    let stage = Stage::new([HANG, HANG, HANG, answers(5)]);
    let pipeline = hedged(every(20, 3), &log);
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(3));
    assert_eq!(stage.now(), 65);
    assert_eq!(stage.starts(), [(0, 0), (1, 20), (2, 40), (3, 60)]);
    let delay = |hedge| (hedge, ms(20), HedgeTrigger::Delay);
    assert_eq!(hedges(&log), [delay(1), delay(2), delay(3)]);
    assert_eq!(finished(&log), [(4, 3, 3)]);
}

/// Polls what is inside with a waker of its own.
struct Apart;

impl Describe for Apart {}

impl<T: Send, E: Send> Policy<T, E> for Apart {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        FuturesUnordered::from_iter([op.attempt(cx)]).next().await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn hedges_that_are_polled_with_a_waker_of_their_own_begin_in_time_as_well() {
    let stage = Stage::new([HANG, HANG, fails(3), answers(5)]);
    let pipeline = Pipeline::builder("apart").layer(Apart).hedge(every(20, 3)).timeout(ms(200));
    let pipeline = pipeline.classify_errors(by_fault()).build().unwrap();
    assert_eq!(pipeline.call(|| stage.next()).await.ok(), Some(3));
    assert_eq!(stage.starts(), [(0, 0), (1, 20), (2, 40), (3, 43)]);
    let pipeline = Pipeline::builder("apart").layer(Apart).hedge(every(150, 1)).timeout(ms(200));
    let stage = Stage::new([HANG, HANG]);
    let begun = Instant::now();
    assert!(pipeline.classify_errors(by_fault()).build().unwrap().call(|| stage.next()).await.is_err());
    assert_eq!((stage.starts(), begun.elapsed()), (vec![(0, 0), (1, 150)], ms(350)));
}

#[tokio::test(start_paused = true)]
async fn there_are_at_most_so_many() {
    let stage = Stage::new([answers(1000)]);
    let pipeline = hedged(every(20, 2), &Log::new());
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(0));
    assert_eq!(stage.starts(), [(0, 0), (1, 20), (2, 40)]);
    assert_eq!((stage.peak(), stage.running()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_delay_needs_none() {
    let log = Log::new();
    let stage = Stage::new([answers(19)]);
    assert_eq!(hedged(every(20, 3), &log).call(|| stage.next()).await, Ok(0));
    assert_eq!(stage.starts(), [(0, 0)]);
    assert!(hedges(&log).is_empty() && suppressed(&log).is_empty());
    assert_eq!(finished(&log), [(1, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn in_parallel_all_begin_at_once() {
    let log = Log::new();
    let stage = Stage::new([HANG, HANG, answers(3), HANG]);
    let hedge = || Hedge::builder().delay(HedgeDelay::parallel()).max_hedges(3).without_budget();
    assert_eq!(hedged(hedge(), &log).call(|| stage.next()).await, Ok(2));
    assert_eq!(stage.starts(), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    let parallel = |hedge| (hedge, Duration::ZERO, HedgeTrigger::Parallel);
    assert_eq!(hedges(&log), [parallel(1), parallel(2), parallel(3)]);

    let stage = Stage::new([answers(0), HANG]);
    assert_eq!(hedged(hedge(), &log).call(|| stage.next()).await, Ok(0));
    assert_eq!(stage.starts(), [(0, 0)], "the first was ready at once");
}

/// Which attempts have begun when the call has been polled once.
fn begun_in_one_poll(call: impl Future, stage: &Stage) -> Vec<u32> {
    assert!(pin!(call).poll(&mut task::Context::from_waker(Waker::noop())).is_pending());
    stage.starts().into_iter().map(|(index, _)| index).collect()
}

/// A timer has a resolution of a millisecond: what begins now must not wait for one.
#[tokio::test(start_paused = true)]
async fn what_begins_at_once_begins_in_the_same_poll() {
    let log = Log::new();
    let hedge = Hedge::builder().delay(HedgeDelay::parallel()).max_hedges(2).without_budget();
    let (pipeline, stage) = (hedged(hedge, &log), Stage::new([HANG]));
    assert_eq!(begun_in_one_poll(pipeline.call(|| stage.next()), &stage), [0, 1, 2]);

    let (pipeline, stage) = (hedged(every(20, 3), &log), Stage::new([fails(0), fails(0), HANG]));
    assert_eq!(begun_in_one_poll(pipeline.call(|| stage.next()), &stage), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn on_failure_waits_for_one_however_long_it_takes() {
    let log = Log::new();
    let stage = Stage::new([fails(5000), answers(5)]);
    let hedge = Hedge::builder().delay(HedgeDelay::on_failure()).max_hedges(3).without_budget();
    assert_eq!(hedged(hedge, &log).call(|| stage.next()).await, Ok(1));
    assert_eq!(stage.starts(), [(0, 0), (1, 5000)]);
    assert_eq!(hedges(&log), [(1, ms(5000), HedgeTrigger::Failure)]);
}

fn custom(asked: &Arc<Mutex<Vec<u32>>>, delay: impl Fn(u32) -> Option<u64> + Send + Sync + 'static) -> HedgeBuilder {
    let asked = asked.clone();
    let delay = HedgeDelay::custom(move |next| {
        asked.lock().unwrap().push(next);
        delay(next).map(ms)
    });
    Hedge::builder().delay(delay).max_hedges(3).without_budget()
}

#[tokio::test(start_paused = true)]
async fn a_function_is_asked_once_before_each_hedge() {
    let asked = Arc::default();
    let stage = Stage::new([HANG, HANG, HANG, answers(1)]);
    let hedge = custom(&asked, |next| Some(u64::from(10 * next)));
    assert_eq!(hedged(hedge, &Log::new()).call(|| stage.next()).await, Ok(3));
    assert_eq!(stage.starts(), [(0, 0), (1, 10), (2, 30), (3, 60)]);
    assert_eq!(*asked.lock().unwrap(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_says_never_leaves_hedges_to_failures() {
    let asked = Arc::default();
    let stage = Stage::new([HANG, fails(100), answers(1)]);
    let hedge = custom(&asked, |next| (next == 1).then_some(10));
    assert_eq!(hedged(hedge, &Log::new()).call(|| stage.next()).await, Ok(2));
    assert_eq!(stage.starts(), [(0, 0), (1, 10), (2, 110)]);
    assert_eq!(*asked.lock().unwrap(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_function_may_start_several_together() {
    let asked = Arc::default();
    let stage = Stage::new([HANG]);
    let pipeline = hedged(custom(&asked, |next| Some(if next == 1 { 10 } else { 0 })), &Log::new());
    let call = tokio::time::timeout(ms(100), pipeline.call(|| stage.next()));
    call.await.unwrap_err();
    assert_eq!(stage.starts(), [(0, 0), (1, 10), (2, 10), (3, 10)]);
    assert_eq!(stage.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_time_that_the_first_attempt_waits_in_a_queue_does_not_count() {
    let log = Log::new();
    let bulkhead = Arc::new(Bulkhead::builder().limit(2).queue(1).max_wait(ms(500)).build().unwrap());
    let pipeline = Pipeline::builder("replicas")
        .hedge(every(20, 1))
        .bulkhead(bulkhead.clone())
        .classify_errors(by_fault())
        .observer(log.clone())
        .build()
        .unwrap();
    let stage = Stage::new([HANG, answers(5)]);
    let held = (bulkhead.try_acquire().unwrap(), bulkhead.try_acquire().unwrap());
    let (answer, ()) = tokio::join!(pipeline.call(|| stage.next()), async {
        sleep(ms(300)).await;
        drop(held);
    });
    assert_eq!(answer, Ok(1));
    assert_eq!(stage.starts(), [(0, 300), (1, 320)]);
    assert_eq!(hedges(&log), [(1, ms(20), HedgeTrigger::Delay)]);
}

#[tokio::test(start_paused = true)]
async fn the_closure_sees_which_attempt_it_makes() {
    let stage = Stage::new([HANG, HANG, answers(1)]);
    let pipeline = hedged(every(10, 2), &Log::new());
    let seen = Mutex::new(Vec::new());
    let answer = pipeline
        .call_with(CallOptions::new(), |attempt| {
            seen.lock().unwrap().push((attempt.number(), attempt.hedge()));
            stage.play(attempt.hedge())
        })
        .await;
    assert_eq!(answer, Ok(2));
    assert_eq!(seen.into_inner().unwrap(), [(1, 0), (1, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_idempotent_is_never_hedged() {
    for (delay, parts) in [(0, [HANG, answers(1)]), (10, [HANG, answers(1)]), (10, [fails(1), answers(1)])] {
        let log = Log::new();
        let stage = Stage::new(parts);
        let pipeline = hedged(every(delay, 3), &log);
        let options = CallOptions::new().idempotency(Idempotency::Unsafe).deadline(Instant::now() + ms(100));
        let error = pipeline.call_with(options, |_| stage.next()).await.unwrap_err();
        assert_eq!(error.is_operation(), parts[0].takes == 1);
        assert_eq!(stage.starts(), [(0, 0)]);
        assert_eq!(suppressed(&log), [HedgeSuppression::NotIdempotent]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_ends_all_and_one_inside_limits_each() {
    let stage = Stage::new([HANG]);
    let outside =
        Pipeline::builder("replicas").timeout(ms(50)).hedge(every(20, 5)).classify_errors(by_fault()).build().unwrap();
    let error = outside.call(|| stage.next()).await.unwrap_err();
    assert_eq!(error.timed_out().map(|t| (t.scope(), t.attempts())), Some((Scope::Total, 3)));
    assert_eq!((stage.now(), stage.running()), (50, 0));
    sleep(ms(100)).await;
    assert_eq!(stage.starts(), [(0, 0), (1, 20), (2, 40)]);

    let stage = Stage::new([HANG, HANG, answers(45)]);
    let inside =
        Pipeline::builder("replicas").hedge(every(20, 2)).timeout(ms(50)).classify_errors(by_fault()).build().unwrap();
    assert_eq!(inside.call(|| stage.next()).await, Ok(2));
    assert_eq!((stage.now(), stage.starts()), (85, vec![(0, 0), (1, 20), (2, 40)]));
}

#[tokio::test(start_paused = true)]
async fn no_hedge_begins_at_the_deadline() {
    let log = Log::new();
    let stage = Stage::new([HANG]);
    let pipeline = hedged(every(20, 5), &log);
    let options = CallOptions::new().deadline(Instant::now() + ms(40));
    let error = pipeline.call_with(options, |_| stage.next()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)));
    assert_eq!(stage.starts(), [(0, 0), (1, 20)]);
    assert_eq!(finished(&log), [(2, 1, 0)]);
    assert_eq!(suppressed(&log), [HedgeSuppression::Deadline]);
}

#[test]
fn nonsense_is_refused_by_name() {
    let refused = |builder: HedgeBuilder| {
        let error = builder.name("twice").build().unwrap_err();
        assert_eq!(error.policy().unwrap().as_str(), "twice");
        error.field()
    };
    let delay = |delay: HedgeDelay| refused(Hedge::builder().delay(delay));
    for hedges in [0, 33, u32::MAX] {
        assert_eq!(refused(Hedge::builder().max_hedges(hedges)), "max_hedges");
    }
    for quantile in [0.0, 1.0, -0.1, 95.0, f64::NAN, f64::INFINITY] {
        assert_eq!(delay(HedgeDelay::quantile(quantile)), "quantile");
    }
    assert_eq!(delay(HedgeDelay::default().floor(ms(10)).ceiling(ms(9))), "ceiling");
    assert_eq!(delay(HedgeDelay::default().ceiling(ms(4))), "ceiling", "the floor is 5 ms unless given");
    assert_eq!(delay(HedgeDelay::default().starting(Duration::ZERO)), "starting");
    assert_eq!(delay(HedgeDelay::default().min_samples(0)), "min_samples");
    assert_eq!(delay(HedgeDelay::default().window(Duration::ZERO)), "window");
    assert_eq!(delay(HedgeDelay::default().window(Duration::from_micros(999))), "window");
    assert!(Hedge::builder().name("").build().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_longest_delay_is_for_ever() {
    let stage = Stage::new([answers(100_000), HANG]);
    let pipeline = hedged(Hedge::builder().delay(Duration::MAX), &Log::new());
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(0));
    assert_eq!(stage.starts(), [(0, 0)]);
}
