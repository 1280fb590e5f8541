//! Through what a pipeline and its policies report.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    Event, EventKind, Observer, PolicyId,
    observer::{is_enabled, tell},
};
#[cfg(feature = "tracing")]
use super::{Spans, observer::caught};
use crate::name::Name;

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
