//! The type of a pipeline's layers, written the way one reads them.

/// The type of a pipeline's layers, from the outside in: to name a pipeline in a struct's field.
///
/// ```
/// use std::time::Duration;
/// use withstand::{CircuitBreaker, Pipeline, Retry, Timeout, layers};
///
/// struct Users {
///     pipeline: Pipeline<layers![Timeout, Retry, CircuitBreaker]>,
/// }
///
/// let users = Users {
///     pipeline: Pipeline::builder("users-api")
///         .timeout(Duration::from_secs(4))
///         .retry(Retry::builder())
///         .circuit_breaker(CircuitBreaker::builder())
///         .build()?,
/// };
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[macro_export]
macro_rules! layers {
    () => { $crate::PassThrough };
    ($outermost:ty $(, $inside:ty)* $(,)?) => { $crate::Stack<$outermost, $crate::layers![$($inside),*]> };
}
