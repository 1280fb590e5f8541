//! By hand: isolation, reset, tickets.

use std::{sync::Arc, time::Duration};

use proptest::{collection::vec, prop_assert_eq, proptest};
use tokio::runtime::Builder;
use withstand::{CircuitBreaker, CircuitState, EventKind, Reason, Recorded, Verdict};

use crate::users::{Users, eager, ms, reply, sleep};

#[tokio::test(start_paused = true)]
async fn an_isolated_circuit_refuses_without_a_time_and_only_release_ends_it() {
    let users = Users::new(eager().probes(1));
    let (running, signal) = users.begin();
    let isolation = users.breaker.isolate();
    signal.give(Ok(()));
    running.await.unwrap();
    for _ in 0..5 {
        assert_eq!(users.refused().await, (Reason::Isolated, None));
        sleep(1_000_000).await;
        assert_eq!(users.state(), CircuitState::Isolated);
    }
    users.heard.take();
    sleep(5).await;
    isolation.release();
    users.play("S").await;
    let heard = users.heard.take();
    let [EventKind::Released { handles: 0, .. }, EventKind::Closed { open_time, .. }] = heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(open_time, ms(5_000_005));
}

#[tokio::test(start_paused = true)]
async fn a_reset_closes_an_isolated_circuit_and_voids_its_handles() {
    let users = Users::new(eager());
    let void = [users.breaker.isolate(), users.breaker.isolate()];
    users.breaker.reset();
    assert_eq!((users.state(), users.window()), (CircuitState::Closed, (0, 0, 0)));
    users.play("S").await;
    let valid = users.breaker.isolate();
    drop(void);
    assert_eq!(users.state(), CircuitState::Isolated, "others have isolated it since");
    drop(valid);
    assert_eq!(users.state(), CircuitState::Closed);
    let told = ["isolated, 1", "isolated, 2", "closed by Reset", "isolated, 1", "released, 0", "closed by Release"];
    assert_eq!(users.heard.words(), told);
}

#[tokio::test(start_paused = true)]
async fn an_isolated_circuit_leaves_every_state_and_comes_back_closed_and_empty() {
    let closed = Users::new(eager());
    closed.play("F").await;
    let open = Users::opened(eager()).await;
    let half_open = Users::half_open(eager()).await;
    let (_probe, _signal) = half_open.begin();
    for users in [&closed, &open, &half_open] {
        drop(users.breaker.isolate());
        assert_eq!(users.state(), CircuitState::Closed);
        assert_eq!((users.window(), users.probes()), ((0, 0, 0), (0, 0, 0)));
        assert_eq!(users.breaker.snapshot().reopenings, 0);
    }
}

