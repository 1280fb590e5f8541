//! A fallback that is not needed.

use layered::Service as _;
use throttle_net::resilience;
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_resilience::fallback::FallbackLayer;
use withstand::Fallback;

use super::around_both;
use crate::{
    by_hand,
    harness::{Contestant, Row},
    operation::{Answer, Down, Operation},
    stacks::{
        seatbelt::{context, service},
        serve,
    },
    who::Who,
};

pub(super) fn rows() -> [Row; 2] {
    around_both("fallback unused", contestants)
}

fn contestants(operation: Operation) -> Vec<Contestant> {
    let seatbelt = seatbelt::fallback::Fallback::layer("fallback", &context())
        .should_fallback(Answer::is_err)
        .fallback_output(Ok(0));
    let tower_resilience = FallbackLayer::<(), u64, Down>::value(0);
    let tower_resilience = tower_resilience.layer(service_fn(move |()| operation.start()));
    vec![
        by_hand!(Who::Withstand, Ok(1), fallback = Fallback::value(0).build().unwrap() =>
            fallback.call(|| operation.start())),
        by_hand!(Who::ThrottleNet, 1, operation = operation =>
            resilience::fallback(operation.start(), |_| async { 0 })),
        by_hand!(Who::Seatbelt, Ok(1), service = service!(seatbelt, move || operation.start()) => service.execute(())),
        by_hand!(Who::TowerResilience, Ok(1), service = tower_resilience => serve!(service)),
    ]
}
