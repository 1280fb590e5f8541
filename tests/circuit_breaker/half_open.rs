//! Open and half-open: the break, its probes, and their verdict.

use proptest::{collection::vec, prop_assert_eq, proptest, sample::select};
use tokio::{runtime::Builder, time::Instant};
use withstand::{CircuitBreaker, CircuitState, ClosedBy, EventKind, Reason, Trigger};

use crate::users::{Users, eager, ms, reply, sleep};

fn probes(probes: u32, close_after: u32) -> withstand::CircuitBreakerBuilder {
    eager().probes(probes).close_after(close_after)
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_tells_the_rest_of_its_break() {
    let users = Users::opened(eager()).await;
    assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(1_000)));
    sleep(500).await;
    assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(500)));
    let rejection = users.refusal().await;
    assert_eq!(rejection.policy(), "circuit_breaker");
    sleep(500).await;
    users.play("S").await;
}

#[tokio::test(start_paused = true)]
async fn the_break_ends_at_its_end_and_not_a_nanosecond_earlier() {
    let users = Users::opened(eager()).await;
    let until = users.breaker.snapshot().open_until.unwrap();
    let nearly = std::time::Duration::from_nanos(1);
    tokio::time::advance(until.duration_since(Instant::now() + nearly)).await;
    assert_eq!(users.refusal().await.retry_after(), Some(nearly));
    assert!(users.state().is_open());
    tokio::time::advance(nearly).await;
    assert_eq!(users.state(), CircuitState::HalfOpen);
    users.play("S").await;
}

#[tokio::test(start_paused = true)]
async fn the_state_is_computed_from_the_time_and_looking_changes_nothing() {
    let users = Users::opened(eager()).await;
    assert_eq!(users.state().as_str(), "open");
    sleep(1_000).await;
    assert_eq!(users.state(), CircuitState::HalfOpen);
    assert_eq!(users.breaker.snapshot().state, CircuitState::HalfOpen);
    assert!(users.heard.take().is_empty(), "no call has come");

    sleep(500).await;
    users.play("S").await;
    let heard = users.heard.take();
    let EventKind::HalfOpened { open_time, .. } = heard[0] else { panic!("{heard:?}") };
    assert_eq!(open_time, ms(1_500));
}

#[tokio::test(start_paused = true)]
async fn a_state_says_which_it_is() {
    let closed = Users::new(eager());
    let half_open = Users::half_open(eager()).await;
    let open = Users::opened(eager()).await;
    let isolated = Users::new(eager());
    let _isolation = isolated.breaker.isolate();
    let said = [closed, open, half_open, isolated].map(|users| {
        let state = users.state();
        (state.to_string(), state.is_closed(), state.is_open())
    });
    let expected =
        [("closed", true, false), ("open", false, true), ("half_open", false, false), ("isolated", false, false)];
    assert_eq!(said.each_ref().map(|(word, closed, open)| (word.as_str(), *closed, *open)), expected);
}

#[tokio::test(start_paused = true)]
async fn while_the_probe_is_out_others_are_refused() {
    let users = Users::half_open(probes(1, 1).probe_lease(ms(700))).await;
    let (call, signal) = users.begin();
    assert_eq!(users.refused().await, (Reason::CircuitHalfOpen, Some(700)));
    assert_eq!((users.state(), users.probes()), (CircuitState::HalfOpen, (1, 0, 0)));
    signal.give(Ok(()));
    call.await.unwrap();
    assert_eq!(users.state(), CircuitState::Closed);
    let expected = ["half-opened", "rejected: CircuitHalfOpen", "probe passed, 1/1", "closed by Probes"];
    assert_eq!(users.heard.words(), expected);
}

