//! What cannot work across layers: `build()` refuses it.

use std::time::Duration;

use super::place::{Limit, Place, The, fixed_delay, places};
use crate::{
    bounds,
    error::ConfigError,
    event::Kind,
    layer::{LayerInfo, Role},
};

/// Finds what cannot work, from the outside in.
pub(crate) fn validate(layers: &[LayerInfo]) -> Result<(), ConfigError> {
    places(layers).try_for_each(|place| check(&place).map_err(|error| error.in_policy(place.layer.name())))
}

fn check(place: &Place<'_>) -> Result<(), ConfigError> {
    check_name(place)?;
    match place.layer.role {
        Role::Timeout { limit } => check_shorter("limit", limit, place.shortest_limit_outside()),
        Role::CircuitBreaker { lease: Some(lease), .. } => check_lease(place, lease),
        // Inside the timeout of an attempt a queue that outlasts it is a warning: other attempts follow.
        Role::Bulkhead { queue: 1.., max_wait, .. } => {
            check_shorter("max_wait", max_wait, place.shortest_total_limit())
        }
        Role::Hedge { .. } => match fixed_delay(place.layer) {
            Some(delay) => check_shorter("delay", delay, place.shortest_limit_outside()),
            None => Ok(()),
        },
        Role::Fallback { hides_failures: true, .. } => check_fallback(place),
        Role::Retry { .. }
        | Role::CircuitBreaker { .. }
        | Role::Bulkhead { .. }
        | Role::Fallback { .. }
        | Role::Custom { .. } => Ok(()),
        #[cfg(feature = "chaos")]
        Role::Chaos { .. } => Ok(()),
    }
}

/// Events, errors and metrics tell layers apart by their names. A policy that does not describe itself cannot be given
/// one and is let be.
fn check_name(place: &Place<'_>) -> Result<(), ConfigError> {
    if !is_named(place.layer) {
        return Ok(());
    }
    let name = place.layer.name();
    if name.as_str().trim().is_empty() {
        let error = ConfigError::new("name", format_args!("{name:?}"), "a name that is not blank");
        return Err(error.in_policy(&place.layer.kind().into()));
    }
    if place.outside.iter().any(|other| is_named(other) && other.name() == name) {
        let accepted = "a name of its own: give one of the two .name(\"...\")";
        return Err(ConfigError::new("name", format_args!("{name:?}, as that of a layer around it"), accepted));
    }
    Ok(())
}

fn is_named(layer: &LayerInfo) -> bool {
    !matches!(layer.role, Role::Custom { named: false, .. })
}

/// What is as long as a timeout around it is never reached.
fn check_shorter(field: &'static str, duration: Duration, around: Option<Limit<'_>>) -> Result<(), ConfigError> {
    match around {
        Some(around) if duration >= around.limit => {
            let accepted = format!("less than {:?}, the limit of {around} around it", around.limit);
            Err(ConfigError::new(field, format_args!("{duration:?}"), accepted))
        }
        _ => Ok(()),
    }
}

/// A lease that ends before the call does would void the verdict of every slow probe.
fn check_lease(place: &Place<'_>, lease: Duration) -> Result<(), ConfigError> {
    let Some(inside) = bounds::of(place.inside).time.at_most() else { return Ok(()) };
    let longest = place.shortest_limit_outside().map_or(inside, |around| around.limit.min(inside));
    if lease > longest {
        return Ok(());
    }
    let accepted = format!("more than {longest:?}, the longest that a call inside can take");
    Err(ConfigError::new("probe_lease", format_args!("{lease:?}"), accepted))
}

fn check_fallback(place: &Place<'_>) -> Result<(), ConfigError> {
    let blinds = |layer: &&LayerInfo| matches!(layer.kind(), Kind::Retry | Kind::Hedge | Kind::CircuitBreaker);
    match place.outside.iter().find(blinds).map(The) {
        Some(blinded) => {
            let accepted = format!("outside of {blinded}: from inside it would hide every failure");
            Err(ConfigError::new("position", format_args!("inside {blinded}"), accepted))
        }
        None => Ok(()),
    }
}
