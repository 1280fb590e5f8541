//! Live pipelines whose settings are changed: what changes, what is refused, who hears of it.
#![cfg(all(test, feature = "serde"))]

#[path = "../support/random.rs"]
mod random;
#[path = "../support/mod.rs"]
mod support;

mod atomic;
mod breaker;
mod bulkhead;
mod fresh;
mod hedge;
mod load;
mod refused;
mod retry;
mod sharing;
mod telling;
mod timeout;

use withstand::{ConfigError, FieldChange, LayerConfig, PipelineConfig, PipelineHandle};

/// Settings of which some are given.
macro_rules! settings {
    ($config:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        #[allow(unused_mut, reason = "some have none")]
        let mut settings = $config::default();
        $(settings.$field = Some($value);)*
        settings
    }};
}
pub(crate) use settings;

/// A handle that is given its layers, and not its name again.
trait Tune {
    fn tune(&self, layers: impl IntoIterator<Item = LayerConfig>) -> Result<Vec<FieldChange>, ConfigError>;

    /// As lines.
    fn tuned(&self, layer: impl Into<LayerConfig>) -> Vec<String>;

    fn refusal(&self, layer: impl Into<LayerConfig>) -> String;
}

impl Tune for PipelineHandle {
    fn tune(&self, layers: impl IntoIterator<Item = LayerConfig>) -> Result<Vec<FieldChange>, ConfigError> {
        self.update(&layers.into_iter().fold(PipelineConfig::new(self.name().as_str()), PipelineConfig::layer))
    }

    fn tuned(&self, layer: impl Into<LayerConfig>) -> Vec<String> {
        self.tune([layer.into()]).unwrap().iter().map(ToString::to_string).collect()
    }

    fn refusal(&self, layer: impl Into<LayerConfig>) -> String {
        let before = (format!("{:?}", self.snapshot()), self.explain().to_string());
        let error = self.tune([layer.into()]).unwrap_err().to_string();
        assert_eq!((format!("{:?}", self.snapshot()), self.explain().to_string()), before, "though it was refused");
        error
    }
}
