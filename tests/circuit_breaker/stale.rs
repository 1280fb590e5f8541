//! Results of calls that outlived the state in which they were admitted.

use tokio::time::Instant;
use withstand::{CircuitBreaker, CircuitState, Error, Recorded, Verdict};

use crate::users::{Users, eager, reply, sleep};

#[tokio::test(start_paused = true)]
async fn a_late_failure_reaches_its_caller_and_does_not_prolong_the_break() {
    let users = Users::new(eager());
    let (late, signal) = users.begin();
    users.play("FF").await;
    let until = users.breaker.snapshot().open_until;
    users.heard.take();
    sleep(400).await;
    signal.give(Err(Verdict::failure().label("late")));
    assert_eq!(late.await, Err(Error::Operation(Verdict::failure().label("late"))));
    assert_eq!(users.breaker.snapshot().open_until, until);
    assert!(users.heard.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_late_success_closes_nothing() {
    for pause in [0, 1_000] {
        let users = Users::new(eager().probes(1));
        let (late, signal) = users.begin();
        users.play("FF").await;
        sleep(pause).await;
        let state = users.state();
        signal.give(Ok(()));
        late.await.unwrap();
        assert_eq!(users.state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_result_is_no_probe() {
    for letter in ['S', 'F'] {
        let users = Users::new(eager().probes(1));
        let (late, late_signal) = users.begin();
        users.play("FF").await;
        sleep(1_000).await;
        let (probe, signal) = users.begin();
        late_signal.give(reply(letter));
        late.await.ok();
        assert_eq!((users.state(), users.probes()), (CircuitState::HalfOpen, (1, 0, 0)));
        signal.give(Ok(()));
        probe.await.unwrap();
        assert_eq!((users.state(), users.window()), (CircuitState::Closed, (0, 0, 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_from_before_the_outage_counts_for_nothing_after_it() {
    let users = Users::new(eager().probes(1));
    let (late, signal) = users.begin();
    users.play("FF").await;
    sleep(1_000).await;
    users.play("S").await;
    assert_eq!(users.state(), CircuitState::Closed);
    signal.give(reply('F'));
    late.await.unwrap_err();
    assert_eq!(users.window(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_an_earlier_phase_neither_counts_nor_frees_a_slot_of_the_next() {
    for letter in ['S', 'F', 'T'] {
        let users = Users::half_open(eager().probes(2).close_after(2)).await;
        let (late, late_signal) = users.begin();
        users.play("F").await;
        sleep(1_000).await;
        let (one, _one) = users.begin();
        let (_two, _two_signal) = users.begin();
        late_signal.give(reply(letter));
        late.await.ok();
        assert_eq!((users.state(), users.probes()), (CircuitState::HalfOpen, (2, 0, 0)));
        drop(one);
        assert_eq!(users.probes(), (1, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_hang_dropped_at_its_deadline_is_stale_too() {
    let breaker = eager().build().unwrap();
    let options = withstand::CallOptions::new().deadline(Instant::now() + crate::users::ms(500));
    let hung = breaker.call_with(options, |_| std::future::pending::<Result<(), &str>>());
    let meanwhile = async {
        sleep(100).await;
        breaker.reset();
    };
    let (hung, ()) = tokio::join!(hung, meanwhile);
    assert!(hung.unwrap_err().is_timeout());
    assert_eq!(breaker.snapshot().calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_learns_that_its_result_came_too_late() {
    let breaker = eager().build().unwrap();
    let tickets: Vec<_> = (0..4).map(|_| breaker.admit().unwrap()).collect();
    let recorded: Vec<_> = tickets.into_iter().map(|ticket| ticket.failure("down")).collect();
    assert_eq!(recorded, [Recorded::Counted, Recorded::Counted, Recorded::Stale, Recorded::Stale]);

    sleep(1_000).await;
    let hung = breaker.admit().unwrap();
    sleep(60_000).await;
    assert_eq!(hung.success(), Recorded::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_result_from_before_a_reset_is_stale_though_the_circuit_was_closed_all_along() {
    let breaker = CircuitBreaker::builder().build().unwrap();
    let ticket = breaker.admit().unwrap();
    breaker.reset();
    assert_eq!(ticket.failure("down"), Recorded::Stale);
    assert_eq!(breaker.snapshot().failures, 0);
}
