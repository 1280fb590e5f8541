//! What can happen, with its facts.

use std::time::Duration;

#[cfg(feature = "chaos")]
use super::Fault;
use super::{
    AttemptEnd, CallOutcome, ClosedBy, FallbackEnd, HedgeSuppression, HedgeTrigger, Level, RetryStop, Trigger, WaitEnd,
};
use crate::{
    context::{Context, Idempotency, Priority},
    error::{Phase, Reason, Rejection, Scope},
    name::Name,
    outcome::VerdictKind,
};

/// What happened, in the past tense.
///
/// The level in brackets is the one that fits a log: [`level`](Self::level).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A public call began (trace).
    #[non_exhaustive]
    CallStarted {
        /// The time until the caller's own deadline, or that of what the call is made in.
        deadline_left: Option<Duration>,
        /// Whether the operation may be repeated freely.
        idempotency: Idempotency,
        /// How much the call matters.
        priority: Priority,
    },
    /// A public call ended, in whatever way; exactly one for each that was polled at all (debug).
    #[non_exhaustive]
    CallFinished {
        /// How it ended.
        outcome: CallOutcome,
        /// Whether the caller got an `Ok`; none if it went away.
        ok: Option<bool>,
        /// Why a policy rejected it, if one did.
        reason: Option<Reason>,
        /// The name of that policy.
        rejected_by: Option<Name>,
        /// The label of the last outcome.
        label: &'static str,
        /// Whether a retry gave up on it.
        spent: bool,
        /// How many attempts reached the operation, hedges included.
        attempts: u32,
        /// How many of them were hedges.
        hedges: u32,
        /// Which hedge gave the outcome: 0 for the primary.
        winner: u32,
        /// From the first poll to the end.
        duration: Duration,
    },
    /// An attempt reached the operation (trace).
    #[non_exhaustive]
    AttemptStarted {
        /// The number of the attempt; the first is 1.
        attempt: u32,
        /// The index of the hedge; the primary is 0.
        hedge: u32,
    },
    /// An attempt ended (debug).
    #[non_exhaustive]
    AttemptFinished {
        /// The number of the attempt; the first is 1.
        attempt: u32,
        /// The index of the hedge; the primary is 0.
        hedge: u32,
        /// The verdict; none if the attempt did not complete.
        verdict: Option<VerdictKind>,
        /// The label; that of the end if the attempt did not complete.
        label: &'static str,
        /// From the start of the operation.
        duration: Duration,
        /// Whether it was a circuit breaker's probe.
        probe: bool,
        /// How it ended.
        end: AttemptEnd,
    },
    /// A retry will make another attempt (warn).
    #[non_exhaustive]
    Retried {
        /// The number of that attempt.
        next_attempt: u32,
        /// The wait before it.
        delay: Duration,
        /// What the dependency asked for.
        hint: Option<Duration>,
        /// Whether the hint was longer than the retry obeys.
        clamped: bool,
    },
    /// A retry gave up on an outcome that it would have repeated (warn).
    #[non_exhaustive]
    RetryStopped {
        /// Why.
        why: RetryStop,
        /// The attempts made.
        attempts: u32,
    },
    /// A hedge began (info).
    #[non_exhaustive]
    Hedged {
        /// Its index; the first is 1.
        hedge: u32,
        /// The delay it waited for.
        delay: Duration,
        /// What set it off.
        trigger: HedgeTrigger,
    },
    /// A hedge did not begin, or was refused on its way (debug). Not told of a call whose first attempt succeeds at once.
    #[non_exhaustive]
    HedgeSuppressed {
        /// Why.
        why: HedgeSuppression,
    },
    /// A timeout or a deadline ended what it limits (warn).
    #[non_exhaustive]
    TimedOut {
        /// What was limited.
        scope: Scope,
        /// What it was doing.
        phase: Phase,
        /// The limit.
        limit: Duration,
        /// The time it took.
        elapsed: Duration,
        /// How late the timer was.
        late_by: Duration,
    },
    /// A policy refused a call (warn).
    #[non_exhaustive]
    Rejected {
        /// Why.
        reason: Reason,
        /// When to come back, if that is known.
        retry_after: Option<Duration>,
        /// The number of the attempt that was refused.
        attempt: u32,
        /// The index of the hedge that was refused.
        hedge: u32,
    },
    /// A circuit opened (error the first time, then warn).
    #[non_exhaustive]
    Opened {
        /// What opened it.
        trigger: Trigger,
        /// The share of failures in the window.
        failure_rate: f64,
        /// The share of slow calls in the window.
        slow_rate: f64,
        /// The calls in the window.
        calls: u64,
        /// How long it stays open.
        open_for: Duration,
        /// How often it has opened again since it was last closed.
        reopenings: u32,
        /// The label of the failure that opened it, or of the last one if a success did by filling the window up to
        /// `min_calls`; `slow` if slow successes did.
        label: &'static str,
    },
    /// A circuit became half-open: the break is over and a first probe was admitted (info).
    #[non_exhaustive]
    HalfOpened {
        /// How long it was open.
        open_time: Duration,
    },
    /// A probe ended with a result that counts (info).
    #[non_exhaustive]
    ProbeFinished {
        /// Whether it succeeded.
        passed: bool,
        /// How many probes have succeeded.
        successes: u32,
        /// How many are needed to close.
        needed: u32,
    },
    /// A probe did not end within its lease, which is a failure (warn).
    #[non_exhaustive]
    ProbeExpired {
        /// The lease.
        lease: Duration,
    },
    /// A circuit closed (info).
    #[non_exhaustive]
    Closed {
        /// By what.
        by: ClosedBy,
        /// How long it was not closed.
        open_time: Duration,
    },
    /// A circuit was isolated by hand (warn).
    #[non_exhaustive]
    Isolated {
        /// How many handles hold it now.
        handles: u32,
    },
    /// A handle that isolates a circuit was released (warn).
    #[non_exhaustive]
    Released {
        /// How many handles hold it still.
        handles: u32,
    },
    /// A call waited in a queue (debug).
    #[non_exhaustive]
    Waited {
        /// How long.
        waited: Duration,
        /// How many were in the queue when it came, itself included.
        depth: usize,
        /// How the wait ended.
        end: WaitEnd,
    },
    /// A budget refused for the first time since it was last well filled (warn).
    #[non_exhaustive]
    BudgetEmptied {
        /// The tokens left; a fraction of one.
        balance: f64,
        /// The most it holds.
        cap: u32,
    },
    /// A budget that was empty is half full again (info).
    #[non_exhaustive]
    BudgetRefilled {
        /// The tokens in it.
        balance: f64,
        /// The most it holds.
        cap: u32,
    },
    /// A fallback took over (warn).
    #[non_exhaustive]
    FellBack {
        /// The verdict on the outcome it was asked to replace.
        original: VerdictKind,
        /// Why that was rejected, if it was.
        reason: Option<Reason>,
        /// How the fallback ended.
        end: FallbackEnd,
        /// How long it took.
        duration: Duration,
    },
    /// A timer fired so late that this process must have stood still (error; at most one a second).
    #[non_exhaustive]
    RuntimeStalled {
        /// How late.
        late_by: Duration,
    },
    /// The limit of a bulkhead was changed at run time, by hand or by an update (info).
    #[non_exhaustive]
    LimitChanged {
        /// The limit before.
        old: usize,
        /// The limit now.
        new: usize,
    },
    /// A setting was changed at run time, by an update; that of a limit is told as
    /// [`LimitChanged`](Self::LimitChanged) too, which has it as a number (info).
    #[non_exhaustive]
    Reconfigured {
        /// The setting, as the builder's method is called.
        field: &'static str,
        /// The value before.
        old: String,
        /// The value now.
        new: String,
    },
    /// A fault was injected on purpose (warn).
    #[cfg(feature = "chaos")]
    #[non_exhaustive]
    ChaosInjected {
        /// Which.
        fault: Fault,
        /// How long the answer is held back; none for faults other than latency.
        latency: Option<Duration>,
        /// The number of the attempt.
        attempt: u32,
        /// The index of the hedge; the primary is 0.
        hedge: u32,
    },
    /// The injection of faults was switched on or off (warn).
    #[cfg(feature = "chaos")]
    #[non_exhaustive]
    ChaosSwitched {
        /// Whether faults are injected from now on.
        on: bool,
    },
    /// A key found no place for an instance of its own among those of a [`Keyed`](crate::Keyed), and shares one with
    /// others; the first of a run that ends when this has not happened for a second (warn).
    #[cfg(feature = "keyed")]
    #[non_exhaustive]
    Overflowed {
        /// How many keys have one, and keep it.
        capacity: usize,
    },
    /// The factory of a [`Keyed`](crate::Keyed) failed to make the instance of a key, which shares one with others; the
    /// first of a run that ends when this has not happened for a second (error).
    #[cfg(feature = "keyed")]
    #[non_exhaustive]
    InstanceFailed {
        /// What it said.
        error: crate::error::ConfigError,
    },
    /// Something that a user's own policy reports (info).
    Custom(&'static str),
}

