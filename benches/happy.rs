//! What a call costs when nothing goes wrong, and what a refusal costs, beside the floor: a bare operation, one atomic
//! addition, one reading of the clock. Readings for a person to compare within one run; times across runs say little.
//!
//! ```text
//! cargo bench --bench happy
//! ```

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use criterion::{Criterion, criterion_main};
use withstand::{Bulkhead, CircuitBreaker, Fallback, Hedge, Pipeline, Retry, Timeout};

/// Ready at once: all that is measured is what is around it.
async fn operation() -> Result<u64, u64> {
    black_box(Ok(1))
}

/// Polls a future that is ready at once, where it stands, behind the optimiser's back. A function would move it first.
macro_rules! ready {
    ($future:expr) => {{
        let future = pin!($future);
        match black_box(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => unreachable!("the operation is ready at once"),
        }
    }};
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn floor(c: &mut Criterion) {
    let mut group = c.benchmark_group("floor");
    let counter = AtomicU64::new(0);
    let semaphore = tokio::sync::Semaphore::new(1);
    group.bench_function("bare operation", |b| b.iter(|| ready!(operation())));
    group.bench_function("boxed operation", |b| b.iter(|| ready!(Box::pin(operation()))));
    group.bench_function("atomic addition", |b| b.iter(|| counter.fetch_add(1, Ordering::Relaxed)));
    group.bench_function("clock reading", |b| b.iter(tokio::time::Instant::now));
    group.bench_function("semaphore permit", |b| b.iter(|| drop(semaphore.try_acquire())));
    group.finish();
}

/// One row: a call through a policy alone.
macro_rules! row {
    ($group:ident, $name:literal, $policy:expr) => {
        let policy = $policy.unwrap();
        $group.bench_function($name, |b| b.iter(|| ready!(policy.call(operation))));
    };
}

fn happy(c: &mut Criterion) {
    let mut group = c.benchmark_group("happy");
    row!(group, "pipeline without layers", Pipeline::builder("empty").build());
    row!(group, "timeout", Timeout::new(seconds(1)));
    row!(group, "retry", Retry::builder().build());
    row!(group, "bulkhead", Bulkhead::builder().limit(100).build());
    row!(group, "breaker, consecutive", CircuitBreaker::builder().consecutive_failures(5).build());
    row!(group, "breaker, count window", CircuitBreaker::builder().count_window(100).build());
    row!(group, "breaker, time window", CircuitBreaker::builder().build());
    row!(group, "hedge, fixed delay", Hedge::builder().delay(Duration::from_millis(50)).build());
    row!(group, "hedge, quantile", Hedge::builder().build());
    row!(group, "fallback", Fallback::value(0_u64).build());
    group.finish();
}

fn full_stack(c: &mut Criterion) {
    let mut group = c.benchmark_group("full stack");
    let stack = |breaker| {
        Pipeline::builder("full")
            .timeout(seconds(4))
            .retry(Retry::builder())
            .bulkhead(Bulkhead::builder().limit(100))
            .circuit_breaker(breaker)
            .timeout(seconds(1))
            .build()
    };
    row!(group, "consecutive", stack(CircuitBreaker::builder().consecutive_failures(5)));
    row!(group, "count window", stack(CircuitBreaker::builder().count_window(100)));
    row!(group, "time window", stack(CircuitBreaker::builder()));
    row!(group, "standard", Pipeline::standard("standard").build());
    row!(group, "standard, hedged", Pipeline::standard_hedged("hedged").build());
    group.finish();
}

fn rejected(c: &mut Criterion) {
    let mut group = c.benchmark_group("rejected");
    row!(group, "bulkhead full", Bulkhead::builder().limit(0).build());
    let breaker = CircuitBreaker::builder()
        .consecutive_failures(1)
        .consecutive_span(Duration::ZERO)
        .open_for(seconds(3600))
        .max_open_for(seconds(3600))
        .build()
        .unwrap();
    breaker.admit().unwrap().failure("down");
    group.bench_function("breaker open", |b| b.iter(|| ready!(breaker.call(operation))));
    let breaker = CircuitBreaker::builder().build().unwrap();
    let _isolation = breaker.isolate();
    group.bench_function("breaker isolated", |b| b.iter(|| ready!(breaker.call(operation))));
    group.finish();
}

/// Not public, so that what the macro makes needs no documentation.
mod groups {
    use super::{floor, full_stack, happy, rejected};

    criterion::criterion_group!(all, floor, happy, full_stack, rejected);
}

criterion_main!(groups::all);
