//! The full stack: a timeout for the call, a retry, a bulkhead, a breaker with a count window, a timeout for the attempt.

use std::sync::Arc;

use layered::Service as _;
use tower::{Service as _, ServiceExt as _};

use super::around_both;
use crate::{
    by_hand,
    driven::Driven,
    harness::{Contestant, Row},
    on_runtime,
    operation::Operation,
    stacks::{hand_made, seatbelt, serve, throttle, tower as towers, withstand as ours},
    who::Who,
};

/// Its name as [`targets`](crate::targets) refer to it.
pub(crate) const NAME: &str = "full stack";

/// Everyone's full stack, measured by a macro of that name.
macro_rules! all {
    ($measured:ident!($($runtime:expr,)?), $operation:ident) => {
        vec![
            $measured!($($runtime,)? Who::Withstand, Ok(1), stack = ours::full() =>
                stack.call(|| $operation.start())),
            $measured!($($runtime,)? Who::HandMade, Ok(1), stack = hand_made::with_failsafe() =>
                stack.call($operation)),
            $measured!($($runtime,)? Who::HandMadeCount, Ok(1), stack = hand_made::with_recloser() =>
                stack.call($operation)),
            $measured!($($runtime,)? Who::ThrottleNet, Ok(1), stack = throttle::full() => stack.call($operation)),
            $measured!($($runtime,)? Who::Seatbelt, Ok(1), service = seatbelt::full($operation) => service.execute(())),
            $measured!($($runtime,)? Who::TowerResilience, Ok(1), service = towers::full($operation) =>
                serve!(service)),
        ]
    };
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::from(around_both("pipeline without layers", |operation| {
        let empty = withstand::Pipeline::builder("empty").build().unwrap();
        vec![by_hand!(Who::Withstand, Ok(1), pipeline = empty => pipeline.call(|| operation.start()))]
    }));
    rows.extend(around_both(NAME, |operation| all!(by_hand!(), operation)));
    rows
}

pub(super) fn driven(runtime: &Arc<Driven>) -> Row {
    let operation = Operation::PENDING_ONCE;
    let bare = on_runtime!(runtime, Who::Floor, Ok(1), operation = operation => operation.start());
    let mut contestants = vec![bare];
    contestants.extend::<Vec<Contestant>>(all!(on_runtime!(runtime,), operation));
    Row::new(format!("{NAME}, {}", runtime.name), Some(operation), contestants)
}