proptest! {
    #![proptest_config(crate::support::trials::cases(128))]

    #[test]
    fn handles_nest_in_any_order_and_the_last_one_closes(choices in vec(0_usize..6, 1..60)) {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
            let users = Users::new(eager());
            let mut handles = Vec::new();
            for choice in choices {
                if choice < handles.len() {
                    drop(handles.swap_remove(choice));
                } else {
                    handles.push(users.breaker.isolate());
                }
                let expected = if handles.is_empty() { CircuitState::Closed } else { CircuitState::Isolated };
                prop_assert_eq!(users.state(), expected);
                let told = users.heard.take().into_iter().find_map(|event| match event {
                    EventKind::Isolated { handles, .. } | EventKind::Released { handles, .. } => Some(handles as usize),
                    _ => None,
                });
                prop_assert_eq!(told, Some(handles.len()));
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn pipelines_built_around_an_isolated_circuit_refuse_until_it_is_released() {
    let breaker = Arc::new(eager().build().unwrap());
    let isolation = breaker.isolate();
    let pipelines = ["a", "b"].map(|name| Users::around(&breaker, name));
    for users in &pipelines {
        assert_eq!(users.refused().await, (Reason::Isolated, None));
    }
    isolation.release();
    for users in &pipelines {
        users.play("S").await;
        assert_eq!(users.heard.words(), ["rejected: Isolated", "released, 0", "closed by Release"]);
    }
}

#[tokio::test(start_paused = true)]
async fn neither_results_nor_time_end_an_isolation_whatever_was_under_way() {
    for letter in ['S', 'F', 'T'] {
        let closed = Users::new(eager().min_calls(1));
        let half_open = Users::half_open(eager().probes(1)).await;
        for users in [closed, half_open] {
            let (call, signal) = users.begin();
            let isolation = users.breaker.isolate();
            signal.give(reply(letter));
            call.await.ok();
            sleep(100_000).await;
            assert_eq!(users.state(), CircuitState::Isolated);
            drop(isolation);
            assert_eq!((users.state(), users.window()), (CircuitState::Closed, (0, 0, 0)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_outlives_its_breaker() {
    let breaker = CircuitBreaker::builder().build().unwrap();
    let isolation = breaker.isolate();
    let mut changes = breaker.subscribe();
    drop(breaker);
    drop(isolation);
    assert_eq!(changes.changed().await, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_reset_forgets_a_run_of_failures_and_a_window() {
    let run = CircuitBreaker::builder().consecutive_failures(3).consecutive_span(Duration::ZERO);
    let users = Users::new(run.count_window(5).time_window(ms(1_000)).min_calls(3));
    users.play("FF").await;
    users.breaker.reset();
    users.breaker.reset();
    assert_eq!((users.window(), users.breaker.snapshot().consecutive_failures), ((0, 0, 0), 0));
    users.play("FF").await;
    assert_eq!(users.state(), CircuitState::Closed);
    assert!(users.heard.take().is_empty());
    users.play("F").await;
    assert!(users.state().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_reset_closes_an_open_circuit_and_the_next_break_is_a_first_one() {
    let users = Users::half_open(eager().growth(10.0).probes(1)).await;
    users.play("F").await;
    assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(10_000)));
    users.heard.take();
    users.breaker.reset();
    users.breaker.reset();
    assert_eq!(users.heard.words(), ["closed by Reset"]);
    users.play("F").await;
    assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(1_000)));
}

#[tokio::test(start_paused = true)]
async fn tickets_make_the_same_circuit_without_wrapping_anything() {
    let breaker = eager().name("disk").probes(1).build().unwrap();
    let ticket = breaker.admit().unwrap();
    assert!(!ticket.is_probe());
    assert_eq!(ticket.success(), Recorded::Counted);
    assert_eq!(breaker.admit().unwrap().failure("io"), Recorded::Counted);

    let rejection = breaker.admit().unwrap_err();
    assert_eq!((rejection.reason(), rejection.retry_after()), (Reason::CircuitOpen, Some(ms(1_000))));
    assert_eq!(rejection.policy(), "disk");
    sleep(1_000).await;
    let probe = breaker.admit().unwrap();
    assert!(probe.is_probe());
    assert_eq!(breaker.admit().unwrap_err().reason(), Reason::CircuitHalfOpen);
    drop(probe);
    assert_eq!(breaker.admit().unwrap().success(), Recorded::Counted);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_takes_a_verdict() {
    let verdicts = [
        (Verdict::success(), Some(Recorded::Counted)),
        (Verdict::transient().retry_after(ms(5)), Some(Recorded::Counted)),
        (Verdict::unreached(), Some(Recorded::Counted)),
        (Verdict::failure(), Some(Recorded::Counted)),
        (Verdict::throttled(), None),
        (Verdict::ignored(), None),
        (Verdict::rejected(), None),
    ];
    let breaker = CircuitBreaker::builder().count_window(10).build().unwrap();
    for (verdict, expected) in verdicts {
        assert_eq!(breaker.admit().unwrap().record(verdict), expected, "{verdict:?}");
    }
    let seen = breaker.snapshot();
    assert_eq!((seen.calls, seen.failures), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_slow_by_the_time_since_its_admission() {
    let breaker = CircuitBreaker::builder().count_window(10).slow_call(ms(100)).build().unwrap();
    for (millis, slow) in [(99, 0), (100, 1), (500, 2)] {
        let ticket = breaker.admit().unwrap();
        sleep(millis).await;
        assert_eq!(ticket.success(), Recorded::Counted);
        assert_eq!(breaker.snapshot().slow_calls, slow);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ticket_of_a_throttled_probe_uses_nothing_up() {
    let users = Users::half_open(eager().probes(1)).await;
    for verdict in [Verdict::throttled(), Verdict::ignored(), Verdict::rejected()] {
        assert_eq!(users.breaker.admit().unwrap().record(verdict), None);
        assert_eq!(users.probes(), (0, 0, 0));
    }
    users.play("S").await;
    assert_eq!(users.state(), CircuitState::Closed);
}
