//! Observers that misbehave, and several of them.

use std::{
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use withstand::{
    Bulkhead, CallOutcome, CircuitBreaker, Error, Event, EventKind, Hedge, HedgeDelay, Level, Observer, Observers,
    Pipeline, Verdict,
};

use super::{Spiteful, finished, outcome, retry};
use crate::support::{Log, Script, as_it_says, caught, ms, secs};

/// Panics at every event, after it has noted it.
#[derive(Clone, Default)]
struct Panics(Log);

impl Observer for Panics {
    fn on_event(&self, event: &Event<'_>) {
        self.0.on_event(event);
        panic!("of the observer");
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_changes_nothing_for_the_call() {
    let script = Script::ready([Err(Verdict::transient()), Err(Verdict::transient()), Ok(3)]);
    let panics = Panics::default();
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(1).open_for(ms(1)).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .timeout(secs(9))
        .retry(retry(9).retry_rejected())
        .hedge(Hedge::builder().delay(HedgeDelay::on_failure()))
        .bulkhead(Bulkhead::builder().limit(1))
        .circuit_breaker(breaker.clone())
        .classify_errors(as_it_says)
        .observer(panics.clone())
        .build()
        .unwrap();
    assert_eq!(pipeline.call(|| script.attempt()).await, Ok(3));
    assert_eq!(outcome(&panics.0).0, CallOutcome::Success);
    assert!(panics.0.count(|kind| matches!(kind, EventKind::Opened { .. } | EventKind::HalfOpened { .. })) > 1);
    breaker.reset();
    let isolation = breaker.isolate();
    drop(isolation);
    assert!(panics.0.count(|kind| matches!(kind, EventKind::Isolated { .. } | EventKind::Released { .. })) > 1);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_in_a_drop_does_not_abort() {
    let panics = Panics::default();
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).build().unwrap());
    let pipeline = Pipeline::builder("api").bulkhead(bulkhead.clone()).observer(panics.clone()).build().unwrap();
    {
        let call = pipeline.call(pending::<Result<(), ()>>);
        assert!(tokio::time::timeout(ms(5), call).await.is_err());
    }
    assert_eq!(outcome(&panics.0).0, CallOutcome::Cancelled);

    // In a queue, and while something else unwinds through the call.
    let held = bulkhead.try_acquire().unwrap();
    let queued = tokio::time::timeout(ms(5), pipeline.call(|| async { Ok::<(), ()>(()) }));
    assert!(queued.await.is_err());
    drop(held);
    panics.0.clear();
    let unwinds = catch_unwind(AssertUnwindSafe(|| {
        let mut call = Box::pin(pipeline.call(pending::<Result<(), ()>>));
        let waker = futures::task::noop_waker();
        assert!(call.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        panic!("of the caller");
    }));
    assert!(unwinds.is_err());
    assert_eq!(outcome(&panics.0).0, CallOutcome::Cancelled, "the call itself did not panic");

    panics.0.clear();
    assert!(caught(pipeline.call(|| async { panic!("of the operation") as Result<(), ()> })).await.is_err());
    assert_eq!(outcome(&panics.0).0, CallOutcome::Panicked);
    assert_eq!(bulkhead.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn even_a_payload_that_panics_when_dropped_does_not_abort() {
    let pipeline = Pipeline::builder("api").observer(Spiteful).build().unwrap();
    let call = pipeline.call(pending::<Result<(), ()>>);
    assert!(tokio::time::timeout(ms(5), call).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn each_of_several_observers_hears_everything_in_order_whatever_the_others_do() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let numbered = |number: u32| {
        let order = order.clone();
        move |_: &Event<'_>| order.lock().unwrap().push(number)
    };
    let (first, last) = (Log::new(), Log::new());
    let observers = Observers::new()
        .with(first.clone())
        .with(numbered(1))
        .with(Panics::default())
        .with(Observers::new().with(numbered(2)).with(Spiteful).with(last.clone()));
    let pipeline = Pipeline::builder("api").retry(retry(2)).observer(observers).build().unwrap();
    assert!(pipeline.call(|| async { Err::<(), _>(()) }).await.is_err());
    assert_eq!(first.kinds(), last.kinds());
    assert_eq!(finished(&first), finished(&last));
    let order = order.lock().unwrap().clone();
    assert_eq!(order, [1, 2].repeat(first.kinds().len()));
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_call_back_into_what_it_observes() {
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(1).build().unwrap());
    let states = Arc::new(Mutex::new(Vec::new()));
    let (seen, notes) = (breaker.clone(), states.clone());
    let pipeline = Pipeline::builder("api")
        .circuit_breaker(breaker.clone())
        .observer(move |event: &Event<'_>| {
            if let EventKind::Opened { .. } = event.kind {
                notes.lock().unwrap().push(seen.state());
                seen.reset();
            }
        })
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(pipeline.call(|| async { Err::<(), _>("down") }).await, Err(Error::Operation("down")));
    }
    assert_eq!(states.lock().unwrap().len(), 3, "each failure found it closed again");
}

#[tokio::test(start_paused = true)]
async fn the_last_observer_given_is_the_one() {
    let (first, last) = (Log::new(), Log::new());
    let pipeline = Pipeline::builder("api").observer(first.clone()).observer(last.clone()).build().unwrap();
    assert!(pipeline.call(|| async { Ok::<_, ()>(1) }).await.is_ok());
    assert_eq!(first.kinds(), []);
    assert_eq!(outcome(&last).0, CallOutcome::Success);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_succeeds_says_nothing_at_the_level_of_a_log() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = said.clone();
    let users = Pipeline::builder("users-api")
        .retry(retry(3))
        .observer(move |event: &Event<'_>| {
            if event.level() >= Level::Info {
                log.lock().unwrap().push(event.to_string());
            }
        })
        .build()
        .unwrap();
    users.call(|| async { Ok::<_, String>(()) }).await.unwrap();
    assert!(said.lock().unwrap().is_empty());
    users.call(|| async { Err::<(), _>("no".to_owned()) }).await.unwrap_err();
    assert_eq!(said.lock().unwrap().len(), 3, "two retries and the end of them");
}

/// Hears what it is told, while the switch is on.
#[derive(Clone, Default)]
struct Switched {
    log: Log,
    on: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Observer for Switched {
    fn on_event(&self, event: &Event<'_>) {
        self.log.on_event(event);
    }

    fn is_enabled(&self) -> bool {
        self.asked.fetch_add(1, Relaxed);
        self.on.load(Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_hears_when_it_begins_reports_nothing_to_its_end() {
    let switched = Switched::default();
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(1).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .retry(retry(3))
        .circuit_breaker(breaker.clone())
        .observer(switched.clone())
        .build()
        .unwrap();
    let on = switched.on.clone();
    assert!(
        pipeline
            .call(|| async {
                on.store(true, Relaxed);
                Err::<(), _>("down")
            })
            .await
            .is_err()
    );
    assert_eq!(switched.log.kinds(), [], "it was switched on too late for this call");
    assert_eq!(switched.asked.load(Relaxed), 1, "once for a call");

    assert!(pipeline.call(|| async { Ok::<_, &str>(()) }).await.is_err());
    assert_eq!(outcome(&switched.log).0, CallOutcome::Rejected);
    switched.log.clear();
    let off = switched.on.clone();
    assert!(
        pipeline
            .call(|| async {
                off.store(false, Relaxed);
                Ok::<_, &str>(())
            })
            .await
            .is_err()
    );
    assert_eq!(outcome(&switched.log).0, CallOutcome::Rejected, "and one that is heard is heard to its end");
}

#[tokio::test(start_paused = true)]
async fn what_no_call_caused_is_told_only_while_somebody_hears_it() {
    let switched = Switched::default();
    let breaker = Arc::new(CircuitBreaker::builder().build().unwrap());
    let _pipeline =
        Pipeline::builder("api").circuit_breaker(breaker.clone()).observer(switched.clone()).build().unwrap();
    drop(breaker.isolate());
    assert_eq!(switched.log.kinds(), []);
    switched.on.store(true, Relaxed);
    drop(breaker.isolate());
    assert!(switched.log.count(|kind| matches!(kind, EventKind::Isolated { .. })) == 1);
}

#[tokio::test(start_paused = true)]
async fn several_observers_are_heard_if_one_of_them_is() {
    let (unheard, heard) = (Switched::default(), Log::new());
    let none = Observers::new().with(unheard.clone()).with(Observers::new().with(unheard.clone()));
    assert!(!none.is_enabled());
    assert!(!Observers::new().is_enabled());
    let some = none.with(heard.clone());
    let pipeline = Pipeline::builder("api").observer(some).build().unwrap();
    assert!(pipeline.call(|| async { Ok::<_, ()>(1) }).await.is_ok());
    assert_eq!(outcome(&heard).0, CallOutcome::Success);
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_inside_another_asks_its_own_observer() {
    let (inner, outer) = (Switched::default(), Log::new());
    let inside = Pipeline::builder("inner").retry(retry(2)).observer(inner.clone()).build().unwrap();
    let pipeline = Pipeline::builder("outer").layer(inside).observer(outer.clone()).build().unwrap();
    let call = || pipeline.call(|| async { Err::<(), _>(()) });
    assert!(call().await.is_err());
    assert_eq!((inner.log.kinds(), outcome(&outer).0), (vec![], CallOutcome::Transient));
    inner.on.store(true, Relaxed);
    assert!(call().await.is_err());
    assert!(inner.log.count(|kind| matches!(kind, EventKind::Retried { .. })) == 1);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_when_asked_is_told() {
    struct Unsure(Log);
    impl Observer for Unsure {
        fn on_event(&self, event: &Event<'_>) {
            self.0.on_event(event);
        }
        fn is_enabled(&self) -> bool {
            panic!("of the observer")
        }
    }
    let log = Log::new();
    let pipeline = Pipeline::builder("api").observer(Unsure(log.clone())).build().unwrap();
    assert_eq!(pipeline.call(|| async { Ok::<_, ()>(1) }).await, Ok(1));
    assert_eq!(outcome(&log).0, CallOutcome::Success);
}
