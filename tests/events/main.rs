//! What is reported: one end for each call and each attempt, in every way of ending, and to whom.
#![cfg(test)]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod calls;
mod kinds;
mod observers;

use std::time::Duration;

use support::{Log, ms};
use withstand::{AttemptEnd, Backoff, CallOutcome, Event, EventKind, Jitter, Observer, Reason, Retry, RetryBuilder};

fn retry(attempts: u32) -> RetryBuilder {
    let backoff = Backoff::constant(ms(10)).jitter(Jitter::None);
    Retry::builder().max_attempts(attempts).backoff(backoff).without_budget()
}

/// A `CallFinished`.
#[derive(Debug, PartialEq)]
struct End {
    outcome: CallOutcome,
    ok: Option<bool>,
    reason: Option<Reason>,
    label: &'static str,
    spent: bool,
    /// Attempts, hedges, winner.
    numbers: (u32, u32, u32),
    duration: Duration,
}

/// The one end of the one call, which is the last event, as its start is the first.
#[track_caller]
fn finished(log: &Log) -> End {
    let kinds = log.kinds();
    assert_eq!(log.count(|kind| matches!(kind, EventKind::CallFinished { .. })), 1, "{kinds:#?}");
    assert!(matches!(kinds.first(), Some(EventKind::CallStarted { .. })), "{kinds:#?}");
    match kinds.last() {
        Some(&EventKind::CallFinished {
            outcome,
            ok,
            reason,
            label,
            spent,
            attempts,
            hedges,
            winner,
            duration,
            ..
        }) => End { outcome, ok, reason, label, spent, numbers: (attempts, hedges, winner), duration },
        _ => panic!("the end of the call is not the last: {kinds:#?}"),
    }
}

#[track_caller]
fn outcome(log: &Log) -> (CallOutcome, Option<bool>, Option<Reason>) {
    let End { outcome, ok, reason, .. } = finished(log);
    (outcome, ok, reason)
}

/// Attempt, hedge and end of each attempt, in the order of their ends.
fn ends(log: &Log) -> Vec<(u32, u32, AttemptEnd)> {
    log.pick(|kind| match kind {
        EventKind::AttemptFinished { attempt, hedge, end, .. } => Some((attempt, hedge, end)),
        _ => None,
    })
}

/// Panics with something whose own drop panics.
struct Spiteful;

impl Observer for Spiteful {
    fn on_event(&self, _: &Event<'_>) {
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("of the payload");
            }
        }
        std::panic::panic_any(Payload);
    }
}
