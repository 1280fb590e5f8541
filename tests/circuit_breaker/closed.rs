//! Closed: windows, thresholds, and what opens a circuit.

use std::time::Duration;

use proptest::{collection::vec, prop_assert, proptest};
use tokio::{runtime::Builder, time::Instant};
use withstand::{CircuitBreaker, CircuitBreakerBuilder, CircuitState, EventKind, Trigger, Verdict};

use crate::users::{Users, eager, ms, sleep};

fn counting(window: u32) -> CircuitBreakerBuilder {
    CircuitBreaker::builder().count_window(window)
}

fn in_a_row(failures: u32, span: Duration) -> CircuitBreakerBuilder {
    CircuitBreaker::builder().consecutive_failures(failures).consecutive_span(span)
}

/// Each letter but the last leaves the circuit closed; the last one opens it.
async fn opens_with_the_last(builder: CircuitBreakerBuilder, letters: &str) {
    let users = Users::new(builder);
    let (last, others) = letters.char_indices().next_back().map(|(at, _)| (&letters[at..], &letters[..at])).unwrap();
    for letter in others.chars() {
        users.play(letter.encode_utf8(&mut [0; 4])).await;
        assert_eq!(users.state(), CircuitState::Closed, "{letters}");
    }
    users.play(last).await;
    assert!(users.state().is_open(), "{letters} opens with its last call");
}

