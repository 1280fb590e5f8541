//! A warning as a value.

use std::fmt;

use crate::name::Name;

/// Something about the order or the numbers of a pipeline that looks wrong, though it can work.
///
/// It prints as a sentence that says what happens and what to do:
///
/// ```
/// use std::time::Duration;
/// use withstand::{Pipeline, Retry, Verdict, WarningKind};
///
/// let users = Pipeline::builder("users-api")
///     .timeout(Duration::from_secs(2))
///     .retry(Retry::builder().max_attempts(3))
///     .timeout(Duration::from_secs(1))
///     .classify_errors(|_: &std::io::Error| Verdict::transient())
///     .build()?;
///
/// let plan = users.explain();
/// let [warning] = plan.warnings() else { panic!("{plan}") };
/// assert_eq!(warning.kind(), WarningKind::RetriesExceedTimeout);
/// assert_eq!(warning.policies(), ["retry", "timeout"]);
/// assert_eq!(
///     warning.to_string(),
///     "3 attempts of the retry `retry` with their waits can take 3.15s, but the timeout `timeout` ends them after 2s; \
///      allow fewer attempts or less time for each",
/// );
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    kind: WarningKind,
    policies: Vec<Name>,
    text: String,
}

impl Warning {
    pub(super) fn new(kind: WarningKind, policies: Vec<Name>, text: String) -> Self {
        Self { kind, policies, text }
    }

    /// What kind of mistake it looks like.
    #[must_use]
    pub const fn kind(&self) -> WarningKind {
        self.kind
    }

    /// The names of the policies that it is about, the one to change first. Empty if it is about the whole pipeline.
    #[must_use]
    pub fn policies(&self) -> &[Name] {
        &self.policies
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The kinds of [`Warning`], for tests and for teams that allow some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WarningKind {
    /// Nothing limits the time of a call: one that hangs does so for ever.
    NoTimeout,
    /// The time is limited but for servers that ask for longer waits.
    NoTotalTimeout,
    /// Attempts that are repeated have no timeout of their own: one that hangs uses up the time of all.
    NoAttemptTimeout,
    /// A retry without a classifier repeats every error.
    NoClassifier,
    /// A retry or a hedge without a budget multiplies the load for as long as an outage lasts.
    NoBudget,
    /// A budget that cannot pay, or that no success refills.
    UselessBudget,
    /// Several attempts and their waits take longer than a timeout around them.
    RetriesExceedTimeout,
    /// `max_elapsed` is not shorter than a timeout around the retry.
    UselessMaxElapsed,
    /// A retry that makes one attempt.
    SingleAttemptRetry,
    /// A retry inside a retry.
    NestedRetries,
    /// A hedge inside a hedge.
    NestedHedges,
    /// A retry inside a hedge.
    HedgeOutsideRetry,
    /// A hedge that begins no sooner than an attempt has timed out.
    HedgeTooLate,
    /// A bulkhead inside a hedge with too few permits for all the attempts of one call.
    HedgeExceedsBulkhead,
    /// A retry inside a circuit breaker.
    BreakerOutsideRetry,
    /// A hedge inside a circuit breaker.
    BreakerOutsideHedge,
    /// A circuit breaker with all timeouts outside of it.
    BreakerOutsideTimeout,
    /// A call is slow only after a timeout has ended it.
    UnreachableSlowCall,
    /// A queue inside a circuit breaker.
    QueueInsideBreaker,
    /// A queue's wait is longer than an attempt may take.
    QueueExceedsTimeout,
    /// A retry inside a bulkhead.
    BulkheadOutsideRetry,
    /// A bulkhead with a limit of zero.
    ClosedBulkhead,
    /// An asynchronous fallback inside a timeout that may have used up its time.
    FallbackInsideTimeout,
    /// A fallback inside of something that fails without it, or repeats without seeing what it answers.
    FallbackNotOutermost,
    /// Faults are injected on purpose.
    #[cfg(feature = "chaos")]
    ChaosEnabled,
    /// Faults are injected outside of a layer that is to withstand them.
    #[cfg(feature = "chaos")]
    ChaosNotInnermost,
}

impl WarningKind {
    /// The kind in snake case: `"no_timeout"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoTimeout => "no_timeout",
            Self::NoTotalTimeout => "no_total_timeout",
            Self::NoAttemptTimeout => "no_attempt_timeout",
            Self::NoClassifier => "no_classifier",
            Self::NoBudget => "no_budget",
            Self::UselessBudget => "useless_budget",
            Self::RetriesExceedTimeout => "retries_exceed_timeout",
            Self::UselessMaxElapsed => "useless_max_elapsed",
            Self::SingleAttemptRetry => "single_attempt_retry",
            Self::NestedRetries => "nested_retries",
            Self::NestedHedges => "nested_hedges",
            Self::HedgeOutsideRetry => "hedge_outside_retry",
            Self::HedgeTooLate => "hedge_too_late",
            Self::HedgeExceedsBulkhead => "hedge_exceeds_bulkhead",
            Self::BreakerOutsideRetry => "breaker_outside_retry",
            Self::BreakerOutsideHedge => "breaker_outside_hedge",
            Self::BreakerOutsideTimeout => "breaker_outside_timeout",
            Self::UnreachableSlowCall => "unreachable_slow_call",
            Self::QueueInsideBreaker => "queue_inside_breaker",
            Self::QueueExceedsTimeout => "queue_exceeds_timeout",
            Self::BulkheadOutsideRetry => "bulkhead_outside_retry",
            Self::ClosedBulkhead => "closed_bulkhead",
            Self::FallbackInsideTimeout => "fallback_inside_timeout",
            Self::FallbackNotOutermost => "fallback_not_outermost",
            #[cfg(feature = "chaos")]
            Self::ChaosEnabled => "chaos_enabled",
            #[cfg(feature = "chaos")]
            Self::ChaosNotInnermost => "chaos_not_innermost",
        }
    }
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
