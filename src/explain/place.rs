//! A layer and what is around it: how rules look at a pipeline.

use std::{fmt, time::Duration};

use crate::{
    event::Kind,
    layer::{HedgeWait, LayerInfo, Role},
};

/// A layer, the layers around it and the layers inside it.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) layer: &'a LayerInfo,
    /// From the outermost one on.
    pub(super) outside: &'a [LayerInfo],
    /// From the nearest one on.
    pub(super) inside: &'a [LayerInfo],
    /// The layer itself and those inside.
    pub(super) onward: &'a [LayerInfo],
}

pub(super) fn places(layers: &[LayerInfo]) -> impl Iterator<Item = Place<'_>> {
    (0..layers.len()).filter_map(|index| {
        let (outside, onward) = layers.split_at_checked(index)?;
        let (layer, inside) = onward.split_first()?;
        Some(Place { layer, outside, inside, onward })
    })
}

/// A timeout of those around or inside of something.
#[derive(Clone, Copy)]
pub(super) struct Limit<'a> {
    pub(super) layer: &'a LayerInfo,
    pub(super) limit: Duration,
}

/// The timeout that ends first.
pub(super) fn shortest_limit<'a>(layers: impl IntoIterator<Item = &'a LayerInfo>) -> Option<Limit<'a>> {
    let limits = layers.into_iter().filter_map(|layer| match layer.role {
        Role::Timeout { limit } => Some(Limit { layer, limit }),
        _ => None,
    });
    limits.min_by_key(|found| found.limit)
}

impl<'a> Place<'a> {
    pub(super) fn shortest_limit_outside(&self) -> Option<Limit<'a>> {
        shortest_limit(self.outside)
    }

    /// Of the timeouts around it those of the whole call.
    pub(super) fn shortest_total_limit(&self) -> Option<Limit<'a>> {
        shortest_limit(self.outside.iter().take_while(|layer| !repeats(layer)))
    }

    /// Of the timeouts around it those of an attempt.
    pub(super) fn shortest_attempt_limit_outside(&self) -> Option<Limit<'a>> {
        shortest_limit(self.outside.iter().skip_while(|layer| !repeats(layer)))
    }

    pub(super) fn first_inside(&self, kind: Kind) -> Option<&'a LayerInfo> {
        self.inside.iter().find(|layer| layer.kind() == kind)
    }

    /// The first retry inside that makes more than one attempt.
    pub(super) fn retry_inside(&self) -> Option<&'a LayerInfo> {
        self.inside.iter().find(|layer| matches!(layer.role, Role::Retry { attempts: 2.., .. }))
    }
}

fn repeats(layer: &LayerInfo) -> bool {
    matches!(layer.kind(), Kind::Retry | Kind::Hedge)
}

/// The delay of a hedge that always waits the same; a quantile's longest one is only a ceiling.
pub(super) fn fixed_delay(hedge: &LayerInfo) -> Option<Duration> {
    match hedge.role {
        Role::Hedge { wait: HedgeWait::Fixed(delay), .. } => Some(delay),
        _ => None,
    }
}

/// A layer in a sentence: "the circuit breaker `users`".
pub(super) struct The<'a>(pub(super) &'a LayerInfo);

impl fmt::Display for The<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0.kind() {
            Kind::CircuitBreaker => "circuit breaker",
            Kind::Custom => "custom layer",
            kind => kind.as_str(),
        };
        write!(f, "the {kind} `{}`", self.0.name())
    }
}

impl fmt::Display for Limit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        The(self.layer).fmt(f)
    }
}
