//! A retry whose first try succeeds.

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable as _};
use layered::Service as _;
use throttle_net::{RetryAction, RetryBudget};
use tokio_retry::strategy::{ExponentialBackoff, jitter};
use tower::{
    Service as _, ServiceExt as _,
    retry::{Retry as Retrying, budget::TpsBudget},
    service_fn,
};
use tower_resilience::retry::RetryBudgetBuilder;
use withstand::Retry;

use super::around_both;
use crate::{
    by_hand,
    harness::{Contestant, Row},
    operation::{Down, Operation},
    stacks::{
        BACKOFF, seatbelt,
        seatbelt::{context, service},
        serve, throttle, tower as towers,
    },
    who::Who,
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::from(around_both("retry, first try succeeds", |operation| with(operation, true)));
    rows.extend(around_both("retry, first try succeeds, no budget", |operation| with(operation, false)));
    rows
}

fn with(operation: Operation, budget: bool) -> Vec<Contestant> {
    let withstand = if budget { Retry::builder() } else { Retry::builder().without_budget() };
    let backon = ExponentialBuilder::default().with_min_delay(BACKOFF).with_max_times(2).with_jitter();
    let tokio_retry = ExponentialBackoff::from_millis(2).factor(25).max_delay(Duration::from_secs(1));
    let mut contestants = vec![
        by_hand!(Who::Withstand, Ok(1), retry = withstand.build().unwrap() => retry.call(|| operation.start())),
        by_hand!(Who::Backon, Ok(1), backoff = backon => (|| operation.start()).retry(backoff)),
        by_hand!(Who::TokioRetry, Ok(1), backoff = tokio_retry =>
            tokio_retry::Retry::start(backoff.clone().map(jitter).take(2), || operation.start())),
        by_hand!(Who::Seatbelt, Ok(1), service = service!(seatbelt::retry(&context()), move || operation.start()) =>
            service.execute(())),
    ];
    contestants.push(throttle_net(operation, budget));
    let policy = towers::Attempts::new(budget.then(|| Arc::new(TpsBudget::default())));
    contestants.push(by_hand!(Who::Tower, Ok(1),
        service = Retrying::new(policy, service_fn(move |()| operation.start())) => serve!(service)));
    let mut layer = towers::retry::<Down>();
    if budget {
        layer = layer.budget(RetryBudgetBuilder::new().token_bucket().build().unwrap());
    }
    contestants.push(by_hand!(Who::TowerResilience, Ok(1),
        service = tower::Layer::layer(&layer.build(), service_fn(move |()| operation.start())) => serve!(service)));
    contestants
}

fn throttle_net(operation: Operation, budget: bool) -> Contestant {
    let always = |_: &Down| RetryAction::Retry;
    if budget {
        by_hand!(Who::ThrottleNet, Ok(1), retry = (throttle::retry(), RetryBudget::new(0.2, 10)) =>
            retry.0.run_with_budget(&retry.1, || operation.start(), always))
    } else {
        by_hand!(Who::ThrottleNet, Ok(1), retry = throttle::retry() => retry.run(|| operation.start(), always))
    }
}
