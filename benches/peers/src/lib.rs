//! What a call costs when nothing goes wrong, through `withstand` and through its peers: the same work, in one process,
//! with the samples of all contestants taken in turns.
//!
//! ```text
//! cargo run --release            # prints the tables and writes them to BENCHMARKS.md
//! cargo run --release -- 300     # more rounds
//! ```
//!
//! | where | what |
//! |---|---|
//! | [`operation`] | the work that everything is around |
//! | [`rows`], [`stacks`] | who does what, set up as its documentation says |
//! | [`harness`], [`driven`], [`contention`] | how it is measured: by hand, on a runtime, and by two threads at once |
//! | [`stats`], [`results`] | from samples to medians, ratios and their intervals |
//! | [`allocations`], [`memory`] | other executables count them, so that the first one does not pay for it |
//! | [`report`], [`targets`], [`machine`] | what is printed |

pub mod allocations;
pub mod contention;
pub mod driven;
pub mod harness;
pub mod machine;
pub mod memory;
pub mod operation;
pub mod report;
pub mod results;
pub mod rows;
pub mod stacks;
pub mod stats;
pub mod targets;
pub mod who;
