//! The plan of a pipeline: worst cases and warnings.

use crate::{error::ConfigError, layer::LayerInfo, name::Name};

/// Plan
#[derive(Clone, Debug)]
pub struct Plan {
    name: Name,
    layers: Vec<LayerInfo>,
    classified: bool,
}
/// Warning
#[derive(Clone, Copy, Debug)]
pub struct Warning;

impl Plan {
    pub(crate) fn new(name: Name, layers: Vec<LayerInfo>, classified: bool) -> Self {
        Self { name, layers, classified }
    }
}

pub(crate) fn validate(_: &[LayerInfo]) -> Result<(), ConfigError> {
    Ok(())
}