async fn stays_closed(builder: CircuitBreakerBuilder, letters: &str) {
    let users = Users::new(builder);
    for letter in letters.chars() {
        users.play(letter.encode_utf8(&mut [0; 4])).await;
        assert_eq!(users.state(), CircuitState::Closed, "{letters}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_opens_with_the_call_that_fills_the_minimum_and_says_so_once() {
    let users = Users::new(CircuitBreaker::builder().time_window(ms(10_000)).min_calls(10).open_for(ms(5_000)));
    users.play("FFFFFFFFF").await;
    assert_eq!(users.state(), CircuitState::Closed);
    assert!(users.heard.take().is_empty());

    users.play("F").await;
    assert!(users.state().is_open());
    let heard = users.heard.take();
    let [EventKind::Opened { trigger, failure_rate, slow_rate, calls, open_for, reopenings, label, .. }] = heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!((trigger, calls, open_for, reopenings), (Trigger::FailureRate, 10, ms(5_000), 0));
    assert_eq!((failure_rate, slow_rate, label), (1.0, 0.0, "transient"));
}

#[tokio::test(start_paused = true)]
async fn a_rate_equal_to_the_threshold_opens() {
    opens_with_the_last(counting(10).min_calls(10).failure_rate(0.5), "SSSSSFFFFF").await;
    opens_with_the_last(counting(3).failure_rate(2.0 / 3.0), "FSF").await;
    stays_closed(counting(10).failure_rate(0.5), "SSSSSSFFFF").await;
    stays_closed(counting(20).min_calls(10).failure_rate(0.1), "SSSSSSSSSSF").await;
}

#[tokio::test(start_paused = true)]
async fn below_the_minimum_no_rate_opens_and_none_is_told() {
    let users = Users::new(counting(20).min_calls(10).failure_rate(0.1));
    users.play("FFFFFFFFF").await;
    assert_eq!(users.state(), CircuitState::Closed);
    assert_eq!((users.window(), users.breaker.snapshot().failure_rate), ((9, 9, 0), None));

    let quick = Users::new(counting(20).min_calls(3).failure_rate(1.0));
    quick.play("FS").await;
    assert_eq!(quick.breaker.snapshot().failure_rate, None);
    quick.play("FS").await;
    assert_eq!(quick.breaker.snapshot().failure_rate, Some(0.5));
    assert_eq!(quick.breaker.snapshot().slow_rate, Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_success_can_be_the_call_that_opens() {
    opens_with_the_last(counting(5).min_calls(5).failure_rate(0.5), "FFFSS").await;
}

#[tokio::test(start_paused = true)]
async fn a_minimum_larger_than_a_count_window_means_a_full_window() {
    opens_with_the_last(counting(5).min_calls(1_000), "FFFFF").await;
    let time = CircuitBreaker::builder().time_window(ms(1_000)).min_calls(1_000);
    stays_closed(time, &"F".repeat(999)).await;
}

#[tokio::test(start_paused = true)]
async fn a_count_window_forgets_what_lies_further_back() {
    let users = Users::new(counting(10).failure_rate(0.5));
    users.play(&"S".repeat(10_000)).await;
    users.play("FFFF").await;
    assert_eq!((users.state(), users.window()), (CircuitState::Closed, (10, 4, 0)));
    users.play("F").await;
    assert!(users.state().is_open());

    stays_closed(counting(4).failure_rate(0.5), &"FSSS".repeat(20)).await;
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_a_run_of_failures() {
    opens_with_the_last(in_a_row(3, Duration::ZERO), "FSFFF").await;
    opens_with_the_last(in_a_row(6, Duration::ZERO), "FFFFFSFFFFFF").await;
    stays_closed(in_a_row(2, Duration::ZERO), &"FS".repeat(50)).await;
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_of_the_dependency_neither_ends_nor_lengthens_a_run() {
    opens_with_the_last(in_a_row(3, Duration::ZERO), "FTIRFTIRF").await;
    stays_closed(in_a_row(3, Duration::ZERO), "FTIRTIRF").await;
}

#[tokio::test(start_paused = true)]
async fn failures_of_the_same_moment_are_no_run_unless_asked_for() {
    let users = Users::new(CircuitBreaker::builder().consecutive_failures(3));
    users.play("FFFFFFFF").await;
    sleep(990).await;
    users.play("F").await;
    assert_eq!(users.state(), CircuitState::Closed);
    assert_eq!(users.breaker.snapshot().consecutive_failures, 9);
    sleep(10).await;
    users.play("F").await;
    assert!(users.state().is_open());
    assert_eq!(users.heard.words(), [r#"opened by Consecutive, "transient""#]);
}

#[tokio::test(start_paused = true)]
async fn of_several_windows_whichever_trips_first_opens() {
    let all = || in_a_row(4, Duration::ZERO).count_window(6).time_window(ms(1_000)).min_calls(8).failure_rate(0.5);
    opens_with_the_last(all(), "FFFF").await;
    opens_with_the_last(all(), "FFFSSS").await;
    // The count window still holds the successes that the time window has forgotten.
    let users = Users::new(in_a_row(5, Duration::ZERO).count_window(100).time_window(ms(1_000)).min_calls(8));
    users.play(&"S".repeat(20)).await;
    sleep(1_000).await;
    users.play("SSSSFFF").await;
    assert_eq!(users.state(), CircuitState::Closed);
    users.play("F").await;
    assert_eq!(users.heard.words(), [r#"opened by FailureRate, "transient""#]);
}

#[tokio::test(start_paused = true)]
async fn a_time_window_that_rolls_on_forgets_failures_after_any_gap() {
    for gap in [1_000, 5_000, 60_000, 86_400_000, 86_400_000 * 365] {
        let users = Users::new(CircuitBreaker::builder().time_window(ms(1_000)).min_calls(4));
        users.play("FFF").await;
        sleep(gap).await;
        assert_eq!(users.window(), (0, 0, 0), "after {gap} ms");
        users.play("F").await;
        assert_eq!((users.state(), users.window()), (CircuitState::Closed, (1, 1, 0)), "after {gap} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn the_shortest_time_window_works() {
    let users = Users::new(CircuitBreaker::builder().time_window(ms(1)).min_calls(2));
    users.play("F").await;
    sleep(1).await;
    users.play("F").await;
    assert_eq!((users.state(), users.window()), (CircuitState::Closed, (1, 1, 0)));
    users.play("F").await;
    assert!(users.state().is_open());
}

/// Written as a fraction, or in percent: the comparison hides no rounding.
#[tokio::test(start_paused = true)]
async fn every_share_of_every_number_is_a_threshold_that_is_met_exactly() {
    for calls in (1..=20_u32).chain([64, 100]) {
        for failures in 1..=calls {
            let breaker = counting(calls).min_calls(1_000).failure_rate(f64::from(failures) / f64::from(calls));
            for (failed, opens) in [(failures - 1, false), (failures, true)] {
                let breaker = breaker.clone().build().unwrap();
                for call in 0..calls {
                    let ticket = breaker.admit().unwrap();
                    if call < failed {
                        ticket.failure("down")
                    } else {
                        ticket.success()
                    };
                }
                assert_eq!(breaker.state().is_open(), opens, "{failed} of {calls}, threshold {failures}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ten_calls_a_second_apart_are_nine_ten_seconds_after_the_first_and_then_eight() {
    for late in [0, 1, 499, 500, 999] {
        let users = Users::new(CircuitBreaker::builder().time_window(ms(10_000)));
        sleep(late).await;
        for _ in 0..10 {
            users.play("S").await;
            sleep(1_000).await;
        }
        assert_eq!(users.window(), (9, 0, 0));
        sleep(1_000).await;
        assert_eq!(users.window(), (8, 0, 0));
        sleep(7_000).await;
        assert_eq!(users.window(), (1, 0, 0));
        sleep(1_000).await;
        assert_eq!(users.window(), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_counts_when_it_ends_however_long_ago_it_began() {
    let users = Users::new(CircuitBreaker::builder().time_window(ms(1_000)).min_calls(2));
    let calls = [users.begin(), users.begin()];
    sleep(86_400_000).await;
    for (call, signal) in calls {
        assert_eq!(users.state(), CircuitState::Closed);
        signal.give(Err(Verdict::transient().into()));
        call.await.unwrap_err();
    }
    assert!(users.state().is_open());
}

/// Nobody asks while calls end that say nothing: it is the next result that opens.
#[tokio::test(start_paused = true)]
async fn a_rate_that_rises_because_successes_are_forgotten_opens_with_the_next_result() {
    let users = Users::new(CircuitBreaker::builder().time_window(ms(1_000)).min_calls(4));
    users.play("SSSSSS").await;
    sleep(500).await;
    users.play("FFFF").await;
    sleep(500).await;
    assert_eq!((users.state(), users.window()), (CircuitState::Closed, (4, 4, 0)));
    users.play("TIR").await;
    assert_eq!(users.state(), CircuitState::Closed);
    users.play("S").await;
    assert_eq!(users.heard.words(), [r#"opened by FailureRate, "transient""#]);
}

proptest! {
    #![proptest_config(crate::support::trials::cases(256))]

    #[test]
    fn a_time_window_sees_what_is_younger_than_nine_tenths_of_it_and_nothing_older_than_it(
        gaps in vec(0_u64..400, 1..60),
    ) {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
            let users = Users::new(CircuitBreaker::builder().time_window(ms(1_000)).failure_rate(1.0));
            let mut calls = Vec::new();
            for gap in gaps {
                sleep(gap).await;
                users.play("S").await;
                calls.push(Instant::now());
                let younger = |age| calls.iter().filter(|at| at.elapsed() < ms(age)).count();
                let seen = users.window().0 as usize;
                prop_assert!((younger(900)..=younger(1_000)).contains(&seen), "{seen} of {calls:?}");
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_at_their_own_rate() {
    let users = Users::new(counting(10).min_calls(5).slow_call(ms(100)));
    for millis in [99, 100, 150, 200, 100] {
        assert_eq!(users.state(), CircuitState::Closed);
        users.take(millis, 'S').await.unwrap();
    }
    assert!(users.state().is_open());
    assert_eq!(users.heard.words(), [r#"opened by SlowRate, "slow""#]);
}

#[tokio::test(start_paused = true)]
async fn slow_successes_count_in_a_window_that_is_full_of_plain_ones() {
    let breaker = counting(4).min_calls(4).slow_call(ms(100)).slow_rate(0.5).build().unwrap();
    let call = async |takes| {
        let answer = breaker.call(|| async move {
            sleep(takes).await;
            Ok::<_, Verdict>(takes)
        });
        assert_eq!(answer.await, Ok(takes));
        breaker.snapshot().slow_rate
    };
    for _ in 0..6 {
        call(1).await;
    }
    assert_eq!(call(100).await, Some(0.25));
    assert!(breaker.state() == CircuitState::Closed);
    call(100).await;
    assert!(breaker.state().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_call_may_be_both_slow_and_a_failure_and_two_rates_open_once() {
    let users = Users::new(counting(2).slow_call(ms(100)).slow_rate(0.5));
    users.take(10, 'S').await.unwrap();
    users.take(100, 'F').await.unwrap_err();
    let heard = users.heard.take();
    let [EventKind::Opened { trigger, failure_rate, slow_rate, calls, .. }] = heard[..] else { panic!("{heard:?}") };
    assert_eq!((trigger, failure_rate, slow_rate, calls), (Trigger::FailureRate, 0.5, 0.5, 2));
}

#[tokio::test(start_paused = true)]
async fn it_learns_from_completed_calls_only_and_opens_once() {
    let users = Users::new(eager().min_calls(5));
    let mut calls: Vec<_> = (0..100).map(|_| users.begin()).collect();
    assert_eq!(users.window(), (0, 0, 0));
    for (call, signal) in &mut calls {
        signal.give(Err(Verdict::transient().label("reset")));
        call.await.unwrap_err();
    }
    assert_eq!(users.heard.words(), [r#"opened by FailureRate, "reset""#]);
}

#[tokio::test(start_paused = true)]
async fn what_opened_it_is_told_until_it_closes() {
    let users = Users::new(counting(4).min_calls(4).open_for(ms(1_000)).probes(1));
    users.play("SSFF").await;
    let opening = users.breaker.snapshot().opening.unwrap();
    assert_eq!((opening.trigger, opening.failure_rate, opening.calls), (Trigger::FailureRate, 0.5, 4));
    sleep(1_000).await;
    users.play("F").await;
    assert_eq!(users.breaker.snapshot().opening, Some(opening), "what first opened it, not the probe that failed");
    sleep(2_000).await;
    users.play("S").await;
    assert_eq!(users.breaker.snapshot().opening, None);
}
