//! The outcomes of the last stretch of time, counted in slots.

use std::{array, time::Duration};

use super::{Outcome, PLAIN_SUCCESS, Stale, Tally, low_half};
use crate::engine::{
    moment::{self, Moment},
    sync::{AtomicU64, Ordering},
};

/// How many slots a time window has. Two are enough to find a race, and a model of more would take too long.
const SLOTS: u64 = if cfg!(model_loom) { 2 } else { 10 };
const SLOT_COUNT: usize = if cfg!(model_loom) { 2 } else { 10 };

// One counter, from the top: round, generation, count.
const COUNT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 12;
const ROUND_BITS: u32 = 28;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const ROUND_MASK: u64 = (1 << ROUND_BITS) - 1;
const ROUND_SHIFT: u32 = COUNT_BITS + GENERATION_BITS;
/// A counter that is this many rounds ahead at most belongs to the future of a recorder that overslept. Any other
/// distance is the past, seen around the wrap of the round number, of a window that was idle for a very long time.
const OVERSLEPT_ROUNDS: u64 = 1 << 16;

/// Counts over the last `window` of time.
///
/// Time is cut into periods of a tenth of the window, starting from moment 0. Period p is counted in slot p % 10, and
/// its number of rounds, p / 10, is part of every counter, so what is too old vanishes by not matching, after any
/// idle gap, and nothing has to be swept. The current period and the nine before it count: a result is seen for at
/// least nine tenths of the window and gone at the latest when the window has passed.
///
/// A slot that has seen 16,777,215 calls takes no more; its rates stay as they are.
///
/// # Memory ordering
///
/// Sequentially consistent: two recorders that add to different counters at once and then read each other's must not
/// both miss the other, or the result that reaches the threshold might not trip. Nothing weaker promises that, and it
/// costs what acquire and release cost on the machines we know.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    slots: [Slot; SLOT_COUNT],
    period: Period,
    /// One more than the last period in which a failure or slow call was recorded; 0 if none was. Lets a success
    /// in a healthy window skip the sum. A mere hint: too large a value costs an evaluation and nothing else.
    trouble: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    calls: Counter,
    failures: Counter,
    slow: Counter,
}

impl Slot {
    /// Counts what was wrong with a call that is counted.
    #[cold]
    fn trouble(&self, outcome: Outcome, stamp: Stamp) -> Result<(), Stale> {
        if outcome.failure {
            self.failures.add(stamp)?;
        }
        if outcome.slow {
            self.slow.add(stamp)?;
        }
        Ok(())
    }
}

impl TimeWindow {
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            slots: array::from_fn(|_| Slot { calls: Counter::new(), failures: Counter::new(), slow: Counter::new() }),
            period: Period::new(moment::nanos(window) / SLOTS),
            trouble: AtomicU64::new(0),
        }
    }

    /// Starts the generation with an empty window.
    pub(crate) fn begin(&self, generation: u32) {
        for slot in &self.slots {
            slot.calls.begin(generation);
            slot.failures.begin(generation);
            slot.slow.begin(generation);
        }
        self.trouble.store(0, Ordering::SeqCst);
    }

    /// Records an outcome. Gives the window's sum, unless it holds nothing but quick successes.
    #[inline]
    pub(crate) fn record(&self, generation: u32, outcome: Outcome, now: Moment) -> Result<Option<Tally>, Stale> {
        let period = self.period_of(now);
        let Some((slot, stamp)) = self.slot(generation, period) else {
            return Ok(None);
        };
        if outcome != PLAIN_SUCCESS {
            // Before the counters: who misses this has added its call before we sum up, and we see it.
            self.trouble.fetch_max(period.saturating_add(1), Ordering::SeqCst);
        }
        // Calls before the rest, and the rest only if the call was counted: so failures never exceed calls.
        if slot.calls.add(stamp)? == Added::Yes && outcome != PLAIN_SUCCESS {
            slot.trouble(outcome, stamp)?;
        }
        let trouble = self.trouble.load(Ordering::SeqCst);
        let recent = trouble != 0 && period.saturating_sub(trouble.saturating_sub(1)) < SLOTS;
        Ok(recent.then(|| self.sum(generation, period)))
    }

    /// What the window holds at `now`; nothing in any other generation than the current one.
    pub(crate) fn tally(&self, generation: u32, now: Moment) -> Tally {
        self.sum(generation, self.period_of(now))
    }

    fn sum(&self, generation: u32, period: u64) -> Tally {
        (0..SLOTS).filter_map(|age| self.slot(generation, period.checked_sub(age)?)).fold(
            Tally::default(),
            |sum, (slot, stamp)| {
                // The reverse order of adding, so that here too failures never exceed calls.
                let slow = slot.slow.read(stamp);
                let failures = slot.failures.read(stamp);
                let calls = slot.calls.read(stamp);
                Tally {
                    calls: sum.calls.saturating_add(calls),
                    failures: sum.failures.saturating_add(failures.min(calls)),
                    slow: sum.slow.saturating_add(slow.min(calls)),
                }
            },
        )
    }

    #[inline]
    fn period_of(&self, now: Moment) -> u64 {
        self.period.number_of(now)
    }

    fn slot(&self, generation: u32, period: u64) -> Option<(&Slot, Stamp)> {
        let index = usize::try_from(period % SLOTS).ok()?;
        let stamp = Stamp { round: (period / SLOTS) & ROUND_MASK, generation: u64::from(generation) & GENERATION_MASK };
        Some((self.slots.get(index)?, stamp))
    }
}

/// The length of a period. To divide by it would be the slowest instruction of a call.
#[derive(Debug)]
struct Period {
    /// Never 0.
    nanos: u64,
    /// The highest number that times `nanos` is below 2^64.
    reciprocal: u64,
}

