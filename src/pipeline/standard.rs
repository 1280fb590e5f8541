//! The pipelines that most calls want.

use std::time::Duration;

use super::{Pipeline, PipelineBuilder, Unbuilt};
use crate::{
    name::Name,
    outcome::DefaultClassifier,
    policies::{
        bulkhead::{Bulkhead, BulkheadBuilder},
        circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder},
        hedge::{Hedge, HedgeBuilder},
        retry::{Retry, RetryBuilder},
        timeout::Timeout,
    },
    policy::{PassThrough, Stack},
};

impl Pipeline<PassThrough> {
    /// The standard pipeline: what most calls to most services want. Give it a classifier, and build it.
    ///
    /// | from the outside in | settings |
    /// |---|---|
    /// | [`Timeout`] | 4 s for the whole call |
    /// | [`Retry`] | 3 attempts; 50 ms, doubling, up to 1 s, full jitter; budget 0.2, 10, 100 |
    /// | [`Bulkhead`] | 100 calls, no queue |
    /// | [`CircuitBreaker`] | 30 s, half of at least 20 calls failed, or 80 % slow from 800 ms; open for 5 s to 60 s, up to 10 % longer; 3 probes |
    /// | [`Timeout`] | 1 s for each attempt |
    ///
    /// At worst a call takes 3 x 1 s and 0.15 s of waits, which is less than 4 s, and makes 3 attempts; in a long outage
    /// the load is that of the calls plus at most the budget's balance. It has no fallback: that is a decision.
    ///
    /// ```
    /// use withstand::{Pipeline, Verdict};
    ///
    /// # #[derive(Debug)] enum ApiError { Busy, NotFound }
    /// let users = Pipeline::standard("users-api")
    ///     .classify_errors(|error: &ApiError| match error {
    ///         ApiError::Busy => Verdict::throttled(),
    ///         ApiError::NotFound => Verdict::success(),
    ///     })
    ///     .build()?;
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    ///
    /// To change a number, to watch its circuit breaker or to hold it open by hand, write it out:
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use withstand::{Bulkhead, CircuitBreaker, Pipeline, Retry};
    ///
    /// let breaker = Arc::new(CircuitBreaker::builder().slow_call(Duration::from_millis(800)).jitter(0.1).build()?);
    /// let users = Pipeline::builder("users-api")
    ///     .timeout(Duration::from_secs(4))
    ///     .retry(Retry::builder())
    ///     .bulkhead(Bulkhead::builder().limit(100))
    ///     .circuit_breaker(breaker.clone()) // its type in `layers![..]` is `Arc<CircuitBreaker>`
    ///     .timeout(Duration::from_secs(1))
    ///     .build()?;
    /// assert_eq!(users.explain().to_string(), Pipeline::standard("users-api").build()?.explain().to_string());
    /// println!("{}", breaker.state()); // for a health check
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    pub fn standard(name: impl Into<Name>) -> StandardBuilder {
        Self::builder(name).standard_layers()
    }

    /// The [`standard`](Self::standard) pipeline with a [`Hedge`] between retry and bulkhead, and 2 attempts instead of
    /// 3: for reads from replicated services.
    pub fn standard_hedged(name: impl Into<Name>) -> StandardHedgedBuilder {
        Self::builder(name)
            .timeout(STANDARD_TOTAL)
            .retry(Retry::builder().max_attempts(2))
            .hedge(Hedge::builder())
            .bulkhead(Bulkhead::builder().limit(100))
            .circuit_breaker(standard_breaker())
            .timeout(STANDARD_ATTEMPT)
    }
}

impl<C> PipelineBuilder<PassThrough, C> {
    pub(crate) fn standard_layers(self) -> StandardBuilder<C> {
        self.timeout(STANDARD_TOTAL)
            .retry(Retry::builder())
            .bulkhead(Bulkhead::builder().limit(100))
            .circuit_breaker(standard_breaker())
            .timeout(STANDARD_ATTEMPT)
    }
}

/// The layers of [`Pipeline::standard`].
pub type StandardLayers = layers![Timeout, Retry, Bulkhead, CircuitBreaker, Timeout];

/// The layers of [`Pipeline::standard_hedged`].
pub type StandardHedgedLayers = layers![Timeout, Retry, Hedge, Bulkhead, CircuitBreaker, Timeout];

/// What [`Pipeline::standard`] gives, to be built. Layers that are added go innermost.
pub type StandardBuilder<C = DefaultClassifier> = PipelineBuilder<
    Stack<
        Stack<Stack<UnbuiltRetry, Unbuilt<BulkheadBuilder, Bulkhead>>, Unbuilt<CircuitBreakerBuilder, CircuitBreaker>>,
        Unbuilt<Duration, Timeout>,
    >,
    C,
>;

/// What [`Pipeline::standard_hedged`] gives, to be built. Layers that are added go innermost.
pub type StandardHedgedBuilder = PipelineBuilder<
    Stack<
        Stack<
            Stack<Stack<UnbuiltRetry, Unbuilt<HedgeBuilder, Hedge>>, Unbuilt<BulkheadBuilder, Bulkhead>>,
            Unbuilt<CircuitBreakerBuilder, CircuitBreaker>,
        >,
        Unbuilt<Duration, Timeout>,
    >,
>;

/// The outer two layers of both.
type UnbuiltRetry = Stack<Stack<PassThrough, Unbuilt<Duration, Timeout>>, Unbuilt<RetryBuilder, Retry>>;

const STANDARD_TOTAL: Duration = Duration::from_secs(4);
const STANDARD_ATTEMPT: Duration = Duration::from_secs(1);

fn standard_breaker() -> CircuitBreakerBuilder {
    CircuitBreaker::builder().slow_call(Duration::from_millis(800)).jitter(0.1)
}
