//! When a policy refused.

use std::{error::Error as StdError, fmt, time::Duration};

use crate::{engine::moment::Hint, name::Name};

/// A refusal: which policy, why, and when to come back.
///
/// Policies that are given no name go by their kind, the same in all pipelines: log the pipeline's
/// [`name`](crate::Pipeline::name) beside the error, or name the policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    policy: Name,
    reason: Reason,
    retry_after: Hint,
}

impl Rejection {
    /// A refusal by the policy of that name. For policies of one's own; ours make theirs.
    #[must_use]
    #[inline(always)]
    pub fn new(policy: impl Into<Name>, reason: Reason) -> Self {
        Self { policy: policy.into(), reason, retry_after: Hint::NONE }
    }

    /// The same refusal with a time after which to come back.
    #[must_use]
    #[inline(always)]
    pub fn with_retry_after(self, after: impl Into<Option<Duration>>) -> Self {
        self.with_hint(after.into().into())
    }

    #[inline(always)]
    pub(crate) fn with_hint(mut self, hint: Hint) -> Self {
        self.retry_after = hint;
        self
    }

    /// The name of the policy that refused.
    #[must_use]
    pub fn policy(&self) -> &Name {
        &self.policy
    }

    pub(crate) fn into_policy(self) -> Name {
        self.policy
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// When to come back, where it is known.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after.get()
    }

    pub(crate) const fn hint(&self) -> Hint {
        self.retry_after
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected by {}: {}", self.policy, self.reason)?;
        match self.retry_after() {
            Some(after) => write!(f, ", retry after {after:?}"),
            None => Ok(()),
        }
    }
}

impl StdError for Rejection {}

/// Why a policy refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The circuit is open: the dependency failed too often of late.
    CircuitOpen,
    /// The circuit is half-open and its probes are all taken; or this was a hedge, which is never a probe.
    CircuitHalfOpen,
    /// An operator holds the circuit open.
    Isolated,
    /// No permit is free, and no place in the queue.
    BulkheadFull,
    /// A place in the queue, but no permit within the longest wait.
    QueueTimeout,
    /// A rate limit is used up.
    RateLimited,
    /// Shed to protect this process from overload.
    Shed,
    /// What can be attempted only once, such as a single future, was asked for a second attempt.
    AlreadyAttempted,
    /// A reason of a user's own policy.
    Custom(&'static str),
}

impl Reason {
    /// The reason in snake case, as telemetry has it: `"circuit_open"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit_open",
            Self::CircuitHalfOpen => "circuit_half_open",
            Self::Isolated => "isolated",
            Self::BulkheadFull => "bulkhead_full",
            Self::QueueTimeout => "queue_timeout",
            Self::RateLimited => "rate_limited",
            Self::Shed => "shed",
            Self::AlreadyAttempted => "already_attempted",
            Self::Custom(reason) => reason,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CircuitOpen => "the circuit is open",
            Self::CircuitHalfOpen => "the circuit is half-open and its probes are taken",
            Self::Isolated => "the circuit is isolated by hand",
            Self::BulkheadFull => "no permit is free",
            Self::QueueTimeout => "no permit came free within the longest wait",
            Self::RateLimited => "the rate limit is used up",
            Self::Shed => "shed to protect this process",
            Self::AlreadyAttempted => "what can be attempted once was attempted already",
            Self::Custom(reason) => reason,
        })
    }
}
