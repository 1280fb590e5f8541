//! Fallback, behaviour by behaviour: what it answers for, what it sees, and what comes of its answer.
#![cfg(test)]

mod support;

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use support::{EVERY_VERDICT, Log, Script, as_it_says, caught, ms, secs};
use tokio::time::{Instant, sleep};
use withstand::{
    Backoff, Bulkhead, CallOptions, CallOutcome, CircuitBreaker, CircuitState, ClassifyErrors, Error, EventKind,
    Fallback, FallbackBuilder, FallbackEnd, Outcome, Pipeline, Reason, Rejection, Retry, Substitute, Verdict,
    VerdictKind, layers,
};

type Judged = ClassifyErrors<fn(&Verdict) -> Verdict>;

/// A pipeline of one fallback around operations whose error is the verdict on it.
fn pipeline<S: Substitute<u32, Verdict>>(
    fallback: FallbackBuilder<S>,
    log: &Log,
) -> Pipeline<layers![Fallback<S>], Judged> {
    Pipeline::builder("api")
        .fallback(fallback)
        .classify_errors(as_it_says as fn(&Verdict) -> Verdict)
        .observer(log.clone())
        .build()
        .unwrap()
}

fn ends(log: &Log) -> Vec<(VerdictKind, Option<Reason>, FallbackEnd)> {
    log.pick(|kind| match kind {
        EventKind::FellBack { original, reason, end, .. } => Some((original, reason, end)),
        _ => None,
    })
}

fn finished(log: &Log) -> Vec<(CallOutcome, Option<bool>)> {
    log.pick(|kind| match kind {
        EventKind::CallFinished { outcome, ok, .. } => Some((outcome, ok)),
        _ => None,
    })
}

#[tokio::test(start_paused = true)]
async fn it_answers_for_failures_and_leaves_the_rest_untouched() {
    for verdict in EVERY_VERDICT {
        let log = Log::new();
        let outcome = pipeline(Fallback::value(42), &log).outcome(|| async { Err(verdict) }).await;
        if matches!(verdict.kind(), VerdictKind::Success | VerdictKind::Ignored) {
            assert_eq!(outcome.result, Err(Error::Operation(verdict)));
            assert_eq!((ends(&log).len(), outcome.is_substitute()), (0, false));
        } else {
            assert_eq!(outcome.result, Ok(42), "{verdict:?}");
            assert_eq!(ends(&log), [(verdict.kind(), None, FallbackEnd::Ok)]);
        }
    }
    let log = Log::new();
    assert_eq!(pipeline(Fallback::value(42), &log).call(|| async { Ok(7) }).await, Ok(7));
    assert_eq!(ends(&log), []);
}

