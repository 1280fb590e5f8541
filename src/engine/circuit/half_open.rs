//! A half-open phase: its probes and their results. Lives under the circuit's lock.

use std::{num::NonZeroU64, time::Duration};

use crate::engine::moment::Moment;

/// A probe that has been admitted and not finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    id: NonZeroU64,
    pub(super) end: Moment,
    pub(super) lease: Duration,
}

/// Whether the results so far decide the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Undecided,
    Passed,
    Failed,
}

/// Counts the results of at most `limit` probes and decides as soon as it can.
///
/// A probe that is out holds the place of its result. So results and probes out are never more than `limit` together,
/// and since the phase is decided before there are `limit` results, a full phase always has a probe out.
#[derive(Debug)]
pub(super) struct Phase {
    limit: u32,
    needed: u32,
    successes: u32,
    failures: u32,
    /// In the order in which their leases end. Never longer than `limit`, which is reserved.
    out: Vec<Probe>,
    next_id: NonZeroU64,
}

impl Phase {
    pub(super) fn new(limit: u32, needed: u32) -> Self {
        Self {
            limit,
            needed,
            successes: 0,
            failures: 0,
            out: Vec::with_capacity(usize::try_from(limit).unwrap_or(0)),
            next_id: NonZeroU64::MIN,
        }
    }

    /// Forgets results and probes.
    pub(super) fn restart(&mut self, limit: u32, needed: u32) {
        self.limit = limit;
        self.needed = needed;
        self.successes = 0;
        self.failures = 0;
        self.out.clear();
    }

    /// Sends a probe out if there is room.
    pub(super) fn admit(&mut self, now: Moment, lease: Duration) -> Option<NonZeroU64> {
        if self.is_full() {
            return None;
        }
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        let end = now.after(lease);
        let place = self.out.partition_point(|probe| probe.end <= end);
        self.out.insert(place, Probe { id, end, lease });
        Some(id)
    }

    /// Takes a probe back without a result. False if it was not out.
    pub(super) fn take_back(&mut self, id: NonZeroU64) -> bool {
        let place = self.out.iter().position(|probe| probe.id == id);
        place.map(|place| self.out.remove(place)).is_some()
    }

    /// Counts the result of a probe that was taken back.
    pub(super) fn count(&mut self, success: bool) -> Verdict {
        let results = if success { &mut self.successes } else { &mut self.failures };
        *results = results.saturating_add(1);
        self.verdict()
    }

    /// Takes back the probe whose lease ended first, if it has ended. To be counted as failed.
    pub(super) fn take_expired(&mut self, now: Moment) -> Option<Probe> {
        let expired = self.out.first().is_some_and(|probe| probe.end <= now);
        expired.then(|| self.out.remove(0))
    }

    /// When the phase fails by expired leases alone, if it has by `now`: what taking them back one by one comes to.
    pub(super) fn failed_by_leases(&self, now: Moment) -> Option<Moment> {
        self.fails_by_leases().filter(|last_straw| *last_straw <= now)
    }

    /// When the phase fails by expired leases alone, if enough probes are out for that.
    pub(super) fn fails_by_leases(&self) -> Option<Moment> {
        let spare = usize::try_from(self.spare_failures()).unwrap_or(usize::MAX);
        Some(self.out.get(spare)?.end)
    }

    /// The moment before which no probe can be admitted: a lease must end first if the phase is full.
    pub(super) fn gate(&self) -> Moment {
        match self.out.first() {
            Some(earliest) if self.is_full() => earliest.end,
            _ => Moment::from_nanos(0),
        }
    }

    pub(super) fn successes(&self) -> u32 {
        self.successes
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn needed(&self) -> u32 {
        self.needed
    }

    pub(super) fn in_flight(&self) -> u32 {
        u32::try_from(self.out.len()).unwrap_or(u32::MAX)
    }

    fn is_full(&self) -> bool {
        let results = self.successes.saturating_add(self.failures);
        results.saturating_add(self.in_flight()) >= self.limit
    }

    /// How many more failures leave the phase undecided.
    fn spare_failures(&self) -> u32 {
        self.limit.saturating_sub(self.needed).saturating_sub(self.failures)
    }

    fn verdict(&self) -> Verdict {
        if self.successes >= self.needed {
            Verdict::Passed
        } else if self.failures > self.limit.saturating_sub(self.needed) {
            Verdict::Failed
        } else {
            Verdict::Undecided
        }
    }
}
