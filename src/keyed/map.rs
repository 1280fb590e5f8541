//! The map that finds an instance by its key.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    sync::{Arc, Weak},
};

use super::instance::Entry;

/// A dead entry belongs to an instance that is just going: it is replaced under the lock.
pub(super) type Map<K, P> = papaya::HashMap<SharedKey<K>, Weak<Entry<K, P>>>;

/// A key, shared by the map and the instance.
pub(super) struct SharedKey<K>(pub(super) Arc<K>);

impl<K: Eq> PartialEq for SharedKey<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K: Eq> Eq for SharedKey<K> {}

impl<K: Hash> Hash for SharedKey<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A key in a form that it can be borrowed as.
#[derive(Hash)]
pub(super) struct Wanted<'a, Q: ?Sized>(pub(super) &'a Q);

impl<K: Borrow<Q>, Q: Eq + ?Sized> papaya::Equivalent<SharedKey<K>> for Wanted<'_, Q> {
    fn equivalent(&self, key: &SharedKey<K>) -> bool {
        *self.0 == *(*key.0).borrow()
    }
}
