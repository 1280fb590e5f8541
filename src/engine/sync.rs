//! The one door for atomics and locks: the standard library's, or those of loom or shuttle while a model is checked.

#[cfg(not(any(model_loom, model_shuttle)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

#[cfg(not(any(test, model_loom, model_shuttle)))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
pub(crate) use counted::{AtomicU32, AtomicU64};

#[cfg(model_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(model_shuttle)]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// The standard library's atomics, which count how often a thread goes to them: work that no clock has to measure.
#[cfg(all(test, not(any(model_loom, model_shuttle))))]
pub(crate) mod counted {
    use std::{
        cell::Cell,
        sync::atomic::{self, Ordering},
    };

    thread_local! {
        static ACCESSES: Cell<u64> = const { Cell::new(0) };
    }

    /// How often this thread goes to an atomic while it does this.
    pub(crate) fn accesses<R>(of: impl FnOnce() -> R) -> u64 {
        let before = ACCESSES.get();
        of();
        ACCESSES.get() - before
    }

    fn one_more() {
        ACCESSES.set(ACCESSES.get() + 1);
    }

    macro_rules! counted {
        ($name:ident, $word:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(atomic::$name);

            #[allow(dead_code, reason = "not every method is used on every type")]
            impl $name {
                pub(crate) const fn new(value: $word) -> Self {
                    Self(atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $word {
                    one_more();
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $word, order: Ordering) {
                    one_more();
                    self.0.store(value, order);
                }

                pub(crate) fn swap(&self, value: $word, order: Ordering) -> $word {
                    one_more();
                    self.0.swap(value, order)
                }

                pub(crate) fn fetch_add(&self, value: $word, order: Ordering) -> $word {
                    one_more();
                    self.0.fetch_add(value, order)
                }

                pub(crate) fn fetch_max(&self, value: $word, order: Ordering) -> $word {
                    one_more();
                    self.0.fetch_max(value, order)
                }

                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    update: impl FnMut($word) -> Option<$word>,
                ) -> Result<$word, $word> {
                    one_more();
                    self.0.fetch_update(set, fetch, update)
                }

                pub(crate) fn compare_exchange(
                    &self,
                    from: $word,
                    to: $word,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$word, $word> {
                    one_more();
                    self.0.compare_exchange(from, to, success, failure)
                }

                pub(crate) fn compare_exchange_weak(
                    &self,
                    from: $word,
                    to: $word,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$word, $word> {
                    one_more();
                    self.0.compare_exchange_weak(from, to, success, failure)
                }
            }
        };
    }

    counted!(AtomicU32, u32);
    counted!(AtomicU64, u64);
}
