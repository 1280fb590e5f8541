//! The plan of a pipeline as a value: its layers, its worst cases in numbers, and what looks wrong.

mod place;
mod rules;
mod table;
mod validate;
mod warning;

use std::time::Duration;

use crate::{
    bounds::{self, Amplification, Bound, Bounds},
    layer::LayerInfo,
    name::Name,
};
pub(crate) use validate::validate;
pub use warning::{Warning, WarningKind};

/// The plan of a pipeline: its layers with their settings, its worst cases in numbers, and warnings in plain words.
///
/// [`Pipeline::explain`](crate::Pipeline::explain) gives it. It prints as a small table, for a log line at start-up or a
/// look at a review; a test can assert its numbers, so that nobody changes them by accident:
///
/// ```
/// use std::time::Duration;
/// use withstand::{Bound, CircuitBreaker, Pipeline, Retry, Verdict};
///
/// let users = Pipeline::builder("users-api")
///     .timeout(Duration::from_secs(4))
///     .retry(Retry::builder().max_attempts(3))
///     .circuit_breaker(CircuitBreaker::builder())
///     .timeout(Duration::from_secs(1))
///     .classify_errors(|_: &std::io::Error| Verdict::transient())
///     .build()?;
///
/// let plan = users.explain();
/// assert_eq!(plan.attempts(), Bound::AtMost(3));
/// assert_eq!(plan.time(), Bound::AtMost(Duration::from_secs(4)));
/// // 3 attempts of 1 s each, and waits of 50 and 100 ms: the retries fit.
/// assert_eq!(plan.time_without_hints(), Bound::AtMost(Duration::from_millis(3_150)));
/// assert_eq!(plan.amplification().without_budgets(), Bound::AtMost(3));
/// assert_eq!(plan.amplification().long_run(), Bound::AtMost(1));
/// assert_eq!(plan.amplification().saved_up(), Bound::AtMost(100));
/// assert!(plan.warnings().is_empty());
/// assert_eq!(
///     plan.to_string(),
///     "\
/// pipeline users-api
///   ##  layer            kind             settings
///   1  timeout          timeout          limit 4s
///   2  retry            retry            max_attempts 3,
///                                        backoff exponential 50ms x2 up to 1s, full jitter,
///                                        budget 0.2 up to 100
///   3  circuit_breaker  circuit_breaker  time_window 30s, failure_rate 0.5, min_calls 20,
///                                        open_for 5s to 60s, probes 3, close_after 3
///   4  timeout-2        timeout          limit 1s
///   operation
/// attempts for one call   at most 3
/// time for one call       at most 4s
///   without hints         at most 3.15s
/// load in an outage       3x without budgets; 1x with them, plus at most 100 attempts saved up
/// warnings                none",
/// );
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// # What the numbers hold for
///
/// They are worst cases: no call exceeds them, most stay far below. Attempts are counted where they reach the operation.
/// Time is that of the layers and timers; a process that stands still takes longer. A policy of one's own that tells
/// nothing is shown as `custom`, and what it may break is [`Bound::Unknown`]: see [`LayerInfo::custom`].
#[derive(Clone, Debug)]
pub struct Plan {
    name: Name,
    layers: Vec<LayerInfo>,
    bounds: Bounds,
    warnings: Vec<Warning>,
}

impl Plan {
    pub(crate) fn new(name: Name, layers: Vec<LayerInfo>, classified: bool) -> Self {
        let (bounds, warnings) = (bounds::of(&layers), rules::warnings(&layers, classified));
        Self { name, layers, bounds, warnings }
    }

    /// The pipeline's name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The layers from the outside in, with those of pipelines inside this one.
    #[must_use]
    pub fn layers(&self) -> &[LayerInfo] {
        &self.layers
    }

    /// How many times the operation is attempted for one call: retries times hedges.
    ///
    /// Nested retries do not multiply, since none repeats what one inside it has given up on; with
    /// [`repeat_spent`](crate::RetryBuilder::repeat_spent), or with a timeout between the two, they do.
    #[must_use]
    pub const fn attempts(&self) -> Bound<u64> {
        self.bounds.attempts
    }

    /// How long a call can take, with servers that ask for the longest waits that are obeyed.
    #[must_use]
    pub const fn time(&self) -> Bound<Duration> {
        self.bounds.time
    }

    /// How long a call can take if nobody hints when to come back: no server (`Retry-After`), and no circuit that is open
    /// (to a retry with [`retry_rejected`](crate::RetryBuilder::retry_rejected)).
    #[must_use]
    pub const fn time_without_hints(&self) -> Bound<Duration> {
        self.bounds.time_without_hints
    }

    /// How many times the load of first attempts a dependency gets that is down.
    #[must_use]
    pub const fn amplification(&self) -> Amplification {
        self.bounds.amplification
    }

    /// What looks wrong about the order or the numbers, from the outside in. What cannot work at all does not get here:
    /// [`build`](crate::PipelineBuilder::build) refuses it.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}
