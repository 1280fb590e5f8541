//! A timeout from settings as data, and the change of a live one.

use std::sync::Arc;

use super::{Shared, Timeout};
use crate::{
    amendment::Amendment,
    build::{IntoLayer, from_settings},
    config::TimeoutConfig,
    error::ConfigError,
    layer::{LayerInfo, Live},
    name::Name,
};

from_settings!(TimeoutConfig => Timeout);

impl IntoLayer<Timeout> for TimeoutConfig {
    type Layer = Timeout;

    fn into_layer(self, default_name: Name) -> Result<Timeout, ConfigError> {
        let name = self.name.map_or(default_name, Name::from);
        let limit = self.limit.ok_or_else(|| {
            ConfigError::new("limit", "missing", "how long it may take; there is no safe default").in_policy(&name)
        })?;
        Timeout::builder(limit).name(name).build()
    }
}

impl Shared {
    pub(super) fn amended(self: &Arc<Self>, config: &TimeoutConfig) -> Result<Amendment, ConfigError> {
        let fresh =
            Timeout::builder(config.limit.unwrap_or_else(|| self.limit.get())).name(self.id.name.clone()).build()?;
        let mut amendment = Amendment::new(LayerInfo { id: self.id.clone(), ..fresh.shared.info() });
        amendment.tune("limit", self, |shared| &shared.limit, fresh.limit());
        Ok(amendment)
    }
}
