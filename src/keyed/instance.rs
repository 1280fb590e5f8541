//! The instance of a key, and who holds it.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::kept::{Keepers, Kept};
use crate::{clock, engine::moment::Moment, policy::Describe};

/// The policy of one key, held: it stays where it is until this is dropped.
///
/// It is used as the policy itself: `hosts.get(host).call(..)`. Clones are the same instance.
pub struct Instance<K, P> {
    entry: Arc<Entry<K, P>>,
    /// Whether this is a use, after which it counts as recently used.
    uses: bool,
}

impl<K, P> Instance<K, P> {
    #[inline]
    pub(super) fn for_a_call(entry: Arc<Entry<K, P>>) -> Self {
        Self { entry, uses: true }
    }

    pub(super) fn to_look_at(entry: Arc<Entry<K, P>>) -> Self {
        Self { entry, uses: false }
    }

    #[cfg(all(test, not(any(model_loom, model_shuttle))))]
    pub(super) fn entry(&self) -> &Entry<K, P> {
        &self.entry
    }

    /// The key whose instance this is; none for the overflow instance, which keys share that found no room. Like that of
    /// [`Arc`], this is no method, so that it hides none of the policy's: `Instance::key(&instance)`.
    #[must_use]
    pub fn key(this: &Self) -> Option<&K> {
        this.entry.key.as_deref()
    }
}

impl<K, P> Deref for Instance<K, P> {
    type Target = P;

    #[inline]
    fn deref(&self) -> &P {
        &self.entry.policy
    }
}

impl<K, P> Clone for Instance<K, P> {
    fn clone(&self) -> Self {
        Self { entry: Arc::clone(&self.entry), uses: self.uses }
    }
}

impl<K, P> Drop for Instance<K, P> {
    #[inline]
    fn drop(&mut self) {
        if self.uses {
            // Relaxed: whoever finds that nobody holds the entry any more sees what was done before it was let go.
            self.entry.last_used.store(clock::now().nanos(), Relaxed);
        }
    }
}

impl<K, P: fmt::Debug> fmt::Debug for Instance<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// An instance where it lives. One strong reference is at home, in the room; all others are calls or lookers.
pub(super) struct Entry<K, P> {
    /// None for the overflow instance.
    pub(super) key: Option<Arc<K>>,
    pub(super) slot: usize,
    pub(super) policy: P,
    last_used: AtomicU64,
    keepers: Keepers,
}

impl<K, P: Describe> Entry<K, P> {
    pub(super) fn new(key: Option<Arc<K>>, slot: usize, policy: P, now: Moment) -> Self {
        let keepers = Keepers::of(&policy);
        Self { key, slot, policy, last_used: AtomicU64::new(now.nanos()), keepers }
    }
}

impl<K, P> Entry<K, P> {
    pub(super) fn last_used(&self) -> Moment {
        Moment::from_nanos(self.last_used.load(Relaxed))
    }

    pub(super) fn kept(&self, now: Moment) -> Kept {
        self.keepers.kept(now)
    }
}
