//! Each fault, and what the layers outside of it make of it: the same as of a real one.

use std::{future::pending, sync::Arc};

use tokio::time::Instant;
use withstand::{
    AttemptEnd, Bulkhead, CallOutcome, Chaos, CircuitBreaker, CircuitState, Error, EventKind, Fault, Hedge, Outcome,
    Phase, Pipeline, Retry, Scope, Verdict, VerdictKind,
};

use crate::{
    Counted, OURS, injected, ours, plain, silently,
    support::{Log, as_it_says, caught, ms, secs},
};

#[tokio::test(start_paused = true)]
async fn an_error_takes_the_place_of_the_operation_and_is_transient_unless_told_otherwise() {
    let operation = Counted::default();
    let chaos = Chaos::builder().error(1.0, ours).enabled().build().unwrap();
    // The classifier does not see it.
    let pipeline = Pipeline::builder("p").chaos(chaos).classify_errors(as_it_says).build().unwrap();
    let outcome = pipeline.outcome(|| operation.call()).await;
    assert_eq!(outcome.result, Err(Error::Operation(OURS)));
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::transient(), "chaos"));

    let throttled = Verdict::throttled().retry_after(secs(2));
    let chaos = Chaos::builder().error_as(1.0, throttled, ours).enabled().build().unwrap();
    let pipeline = Pipeline::builder("p").chaos(chaos).build().unwrap();
    let outcome = pipeline.outcome(|| operation.call()).await;
    assert_eq!((outcome.verdict(), outcome.label()), (throttled, "chaos"));
    assert_eq!(operation.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_keeps_its_verdict_and_its_marks() {
    let make = || Outcome::<u32, Verdict>::new(Ok(503), Verdict::failure().label("http_503")).spent();
    let chaos = Chaos::builder().outcome(1.0, make).enabled().build().unwrap();
    let pipeline = Pipeline::builder("p").chaos(chaos).build().unwrap();
    let outcome = pipeline.outcome(|| async { Ok(7) }).await;
    assert_eq!((&outcome.result, outcome.verdict(), outcome.label()), (&Ok(503), Verdict::failure(), "chaos"));
    assert!(outcome.is_spent());
}

#[tokio::test(start_paused = true)]
async fn latency_holds_the_answer_back_and_the_operation_was_carried_out() {
    let operation = Counted::default();
    let chaos = Chaos::builder().latency_between(1.0, ms(100)..=ms(300)).seed(3).enabled().build().unwrap();
    let log = Log::new();
    let pipeline = Pipeline::builder("p").chaos(chaos).observer(log.clone()).build().unwrap();
    let mut waits = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        assert_eq!(pipeline.call(|| operation.call()).await, Ok(7));
        waits.push(began.elapsed());
    }
    let told = log.pick(|kind| match kind {
        EventKind::ChaosInjected { fault: Fault::Latency, latency, .. } => latency,
        _ => None,
    });
    assert_eq!(told.len(), 200);
    // Timers go by whole milliseconds.
    assert!(waits.iter().zip(&told).all(|(wait, told)| *wait >= *told && *wait < *told + ms(2)), "{waits:?} {told:?}");
    assert!(told.iter().all(|latency| (ms(100)..=ms(300)).contains(latency)));
    assert!(told.iter().min().unwrap() < &ms(110) && told.iter().max().unwrap() > &ms(290));
    let mean = told.iter().sum::<std::time::Duration>() / 200;
    assert!((ms(185)..ms(215)).contains(&mean), "{mean:?}");
    assert_eq!(operation.calls(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_error_with_latency_is_a_slow_error() {
    let operation = Counted::default();
    let chaos = plain(1.0, 1.0, 0.0, 0.0).enabled().build().unwrap();
    let log = Log::new();
    let pipeline = Pipeline::builder("p").chaos(chaos).observer(log.clone()).build().unwrap();
    let began = Instant::now();
    assert_eq!(pipeline.call(|| operation.call()).await, Err(Error::Operation(OURS)));
    assert_eq!((began.elapsed(), operation.calls()), (ms(50), 0));
    assert_eq!(injected(&log), [Fault::Latency, Fault::Error]);
    // And its time is the attempt's.
    let durations = log.pick(|kind| match kind {
        EventKind::AttemptFinished { duration, label, .. } => Some((duration, label)),
        _ => None,
    });
    assert_eq!(durations, [(ms(50), "chaos")]);
}

#[tokio::test(start_paused = true)]
async fn a_hang_is_ended_by_the_attempt_timeout_repeated_and_counted() {
    let breaker = Arc::new(CircuitBreaker::builder().consecutive_failures(4).consecutive_span(ms(0)).build().unwrap());
    let (operation, log) = (Counted::default(), Log::new());
    let pipeline = Pipeline::builder("p")
        .retry(Retry::builder().max_attempts(3))
        .circuit_breaker(breaker.clone())
        .timeout(secs(1))
        .chaos(Chaos::builder().hang(1.0).enabled())
        .observer(log.clone())
        .build()
        .unwrap();
    let outcome = pipeline.outcome(|| operation.call()).await;
    // As of a real hang, and not as of one that never reached its operation.
    assert_eq!(outcome.verdict(), Verdict::transient());
    let Err(Error::Timeout(timed_out)) = outcome.result else { panic!("{outcome:?}") };
    let told = (timed_out.scope(), timed_out.phase(), timed_out.attempts(), timed_out.limit());
    assert_eq!(told, (Scope::Attempt, Phase::Attempt, 1, secs(1)));
    assert_eq!(operation.calls(), 0);
    assert_eq!(injected(&log), [Fault::Hang; 3]);
    let ends = log.pick(|kind| match kind {
        EventKind::AttemptFinished { end, .. } => Some(end),
        _ => None,
    });
    assert_eq!(ends, [AttemptEnd::TimedOut; 3]);
    let finished = log.pick(|kind| match kind {
        EventKind::CallFinished { outcome, attempts, .. } => Some((outcome, attempts)),
        _ => None,
    });
    assert_eq!(finished, [(CallOutcome::Timeout, 3)]);
    assert_eq!(breaker.state(), CircuitState::Closed);
    // The fourth in a row opens the circuit.
    drop(pipeline.call(|| operation.call()).await);
    assert!(breaker.state().is_open(), "{:?}", breaker.state());
}

#[tokio::test(start_paused = true)]
async fn latency_beyond_the_attempt_timeout_is_a_failure_and_within_it_a_slow_call() {
    let chaos = Chaos::builder().latency(1.0, ms(500)).enabled().build().unwrap();
    let (operation, limit) = (Counted::default(), ms(200));
    let strict = CircuitBreaker::builder().consecutive_failures(1).consecutive_span(ms(0)).build().unwrap();
    let pipeline = Pipeline::builder("p").circuit_breaker(strict).timeout(limit).layer(&chaos).build().unwrap();
    let outcome = pipeline.outcome(|| operation.call()).await;
    assert!(outcome.result.is_err_and(|error| error.is_timeout()));
    assert_eq!(operation.calls(), 1);
    assert!(pipeline.call(|| operation.call()).await.unwrap_err().is_rejected(), "one failure opens the circuit");

    let slow = CircuitBreaker::builder().count_window(5).min_calls(5).slow_call(ms(400)).build().unwrap();
    let pipeline = Pipeline::builder("p").circuit_breaker(slow).timeout(secs(1)).layer(&chaos).build().unwrap();
    for _ in 0..5 {
        assert_eq!(pipeline.call(|| operation.call()).await, Ok(7));
    }
    assert!(pipeline.call(|| operation.call()).await.unwrap_err().is_rejected(), "slow calls open the circuit");
}

#[tokio::test(start_paused = true)]
async fn a_panic_unwinds_is_the_operation_s_and_the_permits_come_back() {
    silently();
    let breaker = Arc::new(CircuitBreaker::builder().consecutive_failures(2).consecutive_span(ms(0)).build().unwrap());
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).build().unwrap());
    let log = Log::new();
    let pipeline = Pipeline::builder("p")
        .retry(Retry::builder())
        .bulkhead(bulkhead.clone())
        .circuit_breaker(breaker.clone())
        .timeout(secs(1))
        .chaos(Chaos::builder().panic(1.0).enabled())
        .observer(log.clone())
        .build()
        .unwrap();
    for _ in 0..2 {
        assert_eq!(bulkhead.in_use(), 0);
        let told = caught(pipeline.call(|| async { Ok::<_, Verdict>(7) })).await;
        assert_eq!(told, Err("chaos: a panic that was injected on purpose".to_owned()));
    }
    assert_eq!(bulkhead.in_use(), 0);
    assert!(breaker.state().is_open());
    let opened = log.pick(|kind| match kind {
        EventKind::Opened { label, .. } => Some(label),
        _ => None,
    });
    assert_eq!(opened, ["panic"]);
    let ends = log.pick(|kind| match kind {
        EventKind::AttemptFinished { end, .. } => Some(end),
        _ => None,
    });
    assert_eq!(ends, [AttemptEnd::Panicked; 2]);
}

#[tokio::test(start_paused = true)]
async fn errors_open_a_circuit_under_the_label_of_chaos() {
    let log = Log::new();
    let pipeline = Pipeline::builder("p")
        .circuit_breaker(CircuitBreaker::builder().consecutive_failures(3).consecutive_span(ms(0)))
        .chaos(Chaos::builder().error(1.0, ours).enabled())
        .observer(log.clone())
        .build()
        .unwrap();
    for _ in 0..3 {
        drop(pipeline.call(|| async { Ok(7) }).await);
    }
    let opened = log.pick(|kind| match kind {
        EventKind::Opened { label, .. } => Some(label),
        _ => None,
    });
    assert_eq!(opened, ["chaos"]);
}

#[tokio::test(start_paused = true)]
async fn a_hang_of_the_primary_is_overtaken_by_a_hedge() {
    // Seeded so that the first attempt hangs and the second does not.
    let seed = (0..1_000).find(|seed| {
        let chaos = Chaos::builder().hang(0.5).seed(*seed).enabled().build().unwrap();
        let hangs = |_| futures::FutureExt::now_or_never(chaos.call(|| async { Ok::<_, ()>(7) })).is_none();
        (0..2).map(hangs).collect::<Vec<_>>() == [true, false]
    });
    let log = Log::new();
    let pipeline = Pipeline::builder("p")
        .hedge(Hedge::builder().delay(ms(100)))
        .chaos(Chaos::builder().hang(0.5).seed(seed.unwrap()).enabled())
        .observer(log.clone())
        .build()
        .unwrap();
    let began = Instant::now();
    assert_eq!(pipeline.call(|| async { Ok::<_, ()>(7) }).await, Ok(7));
    assert_eq!(began.elapsed(), ms(100));
    let told = log.pick(|kind| match kind {
        EventKind::ChaosInjected { fault, hedge, attempt, .. } => Some((fault, attempt, hedge)),
        _ => None,
    });
    assert_eq!(told, [(Fault::Hang, 1, 0)]);
    let ends = log.pick(|kind| match kind {
        EventKind::AttemptFinished { end, hedge, .. } => Some((end, hedge)),
        _ => None,
    });
    assert_eq!(ends, [(AttemptEnd::Completed, 1), (AttemptEnd::Superseded, 0)]);
}

#[tokio::test(start_paused = true)]
async fn past_the_deadline_nothing_is_injected() {
    let log = Log::new();
    let chaos = Chaos::builder().error(1.0, ours).enabled();
    let pipeline = Pipeline::builder("p").chaos(chaos).observer(log.clone()).build().unwrap();
    let late = withstand::CallOptions::new().deadline(Instant::now());
    let error = pipeline.call_with(late, |_| async { Ok(7) }).await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(injected(&log), []);
}

#[tokio::test(start_paused = true)]
async fn it_works_alone_and_guards_a_single_future() {
    let chaos = Chaos::builder().error(1.0, || "down").build().unwrap();
    assert_eq!(chaos.call(|| async { Ok(7) }).await, Ok(7));
    assert_eq!(chaos.guard(async { Ok(7) }).await, Ok(7));
    chaos.switch().enable();
    assert_eq!(chaos.guard(async { Ok(7) }).await, Err(Error::Operation("down")));
    // The future is dropped, not leaked into a hang.
    let chaos = Chaos::builder().hang(1.0).enabled().build().unwrap();
    let held = Arc::new(());
    let future = {
        let held = held.clone();
        async move {
            pending::<()>().await;
            drop(held);
            Ok::<u32, ()>(7)
        }
    };
    assert!(tokio::time::timeout(ms(10), chaos.guard(future)).await.is_err());
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outer_layer_of_chaos_passes_on_what_an_inner_one_injects() {
    let inner = Chaos::builder().name("inner").error_as(1.0, Verdict::failure(), ours).enabled();
    let outer = Chaos::builder().name("outer").latency(1.0, ms(20)).enabled();
    let pipeline = Pipeline::builder("p").chaos(outer).chaos(inner).build().unwrap();
    let began = Instant::now();
    let outcome = pipeline.outcome(|| async { Ok(7) }).await;
    assert_eq!((outcome.verdict().kind(), outcome.label()), (VerdictKind::Failure, "chaos"));
    assert_eq!(began.elapsed(), ms(20));
}
