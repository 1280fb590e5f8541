//! The hook: what policies report, and to whom.

mod kinds;
mod observer;
mod telemetry;
mod words;

use std::fmt;

pub use kinds::EventKind;
#[cfg(feature = "tracing")]
pub use observer::Spans;
pub use observer::{Observer, Observers};
pub(crate) use telemetry::{Listeners, SharedTelemetry, Telemetry};
#[cfg(feature = "chaos")]
pub use words::Fault;
pub use words::{AttemptEnd, CallOutcome, FallbackEnd, HedgeSuppression, HedgeTrigger, RetryStop, WaitEnd};

pub use crate::engine::circuit::{ClosedBy, Trigger};
use crate::{error::ConfigError, name::Name};

/// A policy's kind and name, as events and errors have them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyId {
    pub(crate) kind: Kind,
    pub(crate) name: Name,
}

impl PolicyId {
    /// Of a policy of one's own.
    #[must_use]
    pub fn custom(name: impl Into<Name>) -> Self {
        Self { kind: Kind::Custom, name: name.into() }
    }

    /// Of a policy that was given a name, or else gets the default one.
    pub(crate) fn new(kind: Kind, given: Option<Name>, default: Name) -> Result<Self, ConfigError> {
        let name = given.unwrap_or(default);
        if name.as_str().trim().is_empty() {
            let error = ConfigError::new("name", format_args!("{name:?}"), "a name that is not blank");
            return Err(error.in_policy(&Name::new(kind.as_str())));
        }
        Ok(Self { kind, name })
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }
}

/// The kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// [`Timeout`](crate::Timeout)
    Timeout,
    /// [`Retry`](crate::Retry)
    Retry,
    /// [`CircuitBreaker`](crate::CircuitBreaker)
    CircuitBreaker,
    /// [`Bulkhead`](crate::Bulkhead)
    Bulkhead,
    /// [`Hedge`](crate::Hedge)
    Hedge,
    /// [`Fallback`](crate::Fallback)
    Fallback,
    /// [`Chaos`](crate::Chaos)
    #[cfg(feature = "chaos")]
    Chaos,
    /// [`Keyed`](crate::Keyed)
    #[cfg(feature = "keyed")]
    Keyed,
    /// A policy of the user's own.
    Custom,
}

impl Kind {
    /// The kind in snake case: `"circuit_breaker"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Retry => "retry",
            Self::CircuitBreaker => "circuit_breaker",
            Self::Bulkhead => "bulkhead",
            Self::Hedge => "hedge",
            Self::Fallback => "fallback",
            #[cfg(feature = "chaos")]
            Self::Chaos => "chaos",
            #[cfg(feature = "keyed")]
            Self::Keyed => "keyed",
            Self::Custom => "custom",
        }
    }
}

impl From<Kind> for Name {
    fn from(kind: Kind) -> Self {
        Self::new(kind.as_str())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that happened, and where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The pipeline's name; none for a policy that is used alone.
    pub pipeline: Option<&'a Name>,
    /// The policy that reports; none for what a call or an attempt as such reports.
    pub policy: Option<&'a PolicyId>,
    /// What happened.
    pub kind: EventKind,
}

impl<'a> Event<'a> {
    /// The most telling name there is: the policy's, else the pipeline's.
    #[must_use]
    pub fn source(&self) -> &'a str {
        match (self.policy, self.pipeline) {
            (Some(policy), _) => policy.name.as_str(),
            (None, Some(pipeline)) => pipeline.as_str(),
            (None, None) => "call",
        }
    }

    /// The level that fits a log: at [`Level::Info`] and above a call that succeeds says nothing.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.kind.level()
    }
}

/// How much an event matters, from what every call does to what somebody should look at.
///
/// ```
/// use withstand::{Event, Level, Pipeline};
///
/// let users = Pipeline::builder("users-api").observer(|event: &Event<'_>| {
///     if event.level() >= Level::Info {
///         eprintln!("{event}");
///     }
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The beginning of each call and each attempt.
    Trace,
    /// The end of each call and each attempt, waits in queues, hedges that did not begin.
    Debug,
    /// A change of state for the better, and hedges.
    Info,
    /// Retries, rejections, timeouts, fallbacks, empty budgets.
    Warn,
    /// A circuit that opens, and a process that stands still.
    Error,
}

/// One line for a log: `users-api/retry: Retried { next_attempt: 2, delay: 31ms, .. }`.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pipeline) = self.pipeline {
            write!(f, "{pipeline}")?;
        }
        if let Some(policy) = self.policy {
            write!(f, "{}{}", if self.pipeline.is_some() { "/" } else { "" }, policy.name)?;
        }
        if self.pipeline.is_some() || self.policy.is_some() {
            f.write_str(": ")?;
        }
        write!(f, "{:?}", self.kind)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
