//! Counts the allocations of a call in each row, for the main executable: its own allocator need not count then.

use std::alloc::System;

use peers::{allocations, operation, rows};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough that what is allocated now and then, such as a growing window, shows as a fraction.
const CALLS: u32 = 1000;

fn main() {
    let runtime = operation::runtime();
    let _entered = runtime.enter();
    for row in &mut rows::by_hand() {
        let key = row.key();
        for contestant in &mut row.contestants {
            contestant.sample(CALLS);
            let region = Region::new(COUNTING);
            contestant.sample(CALLS);
            let change = region.change();
            let count = change.allocations + change.reallocations;
            println!("{}", allocations::line(&key, contestant.who, count, CALLS));
        }
    }
}
