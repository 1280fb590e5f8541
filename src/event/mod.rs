//! The hook: what policies report, and to whom.

mod kinds;
mod words;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, Weak},
};

pub use kinds::EventKind;
#[cfg(feature = "chaos")]
pub use words::Fault;
pub use words::{AttemptEnd, CallOutcome, FallbackEnd, HedgeSuppression, HedgeTrigger, RetryStop, WaitEnd};

pub use crate::engine::circuit::{ClosedBy, Trigger};
use crate::{error::ConfigError, name::Name};

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

    /// Whether anybody hears it at the moment. A call asks once, when it begins: of one that nobody hears then, nothing is
    /// reported, and it costs about as much as one without an observer. So this must be quick. Default: yes.
    ///
    /// For an observer whose backend may be switched off or not be there yet:
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicBool, Ordering::Relaxed}};
    /// use withstand::{Event, Observer, Pipeline};
    ///
    /// struct Debugging(Arc<AtomicBool>);
    /// impl Observer for Debugging {
    ///     fn on_event(&self, event: &Event<'_>) {
    ///         println!("{event}");
    ///     }
    ///     fn is_enabled(&self) -> bool {
    ///         self.0.load(Relaxed)
    ///     }
    /// }
    ///
    /// let switch = Arc::new(AtomicBool::new(false));
    /// let users = Pipeline::standard("users-api").observer(Debugging(switch.clone())).build()?;
    /// switch.store(true, Relaxed); // from the next call on
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    fn is_enabled(&self) -> bool {
        true
    }

    /// Which spans of `tracing` calls and attempts are to have. Asked when a call begins. Default: none. An observer that
    /// wraps a [`TracingObserver`](crate::TracingObserver) passes on what that says.
    #[cfg(feature = "tracing")]
    fn spans(&self) -> Spans {
        Spans::None
    }
}

impl<F: Fn(&Event<'_>) + Send + Sync> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Which spans of `tracing` an observer wants: see [`Observer::spans`].
#[cfg(feature = "tracing")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Spans {
    /// None.
    #[default]
    None,
    /// `withstand.call`, one for each call.
    Calls,
    /// Also `withstand.attempt`, one for each attempt, inside that of its call.
    CallsAndAttempts,
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

    /// Whether anybody hears any of them.
    fn is_enabled(&self) -> bool {
        self.0.iter().any(|observer| observer.is_enabled())
    }

    /// All that any of them wants.
    #[cfg(feature = "tracing")]
    fn spans(&self) -> Spans {
        self.0.iter().map(|observer| observer.spans()).max().unwrap_or_default()
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observers").field(&self.0.len()).finish()
    }
}

fn tell(observer: &dyn Observer, event: &Event<'_>) {
    let _panicked = caught(|| observer.on_event(event));
}

/// One that cannot say is told.
fn is_enabled(observer: &dyn Observer) -> bool {
    caught(|| observer.is_enabled()).unwrap_or(true)
}

/// An observer that panics must not take the call with it, least of all out of a `Drop`, where that would abort.
fn caught<R>(asked: impl FnOnce() -> R) -> Option<R> {
    let payload = match catch_unwind(AssertUnwindSafe(asked)) {
        Ok(answer) => return Some(answer),
        Err(payload) => payload,
    };
    // What a payload's own drop panics with may do so as well: to leak that is the only safe way to be rid of it.
    let _dropped = catch_unwind(AssertUnwindSafe(|| drop(payload))).map_err(std::mem::forget);
    None
}

/// The pipeline's name and its observer: what events are reported through.
pub(crate) struct Telemetry {
    pub(crate) pipeline: Option<Name>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// The same without the observer, for calls that nobody hears.
    unheard: Option<Box<Telemetry>>,
}

impl Telemetry {
    /// Of a policy that is used alone.
    pub(crate) const SILENT: &'static Self = &Self { pipeline: None, observer: None, unheard: None };

    pub(crate) fn new(pipeline: Option<Name>, observer: Option<Arc<dyn Observer>>) -> Self {
        let unheard = Self { pipeline: pipeline.clone(), observer: None, unheard: None };
        let unheard = observer.is_some().then(|| Box::new(unheard));
        Self { pipeline, observer, unheard }
    }

    /// What a call reports through: nobody's observer, if nobody hears it now. So whoever listens hears all of a call or
    /// nothing, and where nobody does, an event costs as much as without an observer.
    #[inline(always)]
    pub(crate) fn now(&self) -> &Self {
        if self.observer.is_some() { self.asked() } else { self }
    }

    #[cold]
    fn asked(&self) -> &Self {
        match (&self.observer, &self.unheard) {
            (Some(observer), Some(unheard)) if !is_enabled(&**observer) => unheard,
            _ => self,
        }
    }

    /// The spans that are wanted for a call that begins now.
    #[cfg(feature = "tracing")]
    pub(crate) fn spans(&self) -> Spans {
        self.observer.as_deref().and_then(|observer| caught(|| observer.spans())).unwrap_or_default()
    }

    /// Of a pipeline without an observer that is part of another: under its own name to the observer of that.
    pub(crate) fn relayed(&self, outer: &Self) -> Option<Self> {
        let observer = outer.observer.as_ref().filter(|_| self.observer.is_none())?;
        Some(Self { pipeline: self.pipeline.clone(), observer: Some(observer.clone()), unheard: None })
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
            .finish_non_exhaustive()
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
            telemetry.now().emit(Some(policy), || kind.clone());
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
