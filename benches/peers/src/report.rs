//! From results to `BENCHMARKS.md`.

use std::fmt::Write;

use crate::{
    contention::{self, Contention},
    harness::{Row, Sizes},
    machine,
    memory::{self, CALLS_EACH, Memory, STACKS},
    operation::Operation,
    results::Results,
    targets,
    who::{NOTES, Who},
};

/// The whole file.
pub fn markdown(results: &Results, shared: &Contention, memory: &[Memory], rounds: u32) -> String {
    let machine = machine::markdown();
    let times = times(results);
    let targets = targets::markdown(results);
    let sizes = sizes(results);
    let (shared, memory) = (contention::markdown(shared), memory::markdown(memory));
    let (stacks, calls) = (STACKS, STACKS * CALLS_EACH);
    format!(
        "\
# What a call costs

Written by `cargo run --release` in this folder. Times of different runs or machines say nothing about each other; the
ratios within one run do.

{machine}
## Times

Nanoseconds for each call when nothing goes wrong: medians of {rounds} rounds. In each round everyone is sampled once, for
about a quarter of a millisecond; the contestants of a row follow each other at once. The ratio is this crate's time over
that of the peer with the lowest median, taken within each round: its median, and the median's 95 % interval by order
statistics.

An operation that is *ready* gives its result when it is first polled; the time includes it. One that is *pending once*
does what every real call does: it is polled twice, so timers are armed; the time of the bare operation, in the column
*floor*, is **taken off** (what is then left below 2 ns is noise, and has no ratio). Calls are polled by hand in an entered
runtime that is not running, but where the row names a runtime: there they run in a task of it, it has an I/O driver, and
so many other timers are pending.

{times}
## Where it is to stand

Met if the lower end of the interval is at most 1.

{targets}
## Allocations and sizes

*Allocations for each call* / *bytes of the future* / *bytes of the error*, around an operation whose error has 8 bytes.
What is boxed counts as an allocation, not in the future's size. Allocations are counted in a process of their own, so
that nobody's time includes the counting.

{sizes}
## Two threads at once

Nanoseconds for each call of one thread alone, and for each call of two threads that share the same breaker, budget or
bulkhead: the time over the calls of both. *both over one* is their throughput over that of one thread: 2 if they do not
disturb each other, below 1 if they are slower together than one alone. Both are sampled in turns; a sample during which
somebody else was given one of the two processors is taken again. To be met: 1.3 of one thread or 0.9 of two threads on
one shared atomic add, which nothing that writes one word and does anything else can have; a bulkhead, alone or in a
stack, 0.9 of two threads on a tokio semaphore.

{shared}
## Memory

Of {stacks} full stacks at rest, each with policies of its own, and of {calls} calls in flight through them: polled once,
timers armed, each in a box of its own. Bytes that were asked of the allocator, and what the system gave the process for
each call.

{memory}
## What to know when comparing

{NOTES}"
    )
}

fn times(results: &Results) -> String {
    let mut text = header(&["floor", "withstand", "best peer", "ratio to the best"]);
    for row in &results.rows {
        let _ = write!(text, "{}", label(row));
        cell(&mut text, nanos(row, Who::Floor).as_deref());
        cell(&mut text, nanos(row, Who::Withstand).as_deref());
        let best = row.best();
        cell(&mut text, best.map(Who::name));
        cell(&mut text, best.and_then(|best| Some(row.ratio(best)?.to_string())).as_deref());
        for peer in Who::PEERS {
            cell(&mut text, nanos(row, peer).as_deref());
        }
        text.push_str(" |\n");
    }
    text
}

fn nanos(row: &Row, who: Who) -> Option<String> {
    row.median(who).map(|nanos| if nanos < 100.0 { format!("{nanos:.1}") } else { format!("{nanos:.0}") })
}

fn sizes(results: &Results) -> String {
    let mut text = header(&["floor", "withstand"]);
    // The same code, wherever it runs.
    let counted = |row: &&Row| row.contestants.iter().any(|one| results.allocations(row, one.who).is_some());
    for row in results.rows.iter().filter(counted) {
        let _ = write!(text, "{}", label(row));
        for who in [Who::Floor, Who::Withstand].into_iter().chain(Who::PEERS) {
            let sizes = row.contestant(who).and_then(|contestant| contestant.sizes);
            let allocations = results.allocations(row, who).map(|each| (each * 100.0).round() / 100.0);
            let content = match (allocations, sizes) {
                (Some(allocations), Some(Sizes { future, error })) => {
                    Some(format!("{allocations} / {future} / {error}"))
                }
                (Some(allocations), None) => Some(allocations.to_string()),
                (None, _) => None,
            };
            cell(&mut text, content.as_deref());
        }
        text.push_str(" |\n");
    }
    text
}

fn header(own: &[&str]) -> String {
    let columns = own.iter().copied().chain(Who::PEERS.map(Who::name));
    let columns: Vec<&str> = ["row", "operation"].into_iter().chain(columns).collect();
    format!("| {} |\n|---|---|{}\n", columns.join(" | "), "--:|".repeat(columns.len() - 2))
}

fn label(row: &Row) -> String {
    format!("| {} | {}", row.name, row.operation.map_or("not called", Operation::label))
}

fn cell(text: &mut String, content: Option<&str>) {
    let _ = write!(text, " | {}", content.unwrap_or("-"));
}
