//! From a builder to a layer, and what several builders check alike.

use std::{sync::Arc, time::Duration};

use crate::{error::ConfigError, name::Name};

/// What a [`PipelineBuilder`](crate::PipelineBuilder) takes for a policy `P`: its builder, the policy itself, or an
/// [`Arc`] of one that is shared with other pipelines.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not make a layer of `{P}`",
    label = "expected the builder of `{P}`, a built one, or an `Arc` of one",
    note = "give the builder as it is, without `.build()`: the pipeline's `build()` builds all its layers",
    note = "a timeout takes a `std::time::Duration` as well"
)]
pub trait IntoLayer<P> {
    /// The layer that it becomes.
    type Layer;

    /// Builds the layer. The name is for a builder that was given none.
    ///
    /// # Errors
    ///
    /// What the builder says of its settings.
    fn into_layer(self, name: Name) -> Result<Self::Layer, ConfigError>;
}

impl<P> IntoLayer<P> for P {
    type Layer = P;

    fn into_layer(self, _: Name) -> Result<P, ConfigError> {
        Ok(self)
    }
}

impl<P> IntoLayer<P> for Arc<P> {
    type Layer = Self;

    fn into_layer(self, _: Name) -> Result<Self, ConfigError> {
        Ok(self)
    }
}

/// Longer than any process runs: what is beyond is meant as "for ever".
pub(crate) const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

pub(crate) fn more_than_zero(field: &'static str, duration: Duration) -> Result<(), ConfigError> {
    if duration.is_zero() {
        return Err(ConfigError::new(field, "0s", "more than 0s"));
    }
    Ok(())
}

/// A share such as a failure rate: in (0, 1].
pub(crate) fn share(field: &'static str, share: f64) -> Result<(), ConfigError> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(ConfigError::new(field, share, "more than 0 and at most 1"))
}

/// Builds a policy from settings as data, without a pipeline.
#[cfg(feature = "serde")]
macro_rules! from_settings {
    ($config:ident => $policy:ident) => {
        impl $config {
            /// Builds the policy alone.
            ///
            /// # Errors
            ///
            /// If a setting is missing or out of its range; the error names it.
            pub fn build(self) -> Result<$policy, ConfigError> {
                $crate::build::IntoLayer::<$policy>::into_layer(self, $crate::event::Kind::$policy.into())
            }
        }
    };
}

#[cfg(feature = "serde")]
pub(crate) use from_settings;
