//! The attempts of one race: which run, which have ended how, and when the next one begins.

use std::time::Duration;

use super::{MAX_HINT, Shared};
use crate::{
    budget::Token,
    clock,
    context::{Context, Idempotency},
    engine::moment::Moment,
    error::{Error, Reason},
    event::{EventKind, HedgeSuppression, HedgeTrigger},
    outcome::{Outcome, VerdictKind},
    timed::{Late, STALL},
};

/// What is to be done next.
pub(super) enum Next<T, E> {
    Done(Outcome<T, E>),
    Wait,
    Hedge { due: Moment, trigger: HedgeTrigger },
}

/// Which attempts run, which have ended how, and when the next one begins.
pub(super) struct Race<'a, T, E> {
    hedge: &'a Shared,
    cx: Context<'a>,
    pub(super) first_runs: bool,
    pub(super) hedges_run: u32,
    hedges_begun: u32,
    /// No further hedge begins.
    stopped: bool,
    /// When the latest attempt began; the first one begins when it reaches the operation.
    latest: Option<Moment>,
    /// The delay before the next hedge, and whether it was asked for.
    delay: Option<Duration>,
    asked: bool,
    /// An attempt has failed: the next hedge begins at this moment, whatever the delay.
    failure_due: Option<Moment>,
    /// The largest hint of the attempts that failed.
    hint: Option<Duration>,
    /// What the next hedge has paid already.
    paid: Option<Token<'a>>,
    /// How the first attempt ended, if it did not win.
    first: Option<Outcome<T, E>>,
    pub(super) winner: Option<Outcome<T, E>>,
}

impl<'a, T, E> Race<'a, T, E> {
    #[inline(always)]
    pub(super) fn new(hedge: &'a Shared, cx: Context<'a>) -> Self {
        Self {
            hedge,
            cx,
            first_runs: true,
            hedges_run: 0,
            hedges_begun: 0,
            stopped: false,
            latest: None,
            delay: None,
            asked: false,
            failure_due: None,
            hint: None,
            paid: None,
            first: None,
            winner: None,
        }
    }

    /// Looks whether there can be a hedge at all.
    pub(super) fn begin(&mut self) {
        if self.cx.idempotency() == Idempotency::Unsafe {
            self.stop(HedgeSuppression::NotIdempotent);
        } else if self.hedge.delay.lacks_samples() {
            self.stop(HedgeSuppression::NoSamples);
        }
    }

    fn stop(&mut self, why: HedgeSuppression) {
        self.stopped = true;
        self.suppress(why);
    }

    fn suppress(&self, why: HedgeSuppression) {
        self.cx.emit(&self.hedge.id, || EventKind::HedgeSuppressed { why });
    }

    /// From here on its time counts: not from its admission, which may have taken a wait in a queue.
    pub(super) fn first_reached_operation(&mut self) {
        if self.latest.is_none() {
            self.latest = Some(self.cx.moment());
        }
    }

    /// An attempt has ended.
    pub(super) fn end(&mut self, index: u32, outcome: Outcome<T, E>) {
        let is_first = index == self.cx.hedge();
        match outcome.kind() {
            VerdictKind::Success | VerdictKind::Failure | VerdictKind::Ignored => {
                self.cx.state().won(index);
                self.winner = Some(outcome);
                return;
            }
            VerdictKind::Rejected if is_first => self.stopped = true,
            VerdictKind::Rejected => return self.suppress(refused_by(&outcome)),
            VerdictKind::Throttled => self.stop(HedgeSuppression::Throttled),
            VerdictKind::Transient | VerdictKind::Unreached if outcome.is_stalled() => {
                self.suppress(HedgeSuppression::Stalled);
            }
            VerdictKind::Transient | VerdictKind::Unreached => {
                let hint = outcome.verdict().hint().unwrap_or_default().min(MAX_HINT);
                // A hint stands even if another attempt fails without one.
                self.failure_due = self.failure_due.max(Some(self.cx.moment().after(hint)));
            }
        }
        self.hint = self.hint.max(outcome.verdict().hint());
        if is_first {
            self.first = Some(outcome);
        }
    }

    pub(super) fn next(&mut self) -> Next<T, E> {
        if let Some(winner) = self.winner.take() {
            return Next::Done(winner);
        }
        let running = self.first_runs || self.hedges_run > 0;
        match self.due() {
            // With nothing under way a wait makes sense only if a failure asks for it, time is left, and it can be paid.
            Some((due, trigger)) if running || (self.is_worth_waiting(due, trigger) && self.pay()) => {
                Next::Hedge { due, trigger }
            }
            _ if running => Next::Wait,
            _ => match self.first.take() {
                Some(first) => Next::Done(first.hinted(self.hint)),
                None => Next::Wait,
            },
        }
    }

    fn is_worth_waiting(&self, due: Moment, trigger: HedgeTrigger) -> bool {
        trigger == HedgeTrigger::Failure && due < self.cx.deadline_moment()
    }

