//! A retry from settings as data, and the change of a live one.

use std::sync::Arc;

use super::{Retry, RetryBuilder, Shared};
use crate::{
    amendment::{Amendment, fixed},
    budget::{BudgetChoice, RetryBudget},
    build::{IntoLayer, from_settings},
    config::{BackoffConfig, RetryConfig},
    engine::backoff::Backoff,
    error::ConfigError,
    layer::Live,
    name::Name,
};

from_settings!(RetryConfig => Retry);

impl IntoLayer<Retry> for RetryConfig {
    type Layer = Retry;

    fn into_layer(self, default_name: Name) -> Result<Retry, ConfigError> {
        let name = self.name.clone().map_or(default_name, Name::from);
        let builder = Retry::builder();
        let budget = builder.budget.clone().configured(self.budget.as_ref(), self.without_budget);
        let builder = RetryBuilder { budget: budget.map_err(|error| error.in_policy(&name))?, ..self.over(builder) };
        builder.name(name).build()
    }
}

impl RetryConfig {
    /// What it says, and else what the builder says. Without the budget.
    fn over(&self, builder: RetryBuilder) -> RetryBuilder {
        RetryBuilder {
            max_attempts: self.max_attempts.unwrap_or(builder.max_attempts),
            backoff: match &self.backoff {
                Some(config) => over(builder.backoff, config),
                None => builder.backoff,
            },
            max_elapsed: self.max_elapsed.or(builder.max_elapsed),
            min_time_left: self.min_time_left.unwrap_or(builder.min_time_left),
            max_hint: self.max_hint.unwrap_or(builder.max_hint),
            repeat_rejected: self.retry_rejected.unwrap_or(builder.repeat_rejected),
            repeat_spent: self.repeat_spent.unwrap_or(builder.repeat_spent),
            ..builder
        }
    }
}

/// What the settings say, and else what the backoff says.
fn over(backoff: Backoff, config: &BackoffConfig) -> Backoff {
    let mut backoff = backoff.regrown(config.kind, config.base);
    if let Some(factor) = config.factor {
        backoff = backoff.factor(factor);
    }
    if let Some(cap) = config.cap {
        backoff = backoff.cap(cap);
    }
    if let Some(jitter) = config.jitter {
        backoff = backoff.jitter(jitter);
    }
    backoff
}

impl Shared {
    /// The builder of a retry like this one, on the same budget.
    fn builder(&self) -> RetryBuilder {
        RetryBuilder {
            name: Some(self.id.name.clone()),
            max_attempts: self.max_attempts.get(),
            backoff: self.backoff.get(),
            max_elapsed: self.max_elapsed.get(),
            min_time_left: self.min_time_left.get(),
            max_hint: self.max_hint.get(),
            budget: self.budget.clone().map_or(BudgetChoice::Unlimited, BudgetChoice::Shared),
            repeat_rejected: self.repeat_rejected,
            repeat_spent: self.repeat_spent,
            seed: None,
        }
    }

    pub(super) fn amended(self: &Arc<Self>, config: &RetryConfig) -> Result<Amendment, ConfigError> {
        if let Some(BackoffConfig { kind: None, base: Some(base), .. }) = &config.backoff {
            if self.backoff.get().is_custom() {
                let accepted = "a base together with a kind: the live backoff is a function, which has none";
                return Err(ConfigError::new("base", format_args!("{base:?}"), accepted));
            }
        }
        let fresh = config.over(self.builder()).build()?.shared;
        fixed("retry_rejected", &self.repeat_rejected, &fresh.repeat_rejected)?;
        fixed("repeat_spent", &self.repeat_spent, &fresh.repeat_spent)?;
        let mut amendment = Amendment::new(fresh.info());
        amendment.tune("max_attempts", self, |shared| &shared.max_attempts, fresh.max_attempts.get());
        let (old, new): (Backoff, Backoff) = (self.backoff.get(), fresh.backoff.get());
        amendment.changes("backoff", old.describe(), new.describe());
        let shared = self.clone();
        // Whatever has changed: a default that was asked for by its value is no default any more.
        amendment.act(move || shared.backoff.set(&new));
        amendment.tune("max_elapsed", self, |shared| &shared.max_elapsed, fresh.max_elapsed.get());
        amendment.tune("min_time_left", self, |shared| &shared.min_time_left, fresh.min_time_left.get());
        amendment.tune("max_hint", self, |shared| &shared.max_hint, fresh.max_hint.get());
        RetryBudget::amended(self.budget.as_ref(), config.budget.as_ref(), config.without_budget, &mut amendment)?;
        Ok(amendment)
    }
}
