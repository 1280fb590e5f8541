//! The transitions between states, all of them made under one lock.

use std::{num::NonZeroU64, time::Duration};

use super::{
    Circuit,
    evidence::{Cause, Finished},
    half_open::{Phase, Verdict},
    report::{Change, ClosedBy, LEASE, Recorded, Refusal, State, Trigger},
    settings::Settings,
    word::{Mode, Word},
};
use crate::engine::{
    moment::Moment,
    sync::{MutexGuard, Ordering},
    window::Tally,
};

/// What the lock guards: all that the closed path does not need to know.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) phase: Phase,
    pub(super) reopenings: u32,
    /// Start, length and end of the current break, or of the last one while half-open.
    opened_at: Moment,
    open_for: Duration,
    until: Moment,
    /// When it was last closed, and what ended that.
    left_closed_at: Moment,
    pub(super) cause: Option<Cause>,
    /// How many have isolated the circuit and not released it.
    handles: u32,
    /// The random number for the next break. Drawn in advance, so that looking at a state foretells what happens.
    draw: f64,
    pub(super) settings: Settings,
}

impl Control {
    pub(super) fn new(settings: Settings, draw: f64) -> Self {
        let start = Moment::from_nanos(0);
        Self {
            phase: Phase::new(settings.probes, settings.close_after),
            reopenings: 0,
            opened_at: start,
            open_for: settings.open_for,
            until: start,
            left_closed_at: start,
            cause: None,
            handles: 0,
            draw,
            settings,
        }
    }

    fn break_length(&self, reopenings: u32) -> Duration {
        self.settings.break_length(reopenings, self.draw)
    }

    /// Forgets the probes and their results. The next phase is as the settings of now say.
    fn restart(&mut self) {
        self.phase.restart(self.settings.probes, self.settings.close_after);
    }

    /// State and end of the break as time has made them, whether or not a call has noticed.
    pub(super) fn view(&self, mode: Mode, now: Moment) -> (State, Option<Moment>) {
        let until = match mode {
            Mode::Closed => return (State::Closed, None),
            Mode::Isolated => return (State::Isolated, None),
            Mode::Open => self.until,
            Mode::HalfOpen => self
                .phase
                .failed_by_leases(now)
                .map_or(self.until, |at| at.after(self.break_length(self.reopenings.saturating_add(1)))),
        };
        let state = if now < until { State::Open { retry_after: until.since(now) } } else { State::HalfOpen };
        (state, Some(until))
    }

    /// When time alone will make the state another one.
    pub(super) fn next_change(&self, mode: Mode, now: Moment) -> Moment {
        match self.view(mode, now) {
            (State::Open { .. }, Some(until)) => until,
            (State::HalfOpen, _) => self.phase.fails_by_leases().filter(|end| *end > now).unwrap_or(Moment::NEVER),
            _ => Moment::NEVER,
        }
    }
}

/// The circuit with its lock held, and where to note what changes.
pub(super) struct Locked<'a> {
    pub(super) circuit: &'a Circuit,
    pub(super) control: MutexGuard<'a, Control>,
    pub(super) changes: &'a mut Vec<Change>,
}

