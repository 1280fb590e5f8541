//! A bulkhead with room, and one without.

use std::{
    future, mem,
    task::{Context, Waker},
};

use throttle_net::ThrottleError;
use tokio::sync::{Semaphore, TryAcquireError};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_resilience::bulkhead::{Bulkhead as Limited, BulkheadLayer};
use withstand::{Bulkhead, Error};

use super::around_both;
use crate::{
    by_hand,
    harness::{Contestant, Row},
    operation::{Answer, Down, Operation},
    stacks::serve,
    who::Who,
};

/// A free one has room for so many calls.
const LIMIT: usize = 100;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::from(around_both("bulkhead free", free));
    rows.push(Row::new("bulkhead full", None, full()));
    rows
}

fn free(operation: Operation) -> Vec<Contestant> {
    let withstand = Bulkhead::builder().limit(LIMIT).build().unwrap();
    vec![
        by_hand!(Who::Withstand, Ok(1), bulkhead = withstand => bulkhead.call(|| operation.start())),
        by_hand!(Who::HandMade, Ok(Ok(1)), semaphore = Semaphore::new(LIMIT) =>
            hand_made(&semaphore, || operation.start())),
        by_hand!(Who::ThrottleNet, Ok(Ok(1)), bulkhead = throttle_net::Bulkhead::new(100) =>
            bulkhead.try_call(|| operation.start())),
        by_hand!(Who::Tower, Ok(1), service = tower(LIMIT, move || operation.start()) => serve!(service)),
        by_hand!(Who::TowerResilience, Ok(1), service = tower_resilience(LIMIT, move || operation.start()) =>
            serve!(service)),
    ]
}

/// Each has room for one call, and a call that hangs is in it. tower-resilience is not here: what it refuses first waits
/// for a timer of no length, which fires at the next tick.
fn full() -> Vec<Contestant> {
    let withstand: &Bulkhead = Box::leak(Box::new(Bulkhead::builder().limit(1).build().unwrap()));
    hold(withstand.call(hang));
    let semaphore: &Semaphore = Box::leak(Box::new(Semaphore::new(1)));
    hold(hand_made(semaphore, hang));
    let throttle_net: &throttle_net::Bulkhead = Box::leak(Box::new(throttle_net::Bulkhead::new(1)));
    hold(throttle_net.try_call(hang));
    let tower = tower(1, hang);
    hold(tower.clone().oneshot(()));
    vec![
        by_hand!(Who::Withstand, Err(Error::Rejected(_)), bulkhead = withstand => bulkhead.call(hang)),
        by_hand!(Who::HandMade, Err(TryAcquireError::NoPermits), semaphore = semaphore => hand_made(semaphore, hang)),
        by_hand!(Who::ThrottleNet, Err(ThrottleError::BulkheadFull), bulkhead = throttle_net => bulkhead.try_call(hang)),
        by_hand!(Who::Tower, Err(_), service = tower => serve!(service)),
    ]
}

async fn hand_made<F: Future<Output = Answer>>(
    semaphore: &Semaphore,
    operation: impl FnOnce() -> F,
) -> Result<Answer, TryAcquireError> {
    let _permit = semaphore.try_acquire()?;
    Ok(operation().await)
}

fn tower<F: Future<Output = Answer>>(
    limit: usize,
    operation: impl Fn() -> F + Clone,
) -> impl Service<(), Response = u64, Error = tower::BoxError> + Clone {
    ServiceBuilder::new().load_shed().concurrency_limit(limit).service(service_fn(move |()| operation()))
}

fn tower_resilience<F: Future<Output = Answer> + Send + 'static>(
    limit: usize,
    operation: impl Fn() -> F + Clone + Send + 'static,
) -> Limited<impl Service<(), Response = u64, Error = Down, Future = F> + Clone + Send + 'static> {
    let layer = BulkheadLayer::builder().max_concurrent_calls(limit).reject_when_full().build().unwrap();
    layer.layer(service_fn(move |()| operation()))
}

fn hang() -> future::Pending<Answer> {
    future::pending()
}

/// Starts a call that hangs, and keeps it for good.
fn hold<F: Future + 'static>(call: F) {
    let mut call = Box::pin(call);
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    mem::forget(call);
}
