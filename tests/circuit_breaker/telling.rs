//! What the breaker tells, how loudly, and what it keeps.

use std::sync::Arc;

use withstand::{CircuitBreaker, EventKind, Level, Pipeline, Reason, Retry, Trigger, Verdict};

use crate::users::{ByItself, Heard, Reply, Users, eager, ms, reply, sleep};

/// The opening among these events: trigger, failure rate, calls, reopenings and label.
fn opening(heard: Vec<EventKind>) -> (Trigger, f64, u64, u32, &'static str) {
    let mut openings = heard.into_iter().filter_map(|event| match event {
        EventKind::Opened { trigger, failure_rate, calls, reopenings, label, .. } => {
            Some((trigger, failure_rate, calls, reopenings, label))
        }
        _ => None,
    });
    let opening = openings.next().expect("it opened");
    assert_eq!(openings.next(), None, "it opened once");
    opening
}

#[tokio::test(start_paused = true)]
async fn an_opening_by_a_run_tells_of_the_window_or_else_of_the_run() {
    let run = || CircuitBreaker::builder().consecutive_failures(3).consecutive_span(ms(0));
    let alone = Users::new(run());
    alone.play("SSSSSFFX").await;
    assert_eq!(opening(alone.heard.take()), (Trigger::Consecutive, 1.0, 3, 0, "failure"));

    let beside = Users::new(run().count_window(8).failure_rate(0.9));
    beside.play("SSSFFF").await;
    assert_eq!(opening(beside.heard.take()), (Trigger::Consecutive, 0.5, 6, 0, "transient"));
}

/// A slow success that fills the window is not what the failures in it were.
#[tokio::test(start_paused = true)]
async fn an_opening_has_the_label_of_what_reached_the_threshold() {
    let builder = || CircuitBreaker::builder().count_window(4).slow_call(ms(100));
    // Each call: how long it takes, and how it ends.
    for (calls, rates, trigger, label) in [
        ([(0, 'S'), (0, 'F'), (0, 'X'), (100, 'S')], (0.5, 1.0), Trigger::FailureRate, "failure"),
        ([(0, 'F'), (100, 'S'), (100, 'S'), (0, 'S')], (0.5, 0.5), Trigger::SlowRate, "slow"),
        ([(100, 'S'), (0, 'S'), (0, 'F'), (0, 'S')], (0.5, 0.25), Trigger::SlowRate, "slow"),
        ([(0, 'S'), (100, 'S'), (0, 'S'), (100, 'F')], (0.5, 0.5), Trigger::SlowRate, "transient"),
    ] {
        let users = Users::new(builder().failure_rate(rates.0).slow_rate(rates.1));
        for (millis, letter) in calls {
            users.take(millis, letter).await.ok();
        }
        let (by, _, _, _, told) = opening(users.heard.take());
        assert_eq!((by, told), (trigger, label), "{calls:?}");
        assert_eq!(users.breaker.snapshot().opening.map(|opening| opening.label), Some(label));
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_by_a_lease_tells_of_the_probes() {
    let users = Users::half_open(eager().probes(4).close_after(3).probe_lease(ms(3_000))).await;
    let (_one, _two) = (users.begin(), users.begin());
    users.play("SS").await;
    sleep(3_000).await;
    users.refusal().await;
    assert_eq!(opening(users.heard.take()), (Trigger::Lease, 0.5, 4, 1, "lease"));
}

#[tokio::test(start_paused = true)]
async fn only_the_first_opening_of_an_outage_is_an_error() {
    let users = Users::new(eager().probes(2).close_after(1).probe_lease(ms(3_000)));
    users.play("FF").await;
    users.refusal().await;
    sleep(1_000).await;
    let (_one, _two) = (users.begin(), users.begin());
    sleep(4_000).await;
    users.play("S").await;
    drop(users.breaker.isolate());
    users.play("FF").await;
    let levels: Vec<_> =
        users.heard.take().iter().map(|event| (crate::users::in_words(event), event.level())).collect();
    let expected = [
        (r#"opened by FailureRate, "transient""#, Level::Error),
        ("rejected: CircuitOpen", Level::Warn),
        ("half-opened", Level::Info),
        ("probe expired after 3s", Level::Warn),
        ("probe expired after 3s", Level::Warn),
        (r#"opened by Lease, "lease""#, Level::Warn),
        ("half-opened", Level::Info),
        ("probe passed, 1/1", Level::Info),
        ("closed by Probes", Level::Info),
        ("isolated, 1", Level::Warn),
        ("released, 0", Level::Warn),
        ("closed by Release", Level::Info),
        (r#"opened by FailureRate, "transient""#, Level::Error),
    ];
    assert_eq!(levels, expected.map(|(words, level)| (words.to_owned(), level)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_tells_the_observer_what_it_tells_the_caller_and_which_attempt_it_was() {
    let breaker = Arc::new(eager().build().unwrap());
    let heard = Heard::default();
    let builder = Pipeline::builder("users").retry(Retry::builder().max_attempts(9).max_elapsed(ms(900)));
    let users = builder.circuit_breaker(Arc::clone(&breaker)).classifier(ByItself).observer(heard.observer());
    let users = users.build().unwrap();
    users.call(|| async { reply('F') }).await.unwrap_err();
    let left = users.call(|| async { reply('S') }).await.unwrap_err().retry_after();
    let refusals: Vec<_> = heard
        .take()
        .into_iter()
        .filter_map(|event| match event {
            EventKind::Rejected { reason, retry_after, attempt, hedge, .. } => {
                Some((reason, retry_after, attempt, hedge))
            }
            _ => None,
        })
        .collect();
    let [first, second] = refusals[..] else { panic!("{refusals:?}") };
    assert_eq!((first.0, first.2, first.3), (Reason::CircuitOpen, 3, 0), "the attempt after the two that opened it");
    assert_eq!(second, (Reason::CircuitOpen, left, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn when_to_come_back_to_the_dependency_is_not_when_its_circuit_half_opens() {
    let users = Users::new(eager());
    let hint = || async { Reply::Err(Verdict::transient().retry_after(ms(3_600_000)).into()) };
    for _ in 0..2 {
        users.pipeline.call(hint).await.unwrap_err();
    }
    assert_eq!(users.refused().await, (Reason::CircuitOpen, Some(1_000)));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_an_error_is_kept() {
    #[derive(Clone, Debug)]
    struct Request(#[expect(dead_code, reason = "only held")] Arc<()>);

    let held = Arc::new(());
    let breaker = eager().probes(1).build().unwrap();
    let fails = || {
        let request = Request(Arc::clone(&held));
        async move { Err::<(), _>(request) }
    };
    for pause in [0, 0, 1_000, 500] {
        sleep(pause).await;
        drop(breaker.call(fails).await);
        assert_eq!(Arc::strong_count(&held), 1);
    }
    assert!(breaker.state().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_half_opening_tells_of_the_last_break_and_a_closing_of_the_whole_outage() {
    let users = Users::half_open(eager().probes(1)).await;
    sleep(300).await;
    users.play("F").await;
    sleep(1_200).await;
    users.play("S").await;
    let told: Vec<_> = users
        .heard
        .take()
        .into_iter()
        .filter_map(|event| match event {
            EventKind::HalfOpened { open_time, .. } => Some(("half-opened", open_time)),
            EventKind::Closed { open_time, .. } => Some(("closed", open_time)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [("half-opened", ms(1_300)), ("half-opened", ms(1_200)), ("closed", ms(2_500))]);
}
