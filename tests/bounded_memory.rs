//! No input makes a policy grow. Not among the others of `conformance`, because these share their heap with nobody.
#![cfg(test)]

#[path = "support/heap.rs"]
mod heap;
#[path = "support/mod.rs"]
mod support;

use std::{
    collections::VecDeque,
    panic::resume_unwind,
    sync::{Arc, Mutex},
};

use tokio::time::{Duration, Instant, advance, sleep};
use withstand::{
    Bulkhead, CircuitBreaker, Classification, Context, Describe, Event, Hedge, Operation, Outcome, Pipeline, Policy,
    Retry, RetryBudget, Verdict,
};

use heap::{alone, bytes_in_use};
use support::{ms, secs};

/// Whether doing something so many times leaves some bytes behind each time.
async fn grows(times: usize, mut with: impl AsyncFnMut(usize)) -> bool {
    let warm_up = times / 10;
    for number in 0..warm_up {
        with(number).await;
    }
    let before = bytes_in_use();
    for number in warm_up..times {
        with(number).await;
    }
    // What the test runner does meanwhile is less than that.
    bytes_in_use().saturating_sub(before) > times
}

const RESULTS: usize = 100_000;

#[test]
fn a_window_is_as_large_whatever_the_number_of_calls_in_it() {
    alone(async {
        // All of them are within the windows.
        let windows = CircuitBreaker::builder().time_window(secs(3600)).count_window(1_000).consecutive_failures(1_000);
        let breaker = windows.slow_call(ms(1)).failure_rate(1.0).slow_rate(1.0).build().unwrap();
        let record = async |number: usize| {
            let ticket = breaker.admit().unwrap();
            _ = if number % 3 == 0 { ticket.failure("down") } else { ticket.success() };
            if number % 1_000 == 0 {
                advance(ms(1)).await;
            }
        };
        assert!(!grows(RESULTS, record).await);
        assert_eq!(usize::try_from(breaker.snapshot().calls), Ok(RESULTS));

        // A list of what happened, to be gone through at each call.
        let mut naive = VecDeque::new();
        assert!(grows(RESULTS, async |number| naive.push_back((Instant::now(), number % 3 == 0))).await);
    });
}

/// As it is often written: a number for each error.
#[derive(Default)]
struct ByError(Mutex<std::collections::HashMap<String, u32>>);

impl Describe for ByError {}

impl<T: Send> Policy<T, String> for ByError {
    async fn run<Op: Operation<T, String>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, String> {
        let outcome = op.attempt(cx).await;
        if let Err(error) = &outcome.result {
            *self.0.lock().unwrap().entry(error.operation().cloned().unwrap_or_default()).or_default() += 1;
        }
        outcome
    }
}

/// Calls whose errors and labels, times and outcomes are all different.
async fn grows_with_calls<P: Policy<usize, String>>(policy: P) -> bool {
    const LABELS: usize = 1_000;
    let labels: Vec<&'static str> = (0..LABELS).map(|label| &*format!("label-{label}").leak()).collect();
    let label = |error: &String| -> Classification {
        let number: usize = error.parse().unwrap();
        let verdict = if number % 7 == 0 { Verdict::throttled().retry_after(ms(3)) } else { Verdict::transient() };
        verdict.label(labels[number % LABELS])
    };
    let pipeline = Pipeline::builder("users").layer(policy).classify_errors(label).observer(|_: &Event<'_>| {});
    let pipeline = pipeline.build().unwrap();
    grows(20_000, async |number| {
        let takes = Duration::from_micros(u64::try_from(number % 5_000).unwrap());
        let call = pipeline.call(|| async move {
            sleep(takes).await;
            if number % 3 == 0 { Ok(number) } else { Err(number.to_string()) }
        });
        drop(call.await);
    })
    .await
}

#[test]
fn no_policy_keeps_anything_by_label_or_error() {
    alone(async {
        let standard = Pipeline::standard_hedged("standard").build().unwrap();
        assert!(!grows_with_calls(standard).await);
        // One that hedges and repeats whatever it costs.
        let eager = Pipeline::builder("eager")
            .retry(Retry::builder().without_budget())
            .hedge(Hedge::builder().delay(ms(1)).max_hedges(3).without_budget())
            .bulkhead(Bulkhead::builder().limit(2).queue(2))
            .build();
        assert!(!grows_with_calls(eager.unwrap()).await);
        assert!(grows_with_calls(ByError::default()).await);
    });
}

#[test]
fn pipelines_and_handles_that_are_gone_leave_nothing_in_what_they_shared() {
    alone(async {
        let breaker = Arc::new(CircuitBreaker::builder().build().unwrap());
        let bulkhead = Arc::new(Bulkhead::builder().limit(10).queue(10).build().unwrap());
        let budget = Arc::new(RetryBudget::builder().build().unwrap());
        let build = || {
            Pipeline::builder("users")
                .retry(Retry::builder().budget(budget.clone()))
                .bulkhead(bulkhead.clone())
                .circuit_breaker(breaker.clone())
                .observer(|_: &Event<'_>| {})
                .build()
                .unwrap()
        };
        let come_and_go = async |_| {
            let pipeline = build();
            assert_eq!(pipeline.call(|| async { Ok::<_, String>(7) }).await, Ok(7));
            drop((breaker.subscribe(), breaker.isolate(), bulkhead.acquire().await));
            bulkhead.set_limit(9).unwrap();
            bulkhead.set_limit(10).unwrap();
        };
        assert!(!grows(2_000, come_and_go).await);

        let mut kept = Vec::new();
        assert!(grows(1_000, async |_| kept.push(build())).await);
    });
}

#[test]
fn an_observer_that_panics_at_every_event_leaves_nothing_behind() {
    alone(async {
        let panics = |_: &Event<'_>| resume_unwind(Box::new("an observer's panic".to_owned()));
        let pipeline = Pipeline::builder("users").retry(Retry::builder()).observer(panics).build().unwrap();
        assert!(!grows(20_000, async |_| drop(pipeline.call(async || Ok::<_, ()>(7)).await)).await);
    });
}
