//! Layers together: their order, what is shared, pipelines in pipelines, policies of one's own.
#![cfg(test)]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use support::{Log, Script, as_it_says, ms, secs};
use tokio::time::{Instant, sleep};
use withstand::{
    Backoff, BoxPolicy, Bulkhead, CallOptions, CallOutcome, CircuitBreaker, CircuitState, Context, Describe, Error,
    EventKind, Fallback, Hedge, HedgeDelay, Idempotency, Operation, Outcome, Pipeline, Policy, PolicyId, Priority,
    Reason, Rejection, Retry, RetryBuilder, SingleAttempt, Stack, Timeout, Verdict,
};

fn retry(attempts: u32) -> RetryBuilder {
    Retry::builder().max_attempts(attempts).backoff(Backoff::constant(ms(10))).without_budget()
}

/// Notes when a call passes it, on the way in and on the way out.
#[derive(Clone)]
struct Trace(&'static str, Arc<Mutex<Vec<String>>>);

impl Trace {
    fn note(&self, way: &str) {
        self.1.lock().unwrap().push(format!("{way} {}", self.0));
    }
}

impl Describe for Trace {}

impl SingleAttempt for Trace {}

impl<T: Send, E: Send> Policy<T, E> for Trace {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        self.note("into");
        let outcome = op.attempt(cx).await;
        self.note("out of");
        outcome
    }
}

/// Refuses, fails or repeats, as it is told.
enum Own {
    Refuses,
    Fails,
    Repeats,
}

impl Describe for Own {}

impl SingleAttempt for Own {}

