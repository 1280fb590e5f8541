//! What a breaker does that was told nothing, and the one in the standard pipeline.

use std::time::Duration;

use withstand::{CircuitBreaker, CircuitState, EventKind, Pipeline, Reason, Trigger};

use crate::users::{ByItself, Heard, Users, ms, reply, sleep};

#[tokio::test(start_paused = true)]
async fn it_opens_when_half_of_twenty_calls_have_failed() {
    for (letters, opens) in [
        ("FFFFFFFFFFFFFFFFFFF", false),
        ("FFFFFFFFFFFFFFFFFFFF", true),
        ("SSSSSSSSSSFFFFFFFFFF", true),
        ("SSSSSSSSSSSFFFFFFFFF", false),
        // The twentieth call is a success.
        ("FFFFFFFFFFSSSSSSSSSS", true),
    ] {
        let users = Users::new(CircuitBreaker::builder());
        users.play(letters).await;
        assert_eq!(users.state().is_open(), opens, "{letters}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_looks_at_the_last_thirty_seconds() {
    for (gap, opens) in [(26_999, true), (30_000, false)] {
        let users = Users::new(CircuitBreaker::builder());
        users.play("FFFFFFFFFF").await;
        sleep(gap).await;
        users.play("FFFFFFFFFF").await;
        assert_eq!(users.state().is_open(), opens, "after {gap} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn its_breaks_double_from_five_seconds_to_a_minute_and_three_good_probes_end_them() {
    let users = Users::opened(CircuitBreaker::builder()).await;
    for seconds in [5, 10, 20, 40, 60, 60] {
        assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(seconds * 1_000)));
        sleep(u64::try_from(seconds).unwrap() * 1_000).await;
        assert_eq!(users.state(), CircuitState::HalfOpen);
        users.play("SSF").await;
        assert!(users.state().is_open(), "one of three is enough");
    }
    sleep(60_000).await;
    users.play("SSS").await;
    assert_eq!(users.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn three_probes_are_out_at_once() {
    let users = Users::opened(CircuitBreaker::builder()).await;
    sleep(5_000).await;
    let _out = [users.begin(), users.begin(), users.begin()];
    assert_eq!(users.refused().await, (Reason::CircuitHalfOpen, Some(5_000)), "no longer than a break");
}

#[tokio::test(start_paused = true)]
async fn slow_calls_are_not_watched() {
    let users = Users::new(CircuitBreaker::builder().count_window(2).min_calls(2));
    users.take(3_600_000, 'S').await.unwrap();
    users.take(3_600_000, 'S').await.unwrap();
    assert_eq!((users.state(), users.window()), (CircuitState::Closed, (2, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_not_watched() {
    let users = Users::new(CircuitBreaker::builder());
    users.play(&"S".repeat(100)).await;
    users.play(&"F".repeat(99)).await;
    assert_eq!((users.state(), users.breaker.snapshot().consecutive_failures), (CircuitState::Closed, 0));
}

/// The opening that the breaker of a standard pipeline reports after calls that take so long.
async fn standard(millis: impl IntoIterator<Item = u64>) -> Option<(Trigger, Duration)> {
    let heard = Heard::default();
    let users = Pipeline::standard("users").classifier(ByItself).observer(heard.observer()).build().unwrap();
    for millis in millis {
        let operation = || async move {
            sleep(millis).await;
            reply('S')
        };
        users.call(operation).await.unwrap();
    }
    heard.take().into_iter().find_map(|event| match event {
        EventKind::Opened { trigger, open_for, .. } => Some((trigger, open_for)),
        _ => None,
    })
}

#[tokio::test(start_paused = true)]
async fn the_one_in_the_standard_pipeline_opens_when_four_fifths_of_the_calls_take_800_ms() {
    let calls = |slow: usize, millis: u64| (0..20).map(move |n| if n < slow { millis } else { 10 });
    let (trigger, open_for) = standard(calls(16, 800)).await.expect("it opens");
    assert_eq!(trigger, Trigger::SlowRate);
    assert!((ms(5_000)..=ms(5_500)).contains(&open_for), "{open_for:?}");
    assert_eq!(standard(calls(15, 800)).await, None);
    assert_eq!(standard(calls(20, 799)).await, None);
}
