//! What the engines' validation says about a setting that it does not take.

/// A refused setting. The floor above adds the names of pipeline and policy and makes a `ConfigError` of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) field: &'static str,
    pub(crate) value: String,
    pub(crate) accepted: &'static str,
}
