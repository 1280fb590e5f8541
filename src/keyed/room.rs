//! Who has a place, and who has to leave it: all that happens under the lock.

use std::{cmp::Reverse, hash::Hash, sync::Arc, time::Duration};

use super::{
    instance::Entry,
    kept::Kept,
    map::{Map, SharedKey, Wanted},
};
use crate::engine::moment::Moment;

/// The homes of the instances.
pub(super) struct Room<K, P> {
    slots: Vec<Option<Arc<Entry<K, P>>>>,
    free: Vec<usize>,
    /// Who could go when it was last looked, the first to go at the end.
    leaving: Vec<Candidate>,
    /// When it was last looked who could go, and how many have asked for a place since.
    looked: Moment,
    asked: usize,
    /// Where to look next for one that has been idle for long.
    hand: usize,
    pub(super) overflowed: Edge,
    pub(super) failed: Edge,
}

/// One that may go, the smallest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    kept: Kept,
    last_used: Moment,
    slot: usize,
}

/// A new key pays for a look at so many instances. With fewer than these all are looked at for each.
const LOOKS_PER_KEY: usize = 64;
/// And so much time pays for a look at one, for when few new keys come.
const TIME_PER_LOOK: Duration = Duration::from_micros(1);

impl<K, P> Room<K, P> {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            leaving: Vec::new(),
            looked: now,
            // The first look is free.
            asked: usize::MAX,
            hand: 0,
            overflowed: Edge(None),
            failed: Edge(None),
        }
    }

    fn look(&mut self, now: Moment) {
        (self.looked, self.asked) = (now, 0);
        self.leaving.clear();
        for (slot, home) in self.slots.iter().enumerate() {
            let Some(entry) = home.as_ref().filter(|entry| Arc::strong_count(entry) == 1) else { continue };
            let kept = entry.kept(now);
            if kept < Kept::Still {
                self.leaving.push(Candidate { kept, last_used: entry.last_used(), slot });
            }
        }
        self.leaving.sort_unstable_by_key(|&candidate| Reverse(candidate));
    }

    /// Whether enough has been paid for a look at all.
    fn may_look(&self, now: Moment) -> bool {
        let instances = self.slots.len();
        let time = TIME_PER_LOOK.saturating_mul(u32::try_from(instances).unwrap_or(u32::MAX));
        self.asked.saturating_mul(LOOKS_PER_KEY) >= instances || now.since(self.looked) >= time
    }

    /// The next one to go, as of the last look. Among few that is one of now.
    fn next_to_go(&mut self, now: Moment) -> Option<Candidate> {
        let enough_closed = self.leaving.last().is_some_and(|next| next.kept == Kept::Closed);
        let few = self.slots.len() <= LOOKS_PER_KEY;
        if (few || !enough_closed) && self.may_look(now) {
            self.look(now);
        }
        self.leaving.pop()
    }
}

impl<K: Hash + Eq, P> Room<K, P> {
    /// Makes a place, and gives its slot. Whoever had to leave it is added to those who are gone.
    pub(super) fn make(
        &mut self,
        map: &Map<K, P>,
        capacity: usize,
        now: Moment,
        gone: &mut Vec<Entry<K, P>>,
    ) -> Option<usize> {
        if self.free.is_empty() && self.slots.len() < capacity {
            self.free.push(self.slots.len());
            self.slots.push(None);
        }
        if self.free.is_empty() {
            self.asked = self.asked.saturating_add(1);
        }
        while self.free.is_empty() {
            let next = self.next_to_go(now)?;
            let unused = |entry: &Entry<K, P>| entry.last_used() == next.last_used && entry.kept(now) == next.kept;
            gone.extend(self.evict(map, next.slot, unused));
        }
        self.free.last().copied()
    }

    /// Gives an instance the slot that was just made for it.
    pub(super) fn settle(&mut self, map: &Map<K, P>, entry: Entry<K, P>) -> Arc<Entry<K, P>> {
        let slot = entry.slot;
        let entry = publish(map, entry);
        // It was the last one, and nobody else had the lock in between.
        self.free.pop();
        if let Some(home) = self.slots.get_mut(slot) {
            *home = Some(Arc::clone(&entry));
        }
        entry
    }

