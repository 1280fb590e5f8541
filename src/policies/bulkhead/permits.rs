//! The permits of a bulkhead, and a limit that changes while they are in use.

use std::sync::PoisonError;

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use crate::engine::{
    apart::Apart,
    sync::{AtomicUsize, Mutex, Ordering},
};

/// So many permits as the limit says. Whoever takes one gives it back.
pub(super) struct Permits {
    limit: AtomicUsize,
    kind: Kind,
}

enum Kind {
    /// Where nobody waits, a number says it all.
    Counted { in_use: AtomicUsize },
    /// Where some wait, they do in their order.
    //
    // Apart from what each call reads and none writes.
    Fair(Apart<Fair>),
}

impl Permits {
    pub(super) fn new(limit: usize, waited_for: bool) -> Self {
        let kind = if waited_for {
            Kind::Fair(Apart(Fair {
                permits: Semaphore::new(limit),
                debt: AtomicUsize::new(0),
                resizing: Mutex::new(()),
            }))
        } else {
            Kind::Counted { in_use: AtomicUsize::new(0) }
        };
        Self { limit: AtomicUsize::new(limit), kind }
    }

    #[inline]
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn in_use(&self) -> usize {
        match &self.kind {
            Kind::Counted { in_use } => in_use.load(Ordering::Relaxed),
            Kind::Fair(Apart(fair)) => {
                let issued = self.limit().saturating_add(fair.debt.load(Ordering::Relaxed));
                issued.saturating_sub(fair.permits.available_permits())
            }
        }
    }

    /// Takes a permit if one is free and nobody waits.
    #[inline]
    pub(super) fn try_take(&self) -> bool {
        match &self.kind {
            Kind::Counted { in_use } => {
                let limit = self.limit();
                let one_more = |used: usize| (used < limit).then(|| used.saturating_add(1));
                // Acquire, and release where it is given back: who takes a permit sees what was done under it before.
                in_use.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more).is_ok()
            }
            Kind::Fair(Apart(fair)) => fair.permits.try_acquire().map(SemaphorePermit::forget).is_ok(),
        }
    }

    #[inline]
    pub(super) fn give_back(&self) {
        if !self.count_out() {
            self.give_back_to_queue();
        }
    }

    /// Gives a permit back if nobody can wait for one. Whether it has.
    #[inline(always)]
    pub(super) fn count_out(&self) -> bool {
        match &self.kind {
            Kind::Counted { in_use } => {
                in_use.fetch_sub(1, Ordering::Release);
                true
            }
            Kind::Fair(_) => false,
        }
    }

    fn give_back_to_queue(&self) {
        if let Kind::Fair(Apart(fair)) = &self.kind {
            fair.give_back();
        }
    }

    /// Changes the limit, and gives the old one.
    pub(super) fn set_limit(&self, limit: usize) -> usize {
        match &self.kind {
            Kind::Counted { .. } => self.limit.swap(limit, Ordering::Relaxed),
            Kind::Fair(Apart(fair)) => {
                let _one_at_a_time = fair.resizing.lock().unwrap_or_else(PoisonError::into_inner);
                let old = self.limit.swap(limit, Ordering::Relaxed);
                fair.resize(old, limit);
                old
            }
        }
    }

    /// The permits that can be waited for, if these can.
    pub(super) fn fair(&self) -> Option<&Fair> {
        match &self.kind {
            Kind::Counted { .. } => None,
            Kind::Fair(Apart(fair)) => Some(fair),
        }
    }
}

/// A fair semaphore whose limit can shrink below what is in use.
pub(super) struct Fair {
    permits: Semaphore,
    /// Permits that a lower limit has taken back and that are still in use: the next ones to come free go.
    debt: AtomicUsize,
    /// Changes of the limit follow one another.
    resizing: Mutex<()>,
}

impl Fair {
    /// Waits for a permit of the semaphore, in the order of arrival. To keep it, forget it.
    pub(super) fn acquire(&self) -> impl Future<Output = Result<SemaphorePermit<'_>, AcquireError>> {
        self.permits.acquire()
    }

    fn resize(&self, old: usize, new: usize) {
        if let Some(more) = new.checked_sub(old) {
            // Those that a debt is paid with are in use already.
            self.permits.add_permits(more.saturating_sub(self.pay(more)));
        } else {
            self.debt.fetch_add(old.saturating_sub(new), Ordering::AcqRel);
            self.settle();
        }
    }

    fn give_back(&self) {
        // Relaxed: a first look, so that a permit that is owed wakes nobody. The one that counts comes after.
        if self.debt.load(Ordering::Relaxed) > 0 && self.pay(1) > 0 {
            return;
        }
        self.permits.add_permits(1);
        self.settle_if_in_debt();
    }

    /// Takes at most so many permits off the debt, and gives how many.
    fn pay(&self, most: usize) -> usize {
        let less = |debt: usize| (debt > 0).then(|| debt.saturating_sub(most));
        let paid = self.debt.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less);
        paid.map_or(0, |debt| debt.min(most))
    }

    /// The debt, to be asked after a permit came free.
    //
    // An addition of nothing and no load: it comes before the one that makes a debt, whose maker then sees the permit,
    // or after it and sees the debt. A load, even a sequentially consistent one, could miss it while the other misses
    // the permit, and that would stay.
    fn owed(&self) -> usize {
        self.debt.fetch_add(0, Ordering::AcqRel)
    }

    /// Takes free permits back for as long as there are any and there is debt: as one who holds them would return them.
    fn settle(&self) {
        loop {
            let taken = self.permits.forget_permits(self.owed());
            if taken == 0 {
                return;
            }
            // Less if others have paid meanwhile. What is given back may be wanted for a debt made since: once more.
            let paid = self.pay(taken);
            self.permits.add_permits(taken.saturating_sub(paid));
        }
    }

    /// For a permit that came free other than by being given back here.
    pub(super) fn settle_if_in_debt(&self) {
        if self.owed() > 0 {
            self.settle();
        }
    }
}
