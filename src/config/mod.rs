//! Settings as data: from TOML, YAML, JSON or whatever else serde reads.

mod durations;
mod policies;

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
    ser::SerializeMap,
};

pub use policies::{
    BackoffConfig, BackoffKind, BudgetConfig, BulkheadConfig, CircuitBreakerConfig, HedgeConfig, HedgeDelayConfig,
    QuantileConfig, RetryConfig, TimeoutConfig,
};

use crate::{error::ConfigError, event::Kind};

/// A whole pipeline as data: its name, and its layers from the outside in.
///
/// What is left out has its default when a pipeline is built from it
/// ([`Pipeline::from_config`](crate::Pipeline::from_config)), and stays as it is when a live one is changed by it
/// ([`PipelineHandle::update`](crate::PipelineHandle::update)). Fields are called as the builders' methods are; durations
/// are written as people do: `"250ms"`, `"1m 30s"`. Unknown fields are refused, and errors name the path to what is wrong.
///
/// In TOML, read with `toml::from_str::<PipelineConfig>(..)`:
///
/// ```toml
/// name = "users-api"
/// layers = [
///     { timeout = "4s" },
///     { retry = { max_attempts = 3, backoff = { base = "50ms", cap = "1s" } } },
///     { bulkhead = { limit = 100 } },
///     { circuit_breaker = { failure_rate = 0.5, min_calls = 20, slow_call = "800ms" } },
///     { timeout = "1s" },
/// ]
/// ```
///
/// In YAML:
///
/// ```yaml
/// name: users-api
/// layers:
///   - timeout: 4s
///   - retry: { max_attempts: 3, backoff: { base: 50ms, cap: 1s } }
///   - bulkhead: { limit: 100 }
///   - circuit_breaker: { failure_rate: 0.5, min_calls: 20, slow_call: 800ms }
///   - timeout: 1s
/// ```
///
/// In JSON:
///
/// ```json
/// { "name": "users-api",
///   "layers": [
///     { "timeout": "4s" },
///     { "retry": { "max_attempts": 3, "backoff": { "base": "50ms", "cap": "1s" } } },
///     { "bulkhead": { "limit": 100 } },
///     { "circuit_breaker": { "failure_rate": 0.5, "min_calls": 20, "slow_call": "800ms" } },
///     { "timeout": "1s" }
///   ] }
/// ```
///
/// In code:
///
/// ```
/// use std::time::Duration;
/// use withstand::{BulkheadConfig, Pipeline, PipelineConfig, TimeoutConfig};
///
/// let mut bulkhead = BulkheadConfig::default();
/// bulkhead.limit = Some(100);
/// let config = PipelineConfig::new("users-api").layer(TimeoutConfig::new(Duration::from_secs(4))).layer(bulkhead);
/// let users = Pipeline::from_config(config).build()?;
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// A fallback is not among them: what it answers with is code. Put it around them, see
/// [`PipelineBuilder::configured`](crate::PipelineBuilder::configured).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PipelineConfig {
    /// The pipeline's name.
    pub name: String,
    /// Its layers, from the outside in.
    pub layers: Vec<LayerConfig>,
}

impl PipelineConfig {
    /// A pipeline of this name, without layers.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), layers: Vec::new() }
    }

    /// With another layer, further in than those before it.
    #[must_use]
    pub fn layer(mut self, layer: impl Into<LayerConfig>) -> Self {
        self.layers.push(layer.into());
        self
    }
}

impl<'de> Deserialize<'de> for PipelineConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            name: String,
            #[serde(default)]
            layers: Vec<LayerConfig>,
        }

        // The path is in the error itself, so that it is there whatever reads the file.
        let MapOf(fields): MapOf<Fields> = serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let path = error.path().to_string();
            let error = error.into_inner();
            if path == "." { error } else { de::Error::custom(format_args!("{path}: {}", Said(&error))) }
        })?;
        Ok(Self { name: fields.name, layers: fields.layers })
    }
}

/// What is written is given: null is no value, and is refused like any other that does not fit.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn given_map<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    MapOf::deserialize(deserializer).map(|MapOf(settings)| Some(settings))
}

/// Settings by their names: serde would also take a list of them in the order of the fields.
struct MapOf<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for MapOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Settings<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Settings<T> {
            type Value = MapOf<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MapOf<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(MapOf)
            }
        }

        deserializer.deserialize_map(Settings(PhantomData))
    }
}