    /// Takes an instance out of its place if nobody holds it and it fits.
    //
    // `try_unwrap` succeeds only if the reference at home is the last one, and from then on nobody gets another: who
    // comes now finds nothing in the map, and waits for the lock. So there are never two instances of a key, and what
    // fits then fits for good.
    pub(super) fn evict(
        &mut self,
        map: &Map<K, P>,
        slot: usize,
        fits: impl Fn(&Entry<K, P>) -> bool,
    ) -> Option<Entry<K, P>> {
        let home = self.slots.get_mut(slot)?;
        let entry = home.take_if(|entry| fits(entry))?;
        match Arc::try_unwrap(entry) {
            Err(held) => *home = Some(held),
            Ok(entry) if fits(&entry) => {
                self.free.push(slot);
                if let Some(key) = &entry.key {
                    map.pin().remove(&Wanted::<K>(key));
                }
                return Some(entry);
            }
            // It was used since it was looked at, and may have been left with an open circuit: back to where it was.
            Ok(entry) => {
                let entry = publish(map, entry);
                if let Some(home) = self.slots.get_mut(slot) {
                    *home = Some(entry);
                }
            }
        }
        None
    }

    /// Takes out those that have not been used for so long, among the next so many slots.
    pub(super) fn sweep(
        &mut self,
        map: &Map<K, P>,
        now: Moment,
        idle_after: Duration,
        slots: usize,
    ) -> Vec<Entry<K, P>> {
        let idle = |entry: &Entry<K, P>| now.since(entry.last_used()) >= idle_after && entry.kept(now) < Kept::Still;
        let mut gone = Vec::new();
        for _ in 0..slots.min(self.slots.len()) {
            gone.extend(self.evict(map, self.hand, idle));
            self.hand = self.hand.checked_add(1).filter(|&next| next < self.slots.len()).unwrap_or(0);
        }
        gone
    }
}

/// Lets it be found, and gives the reference that keeps it.
fn publish<K: Hash + Eq, P>(map: &Map<K, P>, entry: Entry<K, P>) -> Arc<Entry<K, P>> {
    let entry = Arc::new(entry);
    if let Some(key) = &entry.key {
        map.pin().insert(SharedKey(Arc::clone(key)), Arc::downgrade(&entry));
    }
    entry
}

/// The first of a run of events, which ends when there has been none for a second.
pub(super) struct Edge(Option<Moment>);

impl Edge {
    pub(super) fn is_first(&mut self, now: Moment) -> bool {
        let last = self.0.replace(now);
        last.is_none_or(|last| now.since(last) >= Duration::from_secs(1))
    }
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use std::{cell::Cell, time::Duration};

    use crate::{keyed::Keyed, policies::timeout::Timeout};

    /// What no test from outside can time: a call comes, opens the circuit and goes, while its instance is being evicted.
    #[test]
    fn one_that_was_used_after_it_was_looked_at_goes_back_to_where_it_was() {
        let keyed =
            Keyed::<u32, Timeout>::builder(|_| Timeout::new(Duration::from_secs(1))).capacity(1).build().unwrap();
        let slot = keyed.get(&7).entry().slot;
        let looks = Cell::new(0);
        let fits_at_first = |_: &_| looks.replace(looks.get() + 1) == 0;
        assert!(keyed.enter().unwrap().evict(&keyed.map, slot, fits_at_first).is_none());
        assert_eq!(looks.get(), 2);

        assert_eq!(keyed.peek(&7).unwrap().entry().slot, slot);
        let evicted = keyed.enter().unwrap().evict(&keyed.map, slot, |_| true).unwrap();
        assert_eq!((evicted.key.as_deref(), keyed.len()), (Some(&7), 0));
        assert!(keyed.enter().unwrap().evict(&keyed.map, slot, |_| true).is_none(), "there is nobody");
    }
}
