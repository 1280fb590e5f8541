//! A call with faults in it is polled so many times and dropped, for every number of times: nothing is held.

use std::{future::poll_fn, sync::Arc, task::Poll};

use withstand::{Backoff, Bulkhead, CircuitBreaker, EventKind, Jitter, Pipeline, Retry, RetryBudget};

use crate::{
    Counted, plain, silently,
    support::{Log, caught, ms, secs},
};

/// Whether the call came to its end within so many polls.
async fn polled<F: Future>(times: u32, future: F) -> bool {
    let mut future = Box::pin(future);
    let mut polls = 0;
    let driven = poll_fn(|task| {
        if polls == times {
            return Poll::Ready(false);
        }
        polls += 1;
        match future.as_mut().poll(task) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if polls == times => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    });
    driven.await
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_anywhere_holds_nothing() {
    silently();
    // Latency with each of them; hangs last until the timeout.
    for [latency, error, hang, panic] in
        [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]]
    {
        for times in 0.. {
            let bulkhead = Arc::new(Bulkhead::builder().limit(1).build().unwrap());
            let breaker = CircuitBreaker::builder().count_window(1).min_calls(1).open_for(ms(5)).probes(1);
            let breaker = Arc::new(breaker.build().unwrap());
            // Half-open: the call holds the one probe.
            _ = breaker.admit().unwrap().failure("told");
            tokio::time::sleep(ms(6)).await;
            let budget = Arc::new(RetryBudget::builder().initial(10).ratio(0.0).build().unwrap());
            let log = Log::new();
            let chaos = plain(latency, error, hang, panic).enabled().build().unwrap();
            let (switch, operation) = (chaos.switch(), Counted::default());
            let pipeline = Pipeline::builder("p")
                .timeout(secs(5))
                .retry(
                    Retry::builder()
                        .backoff(Backoff::constant(ms(10)).jitter(Jitter::None))
                        .retry_rejected()
                        .budget(budget.clone()),
                )
                .bulkhead(bulkhead.clone())
                .circuit_breaker(breaker.clone())
                .timeout(ms(200))
                .chaos(chaos)
                .observer(log.clone())
                .build()
                .unwrap();
            let ended = caught(polled(times, pipeline.call(|| operation.call()))).await;
            let place = format!("{latency} {error} {hang} {panic}: {times} polls, {ended:?}");
            assert_eq!(bulkhead.in_use(), 0, "{place}");
            assert_eq!(breaker.snapshot().probes_in_flight, 0, "{place}");
            let calls = |kind: &EventKind| matches!(kind, EventKind::CallFinished { .. });
            assert_eq!(log.count(calls), usize::from(times > 0), "{place}");
            let begun = log.count(|kind| matches!(kind, EventKind::AttemptStarted { .. }));
            let finished = log.count(|kind| matches!(kind, EventKind::AttemptFinished { .. }));
            let told = log.pick(|kind| match kind {
                EventKind::CallFinished { attempts, .. } => usize::try_from(attempts).ok(),
                _ => None,
            });
            assert_eq!((begun, finished), (told.iter().sum(), told.iter().sum()), "{place}");
            // The next call goes through once the circuit lets it.
            switch.disable();
            while breaker.state().is_open() {
                tokio::time::sleep(ms(1)).await;
            }
            assert_eq!(pipeline.call(|| operation.call()).await, Ok(7), "{place}");
            assert!(times < 100, "it never ends");
            if ended != Ok(false) {
                break;
            }
        }
    }
}
