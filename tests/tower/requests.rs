//! Requests: how often they are copied, and what becomes of those that cannot be.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use withstand::{
    Attempt, Bulkhead, CallOptions, Context, Describe, EventKind, HedgeSuppression, Idempotency, Operation, Outcome,
    Pipeline, Policy, Priority, Reason, Rejection, Retry, RetryStop, Scope, Verdict,
    tower::{PipelineLayer, PrepareRequest},
};

use crate::{
    support::{Log, ms},
    world::{ANSWERS, FAILS, HANGS, NEVER_READY, Numbered, Once, Step, Which, World},
};

/// Counts its clones.
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, SeqCst);
        Self(self.0.clone())
    }
}

impl Numbered for Counted {
    fn number(&self) -> u32 {
        1
    }
}

/// How often a request is cloned, and how often it is sent.
async fn clones_and_sent(which: Which, steps: impl Into<Vec<Step>>) -> (usize, usize) {
    let clones = Arc::default();
    let world = World::new(9, steps);
    let service = PipelineLayer::new(which.pipeline(&Log::new())).layer(world.service());
    let call = service.oneshot(Counted(Arc::clone(&clones)));
    drop(tokio::time::timeout(ms(500), call).await);
    world.holds_nothing_but(0);
    assert_eq!(Arc::strong_count(&clones), 1, "a request is left over");
    (clones.load(SeqCst), world.sent().len())
}

