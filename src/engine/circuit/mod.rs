//! A circuit breaker without its policy: closed, open, half-open or isolated.
//!
//! ```text
//!              a rate or a run of failures reaches its threshold
//!   +--------+ ------------------------------------------------> +------+
//!   | closed |                                                   | open | <-+
//!   +--------+ <-- enough probes succeed -- +-----------+ <----- +------+   |
//!                                           | half-open |   first call at   |
//!                                           +-----------+   or after the    |
//!                                                 |         break's end     |
//!                                                 +-- too many probes fail -+
//!
//!   any --- isolate ---> isolated --- last release ---> closed          open, half-open --- reset ---> closed
//! ```
//!
//! **Generations.** Every transition, and every reset, starts a new generation. A [`Ticket`] carries the one in which
//! its call was admitted, and a result of an earlier generation changes nothing.
//!
//! **What takes the lock.** Nothing while the circuit is closed and nothing trips: admission reads one word, and
//! recording changes the counters of [`window`](crate::engine::window). Nothing while it is open or half-open and full:
//! a second word, a gate, holds the moment before which no call can be admitted. All else happens under one mutex, in
//! [`transitions`], which runs no foreign code: not the caller's clock, and not its observers, who learn of the changes
//! from a list that the caller hands out after the lock is gone.
//!
//! **Time** is whatever the caller says. Threads may bring their readings out of order by the time between reading the
//! clock and using it; that moves an effect by as much and breaks nothing.

mod evidence;
mod half_open;
mod report;
mod settings;
mod transitions;
mod word;

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod reference;
#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests;

use std::{fmt, num::NonZeroU64, sync::PoisonError, time::Duration};

pub(crate) use report::{Change, Refusal, Snapshot, State};
pub use report::{ClosedBy, Opening, Recorded, Trigger};
#[cfg(all(test, not(any(model_loom, model_shuttle))))]
pub(crate) use report::{LEASE, SLOW};
pub(crate) use settings::{MAX_PROBES, Settings};

use super::{
    moment::{self, Moment},
    rng::Rng,
    sync::{AtomicU64, Mutex, Ordering},
    tuned::Tuned,
    window::Stale,
};
use evidence::{Cause, Evidence, Finished, Reading};
use transitions::{Control, Locked};
use word::{Mode, Word};

/// The state machine.
///
/// # Memory ordering
///
/// `word` is stored with release under the lock and loaded with acquire: who learns a generation sees its windows
/// emptied and its gates set. The gates are relaxed: they are hints for refusing early, and a refusal that rests on a
/// value a moment old is one that was right a moment ago.
#[derive(Debug)]
pub(crate) struct Circuit {
    word: AtomicU64,
    /// Open: the end of the break. A gate: before this moment no call can be admitted.
    break_end: AtomicU64,
    /// Half-open: the gate of that state, when the first lease ends; 0 while there is room. Each state has a gate of
    /// its own, so that who read the word just before a transition does not take the one for the other.
    lease_end: AtomicU64,
    /// How long a probe may be out, in nanoseconds.
    lease: AtomicU64,
    evidence: Evidence,
    control: Mutex<Control>,
    /// A copy of the setting, for those who are refused without the lock.
    open_for: Tuned<Duration>,
    rng: Rng,
}

impl Circuit {
    /// A closed circuit with empty windows.
    pub(crate) fn new(settings: Settings, rng: Rng) -> Self {
        let settings = settings.within_limits();
        Self {
            word: AtomicU64::new(Word::new(Mode::Closed, 0).0),
            break_end: AtomicU64::new(0),
            lease_end: AtomicU64::new(0),
            lease: AtomicU64::new(moment::nanos(settings.lease)),
            evidence: Evidence::new(&settings),
            open_for: Tuned::new(settings.open_for),
            control: Mutex::new(Control::new(settings, rng.uniform())),
            rng,
        }
    }