#[tokio::test(start_paused = true)]
async fn exactly_as_many_as_configured_are_out_at_once() {
    let users = Users::half_open(probes(5, 5)).await;
    let calls: Vec<_> = (0..5).map(|_| users.begin()).collect();
    for _ in 0..20 {
        assert_eq!(users.refused().await.0, Reason::CircuitHalfOpen);
    }
    drop(calls);
    assert_eq!(users.probes(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_opens_for_a_full_break_again() {
    let users = Users::half_open(probes(1, 1)).await;
    sleep(300).await;
    users.play("F").await;
    assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(1_000)));
    let heard = users.heard.take();
    let EventKind::Opened { trigger, failure_rate, calls, reopenings, label, .. } = heard[2] else {
        panic!("{heard:?}")
    };
    assert_eq!((trigger, failure_rate, calls, reopenings, label), (Trigger::Probe, 1.0, 1, 1, "transient"));
    assert_eq!(users.breaker.snapshot().reopenings, 1);
}

#[tokio::test(start_paused = true)]
async fn it_closes_with_an_empty_window_into_which_no_probe_counts() {
    let users = Users::half_open(probes(3, 2)).await;
    users.play("FSS").await;
    assert_eq!((users.state(), users.window()), (CircuitState::Closed, (0, 0, 0)));
    let heard = users.heard.take();
    let Some(EventKind::Closed { by, open_time, .. }) = heard.last() else { panic!("{heard:?}") };
    assert_eq!((*by, *open_time), (ClosedBy::Probes, ms(1_000)));
    assert_eq!(users.breaker.snapshot().reopenings, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_success_is_a_failed_probe_where_slow_calls_are_watched() {
    let users = Users::half_open(probes(1, 1).slow_call(ms(100))).await;
    users.take(100, 'S').await.unwrap();
    assert!(users.state().is_open());
    assert_eq!(users.heard.words().last().unwrap(), r#"opened by Probe, "slow""#);

    let quick = Users::half_open(probes(1, 1).slow_call(ms(100))).await;
    quick.take(99, 'S').await.unwrap();
    assert_eq!(quick.state(), CircuitState::Closed);
}

/// What the first so many counted results come to: closed, open again, or nothing yet.
fn verdict(counted: &str, probes: usize, close_after: usize) -> &'static str {
    let successes = counted.matches('S').count();
    if successes >= close_after {
        "closed"
    } else if counted.len() - successes > probes - close_after {
        "open"
    } else {
        "half_open"
    }
}

#[test]
fn the_verdict_falls_as_soon_as_it_is_certain_in_the_cases_from_the_field() {
    let cases = [
        ("SS", 3, 3, "half_open"),
        ("SSF", 3, 3, "open"),
        ("FS", 3, 2, "half_open"),
        ("FSS", 3, 2, "closed"),
        ("FSF", 3, 2, "open"),
        ("SFSF", 4, 3, "open"),
        ("SFSS", 4, 3, "closed"),
    ];
    for (counted, probes, close_after, expected) in cases {
        assert_eq!(verdict(counted, probes, close_after), expected, "{counted}");
    }
}

proptest! {
    #![proptest_config(crate::support::trials::cases(256))]

    /// Whatever the numbers, and whatever comes in between that counts neither way.
    #[test]
    fn the_verdict_falls_as_soon_as_it_is_certain(
        most in 1_usize..8, needed in 1_usize..8, letters in vec(select("SSSFFUXTIR".chars().collect::<Vec<_>>()), 1..40),
    ) {
        let needed = needed.min(most);
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
            let users = Users::half_open(probes(most.try_into().unwrap(), needed.try_into().unwrap())).await;
            let mut counted = String::new();
            for letter in letters {
                let was_counted = match letter {
                    'S' => "S",
                    'F' | 'U' | 'X' => "F",
                    _ => "",
                };
                counted += was_counted;
                prop_assert_eq!(users.call(letter).await.is_ok(), reply(letter).is_ok());
                let expected = verdict(&counted, most, needed);
                prop_assert_eq!(users.state().as_str(), expected, "after {} of {} in {}", counted, needed, most);
                if expected != "half_open" {
                    break;
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn jitter_makes_a_break_longer_by_up_to_its_share_and_never_shorter(seed: u64, share in 0.0_f64..=1.0) {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
            let jittery = CircuitBreaker::builder().open_for(ms(1_000)).growth(4.0).max_open_for(ms(2_000)).jitter(share);
            let users = Users::opened(jittery.probes(1).seed(seed)).await;
            for base in [1.0, 2.0, 2.0] {
                let CircuitState::Open { retry_after, .. } = users.state() else { panic!("closed") };
                let seconds = retry_after.as_secs_f64();
                assert!((base..=base * (1.0 + share)).contains(&seconds), "{seconds} of {base}");
                tokio::time::sleep(retry_after).await;
                users.play("F").await;
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn breaks_grow_to_their_cap_until_the_circuit_closes() {
    let growing = || eager().growth(1.5).max_open_for(ms(3_000)).probes(1);
    let users = Users::opened(growing()).await;
    for (reopenings, millis) in [1_000, 1_500, 2_250, 3_000, 3_000].into_iter().enumerate() {
        assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(millis)));
        assert_eq!(users.breaker.snapshot().reopenings as usize, reopenings);
        sleep(u64::try_from(millis).unwrap() - 1).await;
        assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(1)));
        sleep(1).await;
        users.play("F").await;
    }
    sleep(3_000).await;
    users.play("SF").await;
    assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(1_000)));
}

#[tokio::test(start_paused = true)]
async fn a_break_as_long_as_time_itself_never_ends_and_breaks_nothing() {
    let users = Users::opened(CircuitBreaker::builder().open_for(std::time::Duration::MAX).jitter(1.0)).await;
    sleep(1_000_000).await;
    let (reason, after) = users.refused().await;
    assert_eq!(reason, Reason::CircuitOpen);
    assert!(after.unwrap() > 100 * 365 * 86_400 * 1_000, "at least a hundred years");
    assert!(users.state().is_open());
    users.breaker.reset();
    users.play("S").await;
}
