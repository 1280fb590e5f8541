//! The words in which events say how something ended, and why.

/// How a public call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// The dependency answered.
    Success,
    /// It failed and may recover, or was not reached.
    Transient,
    /// It asked for less.
    Throttled,
    /// It failed.
    Failure,
    /// The outcome says nothing about the dependency.
    Ignored,
    /// A policy refused the call.
    Rejected,
    /// A timeout or a deadline ended it.
    Timeout,
    /// A fallback answered.
    Fallback,
    /// The caller dropped it.
    Cancelled,
    /// It panicked.
    Panicked,
}

impl CallOutcome {
    /// The outcome in lower case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Fallback => "fallback",
            Self::Cancelled => "cancelled",
            Self::Panicked => "panicked",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptEnd {
    /// The operation gave a result.
    Completed,
    /// Another attempt of the same call won the race.
    Superseded,
    /// The caller, or a policy of the user's own, dropped it.
    Cancelled,
    /// A timeout or a deadline ended it.
    TimedOut,
    /// The operation panicked.
    Panicked,
}

impl AttemptEnd {
    /// The end in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
        }
    }
}

/// Why a retry gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryStop {
    /// All attempts are made.
    Attempts,
    /// The next one would begin after the longest time for all of them.
    Elapsed,
    /// The next one would begin after the deadline, or too shortly before it.
    Deadline,
    /// The budget is empty.
    Budget,
    /// The operation is not idempotent and may have been carried out, or its request is used up and there is no other.
    NotIdempotent,
    /// The repeat was itself refused in this process.
    Rejected,
    /// The user's own backoff said so.
    Backoff,
}

impl RetryStop {
    /// The reason in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Elapsed => "elapsed",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
            Self::NotIdempotent => "not_idempotent",
            Self::Rejected => "rejected",
            Self::Backoff => "backoff",
        }
    }
}

/// What set a hedge off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HedgeTrigger {
    /// The attempts before it took too long.
    Delay,
    /// An attempt before it failed.
    Failure,
    /// A delay of zero: all at once.
    Parallel,
}

impl HedgeTrigger {
    /// The trigger in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Failure => "failure",
            Self::Parallel => "parallel",
        }
    }
}

/// Why a hedge did not begin, or was refused on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HedgeSuppression {
    /// The budget is empty.
    Budget,
    /// A circuit breaker inside is not closed.
    Circuit,
    /// A bulkhead inside has no free permit.
    Bulkhead,
    /// Another policy inside refused it.
    Rejected,
    /// The deadline has passed.
    Deadline,
    /// The dependency asked for less.
    Throttled,
    /// There are too few samples to know when to hedge, and there is no starting delay.
    NoSamples,
    /// The operation is not idempotent, or its request is used up and there is no other.
    NotIdempotent,
    /// This process stood still; the attempt was not slow.
    Stalled,
}

impl HedgeSuppression {
    /// The reason in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Circuit => "circuit",
            Self::Bulkhead => "bulkhead",
            Self::Rejected => "rejected",
            Self::Deadline => "deadline",
            Self::Throttled => "throttled",
            Self::NoSamples => "no_samples",
            Self::NotIdempotent => "not_idempotent",
            Self::Stalled => "stalled",
        }
    }
}

/// How a wait in a queue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitEnd {
    /// With a permit.
    Admitted,
    /// The longest wait was over.
    QueueTimeout,
    /// The deadline passed.
    Deadline,
    /// The call was dropped.
    Cancelled,
}

impl WaitEnd {
    /// The end in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::QueueTimeout => "queue_timeout",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a fallback ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FallbackEnd {
    /// With a value.
    Ok,
    /// With an error of its own.
    Error,
    /// It declined; the outcome passed on unchanged.
    Declined,
    /// It took longer than its own limit; the outcome passed on unchanged.
    TimedOut,
}

impl FallbackEnd {
    /// The end in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Declined => "declined",
            Self::TimedOut => "timed_out",
        }
    }
}

/// What a [`Chaos`](crate::Chaos) injects.
#[cfg(feature = "chaos")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The answer is held back for a time.
    Latency,
    /// An error in the place of the operation.
    Error,
    /// An outcome in the place of the operation.
    Outcome,
    /// Nothing in the place of the operation, for ever.
    Hang,
    /// A panic in the place of the operation.
    Panic,
}

#[cfg(feature = "chaos")]
impl Fault {
    /// The fault in lower case, as the builder's method is called and as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Error => "error",
            Self::Outcome => "outcome",
            Self::Hang => "hang",
            Self::Panic => "panic",
        }
    }
}