impl Period {
    fn new(nanos: u64) -> Self {
        let nanos = nanos.max(1);
        Self { nanos, reciprocal: u64::MAX.checked_div(nanos).unwrap_or(u64::MAX) }
    }

    /// Which period that is, from 0: the quotient, exactly.
    #[inline]
    fn number_of(&self, moment: Moment) -> u64 {
        let wide = u128::from(moment.nanos()).wrapping_mul(u128::from(self.reciprocal)) >> u64::BITS;
        // Less than one too low before it is rounded down: the quotient, or one less.
        let low = u64::try_from(wide).unwrap_or(u64::MAX);
        let rest = moment.nanos().wrapping_sub(low.wrapping_mul(self.nanos));
        low.saturating_add(u64::from(rest >= self.nanos))
    }
}

/// What a count belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    round: u64,
    generation: u64,
}

impl Stamp {
    fn with(self, count: u64) -> u64 {
        self.round << ROUND_SHIFT | self.generation << COUNT_BITS | count
    }

    fn of(word: u64) -> Self {
        Self { round: word >> ROUND_SHIFT, generation: word >> COUNT_BITS & GENERATION_MASK }
    }

    /// Whether `other` is a later round than this one, both counted around the wrap.
    fn is_before(self, other: Self) -> bool {
        let ahead = other.round.wrapping_sub(self.round) & ROUND_MASK;
        ahead != 0 && ahead <= OVERSLEPT_ROUNDS
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Added {
    Yes,
    /// The slot has moved on to a later round, or is full.
    No,
}

/// A count and what it belongs to, in one word.
#[derive(Debug)]
struct Counter(AtomicU64);

impl Counter {
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Zero, which is what marks a counter as vacant: its round does not matter then.
    fn begin(&self, generation: u32) {
        let vacant = Stamp { round: 0, generation: u64::from(generation) & GENERATION_MASK };
        // A swap, so that every write is a link in one chain of read-modify-writes.
        self.0.swap(vacant.with(0), Ordering::SeqCst);
    }

    #[inline(always)]
    fn add(&self, stamp: Stamp) -> Result<Added, Stale> {
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |found| {
                let holder = Stamp::of(found);
                let count = found & COUNT_MASK;
                if holder.generation != stamp.generation {
                    None
                } else if holder == stamp {
                    (count < COUNT_MASK).then(|| stamp.with(count.saturating_add(1)))
                } else {
                    (count == 0 || !stamp.is_before(holder)).then(|| stamp.with(1))
                }
            })
            .map(|_| Added::Yes)
            .or_else(|found| {
                let same = Stamp::of(found).generation == stamp.generation;
                if same { Ok(Added::No) } else { Err(Stale) }
            })
    }

    fn read(&self, stamp: Stamp) -> u32 {
        let found = self.0.load(Ordering::SeqCst);
        if Stamp::of(found) == stamp { low_half(found & COUNT_MASK) } else { 0 }
    }
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use std::time::Duration;

    use proptest::{prop_assert_eq, proptest, strategy::Strategy};

    use super::{
        Added, COUNT_MASK, Counter, Moment, Ordering, Outcome, Period, ROUND_BITS, SLOTS, Stamp, Tally, TimeWindow,
    };

    const STAMP: Stamp = Stamp { round: 5, generation: 3 };

    #[test]
    fn a_full_counter_takes_no_more_and_touches_no_neighbouring_field() {
        let counter = Counter::new();
        counter.0.store(STAMP.with(COUNT_MASK), Ordering::SeqCst);
        assert!(counter.add(STAMP) == Ok(Added::No));
        assert_eq!(counter.read(STAMP), 16_777_215);
    }

    #[test]
    fn a_recorder_that_overslept_a_round_does_not_bring_it_back() {
        let later = Stamp { round: 6, ..STAMP };
        let counter = Counter::new();
        counter.begin(3);
        assert!(counter.add(later) == Ok(Added::Yes));
        assert!(counter.add(STAMP) == Ok(Added::No));
        assert_eq!((counter.read(later), counter.read(STAMP)), (1, 0));
    }

    /// Of every size, and close to the powers of two.
    fn any_size() -> impl Strategy<Value = u64> {
        (0..u64::BITS, 0..=u64::MAX).prop_map(|(shift, bits)| bits >> shift)
    }

    proptest! {
        #[test]
        fn the_number_of_a_period_is_the_quotient(length in any_size(), moment in any_size(), times in any_size(), off in -2..=2_i64) {
            let period = Period::new(length);
            let edge = length.max(1).wrapping_mul(times).wrapping_add_signed(off);
            for nanos in [moment, edge, u64::MAX] {
                prop_assert_eq!(period.number_of(Moment::from_nanos(nanos)), nanos / length.max(1));
            }
        }
    }

    #[test]
    fn after_any_number_of_rounds_nothing_of_before_is_counted() {
        let failure = Outcome { failure: true, slow: false };
        for rounds in (0..ROUND_BITS).map(|power| 1 << power) {
            let window = TimeWindow::new(Duration::from_nanos(SLOTS));
            window.begin(1);
            for period in 0..SLOTS {
                let _tally = window.record(1, failure, Moment::from_nanos(period));
            }
            let later = Moment::from_nanos(rounds * SLOTS + SLOTS - 1);
            assert_eq!(window.tally(1, later).calls, 0, "after {rounds} rounds");
            let alone = Tally { calls: 1, failures: 1, slow: 0 };
            assert!(window.record(1, failure, later).is_ok_and(|tally| tally == Some(alone)), "after {rounds} rounds");
        }
    }
}
