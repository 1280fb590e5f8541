//! What one writes without a crate for all of it: tokio's timeouts and semaphore, backon, and a breaker.

use std::sync::Arc;

use backon::{ExponentialBuilder, Retryable as _};
use failsafe::{
    Config, StateMachine,
    backoff::{self, Exponential},
    failure_policy::{self, ConsecutiveFailures},
    futures::CircuitBreaker as _,
};
use recloser::{AsyncRecloser, Recloser};
use tokio::{sync::Semaphore, time::timeout};

use super::{ATTEMPT, BACKOFF, TOTAL, seconds};
use crate::operation::{Down, Operation};

/// The one error that such a stack ends up with.
#[derive(Debug)]
pub enum Error {
    /// The operation's own.
    Down(Down),
    /// The call's or the attempt's time was up.
    TimedOut,
    /// The bulkhead was full.
    Full,
    /// The circuit was open.
    Open,
}

/// The stack around a breaker.
pub struct HandMade<B> {
    backoff: ExponentialBuilder,
    semaphore: Semaphore,
    breaker: B,
}

/// With failsafe, which counts failures in a row.
pub fn with_failsafe() -> Arc<HandMade<impl Breaker>> {
    let backoff = backoff::exponential(seconds(5), seconds(60));
    HandMade::around(Config::new().failure_policy(failure_policy::consecutive_failures(5, backoff)).build())
}

/// With recloser, which looks at the last calls.
pub fn with_recloser() -> Arc<HandMade<impl Breaker>> {
    HandMade::around(AsyncRecloser::from(Recloser::custom().closed_len(100).build()))
}

impl<B: Breaker> HandMade<B> {
    fn around(breaker: B) -> Arc<Self> {
        let backoff = ExponentialBuilder::default().with_min_delay(BACKOFF).with_max_times(2).with_jitter();
        Arc::new(Self { backoff, semaphore: Semaphore::new(100), breaker })
    }

    /// Calls the operation.
    ///
    /// # Errors
    ///
    /// Its own, or that of a layer.
    pub async fn call(&self, operation: Operation) -> Result<u64, Error> {
        let attempts =
            (|| self.attempt(operation)).retry(self.backoff).when(|error| !matches!(error, Error::Open | Error::Full));
        timeout(TOTAL, attempts).await.unwrap_or(Err(Error::TimedOut))
    }

    async fn attempt(&self, operation: Operation) -> Result<u64, Error> {
        let _permit = self.semaphore.try_acquire().map_err(|_| Error::Full)?;
        let limited = async {
            let answer = timeout(ATTEMPT, operation.start()).await;
            answer.map_err(|_| Error::TimedOut)?.map_err(Error::Down)
        };
        self.breaker.guard(limited).await
    }
}

/// What lets an attempt through, or does not.
pub trait Breaker: Send + Sync + 'static {
    /// Runs it, unless the circuit is open.
    fn guard<F: Future<Output = Result<u64, Error>> + Send>(
        &self,
        attempt: F,
    ) -> impl Future<Output = Result<u64, Error>> + Send;
}

impl Breaker for StateMachine<ConsecutiveFailures<Exponential>, ()> {
    async fn guard<F: Future<Output = Result<u64, Error>> + Send>(&self, attempt: F) -> Result<u64, Error> {
        self.call(attempt).await.map_err(|error| match error {
            failsafe::Error::Inner(error) => error,
            failsafe::Error::Rejected => Error::Open,
        })
    }
}

impl Breaker for AsyncRecloser {
    async fn guard<F: Future<Output = Result<u64, Error>> + Send>(&self, attempt: F) -> Result<u64, Error> {
        self.call(attempt).await.map_err(|error| match error {
            recloser::Error::Inner(error) => error,
            recloser::Error::Rejected => Error::Open,
        })
    }
}
