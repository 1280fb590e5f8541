//! The policies of tower and of tower-resilience.

use std::{sync::Arc, time::Duration};

use tokio::time::{Sleep, sleep};
use tower::{
    Layer as _, Service, ServiceBuilder,
    retry::{
        Policy,
        budget::{Budget as _, TpsBudget},
    },
    service_fn,
};
use tower_resilience::{
    bulkhead::BulkheadLayer,
    circuitbreaker::{CircuitBreaker, CircuitBreakerConfigBuilder, CircuitBreakerLayer, DefaultClassifier},
    retry::{RetryConfigBuilder, RetryLayer},
    timelimiter::TimeLimiterLayer,
};

use super::{ATTEMPT, BACKOFF, TOTAL};
use crate::operation::{Answer, Down, Operation};

/// A policy for tower's retry, which brings none.
#[derive(Clone)]
pub struct Attempts {
    left: u32,
    wait: Duration,
    budget: Option<Arc<TpsBudget>>,
}

impl Attempts {
    /// Three attempts.
    pub fn new(budget: Option<Arc<TpsBudget>>) -> Self {
        Self { left: 2, wait: BACKOFF, budget }
    }
}

impl Policy<(), u64, Down> for Attempts {
    type Future = Sleep;

    fn retry(&mut self, (): &mut (), result: &mut Answer) -> Option<Sleep> {
        if result.is_ok() {
            self.budget.iter().for_each(|budget| budget.deposit());
            return None;
        }
        if self.left == 0 || self.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return None;
        }
        self.left -= 1;
        let wait = self.wait;
        self.wait *= 2;
        Some(sleep(wait))
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}

/// A retry of tower-resilience.
pub fn retry<E>() -> RetryConfigBuilder<(), u64, E> {
    RetryLayer::<(), u64, E>::builder().max_attempts(3).exponential_backoff(BACKOFF)
}

/// A timeout of tower-resilience.
pub fn time_limit(limit: Duration) -> TimeLimiterLayer {
    TimeLimiterLayer::builder().timeout_duration(limit).cancel_running_future(true).build()
}

/// A breaker of tower-resilience around an operation.
pub fn breaker<F: Future<Output = Answer> + Send + 'static>(
    set: impl FnOnce(CircuitBreakerConfigBuilder) -> CircuitBreakerConfigBuilder,
    operation: impl Fn() -> F + Clone + Send + 'static,
) -> CircuitBreaker<impl Service<(), Response = u64, Error = Down, Future = F> + Clone + Send, DefaultClassifier> {
    let builder = CircuitBreakerLayer::builder().failure_rate_threshold(0.5).minimum_number_of_calls(20);
    set(builder).build().unwrap().layer(service_fn(move |()| operation()))
}

/// The full stack of tower-resilience.
pub fn full(
    operation: Operation,
) -> impl Service<(), Response = u64, Error: Send, Future: Send> + Clone + Send + 'static {
    let bulkhead = BulkheadLayer::builder().max_concurrent_calls(100).reject_when_full().build().unwrap();
    let breaker = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .minimum_number_of_calls(20)
        .sliding_window_size(100)
        .build()
        .unwrap();
    ServiceBuilder::new()
        .layer(time_limit(TOTAL))
        .layer(retry().build())
        .layer(bulkhead)
        .layer(breaker)
        .layer(time_limit(ATTEMPT))
        .service(service_fn(move |()| operation.start()))
}
