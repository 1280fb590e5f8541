//! What two threads share: a breaker, a budget, a bulkhead, and the words that these are made of.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use failsafe::{Config, backoff, failure_policy, futures::CircuitBreaker as _};
use layered::Service as _;
use recloser::{AsyncRecloser, Recloser};
use seatbelt::breaker::Breaker;
use tokio::sync::Semaphore;
use tower::retry::budget::{Budget as _, TpsBudget};
use withstand::{Bulkhead, CircuitBreaker, Retry, RetryBudget};

use crate::{
    contention::{ATOMIC, Row, Shared, Target},
    operation::{Answer, Down, Operation, finish},
    shared,
    stacks::{WINDOW, seatbelt as seatbelts, seconds, withstand as ours},
    who::Who,
};

/// One call in so many fails, where some are to: enough that a window of 100 always holds one.
const ONE_IN: u32 = 50;

/// All of them.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::from(floor());
    rows.extend(breakers());
    rows.extend(budgets());
    rows.extend(bulkheads());
    rows
}

fn floor() -> [Row; 2] {
    let counter = || AtomicU64::new(0);
    let add = shared!(Who::Floor, _, counter = counter(), _ => counter.fetch_add(1, Relaxed));
    let bare = shared!(Who::Floor, Ok(1), operation = Operation::READY, _ => finish(pin!(operation.start())));
    [
        Row { name: ATOMIC, contestants: vec![add], target: Target::None },
        Row { name: "floor: bare operation, nothing shared", contestants: vec![bare], target: Target::None },
    ]
}

fn breakers() -> Vec<Row> {
    let ours = |breaker: CircuitBreaker| {
        shared!(Who::Withstand, Ok(1), breaker = breaker, _ =>
            finish(pin!(breaker.call(|| Operation::READY.start()))))
    };
    let ours_failing = |breaker: CircuitBreaker| shared!(Who::Withstand, _, breaker = breaker, nth => finish(pin!(breaker.call(|| sometimes(nth)))));
    let consecutive = || CircuitBreaker::builder().consecutive_failures(5).build().unwrap();
    let count = || CircuitBreaker::builder().count_window(100).build().unwrap();
    let time = || CircuitBreaker::builder().time_window(WINDOW).build().unwrap();
    let in_a_row = || {
        let backoff = backoff::exponential(seconds(5), seconds(60));
        Config::new().failure_policy(failure_policy::consecutive_failures(5, backoff)).build()
    };
    let recloser = || AsyncRecloser::from(Recloser::custom().closed_len(100).build());
    vec![
        Row {
            name: "breaker, consecutive failures, all succeed",
            contestants: vec![
                ours(consecutive()),
                shared!(Who::Failsafe, Ok(1), breaker = in_a_row(), _ =>
                    finish(pin!(breaker.call(Operation::READY.start())))),
            ],
            target: Target::Atomic,
        },
        Row {
            name: "breaker, count window, all succeed",
            contestants: vec![
                ours(count()),
                shared!(Who::Recloser, Ok(1), breaker = recloser(), _ =>
                    finish(pin!(breaker.call(Operation::READY.start())))),
            ],
            target: Target::Atomic,
        },
        Row {
            name: "breaker, count window, one in 50 fails",
            contestants: vec![
                ours_failing(count()),
                shared!(Who::Recloser, _, breaker = recloser(), nth => finish(pin!(breaker.call(sometimes(nth))))),
            ],
            target: Target::Atomic,
        },
        Row {
            name: "breaker, time window, all succeed",
            contestants: vec![ours(time()), seatbelt()],
            target: Target::Atomic,
        },
        Row {
            name: "breaker, time window, one in 50 fails",
            contestants: vec![ours_failing(time())],
            target: Target::Atomic,
        },
    ]
}

/// Its breaker has a time window only.
fn seatbelt() -> Shared {
    let context = seatbelts::context();
    let layer = Breaker::layer("breaker", &context)
        .recovery_with(|answer: &Answer, _| seatbelts::recovery(answer))
        .rejected_input_error(|(), _| seatbelts::REJECTED)
        .sampling_duration(WINDOW);
    shared!(Who::Seatbelt, Ok(1), service = seatbelts::service!(layer, || Operation::READY.start()), _ =>
        finish(pin!(service.execute(()))))
}

fn budgets() -> [Row; 2] {
    let retry = |initial: u32| {
        // As many tokens as there can be: no run fills it up.
        let budget = RetryBudget::builder().initial(initial).cap(u32::MAX).build().unwrap();
        let retry = Retry::builder().budget(Arc::new(budget)).build().unwrap();
        shared!(Who::Withstand, Ok(1), retry = retry, _ => finish(pin!(retry.call(|| Operation::READY.start()))))
    };
    let tower = shared!(Who::Tower, (), budget = TpsBudget::default(), _ => budget.deposit());
    [
        Row {
            name: "budget below its cap, a deposit in each call",
            contestants: vec![retry(0), tower],
            target: Target::Atomic,
        },
        Row { name: "budget at its cap", contestants: vec![retry(u32::MAX)], target: Target::Atomic },
    ]
}

fn bulkheads() -> [Row; 4] {
    const LIMIT: usize = 100;
    let bulkhead = || Bulkhead::builder().limit(LIMIT).build().unwrap();
    let fair = || Bulkhead::builder().limit(LIMIT).queue(10).build().unwrap();
    let permits = vec![
        shared!(Who::Withstand, Ok(_), bulkhead = bulkhead(), _ => bulkhead.try_acquire()),
        shared!(Who::HandMade, Ok(_), semaphore = Semaphore::new(LIMIT), _ => semaphore.try_acquire()),
    ];
    let beside_a_semaphore = |ours: Shared| {
        let hand_made = shared!(Who::HandMade, Ok(1), semaphore = Semaphore::new(LIMIT), _ => finish(pin!(async {
            let _permit = semaphore.try_acquire().map_err(|_| Down(1))?;
            Operation::READY.start().await
        })));
        vec![ours, hand_made]
    };
    let calls = |bulkhead: Bulkhead| {
        beside_a_semaphore(shared!(Who::Withstand, Ok(1), bulkhead = bulkhead, _ =>
            finish(pin!(bulkhead.call(|| Operation::READY.start())))))
    };
    let stack = beside_a_semaphore(shared!(Who::Withstand, Ok(1), stack = ours::full(), _ =>
        finish(pin!(stack.call(|| Operation::READY.start())))));
    let target = Target::Semaphore;
    [
        Row { name: "bulkhead, a permit taken and given back", contestants: permits, target },
        Row { name: "bulkhead, a call", contestants: calls(bulkhead()), target },
        Row { name: "bulkhead with a queue, a call", contestants: calls(fair()), target },
        Row { name: "full stack, which has a bulkhead, ready", contestants: stack, target },
    ]
}

async fn sometimes(nth: u32) -> Answer {
    if nth.is_multiple_of(ONE_IN) { Err(Down(1)) } else { Operation::READY.start().await }
}
