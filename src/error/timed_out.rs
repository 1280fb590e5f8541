//! When the time was up.

use std::{error::Error as StdError, fmt, time::Duration};

/// A timeout or a deadline that ended a call: which, and what the call was doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedOut {
    pub(crate) limit: Duration,
    pub(crate) scope: Scope,
    pub(crate) phase: Phase,
    pub(crate) attempts: u32,
}

impl StdError for TimedOut {}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, scope, phase, attempts } = self;
        write!(f, "timed out: the {scope} limit of {limit:?} passed during {phase}{}", Made(*scope, *attempts))
    }
}

struct Made(Scope, u32);

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What one attempt's own limit has seen is one attempt, however many there were before.
            Self(Scope::Attempt, _) => Ok(()),
            Self(_, 0) => f.write_str(" (no attempt made)"),
            Self(_, 1) => f.write_str(" (1 attempt made)"),
            Self(_, n) => write!(f, " ({n} attempts made)"),
        }
    }
}

impl TimedOut {
    /// How long it was allowed to take. For a deadline given by the caller: the time that was left when the call began.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// What was limited: the whole call, one attempt, or the caller's own deadline.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// What the call was doing when the time was up.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// How many attempts had reached the operation within this limit: for that of the whole call or of the caller's
    /// deadline all that were made, for that of one attempt at most the one that it ended, whichever it was.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// What a timeout limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// The whole call: a timeout that is inside no retry and no hedge.
    Total,
    /// One attempt: a timeout inside a retry or a hedge.
    Attempt,
    /// The caller's own deadline, from [`CallOptions::deadline`](crate::CallOptions::deadline), or that of what the call
    /// was made in: an operation of another call, a `Deadline::scope` (feature `deadlines`).
    Deadline,
}

impl Scope {
    /// The word in lower case: `"total"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Attempt => "attempt",
            Self::Deadline => "deadline",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a call was doing when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing yet: the deadline had passed at entry, or a policy of the user's own held the call.
    Entry,
    /// Waiting in a queue.
    Queue,
    /// Waiting between two attempts.
    Backoff,
    /// The operation was running.
    Attempt,
    /// An asynchronous fallback was running.
    Fallback,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Entry, Self::Queue, Self::Backoff, Self::Attempt, Self::Fallback];

    /// The phase as a number that fits an atomic.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Entry => 0,
            Self::Queue => 1,
            Self::Backoff => 2,
            Self::Attempt => 3,
            Self::Fallback => 4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|phase| phase.code() == code).unwrap_or(Self::Entry)
    }

    /// The word in lower case: `"queue"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Queue => "queue",
            Self::Backoff => "backoff",
            Self::Attempt => "attempt",
            Self::Fallback => "fallback",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "entry",
            Self::Queue => "the wait in a queue",
            Self::Backoff => "the backoff between attempts",
            Self::Attempt => "an attempt",
            Self::Fallback => "the fallback",
        })
    }
}
