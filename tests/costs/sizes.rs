//! The sizes of futures and values. A limit is what a change may not pass unnoticed; a change that is worth more bytes
//! writes the new one down.

use std::{future::ready, hint::black_box, time::Duration};

use withstand::{
    Attempt, Bulkhead, CallOptions, CircuitBreaker, Context, Error, Fallback, Frame, Hedge, Outcome, Pipeline, Policy,
    Rejection, Retry, TimedOut, Timeout, Verdict,
};

const SECOND: Duration = Duration::from_secs(1);

/// The operation of all rows: its future has 12 bytes, its result 8.
async fn operation() -> Result<u32, u32> {
    ready(Ok(7)).await
}

/// The bytes of the future of a call through a pipeline of this one layer.
fn layered(policy: impl Policy<u32, u32>) -> usize {
    let pipeline = Pipeline::builder("alone").layer(policy).build().unwrap();
    size_of_val(&pipeline.call(operation))
}

/// What features add to the future of each call: the deadline around it, and its span.
const FEATURES: usize = if cfg!(any(feature = "deadlines", feature = "tracing")) { 16 } else { 0 };

/// Fails with all rows that are off, so that one run is enough to write new limits down.
fn hold<const N: usize>(rows: [(&str, usize, usize); N]) {
    let over = |(what, bytes, limit): (&str, usize, usize)| {
        let limit = limit + FEATURES;
        println!("{what}: {bytes} bytes, at most {limit}");
        (bytes > limit).then(|| format!("{what}: {bytes} bytes, and not more than {limit} are allowed"))
    };
    let over: Vec<_> = rows.into_iter().filter_map(over).collect();
    assert!(over.is_empty(), "{}", over.join("\n"));
}

#[test]
fn the_future_of_a_call_through_each_policy_is_small() {
    let empty = Pipeline::builder("empty").build().unwrap();
    let queue = Bulkhead::builder().limit(1).queue(1).build().unwrap();
    hold([
        ("the operation itself", size_of_val(&operation()), 12),
        ("no layers", size_of_val(&empty.call(operation)), 352),
        ("timeout", layered(Timeout::new(SECOND).unwrap()), 528),
        ("retry", layered(Retry::builder().build().unwrap()), 640),
        ("bulkhead", layered(queue), 640),
        ("circuit breaker", layered(CircuitBreaker::builder().build().unwrap()), 432),
        ("hedge", layered(Hedge::builder().build().unwrap()), 944),
        ("fallback", layered(Fallback::value(0).build().unwrap()), 640),
    ]);
}

#[test]
fn the_future_of_a_call_through_each_policy_alone_is_small() {
    let timeout = Timeout::new(SECOND).unwrap();
    let retry = Retry::builder().build().unwrap();
    let bulkhead = Bulkhead::builder().limit(1).queue(1).build().unwrap();
    let breaker = CircuitBreaker::builder().build().unwrap();
    let hedge = Hedge::builder().build().unwrap();
    let fallback = Fallback::value(0).build().unwrap();
    hold([
        ("timeout", size_of_val(&timeout.call(operation)), 528),
        ("retry", size_of_val(&retry.call(operation)), 624),
        ("bulkhead", size_of_val(&bulkhead.call(operation)), 624),
        ("circuit breaker", size_of_val(&breaker.call(operation)), 432),
        ("hedge", size_of_val(&hedge.call(operation)), 928),
        ("fallback", size_of_val(&fallback.call(operation)), 640),
    ]);
}

#[test]
fn the_future_of_a_full_stack_is_small() {
    let standard = Pipeline::standard("standard").build().unwrap();
    let hedged = Pipeline::standard_hedged("hedged").build().unwrap();
    let single = Pipeline::builder("single").timeout(SECOND).bulkhead(Bulkhead::builder().limit(1)).build().unwrap();
    hold([
        ("standard", size_of_val(&standard.call(operation)), 1088),
        ("standard, with options", size_of_val(&standard.call_with(CallOptions::new(), |_| operation())), 1136),
        ("standard, hedged", size_of_val(&hedged.call(operation)), 1680),
        ("guarded", size_of_val(&single.guard(operation())), 880),
    ]);
}

/// A layer that may run an operation in two ways stores it once.
#[test]
fn the_layers_of_a_stack_store_the_operation_once() {
    async fn large<const N: usize>() -> Result<u32, u32> {
        let kept = black_box([0_u8; N]);
        ready(()).await;
        Ok(u32::from(kept[0]))
    }
    let standard = Pipeline::standard("standard").build().unwrap();
    let hedged = Pipeline::standard_hedged("hedged").build().unwrap();
    let growth = |small: usize, large: usize| large - small;
    let of_standard = growth(size_of_val(&standard.call(large::<1024>)), size_of_val(&standard.call(large::<3072>)));
    let of_hedged = growth(size_of_val(&hedged.call(large::<1024>)), size_of_val(&hedged.call(large::<3072>)));
    assert_eq!((of_standard, of_hedged), (2048, 2048));
}

#[test]
fn what_passes_through_every_layer_is_small() {
    hold([
        ("Error<()>", size_of::<Error<()>>(), 48),
        ("Error<Box<dyn Error>>", size_of::<Error<Box<dyn std::error::Error>>>(), 48),
        ("Rejection", size_of::<Rejection>(), 48),
        ("TimedOut", size_of::<TimedOut>(), 24),
        ("Outcome<u32, u32>", size_of::<Outcome<u32, u32>>(), 88),
        ("Verdict", size_of::<Verdict>(), 24),
        ("Context", size_of::<Context<'_>>(), 16),
        ("Frame", size_of::<Frame<'_>>(), 56),
        ("Attempt", size_of::<Attempt>(), 16),
        ("CallOptions", size_of::<CallOptions>(), 24),
    ]);
}
