//! The fold over the layers: what each of them does to the attempts and the time of what is inside it.

use std::time::Duration;

use super::{Amplification, Bound, Bounds, arithmetic::Arithmetic};
use crate::layer::{BudgetInfo, Role};

/// The worst cases of one run through the layers so far.
pub(super) struct Worst {
    attempts: Attempts,
    /// The attempts while all budgets are empty.
    dry: Attempts,
    time: Time,
    /// The time if no server hints.
    calm: Time,
    saved: Vec<Saved>,
}

/// A budget, and the most attempts that one token of it buys.
struct Saved {
    budget: BudgetInfo,
    buys: Bound<u64>,
}

impl Worst {
    pub(super) fn of_operation() -> Self {
        let (attempts, time) = (Attempts::of_operation(), Time { most: Bound::Unbounded, lead: Bound::ZERO });
        Self { attempts, dry: attempts, time, calm: time, saved: Vec::new() }
    }

    /// Adds a layer around those so far.
    pub(super) fn wrap(&mut self, role: &Role) {
        match *role {
            Role::Timeout { limit } => {
                self.each_attempts(Attempts::timed);
                self.each_time(|time| time.limited(limit));
            }
            Role::Retry { attempts, waits, longest_hint, max_elapsed, budget, repeats_spent, repeats_rejected } => {
                let repeats = Repeats { attempts, spent: repeats_spent, rejected: repeats_rejected };
                // One that can see nothing to repeat never waits either.
                let runs = if self.attempts.can_repeat(repeats) { attempts } else { 1 };
                let gaps = runs.saturating_sub(1);
                let waits = if gaps == 0 { Bound::ZERO } else { Bound::told(waits) };
                // A wait is the longer of the two, with a little on top of a hint; their sum is never less.
                let with_hints = waits.plus(Bound::upto(longest_hint).times(gaps));
                self.calm = self.calm.retried(runs, waits, max_elapsed, repeats_rejected);
                self.time = self.time.retried(runs, with_hints, max_elapsed, repeats_rejected);
                self.save(budget.filter(|_| gaps > 0));
                self.attempts = self.attempts.retried(repeats);
                let dry = Repeats { attempts: if budget.is_some() { 1 } else { attempts }, ..repeats };
                self.dry = self.dry.retried(dry);
            }
            Role::Hedge { hedges, wait, longest_hint, budget } => {
                let delay = wait.longest();
                self.calm = self.calm.hedged(hedges, delay, Duration::ZERO);
                self.time = self.time.hedged(hedges, delay, longest_hint);
                self.save(budget.filter(|_| hedges > 0));
                self.attempts = self.attempts.hedged(hedges);
                self.dry = self.dry.hedged(if budget.is_some() { 0 } else { hedges });
            }
            Role::Bulkhead { queue, max_wait, .. } if queue > 0 => self.each_time(|time| time.after(max_wait)),
            Role::Bulkhead { .. } | Role::CircuitBreaker { .. } => {}
            Role::Fallback { limit, .. } => {
                self.each_attempts(Attempts::answered);
                self.each_time(|time| time.then(limit.unwrap_or_default()));
            }
            #[cfg(feature = "chaos")]
            Role::Chaos { longest, .. } => {
                self.each_attempts(|inside| inside.custom(Some(1)));
                self.each_time(|time| match longest {
                    Some(longest) => time.then(longest),
                    None => Time { most: Bound::Unbounded, ..time },
                });
            }
            Role::Custom { attempts, added_time, .. } => {
                self.each_attempts(|inside| inside.custom(attempts));
                self.each_time(|time| time.custom(attempts, added_time));
            }
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        let saved = self.saved.iter().map(|saved| saved.buys.times(saved.budget.cap));
        Bounds {
            attempts: self.attempts.most,
            time: self.time.most,
            time_without_hints: self.calm.most,
            amplification: Amplification {
                without_budgets: self.attempts.most,
                long_run: self.dry.most,
                saved_up: saved.fold(Bound::ZERO, Bound::plus),
            },
        }
    }

    fn each_attempts(&mut self, wrap: impl Fn(Attempts) -> Attempts) {
        self.attempts = wrap(self.attempts);
        self.dry = wrap(self.dry);
    }

    fn each_time(&mut self, wrap: impl Fn(Time) -> Time) {
        self.time = wrap(self.time);
        self.calm = wrap(self.calm);
    }

    /// A token buys one more run of what is inside; what a budget further in adds to that, it pays for itself.
    fn save(&mut self, budget: Option<BudgetInfo>) {
        let Some(budget) = budget else { return };
        let buys = self.dry.most;
        match self.saved.iter_mut().find(|saved| saved.budget.id == budget.id) {
            Some(shared) => shared.buys = shared.buys.or(buys),
            None => self.saved.push(Saved { budget, buys }),
        }
    }
}

/// The most attempts of one run, by how the run ends.
#[derive(Clone, Copy)]
struct Attempts {
    /// However it ends.
    most: Bound<u64>,
    /// If it ends in a failure that a retry around it repeats; none if it cannot, since a retry inside has given up on
    /// whatever fails and marked it spent.
    fresh: Option<Bound<u64>>,
    /// If it ends in a rejection that is not spent. An operation can give one after it was called: its classifier says.
    rejected: Bound<u64>,
}

/// What a retry does.
#[derive(Clone, Copy)]
struct Repeats {
    attempts: u32,
    spent: bool,
    rejected: bool,
}

impl Attempts {
    fn of_operation() -> Self {
        let one = Bound::AtMost(1);
        Self { most: one, fresh: Some(one), rejected: one }
    }

