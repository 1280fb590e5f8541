//! What keeps an instance from going.

use crate::{
    engine::moment::Moment,
    layer::LiveLayer,
    policy::{Describe, layers_of},
};

/// Whether the circuits of an instance allow it to go, in the order in which they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kept {
    /// All are closed.
    Closed,
    /// One is not closed, but its break is over.
    Over,
    /// One is open.
    Still,
}

/// The layers of an instance that can keep it: its circuit breakers.
pub(super) struct Keepers(Vec<LiveLayer>);

impl Keepers {
    pub(super) fn of(policy: &impl Describe) -> Self {
        Self(layers_of(policy).into_iter().filter_map(|layer| layer.live).collect())
    }

    pub(super) fn kept(&self, now: Moment) -> Kept {
        let kept = |layer: &LiveLayer| match layer.0.keep_until(now) {
            until if until > now => Kept::Still,
            until if until > Moment::from_nanos(0) => Kept::Over,
            _ => Kept::Closed,
        };
        self.0.iter().map(kept).max().unwrap_or(Kept::Closed)
    }
}