    /// Admits a call in the usual case.
    #[inline(always)]
    pub(crate) fn admit_if_closed(&self) -> Option<Ticket<'_>> {
        let word = self.load();
        (word.mode() == Mode::Closed).then(|| self.ticket(word.generation(), None))
    }

    /// Asks to make a call. `now` is read only if the circuit is not closed. A call that may not probe (a hedge) is
    /// refused by a circuit that is not closed, and changes nothing.
    #[inline]
    pub(crate) fn admit(
        &self,
        now: impl FnOnce() -> Moment,
        may_probe: bool,
        changes: &mut Vec<Change>,
    ) -> Result<Ticket<'_>, Refusal> {
        let word = self.load();
        match word.mode() {
            Mode::Closed => Ok(self.ticket(word.generation(), None)),
            Mode::Isolated => Err(Refusal::Isolated),
            mode @ (Mode::Open | Mode::HalfOpen) => self.admit_unless_closed(mode, now(), may_probe, changes),
        }
    }

    #[cold]
    fn admit_unless_closed(
        &self,
        mode: Mode,
        now: Moment,
        may_probe: bool,
        changes: &mut Vec<Change>,
    ) -> Result<Ticket<'_>, Refusal> {
        self.refuse_at_gate(mode, now)?;
        let (generation, probe) = self.lock(changes).admit(now, may_probe)?;
        Ok(self.ticket(generation, probe))
    }

    /// How long probes admitted from now on may be out.
    pub(crate) fn set_lease(&self, lease: Duration) {
        // Relaxed: a number that orders nothing else.
        self.lease.store(moment::nanos(lease), Ordering::Relaxed);
    }

    /// Changes the thresholds, the breaks to come and the half-open phases to come. Windows, their sizes, counts and state
    /// stay.
    #[cfg(feature = "serde")]
    pub(crate) fn set(&self, settings: Settings) {
        let settings = settings.within_limits();
        self.evidence.set(&settings);
        self.open_for.set(settings.open_for);
        self.lock(&mut Vec::new()).control.settings = settings;
    }

    /// Refuses every call until released as often as isolated, or reset. Gives the generation to release.
    pub(crate) fn isolate(&self, now: Moment, changes: &mut Vec<Change>) -> u32 {
        self.lock(changes).isolate(now)
    }

    /// Takes one [`isolate`](Self::isolate) of that generation back; the last one closes the circuit, with empty windows.
    /// One from before a reset changes nothing: the circuit may have been isolated again by others.
    pub(crate) fn release(&self, isolation: u32, now: Moment, changes: &mut Vec<Change>) {
        self.lock(changes).release(isolation, now);
    }

    /// Closes the circuit, with empty windows; calls under way are forgotten, and so is who isolated it.
    pub(crate) fn reset(&self, now: Moment, changes: &mut Vec<Change>) {
        self.lock(changes).reset(now);
    }

    /// Notices probes whose lease has run out, as admission does, for owners who do not want to wait for a call.
    pub(crate) fn settle(&self, now: Moment, changes: &mut Vec<Change>) {
        self.lock(changes).settle(now);
    }

    /// Grows, wrapping, with every transition and every reset.
    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        self.load().generation()
    }

    /// The state at `now`. Looking changes nothing.
    pub(crate) fn state(&self, now: Moment) -> State {
        match self.load().mode() {
            Mode::Closed => State::Closed,
            Mode::Isolated => State::Isolated,
            Mode::Open | Mode::HalfOpen => self.snapshot(now).state,
        }
    }

    /// When time alone will make the state of `now` another one, if nothing happens before that and no probe is sent.
    pub(crate) fn next_change(&self, now: Moment) -> Moment {
        let mut none = Vec::new();
        let locked = self.lock(&mut none);
        locked.control.next_change(locked.word().mode(), now)
    }

    /// All there is to see at `now`. Looking changes nothing: a lease that has run out shows in `state` and
    /// `open_until` at once, and in the numbers of probes when it is noticed (see [`settle`](Self::settle)).
    pub(crate) fn snapshot(&self, now: Moment) -> Snapshot {
        let mut none = Vec::new();
        let locked = self.lock(&mut none);
        let word = locked.word();
        let control = &*locked.control;
        let (state, open_until) = control.view(word.mode(), now);
        let (tally, known, consecutive_failures) = self.evidence.view(word.generation(), now);
        Snapshot {
            state,
            generation: word.generation(),
            open_until,
            calls: tally.calls,
            failures: tally.failures,
            slow: tally.slow,
            failure_rate: known.then(|| tally.failure_rate()),
            slow_rate: known.then(|| tally.slow_rate()),
            consecutive_failures,
            probes_in_flight: control.phase.in_flight(),
            probe_successes: control.phase.successes(),
            probe_failures: control.phase.failures(),
            reopenings: control.reopenings,
            opening: control.cause.map(Opening::from),
        }
    }

    #[inline]
    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    #[inline]
    fn ticket(&self, generation: u32, probe: Option<NonZeroU64>) -> Ticket<'_> {
        Ticket { circuit: self, generation, probe }
    }

    /// The refusal that needs no lock.
    fn refuse_at_gate(&self, mode: Mode, now: Moment) -> Result<(), Refusal> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let gate = match mode {
            Mode::Open => load(&self.break_end),
            _ => load(&self.lease_end),
        };
        let gate = Moment::from_nanos(gate);
        if now >= gate {
            return Ok(());
        }
        Err(match mode {
            Mode::Open => Refusal::Open { retry_after: gate.hint_since(now) },
            _ => Refusal::HalfOpen { retry_after: gate.since(now).min(self.open_for.get()).into() },
        })
    }

    fn lock<'a>(&'a self, changes: &'a mut Vec<Change>) -> Locked<'a> {
        Locked {
            circuit: self,
            // Nothing under the lock panics, so a poisoned lock guards a sound state.
            control: self.control.lock().unwrap_or_else(PoisonError::into_inner),
            changes,
        }
    }

    /// Takes in the result of a call that was admitted by the closed circuit of `generation`.
    #[inline(always)]
    fn record(
        &self,
        generation: u32,
        finished: Finished,
        now: impl FnOnce() -> Moment,
        changes: &mut Vec<Change>,
    ) -> Recorded {
        match self.count(generation, finished, now) {
            Err(Stale) => return Recorded::Stale,
            Ok(None) => {}
            Ok(Some(trip)) => self.trip(&trip, changes),
        }
        Recorded::Counted
    }

    #[inline(always)]
    fn count(&self, generation: u32, finished: Finished, now: impl FnOnce() -> Moment) -> Result<Option<Trip>, Stale> {
        if self.generation() != generation {
            return Err(Stale);
        }
        let mut now = Reading::new(now);
        let cause = self.evidence.record(generation, finished, &mut now)?;
        Ok(cause.map(|cause| Trip { generation, cause, now: now.get() }))
    }

    #[cold]
    fn trip(&self, trip: &Trip, changes: &mut Vec<Change>) {
        let mut locked = self.lock(changes);
        // Of several results that reach a threshold at once, the first one here makes the transition.
        if locked.word().generation() == trip.generation {
            locked.open(trip.now, trip.cause);
        }
    }

    #[cold]
    fn finish_probe(
        &self,
        generation: u32,
        id: NonZeroU64,
        finished: Finished,
        now: impl FnOnce() -> Moment,
        changes: &mut Vec<Change>,
    ) -> Recorded {
        if self.generation() != generation {
            return Recorded::Stale;
        }
        let now = now();
        self.lock(changes).finish_probe(generation, id, finished, now)
    }
}

