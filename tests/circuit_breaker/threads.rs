//! Many threads at once, and a thread that stands still. The only tests with the real clock.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tokio::{sync::Barrier, task::JoinSet};
use withstand::{CircuitBreaker, CircuitState, Error, Pipeline};

use crate::users::{ByItself, Reply, eager, ms, reply};

const TASKS: usize = 1_000;

async fn half_open(probes: u32, close_after: u32) -> Arc<CircuitBreaker> {
    let builder = eager().count_window(1).min_calls(1).probes(probes).close_after(close_after);
    let breaker = Arc::new(builder.open_for(ms(1)).build().unwrap());
    breaker.admit().unwrap().failure("down");
    // By time alone: no call has come yet.
    while breaker.state().is_open() {
        tokio::time::sleep(ms(1)).await;
    }
    breaker
}

/// A thousand calls that begin at the same moment; none ends before all have been admitted or refused.
async fn stampede(breaker: &Arc<CircuitBreaker>, letter: char) -> usize {
    let (start, decided) = (Arc::new(Barrier::new(TASKS)), Arc::new(Barrier::new(TASKS)));
    let admitted = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    let users = Pipeline::builder("users").circuit_breaker(Arc::clone(breaker)).classifier(ByItself).build().unwrap();
    let users = Arc::new(users);
    for _ in 0..TASKS {
        let (start, decided) = (Arc::clone(&start), Arc::clone(&decided));
        let (users, admitted) = (Arc::clone(&users), Arc::clone(&admitted));
        tasks.spawn(async move {
            start.wait().await;
            let inside = Arc::clone(&decided);
            let operation = move || {
                let (admitted, decided) = (Arc::clone(&admitted), Arc::clone(&inside));
                async move {
                    admitted.fetch_add(1, SeqCst);
                    decided.wait().await;
                    reply(letter)
                }
            };
            let answer = users.call(operation).await;
            if matches!(answer, Err(Error::Rejected(_))) {
                decided.wait().await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    admitted.load(SeqCst) as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_calls_at_the_moment_of_half_opening_exactly_the_probes_get_through() {
    for probes in [1, 3, 10, 100] {
        let breaker = half_open(probes, probes).await;
        assert_eq!(stampede(&breaker, 'S').await, probes as usize);
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stampede_of_dropped_probes_leaves_no_slot_taken() {
    let breaker = half_open(5, 5).await;
    let start = Arc::new(Barrier::new(TASKS));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (start, breaker) = (Arc::clone(&start), Arc::clone(&breaker));
        tasks.spawn(async move {
            start.wait().await;
            // Admitted or not, and dropped at once or after a turn.
            let call = breaker.call(pending::<Reply>);
            tokio::select! {
                biased;
                _ = call => {}
                () = tokio::task::yield_now() => {}
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(breaker.snapshot().probes_in_flight, 0);
    assert_eq!(stampede(&breaker, 'S').await, 5);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

/// A task that blocks its thread is this process's fault: timers are late, answers are there, and nobody reads them.
#[tokio::test]
async fn a_task_that_blocks_the_thread_leaves_the_breaker_closed() {
    let breaker = Arc::new(eager().count_window(100).min_calls(10).build().unwrap());
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).timeout(ms(250));
    let users = Arc::new(builder.classifier(ByItself).build().unwrap());
    let mut calls = JoinSet::new();
    for hangs in (0..100).map(|n| n % 2 == 0) {
        let users = Arc::clone(&users);
        calls.spawn(async move {
            let operation = || async move { if hangs { pending::<Reply>().await } else { answer_in(ms(20)).await } };
            users.call(operation).await.map_err(|error| assert!(error.is_timeout())).is_ok()
        });
    }
    calls.spawn(async {
        tokio::task::yield_now().await;
        thread::sleep(Duration::from_millis(500));
        true
    });
    let mut answered = 0;
    while let Some(ended) = calls.join_next().await {
        answered += usize::from(ended.unwrap());
    }
    assert_eq!(answered, 51, "what has answered meanwhile is not timed out");
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(breaker.snapshot().failures, 0);
}

async fn answer_in(delay: Duration) -> Reply {
    tokio::time::sleep(delay).await;
    Ok(())
}