/// What an error says, without what its reader says around it once more: an empty line, and in TOML the path.
struct Said<'a, E>(&'a E);

impl<E: fmt::Display> fmt::Display for Said<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let text = text.trim_end();
        f.write_str(text.rsplit_once("\nin `").map_or(text, |(said, _path)| said))
    }
}

/// One layer as data: a map of one key, the kind of policy.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LayerConfig {
    /// `timeout`
    Timeout(TimeoutConfig),
    /// `retry`
    Retry(RetryConfig),
    /// `circuit_breaker`
    CircuitBreaker(CircuitBreakerConfig),
    /// `bulkhead`
    Bulkhead(BulkheadConfig),
    /// `hedge`
    Hedge(HedgeConfig),
}

const KINDS: &[&str] = &["timeout", "retry", "circuit_breaker", "bulkhead", "hedge"];

impl LayerConfig {
    /// The kind of policy.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Timeout(_) => Kind::Timeout,
            Self::Retry(_) => Kind::Retry,
            Self::CircuitBreaker(_) => Kind::CircuitBreaker,
            Self::Bulkhead(_) => Kind::Bulkhead,
            Self::Hedge(_) => Kind::Hedge,
        }
    }

    /// The name, if it has been given one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Timeout(config) => config.name.as_deref(),
            Self::Retry(config) => config.name.as_deref(),
            Self::CircuitBreaker(config) => config.name.as_deref(),
            Self::Bulkhead(config) => config.name.as_deref(),
            Self::Hedge(config) => config.name.as_deref(),
        }
    }

    /// The settings of a policy that is of another kind than the layer that they are for.
    pub(crate) fn misplaced(&self, kind: Kind) -> ConfigError {
        ConfigError::new("kind", self.kind(), format!("{kind}, the kind of the live layer"))
    }
}

macro_rules! layers {
    ($($config:ident => $kind:ident),+) => {$(
        impl From<$config> for LayerConfig {
            fn from(config: $config) -> Self {
                Self::$kind(config)
            }
        }
    )+};
}

layers!(
    TimeoutConfig => Timeout,
    RetryConfig => Retry,
    CircuitBreakerConfig => CircuitBreaker,
    BulkheadConfig => Bulkhead,
    HedgeConfig => Hedge
);

impl Serialize for LayerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_key(self.kind().as_str())?;
        match self {
            Self::Timeout(config) => map.serialize_value(config)?,
            Self::Retry(config) => map.serialize_value(config)?,
            Self::CircuitBreaker(config) => map.serialize_value(config)?,
            Self::Bulkhead(config) => map.serialize_value(config)?,
            Self::Hedge(config) => map.serialize_value(config)?,
        }
        map.end()
    }
}

// By hand, because formats do not agree on how an enum is written: this is a map in all of them.
impl<'de> Deserialize<'de> for LayerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneLayer;

        fn settings<'de, A: MapAccess<'de>, T: Deserialize<'de>>(map: &mut A) -> Result<T, A::Error> {
            map.next_value().map(|MapOf(settings)| settings)
        }

        impl<'de> Visitor<'de> for OneLayer {
            type Value = LayerConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a layer: a map of one key, the kind of policy")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LayerConfig, A::Error> {
                let Some(kind) = map.next_key::<String>()? else {
                    return Err(de::Error::invalid_length(0, &self));
                };
                let layer = match kind.as_str() {
                    "timeout" => LayerConfig::Timeout(map.next_value()?),
                    "retry" => LayerConfig::Retry(settings(&mut map)?),
                    "circuit_breaker" => LayerConfig::CircuitBreaker(settings(&mut map)?),
                    "bulkhead" => LayerConfig::Bulkhead(settings(&mut map)?),
                    "hedge" => LayerConfig::Hedge(settings(&mut map)?),
                    other => {
                        return Err(de::Error::custom(format_args!(
                            "unknown kind of layer `{other}`, expected one of {}",
                            KINDS.join(", ")
                        )));
                    }
                };
                match map.next_key::<String>()? {
                    None => Ok(layer),
                    Some(second) => Err(de::Error::custom(format_args!(
                        "`{second}` beside `{kind}`: each layer is a map of its own, in the order of the layers"
                    ))),
                }
            }
        }

        deserializer.deserialize_map(OneLayer)
    }
}
