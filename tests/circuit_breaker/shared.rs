//! One breaker in several places, and beside hedges.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use withstand::{
    CallOptions, CircuitBreaker, CircuitState, Error, Event, EventKind, Hedge, HedgeSuppression, Pipeline, Reason,
    Rejection, Retry, Verdict,
};

use crate::{
    support::{Log, caught},
    users::{ByItself, Heard, Reply, Users, eager, ms, poll, reply, sleep},
};

#[tokio::test(start_paused = true)]
async fn calls_of_different_types_trip_it_together() {
    let breaker = Arc::new(CircuitBreaker::builder().count_window(10).failure_rate(1.0).build().unwrap());
    let shared = |name: &'static str| Pipeline::builder(name).circuit_breaker(Arc::clone(&breaker));
    let judge = |result: Result<&i32, &()>| if result == Ok(&-1) { Verdict::failure() } else { Verdict::success() };
    let numbers = shared("numbers").classify(judge).build().unwrap();
    let words = shared("words").build().unwrap();
    for _ in 0..5 {
        assert_eq!(breaker.state(), CircuitState::Closed);
        assert_eq!(numbers.call(|| async { Ok(-1) }).await, Ok(-1));
        words.call(|| async { Err::<String, _>("error") }).await.unwrap_err();
    }
    assert!(breaker.state().is_open());
    assert!(numbers.call(|| async { Ok(1) }).await.unwrap_err().is_rejected());
    assert!(words.call(|| async { Ok::<_, &str>(String::new()) }).await.unwrap_err().is_rejected());
}

