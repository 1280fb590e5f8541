//! Retry, behaviour by behaviour.
#![cfg(test)]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod backoff;
mod budget;
mod deadlines;
mod idempotency;
mod model;
mod nesting;
mod properties;

use std::time::Duration;

use support::as_it_says;
use withstand::{
    Backoff, ClassifyErrors, EventKind, Jitter, Pipeline, Retry, RetryBuilder, RetryStop, Verdict, layers,
};

type Judged = ClassifyErrors<fn(&Verdict) -> Verdict>;

/// A retry without a budget and with delays that are exact, to count with.
fn plain(attempts: u32, delay: Duration) -> RetryBuilder {
    Retry::builder().max_attempts(attempts).backoff(Backoff::constant(delay).jitter(Jitter::None)).without_budget()
}

/// A pipeline of one retry around operations whose error is the verdict on it.
fn pipeline(retry: RetryBuilder, log: &support::Log) -> Pipeline<layers![Retry], Judged> {
    Pipeline::builder("api")
        .retry(retry)
        .classify_errors(as_it_says as fn(&Verdict) -> Verdict)
        .observer(log.clone())
        .build()
        .unwrap()
}

fn delays(log: &support::Log) -> Vec<Duration> {
    log.pick(|kind| match kind {
        EventKind::Retried { delay, .. } => Some(delay),
        _ => None,
    })
}

fn stops(log: &support::Log) -> Vec<RetryStop> {
    log.pick(|kind| match kind {
        EventKind::RetryStopped { why, .. } => Some(why),
        _ => None,
    })
}
