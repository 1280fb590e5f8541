//! The current run of consecutive failures.

use super::{Stale, low_half};
use crate::engine::{
    moment::Moment,
    sync::{AtomicU64, Ordering},
};

/// The longest run that can be told apart; longer ones read as this.
pub(crate) const MAX_CONSECUTIVE: u32 = (1 << COUNT_BITS) - 1;

// One word, from the top: generation, length of the run, millisecond in which it began. Of that only the lower bits are
// kept: 8.7 years around, and time is not told as a distance from zero but from the present.
const START_BITS: u32 = 38;
const COUNT_BITS: u32 = 14;
const START_MASK: u64 = (1 << START_BITS) - 1;
const COUNT_MASK: u32 = (1 << COUNT_BITS) - 1;
const GENERATION_SHIFT: u32 = START_BITS + COUNT_BITS;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// A run of failures without a success in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) length: u32,
    /// When the first failure happened, rounded down to the millisecond: a run seems at most that much longer.
    pub(crate) start: Moment,
}

/// Counts consecutive failures.
///
/// # Memory ordering
///
/// All there is to know is in one word, and no other memory is published through it: relaxed is enough everywhere.
#[derive(Debug)]
pub(crate) struct Streak(AtomicU64);

impl Streak {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Starts the generation with no failures.
    pub(crate) fn begin(&self, generation: u32) {
        // A swap, so that every write is a link in one chain of read-modify-writes.
        self.0.swap(pack(generation, 0, 0), Ordering::Relaxed);
    }

    /// Whether there is no run that a success would end.
    #[inline(always)]
    pub(crate) fn success_changes_nothing(&self, generation: u32) -> bool {
        let found = self.0.load(Ordering::Relaxed);
        belongs(found, generation) && length(found) == 0
    }

    /// Ends the run. Where there is none, which is the usual case, this is a load.
    pub(crate) fn success(&self, generation: u32) -> Result<(), Stale> {
        if self.success_changes_nothing(generation) {
            return Ok(());
        }
        self.update(generation, |_| pack(generation, 0, 0)).map(|_| ())
    }

    /// Makes the run longer by one.
    pub(crate) fn failure(&self, generation: u32, now: Moment) -> Result<Run, Stale> {
        let millis = now.nanos() / NANOS_PER_MILLI;
        self.update(generation, |found| match length(found) {
            0 => pack(generation, 1, millis & START_MASK),
            length => pack(generation, length.saturating_add(1), found & START_MASK),
        })
        .map(|word| Run { length: length(word), start: start(word, millis) })
    }

    /// The length of the generation's run as it is now; 0 in any other generation.
    pub(crate) fn length(&self, generation: u32) -> u32 {
        let found = self.0.load(Ordering::Relaxed);
        if belongs(found, generation) { length(found) } else { 0 }
    }

    fn update(&self, generation: u32, next: impl Fn(u64) -> u64) -> Result<u64, Stale> {
        let mine = |found| belongs(found, generation).then(|| next(found));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, mine).map(next).map_err(|_| Stale)
    }
}

#[inline(always)]
fn pack(generation: u32, length: u32, millis: u64) -> u64 {
    // The shift drops the upper bits of the generation, which is meant.
    u64::from(generation) << GENERATION_SHIFT | u64::from(length.min(COUNT_MASK)) << START_BITS | millis
}

#[inline(always)]
fn belongs(word: u64, generation: u32) -> bool {
    word >> GENERATION_SHIFT == pack(generation, 0, 0) >> GENERATION_SHIFT
}

#[inline(always)]
fn length(word: u64) -> u32 {
    low_half(word >> START_BITS) & COUNT_MASK
}

/// When the run began, seen from a millisecond that is not long after.
fn start(word: u64, now: u64) -> Moment {
    let ago = now.wrapping_sub(word) & START_MASK;
    // More than half way around is a clock that was read before the run's first failure read its own.
    let ago = if ago > START_MASK / 2 { 0 } else { ago };
    Moment::from_nanos(now.saturating_sub(ago).saturating_mul(NANOS_PER_MILLI))
}
