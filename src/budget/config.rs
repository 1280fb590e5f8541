//! A budget from settings as data, and the change of a live one.

use std::sync::Arc;

use super::{BudgetChoice, RetryBudget, RetryBudgetBuilder};
use crate::{
    amendment::{Amendment, fixed},
    config::BudgetConfig,
    error::ConfigError,
    layer::BudgetInfo,
};

impl BudgetChoice {
    /// The budget that the settings ask for, and else this one.
    pub(crate) fn configured(self, config: Option<&BudgetConfig>, without: Option<bool>) -> Result<Self, ConfigError> {
        match (config, without, self) {
            (Some(_), Some(true), _) => {
                Err(ConfigError::new("without_budget", "true beside a budget", "one of the two, not both"))
            }
            (None, Some(true), _) => Ok(Self::Unlimited),
            (Some(config), _, Self::Own(default)) => Ok(Self::Own(default.configured(config))),
            (_, _, choice) => Ok(choice),
        }
    }
}

impl RetryBudgetBuilder {
    fn configured(self, config: &BudgetConfig) -> Self {
        Self {
            ratio: config.ratio.unwrap_or(self.ratio),
            initial: config.initial.or(self.initial),
            cap: config.cap.unwrap_or(self.cap),
        }
    }
}

impl RetryBudget {
    /// Plans what the settings ask of a live budget, or of a live policy that has none.
    pub(crate) fn amended(
        live: Option<&Arc<Self>>,
        config: Option<&BudgetConfig>,
        without: Option<bool>,
        amendment: &mut Amendment,
    ) -> Result<(), ConfigError> {
        if let Some(without) = without {
            fixed("without_budget", &live.is_none(), &without)?;
        }
        let Some(config) = config else { return Ok(()) };
        let Some(budget) = live else {
            return Err(ConfigError::new("budget", "given", "nothing: a live policy without a budget gets none"));
        };
        if let Some(initial) = config.initial {
            fixed("initial", &budget.initial(), &initial)?;
        }
        let (ratio, cap) = (config.ratio.unwrap_or(budget.ratio()), config.cap.unwrap_or(budget.cap()));
        // Refuses what a new one would be refused for.
        let fresh = Self::builder().ratio(ratio).initial(0).cap(cap).build()?;
        amendment.changes("ratio", budget.ratio().to_string(), fresh.ratio().to_string());
        amendment.changes("cap", budget.cap().to_string(), cap.to_string());
        amendment.budget = Some(BudgetInfo { id: budget.id(), ..fresh.info() });
        let budget = budget.clone();
        amendment.act(move || budget.engine.set(ratio, cap));
        Ok(())
    }
}
