//! Who is admitted, who is rejected, and when a permit comes back.

use std::{
    convert::Infallible,
    future::pending,
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};
use withstand::{
    Bulkhead, BulkheadBuilder, CircuitBreaker, Context, Describe, Error, Event, EventKind, Operation, Outcome,
    Pipeline, Policy, Reason, Retry, RetryBudget, VerdictKind,
};

use crate::{
    all_permits, begun, poll_once, ready,
    support::{Log, ms},
};

async fn answer() -> Result<u32, Infallible> {
    Ok(7)
}

fn hang() -> impl Future<Output = Result<u32, Infallible>> {
    pending()
}

#[tokio::test(start_paused = true)]
async fn a_call_beyond_the_limit_is_rejected_at_once() {
    let log = Log::new();
    let pipeline = Pipeline::builder("users")
        .bulkhead(Bulkhead::builder().name("wall").limit(2))
        .observer(log.clone())
        .build()
        .unwrap();
    let _running = [begun(pipeline.call(hang)), begun(pipeline.call(hang))];
    log.clear();

    let outcome = ready(pipeline.outcome(answer));
    assert_eq!(outcome.verdict().kind(), VerdictKind::Rejected);
    assert_eq!(outcome.label(), "bulkhead_full");
    let error = outcome.result.unwrap_err();
    let rejection = error.rejection().unwrap();
    assert_eq!((rejection.policy().as_str(), rejection.reason()), ("wall", Reason::BulkheadFull));
    assert_eq!(rejection.retry_after(), None);
    let rejected = log.pick(|kind| match kind {
        EventKind::Rejected { reason, retry_after, attempt, hedge, .. } => Some((reason, retry_after, attempt, hedge)),
        _ => None,
    });
    assert_eq!(rejected, [(Reason::BulkheadFull, None, 1, 0)]);
    assert_eq!(log.count(|kind| matches!(kind, EventKind::Waited { .. } | EventKind::AttemptStarted { .. })), 0);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_rejects_everything_at_once() {
    for builder in [Bulkhead::builder(), Bulkhead::builder().queue(5).max_wait(ms(10))] {
        let closed = builder.limit(0).build().unwrap();
        let full = |error: &withstand::Rejection| error.reason() == Reason::BulkheadFull;
        assert!(ready(closed.call(answer)).unwrap_err().rejection().is_some_and(full));
        assert!(ready(closed.guard(answer())).unwrap_err().rejection().is_some_and(full));
        assert!(ready(closed.acquire()).as_ref().is_err_and(full));
        assert!(closed.try_acquire().as_ref().is_err_and(full));
        assert_eq!((closed.limit(), closed.in_use(), closed.queued()), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn permits_with_and_without_wrapping_are_the_same() {
    let bulkhead = Bulkhead::builder().limit(2).build().unwrap();
    let held = ready(bulkhead.acquire()).unwrap();
    let running = begun(bulkhead.call(hang));
    assert_eq!(bulkhead.in_use(), 2);
    assert!(bulkhead.try_acquire().is_err());
    assert!(ready(bulkhead.acquire()).is_err());
    assert!(ready(bulkhead.call(answer)).is_err());
    drop(held);
    assert_eq!(ready(bulkhead.call(answer)).unwrap(), 7);
    drop(running);
    assert_eq!(all_permits(&bulkhead).len(), 2);
    assert_eq!(bulkhead.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_end_of_a_call_gives_the_permit_back() {
    let bulkhead = Bulkhead::builder().limit(1).build().unwrap();
    let free = || assert_eq!(all_permits(&bulkhead).len(), 1);

    ready(bulkhead.call(answer)).unwrap();
    free();
    ready(bulkhead.call(|| async { Err::<(), _>(io::Error::other("broken")) })).unwrap_err();
    free();
    timeout(ms(10), bulkhead.call(hang)).await.unwrap_err();
    free();
    drop(bulkhead.call(hang));
    free();
    ready(bulkhead.guard(answer())).unwrap();
    free();
    let panics =
        || async { if bulkhead.in_use() == 1 { panic!("in the operation") } else { Ok::<(), Infallible>(()) } };
    let mut call = Box::pin(bulkhead.call(panics));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll_once(call.as_mut())));
    assert!(caught.is_err());
    drop(call);
    free();
    let maker = || -> std::future::Ready<Result<(), Infallible>> { panic!("in the closure") };
    let mut call = Box::pin(bulkhead.call(maker));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll_once(call.as_mut())));
    assert!(caught.is_err());
    free();
}

/// Looks, when it is dropped, at how many permits are in use.
struct Witness<'a> {
    bulkhead: &'a Bulkhead,
    seen: &'a AtomicUsize,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        self.seen.store(self.bulkhead.in_use(), Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_only_once_the_attempt_is_gone() {
    let bulkhead = Bulkhead::builder().limit(1).build().unwrap();
    let seen = AtomicUsize::new(0);
    let attempt = |takes: Duration| {
        let witness = Witness { bulkhead: &bulkhead, seen: &seen };
        async move {
            let _held = &witness;
            sleep(takes).await;
            Ok::<_, Infallible>(())
        }
    };
    bulkhead.call(|| attempt(ms(5))).await.unwrap();
    assert_eq!(seen.swap(0, Ordering::Relaxed), 1, "when it completes");
    timeout(ms(5), bulkhead.call(|| attempt(ms(10)))).await.unwrap_err();
    assert_eq!(seen.swap(0, Ordering::Relaxed), 1, "when it is dropped");
    timeout(ms(5), bulkhead.guard(attempt(ms(10)))).await.unwrap_err();
    assert_eq!(seen.swap(0, Ordering::Relaxed), 1, "when a single future is dropped");
    assert_eq!(bulkhead.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_retry_outside_asks_again_only_if_told_to_and_the_operation_is_never_called() {
    for (on_rejected, rejections) in [(false, 1), (true, 7)] {
        let log = Log::new();
        let retry = withstand::Retry::builder().max_attempts(7).without_budget();
        let retry = if on_rejected { retry.retry_rejected() } else { retry };
        let pipeline = Pipeline::builder("users")
            .retry(retry)
            .bulkhead(Bulkhead::builder().limit(0))
            .observer(log.clone())
            .build()
            .unwrap();
        let error = pipeline.call(answer).await.unwrap_err();
        assert!(error.is_rejected());
        assert_eq!(log.count(|kind| matches!(kind, EventKind::Rejected { .. })), rejections);
        assert_eq!(log.count(|kind| matches!(kind, EventKind::AttemptStarted { .. })), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_rejects_itself_still_gives_its_permit_back() {
    let pipeline = Pipeline::builder("users")
        .bulkhead(Bulkhead::builder().limit(1))
        .classify_errors(|_: &io::Error| withstand::Verdict::rejected())
        .build()
        .unwrap();
    for _ in 0..3 {
        let error = ready(pipeline.call(|| async { Err::<(), _>(io::Error::other("pool is empty")) })).unwrap_err();
        assert!(matches!(error, Error::Operation(_)));
    }
}

/// Keeps the attempt in its place for a while when it has ended, as a race of one's own does.
struct Lingers;
impl Describe for Lingers {}

impl<T: Send, E: Send> Policy<T, E> for Lingers {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let mut attempt = pin!(op.attempt(cx));
        let outcome = attempt.as_mut().await;
        sleep(ms(10)).await;
        outcome
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_has_ended_holds_no_permit_however_long_its_future_is_kept() {
    for (queue, result) in [(0, Ok(7)), (0, Err("down")), (1, Ok(7)), (1, Err("down"))] {
        let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(queue).build().unwrap());
        let breaker = CircuitBreaker::builder();
        let pipeline = Pipeline::builder("users").layer(Lingers).circuit_breaker(breaker).bulkhead(bulkhead.clone());
        let pipeline = pipeline.build().unwrap();
        let lingers = begun(pipeline.call(|| async move { result }));
        assert_eq!(bulkhead.in_use(), 0, "{result:?} with a queue of {queue}");
        assert!(bulkhead.try_acquire().is_ok());
        assert_eq!(lingers.await.ok(), result.ok());
        assert_eq!(bulkhead.in_use(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_permit_is_back_before_anybody_hears_of_what_the_call_has_led_to() {
    for queue in [0, 1] {
        let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(queue).build().unwrap());
        let budget = Arc::new(RetryBudget::builder().initial(0).cap(1).ratio(1.0).build().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (seen, notes) = (bulkhead.clone(), heard.clone());
        let retry = Retry::builder().max_attempts(2).budget(budget.clone());
        let pipeline = Pipeline::builder("users")
            .retry(retry)
            .circuit_breaker(CircuitBreaker::builder())
            .bulkhead(bulkhead.clone())
            .observer(move |event: &Event<'_>| notes.lock().unwrap().push((event.kind.clone(), seen.in_use())))
            .build()
            .unwrap();
        assert!(pipeline.call(|| async { Err::<u32, _>("down") }).await.is_err());
        assert_eq!(pipeline.call(|| async { Ok::<u32, &str>(7) }).await, Ok(7));
        let of_attempts =
            |kind: &EventKind| matches!(kind, EventKind::AttemptStarted { .. } | EventKind::AttemptFinished { .. });
        let heard = heard.lock().unwrap().clone();
        let (within, after): (Vec<_>, Vec<_>) = heard.into_iter().partition(|(kind, _)| of_attempts(kind));
        assert!(within.iter().all(|(_, in_use)| *in_use == 1), "{within:#?}");
        assert!(after.iter().all(|(_, in_use)| *in_use == 0), "{after:#?}");
        let told = |is_meant: fn(&EventKind) -> bool| after.iter().any(|(kind, _)| is_meant(kind));
        assert!(told(|kind| matches!(kind, EventKind::BudgetRefilled { .. })), "{after:#?}");
        assert!(told(|kind| matches!(kind, EventKind::CallFinished { ok: Some(true), .. })), "{after:#?}");
    }
}

#[test]
fn nonsense_is_refused_by_name() {
    let refused = |builder: BulkheadBuilder| {
        let error = builder.name("wall").build().unwrap_err();
        assert_eq!(error.policy().unwrap().as_str(), "wall");
        error.field()
    };
    assert_eq!(refused(Bulkhead::builder()), "limit");
    assert_eq!(refused(Bulkhead::builder().limit(usize::MAX)), "limit");
    assert_eq!(refused(Bulkhead::builder().limit(Bulkhead::MAX_LIMIT + 1)), "limit");
    assert_eq!(refused(Bulkhead::builder().limit(1).queue(1).max_wait(Duration::ZERO)), "max_wait");
    assert_eq!(refused(Bulkhead::builder().limit(1).max_wait(ms(1))), "max_wait");
    assert!(Bulkhead::builder().limit(1).name(" ").build().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_largest_values_work() {
    let bulkhead =
        Bulkhead::builder().limit(Bulkhead::MAX_LIMIT).queue(usize::MAX).max_wait(Duration::MAX).build().unwrap();
    let held = bulkhead.try_acquire().unwrap();
    assert_eq!((bulkhead.limit(), bulkhead.in_use()), (Bulkhead::MAX_LIMIT, 1));
    drop(held);
    let narrow = Bulkhead::builder().limit(1).queue(usize::MAX).max_wait(Duration::MAX).build().unwrap();
    let held = narrow.try_acquire().unwrap();
    let mut waiting = begun(narrow.acquire());
    sleep(Duration::from_secs(10 * 365 * 24 * 60 * 60)).await;
    assert!(poll_once(waiting.as_mut()).is_pending(), "for ever is longer than that");
    drop(held);
    drop(waiting.await.unwrap());
}