#[tokio::test(start_paused = true)]
async fn it_answers_for_exactly_the_verdicts_it_was_told() {
    for handled in EVERY_VERDICT {
        for verdict in EVERY_VERDICT {
            let fallback = Fallback::value(42).handles([handled.kind()]);
            let answer = pipeline(fallback, &Log::new()).call(|| async { Err(verdict) }).await;
            let expected = if handled == verdict { Ok(42) } else { Err(Error::Operation(verdict)) };
            assert_eq!(answer, expected, "{verdict:?} where {handled:?} is handled");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn several_verdicts_are_handled_in_whatever_order_and_however_often_they_are_told() {
    for subset in 1..1_u32 << EVERY_VERDICT.len() {
        let told = EVERY_VERDICT.into_iter().enumerate().filter(|(bit, _)| subset >> bit & 1 == 1);
        let told: Vec<_> = told.map(|(_, verdict)| verdict.kind()).collect();
        let twice = told.iter().chain(told.iter().rev()).copied();
        let pipeline = pipeline(Fallback::value(42).handles(twice), &Log::new());
        for verdict in EVERY_VERDICT {
            let answer = pipeline.call(|| async { Err(verdict) }).await;
            assert_eq!(answer.is_ok(), told.contains(&verdict.kind()), "{verdict:?} where {told:?} are handled");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_it_answered_is_no_success() {
    let log = Log::new();
    let outcome = pipeline(Fallback::value(42), &log).outcome(|| async { Err(Verdict::transient()) }).await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::ignored(), "fallback"));
    assert!(outcome.is_substitute() && !outcome.is_spent());
    assert_eq!(finished(&log), [(CallOutcome::Fallback, Some(true))]);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_fails_gives_its_error_with_the_original_verdict() {
    let throttled = Verdict::throttled().retry_after(secs(3));
    let fails = Fallback::from_outcome(|_: &Outcome<u32, Verdict>| Some(Err(Verdict::failure())));
    let log = Log::new();
    let outcome = pipeline(fails, &log).outcome(|| async { Err(throttled) }).await;
    assert_eq!((outcome.verdict(), outcome.is_substitute()), (throttled, false));
    assert_eq!(outcome.result, Err(Error::Operation(Verdict::failure())), "its own error");
    assert_eq!(ends(&log), [(VerdictKind::Throttled, None, FallbackEnd::Error)]);
    assert_eq!(finished(&log), [(CallOutcome::Throttled, Some(false))]);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_declines_leaves_the_outcome_as_it_is() {
    let hinted = Verdict::transient().retry_after(secs(3));
    let declines = Fallback::from_outcome(|_: &Outcome<u32, Verdict>| None);
    let later = Fallback::from_future(|_: &Outcome<u32, Verdict>| async {
        sleep(ms(10)).await;
        None
    });
    let (log, later_log) = (Log::new(), Log::new());
    let outcomes = [
        pipeline(declines, &log).outcome(|| async { Err(hinted) }).await,
        pipeline(later, &later_log).outcome(|| async { Err(hinted) }).await,
    ];
    for outcome in outcomes {
        assert_eq!((outcome.verdict(), outcome.is_substitute()), (hinted, false));
        assert_eq!(outcome.result, Err(Error::Operation(hinted)));
    }
    for log in [log, later_log] {
        assert_eq!(ends(&log), [(VerdictKind::Transient, None, FallbackEnd::Declined)]);
    }
}

#[tokio::test(start_paused = true)]
async fn it_sees_the_whole_outcome() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let fallback = Fallback::from_outcome(move |outcome: &Outcome<u32, &'static str>| {
        let error = outcome.result.as_ref().unwrap_err();
        notes.lock().unwrap().push((error.operation().copied(), outcome.label(), outcome.is_spent()));
        None
    });
    let pipeline = Pipeline::builder("api")
        .fallback(fallback)
        .retry(Retry::builder().max_attempts(2))
        .bulkhead(Bulkhead::builder().limit(1))
        .classify_errors(|_: &&'static str| Verdict::transient().label("reset"))
        .build()
        .unwrap();
    assert!(pipeline.call(|| async { Err("down") }).await.is_err());
    let slow = pipeline.call(|| async {
        sleep(ms(1)).await;
        Ok(1)
    });
    let (slow, refused) = tokio::join!(slow, pipeline.call(|| async { Ok(2) }));
    assert_eq!(slow, Ok(1));
    assert_eq!(refused.unwrap_err().rejection().map(Rejection::reason), Some(Reason::BulkheadFull));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen, [(Some("down"), "reset", true), (None, "bulkhead_full", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_answered_for_and_its_reason_is_reported() {
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .fallback(Fallback::from_error(|error: &Error<Verdict>| error.is_rejected()))
        .bulkhead(Bulkhead::builder().limit(0))
        .observer(log.clone())
        .build()
        .unwrap();
    assert_eq!(pipeline.call(|| async { Ok(false) }).await, Ok(true));
    assert_eq!(ends(&log), [(VerdictKind::Rejected, Some(Reason::BulkheadFull), FallbackEnd::Ok)]);
}

#[tokio::test(start_paused = true)]
async fn an_ok_that_is_a_failure_is_answered_by_a_value_but_not_by_a_function_of_the_error() {
    let failure = |_: Result<&u32, &()>| Verdict::failure();
    let by_value = Pipeline::builder("api").fallback(Fallback::value(0)).classify(failure).build().unwrap();
    assert_eq!(by_value.call(|| async { Ok(503) }).await, Ok(0));
    let by_error = Fallback::from_error(|_: &Error<()>| 0);
    let by_error = Pipeline::builder("api").fallback(by_error).classify(failure).build().unwrap();
    assert_eq!(by_error.call(|| async { Ok(503) }).await, Ok(503));
}

#[tokio::test(start_paused = true)]
async fn an_asynchronous_one_has_a_limit_of_its_own() {
    for (takes, limit, end) in [
        (ms(100), None, FallbackEnd::Ok),
        (ms(101), None, FallbackEnd::TimedOut),
        (ms(30), Some(ms(29)), FallbackEnd::TimedOut),
        (secs(1000), Some(Duration::MAX), FallbackEnd::Ok),
    ] {
        let fallback = Fallback::from_future(move |_: &Outcome<u32, Verdict>| async move {
            sleep(takes).await;
            Some(Ok(42))
        });
        let fallback = match limit {
            Some(limit) => fallback.limit(limit),
            None => fallback,
        };
        let log = Log::new();
        let started = Instant::now();
        let outcome = pipeline(fallback, &log).outcome(|| async { Err(Verdict::failure()) }).await;
        assert_eq!(ends(&log), [(VerdictKind::Failure, None, end)]);
        if end == FallbackEnd::Ok {
            assert_eq!((outcome.result, started.elapsed()), (Ok(42), takes));
        } else {
            assert_eq!(outcome.verdict(), Verdict::failure());
            assert_eq!(outcome.result, Err(Error::Operation(Verdict::failure())), "the original one");
            assert_eq!(started.elapsed(), limit.unwrap_or(ms(100)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_attempt_held_is_free_before_a_fallback_begins() {
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).build().unwrap());
    let seen = bulkhead.clone();
    let pipeline = Pipeline::builder("api")
        .fallback(Fallback::from_future(move |_: &Outcome<usize, ()>| {
            let in_use = seen.in_use();
            async move { Some(Ok(in_use)) }
        }))
        .bulkhead(bulkhead)
        .timeout(ms(50))
        .build()
        .unwrap();
    assert_eq!(pipeline.call(|| async { Err(()) }).await, Ok(0));
    assert_eq!(pipeline.call(pending).await, Ok(0));
    assert_eq!(pipeline.guard(pending()).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn inside_a_retry_it_ends_the_retrying_and_outside_it_comes_last() {
    let script = Script::always(Err(Verdict::transient()));
    let inside = Pipeline::builder("inside")
        .retry(Retry::builder())
        .fallback(Fallback::value(42).handles([VerdictKind::Transient]))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    assert_eq!((inside.call(|| script.attempt()).await, script.attempts()), (Ok(42), 1));
    let outside = Pipeline::builder("outside")
        .fallback(Fallback::value(42))
        .retry(Retry::builder().max_attempts(3))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    assert_eq!((outside.call(|| script.attempt()).await, script.attempts()), (Ok(42), 1 + 3));
}

#[tokio::test(start_paused = true)]
async fn one_that_would_hide_every_failure_from_a_layer_around_it_is_refused() {
    let fallback = || Fallback::value(());
    for error in [
        Pipeline::builder("api").retry(Retry::builder()).fallback(fallback()).build().unwrap_err(),
        Pipeline::builder("api").circuit_breaker(CircuitBreaker::builder()).fallback(fallback()).build().unwrap_err(),
    ] {
        assert_eq!(error.policy().map(ToString::to_string), Some("fallback".to_owned()), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_substitute_says_nothing_to_a_breaker_around_it() {
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(2).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .circuit_breaker(breaker.clone())
        .fallback(Fallback::value(42).handles([VerdictKind::Transient]))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    for _ in 0..50 {
        assert_eq!(pipeline.call(|| async { Err(Verdict::transient()) }).await, Ok(42));
    }
    // Had they counted as successes, two failures of 52 would not open it.
    for _ in 0..2 {
        assert_eq!(breaker.state(), CircuitState::Closed);
        assert!(pipeline.call(|| async { Err(Verdict::failure()) }).await.is_err());
    }
    assert_ne!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn its_panic_unwinds_and_is_not_held_against_the_dependency() {
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(1).build().unwrap());
    let panics = Fallback::from_error(|_: &Error<Verdict>| panic!("of the fallback")).handles([VerdictKind::Throttled]);
    let pipeline = Pipeline::builder("api")
        .circuit_breaker(breaker.clone())
        .fallback(panics)
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    let call = pipeline.call(|| async { Err::<u32, _>(Verdict::throttled()) });
    assert_eq!(caught(call).await, Err("of the fallback".to_owned()));
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_drops_it() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = dropped.clone();
    let fallback = Fallback::from_future(move |_: &Outcome<u32, Verdict>| {
        let flag = Flag(flag.clone());
        async move {
            let _flag = flag;
            pending().await
        }
    });
    let pipeline = pipeline(fallback, &Log::new());
    let call = pipeline.call(|| async { Err(Verdict::failure()) });
    assert!(tokio::time::timeout(ms(50), call).await.is_err());
    assert!(dropped.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_past_at_entry_calls_it_no_more_than_anything_else() {
    let asked = Arc::new(AtomicBool::new(false));
    let notes = asked.clone();
    let fallback = Fallback::from_error(move |_: &Error<Verdict>| {
        notes.store(true, Relaxed);
        42
    });
    let pipeline = pipeline(fallback, &Log::new());
    let options = CallOptions::new().deadline(Instant::now());
    assert!(pipeline.call_with(options, |_| async { Ok(1) }).await.unwrap_err().is_timeout());
    assert!(!asked.load(Relaxed));
}

/// Counts its clones.
#[derive(Debug)]
struct Template(Arc<AtomicU32>);

impl Clone for Template {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Relaxed);
        Self(self.0.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_is_cloned_only_for_a_call_that_needs_it() {
    let clones = Arc::new(AtomicU32::new(0));
    let fallback = Fallback::value(Template(clones.clone())).build().unwrap();
    assert!(fallback.call(|| async { Ok::<_, ()>(Template(Arc::default())) }).await.is_ok());
    assert_eq!(clones.load(Relaxed), 0);
    assert!(fallback.call(|| async { Err(()) }).await.is_ok());
    assert_eq!(clones.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_around_one_that_takes_too_long_still_repeats() {
    let script = Script::ready([Err(Verdict::transient()), Ok(2)]);
    let slow = Fallback::from_future(|_: &Outcome<u32, Verdict>| pending()).handles([VerdictKind::Transient]);
    let pipeline = Pipeline::builder("api")
        .retry(Retry::builder().backoff(Backoff::constant(ms(10))))
        .fallback(slow)
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    assert_eq!((pipeline.call(|| script.attempt()).await, script.attempts()), (Ok(2), 2));
}

#[test]
fn settings_out_of_range_are_refused() {
    let error = Fallback::value(0).limit(Duration::ZERO).build().unwrap_err();
    assert_eq!((error.field(), error.value()), ("limit", "0s"));
    let error = Fallback::value(0).handles([]).build().unwrap_err();
    assert_eq!((error.field(), error.value()), ("handles", "empty"));
    assert_eq!(Fallback::value(0).name("  ").build().unwrap_err().field(), "name");
}
