//! A hedge whose primary is in time.

use std::time::Duration;

use layered::Service as _;
use seatbelt::hedging::Hedging;
use throttle_net::resilience;
use tower::{Layer as _, Service as _, ServiceExt as _, hedge, service_fn};
use tower_resilience::hedge::HedgeLayer;
use withstand::Hedge;

use super::around_both;
use crate::{
    by_hand,
    harness::{Contestant, Row},
    operation::Operation,
    stacks::{
        WINDOW,
        seatbelt::{context, recovery, service},
        serve,
    },
    who::Who,
};

const DELAY: Duration = Duration::from_millis(50);

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![];
    rows.extend(around_both("hedge, fixed delay", |operation| fixed(operation, true)));
    rows.extend(around_both("hedge, fixed delay, no budget", |operation| fixed(operation, false)));
    rows.extend(around_both("hedge, quantile", quantile));
    rows
}

fn fixed(operation: Operation, budget: bool) -> Vec<Contestant> {
    let withstand = Hedge::builder().delay(DELAY);
    let withstand = if budget { withstand } else { withstand.without_budget() };
    let seatbelt = Hedging::layer("hedge", &context()).clone_input().recovery_with(|out, _| recovery(out));
    let seatbelt = service!(seatbelt.hedging_delay(DELAY), move || operation.start());
    let tower_resilience = HedgeLayer::builder().delay(DELAY).max_hedged_attempts(2).build();
    let tower_resilience = tower_resilience.layer(service_fn(move |()| operation.start()));
    vec![
        by_hand!(Who::Withstand, Ok(1), hedge = withstand.build().unwrap() => hedge.call(|| operation.start())),
        by_hand!(Who::ThrottleNet, Ok(1), delay = DELAY => resilience::hedge(delay, || operation.start())),
        by_hand!(Who::Seatbelt, Ok(1), service = seatbelt => service.execute(())),
        by_hand!(Who::TowerResilience, Ok(1), service = tower_resilience => serve!(service)),
    ]
}

fn quantile(operation: Operation) -> Vec<Contestant> {
    let tower = hedge::Hedge::new::<()>(service_fn(move |()| operation.start()), Repeatable, 100, 0.95, WINDOW);
    vec![
        by_hand!(Who::Withstand, Ok(1), hedge = Hedge::builder().build().unwrap() => hedge.call(|| operation.start())),
        by_hand!(Who::Tower, Ok(1), service = tower => serve!(service)),
    ]
}

/// Every request may be hedged.
#[derive(Clone)]
struct Repeatable;

impl hedge::Policy<()> for Repeatable {
    fn clone_request(&self, (): &()) -> Option<()> {
        Some(())
    }

    fn can_retry(&self, (): &()) -> bool {
        true
    }
}
