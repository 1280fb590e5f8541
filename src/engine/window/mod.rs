//! Sliding counts of outcomes, by number and by time: O(1) to record, a fixed size, no lock.
//!
//! A window belongs to one *generation* at a time: one closed phase of a circuit. Every word carries the low bits of
//! the generation next to its counts, and is only ever changed by a compare-and-swap that sees both. A recorder that is
//! preempted between being told its generation and adding its result therefore cannot touch the numbers of a later
//! generation, however long it sleeps. (The low bits repeat. To be fooled, a recorder would have to sleep within its
//! few instructions for an exact multiple of 4,096 generations.)
//!
//! The protocol that makes equality of the tags a sufficient test: `begin(generation)` is called by one thread at a
//! time, and what it did is visible to a recorder before the recorder learns that generation. So a word that shows
//! another generation than the recorder's shows a later one.

mod count;
mod streak;
mod time;

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests;

pub(crate) use count::{CountWindow, MAX_COUNT_WINDOW};
pub(crate) use streak::{MAX_CONSECUTIVE, Run, Streak};
pub(crate) use time::TimeWindow;

/// What a window needs to know about a finished call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) failure: bool,
    pub(crate) slow: bool,
}

const PLAIN_SUCCESS: Outcome = Outcome { failure: false, slow: false };

/// How many calls a window holds, and of what kind. A call may be both a failure and slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) calls: u32,
    pub(crate) failures: u32,
    pub(crate) slow: u32,
}

impl Tally {
    /// Whether there is neither a failure nor a slow call among them.
    #[inline(always)]
    pub(crate) fn is_spotless(self) -> bool {
        self.failures == 0 && self.slow == 0
    }

    /// The share of failures, 0 for an empty window.
    pub(crate) fn failure_rate(self) -> f64 {
        self.share(self.failures)
    }

    /// The share of slow calls, 0 for an empty window.
    pub(crate) fn slow_rate(self) -> f64 {
        self.share(self.slow)
    }

    fn share(self, part: u32) -> f64 {
        if self.calls == 0 { 0.0 } else { f64::from(part) / f64::from(self.calls) }
    }
}

/// The result belongs to an earlier generation; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale;

/// The low half of a word, without a cast that could lose something elsewhere.
#[inline(always)]
pub(crate) fn low_half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
