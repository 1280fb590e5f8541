//! The lock around the room, which a thread that comes again from inside does not wait for.

use std::{
    ops::{Deref, DerefMut},
    ptr,
    sync::{
        MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::{Keyed, room::Room};

impl<K, P> Keyed<K, P> {
    /// Takes the lock. None if this thread has it already.
    pub(super) fn enter(&self) -> Option<Inside<'_, K, P>> {
        let me = this_thread();
        // Relaxed: a thread that finds itself here has put itself here, and nobody else's number matters.
        if self.inside.load(Relaxed) == me {
            return None;
        }
        // Whatever panics under the lock does so before or after a change, not in the middle of one.
        let room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        self.inside.store(me, Relaxed);
        Some(Inside { inside: &self.inside, room })
    }
}

/// A number that no other thread has while this one lives, and that is not 0.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| ptr::from_ref(here).addr())
}

/// The lock is held.
pub(super) struct Inside<'a, K, P> {
    inside: &'a AtomicUsize,
    room: MutexGuard<'a, Room<K, P>>,
}

impl<K, P> Deref for Inside<'_, K, P> {
    type Target = Room<K, P>;

    fn deref(&self) -> &Room<K, P> {
        &self.room
    }
}

impl<K, P> DerefMut for Inside<'_, K, P> {
    fn deref_mut(&mut self) -> &mut Room<K, P> {
        &mut self.room
    }
}

impl<K, P> Drop for Inside<'_, K, P> {
    fn drop(&mut self) {
        self.inside.store(0, Relaxed);
    }
}
