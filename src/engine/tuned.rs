//! Numbers that are changed while calls read them.

use std::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::moment::nanos;

/// A setting in one word, which a call reads without a lock.
///
/// Each by itself: a call that is under way while several change may see some as before and some as after.
//
// Relaxed: a number that orders nothing else. Not through `sync`: there is no interleaving to check in one number.
pub(crate) struct Tuned<T>(AtomicU64, PhantomData<T>);

/// What fits into the word of a [`Tuned`].
pub(crate) trait Tunable: Copy {
    fn to_word(self) -> u64;
    fn from_word(word: u64) -> Self;
}

impl<T: Tunable> Tuned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(AtomicU64::new(value.to_word()), PhantomData)
    }

    #[inline]
    pub(crate) fn get(&self) -> T {
        T::from_word(self.word())
    }

    /// The word as it is: of a duration, its nanoseconds.
    #[inline(always)]
    pub(crate) fn word(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[cfg_attr(not(any(feature = "serde", test)), expect(dead_code, reason = "settings change by configuration"))]
    pub(crate) fn set(&self, value: T) {
        self.0.store(value.to_word(), Relaxed);
    }
}

impl<T: Tunable + fmt::Debug> fmt::Debug for Tuned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Tunable for u64 {
    #[inline]
    fn to_word(self) -> u64 {
        self
    }

    #[inline]
    fn from_word(word: u64) -> Self {
        word
    }
}

impl Tunable for u32 {
    #[inline]
    fn to_word(self) -> u64 {
        self.into()
    }

    #[inline]
    fn from_word(word: u64) -> Self {
        Self::try_from(word).unwrap_or(Self::MAX)
    }
}

impl Tunable for usize {
    #[inline]
    fn to_word(self) -> u64 {
        u64::try_from(self).unwrap_or(u64::MAX)
    }

    #[inline]
    fn from_word(word: u64) -> Self {
        Self::try_from(word).unwrap_or(Self::MAX)
    }
}

impl Tunable for f64 {
    #[inline]
    fn to_word(self) -> u64 {
        self.to_bits()
    }

    #[inline]
    fn from_word(word: u64) -> Self {
        Self::from_bits(word)
    }
}

/// A duration of more than 584 years is the longest there is.
impl Tunable for Duration {
    #[inline]
    fn to_word(self) -> u64 {
        nanos(self)
    }

    #[inline]
    fn from_word(word: u64) -> Self {
        if word == u64::MAX { Self::MAX } else { Self::from_nanos(word) }
    }
}

const NONE: u64 = u64::MAX;
const LONGEST: u64 = NONE - 1;

impl Tunable for Option<Duration> {
    #[inline]
    fn to_word(self) -> u64 {
        self.map_or(NONE, |duration| nanos(duration).min(LONGEST))
    }

    #[inline]
    fn from_word(word: u64) -> Self {
        match word {
            NONE => None,
            LONGEST => Some(Duration::MAX),
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// A number that is none is no number.
impl Tunable for Option<f64> {
    #[inline]
    fn to_word(self) -> u64 {
        self.unwrap_or(f64::NAN).to_bits()
    }

    #[inline]
    fn from_word(word: u64) -> Self {
        Some(f64::from_bits(word)).filter(|number| !number.is_nan())
    }
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn comes_back<T: Tunable + PartialEq + fmt::Debug>(value: T) {
        assert_eq!(T::from_word(value.to_word()), value);
        let tuned = Tuned::new(value);
        tuned.set(value);
        assert_eq!(tuned.get(), value);
    }

    proptest! {
        #[test]
        fn what_is_set_is_what_is_read(number: u32, size: usize, nanos in 0..LONGEST, share in 0.0..=1.0_f64) {
            comes_back(number);
            comes_back(size);
            comes_back(share);
            comes_back(Some(share));
            comes_back(None::<f64>);
            comes_back(Duration::from_nanos(nanos));
            comes_back(Some(Duration::from_nanos(nanos)));
            comes_back(None::<Duration>);
        }
    }

    #[test]
    fn the_longest_duration_is_itself() {
        assert_eq!(Tuned::new(Duration::MAX).get(), Duration::MAX);
        assert_eq!(Tuned::new(Some(Duration::MAX)).get(), Some(Duration::MAX));
    }
}