impl EventKind {
    pub(crate) fn rejected(rejection: &Rejection, cx: Context<'_>) -> Self {
        let (reason, retry_after) = (rejection.reason(), rejection.retry_after());
        Self::Rejected { reason, retry_after, attempt: cx.attempt(), hedge: cx.hedge() }
    }

    /// The level that fits a log.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::CallStarted { .. } | Self::AttemptStarted { .. } => Level::Trace,
            Self::CallFinished { .. }
            | Self::AttemptFinished { .. }
            | Self::HedgeSuppressed { .. }
            | Self::Waited { .. } => Level::Debug,
            Self::Hedged { .. }
            | Self::HalfOpened { .. }
            | Self::ProbeFinished { .. }
            | Self::Closed { .. }
            | Self::BudgetRefilled { .. }
            | Self::LimitChanged { .. }
            | Self::Reconfigured { .. }
            | Self::Custom(_) => Level::Info,
            Self::Opened { reopenings: 0, .. } | Self::RuntimeStalled { .. } => Level::Error,
            Self::Retried { .. }
            | Self::RetryStopped { .. }
            | Self::TimedOut { .. }
            | Self::Rejected { .. }
            | Self::Opened { .. }
            | Self::ProbeExpired { .. }
            | Self::Isolated { .. }
            | Self::Released { .. }
            | Self::BudgetEmptied { .. }
            | Self::FellBack { .. } => Level::Warn,
            #[cfg(feature = "chaos")]
            Self::ChaosInjected { .. } | Self::ChaosSwitched { .. } => Level::Warn,
            #[cfg(feature = "keyed")]
            Self::Overflowed { .. } => Level::Warn,
            #[cfg(feature = "keyed")]
            Self::InstanceFailed { .. } => Level::Error,
        }
    }
}
