//! The hook: what policies report, and to whom.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

pub use crate::engine::circuit::{ClosedBy, Trigger};
use crate::{
    context::{Idempotency, Priority},
    error::{ConfigError, Phase, Reason, Scope},
    name::Name,
    outcome::VerdictKind,
};

/// Hears what happens in a pipeline: the one hook for telemetry.
///
/// Any `Fn(&Event)` is an observer; a closure names the type of its argument, as below, or rustc calls it "not general
/// enough". It is called in the middle of a call, so it should be quick and must not block. A
/// panic in it is caught and changes nothing for the call. With no observer an event costs one branch.
///
/// ```
/// use withstand::{Event, EventKind, Pipeline, Retry};
///
/// let users = Pipeline::builder("users-api")
///     .retry(Retry::builder())
///     .observer(|event: &Event<'_>| {
///         if let EventKind::Retried { delay, .. } = event.kind {
///             println!("{}: again in {delay:?}", event.source());
///         }
///     })
///     .build()?;
/// # Ok::<(), withstand::ConfigError>(())
/// ```
pub trait Observer: Send + Sync {
    /// Something happened.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Several observers as one: each hears every event, in order, and a panic in one does not keep it from the others.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
/// use withstand::{Event, Observers, Pipeline};
///
/// let heard = Arc::new(AtomicU32::new(0));
/// let count = heard.clone();
/// let observers = Observers::new()
///     .with(|event: &Event<'_>| println!("{event}"))
///     .with(move |_: &Event<'_>| { count.fetch_add(1, Ordering::Relaxed); });
/// let pipeline = Pipeline::builder("users-api").observer(observers);
/// ```
#[derive(Default)]
pub struct Observers(Vec<Box<dyn Observer>>);

impl Observers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more.
    #[must_use]
    pub fn with(mut self, observer: impl Observer + 'static) -> Self {
        self.0.push(Box::new(observer));
        self
    }
}

impl Observer for Observers {
    fn on_event(&self, event: &Event<'_>) {
        for observer in &self.0 {
            tell(&**observer, event);
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observers").field(&self.0.len()).finish()
    }
}

/// An observer that panics must not take the call with it, least of all out of a `Drop`, where that would abort.
#[expect(
    clippy::mem_forget,
    reason = "a payload's own Drop may panic as well; leaking it is the only safe way to be rid of it"
)]
fn tell(observer: &dyn Observer, event: &Event<'_>) {
    let _panicked = catch_unwind(AssertUnwindSafe(|| observer.on_event(event))).map_err(|payload| {
        std::mem::forget(payload);
    });
}

/// The pipeline's name and its observer: what events are reported through.
pub(crate) struct Telemetry {
    pub(crate) pipeline: Option<Name>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Telemetry {
    /// Of a policy that is used alone.
    pub(crate) const SILENT: &'static Self = &Self { pipeline: None, observer: None };

    /// Of a pipeline without an observer that is part of another: under its own name to the observer of that.
    pub(crate) fn relayed(&self, outer: &Self) -> Option<Self> {
        let observer = outer.observer.as_ref().filter(|_| self.observer.is_none())?;
        Some(Self { pipeline: self.pipeline.clone(), observer: Some(observer.clone()) })
    }

    #[inline]
    pub(crate) fn emit(&self, source: Option<&PolicyId>, kind: impl FnOnce() -> EventKind) {
        if let Some(observer) = &self.observer {
            self.tell(&**observer, source, kind());
        }
    }

    #[cold]
    fn tell(&self, observer: &dyn Observer, policy: Option<&PolicyId>, kind: EventKind) {
        tell(observer, &Event { pipeline: self.pipeline.as_ref(), policy, kind });
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("pipeline", &self.pipeline)
            .field("observed", &self.observer.is_some())
            .finish()
    }
}

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

/// What happened, in the past tense.
///
/// The level in brackets is the one that fits a log: [`level`](Self::level).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A public call began (trace).
    #[non_exhaustive]
    CallStarted {
        /// The time until the caller's own deadline.
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
        /// Why it was rejected, if it was.
        reason: Option<Reason>,
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
    /// A hedge did not begin, or was refused on its way (debug).
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
        /// The label of the failure that opened it; empty if a success did, by filling the window up to `min_calls`.
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
    /// A limit was changed at run time (info).
    #[non_exhaustive]
    LimitChanged {
        /// The limit before.
        old: usize,
        /// The limit now.
        new: usize,
    },
    /// Something that a user's own policy reports (info).
    Custom(&'static str),
}

impl EventKind {
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
        }
    }
}

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
    /// The operation is not idempotent and may have been carried out.
    NotIdempotent,
    /// The repeat was itself refused in this process.
    Rejected,
    /// The user's own backoff said so.
    Backoff,
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
    /// The operation is not idempotent.
    NotIdempotent,
    /// This process stood still; the attempt was not slow.
    Stalled,
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

/// A pipeline's telemetry, shared with the stateful policies that are part of it.
pub(crate) type SharedTelemetry = Arc<Telemetry>;

/// The pipelines that a stateful policy is part of: told of what no call caused, such as a reset by hand.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<Vec<Weak<Telemetry>>>);

impl Listeners {
    pub(crate) fn add(&self, telemetry: &SharedTelemetry) {
        if telemetry.observer.is_some() {
            let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Pipelines that are gone make room, so that a policy which outlives many of them stays small.
            listeners.retain(|listener| listener.strong_count() > 0);
            listeners.push(Arc::downgrade(telemetry));
        }
    }

    pub(crate) fn tell(&self, policy: &PolicyId, kind: &EventKind) {
        // Cloned, so that an observer which calls back into the policy finds no lock held.
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for telemetry in listeners.iter().filter_map(Weak::upgrade) {
            telemetry.emit(Some(policy), || kind.clone());
        }
    }
}
