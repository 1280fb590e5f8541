//! A bulkhead from settings as data, and the change of a live one.

use std::sync::Arc;

use super::{Bulkhead, BulkheadBuilder, Shared};
use crate::{
    amendment::Amendment,
    build::{IntoLayer, from_settings},
    config::BulkheadConfig,
    error::ConfigError,
    layer::Live,
    name::Name,
};

from_settings!(BulkheadConfig => Bulkhead);

impl IntoLayer<Bulkhead> for BulkheadConfig {
    type Layer = Bulkhead;

    fn into_layer(self, default_name: Name) -> Result<Bulkhead, ConfigError> {
        let name = self.name.clone().map_or(default_name, Name::from);
        self.over(Bulkhead::builder()).name(name).build()
    }
}

impl BulkheadConfig {
    /// What it says, and else what the builder says.
    fn over(&self, builder: BulkheadBuilder) -> BulkheadBuilder {
        BulkheadBuilder {
            limit: self.limit.or(builder.limit),
            queue: self.queue.unwrap_or(builder.queue),
            max_wait: self.max_wait.or(builder.max_wait),
            ..builder
        }
    }
}

impl Shared {
    pub(super) fn amended(self: &Arc<Self>, config: &BulkheadConfig) -> Result<Amendment, ConfigError> {
        let queue = self.queue.get();
        let live = BulkheadBuilder {
            name: Some(self.id.name.clone()),
            limit: Some(self.permits.limit()),
            queue,
            max_wait: (queue > 0).then(|| self.max_wait.get()),
        };
        let asked = config.queue.unwrap_or(queue);
        if (asked == 0) != (queue == 0) {
            let accepted = if queue == 0 {
                "0, as it was built: a live one gets no queue"
            } else {
                "1 or more: a live one keeps its queue"
            };
            return Err(ConfigError::new("queue", asked, accepted));
        }
        let fresh = config.over(live).build()?.shared;
        let mut amendment = Amendment::new(fresh.info());
        let (old, new) = (self.permits.limit(), fresh.permits.limit());
        if old != new {
            amendment.changes("limit", old.to_string(), new.to_string());
            let shared = self.clone();
            amendment.act_and_tell(move || {
                let old = shared.permits.set_limit(new);
                Box::new(move || shared.tell_of_limit(old, new))
            });
        }
        amendment.tune("queue", self, |shared| &shared.queue, fresh.queue.get());
        amendment.tune("max_wait", self, |shared| &shared.max_wait, fresh.max_wait.get());
        Ok(amendment)
    }
}
