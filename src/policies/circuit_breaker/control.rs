//! A circuit breaker by hand: admission without wrapping, isolation, reset, subscription.

use std::{fmt, future::Future, sync::Arc};

use tokio::{sync::watch, time::timeout_at};

use super::{CircuitBreaker, Shared};
use crate::{
    clock::{self, instant_of},
    engine::{
        circuit::{self, Recorded},
        moment::Moment,
    },
    error::Rejection,
    layer::Live,
    outcome::{Verdict, VerdictKind},
    snapshot::CircuitState,
};

impl CircuitBreaker {
    /// Asks to make a call, without wrapping it: for calls that are no futures, or whose result is known elsewhere.
    ///
    /// ```
    /// use withstand::{CircuitBreaker, Verdict};
    ///
    /// let breaker = CircuitBreaker::builder().build()?;
    /// match breaker.admit() {
    ///     Err(rejection) => println!("not now: {rejection}"),
    ///     Ok(ticket) => match std::fs::metadata("/mnt/share") {
    ///         Ok(_) => { ticket.success(); }
    ///         Err(_) => { ticket.failure("io"); }
    ///     },
    /// }
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the circuit is open or isolated, or half-open with all its probes taken.
    pub fn admit(&self) -> Result<Ticket<'_>, Rejection> {
        let mut changes = Vec::new();
        let admission = self.shared.circuit.admit(clock::now, true, &mut changes);
        self.shared.tell(&changes);
        match admission {
            Ok(ticket) => {
                self.shared.sent(&ticket);
                let started = self.shared.slow_call.get().map(|_| clock::now());
                Ok(Ticket { breaker: self, admission: Some(ticket), started })
            }
            Err(refusal) => Err(self.rejection(refusal)),
        }
    }

    /// Refuses every call until the handle is dropped or released, or the circuit [reset](Self::reset). Handles nest: the
    /// last one closes the circuit, with an empty window.
    pub fn isolate(&self) -> Isolation {
        Isolation::of(&self.shared)
    }

    /// Closes the circuit, with an empty window, whatever its state; calls under way no longer count. Handles that had
    /// isolated it are void: they release nothing any more.
    pub fn reset(&self) {
        Live::reset(&*self.shared);
    }

    /// Hears of changes of the state, those by time alone included.
    #[must_use]
    pub fn subscribe(&self) -> StateChanges {
        StateChanges { wake: self.shared.changed.subscribe(), seen: self.state(), shared: Arc::clone(&self.shared) }
    }
}

/// Leave to make one call. Dropped, it is abandoned: nothing is recorded, and a probe's slot is free again.
#[must_use = "a ticket that is dropped records nothing"]
pub struct Ticket<'a> {
    breaker: &'a CircuitBreaker,
    /// None once the result is recorded.
    admission: Option<circuit::Ticket<'a>>,
    /// When the call began; only kept if slow calls are watched.
    started: Option<Moment>,
}

impl Ticket<'_> {
    /// Whether the call is a probe of a half-open circuit.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.admission.as_ref().is_some_and(circuit::Ticket::is_probe)
    }

    /// The call succeeded. It counts as slow if that is watched and it took long enough since its admission.
    #[expect(clippy::must_use_candidate, reason = "most callers have no use for the answer")]
    pub fn success(self) -> Recorded {
        self.end(|ticket, slow, changes| ticket.success(slow, clock::now, changes))
    }

    /// The call failed. The label is told by the event if this failure opens the circuit.
    #[expect(clippy::must_use_candidate, reason = "most callers have no use for the answer")]
    pub fn failure(self, label: &'static str) -> Recorded {
        self.end(|ticket, slow, changes| ticket.failure(slow, label, clock::now, changes))
    }

    /// The call ended with this verdict; one that says nothing about the dependency abandons the ticket.
    #[expect(clippy::must_use_candidate, reason = "most callers have no use for the answer")]
    pub fn record(self, verdict: Verdict) -> Option<Recorded> {
        match verdict.kind() {
            VerdictKind::Success => Some(self.success()),
            kind @ (VerdictKind::Transient | VerdictKind::Unreached | VerdictKind::Failure) => {
                Some(self.failure(kind.as_str()))
            }
            VerdictKind::Throttled | VerdictKind::Ignored | VerdictKind::Rejected => None,
        }
    }

    fn end(
        mut self,
        record: impl FnOnce(circuit::Ticket<'_>, bool, &mut Vec<circuit::Change>) -> Recorded,
    ) -> Recorded {
        let shared = &self.breaker.shared;
        let elapsed = self.started.map(|started| clock::now().since(started));
        let slow = elapsed.zip(shared.slow_call.get()).is_some_and(|(elapsed, slow_call)| elapsed >= slow_call);
        let mut changes = Vec::new();
        let recorded = self.admission.take().map(|ticket| record(ticket, slow, &mut changes));
        shared.tell(&changes);
        recorded.unwrap_or(Recorded::Stale)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.admission.take() else { return };
        let mut changes = Vec::new();
        ticket.abandon(clock::now, &mut changes);
        self.breaker.shared.tell(&changes);
    }
}

impl fmt::Debug for Ticket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("breaker", &self.breaker.shared.id.name)
            .field("probe", &self.is_probe())
            .finish()
    }
}

/// Holds a circuit open by hand, until it is dropped or released.
#[must_use = "a handle that is dropped releases the circuit at once"]
pub struct Isolation {
    shared: Arc<Shared>,
    generation: u32,
}

impl Isolation {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        let mut changes = Vec::new();
        let generation = shared.circuit.isolate(clock::now(), &mut changes);
        shared.tell(&changes);
        Self { shared: Arc::clone(shared), generation }
    }

    /// The same as dropping it, in a word.
    pub fn release(self) {}
}

impl Drop for Isolation {
    fn drop(&mut self) {
        let mut changes = Vec::new();
        self.shared.circuit.release(self.generation, clock::now(), &mut changes);
        self.shared.tell(&changes);
    }
}

impl fmt::Debug for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolation").field("breaker", &self.shared.id.name).finish_non_exhaustive()
    }
}

/// Hears of changes of a circuit's state. See [`CircuitBreaker::subscribe`].
pub struct StateChanges {
    wake: watch::Receiver<()>,
    seen: CircuitState,
    shared: Arc<Shared>,
}

impl StateChanges {
    /// Waits until the state is another than the last one seen here, and gives it. The end of a break is such a change.
    /// States that come and go between two calls are not seen.
    ///
    /// # Cancel safety
    ///
    /// No change is lost by dropping the future.
    pub fn changed(&mut self) -> impl Future<Output = CircuitState> + Send {
        async move {
            loop {
                // Before the state is read, so that a change after the reading wakes the wait.
                self.wake.mark_unchanged();
                let now = clock::now();
                let state = CircuitState::from(self.shared.circuit.state(now));
                if state.as_str() != self.seen.as_str() {
                    self.seen = state;
                    return state;
                }
                let until = self.shared.circuit.next_change(now);
                // Woken or out of time: either way the state is read again. The sender lives in `shared`.
                let change = self.wake.changed();
                let _woken = match instant_of(until) {
                    Some(until) => timeout_at(until, change).await.is_ok(),
                    None => change.await.is_ok(),
                };
            }
        }
    }
}

impl fmt::Debug for StateChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateChanges")
            .field("breaker", &self.shared.id.name)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}
