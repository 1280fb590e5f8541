//! A circuit breaker from settings as data, and the change of a live one.

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use super::{CircuitBreaker, CircuitBreakerBuilder, Shared};
use crate::{
    amendment::{Amendment, fixed, shown},
    build::{IntoLayer, from_settings},
    config::CircuitBreakerConfig,
    error::ConfigError,
    layer::Live,
    name::Name,
};

from_settings!(CircuitBreakerConfig => CircuitBreaker);

impl IntoLayer<CircuitBreaker> for CircuitBreakerConfig {
    type Layer = CircuitBreaker;

    fn into_layer(self, default_name: Name) -> Result<CircuitBreaker, ConfigError> {
        let name = self.name.clone().map_or(default_name, Name::from);
        CircuitBreaker::builder().configured(&self).name(name).build()
    }
}

impl Shared {
    pub(super) fn amended(self: &Arc<Self>, config: &CircuitBreakerConfig) -> Result<Amendment, ConfigError> {
        let was = self.asked();
        let old = was.settings();
        keeps("time_window", old.time_window, config.time_window)?;
        keeps("count_window", old.count_window, config.count_window)?;
        let streak = old.consecutive.map(|(failures, _)| failures);
        if streak.is_none() {
            keeps("consecutive_failures", streak, config.consecutive_failures)?;
            keeps("consecutive_span", None, config.consecutive_span)?;
        }
        let asked = was.clone().configured(config);
        let fresh = asked.clone().name(self.id.name.clone()).build()?.shared;
        let new = asked.settings();
        let mut amendment = Amendment::new(fresh.info());
        let (was_for, is_for) = (old.consecutive.unzip(), new.consecutive.unzip());
        amendment.changes("consecutive_failures", shown(&was_for.0), shown(&is_for.0));
        amendment.changes("consecutive_span", shown(&was_for.1), shown(&is_for.1));
        amendment.changes("failure_rate", shown(&old.failure_rate), shown(&new.failure_rate));
        amendment.changes("min_calls", shown(&old.min_calls), shown(&new.min_calls));
        amendment.tune("slow_call", self, |shared| &shared.slow_call, fresh.slow_call.get());
        amendment.changes("slow_rate", shown(&old.slow_rate), shown(&new.slow_rate));
        amendment.changes("open_for", shown(&old.open_for), shown(&new.open_for));
        amendment.changes("growth", shown(&old.growth), shown(&new.growth));
        amendment.changes("max_open_for", shown(&old.max_open), shown(&new.max_open));
        amendment.changes("jitter", shown(&old.jitter), shown(&new.jitter));
        amendment.changes("probes", shown(&old.probes), shown(&new.probes));
        amendment.changes("close_after", shown(&old.close_after), shown(&new.close_after));
        amendment.changes("probe_lease", shown(&was.lease()), shown(&asked.lease()));
        let shared = self.clone();
        // Whatever has changed: a default that was asked for by its value is no default any more.
        amendment.act(move || {
            shared.circuit.set(new);
            if let Some(lease) = asked.lease() {
                shared.circuit.set_lease(lease);
            }
            *shared.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        });
        Ok(amendment)
    }
}

/// Refuses to change what is fixed, where it is asked for.
fn keeps<T: Copy + PartialEq + fmt::Debug>(
    field: &'static str,
    built: Option<T>,
    asked: Option<T>,
) -> Result<(), ConfigError> {
    if asked.is_some() { fixed(field, &built, &asked) } else { Ok(()) }
}

impl CircuitBreakerBuilder {
    /// What the settings say, and else what was said before.
    fn configured(self, config: &CircuitBreakerConfig) -> Self {
        Self {
            count_window: config.count_window.or(self.count_window),
            time_window: config.time_window.or(self.time_window),
            consecutive: config.consecutive_failures.or(self.consecutive),
            consecutive_span: config.consecutive_span.or(self.consecutive_span),
            failure_rate: config.failure_rate.or(self.failure_rate),
            min_calls: config.min_calls.or(self.min_calls),
            slow_call: config.slow_call.or(self.slow_call),
            slow_rate: config.slow_rate.or(self.slow_rate),
            open_for: config.open_for.unwrap_or(self.open_for),
            growth: config.growth.unwrap_or(self.growth),
            max_open_for: config.max_open_for.or(self.max_open_for),
            jitter: config.jitter.unwrap_or(self.jitter),
            probes: config.probes.unwrap_or(self.probes),
            close_after: config.close_after.or(self.close_after),
            probe_lease: config.probe_lease.or(self.probe_lease),
            ..self
        }
    }
}
