//! seatbelt's policies. A timeout or a rejection is the operation's own error here, as its documentation shows.

use std::time::Duration;

use layered::{Execute, Service, Stack as _};
use seatbelt::{
    RecoveryInfo, ResilienceContext,
    breaker::{Breaker, BreakerLayer},
    retry::{Retry, RetryLayer},
    timeout::{Timeout, TimeoutLayer},
    typestates::Set,
};
use tick::Clock;

use super::{ATTEMPT, BACKOFF, TOTAL, WINDOW, seconds};
use crate::operation::{Answer, Down, Operation};

/// The error of a call that a breaker refused.
pub const REJECTED: Down = Down(503);
/// The error of a call whose time was up.
pub const TIMED_OUT: Down = Down(504);

/// What its layers share: a clock on the runtime that is entered.
pub fn context() -> ResilienceContext<(), Answer> {
    ResilienceContext::new(Clock::new_tokio())
}

/// Whether a failure may pass.
pub fn recovery(answer: &Answer) -> RecoveryInfo {
    if answer.is_ok() { RecoveryInfo::never() } else { RecoveryInfo::retry() }
}

/// A timeout.
pub fn timeout(context: &ResilienceContext<(), Answer>, limit: Duration) -> TimeoutLayer<(), Answer, Set, Set> {
    Timeout::layer("timeout", context).timeout_error(|_| TIMED_OUT).timeout(limit)
}

/// A retry.
pub fn retry(context: &ResilienceContext<(), Answer>) -> RetryLayer<(), Answer, Set, Set> {
    let layer = Retry::layer("retry", context).clone_input().recovery_with(|answer, _| recovery(answer));
    layer.max_retry_attempts(2).base_delay(BACKOFF).max_delay(seconds(1)).use_jitter(true)
}

/// A breaker.
pub fn breaker(context: &ResilienceContext<(), Answer>) -> BreakerLayer<(), Answer, Set, Set> {
    let layer = Breaker::layer("breaker", context).recovery_with(|answer, _| recovery(answer));
    layer.rejected_input_error(|(), _| REJECTED).failure_threshold(0.5).min_throughput(20).sampling_duration(WINDOW)
}

/// One layer around an operation.
macro_rules! service {
    ($layer:expr, $operation:expr) => {{
        let operation = $operation;
        ::layered::Stack::into_service(($layer, ::layered::Execute::new(move |()| operation())))
    }};
}
pub(crate) use service;

/// The full stack, but for a bulkhead, which it has not.
pub fn full(operation: Operation) -> impl Service<(), Out = Answer> + Clone + 'static {
    let context = context();
    let layers = (
        timeout(&context, TOTAL),
        retry(&context),
        breaker(&context),
        timeout(&context, ATTEMPT),
        Execute::new(move |()| operation.start()),
    );
    layers.into_service()
}