    /// When the next hedge begins, if there is one to come.
    fn due(&mut self) -> Option<(Moment, HedgeTrigger)> {
        if self.stopped || self.hedges_begun >= self.hedge.max_hedges.get() {
            return None;
        }
        if self.cx.is_used_up() {
            self.stop(HedgeSuppression::NotIdempotent);
            return None;
        }
        if let Some(due) = self.failure_due {
            return Some((due, HedgeTrigger::Failure));
        }
        if !std::mem::replace(&mut self.asked, true) {
            self.delay = self.hedge.delay.before(self.hedges_begun.saturating_add(1));
        }
        let delay = self.delay?;
        if delay.is_zero() {
            return Some((self.cx.moment(), HedgeTrigger::Parallel));
        }
        Some((self.latest?.after(delay), HedgeTrigger::Delay))
    }

    /// Whether the timer was so late that this process must have stood still: then the attempt was not slow, and its time
    /// begins anew.
    pub(super) fn stalled(&mut self, due: Moment) -> bool {
        let now = clock::now();
        let late = now.since(due);
        if late <= STALL {
            return false;
        }
        Late::by(late).report(self.cx, Some(&self.hedge.id));
        self.suppress(HedgeSuppression::Stalled);
        self.latest = Some(now);
        self.failure_due = self.failure_due.map(|_| now);
        true
    }

    /// The next hedge begins, if time and budget allow: its index, and what it has paid.
    pub(super) fn start(&mut self, trigger: HedgeTrigger) -> Option<(u32, Option<Token<'a>>)> {
        if self.cx.is_late() {
            self.stop(HedgeSuppression::Deadline);
            return None;
        }
        if !self.pay() {
            return None;
        }
        let now = self.cx.moment();
        let delay = self.latest.map_or(Duration::ZERO, |latest| now.since(latest));
        self.hedges_begun = self.hedges_begun.saturating_add(1);
        self.hedges_run = self.hedges_run.saturating_add(1);
        self.latest = Some(now);
        self.asked = false;
        self.failure_due = None;
        let index = self.cx.hedge().saturating_add(self.hedges_begun);
        self.cx.emit(&self.hedge.id, || EventKind::Hedged { hedge: index, delay, trigger });
        Some((index, self.paid.take()))
    }

    /// Pays for the next hedge, unless that is done. Without a token there is none.
    fn pay(&mut self) -> bool {
        if let (Some(budget), None) = (&self.hedge.budget, &self.paid) {
            self.paid = budget.withdraw(self.cx, &self.hedge.id);
            if self.paid.is_none() {
                self.stop(HedgeSuppression::Budget);
                return false;
            }
        }
        true
    }
}

fn refused_by<T, E>(outcome: &Outcome<T, E>) -> HedgeSuppression {
    match &outcome.result {
        Err(Error::Timeout(_)) => HedgeSuppression::Deadline,
        Err(Error::Rejected(rejection)) => match rejection.reason() {
            Reason::CircuitOpen | Reason::CircuitHalfOpen | Reason::Isolated => HedgeSuppression::Circuit,
            Reason::BulkheadFull | Reason::QueueTimeout => HedgeSuppression::Bulkhead,
            _ => HedgeSuppression::Rejected,
        },
        _ => HedgeSuppression::Rejected,
    }
}

/// What an attempt adds to the latencies that a quantile is taken of. Idle for the other kinds of delay.
pub(super) struct Sample<'a> {
    hedge: &'a Shared,
    cx: Context<'a>,
    /// Nothing is to be recorded any more.
    done: bool,
}

impl<'a> Sample<'a> {
    #[inline(always)]
    pub(super) fn new(hedge: &'a Shared, cx: Context<'a>) -> Self {
        let measures = hedge.delay.measures();
        if measures {
            cx.watch_starts();
        }
        Self { hedge, cx, done: !measures }
    }

    pub(super) fn has_reached_operation(&self) -> bool {
        self.cx.frame().attempts_started() > 0
    }

    #[inline(always)]
    pub(super) fn is_idle(&self) -> bool {
        self.done
    }

    /// A success took as long as it took.
    #[inline(always)]
    pub(super) fn succeed(&mut self) {
        if !std::mem::replace(&mut self.done, true) {
            self.record(self.cx.moment(), Duration::ZERO);
        }
    }

    /// The same of any outcome: a timeout took at least the delay. Other failures say nothing about slowness.
    pub(super) fn finish<T, E>(&mut self, outcome: &Outcome<T, E>) {
        if outcome.kind() == VerdictKind::Success {
            return self.succeed();
        }
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        if matches!(outcome.result, Err(Error::Timeout(_))) && !outcome.is_stalled() {
            self.record(self.cx.moment(), self.delay());
        }
    }

    fn delay(&self) -> Duration {
        self.hedge.delay.before(1).unwrap_or_default()
    }

    fn record(&self, now: Moment, at_least: Duration) {
        if let Some(started) = self.cx.frame().last_start() {
            self.hedge.delay.record(now.since(started).max(at_least), now);
        }
    }
}

impl Drop for Sample<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.done {
            self.unfinished();
        }
    }
}

impl Sample<'_> {
    /// Lost the race, or was ended by a timeout outside: all that is known is that it was slow.
    #[cold]
    fn unfinished(&self) {
        let now = clock::now();
        let deadline = self.cx.deadline_so_far();
        if self.cx.is_superseded() || (now >= deadline && now.since(deadline) <= STALL) {
            self.record(now, self.delay());
        }
    }
}
