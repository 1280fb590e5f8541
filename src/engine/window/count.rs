//! The outcomes of the last n calls.

use super::{Outcome, PLAIN_SUCCESS, Stale, Tally, low_half};
use crate::engine::{
    apart::Apart,
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// The largest count window: what the fields of the word of totals can hold, and 64 KiB.
pub(crate) const MAX_COUNT_WINDOW: u32 = 16_384;

// Totals, one word, from the top: generation, calls, failures, slow calls, 16 bits each. The last two are stored with
// BIAS added, see `CountWindow`.
const FIELD_BITS: u32 = 16;
const FIELD_MASK: u32 = (1 << FIELD_BITS) - 1;
const BIAS: u32 = MAX_COUNT_WINDOW;
const ONE_SLOW: u64 = 1;
const ONE_FAILURE: u64 = 1 << FIELD_BITS;
const ONE_CALL: u64 = 1 << (2 * FIELD_BITS);
const GENERATION_SHIFT: u32 = 3 * FIELD_BITS;

// Entry, half a word, from the top: generation, slow, failure, occupied.
const OCCUPIED: u32 = 1;
const FAILURE: u32 = 2;
const SLOW: u32 = 4;
const FLAG_BITS: u32 = 3;
/// Distances between generations from here on are negative ones.
const HALF_AROUND: u32 = 1 << (31 - FLAG_BITS);

/// A ring of outcomes and their totals.
///
/// A recorder claims the next place, swaps its outcome in, and moves the totals by the difference between the two
/// outcomes; where the place holds the same outcome already it leaves both alone, so that the usual success after a
/// success writes to one word. Differences may arrive in any order, so between two steps of several recorders the totals
/// may be off by those that are on their way, and a field may even be below zero for a moment: hence the bias, which keeps
/// a borrow from reaching the neighbouring field. Once no recorder is under way the totals equal the ring.
///
/// # Memory ordering
///
/// Every word stands for itself and carries its generation, differences commute, and what `begin` wrote is published
/// by the circuit's word: relaxed is enough everywhere.
#[derive(Debug)]
pub(crate) struct CountWindow {
    ring: Box<[AtomicU32]>,
    /// The generation in the upper half, the place of the next outcome in the lower one. Written by almost every
    /// recorder, hence apart from what all of them read.
    head: Apart<AtomicU64>,
    totals: AtomicU64,
}

impl CountWindow {
    /// A window over the last `size` calls; `size` is brought into 1..=[`MAX_COUNT_WINDOW`].
    pub(crate) fn new(size: u32) -> Self {
        let size = size.clamp(1, MAX_COUNT_WINDOW);
        Self {
            ring: (0..size).map(|_| AtomicU32::new(0)).collect(),
            head: Apart(AtomicU64::new(0)),
            totals: AtomicU64::new(no_totals(0)),
        }
    }

    /// Starts the generation with an empty window. The ring need not be walked: an entry of an earlier generation
    /// counts as vacant.
    pub(crate) fn begin(&self, generation: u32) {
        // Swaps and not stores, so that every write is a link in one chain of read-modify-writes: that a recorder of
        // the past comes entirely before or not at all is then plain, to loom too.
        self.totals.swap(no_totals(generation), Ordering::Relaxed);
        let first = u64::from(generation) << u32::BITS;
        self.head.0.swap(first, Ordering::Relaxed);
    }

    /// Whether one more plain success would leave all as it is, which is the usual case: a ring full of them is the same
    /// wherever it begins. A failure whose difference has yet to arrive comes after it.
    #[inline(always)]
    pub(crate) fn success_changes_nothing(&self, generation: u32) -> bool {
        self.is_full_of_successes(self.tally(generation))
    }

    /// Records an outcome and says what the window holds with it.
    #[inline]
    pub(crate) fn record(&self, generation: u32, outcome: Outcome) -> Result<Tally, Stale> {
        if outcome == PLAIN_SUCCESS {
            // Looked at once: another generation may begin at any time, and then there would be nothing to tell.
            let tally = self.tally(generation);
            if self.is_full_of_successes(tally) {
                return Ok(tally);
            }
        }
        let entry = self.claim(generation)?;
        let new = entry_of(generation, outcome);
        let swap = |found| (found != new && !is_later(found, generation)).then_some(new);
        let old = match entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, swap) {
            Ok(old) => old,
            Err(same) if same == new => return self.tally_in(generation).ok_or(Stale),
            Err(_later) => return Err(Stale),
        };
        let old = if belongs(old, generation) { old } else { 0 };
        let moved = |totals: u64| {
            (same_generation(totals, generation)).then(|| totals.wrapping_add(worth(new)).wrapping_sub(worth(old)))
        };
        self.totals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved)
            .map_err(|_| Stale)
            .map(|before| tally_of(moved(before).unwrap_or(before)))
    }

    /// What the window holds now; nothing in any other generation than the current one.
    #[inline(always)]
    pub(crate) fn tally(&self, generation: u32) -> Tally {
        self.tally_in(generation).unwrap_or_default()
    }

    #[inline(always)]
    fn tally_in(&self, generation: u32) -> Option<Tally> {
        let totals = self.totals.load(Ordering::Relaxed);
        same_generation(totals, generation).then(|| tally_of(totals))
    }

    #[inline(always)]
    fn is_full_of_successes(&self, tally: Tally) -> bool {
        tally.is_spotless() && usize::try_from(tally.calls).is_ok_and(|calls| calls == self.ring.len())
    }

    /// Takes the next place in the ring.
    #[inline]
    fn claim(&self, generation: u32) -> Result<&AtomicU32, Stale> {
        let first = u64::from(generation) << u32::BITS;
        let advance = |head: u64| {
            let next = low_half(head).saturating_add(1);
            let wrapped = if self.place(next).is_some() { next } else { 0 };
            (head >> u32::BITS == u64::from(generation)).then_some(first | u64::from(wrapped))
        };
        self.head
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance)
            .ok()
            .and_then(|head| self.place(low_half(head)))
            .ok_or(Stale)
    }

    fn place(&self, index: u32) -> Option<&AtomicU32> {
        usize::try_from(index).ok().and_then(|index| self.ring.get(index))
    }

    /// What the totals have to be when nobody is recording. Walks the ring.
    #[cfg(test)]
    pub(crate) fn recount(&self, generation: u32) -> Tally {
        let mut tally = Tally::default();
        for entry in &self.ring {
            let entry = entry.load(Ordering::Relaxed);
            if belongs(entry, generation) {
                tally.calls += 1;
                tally.failures += u32::from(entry & FAILURE != 0);
                tally.slow += u32::from(entry & SLOW != 0);
            }
        }
        tally
    }
}

