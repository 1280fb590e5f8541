//! No call allocates, whichever way it goes, unless a hedge starts.
#![cfg(test)]

#[path = "support/heap.rs"]
mod heap;

use std::{
    future::{poll_fn, ready},
    io,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use heap::{allocations, alone};
use tokio::time::sleep;
use withstand::{
    Backoff, BoxPolicy, Bulkhead, CallOptions, CircuitBreaker, Error, Fallback, Hedge, Idempotency, Jitter, Outcome,
    Pipeline, Policy, Retry, Timeout,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The error of an operation. It holds nothing on the heap.
type Fault = io::ErrorKind;

/// Pending at its first poll.
async fn once_later(result: Result<u32, Fault>) -> Result<u32, Fault> {
    let mut polled = false;
    poll_fn(|task| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    result
}

async fn slow() -> Result<u32, Fault> {
    sleep(ms(50)).await;
    Ok(7)
}

/// Calls through the policy in every way that a call can go, and fails if one allocates.
async fn allocates_nothing<P: Policy<u32, Fault>>(name: &str, policy: P) {
    let pipeline = Pipeline::builder("users").layer(policy).build().unwrap();
    for result in [Ok(7), Err(Fault::ConnectionReset)] {
        let call = || pipeline.call(|| ready(result));
        assert_eq!(allocations(call).await, 0, "{name}, ready: {result:?}");
        let call = || pipeline.call(|| once_later(result));
        assert_eq!(allocations(call).await, 0, "{name}, pending once: {result:?}");
        let options = CallOptions::new().idempotency(Idempotency::Unsafe);
        let call = || pipeline.call_with(options, |_| once_later(result));
        assert_eq!(allocations(call).await, 0, "{name}, with options: {result:?}");
        let call = || pipeline.forward(|| pipeline.outcome(|| once_later(result)));
        assert_eq!(allocations(call).await, 0, "{name}, forwarded: {result:?}");
    }
    let call = || pipeline.call(slow);
    assert_eq!(allocations(call).await, 0, "{name}, slow");
}

fn retry() -> Retry {
    Retry::builder().without_budget().backoff(Backoff::constant(ms(1)).jitter(Jitter::None)).build().unwrap()
}

fn bulkhead() -> Bulkhead {
    Bulkhead::builder().limit(2).build().unwrap()
}

/// Stays closed whatever happens.
fn breaker() -> CircuitBreaker {
    CircuitBreaker::builder().min_calls(u32::MAX).slow_call(ms(10)).build().unwrap()
}

/// Has samples to go by, and never starts a hedge.
fn patient_hedge() -> Hedge {
    Hedge::builder().delay(ms(500)).without_budget().build().unwrap()
}

#[test]
fn no_policy_allocates_for_a_call() {
    alone(async {
        allocates_nothing("timeout", Timeout::new(ms(100)).unwrap()).await;
        allocates_nothing("timeout that fires", Timeout::new(ms(20)).unwrap()).await;
        allocates_nothing("retry", retry()).await;
        allocates_nothing("bulkhead", bulkhead()).await;
        allocates_nothing("bulkhead without permits", Bulkhead::builder().limit(0).build().unwrap()).await;
        allocates_nothing("breaker", breaker()).await;
        allocates_nothing("fallback", Fallback::value(0).build().unwrap()).await;
        let asks = Fallback::from_future(|_: &Outcome<u32, Fault>| async { Some(once_later(Ok(0)).await) });
        allocates_nothing("fallback that waits", asks.build().unwrap()).await;
        allocates_nothing("shared", Arc::new(retry())).await;
        allocates_nothing("optional", Some(retry())).await;
        allocates_nothing("absent", None::<Retry>).await;

        let isolated = breaker();
        let _isolation = isolated.isolate();
        allocates_nothing("isolated breaker", isolated).await;
        let open = CircuitBreaker::builder().count_window(1).min_calls(1).open_for(ms(100_000)).build().unwrap();
        _ = open.admit().unwrap().failure("told");
        allocates_nothing("open breaker", open).await;
    });
}

#[test]
fn a_hedge_allocates_only_if_it_starts() {
    alone(async {
        let pipeline = Pipeline::builder("users").hedge(patient_hedge()).build().unwrap();
        assert_eq!(allocations(|| pipeline.call(|| ready(Ok::<_, Fault>(7)))).await, 0, "ready");
        assert_eq!(allocations(|| pipeline.call(|| once_later(Ok(7)))).await, 0, "pending once");
        assert_eq!(allocations(|| pipeline.call(slow)).await, 0, "slow, but not slow enough");

        let measuring = Pipeline::builder("users").hedge(Hedge::builder()).timeout(ms(100)).build().unwrap();
        assert_eq!(allocations(|| measuring.call(|| once_later(Ok(7)))).await, 0, "before there are samples");

        let hasty = Hedge::builder().delay(ms(10)).without_budget().build().unwrap();
        let hasty = Pipeline::builder("users").hedge(hasty).build().unwrap();
        assert!(allocations(|| hasty.call(slow)).await > 0, "a hedge that starts does");
    });
}

#[test]
fn a_full_stack_allocates_nothing() {
    alone(async {
        let stack = Pipeline::builder("stack")
            .fallback(Fallback::value(0))
            .timeout(ms(4_000))
            .retry(retry())
            .hedge(patient_hedge())
            .bulkhead(bulkhead())
            .circuit_breaker(breaker())
            .timeout(ms(100))
            .build()
            .unwrap();
        // Failures start hedges; all other ways are free.
        assert_eq!(allocations(|| stack.call(|| ready(Ok::<_, Fault>(7)))).await, 0, "ready");
        assert_eq!(allocations(|| stack.call(|| once_later(Ok(7)))).await, 0, "pending once");
        assert_eq!(allocations(|| stack.call(slow)).await, 0, "slow");

        let standard = Pipeline::standard("standard").build().unwrap();
        allocates_nothing("standard", &standard).await;
        // Nor does it once the circuit is open and the budget is spent.
        for _ in 0..200 {
            drop(standard.call(|| ready(Err::<u32, _>(Fault::ConnectionReset))).await);
        }
        let refused = standard.call(|| ready(Ok::<_, Fault>(7))).await;
        assert!(refused.as_ref().is_err_and(Error::is_rejected), "{refused:?}");
        allocates_nothing("standard, open", &standard).await;
    });
}

/// Of its faults only a panic allocates, as panics do.
#[cfg(feature = "chaos")]
#[test]
fn no_chaos_allocates() {
    use withstand::Chaos;
    alone(async {
        let chaos = || Chaos::builder().latency(0.0, ms(5)).error(0.0, || Fault::TimedOut).hang(0.0);
        allocates_nothing("chaos, off", chaos().error(1.0, || Fault::TimedOut).build().unwrap()).await;
        allocates_nothing("chaos, errors", chaos().error(1.0, || Fault::TimedOut).enabled().build().unwrap()).await;
        allocates_nothing("chaos, latency", chaos().latency(1.0, ms(5)).enabled().build().unwrap()).await;
        let hangs = chaos().hang(1.0).latency(1.0, ms(5)).enabled();
        let pipeline = Pipeline::builder("hangs").timeout(ms(20)).chaos(hangs).build().unwrap();
        allocates_nothing("chaos, hangs", pipeline).await;
        allocates_nothing("chaos, of a key", chaos().latency(1.0, ms(5)).enabled().build().unwrap().for_key("a")).await;
    });
}

/// In the feature's build it is limited by the deadline around it, and that costs no allocation either.
#[test]
fn a_call_inside_another_calls_operation_allocates_nothing() {
    alone(async {
        let outer = Pipeline::builder("outer").timeout(ms(20)).build().unwrap();
        let inner = Pipeline::builder("inner").timeout(ms(100)).layer(retry()).build().unwrap();
        for result in [Ok(7), Err(Fault::ConnectionReset)] {
            let call = || outer.forward(|| inner.outcome(|| once_later(result)));
            assert_eq!(allocations(call).await, 0, "{result:?}");
        }
        assert_eq!(allocations(|| outer.forward(|| inner.outcome(slow))).await, 0, "ended by the outer one");
    });
}

#[test]
fn a_guarded_future_is_not_boxed() {
    alone(async {
        let single = Pipeline::builder("single")
            .fallback(Fallback::value(0))
            .timeout(ms(4_000))
            .bulkhead(bulkhead())
            .circuit_breaker(breaker())
            .build()
            .unwrap();
        for result in [Ok(7), Err(Fault::ConnectionReset)] {
            assert_eq!(allocations(|| single.guard(ready(result))).await, 0, "ready: {result:?}");
            assert_eq!(allocations(|| single.guard(once_later(result))).await, 0, "pending once: {result:?}");
        }
        assert_eq!(allocations(|| single.guard(slow())).await, 0, "slow");
    });
}

#[test]
fn what_is_used_without_wrapping_allocates_nothing() {
    alone(async {
        let (bulkhead, breaker) = (bulkhead(), breaker());
        assert_eq!(allocations(|| bulkhead.acquire()).await, 0, "acquire");
        assert_eq!(allocations(|| async { bulkhead.try_acquire() }).await, 0, "try_acquire");
        assert_eq!(allocations(|| async { breaker.admit().map(withstand::Ticket::success) }).await, 0, "admit");
        assert_eq!(allocations(|| async { breaker.snapshot() }).await, 0, "snapshot");
    });
}

/// And so this test would see an allocation if there was one.
#[test]
fn an_erased_policy_allocates_once_for_the_run_and_once_for_each_attempt() {
    alone(async {
        let erased = BoxPolicy::<u32, Fault>::new(retry());
        let pipeline = Pipeline::builder("erased").layer(erased).build().unwrap();
        assert_eq!(allocations(|| pipeline.call(|| ready(Ok(7)))).await, 2);
        assert_eq!(allocations(|| pipeline.call(|| ready(Err(Fault::ConnectionReset)))).await, 4, "three attempts");
    });
}

#[cfg(feature = "serde")]
#[test]
fn layers_from_settings_allocate_once_for_each_run_and_once_for_each_attempt_of_the_operation() {
    use withstand::{BackoffConfig, PipelineConfig, RetryConfig, TimeoutConfig};

    let (mut retry, mut backoff) = (RetryConfig::default(), BackoffConfig::default());
    (backoff.base, backoff.cap) = (Some(ms(1)), Some(ms(1)));
    (retry.backoff, retry.without_budget) = (Some(backoff), Some(true));
    let config = PipelineConfig::new("users");
    let config = config.layer(TimeoutConfig::new(ms(900))).layer(retry).layer(TimeoutConfig::new(ms(100)));
    alone(async {
        let pipeline = Pipeline::from_config(config).build().unwrap();
        assert_eq!(allocations(|| pipeline.call(|| ready(Ok::<_, Fault>(7)))).await, 4);
        let failing = || pipeline.call(|| ready(Err::<u32, _>(Fault::ConnectionReset)));
        assert_eq!(allocations(failing).await, 8, "three attempts, each in a run of the layer inside");
    });
}

#[cfg(feature = "tower")]
#[test]
fn a_call_through_a_layer_of_tower_allocates_once_and_no_more_however_often_it_attempts() {
    use tower::{Layer, Service, service_fn};
    use withstand::tower::PipelineLayer;

    alone(async {
        let guarded = Pipeline::builder("users").circuit_breaker(CircuitBreaker::builder()).timeout(ms(9)).build();
        let service = PipelineLayer::guard(guarded.unwrap()).layer(service_fn(|n: u32| ready(Ok::<_, Fault>(n))));
        assert_eq!(allocations(|| service.clone().call(7)).await, 1);

        let backoff = Backoff::constant(ms(1)).jitter(Jitter::None);
        let retry = Retry::builder().backoff(backoff).without_budget();
        let repeating = Pipeline::builder("users").retry(retry).timeout(ms(9)).build().unwrap();
        let failing = service_fn(|_: u32| once_later(Err(Fault::ConnectionReset)));
        let service = PipelineLayer::new(repeating).layer(failing);
        assert_eq!(allocations(|| service.clone().call(7)).await, 1);
    });
}