impl Locked<'_> {
    pub(super) fn word(&self) -> Word {
        // Relaxed: written only by holders of the lock.
        Word(self.circuit.word.load(Ordering::Relaxed))
    }

    /// Admits a call to a circuit that was not closed a moment ago: the generation it belongs to, and its probe.
    pub(super) fn admit(&mut self, now: Moment, may_probe: bool) -> Result<(u32, Option<NonZeroU64>), Refusal> {
        if may_probe {
            self.settle(now);
            self.end_break(now);
        }
        let word = self.word();
        match word.mode() {
            Mode::Closed => Ok((word.generation(), None)),
            Mode::HalfOpen if may_probe => self.send_probe(now).map(|id| (word.generation(), id)),
            _ => Err(self.refusal(now)),
        }
    }

    /// Counts the result of a probe, unless its phase is over or its lease has run out.
    pub(super) fn finish_probe(
        &mut self,
        generation: u32,
        id: NonZeroU64,
        finished: Finished,
        now: Moment,
    ) -> Recorded {
        self.settle(now);
        if self.word().generation() != generation || !self.control.phase.take_back(id) {
            return Recorded::Stale;
        }
        let too_slow = finished.outcome.slow && self.control.settings.slow_rate.is_some();
        let success = !finished.outcome.failure && !too_slow;
        let verdict = self.control.phase.count(success);
        self.changes.push(Change::ProbeFinished {
            success,
            successes: self.control.phase.successes(),
            needed: self.control.phase.needed(),
        });
        match verdict {
            Verdict::Undecided => self.set_gate(),
            Verdict::Passed => self.close(now, ClosedBy::Probes),
            Verdict::Failed => {
                let cause = Cause::new(Trigger::Probe, self.phase_tally(), finished);
                self.open(now, cause);
            }
        }
        Recorded::Counted
    }

    /// Frees the place of a probe that ended without a result.
    pub(super) fn abandon_probe(&mut self, generation: u32, id: NonZeroU64) {
        if self.word().generation() == generation && self.control.phase.take_back(id) {
            self.set_gate();
        }
    }

    /// Counts probes whose lease has run out as failed. What follows from it follows from the moment a lease ended,
    /// not from the moment somebody noticed: else a circuit at rest would tell another story than a busy one.
    pub(super) fn settle(&mut self, now: Moment) {
        if self.word().mode() != Mode::HalfOpen {
            return;
        }
        while let Some(probe) = self.control.phase.take_expired(now) {
            self.changes.push(Change::ProbeExpired { lease: probe.lease });
            if self.control.phase.count(false) == Verdict::Failed {
                let cause = Cause { trigger: Trigger::Lease, tally: self.phase_tally(), label: LEASE };
                return self.open(probe.end, cause);
            }
        }
        self.set_gate();
    }

    /// Opens at `start`, for longer if this is a reopening.
    pub(super) fn open(&mut self, start: Moment, cause: Cause) {
        let mode = self.word().mode();
        let circuit = self.circuit;
        let control = &mut *self.control;
        if mode == Mode::Closed {
            control.left_closed_at = start;
            control.cause = Some(cause);
            control.reopenings = 0;
        } else {
            control.reopenings = control.reopenings.saturating_add(1);
        }
        control.open_for = control.break_length(control.reopenings);
        control.draw = circuit.rng.uniform();
        control.opened_at = start;
        control.until = start.after(control.open_for);
        control.restart();
        let change = Change::Opened {
            trigger: cause.trigger,
            failure_rate: cause.tally.failure_rate(),
            slow_rate: cause.tally.slow_rate(),
            calls: u64::from(cause.tally.calls),
            open_for: control.open_for,
            reopenings: control.reopenings,
            label: cause.label,
        };
        self.enter(Mode::Open);
        self.changes.push(change);
    }

    /// Holds the circuit open until as many releases follow.
    pub(super) fn isolate(&mut self, now: Moment) -> u32 {
        let mode = self.word().mode();
        self.control.handles = self.control.handles.saturating_add(1);
        if mode == Mode::Closed {
            self.control.left_closed_at = now;
        }
        if mode != Mode::Isolated {
            self.control.restart();
            self.enter(Mode::Isolated);
        }
        let handles = self.control.handles;
        self.changes.push(Change::Isolated { handles });
        self.word().generation()
    }

    /// Takes one isolation back. The last one closes; one that a reset has ended changes nothing.
    pub(super) fn release(&mut self, isolation: u32, now: Moment) {
        let word = self.word();
        if word.mode() != Mode::Isolated || word.generation() != isolation {
            return;
        }
        let handles = self.control.handles.saturating_sub(1);
        self.control.handles = handles;
        self.changes.push(Change::Released { handles });
        if handles == 0 {
            self.close(now, ClosedBy::Release);
        }
    }

    /// Closes with empty windows.
    pub(super) fn reset(&mut self, now: Moment) {
        match self.word().mode() {
            // No transition to tell of, but a new generation: calls that are under way belong to the past.
            Mode::Closed => self.enter(Mode::Closed),
            Mode::Open | Mode::HalfOpen | Mode::Isolated => self.close(now, ClosedBy::Reset),
        }
    }

    fn close(&mut self, now: Moment, by: ClosedBy) {
        self.control.reopenings = 0;
        self.control.restart();
        self.control.cause = None;
        self.control.handles = 0;
        self.enter(Mode::Closed);
        let open_time = now.since(self.control.left_closed_at);
        self.changes.push(Change::Closed { by, open_time });
    }

    /// Half-opens if the break has ended.
    fn end_break(&mut self, now: Moment) {
        if self.word().mode() == Mode::Open && now >= self.control.until {
            self.control.restart();
            self.enter(Mode::HalfOpen);
            let open_for_real = now.since(self.control.opened_at);
            self.changes.push(Change::HalfOpened { open_for_real });
        }
    }

    fn send_probe(&mut self, now: Moment) -> Result<Option<NonZeroU64>, Refusal> {
        // Relaxed: a number that orders nothing else; a probe gets the old lease or the new one.
        let lease = Duration::from_nanos(self.circuit.lease.load(Ordering::Relaxed));
        let probe = self.control.phase.admit(now, lease);
        self.set_gate();
        probe.map(Some).ok_or_else(|| self.refusal(now))
    }

    /// Why a call is turned away at `now`, without changing anything.
    fn refusal(&self, now: Moment) -> Refusal {
        let mode = self.word().mode();
        match self.control.view(mode, now).0 {
            State::Isolated => Refusal::Isolated,
            State::Open { retry_after } => Refusal::Open { retry_after: retry_after.into() },
            State::Closed | State::HalfOpen => Refusal::HalfOpen {
                retry_after: self.control.phase.gate().since(now).min(self.control.settings.open_for).into(),
            },
        }
    }

    fn phase_tally(&self) -> Tally {
        let phase = &self.control.phase;
        Tally { calls: phase.successes().saturating_add(phase.failures()), failures: phase.failures(), slow: 0 }
    }

    /// Shows the lock-free path whether the half-open phase has room.
    fn set_gate(&self) {
        // Relaxed: a gate seen too late refuses a call for an instant longer, or sends it to the lock, which knows.
        let gate = self.control.phase.gate().nanos();
        self.circuit.lease_end.store(gate, Ordering::Relaxed);
    }

    /// Makes a transition: everything that belongs to the new generation first, then the word that announces it.
    fn enter(&mut self, mode: Mode) {
        let word = self.word().next(mode);
        let circuit = self.circuit;
        if mode == Mode::Closed {
            circuit.evidence.begin(word.generation());
        }
        // Relaxed, because the release below publishes them with the word.
        circuit.break_end.store(self.control.until.nanos(), Ordering::Relaxed);
        circuit.lease_end.store(0, Ordering::Relaxed);
        // Release: who sees the word sees its windows emptied and its gates set.
        circuit.word.store(word.0, Ordering::Release);
    }
}
