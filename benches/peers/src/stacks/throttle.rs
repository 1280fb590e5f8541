//! throttle-net's policies.

use std::{sync::Arc, time::Duration};

use throttle_net::{
    Backoff, Bulkhead, CallError, CircuitBreaker, Decision, Limiter, Retry, RetryAction, SystemClock, Trip, resilience,
};

use super::{ATTEMPT, BACKOFF, TOTAL, hand_made::Error, seconds};
use crate::operation::Operation;

/// A limiter that grants everything: a breaker needs one.
pub struct Unlimited;

impl Limiter for Unlimited {
    fn peek(&self, _cost: u32) -> Decision {
        Decision::Acquired
    }

    fn acquire_cost(&self, _cost: u32) -> Decision {
        Decision::Acquired
    }

    fn available(&self) -> u32 {
        u32::MAX
    }

    fn capacity(&self) -> u32 {
        u32::MAX
    }

    fn reserve(&self, _cost: u32, _max_wait: Duration) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn paused_for(&self) -> Duration {
        Duration::ZERO
    }
}

/// A breaker.
pub fn breaker(trip: Trip, cooldown: Duration) -> CircuitBreaker<Unlimited, SystemClock> {
    CircuitBreaker::builder().trip(trip).cooldown(cooldown).build(Unlimited)
}

/// A retry.
pub fn retry() -> Retry {
    Retry::new(Backoff::exponential(BACKOFF, 2.0).with_max(seconds(1))).max_attempts(3)
}

/// Its policies, composed by hand.
pub struct Composed {
    retry: Retry,
    bulkhead: Bulkhead,
    breaker: CircuitBreaker<Unlimited, SystemClock>,
}

/// The full stack.
pub fn full() -> Arc<Composed> {
    let breaker = breaker(Trip::Ratio { window: 100, ratio: 0.5, min_calls: 20 }, seconds(5));
    Arc::new(Composed { retry: retry(), bulkhead: Bulkhead::new(100), breaker })
}

impl Composed {
    /// Calls the operation.
    ///
    /// # Errors
    ///
    /// Its own, or that of a layer.
    pub async fn call(&self, operation: Operation) -> Result<u64, Error> {
        let attempts = self.retry.run(
            || self.attempt(operation),
            |error| match error {
                Error::Open | Error::Full => RetryAction::GiveUp,
                Error::Down(_) | Error::TimedOut => RetryAction::Retry,
            },
        );
        resilience::timeout(TOTAL, attempts).await.unwrap_or(Err(Error::TimedOut))
    }

    async fn attempt(&self, operation: Operation) -> Result<u64, Error> {
        let limited = async || {
            let answer = resilience::timeout(ATTEMPT, operation.start()).await;
            answer.map_err(|_| Error::TimedOut)?.map_err(Error::Down)
        };
        let answer = self.bulkhead.try_call(|| self.breaker.call(limited)).await;
        answer.map_err(|_| Error::Full)?.map_err(|error| match error {
            CallError::Rejected(_) => Error::Open,
            CallError::Failed(error) => error,
        })
    }
}
