//! A circuit breaker that is closed, by what it looks at, and one that is open.

use std::{pin::pin, time::Duration};

use failsafe::{Config, backoff, failure_policy, futures::CircuitBreaker as _};
use layered::Service as _;
use recloser::{AsyncRecloser, Recloser};
use seatbelt::breaker::BreakerLayer;
use throttle_net::{CallError, Trip};
use tower::{Service as _, ServiceExt as _};
use tower_resilience::circuitbreaker::{CircuitBreakerError, SlidingWindowType};
use withstand::CircuitBreaker;

use super::around_both;
use crate::{
    by_hand,
    harness::{Contestant, Row},
    operation::{Answer, Operation, failing, finish},
    stacks::seatbelt::{breaker as seatbelt, context, service},
    stacks::{WINDOW, seconds, serve, throttle::breaker as throttle_net, tower::breaker as tower_resilience},
    who::Who,
};

const HOUR: Duration = seconds(3600);

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![];
    rows.extend(around_both("breaker closed, consecutive failures", consecutive));
    rows.extend(around_both("breaker closed, count window", count_window));
    rows.extend(around_both("breaker closed, time window", time_window));
    rows.push(Row::new("breaker open", None, open()));
    rows
}

fn consecutive(operation: Operation) -> Vec<Contestant> {
    let withstand = CircuitBreaker::builder().consecutive_failures(5).build().unwrap();
    let backoff = backoff::exponential(seconds(5), seconds(60));
    let failsafe = Config::new().failure_policy(failure_policy::consecutive_failures(5, backoff)).build();
    vec![
        by_hand!(Who::Withstand, Ok(1), breaker = withstand => breaker.call(|| operation.start())),
        by_hand!(Who::Failsafe, Ok(1), breaker = failsafe => breaker.call(operation.start())),
        by_hand!(Who::ThrottleNet, Ok(1), breaker = throttle_net(Trip::Consecutive(5), seconds(5)) =>
            breaker.call(|| operation.start())),
        by_hand!(Who::TowerResilience, Ok(1),
            service = tower_resilience(|breaker| breaker.consecutive_failures(5), move || operation.start()) =>
            serve!(service)),
    ]
}

fn count_window(operation: Operation) -> Vec<Contestant> {
    let withstand = CircuitBreaker::builder().count_window(100).build().unwrap();
    let recloser = AsyncRecloser::from(Recloser::custom().closed_len(100).build());
    let ratio = Trip::Ratio { window: 100, ratio: 0.5, min_calls: 20 };
    vec![
        by_hand!(Who::Withstand, Ok(1), breaker = withstand => breaker.call(|| operation.start())),
        by_hand!(Who::Recloser, Ok(1), breaker = recloser => breaker.call(operation.start())),
        by_hand!(Who::ThrottleNet, Ok(1), breaker = throttle_net(ratio, seconds(5)) =>
            breaker.call(|| operation.start())),
        by_hand!(Who::TowerResilience, Ok(1),
            service = tower_resilience(|breaker| breaker.sliding_window_size(100), move || operation.start()) =>
            serve!(service)),
    ]
}

fn time_window(operation: Operation) -> Vec<Contestant> {
    let withstand = CircuitBreaker::builder().time_window(WINDOW).build().unwrap();
    let backoff = backoff::exponential(seconds(5), seconds(60));
    let policy = failure_policy::success_rate_over_time_window(0.5, 20, WINDOW, backoff);
    let failsafe = Config::new().failure_policy(policy).build();
    let windowed = Trip::Windowed { failures: 20, period: WINDOW };
    let seatbelt = service!(seatbelt(&context()), move || operation.start());
    let tower_resilience = tower_resilience(
        |breaker| breaker.sliding_window_type(SlidingWindowType::TimeBased).sliding_window_duration(WINDOW),
        move || operation.start(),
    );
    vec![
        by_hand!(Who::Withstand, Ok(1), breaker = withstand => breaker.call(|| operation.start())),
        by_hand!(Who::Failsafe, Ok(1), breaker = failsafe => breaker.call(operation.start())),
        by_hand!(Who::ThrottleNet, Ok(1), breaker = throttle_net(windowed, seconds(5)) =>
            breaker.call(|| operation.start())),
        by_hand!(Who::Seatbelt, Ok(1), service = seatbelt => service.execute(())),
        by_hand!(Who::TowerResilience, Ok(1), service = tower_resilience => serve!(service)),
    ]
}

fn open() -> Vec<Contestant> {
    let withstand = CircuitBreaker::builder()
        .consecutive_failures(1)
        .consecutive_span(Duration::ZERO)
        .open_for(HOUR)
        .max_open_for(HOUR)
        .build()
        .unwrap();
    withstand.admit().unwrap().failure("down");

    let failsafe =
        Config::new().failure_policy(failure_policy::consecutive_failures(1, backoff::constant(HOUR))).build();
    assert!(finish(pin!(failsafe.call(failing()))).is_err());

    let recloser = AsyncRecloser::from(Recloser::custom().closed_len(1).open_wait(HOUR).build());
    let throttle_net = throttle_net(Trip::Consecutive(1), HOUR);
    let seatbelt = service!(open_soon(seatbelt(&context())), failing);
    let mut tower_resilience =
        tower_resilience(|breaker| breaker.consecutive_failures(1).wait_duration_in_open(HOUR), failing);
    // Some look at their failures only when there are enough of them.
    for _ in 0..1000 {
        assert!(finish(pin!(recloser.call(failing()))).is_err());
        assert!(finish(pin!(throttle_net.call(failing))).is_err());
        assert!(finish(pin!(seatbelt.execute(()))).is_err());
        assert!(finish(pin!(serve!(tower_resilience))).is_err());
    }
    vec![
        by_hand!(Who::Withstand, Err(withstand::Error::Rejected(_)), breaker = withstand => breaker.call(failing)),
        by_hand!(Who::Failsafe, Err(failsafe::Error::Rejected), breaker = failsafe => breaker.call(failing())),
        by_hand!(Who::Recloser, Err(recloser::Error::Rejected), breaker = recloser => breaker.call(failing())),
        by_hand!(Who::ThrottleNet, Err(CallError::Rejected(_)), breaker = throttle_net => breaker.call(failing)),
        by_hand!(Who::Seatbelt, Err(crate::stacks::seatbelt::REJECTED), service = seatbelt => service.execute(())),
        by_hand!(Who::TowerResilience, Err(CircuitBreakerError::OpenCircuit), service = tower_resilience =>
            serve!(service)),
    ]
}

fn open_soon<R, S>(layer: BreakerLayer<(), Answer, R, S>) -> BreakerLayer<(), Answer, R, S> {
    layer.min_throughput(10).break_duration(HOUR)
}
