//! The plan of a pipeline: its numbers hold, and its warnings say what looks wrong.
#![cfg(test)]

#[path = "../support/trials.rs"]
mod trials;

mod bounds;
mod property;
mod table;
mod warnings;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use withstand::{
    Backoff, Bound, BoxPolicy, Bulkhead, CircuitBreaker, Context, Describe, Fallback, Hedge, HedgeDelay, LayerInfo,
    Operation, Outcome, Pipeline, Plan, Policy, Retry, RetryBudget, RetryBuilder, Timeout, Verdict, VerdictKind,
    WarningKind as W,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The plan of a pipeline of these layers, with a classifier.
macro_rules! plan {
    ($($layer:ident($policy:expr)),* $(,)?) => {
        Pipeline::builder("users-api")
            $(.$layer($policy))*
            .classify_errors(|_: &io::Error| Verdict::transient())
            .build()
            .unwrap()
            .explain()
    };
}
use plan;

/// A retry that asks for no waits and obeys no hints.
fn retry(attempts: u32) -> RetryBuilder {
    Retry::builder().max_attempts(attempts).backoff(Backoff::constant(Duration::ZERO)).max_hint(Duration::ZERO)
}

fn kinds(plan: &Plan) -> Vec<W> {
    plan.warnings().iter().map(withstand::Warning::kind).collect()
}

/// A policy of the user's own that makes one attempt, and tells of it what it was built with.
struct Own(Option<LayerInfo>);

impl Describe for Own {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        match &self.0 {
            Some(info) => out.push(info.clone()),
            None => Silent.describe(out),
        }
    }
}

impl<T: Send, E: Send> Policy<T, E> for Own {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        op.attempt(cx).await
    }
}

/// A policy that tells nothing.
struct Silent;
impl Describe for Silent {}
impl<T: Send, E: Send> Policy<T, E> for Silent {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        op.attempt(cx).await
    }
}

fn readme() -> Plan {
    plan![
        fallback(Fallback::value(())),
        timeout(secs(4)),
        retry(Retry::builder().max_attempts(3).backoff(Backoff::exponential(ms(50)).cap(secs(1)))),
        bulkhead(Bulkhead::builder().limit(100)),
        circuit_breaker(CircuitBreaker::builder().failure_rate(0.5).min_calls(20).open_for(secs(5))),
        timeout(secs(1)),
    ]
}

mod pipelines_as_they_should_be {
    use super::*;

    #[test]
    fn the_readme_pipeline_has_no_warnings() {
        let plan = readme();
        assert_eq!(kinds(&plan), [], "{plan}");
        assert_eq!(plan.attempts(), Bound::AtMost(3));
        assert_eq!(plan.time(), Bound::AtMost(secs(4)));
        assert_eq!(plan.time_without_hints(), Bound::AtMost(ms(3_150)));
    }

    #[test]
    fn the_standard_pipeline_has_no_warnings() {
        let users = Pipeline::standard("users-api").classify_errors(|_: &io::Error| Verdict::transient());
        let plan = users.build().unwrap().explain();
        assert_eq!(kinds(&plan), [], "{plan}");
        assert_eq!(plan.attempts(), Bound::AtMost(3));
        assert_eq!(plan.time_without_hints(), Bound::AtMost(ms(3_150)));
        assert_eq!(plan.amplification().long_run(), Bound::AtMost(1));
        assert_eq!(plan.amplification().saved_up(), Bound::AtMost(100));
    }

    #[test]
    fn the_standard_hedged_pipeline_has_no_warnings() {
        let users = Pipeline::standard_hedged("users-api").classify_errors(|_: &io::Error| Verdict::transient());
        let plan = users.build().unwrap().explain();
        assert_eq!(kinds(&plan), [], "{plan}");
        assert_eq!(plan.attempts(), Bound::AtMost(4));
        // Two attempts of 1 s, each with a hedge half a second later, and a wait of 50 ms.
        assert_eq!(plan.time_without_hints(), Bound::AtMost(ms(3_050)));
        assert_eq!(plan.amplification().saved_up(), Bound::AtMost(110));
    }

    #[test]
    fn a_standard_pipeline_without_a_classifier_is_warned_of_that_alone() {
        let plan = Pipeline::standard("users-api").build().unwrap().explain();
        assert_eq!(kinds(&plan), [W::NoClassifier]);
    }
}
