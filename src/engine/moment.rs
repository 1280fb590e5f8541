//! A point in time as one word, so that it fits an atomic.

use std::{fmt, time::Duration};

/// Nanoseconds on the process's monotonic scale. Which instant is zero is decided one floor up; here only order and
/// distance count. All arithmetic saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Later than every moment that can be read from a clock.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn nanos(self) -> u64 {
        self.0
    }

    /// This moment moved into the future; [`Moment::NEVER`] where the sum does not fit.
    #[inline]
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// How long after `earlier` this moment is; zero if it is not after it.
    #[inline]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The same in one word.
    #[inline]
    pub(crate) fn hint_since(self, earlier: Self) -> Hint {
        Hint::of(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in nanoseconds, saturating after 584 years.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    // Cheaper than by way of 128 bits, and the same.
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

/// A duration that may be absent, in one word: nanoseconds, saturating below the value that means none. A `Duration` has
/// twelve bytes, and what holds one is copied in odd pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hint(u64);

impl Hint {
    pub(crate) const NONE: Self = Self(u64::MAX);

    fn of(nanos: u64) -> Self {
        Self(nanos.min(u64::MAX.saturating_sub(1)))
    }

    pub(crate) const fn get(self) -> Option<Duration> {
        match self {
            Self::NONE => None,
            Self(nanos) => Some(Duration::from_nanos(nanos)),
        }
    }
}

impl From<Option<Duration>> for Hint {
    #[inline]
    fn from(duration: Option<Duration>) -> Self {
        duration.map_or(Self::NONE, |duration| Self::of(nanos(duration)))
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl From<Duration> for Hint {
    #[inline]
    fn from(duration: Duration) -> Self {
        Some(duration).into()
    }
}