impl<T: Send> Policy<T, Verdict> for Own {
    async fn run<Op: Operation<T, Verdict>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, Verdict> {
        match self {
            Self::Refuses => {
                let rejection = Rejection::new("quota", Reason::Custom("used_up")).with_retry_after(secs(7));
                Outcome::rejected(rejection)
            }
            Self::Fails => Outcome::new(Err(Error::Operation(Verdict::failure())), Verdict::failure().label("own")),
            Self::Repeats => {
                let _first = op.attempt(cx.with_attempt(1)).await;
                op.attempt(cx.with_attempt(2)).await
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_layer_added_is_the_outermost() {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let trace = |name| Trace(name, notes.clone());
    let pipeline = Pipeline::builder("api").layer(trace("a")).layer(trace("b")).layer(trace("c")).build().unwrap();
    assert_eq!(pipeline.call(|| async { Ok::<_, ()>(1) }).await, Ok(1));
    let expected = ["into a", "into b", "into c", "out of c", "out of b", "out of a"];
    assert_eq!(std::mem::take(&mut *notes.lock().unwrap()), expected);

    // However they are put together.
    let by_hand = Stack::new(trace("a"), Stack::new(trace("b"), trace("c")));
    let pipeline = Pipeline::builder("api").layer(Some(Arc::new(by_hand))).layer(None::<Trace>).build().unwrap();
    assert_eq!(pipeline.guard(async { Ok::<_, ()>(2) }).await, Ok(2));
    assert_eq!(std::mem::take(&mut *notes.lock().unwrap()), expected);

    let inner = Pipeline::builder("inner").layer(trace("b")).layer(BoxPolicy::new(trace("c"))).build().unwrap();
    let pipeline = Pipeline::builder("api").layer(trace("a")).layer(&inner).build().unwrap();
    assert_eq!(pipeline.call(|| async { Ok::<_, ()>(3) }).await, Ok(3));
    assert_eq!(*notes.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_empty_pipeline_passes_everything_through() {
    let log = Log::new();
    let pipeline = Pipeline::builder("empty").classify_errors(as_it_says).observer(log.clone()).build().unwrap();
    assert_eq!(pipeline.call(|| async { Ok::<_, Verdict>(1) }).await, Ok(1));
    assert_eq!(pipeline.guard(async { Ok::<_, Verdict>(2) }).await, Ok(2));
    let outcome = pipeline.outcome(|| async { Err::<u32, _>(Verdict::throttled()) }).await;
    assert_eq!(
        (outcome.verdict(), outcome.result),
        (Verdict::throttled(), Err(Error::Operation(Verdict::throttled())))
    );

    // And keeps to a deadline that has passed.
    log.clear();
    let script = Script::always(Ok(0));
    let options = CallOptions::new().deadline(Instant::now());
    assert!(pipeline.call_with(options, |_| script.attempt()).await.unwrap_err().is_timeout());
    assert_eq!(script.attempts(), 0);
    let ends = log.pick(|kind| match kind {
        EventKind::CallFinished { outcome, attempts, .. } => Some((outcome, attempts)),
        _ => None,
    });
    assert_eq!(ends, [(CallOutcome::Timeout, 0)], "counted once as a call");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_inside_a_retry_counts_attempts_and_outside_of_it_calls() {
    let breaker = || CircuitBreaker::builder().min_calls(3);
    let script = Script::always(Err(Verdict::transient()));
    let inside = Pipeline::builder("inside").retry(retry(9)).circuit_breaker(breaker());
    let inside = inside.classify_errors(as_it_says).build().unwrap();
    assert!(inside.call(|| script.attempt()).await.unwrap_err().is_operation());
    assert_eq!(script.attempts(), 3, "the third attempt opens it");

    let script = Script::always(Err(Verdict::transient()));
    let outside = Pipeline::builder("outside").circuit_breaker(breaker()).retry(retry(2));
    let outside = outside.classify_errors(as_it_says).build().unwrap();
    for attempts in [2, 4, 6, 6, 6] {
        assert!(outside.call(|| script.attempt()).await.is_err());
        assert_eq!(script.attempts(), attempts, "the third call opens it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_inside_a_retry_is_free_during_the_wait_and_outside_of_it_is_not() {
    for (outside, in_use) in [(false, 0), (true, 1)] {
        let bulkhead = Arc::new(Bulkhead::builder().limit(1).build().unwrap());
        let (first, last) = if outside { (Some(bulkhead.clone()), None) } else { (None, Some(bulkhead.clone())) };
        let pipeline = Pipeline::builder("api")
            .layer(first)
            .retry(retry(2).backoff(Backoff::custom(|_| Some(ms(100)))))
            .layer(last)
            .build()
            .unwrap();
        let during_the_wait = async {
            sleep(ms(50)).await;
            bulkhead.in_use()
        };
        let (answer, seen) = tokio::join!(pipeline.call(|| async { Err::<(), _>(()) }), during_the_wait);
        assert!(answer.is_err());
        assert_eq!(seen, in_use);
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_shared_by_pipelines_of_different_results_opens_for_both() {
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(10).build().unwrap());
    let numbers = Pipeline::builder("numbers")
        .circuit_breaker(breaker.clone())
        .classify(|number: Result<&i32, &()>| match number {
            Ok(0..) => Verdict::success(),
            _ => Verdict::failure(),
        })
        .build()
        .unwrap();
    let texts = Pipeline::builder("texts")
        .circuit_breaker(breaker.clone())
        .classify(|text: Result<&String, &Verdict>| match text {
            Ok(text) if text == "error" => Verdict::failure(),
            _ => Verdict::success(),
        })
        .build()
        .unwrap();
    for _ in 0..5 {
        assert_eq!(breaker.state(), CircuitState::Closed);
        assert_eq!(numbers.call(|| async { Ok(-1) }).await, Ok(-1));
        assert_eq!(texts.call(|| async { Ok("error".to_owned()) }).await, Ok("error".to_owned()));
    }
    let reason = |error: Option<Rejection>| error.map(|rejection| rejection.reason());
    let number = numbers.call(|| async { Ok(1) }).await.unwrap_err();
    assert_eq!(reason(number.rejection().cloned()), Some(Reason::CircuitOpen));
    let text = texts.call(|| async { Ok(String::new()) }).await.unwrap_err();
    assert_eq!(reason(text.rejection().cloned()), Some(Reason::CircuitOpen));
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_ones_own_that_fails_is_a_failure_to_those_around_it_and_one_that_refuses_is_not() {
    for (own, counts) in [(Own::Fails, true), (Own::Refuses, false)] {
        let breaker = Arc::new(CircuitBreaker::builder().min_calls(1).build().unwrap());
        let pipeline = Pipeline::builder("api")
            .retry(retry(3))
            .circuit_breaker(breaker.clone())
            .layer(own)
            .classify_errors(as_it_says)
            .build()
            .unwrap();
        let script = Script::always(Ok(0));
        let error = pipeline.call(|| script.attempt()).await.unwrap_err();
        assert_eq!((script.attempts(), breaker.state() != CircuitState::Closed), (0, counts));
        if !counts {
            let rejection = error.rejection().unwrap();
            assert_eq!((rejection.policy().as_str(), rejection.reason()), ("quota", Reason::Custom("used_up")));
            assert_eq!(error.retry_after(), Some(secs(7)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_ones_own_is_repeated_after_its_hint_if_asked_for() {
    let pipeline = Pipeline::builder("api").retry(retry(2).retry_rejected()).layer(Own::Refuses);
    let pipeline = pipeline.classify_errors(as_it_says).build().unwrap();
    let started = Instant::now();
    assert!(pipeline.call(|| async { Ok::<u32, _>(0) }).await.unwrap_err().is_rejected());
    assert!(started.elapsed() >= secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_repeats_though_it_said_it_would_not_is_refused_a_second_future() {
    let pipeline = Pipeline::builder("api").layer(Own::Repeats).classify_errors(as_it_says).build().unwrap();
    let error = pipeline.guard(async { Ok::<u32, _>(1) }).await.unwrap_err();
    assert_eq!(error.rejection().map(Rejection::reason), Some(Reason::AlreadyAttempted));
    assert_eq!(pipeline.call(|| async { Ok::<u32, _>(1) }).await, Ok(1), "a closure may be called again");
}

/// What a policy is told about the call.
#[derive(Debug, PartialEq)]
struct Told {
    pipeline: String,
    attempt: u32,
    hedge: u32,
    remaining: Option<Duration>,
    priority: Priority,
}

struct Listens(Mutex<Vec<Told>>);

impl Describe for Listens {}

impl<T: Send, E: Send> Policy<T, E> for Listens {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        assert_eq!(cx.now(), Instant::now());
        self.0.lock().unwrap().push(Told {
            pipeline: cx.pipeline().map(ToString::to_string).unwrap_or_default(),
            attempt: cx.attempt(),
            hedge: cx.hedge(),
            remaining: cx.remaining(),
            priority: cx.priority(),
        });
        cx.emit(&PolicyId::custom("listens"), || EventKind::Custom("heard"));
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_told_about_the_call_it_is_part_of() {
    let listens = Listens(Mutex::default());
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .timeout(ms(100))
        .retry(retry(2).backoff(Backoff::custom(|_| Some(ms(20)))))
        .hedge(Hedge::builder().delay(HedgeDelay::on_failure()).without_budget())
        .timeout(ms(90))
        .layer(&listens)
        .observer(log.clone())
        .build()
        .unwrap();
    let options = CallOptions::new().priority(Priority::Critical);
    assert!(pipeline.call_with(options, |_| async { Err::<(), _>(()) }).await.is_err());
    let told = |attempt, hedge, remaining| Told {
        pipeline: "api".to_owned(),
        attempt,
        hedge,
        remaining: Some(ms(remaining)),
        priority: Priority::Critical,
    };
    let expected = [told(1, 0, 90), told(1, 1, 90), told(2, 0, 80), told(2, 1, 80)];
    assert_eq!(*listens.0.lock().unwrap(), expected);
    let own: Vec<_> = log.all().into_iter().filter(|heard| heard.policy.as_deref() == Some("listens")).collect();
    assert_eq!(own.len(), 4);
    assert!(own.iter().all(|heard| heard.kind == EventKind::Custom("heard")));
}

/// Who reported the `Retried` and the attempts' ends.
fn reporters(log: &Log) -> (Vec<Option<String>>, Vec<Option<String>>) {
    let of = |is_meant: fn(&EventKind) -> bool| {
        log.all().into_iter().filter(|heard| is_meant(&heard.kind)).map(|heard| heard.pipeline).collect()
    };
    (of(|kind| matches!(kind, EventKind::Retried { .. })), of(|kind| matches!(kind, EventKind::AttemptFinished { .. })))
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_in_a_pipeline_reports_under_its_own_name_to_its_own_observer() {
    let (inside, outside) = (Log::new(), Log::new());
    let inner = Pipeline::builder("inner").retry(retry(2)).observer(inside.clone()).build().unwrap();
    let outer = Pipeline::builder("outer").layer(&inner).observer(outside.clone()).build().unwrap();
    assert!(outer.call(|| async { Err::<(), _>(()) }).await.is_err());
    let name = Some("inner".to_owned());
    assert_eq!(reporters(&inside), (vec![name.clone()], vec![name.clone(), name]));
    assert_eq!(inside.count(|kind| matches!(kind, EventKind::CallFinished { .. })), 0, "it was not called by itself");
    assert_eq!(reporters(&outside), (vec![], vec![]));
    assert_eq!(outside.count(|kind| matches!(kind, EventKind::CallFinished { .. })), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_in_a_pipeline_without_an_observer_reports_to_that_of_the_outer_one() {
    let log = Log::new();
    let inner = Pipeline::builder("inner").retry(retry(2)).build().unwrap();
    let outer = Pipeline::builder("outer").layer(&inner).observer(log.clone()).build().unwrap();
    assert!(outer.call(|| async { Err::<(), _>(()) }).await.is_err());
    let name = Some("inner".to_owned());
    assert_eq!(reporters(&log), (vec![name.clone()], vec![name.clone(), name]));
    let of_call = log.all().into_iter().filter(|heard| matches!(heard.kind, EventKind::CallFinished { .. }));
    assert_eq!(of_call.map(|heard| heard.pipeline).collect::<Vec<_>>(), [Some("outer".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn the_classifier_of_the_pipeline_that_is_called_gives_the_verdict() {
    let inner = Pipeline::builder("inner").retry(retry(3)).classify_errors(|(): &()| Verdict::failure());
    let inner = inner.build().unwrap();
    let outer = Pipeline::builder("outer").layer(&inner).classify_errors(|(): &()| Verdict::transient());
    let outer = outer.build().unwrap();
    let attempts = AtomicU32::new(0);
    let op = || async {
        attempts.fetch_add(1, Relaxed);
        Err::<(), _>(())
    };
    assert!(inner.call(op).await.is_err());
    assert_eq!(attempts.swap(0, Relaxed), 1);
    assert!(outer.call(op).await.is_err());
    assert_eq!(attempts.swap(0, Relaxed), 3);
    assert!(outer.forward(|| inner.outcome(op)).await.is_err());
    assert_eq!(attempts.swap(0, Relaxed), 1, "a forwarded outcome keeps its own");
}

#[tokio::test(start_paused = true)]
async fn errors_are_flat_however_deep_they_come_from() {
    let innermost = Pipeline::builder("innermost").timeout(ms(10)).build().unwrap();
    let middle = Pipeline::builder("middle").retry(retry(2)).layer(BoxPolicy::new(innermost)).build().unwrap();
    let outermost = Pipeline::builder("outermost").fallback(Fallback::from_outcome(|_: &Outcome<(), String>| None));
    let outermost = outermost.build().unwrap();
    let call = async |takes| {
        let op = move || async move {
            sleep(takes).await;
            Err("down".to_owned())
        };
        let answer: Result<(), Error<String>> = outermost.forward(|| middle.outcome(op)).await;
        answer
    };
    assert_eq!(call(ms(1)).await, Err(Error::Operation("down".to_owned())));
    assert!(call(ms(20)).await.unwrap_err().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn call_outcome_and_guard_agree() {
    let pipeline = Pipeline::builder("api")
        .fallback(Fallback::value(42))
        .timeout(Timeout::new(ms(50)).unwrap())
        .circuit_breaker(CircuitBreaker::builder())
        .bulkhead(Bulkhead::builder().limit(9))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    let results = [Ok(1), Err(Verdict::ignored()), Err(Verdict::transient()), Err(Verdict::success())];
    for result in results {
        let called = pipeline.call(|| async { result }).await;
        assert_eq!(pipeline.outcome(|| async { result }).await.result, called);
        assert_eq!(pipeline.guard(async { result }).await, called);
        assert_eq!(pipeline.call_with(CallOptions::new(), |_| async { result }).await, called);
    }
}

#[tokio::test(start_paused = true)]
async fn the_standard_pipeline_rides_out_an_outage_and_recovers() {
    let log = Log::new();
    let pipeline = Pipeline::standard("api").classify_errors(as_it_says).observer(log.clone()).build().unwrap();
    let up = Script::always(Ok(1));
    for _ in 0..30 {
        assert_eq!(pipeline.call(|| up.attempt()).await, Ok(1));
    }
    let down = Script::always(Err(Verdict::transient()));
    let mut refused = 0;
    for _ in 0..200 {
        let error = pipeline.call(|| down.attempt()).await.unwrap_err();
        refused += usize::from(error.is_rejected());
    }
    assert!(down.attempts() <= 60, "{} attempts of 200 calls", down.attempts());
    assert!(refused > 150, "{refused}");
    sleep(secs(6)).await;
    for _ in 0..10 {
        assert_eq!(pipeline.call(|| up.attempt()).await, Ok(1));
    }
    assert_eq!(log.count(|kind| matches!(kind, EventKind::Closed { .. })), 1);
}

#[tokio::test(start_paused = true)]
async fn options_reach_a_forwarded_call_and_what_it_passes_on() {
    let inner = Pipeline::builder("inner").retry(retry(3)).build().unwrap();
    let outer = Pipeline::builder("outer").retry(retry(3)).build().unwrap();
    let unsafe_call = CallOptions::new().idempotency(Idempotency::Unsafe).deadline(Instant::now() + secs(1));
    let attempts = AtomicU32::new(0);
    let answer: Result<(), Error<String>> = outer
        .forward_with(unsafe_call, |attempt| {
            let inner_call = CallOptions::new().idempotency(Idempotency::Unsafe).deadline(attempt.deadline().unwrap());
            inner.outcome_with(inner_call, |attempt| {
                attempts.fetch_add(1, Relaxed);
                assert_eq!(attempt.remaining(), Some(secs(1)));
                async { Err("reset".to_owned()) }
            })
        })
        .await;
    assert!(answer.is_err());
    assert_eq!(attempts.into_inner(), 1, "what may have been carried out is not repeated at either level");
}

/// Nothing that one of two builders, or a builder twice, makes is shared without being put in an `Arc`.
#[tokio::test(start_paused = true)]
async fn pipelines_that_are_built_alike_share_nothing() {
    let breaker = CircuitBreaker::builder().min_calls(1);
    let wall = Bulkhead::builder().limit(1);
    let hedge = Hedge::builder().delay(HedgeDelay::on_failure());
    let build = |name: &'static str| {
        Pipeline::builder(name)
            .retry(Retry::builder())
            .hedge(hedge.clone())
            .bulkhead(wall.clone())
            .circuit_breaker(breaker.clone())
            .classify_errors(as_it_says)
            .build()
            .unwrap()
    };
    let (down, up) = (build("down"), build("up"));
    assert!(down.call(|| async { Err::<u32, _>(Verdict::transient()) }).await.is_err());
    assert!(down.call(|| async { Ok::<u32, Verdict>(1) }).await.unwrap_err().is_rejected());
    assert_eq!(up.call(|| async { Ok::<u32, Verdict>(1) }).await, Ok(1));
    let inside = up.call(|| async {
        let other = build("other");
        Ok::<_, Verdict>(other.call(|| async { Ok::<u32, Verdict>(2) }).await.is_ok())
    });
    assert_eq!(inside.await, Ok(true), "each has a permit of its own");

    let (down, up) = (Pipeline::standard("down").build().unwrap(), Pipeline::standard("up").build().unwrap());
    for _ in 0..100 {
        assert!(down.call(|| async { Err::<(), _>(()) }).await.is_err());
    }
    let script = Script::always(Err(Verdict::transient()));
    assert!(up.call(|| script.attempt()).await.is_err());
    assert_eq!(script.attempts(), 3, "neither its circuit nor its budget knows of the other's outage");
}

/// What a policy sees of a call: the pipeline's name, the time to the deadline in two ways, the place, and the options.
type Seen = (Option<String>, [Option<Duration>; 2], (u32, u32), (Idempotency, Priority));

/// Notes what it sees of each attempt.
#[derive(Clone, Default)]
struct Sees(Arc<Mutex<Vec<Seen>>>);

impl Describe for Sees {}

impl<T: Send, E: Send> Policy<T, E> for Sees {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let left = cx.deadline().map(|deadline| deadline - Instant::now());
        let seen = (
            cx.pipeline().map(ToString::to_string),
            [left, cx.remaining()],
            (cx.attempt(), cx.hedge()),
            (cx.idempotency(), cx.priority()),
        );
        self.0.lock().unwrap().push(seen);
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_ones_own_sees_the_call_and_its_place_in_it() {
    let outside = Sees::default();
    let inside = Sees::default();
    let pipeline = Pipeline::builder("api")
        .layer(outside.clone())
        .retry(retry(2))
        .timeout(ms(50))
        .layer(inside.clone())
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    let fails = || async {
        sleep(ms(5)).await;
        Err::<u32, _>(Verdict::transient())
    };
    let seen = |of: &Sees| std::mem::take(&mut *of.0.lock().unwrap());
    let (name, usual) = (|| Some("api".to_owned()), (Idempotency::Safe, Priority::Normal));

    assert!(pipeline.call(fails).await.is_err());
    assert_eq!(seen(&outside), [(name(), [None; 2], (1, 0), usual)]);
    let limit = [Some(ms(50)); 2];
    assert_eq!(seen(&inside), [(name(), limit, (1, 0), usual), (name(), limit, (2, 0), usual)]);

    // The nearest deadline, whosever it is.
    let options = CallOptions::new().deadline(Instant::now() + ms(30));
    let options = options.idempotency(Idempotency::Unsafe).priority(Priority::Critical);
    assert!(pipeline.call_with(options, |_| fails()).await.is_err());
    let (left, asked) = ([Some(ms(30)); 2], (Idempotency::Unsafe, Priority::Critical));
    assert_eq!(seen(&outside), [(name(), left, (1, 0), asked)]);
    assert_eq!(seen(&inside), [(name(), left, (1, 0), asked)], "and is not repeated");
}

#[tokio::test(start_paused = true)]
async fn a_layer_in_an_option_or_in_a_box_is_as_much_part_of_the_pipeline() {
    fn assert_part_of<P: Policy<u32, Verdict>>(policy: P, breaker: &CircuitBreaker) {
        let log = Log::new();
        let pipeline = Pipeline::builder("api").layer(policy).observer(log.clone()).build().unwrap();
        let plan = pipeline.explain();
        let layers: Vec<_> = plan.layers().iter().map(|layer| layer.name().as_str()).collect();
        assert_eq!(layers, ["circuit_breaker"]);
        // What no call causes is told to whoever it is part of.
        drop(breaker.isolate());
        assert_eq!(log.count(|kind| matches!(kind, EventKind::Isolated { .. })), 1);
    }
    let breaker = Arc::new(CircuitBreaker::builder().build().unwrap());
    assert_part_of(breaker.clone(), &breaker);
    assert_part_of(Some(breaker.clone()), &breaker);
    assert_part_of(BoxPolicy::new(breaker.clone()), &breaker);
    let none = Pipeline::builder("api").layer(None::<Arc<CircuitBreaker>>).build().unwrap();
    assert!(none.explain().layers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_added_to_a_standard_pipeline_goes_innermost() {
    let seen = |plan: withstand::Plan| plan.layers().last().unwrap().name().to_string();
    let standard = Pipeline::standard("users").timeout(withstand::Timeout::builder(ms(900)).name("added"));
    assert_eq!(seen(standard.build().unwrap().explain()), "added");
    let hedged = Pipeline::standard_hedged("users").timeout(withstand::Timeout::builder(ms(900)).name("added"));
    let hedged = hedged.build().unwrap();
    assert_eq!(seen(hedged.explain()), "added");
    assert_eq!(hedged.call(|| async { Ok::<_, ()>(7) }).await, Ok(7));
}