#[tokio::test(start_paused = true)]
async fn where_no_layer_repeats_no_request_is_cloned_though_it_could_be() {
    let which = Which { total: Some(100), bulkhead: true, breaker: true, ..Which::default() };
    assert_eq!(clones_and_sent(which, [ANSWERS]).await, (0, 1));
    assert_eq!(clones_and_sent(which, [FAILS]).await, (0, 1));
    assert_eq!(clones_and_sent(which, [HANGS]).await, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn where_a_layer_may_repeat_each_attempt_that_is_sent_has_one_clone_and_others_have_none() {
    let retry = Which { retry: true, each: Some(50), ..Which::default() };
    assert_eq!(clones_and_sent(retry, [ANSWERS]).await, (1, 1));
    assert_eq!(clones_and_sent(retry, [FAILS, FAILS, ANSWERS]).await, (3, 3));
    assert_eq!(clones_and_sent(retry, [NEVER_READY, ANSWERS]).await, (1, 1), "not sent, not cloned");
    let broken = Step { ready: Err(Verdict::transient()), ..ANSWERS };
    assert_eq!(clones_and_sent(retry, [broken, broken, broken]).await, (0, 0));
    let hedge = Which { hedge: Some(10), ..Which::default() };
    assert_eq!(clones_and_sent(hedge, [ANSWERS]).await, (1, 1));
    assert_eq!(clones_and_sent(hedge, [HANGS, ANSWERS]).await, (2, 2));
    let parallel = Which { hedge: Some(0), ..Which::default() };
    assert_eq!(clones_and_sent(parallel, [HANGS, HANGS]).await, (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_clones_nothing() {
    let clones: Arc<AtomicUsize> = Arc::default();
    let world = World::new(9, [ANSWERS]);
    let pipeline =
        Pipeline::builder("full").retry(Retry::builder()).bulkhead(Bulkhead::builder().limit(0)).build().unwrap();
    let service = PipelineLayer::new(pipeline).layer(world.service());
    assert!(service.oneshot(Counted(clones.clone())).await.unwrap_err().is_rejected());
    assert_eq!((clones.load(SeqCst), world.asked()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_cloned_goes_through_layers_that_do_not_repeat() {
    let world = World::new(1, [Step { ready_after: ms(5), takes: ms(5), ..ANSWERS }]);
    let pipeline = Pipeline::builder("uploads").timeout(ms(50)).bulkhead(Bulkhead::builder().limit(1)).build().unwrap();
    let service = PipelineLayer::guard(pipeline).layer(world.service());
    for number in 0..3 {
        assert_eq!(service.clone().oneshot(Once(number)).await, Ok(7));
    }
    assert_eq!(world.sent(), [0, 1, 2]);
}

/// As a function that cannot copy.
fn never(_: &Once) -> Option<Once> {
    None
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_is_not_retried_whatever_became_of_it_and_nobody_waits() {
    for verdict in [Verdict::transient(), Verdict::unreached(), Verdict::throttled().retry_after(ms(10))] {
        let log = Log::new();
        let world = World::new(1, [Step { gives: Err(verdict), ..ANSWERS }]);
        let which = Which { retry: true, ..Which::default() };
        let service = PipelineLayer::with_requests(which.pipeline(&log), never).layer(world.service());
        let started = Instant::now();
        assert_eq!(service.oneshot(Once(1)).await.unwrap_err().into_operation(), Some(verdict));
        assert_eq!((world.sent().len(), started.elapsed()), (1, ms(0)));
        let stops = log.pick(|kind| match kind {
            EventKind::RetryStopped { why, .. } => Some(why),
            _ => None,
        });
        assert_eq!(stops, [RetryStop::NotIdempotent]);
    }
    // The same when a timeout ends it, of which the retry knows nothing but that.
    let world = World::new(1, [HANGS]);
    let which = Which { retry: true, each: Some(30), ..Which::default() };
    let service = PipelineLayer::with_requests(which.pipeline(&Log::new()), never).layer(world.service());
    let started = Instant::now();
    assert!(service.oneshot(Once(1)).await.unwrap_err().is_timeout());
    assert_eq!((world.sent().len(), started.elapsed()), (1, ms(30)));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_is_retried_as_long_as_it_was_not_sent() {
    let broken = Step { ready: Err(Verdict::transient()), ..ANSWERS };
    let world = World::new(1, [broken, NEVER_READY, ANSWERS]);
    let which = Which { retry: true, each: Some(30), ..Which::default() };
    let service = PipelineLayer::with_requests(which.pipeline(&Log::new()), never).layer(world.service());
    assert_eq!(service.oneshot(Once(1)).await, Ok(7));
    assert_eq!((world.asked(), world.sent()), (3, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_is_not_hedged() {
    let failed = Err(Verdict::transient());
    for (ready_after, delay, takes, gives) in
        [(0, 10, 100, Ok(7)), (0, 0, 100, Ok(7)), (0, 10, 100, failed), (5, 10, 95, failed)]
    {
        let log = Log::new();
        let step = Step { ready_after: ms(ready_after), takes: ms(takes), gives, ..ANSWERS };
        let world = World::new(5, [step, ANSWERS]);
        let which = Which { hedge: Some(delay), ..Which::default() };
        let service = PipelineLayer::with_requests(which.pipeline(&log), never).layer(world.service());
        let started = Instant::now();
        assert_eq!(service.oneshot(Once(1)).await.map_err(|error| error.into_operation().unwrap()), gives);
        assert_eq!((world.sent().len(), started.elapsed()), (1, ms(100)));
        let why = log.pick(|kind| match kind {
            EventKind::HedgeSuppressed { why, .. } => Some(why),
            _ => None,
        });
        assert_eq!(why, [HedgeSuppression::NotIdempotent]);
        assert_eq!(log.count(|kind| matches!(kind, EventKind::Hedged { .. })), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn of_attempts_that_wait_beside_each_other_the_first_that_is_ready_takes_what_cannot_be_copied() {
    let log = Log::new();
    // The primary is ready after 40 ms, the hedge, which begins at 10 ms, after 20: that is at 30.
    let slow = Step { ready_after: ms(40), ..FAILS };
    let world = World::new(5, [slow, Step { ready_after: ms(20), takes: ms(50), ..ANSWERS }]);
    let which = Which { hedge: Some(10), ..Which::default() };
    let service = PipelineLayer::with_requests(which.pipeline(&log), never).layer(world.service());
    assert_eq!(service.oneshot(Once(1)).await, Ok(7), "the primary, which came too late, is no end of the race");
    assert_eq!(world.sent(), [1]);
    world.holds_nothing_but(0);
    let ends = log.pick(|kind| match kind {
        EventKind::AttemptFinished { hedge, label, .. } => Some((hedge, label)),
        _ => None,
    });
    assert_eq!(ends, [(0, "already_attempted"), (1, "success")]);
}

#[tokio::test(start_paused = true)]
async fn the_options_of_each_call_come_from_its_request() {
    let log = Log::new();
    let world = World::new(5, [FAILS, ANSWERS, HANGS]);
    let which = Which { retry: true, ..Which::default() };
    let layer = PipelineLayer::new(which.pipeline(&log)).call_options(|number: &u32| match number {
        1 => CallOptions::new().idempotency(Idempotency::Unsafe).priority(Priority::Critical),
        2 => CallOptions::new(),
        _ => CallOptions::new().deadline(Instant::now() + ms(25)),
    });
    let service = layer.layer(world.service());
    assert!(service.clone().oneshot(1).await.unwrap_err().is_operation(), "not repeated");
    assert_eq!(service.clone().oneshot(2).await, Ok(7));
    let error = service.clone().oneshot(3).await.unwrap_err();
    assert_eq!(
        error.timed_out().map(|timed_out| (timed_out.scope(), timed_out.limit())),
        Some((Scope::Deadline, ms(25)))
    );
    let started = log.pick(|kind| match kind {
        EventKind::CallStarted { idempotency, priority, deadline_left, .. } => {
            Some((idempotency, priority, deadline_left))
        }
        _ => None,
    });
    assert_eq!(
        started,
        [
            (Idempotency::Unsafe, Priority::Critical, None),
            (Idempotency::Safe, Priority::Normal, None),
            (Idempotency::Safe, Priority::Normal, Some(ms(25))),
        ]
    );
}

#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<Noted>>>);

/// The attempt, the hedge, and the milliseconds that are left.
type Noted = (u32, u32, Option<u128>);

impl PrepareRequest<u32> for Noting {
    fn clone_request(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn prepare(&self, request: &mut u32, attempt: Attempt) {
        *request += 100 * attempt.number() + 10 * attempt.hedge();
        let left = attempt.remaining().map(|left| left.as_millis());
        self.0.lock().unwrap().push((attempt.number(), attempt.hedge(), left));
    }
}

#[tokio::test(start_paused = true)]
async fn the_request_of_each_attempt_is_prepared_when_it_is_sent_with_the_time_that_is_left_then() {
    let noting = Noting::default();
    let world = World::new(5, [Step { ready_after: ms(15), ..FAILS }, FAILS, ANSWERS]);
    let which = Which { total: Some(100), retry: true, hedge: Some(20), ..Which::default() };
    let layer = PipelineLayer::with_requests(which.pipeline(&Log::new()), noting.clone());
    let service = layer.call_options(|_: &u32| CallOptions::new()).layer(world.service());
    assert_eq!(service.oneshot(1_u32).await, Ok(7));
    // Ready and failed at 15, which sets off a hedge at once, which fails as well; 10 later comes the second attempt.
    assert_eq!(world.sent(), [101, 111, 201]);
    assert_eq!(*noting.0.lock().unwrap(), [(1, 0, Some(85)), (1, 1, Some(85)), (2, 0, Some(75))]);
}

/// Repeats, and does not say so.
struct Silently;
impl Describe for Silently {}
impl<T: Send, E: Send> Policy<T, E> for Silently {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        drop(op.attempt(cx).await);
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_repeats_without_saying_so_is_refused_and_nothing_panics() {
    let log = Log::new();
    let world = World::new(5, [FAILS, ANSWERS]);
    let pipeline = Pipeline::builder("silent").layer(Silently).observer(log.clone()).build().unwrap();
    let service = PipelineLayer::new(pipeline).layer(world.service());
    let error = service.oneshot(1_u32).await.unwrap_err();
    assert_eq!(error.rejection().map(Rejection::reason), Some(Reason::AlreadyAttempted));
    assert_eq!(world.sent(), [1]);
    assert_eq!(log.count(|kind| matches!(kind, EventKind::AttemptStarted { .. })), 1);
}