    /// The most attempts of a run that a retry repeats; none if it repeats no run.
    fn repeated(self, repeats: Repeats) -> Option<Bound<u64>> {
        match self.fresh {
            _ if repeats.spent => Some(self.most),
            Some(fresh) if repeats.rejected => Some(fresh.or(self.rejected)),
            None if repeats.rejected => Some(self.rejected),
            fresh => fresh,
        }
    }

    fn can_repeat(self, repeats: Repeats) -> bool {
        self.repeated(repeats).is_some()
    }

    /// All runs but the last are of those that are repeated.
    fn retried(self, repeats: Repeats) -> Self {
        let again = self.repeated(repeats).unwrap_or(Bound::ZERO);
        let most = again.times(repeats.attempts.saturating_sub(1)).plus(self.most);
        // A rejection that is not repeated comes out as such only from the first run. One that is comes out spent, but
        // for that of an isolated circuit, which no retry repeats.
        let rejected = if repeats.rejected { Bound::ZERO } else { self.rejected };
        Self { most, fresh: None, rejected }
    }

    /// The outcome of a race without a winner is the primary's, whatever the hedges have done.
    fn hedged(self, hedges: u32) -> Self {
        let extra = self.most.times(hedges);
        Self {
            most: self.most.plus(extra),
            fresh: self.fresh.map(|fresh| fresh.plus(extra)),
            rejected: self.rejected.plus(extra),
        }
    }

    /// A timeout is a new failure, which is not spent.
    fn timed(self) -> Self {
        Self { fresh: Some(self.most), ..self }
    }

    /// An error that a fallback puts in the place of an isolated circuit's rejection can be repeated.
    fn answered(self) -> Self {
        Self { rejected: self.most, ..self }
    }

    /// A policy of the user's own may give any outcome.
    fn custom(self, attempts: Option<u32>) -> Self {
        let most = attempts.map_or(Bound::Unknown, |attempts| self.most.times(attempts));
        Self { most, fresh: Some(most), rejected: most }
    }
}

/// The longest that one run takes.
#[derive(Clone, Copy)]
struct Time {
    most: Bound<Duration>,
    /// The part of it before an attempt reaches the operation: a hedge's delay counts from then.
    lead: Bound<Duration>,
}

impl Time {
    fn limited(self, limit: Duration) -> Self {
        let limit = Bound::AtMost(limit);
        Self { most: self.most.and(limit), lead: self.lead.and(limit) }
    }

    /// A wait in a queue.
    fn after(self, wait: Duration) -> Self {
        let wait = Bound::upto(wait);
        Self { most: self.most.plus(wait), lead: self.lead.plus(wait) }
    }

    /// Something after all attempts.
    fn then(self, limit: Duration) -> Self {
        Self { most: self.most.plus(Bound::upto(limit)), ..self }
    }

    fn retried(self, runs: u32, waits: Bound<Duration>, max_elapsed: Option<Duration>, rejected: bool) -> Self {
        let by_number = self.most.times(runs).plus(waits);
        let most = match max_elapsed {
            // The last run begins no later than this after the first.
            Some(elapsed) if runs > 1 => by_number.and(self.most.plus(Bound::upto(elapsed))),
            _ => by_number,
        };
        Self { most, lead: if rejected { most } else { self.lead } }
    }

    /// The hedges begin one after the other, and the last one takes as long as any.
    fn hedged(self, hedges: u32, delay: Option<Duration>, longest_hint: Duration) -> Self {
        // The next begins at the latest when all before it have failed.
        let failed = self.most;
        let (first, later) = match delay.map(Bound::upto) {
            // With a hint it waits from the last failure on, whatever the delay.
            Some(delay) if longest_hint.is_zero() => (failed.and(self.lead.plus(delay)), failed.and(delay)),
            _ => (failed.plus(Bound::upto(longest_hint)), failed.plus(Bound::upto(longest_hint))),
        };
        let most = match hedges.checked_sub(1) {
            Some(others) => self.most.plus(first).plus(later.times(others)),
            None => self.most,
        };
        Self { most, ..self }
    }

    fn custom(self, attempts: Option<u32>, added: Option<Duration>) -> Self {
        let most = match (attempts, added) {
            (Some(attempts), Some(added)) => self.most.times(attempts).plus(Bound::upto(added)),
            _ => Bound::Unknown,
        };
        Self { most, lead: most }
    }
}
