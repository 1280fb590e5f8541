//! A timeout that does not fire.

use std::sync::Arc;

use layered::Service as _;
use throttle_net::resilience;
use tower::{Service as _, ServiceExt as _, service_fn, timeout::Timeout as Timed};
use withstand::Timeout;

use super::around_both;
use crate::{
    by_hand,
    driven::Driven,
    harness::{Contestant, Row},
    on_runtime,
    operation::Operation,
    stacks::{
        ATTEMPT, seatbelt,
        seatbelt::{context, service},
        serve, tower as towers,
    },
    who::Who,
};

/// Its name as [`targets`](crate::targets) refer to it.
pub(crate) const NAME: &str = "timeout";

pub(super) fn rows() -> [Row; 2] {
    around_both(NAME, contestants)
}

fn contestants(operation: Operation) -> Vec<Contestant> {
    vec![
        by_hand!(Who::Withstand, Ok(1), timeout = Timeout::new(ATTEMPT).unwrap() =>
            timeout.call(|| operation.start())),
        by_hand!(Who::HandMade, Ok(Ok(1)), limit = ATTEMPT => tokio::time::timeout(limit, operation.start())),
        by_hand!(Who::ThrottleNet, Ok(Ok(1)), limit = ATTEMPT => resilience::timeout(limit, operation.start())),
        by_hand!(Who::Seatbelt, Ok(1),
            service = service!(seatbelt::timeout(&context(), ATTEMPT), move || operation.start()) =>
            service.execute(())),
        by_hand!(Who::Tower, Ok(1),
            service = Timed::new(service_fn(move |()| operation.start()), ATTEMPT) => serve!(service)),
        by_hand!(Who::TowerResilience, Ok(1),
            service = tower::Layer::layer(&towers::time_limit(ATTEMPT), service_fn(move |()| operation.start())) =>
            serve!(service)),
    ]
}

/// On a runtime, where tokio's own timeout shows what one registered timer costs there.
pub(super) fn driven(runtime: &Arc<Driven>) -> Row {
    let operation = Operation::PENDING_ONCE;
    let contestants = vec![
        on_runtime!(runtime, Who::Floor, Ok(1), operation = operation => operation.start()),
        on_runtime!(runtime, Who::Withstand, Ok(1), timeout = Arc::new(Timeout::new(ATTEMPT).unwrap()) =>
            timeout.call(|| operation.start())),
        on_runtime!(runtime, Who::HandMade, Ok(Ok(1)), limit = ATTEMPT =>
            tokio::time::timeout(limit, operation.start())),
        on_runtime!(runtime, Who::Seatbelt, Ok(1),
            service = service!(seatbelt::timeout(&context(), ATTEMPT), move || operation.start()) =>
            service.execute(())),
    ];
    Row::new(format!("{NAME}, {}", runtime.name), Some(operation), contestants)
}
