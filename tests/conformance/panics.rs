//! A panic of what a user brings leaves every policy as usable as before.

use std::{
    future::Future,
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tokio::task::yield_now;
use withstand::{
    Backoff, BoxPolicy, Bulkhead, CircuitBreaker, Context, Describe, Error, Event, Fallback, Hedge, HedgeDelay,
    Operation, Outcome, Pipeline, Policy, Retry, RetryBudget, Verdict,
};

use crate::support::{caught, ms, secs};

/// Panics if it is told to.
#[derive(Clone, Default)]
struct Bomb(Arc<AtomicBool>);

impl Bomb {
    fn touch(&self) {
        if self.0.load(SeqCst) {
            resume_unwind(Box::new("told to"));
        }
    }
}

/// What panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Culprit {
    Operation,
    Making,
    Classifier,
    Observer,
    Backoff,
    HedgeDelay,
    Fallback,
    FallbackFuture,
}

const CULPRITS: [Culprit; 8] = [
    Culprit::Operation,
    Culprit::Making,
    Culprit::Classifier,
    Culprit::Observer,
    Culprit::Backoff,
    Culprit::HedgeDelay,
    Culprit::Fallback,
    Culprit::FallbackFuture,
];

/// One call.
async fn call<P: Policy<u32, &'static str>, C: withstand::Classify<u32, &'static str>>(
    pipeline: &Pipeline<P, C>,
    result: Result<u32, &'static str>,
    (making, running): (&Bomb, &Bomb),
) -> Result<Result<u32, Error<&'static str>>, String> {
    caught(pipeline.call(|| {
        making.touch();
        async move {
            // So that a hedge asks when to begin.
            yield_now().await;
            running.touch();
            result
        }
    }))
    .await
}

#[tokio::test(start_paused = true)]
async fn no_panic_of_a_users_code_poisons_a_policy() {
    for culprit in CULPRITS {
        let bomb = Bomb::default();
        let of = |who: Culprit| if who == culprit { bomb.clone() } else { Bomb::default() };
        let budget = Arc::new(RetryBudget::builder().initial(100).build().unwrap());
        let bulkhead = Arc::new(Bulkhead::builder().limit(2).queue(1).max_wait(ms(10)).build().unwrap());
        let breaker = Arc::new(CircuitBreaker::builder().count_window(4).min_calls(4).probes(1).build().unwrap());
        let (backoff, delay) = (of(Culprit::Backoff), of(Culprit::HedgeDelay));
        let (substitute, future) = (of(Culprit::Fallback), of(Culprit::FallbackFuture));
        let (classifier, observer) = (of(Culprit::Classifier), of(Culprit::Observer));
        let pipeline = Pipeline::builder("all")
            .fallback(Fallback::from_outcome(move |_: &Outcome<u32, &str>| {
                substitute.touch();
                None
            }))
            .fallback(Fallback::from_future(move |_: &Outcome<u32, &str>| {
                let future = future.clone();
                async move {
                    future.touch();
                    None
                }
            }))
            .timeout(secs(4))
            .retry(Retry::builder().budget(budget.clone()).backoff(Backoff::custom(move |_| {
                backoff.touch();
                Some(ms(1))
            })))
            .hedge(Hedge::builder().budget(budget.clone()).delay(HedgeDelay::custom(move |_| {
                delay.touch();
                Some(ms(5))
            })))
            .bulkhead(bulkhead.clone())
            .circuit_breaker(breaker.clone())
            .timeout(secs(1))
            .classify(move |result: Result<&u32, &&'static str>| {
                classifier.touch();
                if result.is_ok() { Verdict::success() } else { Verdict::transient() }
            })
            .observer(move |_: &Event<'_>| observer.touch())
            .build()
            .unwrap();
        let (making, running) = (of(Culprit::Making), of(Culprit::Operation));

        let mut panics = 0;
        for round in 0..20 {
            bomb.0.store(true, SeqCst);
            let shaken = call(&pipeline, Err("down"), (&making, &running)).await;
            panics += u32::from(shaken.is_err());
            bomb.0.store(false, SeqCst);
            assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 0), "{culprit:?}, round {round}");
            assert_eq!(breaker.snapshot().probes_in_flight, 0, "{culprit:?}, round {round}");
            assert!((0.0..=100.0).contains(&budget.balance()));
            breaker.reset();
            let next = call(&pipeline, Ok(7), (&making, &running)).await;
            assert_eq!(next, Ok(Ok(7)), "{culprit:?}, round {round}");
        }
        // All reach the caller but those of an observer.
        let reached = if culprit == Culprit::Observer { 0 } else { 20 };
        assert_eq!(panics, reached, "{culprit:?}");
        drop(breaker.isolate());
        bulkhead.set_limit(1).unwrap();
        assert!(call(&pipeline, Ok(7), (&making, &running)).await.is_ok(), "{culprit:?}");
    }
}

/// As it is often written: a lock is held while a user's code runs.
struct Locks(Mutex<u32>, Bomb);

impl Describe for Locks {}

impl Policy<u32, &'static str> for Locks {
    fn run<Op: Operation<u32, &'static str>>(
        &self,
        op: Op,
        cx: Context<'_>,
    ) -> impl Future<Output = Outcome<u32, &'static str>> + Send {
        {
            let Ok(mut calls) = self.0.lock() else { resume_unwind(Box::new("poisoned")) };
            *calls += 1;
            self.1.touch();
        }
        op.attempt(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_a_panic_poisons_would_be_noticed() {
    let (bomb, none) = (Bomb::default(), Bomb::default());
    let locks = BoxPolicy::new(Locks(Mutex::default(), bomb.clone()));
    let pipeline = Pipeline::builder("naive").layer(locks).build().unwrap();
    assert_eq!(call(&pipeline, Ok(7), (&none, &none)).await, Ok(Ok(7)));
    bomb.0.store(true, SeqCst);
    assert!(call(&pipeline, Ok(7), (&none, &none)).await.is_err());
    bomb.0.store(false, SeqCst);
    let poisoned = call(&pipeline, Ok(7), (&none, &none)).await;
    assert_eq!(poisoned, Err("poisoned".to_owned()));
}
