//! Subscribers hear of changes, those by time alone included.

use futures::future::join_all;
use tokio::time::{Instant, timeout};
use withstand::CircuitState;

use crate::users::{Users, eager, ms, poll, sleep};

#[tokio::test(start_paused = true)]
async fn the_end_of_a_break_is_heard_of_though_no_call_comes() {
    let users = Users::new(eager());
    let mut changes = users.breaker.subscribe();
    users.play("FF").await;
    assert!(changes.changed().await.is_open());
    let began = Instant::now();
    assert_eq!(changes.changed().await, CircuitState::HalfOpen);
    assert_eq!(began.elapsed(), ms(1_000));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_lease_is_heard_of_though_no_call_comes() {
    let users = Users::half_open(eager().probes(3).close_after(2).probe_lease(ms(3_000))).await;
    let mut changes = users.breaker.subscribe();
    let hear = async { (changes.changed().await.as_str(), changes.changed().await.as_str(), Instant::now()) };
    let hang = async {
        sleep(100).await;
        let first = users.begin();
        sleep(500).await;
        // The second failure decides. Nobody is told of the admission of a probe.
        (first, users.begin())
    };
    let began = Instant::now();
    let (heard, _hung) = tokio::join!(timeout(ms(100_000), hear), hang);
    let (opened, half_opened, at) = heard.expect("two changes");
    assert_eq!((opened, half_opened, at - began), ("open", "half_open", ms(100 + 500 + 3_000 + 1_000)));
}

#[tokio::test(start_paused = true)]
async fn every_state_that_lasts_is_heard_of_by_everyone_who_waits() {
    let users = Users::new(eager().probes(1));
    let mut subscribers: Vec<_> = (0..3).map(|_| users.breaker.subscribe()).collect();
    let expected = ["open", "half_open", "open", "half_open", "isolated", "closed"];
    let hear = join_all(subscribers.iter_mut().map(async |changes| {
        for expected in expected {
            let state = timeout(ms(100_000), changes.changed()).await.expect("a change");
            assert_eq!(state.as_str(), expected);
        }
    }));
    let act = async {
        sleep(10).await;
        users.play("FF").await;
        sleep(1_010).await;
        users.play("F").await;
        sleep(1_010).await;
        let isolation = users.breaker.isolate();
        sleep(10).await;
        drop(isolation);
    };
    tokio::join!(hear, act);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_loses_no_change() {
    let users = Users::new(eager());
    let mut changes = users.breaker.subscribe();
    for _ in 0..3 {
        assert!(poll(&mut Box::pin(changes.changed())).is_pending());
    }
    users.play("FF").await;
    assert!(changes.changed().await.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_reset_before_the_end_of_the_break_wakes() {
    let users = Users::opened(eager()).await;
    let mut changes = users.breaker.subscribe();
    let reset = async {
        sleep(300).await;
        users.breaker.reset();
    };
    let (state, ()) = tokio::join!(changes.changed(), reset);
    assert_eq!(state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_sees_only_what_differs_from_what_it_saw() {
    let users = Users::opened(eager()).await;
    let mut changes = users.breaker.subscribe();
    sleep(1_000).await;
    users.play("F").await;
    let mut wait = Box::pin(changes.changed());
    assert!(poll(&mut wait).is_pending(), "open again is open still");
    assert_eq!(wait.await, CircuitState::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn a_break_that_is_cut_short_does_not_end_a_second_time() {
    let users = Users::opened(eager()).await;
    let mut changes = users.breaker.subscribe();
    sleep(300).await;
    let isolation = users.breaker.isolate();
    assert_eq!(changes.changed().await, CircuitState::Isolated);
    timeout(ms(100_000), changes.changed()).await.unwrap_err();
    drop(isolation);
    assert_eq!(changes.changed().await, CircuitState::Closed);
    timeout(ms(100_000), changes.changed()).await.unwrap_err();
}
