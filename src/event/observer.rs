//! Who hears what happens.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::Event;

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

pub(super) fn tell(observer: &dyn Observer, event: &Event<'_>) {
    let _panicked = caught(|| observer.on_event(event));
}

/// One that cannot say is told.
pub(super) fn is_enabled(observer: &dyn Observer) -> bool {
    caught(|| observer.is_enabled()).unwrap_or(true)
}

/// An observer that panics must not take the call with it, least of all out of a `Drop`, where that would abort.
pub(super) fn caught<R>(asked: impl FnOnce() -> R) -> Option<R> {
    let payload = match catch_unwind(AssertUnwindSafe(asked)) {
        Ok(answer) => return Some(answer),
        Err(payload) => payload,
    };
    // What a payload's own drop panics with may do so as well: to leak that is the only safe way to be rid of it.
    let _dropped = catch_unwind(AssertUnwindSafe(|| drop(payload))).map_err(std::mem::forget);
    None
}
