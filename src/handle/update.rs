//! Changes of the settings of live pipelines: all or nothing.

use std::sync::{Arc, Mutex, PoisonError};

use super::{PipelineHandle, Registry};
use crate::{
    amendment::{Amendment, FieldChange},
    bounds,
    config::PipelineConfig,
    error::ConfigError,
    event::EventKind,
    explain,
    layer::{self, LayerInfo, LiveLayer},
};

impl PipelineHandle {
    /// Changes the settings of the live pipeline to what the configuration says: limits, rates, delays, attempts. What it
    /// does not mention stays as it is. Tells what has changed; observers hear of each change
    /// ([`EventKind::Reconfigured`](crate::EventKind::Reconfigured)).
    ///
    /// All or nothing: what [`build`](crate::PipelineBuilder::build) would refuse is refused here, layers against each
    /// other included, and then nothing has changed. Permits, waiters, counts and states are kept, and no call waits:
    /// one that is under way may see some settings as before and some as after. Breaks and half-open phases that have
    /// begun go on as they began; a permit beyond a lowered limit is taken back when it comes free.
    ///
    /// Layers go by their names: the one that they were given, or else their kind, numbered from the second of a kind on.
    /// They may be left out, but not added, renamed or put into another order. Windows and their kinds and sizes, whether
    /// there is a queue or a budget at all, and the quantile of a hedge stay as they were built.
    ///
    /// ```
    /// use std::time::Duration;
    /// use withstand::{BulkheadConfig, Pipeline, PipelineConfig, TimeoutConfig};
    ///
    /// let users = Pipeline::standard("users-api").build()?;
    /// let mut bulkhead = BulkheadConfig::default();
    /// bulkhead.limit = Some(20);
    /// let config = PipelineConfig::new("users-api").layer(TimeoutConfig::new(Duration::from_secs(3))).layer(bulkhead);
    /// let changes = users.handle().update(&config)?;
    /// assert_eq!(changes.iter().map(|change| change.field).collect::<Vec<_>>(), ["limit", "limit"]);
    ///
    /// // The limit of an attempt is 1 s: a total one of half a second is refused.
    /// let config = PipelineConfig::new("users-api").layer(TimeoutConfig::new(Duration::from_millis(500)));
    /// assert!(users.handle().update(&config).is_err());
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or is one that a live pipeline keeps: the error names it.
    pub fn update(&self, config: &PipelineConfig) -> Result<Vec<FieldChange>, ConfigError> {
        update(std::slice::from_ref(self), config)
    }

    /// The amendments to the layers that the configuration mentions, each with the place of its layer.
    fn amendments(&self, config: &PipelineConfig) -> Result<Vec<(usize, Amendment)>, ConfigError> {
        let managed = &self.managed;
        if managed.name != *config.name.as_str() {
            let accepted = format!("{:?}: a live pipeline keeps its name", managed.name.as_str());
            return Err(ConfigError::new("name", format_args!("{:?}", config.name), accepted));
        }
        let mut amendments: Vec<(usize, Amendment)> = Vec::new();
        for (name, layer) in layer::named(&config.layers) {
            let Some(place) = managed.layers.iter().position(|live| live.id.name == name) else {
                let names: Vec<&str> = managed.layers.iter().map(|live| live.id.name.as_str()).collect();
                let accepted = format!("the name of a live layer: {}", names.join(", "));
                return Err(ConfigError::new("layers", format_args!("`{name}`"), accepted));
            };
            if amendments.last().is_some_and(|(before, _)| *before >= place) {
                let accepted = "each layer once, in the order of the live ones";
                return Err(ConfigError::new("layers", format_args!("`{name}` out of its place"), accepted));
            }
            let policy = managed.layers.get(place).and_then(|live| live.live.as_ref());
            let amendment = match policy {
                Some(LiveLayer(policy)) => Arc::clone(policy).amend(layer).map_err(|error| error.in_policy(&name))?,
                None => return Err(ConfigError::new("layers", format_args!("`{name}`"), "a layer that has settings")),
            };
            amendments.push((place, amendment));
        }
        let mut infos = managed.infos();
        for (place, amendment) in &amendments {
            if let Some(info) = infos.get_mut(*place) {
                *info = LayerInfo { id: info.id.clone(), ..amendment.info.clone() };
            }
        }
        explain::validate(&infos)?;
        Ok(amendments)
    }

    /// Carries them out, and tells those who listen.
    fn carry_out(&self, amendments: Vec<(usize, Amendment)>) -> Vec<FieldChange> {
        let mut all = Vec::new();
        for (place, amendment) in amendments {
            let changes = amendment.carry_out();
            if let (Some(layer), Some(telemetry)) = (self.managed.layers.get(place), self.managed.telemetry.upgrade()) {
                for FieldChange { field, old, new } in &changes {
                    let (field, old, new) = (*field, old.clone(), new.clone());
                    telemetry.emit(Some(&layer.id), || EventKind::Reconfigured { field, old, new });
                }
            }
            all.extend(changes);
        }
        let infos = self.managed.infos();
        for (place, (_, policy)) in self.managed.layers().enumerate() {
            let inside = infos.get(place.saturating_add(1)..).unwrap_or_default();
            if let Some(policy) = policy {
                policy.inside_changed(bounds::of(inside).time.at_most());
            }
        }
        all
    }
}

/// Changes several pipelines, all or none.
pub(super) fn update(pipelines: &[PipelineHandle], config: &PipelineConfig) -> Result<Vec<FieldChange>, ConfigError> {
    /// One after the other in the whole process: pipelines may share policies.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let planned =
        |pipeline: &PipelineHandle| pipeline.amendments(config).map_err(|error| error.in_pipeline(pipeline.name()));
    let amendments = pipelines.iter().map(planned).collect::<Result<Vec<_>, _>>()?;
    Ok(pipelines.iter().zip(amendments).flat_map(|(pipeline, them)| pipeline.carry_out(them)).collect())
}

impl Registry {
    /// Changes the settings of all pipelines of the configuration's name, all or none: see
    /// [`PipelineHandle::update`].
    ///
    /// # Errors
    ///
    /// If there is none of this name, or one of them refuses.
    pub fn update(&self, config: &PipelineConfig) -> Result<Vec<FieldChange>, ConfigError> {
        update(&self.named(&config.name)?, config)
    }
}
