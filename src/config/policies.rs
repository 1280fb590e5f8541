//! The settings of each policy as data. What is none has its default, or stays as it is.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    durations::{self, Human},
    given, given_map,
};
pub use crate::engine::backoff::BackoffKind;
use crate::engine::backoff::Jitter;

/// A [`Timeout`](crate::Timeout): a duration alone, `timeout = "4s"`, or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TimeoutConfig {
    /// The name. Default: `timeout`; a second one in a pipeline is `timeout-2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The limit. Required.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub limit: Option<Duration>,
}

impl TimeoutConfig {
    /// A timeout of this length.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { name: None, limit: Some(limit) }
    }
}

impl<'de> Deserialize<'de> for TimeoutConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            #[serde(default, deserialize_with = "given")]
            name: Option<String>,
            #[serde(default, with = "durations")]
            limit: Option<Duration>,
        }

        struct DurationOrMap;

        impl<'de> Visitor<'de> for DurationOrMap {
            type Value = TimeoutConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Human.expecting(f)?;
                f.write_str(", or a map with `limit`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TimeoutConfig, E> {
                Human::read(text).map(TimeoutConfig::new)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TimeoutConfig, A::Error> {
                let Fields { name, limit } = Fields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(TimeoutConfig { name, limit })
            }
        }

        deserializer.deserialize_any(DurationOrMap)
    }
}

/// A [`Retry`](crate::Retry).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryConfig {
    /// The name. Default: `retry`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The most attempts, the first included.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The waits between attempts.
    #[serde(deserialize_with = "given_map", skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffConfig>,
    /// No attempt begins later than this after the first.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub max_elapsed: Option<Duration>,
    /// No repeat begins with less time than this to the deadline.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub min_time_left: Option<Duration>,
    /// The longest hint that is obeyed.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub max_hint: Option<Duration>,
    /// A budget of its own.
    #[serde(deserialize_with = "given_map", skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetConfig>,
    /// Whether it draws on no budget. Fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub without_budget: Option<bool>,
    /// Whether it repeats what was refused in this process. Fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub retry_rejected: Option<bool>,
    /// Whether it repeats what a retry further in has given up on. Fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub repeat_spent: Option<bool>,
}

/// A [`Backoff`](crate::Backoff).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BackoffConfig {
    /// How the delays grow. Default: exponential.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub kind: Option<BackoffKind>,
    /// The first delay; of a constant one every delay. Default: 50 ms.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub base: Option<Duration>,
    /// The factor of an exponential one.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The longest delay.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub cap: Option<Duration>,
    /// How the delays are spread: `"full"`, `"equal"` or `"none"`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
}

/// A [`RetryBudget`](crate::RetryBudget).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BudgetConfig {
    /// What each success deposits, in tokens.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The tokens at first. Fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub initial: Option<u32>,
    /// The most tokens that it holds.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
}

/// A [`Bulkhead`](crate::Bulkhead).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BulkheadConfig {
    /// The name. Default: `bulkhead`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The most calls at once. Required.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The most calls that wait. Whether there is a queue at all is fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub queue: Option<usize>,
    /// The longest wait.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Duration>,
}

/// A [`CircuitBreaker`](crate::CircuitBreaker). Its windows and their sizes are fixed once it is built.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CircuitBreakerConfig {
    /// The name. Default: `circuit_breaker`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Looks at the calls of this long. Fixed once it is built.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub time_window: Option<Duration>,
    /// Looks at so many calls. Fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub count_window: Option<u32>,
    /// Opens after so many failures in a row. Whether it does so at all is fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// The least time from the first of them to the last.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub consecutive_span: Option<Duration>,
    /// Opens when the share of failures is this or more.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<f64>,
    /// Rates mean nothing below this many calls.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub min_calls: Option<u32>,
    /// Calls that take this long are slow.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub slow_call: Option<Duration>,
    /// Opens when the share of slow calls is this or more.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub slow_rate: Option<f64>,
    /// The first break.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub open_for: Option<Duration>,
    /// What a break grows by when a probe fails.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub growth: Option<f64>,
    /// The longest break.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub max_open_for: Option<Duration>,
    /// The share by which a break is made longer at most.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// The probes of a half-open phase.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub probes: Option<u32>,
    /// The successes among them that close it.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub close_after: Option<u32>,
    /// How long a probe may be out.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub probe_lease: Option<Duration>,
}

/// A [`Hedge`](crate::Hedge).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HedgeConfig {
    /// The name. Default: `hedge`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The most hedges of a call.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_hedges: Option<u32>,
    /// When the next one begins.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub delay: Option<HedgeDelayConfig>,
    /// A budget of its own.
    #[serde(deserialize_with = "given_map", skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetConfig>,
    /// Whether it draws on no budget. Fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub without_budget: Option<bool>,
}

/// A [`HedgeDelay`](crate::HedgeDelay): a duration, `"parallel"`, `"on_failure"`, or a map with a quantile. Which of them
/// it is, is fixed once it is built.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum HedgeDelayConfig {
    /// Always so long; zero is parallel.
    Fixed(Duration),
    /// When an attempt has failed.
    OnFailure,
    /// After a quantile of the recent latencies.
    Quantile(QuantileConfig),
}

/// The quantile after which a hedge begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct QuantileConfig {
    /// The share of calls that is faster. Default: 0.95. Fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub quantile: Option<f64>,
    /// The shortest delay.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub floor: Option<Duration>,
    /// The longest delay.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Duration>,
    /// The delay before there are enough samples.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub starting: Option<Duration>,
    /// How many samples are enough. Fixed once it is built.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub min_samples: Option<u32>,
    /// The length of one of the three windows. Fixed once it is built.
    #[serde(with = "durations", skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
}

const PARALLEL: &str = "parallel";
const ON_FAILURE: &str = "on_failure";

impl Serialize for HedgeDelayConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(Duration::ZERO) => serializer.serialize_str(PARALLEL),
            Self::Fixed(delay) => serializer.collect_str(&humantime::format_duration(*delay)),
            Self::OnFailure => serializer.serialize_str(ON_FAILURE),
            Self::Quantile(quantile) => quantile.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for HedgeDelayConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap;

        impl<'de> Visitor<'de> for WordOrMap {
            type Value = HedgeDelayConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Human.expecting(f)?;
                f.write_str(", \"parallel\", \"on_failure\", or a map with a quantile")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HedgeDelayConfig, E> {
                match text {
                    PARALLEL => Ok(HedgeDelayConfig::Fixed(Duration::ZERO)),
                    ON_FAILURE => Ok(HedgeDelayConfig::OnFailure),
                    delay => humantime::parse_duration(delay)
                        .map(HedgeDelayConfig::Fixed)
                        .map_err(|_| E::invalid_value(de::Unexpected::Str(delay), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HedgeDelayConfig, A::Error> {
                QuantileConfig::deserialize(MapAccessDeserializer::new(map)).map(HedgeDelayConfig::Quantile)
            }
        }

        deserializer.deserialize_any(WordOrMap)
    }
}
