//! A heap that is counted, for tests that share it with nobody.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    alloc::System,
    future::Future,
    sync::{Mutex, PoisonError},
};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Runs one test at a time, on a paused clock: all threads share the heap that is counted.
pub(crate) fn alone(test: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
}

/// The allocations of one call. The least of many: what the test runner does meanwhile adds to some.
pub(crate) async fn allocations<Fut: Future>(call: impl Fn() -> Fut) -> usize {
    let mut least = usize::MAX;
    for _ in 0..100 {
        let region = Region::new(HEAP);
        drop(call().await);
        let change = region.change();
        least = least.min(change.allocations + change.reallocations);
        if least == 0 {
            break;
        }
    }
    least
}

pub(crate) fn bytes_in_use() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}
