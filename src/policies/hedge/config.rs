//! A hedge from settings as data, and the change of a live one.

use std::{fmt, sync::Arc};

use super::{
    Hedge, HedgeBuilder, HedgeDelay, Shared,
    delay::{Delay, Kind, Quantile},
};
use crate::{
    amendment::{Amendment, fixed},
    budget::{BudgetChoice, RetryBudget},
    build::{IntoLayer, from_settings},
    config::{HedgeConfig, HedgeDelayConfig, QuantileConfig},
    error::ConfigError,
    layer::Live,
    name::Name,
};

from_settings!(HedgeConfig => Hedge);

impl IntoLayer<Hedge> for HedgeConfig {
    type Layer = Hedge;

    fn into_layer(self, default_name: Name) -> Result<Hedge, ConfigError> {
        let name = self.name.clone().map_or(default_name, Name::from);
        let builder = Hedge::builder();
        let budget = builder.budget.clone().configured(self.budget.as_ref(), self.without_budget);
        let builder = HedgeBuilder { budget: budget.map_err(|error| error.in_policy(&name))?, ..self.over(builder) };
        builder.name(name).build()
    }
}

impl HedgeConfig {
    /// What it says, and else what the builder says. Without the budget.
    fn over(&self, builder: HedgeBuilder) -> HedgeBuilder {
        HedgeBuilder {
            max_hedges: self.max_hedges.unwrap_or(builder.max_hedges),
            delay: match &self.delay {
                Some(config) => builder.delay.configured(config),
                None => builder.delay,
            },
            ..builder
        }
    }
}

impl HedgeDelay {
    fn configured(self, config: &HedgeDelayConfig) -> Self {
        match config {
            HedgeDelayConfig::Fixed(delay) => Self::fixed(*delay),
            HedgeDelayConfig::OnFailure => Self::on_failure(),
            HedgeDelayConfig::Quantile(config) => match self.0 {
                Kind::Quantile(_) => self.over(config),
                _ => Self::default().over(config),
            },
        }
    }

    fn over(self, config: &QuantileConfig) -> Self {
        fn with<V>(delay: HedgeDelay, value: Option<V>, set: fn(HedgeDelay, V) -> HedgeDelay) -> HedgeDelay {
            match value {
                Some(value) => set(delay, value),
                None => delay,
            }
        }
        let delay = with(self, config.quantile, |delay, share| delay.with(|quantile| quantile.share = share));
        let delay = with(delay, config.floor, Self::floor);
        let delay = with(delay, config.ceiling, Self::ceiling);
        let delay = with(delay, config.starting, Self::starting);
        let delay = with(delay, config.min_samples, Self::min_samples);
        with(delay, config.window, Self::window)
    }
}

impl Delay {
    /// As it would be given now.
    fn now(&self) -> HedgeDelay {
        HedgeDelay(match &self.kind {
            Kind::Fixed(_) => Kind::Fixed(self.fixed.get()),
            Kind::Quantile(quantile) => Kind::Quantile(Quantile {
                floor: self.floor.get(),
                ceiling: self.ceiling.get(),
                starting: self.starting.get(),
                ..quantile.clone()
            }),
            kind @ (Kind::OnFailure | Kind::Custom(_)) => kind.clone(),
        })
    }

    /// Refuses another way to wait, and another quantile: what is measured is measured for it.
    fn check_same(&self, asked: &Self) -> Result<(), ConfigError> {
        fixed("delay", &kind(&self.kind), &kind(&asked.kind))?;
        if let (Kind::Quantile(built), Kind::Quantile(asked)) = (&self.kind, &asked.kind) {
            fixed("quantile", &built.share, &asked.share)?;
            fixed("min_samples", &built.min_samples, &asked.min_samples)?;
            fixed("window", &built.window, &asked.window)?;
        }
        Ok(())
    }
}

/// A word for the kind of delay.
fn kind(kind: &Kind) -> Word {
    Word(match kind {
        Kind::Fixed(_) => "a duration",
        Kind::OnFailure => "on_failure",
        Kind::Quantile(_) => "a quantile",
        Kind::Custom(_) => "a function",
    })
}

#[derive(PartialEq)]
struct Word(&'static str);

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Shared {
    pub(super) fn amended(self: &Arc<Self>, config: &HedgeConfig) -> Result<Amendment, ConfigError> {
        let live = HedgeBuilder {
            name: Some(self.id.name.clone()),
            max_hedges: self.max_hedges.get(),
            delay: self.delay.now(),
            budget: self.budget.clone().map_or(BudgetChoice::Unlimited, BudgetChoice::Shared),
        };
        let fresh = config.over(live).build()?.shared;
        self.delay.check_same(&fresh.delay)?;
        let mut amendment = Amendment::new(fresh.info());
        amendment.tune("max_hedges", self, |shared| &shared.max_hedges, fresh.max_hedges.get());
        amendment.tune("delay", self, |shared| &shared.delay.fixed, fresh.delay.fixed.get());
        amendment.tune("floor", self, |shared| &shared.delay.floor, fresh.delay.floor.get());
        amendment.tune("ceiling", self, |shared| &shared.delay.ceiling, fresh.delay.ceiling.get());
        amendment.tune("starting", self, |shared| &shared.delay.starting, fresh.delay.starting.get());
        RetryBudget::amended(self.budget.as_ref(), config.budget.as_ref(), config.without_budget, &mut amendment)?;
        Ok(amendment)
    }
}
