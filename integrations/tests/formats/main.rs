//! Settings from TOML, YAML and JSON, and snapshots written as JSON.

mod durations;
mod errors;
mod examples;
mod hostile;
mod round_trip;
mod snapshots;

use serde::{Deserialize, Serialize};
use withstand::PipelineConfig;

/// What the formats have in common.
const FORMATS: [Format; 3] = [Format::Json, Format::Toml, Format::Yaml];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Json,
    Toml,
    Yaml,
}

/// A service's own settings, of which a pipeline is a part.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Service {
    users: PipelineConfig,
}

impl Format {
    fn read<T: for<'de> Deserialize<'de>>(self, text: &str) -> Result<T, String> {
        match self {
            Self::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
            Self::Toml => toml::from_str(text).map_err(|error| error.to_string()),
            Self::Yaml => serde_saphyr::from_str(text).map_err(|error| error.to_string()),
        }
    }

    fn write<T: Serialize>(self, value: &T) -> String {
        match self {
            Self::Json => serde_json::to_string(value).unwrap(),
            Self::Toml => toml::to_string(value).unwrap(),
            Self::Yaml => serde_saphyr::to_string(value).unwrap(),
        }
    }

    /// The settings as the field `users` of a [`Service`].
    fn within(self, text: &str) -> String {
        match self {
            Self::Json => format!("{{\"users\": {text}}}"),
            Self::Toml => format!("[users]\n{text}"),
            Self::Yaml => format!("users:\n{}", text.lines().map(|line| format!("  {line}\n")).collect::<String>()),
        }
    }
}
