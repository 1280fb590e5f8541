//! Measures all rows, prints the tables, and writes them to `BENCHMARKS.md`.

use std::{env, fs, io, path::Path};

use peers::{allocations, contention, harness, memory, operation, report, results::Results, rows};

/// Enough for narrow intervals on a noisy machine; the ratio of each round is taken within it.
const ROUNDS: u32 = 100;

fn main() -> io::Result<()> {
    let rounds = env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS).max(30);
    let (allocations, memory) = (allocations::count()?, memory::measure()?);
    let runtime = operation::runtime();
    let _entered = runtime.enter();
    let mut rows = rows::by_hand();
    rows.extend(rows::driven());
    harness::measure(&mut rows, rounds);
    let shared = contention::measure(rows::shared(), rounds);
    let report = report::markdown(&Results::new(rows, allocations), &shared, &memory, rounds);
    println!("{report}");
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("BENCHMARKS.md"), report)
}
