//! What all attempts of one public call share.

#[cfg(feature = "tower")]
use std::sync::atomic::AtomicBool;
use std::{
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    task::Waker,
    time::Duration,
};

use super::{CallOptions, Idempotency, Priority};
use crate::{
    alarm::AlarmClock,
    ambient::{Ambient, Outer},
    clock::Reading,
    engine::moment::Moment,
};

const NOBODY: usize = 0;
/// Nobody any more: the call has ended at its deadline.
const OVERDUE: usize = 1;
pub(super) const LAYERS: usize = 2;

/// What all attempts of one public call share.
pub(crate) struct CallState {
    pub(crate) reading: Reading,
    pub(crate) alarms: AlarmClock,
    /// The deadline of a call around this one, which ends this one as well.
    pub(super) outer: Outer,
    /// Who runs: [`NOBODY`], [`OVERDUE`], [`LAYERS`], or an operation, known by the address of its frame and the index of its
    /// hedge. While a panic unwinds it tells whose that is.
    pub(super) runs: AtomicUsize,
    pub(super) hedges: AtomicU32,
    pub(super) winner: AtomicU32,
    pub(super) idempotency: Idempotency,
    pub(super) priority: Priority,
    /// An attempt has taken away what a further one would take.
    #[cfg(feature = "tower")]
    pub(super) used_up: AtomicBool,
}

// Relaxed throughout: one task polls a call at a time, and whatever hands the task to another thread orders
// these accesses. The atomics are there for `Sync`; plain loads and stores do.
#[inline]
pub(super) fn bump(counter: &AtomicU32) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

impl CallState {
    #[inline(always)]
    pub(crate) fn new(options: CallOptions) -> Self {
        Self {
            reading: Reading::default(),
            alarms: AlarmClock::new(),
            outer: Outer::none(),
            // Whoever begins a call goes on to poll it: until then only a panic ends it.
            runs: AtomicUsize::new(LAYERS),
            hedges: AtomicU32::new(0),
            winner: AtomicU32::new(0),
            idempotency: options.idempotency,
            priority: options.priority,
            #[cfg(feature = "tower")]
            used_up: AtomicBool::new(false),
        }
    }

    /// What the call knew about the present is void: a poll begins.
    #[inline(always)]
    pub(crate) fn poll_begins(&self, waker: &Waker, rang: bool) {
        self.reading.clear();
        self.alarms.poll_begins(waker, rang, &self.reading);
        self.runs.store(LAYERS, Relaxed);
    }

    #[inline(always)]
    pub(crate) fn poll_ends(&self) {
        self.runs.store(NOBODY, Relaxed);
    }

    /// Whether an operation panicked, asked in a `Drop` that runs because something inside unwinds.
    pub(crate) fn operation_panicked(&self) -> bool {
        self.runs.load(Relaxed) > LAYERS
    }

    /// Whether anything inside the call panicked, asked in a `Drop`: otherwise its caller drops it.
    pub(crate) fn panicked(&self) -> bool {
        self.runs.load(Relaxed) > OVERDUE
    }

    /// The call ends at its deadline, which is told when what runs inside is gone.
    pub(crate) fn ends_late(&self) {
        self.runs.store(OVERDUE, Relaxed);
    }

    pub(crate) fn ended_late(&self) -> bool {
        self.runs.load(Relaxed) == OVERDUE
    }

    /// Whether what is due then is ended by whoever set the deadline around this poll: the outer one of equal deadlines is
    /// reported. That one's time may have begun a little later, in the same poll, which may have taken so long.
    pub(crate) fn is_left_to_the_outer(&self, due: Moment, slack: Duration) -> bool {
        if due < self.outer.get() {
            return false;
        }
        // Not so if this call has left the operation in which it began.
        let around = Ambient::current();
        around.ends_inside() && around.nearest(|| Moment::NEVER).since(due) <= slack
    }

    pub(crate) fn hedges(&self) -> u32 {
        self.hedges.load(Relaxed)
    }

    pub(crate) fn winner(&self) -> u32 {
        self.winner.load(Relaxed)
    }

    #[inline(always)]
    pub(crate) fn won(&self, hedge: u32) {
        self.winner.store(hedge, Relaxed);
    }
}
