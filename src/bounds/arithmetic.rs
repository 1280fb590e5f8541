//! Sums and products of bounds. They saturate: what reaches the largest number is no limit any more.

use std::time::Duration;

use super::Bound;

/// What a bound can be about.
pub(super) trait Amount: Copy + Ord {
    const ZERO: Self;
    const MAX: Self;
    fn plus(self, other: Self) -> Self;
    fn times(self, factor: u32) -> Self;
}

impl Amount for u64 {
    const ZERO: Self = 0;
    const MAX: Self = Self::MAX;

    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }

    fn times(self, factor: u32) -> Self {
        self.saturating_mul(factor.into())
    }
}

impl Amount for Duration {
    const ZERO: Self = Self::ZERO;
    const MAX: Self = Self::MAX;

    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }

    fn times(self, factor: u32) -> Self {
        self.saturating_mul(factor)
    }
}

/// A trait, so that [`Amount`] stays out of what users see of a bound.
pub(super) trait Arithmetic<T>: Sized {
    const ZERO: Self;

    /// At most this, unless it is so much that it stands for "no limit".
    fn upto(most: T) -> Self;

    /// The same, and unknown where nobody tells.
    fn told(most: Option<T>) -> Self;

    fn plus(self, other: Self) -> Self;

    fn times(self, factor: u32) -> Self;

    /// The tighter of two bounds that both hold.
    fn and(self, other: Self) -> Self;

    /// The looser of two bounds of which one holds.
    fn or(self, other: Self) -> Self;
}

impl<T: Amount> Arithmetic<T> for Bound<T> {
    const ZERO: Self = Self::AtMost(T::ZERO);

    fn upto(most: T) -> Self {
        if most == T::MAX { Self::Unbounded } else { Self::AtMost(most) }
    }

    fn told(most: Option<T>) -> Self {
        most.map_or(Self::Unknown, Self::upto)
    }

    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::AtMost(a), Self::AtMost(b)) => Self::upto(a.plus(b)),
            // Whatever the unknown part is.
            (Self::Unbounded, _) | (_, Self::Unbounded) => Self::Unbounded,
            _ => Self::Unknown,
        }
    }

    fn times(self, factor: u32) -> Self {
        match self {
            _ if factor == 0 => Self::ZERO,
            Self::AtMost(most) => Self::upto(most.times(factor)),
            other => other,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::AtMost(a), Self::AtMost(b)) => Self::AtMost(a.min(b)),
            (Self::AtMost(a), _) | (_, Self::AtMost(a)) => Self::AtMost(a),
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            _ => Self::Unbounded,
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::AtMost(a), Self::AtMost(b)) => Self::AtMost(a.max(b)),
            (Self::Unbounded, _) | (_, Self::Unbounded) => Self::Unbounded,
            _ => Self::Unknown,
        }
    }
}
