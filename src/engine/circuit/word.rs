//! The word that admission reads: the state and the generation in one.

use crate::engine::window::low_half;

/// The state that transitions have led to. Unlike `State` it does not look at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Closed,
    Open,
    HalfOpen,
    Isolated,
}

/// Mode in the upper half, generation in the lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    pub(super) fn new(mode: Mode, generation: u32) -> Self {
        let mode: u64 = match mode {
            Mode::Closed => 0,
            Mode::Open => 1,
            Mode::HalfOpen => 2,
            Mode::Isolated => 3,
        };
        Self(mode << u32::BITS | u64::from(generation))
    }

    #[inline]
    pub(super) fn mode(self) -> Mode {
        match self.0 >> u32::BITS {
            0 => Mode::Closed,
            1 => Mode::Open,
            2 => Mode::HalfOpen,
            _ => Mode::Isolated,
        }
    }

    #[inline]
    pub(super) fn generation(self) -> u32 {
        low_half(self.0)
    }

    /// The word after a transition.
    pub(super) fn next(self, mode: Mode) -> Self {
        Self::new(mode, self.generation().wrapping_add(1))
    }
}