#[tokio::test(start_paused = true)]
async fn what_a_call_causes_is_told_where_the_call_was_made() {
    let breaker = Arc::new(eager().count_window(1).min_calls(1).probes(1).build().unwrap());
    let [a, b] = ["a", "b"].map(|name| Users::around(&breaker, name));
    a.play("F").await;
    assert_eq!(b.refused().await, (Reason::CircuitOpen, Some(1_000)));
    sleep(1_000).await;
    b.play("S").await;
    assert_eq!(a.heard.words(), [r#"opened by FailureRate, "transient""#]);
    assert_eq!(b.heard.words(), ["rejected: CircuitOpen", "half-opened", "probe passed, 1/1", "closed by Probes"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_call_causes_is_told_to_every_pipeline_exactly_once() {
    let breaker = Arc::new(eager().count_window(1).min_calls(1).probes(1).probe_lease(ms(3_000)).build().unwrap());
    let pipelines = ["a", "b", "c"].map(|name| Users::around(&breaker, name));
    let told = || pipelines.each_ref().map(|users| users.heard.words());
    let all = |words: &[&str]| [0; 3].map(|_| words.iter().map(ToString::to_string).collect::<Vec<_>>());

    let isolation = breaker.isolate();
    drop((breaker.isolate(), isolation));
    assert_eq!(told(), all(&["isolated, 1", "isolated, 2", "released, 1", "released, 0", "closed by Release"]));
    breaker.reset();
    assert_eq!(told(), all(&[]));

    breaker.admit().unwrap().failure("io");
    assert_eq!(told(), all(&[r#"opened by FailureRate, "io""#]));
    breaker.reset();
    assert_eq!(told(), all(&["closed by Reset"]));

    breaker.admit().unwrap().failure("io");
    sleep(1_000).await;
    told();
    let hung = breaker.admit().unwrap();
    assert_eq!(told(), all(&["half-opened"]));
    sleep(3_000).await;
    assert!(breaker.snapshot().state.is_open());
    assert_eq!(told(), all(&["probe expired after 3s", r#"opened by Lease, "lease""#]));
    drop(hung);
    assert_eq!(told(), all(&[]));
}

#[tokio::test(start_paused = true)]
async fn an_event_names_the_pipeline_and_the_policy() {
    let breaker = Arc::new(eager().name("users-db").build().unwrap());
    let log = Log::new();
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).classifier(ByItself);
    let _users = builder.observer(log.clone()).build().unwrap();
    drop(breaker.isolate());
    for heard in log.all() {
        assert_eq!((heard.pipeline.as_deref(), heard.policy.as_deref()), (Some("users"), Some("users-db")));
    }
    assert_eq!(log.all().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_is_gone_hears_nothing_and_the_others_still_do() {
    let breaker = Arc::new(eager().build().unwrap());
    let [gone, here] = ["gone", "here"].map(|name| Users::around(&breaker, name));
    let heard = gone.heard.clone();
    drop(gone);
    drop(breaker.isolate());
    assert!(heard.take().is_empty());
    assert_eq!(here.heard.take().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_use_the_breaker_that_it_hears_of() {
    let breaker = Arc::new(eager().build().unwrap());
    let (again, seen) = (Arc::clone(&breaker), Arc::new(Mutex::new(Vec::new())));
    let states = Arc::clone(&seen);
    let observer = move |event: &Event<'_>| {
        states.lock().unwrap().push(again.snapshot().state.as_str());
        if let EventKind::Opened { .. } = event.kind {
            again.reset();
        }
    };
    let builder = Pipeline::builder("users").circuit_breaker(Arc::clone(&breaker)).classifier(ByItself);
    let users = builder.observer(observer).build().unwrap();
    for _ in 0..2 {
        users.call(|| async { reply('F') }).await.unwrap_err();
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert!(seen.lock().unwrap().contains(&"open"));
}

#[tokio::test(start_paused = true)]
async fn a_breaker_in_a_pipeline_in_a_pipeline_reports_to_whoever_listens() {
    let breaker = Arc::new(eager().count_window(1).min_calls(1).build().unwrap());
    let heard = Heard::default();
    let inner = Pipeline::builder("inner").circuit_breaker(Arc::clone(&breaker)).build().unwrap();
    let outer = Pipeline::builder("outer").layer(inner).classifier(ByItself);
    let outer = outer.observer(heard.observer()).build().unwrap();
    outer.call(|| async { reply('F') }).await.unwrap_err();
    assert_eq!(heard.words(), [r#"opened by FailureRate, "transient""#]);
    breaker.reset();
    assert_eq!(heard.words(), ["closed by Reset"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_by_an_inner_pipeline_is_no_failure_of_the_outer_breaker() {
    let inner = Users::opened(eager()).await;
    let outer = Users::new(eager());
    for _ in 0..20 {
        let answer = outer.pipeline.forward(|| inner.pipeline.outcome(|| async { reply('S') })).await;
        assert_eq!(answer.unwrap_err().rejection().map(Rejection::reason), Some(Reason::CircuitOpen));
    }
    assert_eq!((outer.state(), outer.window()), (CircuitState::Closed, (0, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_never_a_probe_and_the_call_goes_on() {
    let breaker = Arc::new(eager().count_window(1).min_calls(1).probes(3).close_after(1).build().unwrap());
    let heard = Heard::default();
    let hedge = Hedge::builder().delay(ms(50)).max_hedges(2);
    let builder = Pipeline::builder("users").hedge(hedge).circuit_breaker(Arc::clone(&breaker));
    let users = builder.classifier(ByItself).observer(heard.observer()).build().unwrap();
    breaker.admit().unwrap().failure("down");
    sleep(1_000).await;
    heard.take();

    let calls = AtomicU32::new(0);
    let operation = |attempt: withstand::Attempt| {
        calls.fetch_add(1, Relaxed);
        assert_eq!(attempt.hedge(), 0);
        async {
            sleep(500).await;
            Reply::Ok(())
        }
    };
    let mut call = Box::pin(users.call_with(CallOptions::new(), operation));
    assert!(poll(&mut call).is_pending());
    assert_eq!(breaker.snapshot().probes_in_flight, 1);
    call.await.unwrap();
    assert_eq!((calls.load(Relaxed), breaker.state()), (1, CircuitState::Closed));
    let events = heard.take();
    let refused =
        |event: &&EventKind| matches!(event, EventKind::Rejected { reason: Reason::CircuitHalfOpen, hedge: 1.., .. });
    let suppressed =
        |event: &&EventKind| matches!(event, EventKind::HedgeSuppressed { why: HedgeSuppression::Circuit, .. });
    assert!(events.iter().any(|event| refused(&event)), "{events:?}");
    assert!(events.iter().any(|event| suppressed(&event)), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_race_is_counted_neither_way() {
    let breaker = Arc::new(eager().build().unwrap());
    let builder = Pipeline::builder("users").hedge(Hedge::builder().delay(ms(50)));
    let users = builder.circuit_breaker(Arc::clone(&breaker)).classifier(ByItself).build().unwrap();
    let operation = |attempt: withstand::Attempt| async move {
        if attempt.hedge() == 0 { pending::<Reply>().await } else { Ok(()) }
    };
    users.call_with(CallOptions::new(), operation).await.unwrap();
    let seen = breaker.snapshot();
    assert_eq!((seen.calls, seen.failures), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn of_a_race_that_ends_in_a_panic_only_the_attempt_that_panicked_has_failed() {
    let breaker = Arc::new(CircuitBreaker::builder().count_window(10).build().unwrap());
    let builder = Pipeline::builder("users").hedge(Hedge::builder().delay(ms(50)));
    let users = builder.circuit_breaker(Arc::clone(&breaker)).classifier(ByItself).build().unwrap();
    let operation = |attempt: withstand::Attempt| async move {
        if attempt.hedge() == 0 { pending::<Reply>().await } else { panic!("boom") }
    };
    let answer = caught(users.call_with(CallOptions::new(), operation)).await;
    assert_eq!(answer.unwrap_err(), "boom");
    let seen = breaker.snapshot();
    assert_eq!((seen.calls, seen.failures), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_ends_a_retry_with_the_last_real_failure() {
    let breaker = Arc::new(eager().build().unwrap());
    let builder = Pipeline::builder("users").retry(Retry::builder().max_attempts(10));
    let users = builder.circuit_breaker(Arc::clone(&breaker)).classifier(ByItself).build().unwrap();
    let calls = AtomicU32::new(0);
    let operation = || {
        calls.fetch_add(1, Relaxed);
        async { reply('F') }
    };
    let answer = users.call(operation).await;
    assert!(matches!(answer, Err(Error::Operation(_))), "{answer:?}");
    assert_eq!(calls.load(Relaxed), 2);
}
