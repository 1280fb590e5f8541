//! When a builder is given nonsense.

use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::{engine::refused::Refused, name::Name};

/// Nonsense in a configuration, found by `build()` before the first call.
///
/// It names the pipeline and the policy (where they are known), the field, the value, and what would be accepted:
///
/// ```
/// use withstand::{CircuitBreaker, Pipeline};
///
/// let error = Pipeline::builder("users-api")
///     .circuit_breaker(CircuitBreaker::builder().failure_rate(f64::NAN))
///     .build()
///     .unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "pipeline `users-api`, policy `circuit_breaker`: failure_rate is NaN; accepted: more than 0 and at most 1",
/// );
/// ```
///
/// `{:?}`, which `unwrap()`, `expect(..)` and a `main` that returns it print, says the same.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError(Box<Nonsense>);

#[derive(Clone, PartialEq, Eq)]
struct Nonsense {
    pipeline: Option<Name>,
    policy: Option<Name>,
    field: &'static str,
    value: String,
    accepted: Cow<'static, str>,
}

impl ConfigError {
    /// An error about a field, its value, and what would be accepted.
    #[must_use]
    pub fn new(field: &'static str, value: impl fmt::Display, accepted: impl Into<Cow<'static, str>>) -> Self {
        let (value, accepted) = (value.to_string(), accepted.into());
        Self(Box::new(Nonsense { pipeline: None, policy: None, field, value, accepted }))
    }

    /// The same error about a policy of that name, unless it names one already.
    #[must_use]
    pub fn in_policy(mut self, policy: &Name) -> Self {
        self.0.policy.get_or_insert_with(|| policy.clone());
        self
    }

    /// The same error about a policy of that name, whichever it names.
    #[cfg(feature = "serde")]
    pub(crate) fn of_policy(mut self, policy: &Name) -> Self {
        self.0.policy = Some(policy.clone());
        self
    }

    /// The same error about a pipeline of that name, unless it names one already.
    #[must_use]
    pub fn in_pipeline(mut self, pipeline: &Name) -> Self {
        self.0.pipeline.get_or_insert_with(|| pipeline.clone());
        self
    }

    /// The pipeline's name, if one was being built.
    #[must_use]
    pub fn pipeline(&self) -> Option<&Name> {
        self.0.pipeline.as_ref()
    }

    /// The policy's name, if the error is about one.
    #[must_use]
    pub fn policy(&self) -> Option<&Name> {
        self.0.policy.as_ref()
    }

    /// The field, as the builder's method is called.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.0.field
    }

    /// The value that was given.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.0.value
    }

    /// What would be accepted.
    #[must_use]
    pub fn accepted(&self) -> &str {
        &self.0.accepted
    }
}

impl From<Refused> for ConfigError {
    fn from(refused: Refused) -> Self {
        Self::new(refused.field, refused.value, refused.accepted)
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigError({self})")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Nonsense { pipeline, policy, field, value, accepted } = &*self.0;
        match (pipeline, policy) {
            (Some(pipeline), Some(policy)) => write!(f, "pipeline `{pipeline}`, policy `{policy}`: ")?,
            (Some(pipeline), None) => write!(f, "pipeline `{pipeline}`: ")?,
            (None, Some(policy)) => write!(f, "policy `{policy}`: ")?,
            (None, None) => {}
        }
        write!(f, "{field} is {value}; accepted: {accepted}")
    }
}

impl StdError for ConfigError {}