/// A result that has reached a threshold.
pub(crate) struct Trip {
    generation: u32,
    cause: Cause,
    now: Moment,
}

/// An admitted call. It ends as a success, as a failure, or abandoned: dropped, which records nothing and, if it was
/// a probe, lets another one take its place.
#[must_use = "a dropped ticket is an abandoned call"]
pub(crate) struct Ticket<'a> {
    circuit: &'a Circuit,
    generation: u32,
    probe: Option<NonZeroU64>,
}

impl Ticket<'_> {
    /// Whether this call helps to decide if the circuit closes.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    #[cfg(all(test, not(model_loom)))]
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Counts a success of a call that was no probe. What follows from it, if anything does, is left to
    /// [`trip`](Self::trip), so that the caller can put its things in order first.
    #[inline(always)]
    pub(crate) fn count_success(&self, slow: bool, now: impl FnOnce() -> Moment) -> Option<Trip> {
        self.circuit.count(self.generation, Finished::success(slow), now).unwrap_or(None)
    }

    /// Whether this was no probe, and to count a success that was not slow would change nothing: the usual case without a
    /// time window. Such a ticket has nothing to give back.
    #[inline(always)]
    pub(crate) fn success_changes_nothing(&self) -> bool {
        let (circuit, generation) = (self.circuit, self.generation);
        !self.is_probe() && circuit.generation() == generation && circuit.evidence.success_changes_nothing(generation)
    }

    #[cold]
    pub(crate) fn trip(self, trip: &Trip, changes: &mut Vec<Change>) {
        self.circuit.trip(trip, changes);
    }

    /// The call succeeded. `now` is read only if something needs the time.
    pub(crate) fn success(self, slow: bool, now: impl FnOnce() -> Moment, changes: &mut Vec<Change>) -> Recorded {
        self.finish(Finished::success(slow), now, changes)
    }

    /// The call was given up when it had been slow already. Whether it would have failed is not known: a run of failures
    /// neither ends nor grows.
    #[cold]
    pub(crate) fn given_up_slow(self, now: impl FnOnce() -> Moment, changes: &mut Vec<Change>) -> Recorded {
        self.finish(Finished::given_up(), now, changes)
    }

    /// The call failed; `label` says how, for the report of an opening.
    #[inline(always)]
    pub(crate) fn failure(
        self,
        slow: bool,
        label: &'static str,
        now: impl FnOnce() -> Moment,
        changes: &mut Vec<Change>,
    ) -> Recorded {
        self.finish(Finished::failure(slow, label), now, changes)
    }

    #[inline(always)]
    fn finish(mut self, finished: Finished, now: impl FnOnce() -> Moment, changes: &mut Vec<Change>) -> Recorded {
        let (circuit, generation) = (self.circuit, self.generation);
        match self.probe {
            None => circuit.record(generation, finished, now, changes),
            Some(id) => {
                let recorded = circuit.finish_probe(generation, id, finished, now, changes);
                // Only now: had the caller's clock panicked, the probe would have been abandoned.
                self.probe = None;
                recorded
            }
        }
    }
}

impl Ticket<'_> {
    /// The call ended without a result. The same as dropping the ticket, but leases are looked at first: a probe that is
    /// given up after its lease has failed, whether or not somebody has noticed that.
    #[inline]
    pub(crate) fn abandon(self, now: impl FnOnce() -> Moment, changes: &mut Vec<Change>) {
        if self.is_probe() && self.circuit.generation() == self.generation {
            self.circuit.settle(now(), changes);
        }
    }

    #[cold]
    fn give_back(&self, probe: NonZeroU64) {
        if self.circuit.generation() == self.generation {
            self.circuit.lock(&mut Vec::new()).abandon_probe(self.generation, probe);
        }
    }
}

impl Drop for Ticket<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(probe) = self.probe {
            self.give_back(probe);
        }
    }
}

impl fmt::Debug for Ticket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("generation", &self.generation)
            .field("probe", &self.probe)
            .finish_non_exhaustive()
    }
}
