//! Where deposits come in: a word for each of a few threads, so that they do not disturb each other.

use std::{
    sync::{
        OnceLock,
        // Not through `sync`: loom's atomics cannot live in a static, and there is no interleaving to check in one counter.
        atomic::AtomicUsize,
    },
    thread,
};

use crate::engine::{
    apart::Apart,
    sync::{AtomicU64, Ordering},
};

/// More are not worth their memory: a withdrawal reads all of them.
const MOST: usize = 8;

/// All that was ever deposited, in parts that only grow: whoever adds them up while others add to them has what it was at
/// first, what it is in the end, or something in between. They wrap around, which differences do not see.
#[derive(Debug)]
pub(super) struct Shards(Box<[Apart<AtomicU64>]>);

impl Shards {
    /// As many as threads can deposit at once on this machine. Where that is one, none: there is nobody to be disturbed.
    pub(super) fn new() -> Self {
        static NUMBER: OnceLock<usize> = OnceLock::new();
        if cfg!(any(model_loom, model_shuttle)) {
            return Self::of(2);
        }
        // Once for all, since on some systems that reads files.
        Self::of(*NUMBER.get_or_init(|| match thread::available_parallelism() {
            Ok(threads) if threads.get() > 1 => threads.get().min(MOST).next_power_of_two(),
            _ => 0,
        }))
    }

    /// A power of two, or none.
    pub(super) fn of(number: usize) -> Self {
        Self((0..number).map(|_| Apart(AtomicU64::new(0))).collect())
    }

    #[cfg(all(test, not(any(model_loom, model_shuttle))))]
    pub(super) fn number(&self) -> usize {
        self.0.len()
    }

    /// That of one thread, if there are any.
    #[inline]
    pub(super) fn of_slot(&self, slot: Slot) -> Option<&AtomicU64> {
        self.0.get(slot.0 & self.0.len().wrapping_sub(1)).map(|shard| &shard.0)
    }

    /// The sum of all.
    #[inline]
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|shard| shard.0.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    /// Goes to each: who has added to one before is in every later [`total`](Self::total), who adds to it after this sees
    /// what was written before.
    #[cold]
    pub(super) fn meet(&self) {
        for shard in &self.0 {
            // A read-modify-write, though of nothing: a load might miss one addition, and be missed by it. Release, since an
            // addition acquires.
            shard.0.fetch_add(0, Ordering::Release);
        }
    }
}

/// Which shard a thread deposits into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

impl Slot {
    /// Threads take them in turns, each its own for life.
    #[inline]
    pub(crate) fn of_this_thread() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            // Relaxed: only distinctness counts. Nothing is dropped at a thread's end, so it is there until then.
            static SLOT: Slot = Slot(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        SLOT.with(|slot| *slot)
    }

    /// For models, whose threads are not those of the system.
    #[cfg(test)]
    pub(crate) fn numbered(number: usize) -> Self {
        Self(number)
    }
}
