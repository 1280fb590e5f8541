//! A circuit breaker from settings as data, and the change of a live one.

use std::sync::{Arc, PoisonError};

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
        let asked = self.asked().name(self.id.name.clone()).configured(config);
        let fresh = asked.clone().build()?.shared;
        let (old, new) = (self.asked().settings(), asked.settings());
        fixed("time_window", &old.time_window, &new.time_window)?;
        fixed("count_window", &old.count_window, &new.count_window)?;
        let (streak, wanted) = (old.consecutive, new.consecutive);
        if streak.is_some() != wanted.is_some() {
            fixed(
                "consecutive_failures",
                &streak.map(|(failures, _)| failures),
                &wanted.map(|(failures, _)| failures),
            )?;
        }
        let mut amendment = Amendment::new(fresh.info());
        let fields = [
            ("consecutive_failures", shown(&streak.map(|streak| streak.0)), shown(&wanted.map(|streak| streak.0))),
            ("consecutive_span", shown(&streak.map(|streak| streak.1)), shown(&wanted.map(|streak| streak.1))),
            ("failure_rate", shown(&old.failure_rate), shown(&new.failure_rate)),
            ("slow_rate", shown(&old.slow_rate), shown(&new.slow_rate)),
            ("min_calls", shown(&old.min_calls), shown(&new.min_calls)),
            ("open_for", shown(&old.open_for), shown(&new.open_for)),
            ("growth", shown(&old.growth), shown(&new.growth)),
            ("max_open_for", shown(&old.max_open), shown(&new.max_open)),
            ("jitter", shown(&old.jitter), shown(&new.jitter)),
            ("probes", shown(&old.probes), shown(&new.probes)),
            ("close_after", shown(&old.close_after), shown(&new.close_after)),
        ];
        for (field, old, new) in fields {
            amendment.act(field, old, new, || ());
        }
        amendment.tune("slow_call", self, |shared| &shared.slow_call, fresh.slow_call.get());
        let (shared, lease) = (self.clone(), asked.lease());
        amendment.act("probe_lease", shown(&self.asked().lease()), shown(&lease), move || {
            if let Some(lease) = lease {
                shared.circuit.set_lease(lease);
            }
        });
        let shared = self.clone();
        amendment.finally(move || {
            shared.circuit.set(new);
            *shared.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        });
        Ok(amendment)
    }
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
