//! The rows: one module for each policy, each with everyone who has it.
//!
//! Settings are the same for all where they exist: five failures in a row, windows of 100 calls or 30 s at a rate of one
//! half, limits of 100 calls, three attempts from 50 ms on, timeouts of 1 s for an attempt and 4 s for the call, hedges
//! after 50 ms.

mod breaker;
mod bulkhead;
mod contention;
mod fallback;
mod floor;
mod full;
mod hedge;
mod retry;
mod timeout;

pub use contention::rows as shared;
pub(crate) use floor::CLOCK;
pub(crate) use full::NAME as FULL;

use crate::{
    by_hand,
    driven::Driven,
    harness::{Contestant, Row},
    operation::Operation,
    who::Who,
};

/// The rows whose calls are polled by hand.
pub fn by_hand() -> Vec<Row> {
    let mut rows = floor::rows();
    rows.extend(breaker::rows());
    rows.extend(bulkhead::rows());
    rows.extend(retry::rows());
    rows.extend(timeout::rows());
    rows.extend(hedge::rows());
    rows.extend(fallback::rows());
    rows.extend(full::rows());
    rows
}

/// The rows whose calls run on a runtime.
pub fn driven() -> Vec<Row> {
    let rows = |runtime: &_| [timeout::driven(runtime), full::driven(runtime)];
    Driven::all().iter().flat_map(rows).collect()
}

/// A row around each operation, with the bare operation first.
fn around_both(name: &str, contestants: impl Fn(Operation) -> Vec<Contestant>) -> [Row; 2] {
    [Operation::READY, Operation::PENDING_ONCE].map(|operation| {
        let mut all = vec![by_hand!(Who::Floor, Ok(1), operation = operation => operation.start())];
        all.extend(contestants(operation));
        Row::new(name, Some(operation), all)
    })
}