fn entry_of(generation: u32, outcome: Outcome) -> u32 {
    let failure = if outcome.failure { FAILURE } else { 0 };
    let slow = if outcome.slow { SLOW } else { 0 };
    generation << FLAG_BITS | slow | failure | OCCUPIED
}

fn belongs(entry: u32, generation: u32) -> bool {
    entry >> FLAG_BITS == generation << FLAG_BITS >> FLAG_BITS && entry & OCCUPIED != 0
}

/// Whether the entry was made by a later generation. Generations wrap, so the nearer way around decides.
fn is_later(entry: u32, generation: u32) -> bool {
    let ahead = (entry >> FLAG_BITS).wrapping_sub(generation) << FLAG_BITS >> FLAG_BITS;
    entry & OCCUPIED != 0 && ahead != 0 && ahead < HALF_AROUND
}

/// What an entry adds to the totals.
fn worth(entry: u32) -> u64 {
    let calls = if entry & OCCUPIED == 0 { 0 } else { ONE_CALL };
    let failures = if entry & FAILURE == 0 { 0 } else { ONE_FAILURE };
    let slow = if entry & SLOW == 0 { 0 } else { ONE_SLOW };
    calls | failures | slow
}

#[inline(always)]
fn no_totals(generation: u32) -> u64 {
    // The shift drops the upper bits of the generation, which is meant.
    u64::from(generation) << GENERATION_SHIFT | u64::from(BIAS) << FIELD_BITS | u64::from(BIAS)
}

#[inline(always)]
fn same_generation(totals: u64, generation: u32) -> bool {
    totals >> GENERATION_SHIFT == no_totals(generation) >> GENERATION_SHIFT
}

#[inline(always)]
fn tally_of(totals: u64) -> Tally {
    let calls = low_half(totals >> (2 * FIELD_BITS)) & FIELD_MASK;
    let failures = low_half(totals >> FIELD_BITS) & FIELD_MASK;
    let slow = low_half(totals) & FIELD_MASK;
    Tally { calls, failures: failures.saturating_sub(BIAS).min(calls), slow: slow.saturating_sub(BIAS).min(calls) }
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use super::*;

    const fn occupied(generation: u32) -> u32 {
        generation << FLAG_BITS | OCCUPIED
    }

    #[test]
    fn of_two_generations_the_nearer_way_around_says_which_is_later() {
        let last = u32::MAX >> FLAG_BITS;
        for (entry, generation, later) in [
            (1, 1, false),
            (2, 1, true),
            (1, 2, false),
            (0, last, true),
            (last, 0, false),
            (HALF_AROUND - 1, 0, true),
            (HALF_AROUND, 0, false),
            (HALF_AROUND + 1, 0, false),
        ] {
            assert_eq!(is_later(occupied(entry), generation), later, "{entry} after {generation}");
            assert!(!is_later(entry << FLAG_BITS, generation), "a vacant place is of no generation");
        }
    }
}
