//! The start and the end of a call, and what is said about the process.

use std::{
    future::{Future, Ready, pending},
    sync::{Arc, Mutex},
};

use tokio::time::{Instant, advance, sleep};
use withstand::{
    AttemptEnd, Backoff, Bulkhead, CallOptions, CallOutcome, Context, Describe, Error, Event, EventKind, Fallback,
    Idempotency, Level, Operation, Outcome, Pipeline, Policy, Priority, Reason, Rejection, SingleAttempt, Timeout,
    Verdict, VerdictKind,
};

use super::{ends, finished, outcome, retry};
use crate::support::{Log, as_it_says, caught, ms, secs};

#[tokio::test(start_paused = true)]
async fn a_call_is_reported_as_what_its_verdict_says() {
    let expected = [
        (Verdict::success(), CallOutcome::Success),
        (Verdict::transient(), CallOutcome::Transient),
        (Verdict::unreached(), CallOutcome::Transient),
        (Verdict::throttled(), CallOutcome::Throttled),
        (Verdict::failure(), CallOutcome::Failure),
        (Verdict::ignored(), CallOutcome::Ignored),
        (Verdict::rejected(), CallOutcome::Rejected),
    ];
    for (verdict, reported) in expected {
        let log = Log::new();
        let pipeline = Pipeline::builder("api").classify_errors(as_it_says).observer(log.clone()).build().unwrap();
        assert!(pipeline.call(|| async { Err::<(), _>(verdict) }).await.is_err());
        assert_eq!(outcome(&log), (reported, Some(false), None));
        assert_eq!(reported.as_str(), format!("{reported:?}").to_lowercase());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_in_any_other_way_is_reported_once_as_well() {
    let down = || async { Err::<u32, _>(Verdict::transient()) };
    let builder = |log: &Log| Pipeline::builder("api").classify_errors(as_it_says).observer(log.clone());

    let log = Log::new();
    assert!(builder(&log).bulkhead(Bulkhead::builder().limit(0)).build().unwrap().call(down).await.is_err());
    assert_eq!(outcome(&log), (CallOutcome::Rejected, Some(false), Some(Reason::BulkheadFull)));
    assert_eq!((finished(&log).numbers, ends(&log).len()), ((0, 0, 0), 0));

    let log = Log::new();
    assert!(builder(&log).timeout(ms(50)).build().unwrap().call(pending::<Result<u32, _>>).await.is_err());
    assert_eq!(outcome(&log), (CallOutcome::Timeout, Some(false), None));
    assert_eq!(ends(&log), [(1, 0, AttemptEnd::TimedOut)]);

    let log = Log::new();
    let late = CallOptions::new().deadline(Instant::now());
    assert!(builder(&log).build().unwrap().call_with(late, |_| down()).await.is_err());
    assert_eq!(outcome(&log), (CallOutcome::Timeout, Some(false), None));
    assert_eq!((finished(&log).numbers, ends(&log).len()), ((0, 0, 0), 0));

    let log = Log::new();
    let falls_back = builder(&log).fallback(Fallback::value(42)).retry(retry(2)).build().unwrap();
    assert_eq!(falls_back.call(down).await, Ok(42));
    assert_eq!(outcome(&log), (CallOutcome::Fallback, Some(true), None));
    assert_eq!(finished(&log).numbers, (2, 0, 0));

    let log = Log::new();
    let dropped = builder(&log).retry(retry(2)).build().unwrap();
    assert!(tokio::time::timeout(ms(5), dropped.call(pending::<Result<u32, _>>)).await.is_err());
    assert_eq!(outcome(&log), (CallOutcome::Cancelled, None, None));
    assert_eq!(ends(&log), [(1, 0, AttemptEnd::Cancelled)]);

    let log = Log::new();
    let panics = builder(&log).retry(retry(3)).build().unwrap();
    let call = panics.call(|| async { if ends(&log).is_empty() { down().await } else { panic!("of the operation") } });
    assert_eq!(caught(call).await, Err("of the operation".to_owned()));
    assert_eq!(outcome(&log), (CallOutcome::Panicked, None, None));
    assert_eq!(ends(&log), [(1, 0, AttemptEnd::Completed), (2, 0, AttemptEnd::Panicked)]);

    let log = Log::new();
    let call = builder(&log).build().unwrap();
    let call = call.call(|| -> Ready<Result<u32, Verdict>> { panic!("of the closure") });
    assert_eq!(caught(call).await, Err("of the closure".to_owned()));
    assert_eq!(outcome(&log), (CallOutcome::Panicked, None, None));
    assert_eq!(ends(&log), [(1, 0, AttemptEnd::Panicked)]);

    let log = Log::new();
    drop(builder(&log).build().unwrap().call(down));
    assert_eq!(log.kinds(), [], "one that was never polled was no call");
}

/// Refuses everything, as the policy of that name.
struct Refuses(&'static str);

impl Describe for Refuses {}
impl SingleAttempt for Refuses {}

impl<T: Send, E: Send> Policy<T, E> for Refuses {
    async fn run<Op: Operation<T, E>>(&self, _: Op, _: Context<'_>) -> Outcome<T, E> {
        Outcome::rejected(Rejection::new(self.0, Reason::Shed))
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_rejected_call_names_who_rejected_it_however_deep_inside() {
    let log = Log::new();
    let plain = || Pipeline::builder("api").observer(log.clone());
    let api = || plain().retry(retry(2));
    let op = || async { Ok::<_, Verdict>(1) };
    let told = |error: Option<&Error<Verdict>>| {
        finished(&log);
        let by = error.and_then(Error::rejection).map(|rejection| rejection.policy().to_string());
        let Some(EventKind::CallFinished { rejected_by, .. }) = log.kinds().pop() else { panic!("not the last") };
        assert_eq!(rejected_by.map(|name| name.to_string()), by);
        log.clear();
        by
    };
    let named = |name: &str| Some(name.to_owned());
    let inner = Arc::new(Pipeline::builder("inner").timeout(secs(1)).layer(Refuses("gate")).build().unwrap());
    let deep = api().layer(inner.clone()).layer(Refuses("never asked")).build().unwrap();
    assert_eq!(told(deep.call(op).await.err().as_ref()), named("gate"));
    assert_eq!(told(deep.call_with(CallOptions::new(), |_| op()).await.err().as_ref()), named("gate"));
    assert_eq!(told(deep.outcome(op).await.result.err().as_ref()), named("gate"));
    let forwards = api().build().unwrap();
    assert_eq!(told(forwards.forward(|| inner.outcome(op)).await.err().as_ref()), named("gate"));
    let guards = plain().layer(Refuses("gate")).build().unwrap();
    assert_eq!(told(guards.guard(op()).await.err().as_ref()), named("gate"));

    // Who is answered for, comes too late, or is ended from outside was not rejected.
    let answers = plain().fallback(Fallback::value(42)).retry(retry(2)).layer(Refuses("gate")).build().unwrap();
    assert_eq!(told(answers.call(op).await.err().as_ref()), None);
    let late = CallOptions::new().deadline(Instant::now());
    assert_eq!(told(deep.call_with(late, |_| op()).await.err().as_ref()), None);
    let soon = CallOptions::new().deadline(Instant::now() + ms(5));
    let ended = forwards.call_with(soon, |_| pending::<Result<u32, Verdict>>()).await;
    assert_eq!((ended.as_ref().is_err_and(Error::is_timeout), told(ended.err().as_ref())), (true, None));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_what_the_pipeline_was_given_ends_the_call_as_panicked() {
    let down = || async { Err::<u32, _>(Verdict::transient()) };
    let (classifier, backoff, fallback) = (Log::new(), Log::new(), Log::new());
    let of_classifier = Pipeline::builder("api")
        .classify_errors(|_: &Verdict| -> Verdict { panic!("of the classifier") })
        .observer(classifier.clone())
        .build()
        .unwrap();
    assert_eq!(caught(of_classifier.call(down)).await, Err("of the classifier".to_owned()));
    let of_backoff = Pipeline::builder("api")
        .retry(retry(3).backoff(Backoff::custom(|_| panic!("of the backoff"))))
        .observer(backoff.clone())
        .build()
        .unwrap();
    assert_eq!(caught(of_backoff.call(down)).await, Err("of the backoff".to_owned()));
    let of_fallback = Pipeline::builder("api")
        .fallback(Fallback::from_error(|_: &Error<Verdict>| panic!("of the fallback")))
        .observer(fallback.clone())
        .build()
        .unwrap();
    assert_eq!(caught(of_fallback.call(down)).await, Err("of the fallback".to_owned()));
    for log in [classifier, backoff, fallback] {
        assert_eq!(outcome(&log), (CallOutcome::Panicked, None, None));
        assert!(ends(&log).iter().all(|(_, _, end)| *end != AttemptEnd::Panicked), "the operation did not");
    }
}

#[tokio::test(start_paused = true)]
async fn every_way_to_call_reports_one_call() {
    let log = Log::new();
    let single = Pipeline::builder("single").timeout(secs(1)).observer(log.clone()).build().unwrap();
    let op = || async { Ok::<_, ()>(1) };
    let reported_once = |log: &Log| {
        assert_eq!(outcome(log), (CallOutcome::Success, Some(true), None));
        log.clear();
    };
    assert!(single.call(op).await.is_ok());
    reported_once(&log);
    assert!(single.call_with(CallOptions::new(), |_| op()).await.is_ok());
    reported_once(&log);
    assert!(single.guard(op()).await.is_ok());
    reported_once(&log);
    assert!(single.outcome(op).await.result.is_ok());
    reported_once(&log);
    assert!(single.outcome_with(CallOptions::new(), |_| op()).await.result.is_ok());
    reported_once(&log);
    let outer_log = Log::new();
    let outer = Pipeline::builder("outer").observer(outer_log.clone()).build().unwrap();
    assert!(outer.forward(|| single.outcome(op)).await.is_ok());
    reported_once(&log);
    reported_once(&outer_log);
    assert!(outer.forward_with(CallOptions::new(), |_| single.outcome(op)).await.is_ok());
    reported_once(&log);
    reported_once(&outer_log);
}

#[tokio::test(start_paused = true)]
async fn the_start_tells_what_the_caller_asked_for() {
    let log = Log::new();
    let pipeline = Pipeline::builder("api").observer(log.clone()).build().unwrap();
    let options = CallOptions::new()
        .deadline(Instant::now() + ms(70))
        .idempotency(Idempotency::Unsafe)
        .priority(Priority::Background);
    assert!(pipeline.call_with(options, |_| async { Ok::<_, ()>(1) }).await.is_ok());
    assert!(pipeline.call(|| async { Ok::<_, ()>(1) }).await.is_ok());
    let starts = log.pick(|kind| match kind {
        EventKind::CallStarted { deadline_left, idempotency, priority, .. } => {
            Some((deadline_left, idempotency, priority))
        }
        _ => None,
    });
    let asked = (Some(ms(70)), Idempotency::Unsafe, Priority::Background);
    assert_eq!(starts, [asked, (None, Idempotency::Safe, Priority::Normal)]);
}

#[tokio::test(start_paused = true)]
async fn the_end_tells_label_mark_and_duration() {
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .retry(retry(3))
        .classify_errors(|(): &()| Verdict::transient().label("http_503"))
        .observer(log.clone())
        .build()
        .unwrap();
    let call = pipeline.call(|| async {
        sleep(ms(5)).await;
        Err::<(), _>(())
    });
    assert!(call.await.is_err());
    let end = finished(&log);
    assert_eq!((end.label, end.spent, end.duration), ("http_503", true, ms(35)));
    assert_eq!(end.numbers, (3, 0, 0));
    let attempts = log.pick(|kind| match kind {
        EventKind::AttemptFinished { attempt, verdict, label, duration, probe, .. } => {
            Some((attempt, verdict, label, duration, probe))
        }
        _ => None,
    });
    assert_eq!(attempts, [1, 2, 3].map(|n| (n, Some(VerdictKind::Transient), "http_503", ms(5), false)));
}

#[tokio::test(start_paused = true)]
async fn an_event_reads_as_a_line_of_a_log() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let notes = lines.clone();
    let pipeline = Pipeline::builder("users")
        .retry(retry(2))
        .observer(move |event: &Event<'_>| notes.lock().unwrap().push((event.source().to_owned(), event.to_string())))
        .build()
        .unwrap();
    assert!(pipeline.call(|| async { Err::<(), _>(()) }).await.is_err());
    let lines = lines.lock().unwrap().clone();
    let has = |source: &str, start: &str| {
        assert!(lines.iter().any(|(from, line)| from == source && line.starts_with(start)), "{start}: {lines:#?}");
    };
    has("users", "users: CallStarted {");
    has("retry", "users/retry: Retried { next_attempt: 2, delay: 10ms,");
    has("users", "users: CallFinished {");
}

#[tokio::test(start_paused = true)]
async fn a_stall_of_the_process_is_reported_at_most_once_a_second() {
    // The only test of this process that stalls: what is reported at most once is shared by all of them.
    let log = Log::new();
    let timeout = Timeout::new(ms(100)).unwrap();
    let pipeline = Pipeline::builder("api").timeout(timeout).observer(log.clone()).build().unwrap();
    let call = || pipeline.call(pending::<Result<(), ()>>);
    let stalls = |log: &Log| {
        log.pick(|kind| match kind {
            EventKind::RuntimeStalled { late_by, .. } => Some(late_by),
            _ => None,
        })
    };
    let (first, second, ()) = tokio::join!(call(), call(), advance(ms(500)));
    assert!(first.is_err() && second.is_err());
    assert_eq!(stalls(&log), [ms(400)], "one of the two reports it");
    sleep(secs(2)).await;
    let (third, ()) = tokio::join!(call(), advance(ms(301)));
    assert!(third.is_err());
    assert_eq!(stalls(&log), [ms(400), ms(201)]);
    let stalled = |kind: &EventKind| matches!(kind, EventKind::RuntimeStalled { .. });
    assert!(log.kinds().iter().filter(|kind| stalled(kind)).all(|kind| kind.level() == Level::Error));
    sleep(secs(2)).await;
    let (fourth, ()) = tokio::join!(call(), advance(ms(200)));
    assert!(fourth.is_err());
    assert_eq!(stalls(&log).len(), 2, "100 ms late is no stall");
}

/// Panics before there is a future.
struct Hasty;
impl Describe for Hasty {}

impl<T: Send, E: Send> Policy<T, E> for Hasty {
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        assert!(cx.pipeline().is_none(), "of the policy");
        op.attempt(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_panics_as_soon_as_it_is_run_is_reported_as_a_panic() {
    let answer = || async { Ok::<_, Verdict>(7) };
    let log = Log::new();
    let alone = Pipeline::builder("api").layer(Hasty).observer(log.clone()).build().unwrap();
    assert_eq!(caught(alone.call(answer)).await, Err("of the policy".to_owned()));
    assert_eq!(outcome(&log), (CallOutcome::Panicked, None, None));

    let log = Log::new();
    let inside = Pipeline::builder("api").fallback(Fallback::value(42)).layer(Hasty).observer(log.clone());
    let inside = inside.build().unwrap();
    assert_eq!(caught(inside.call(answer)).await, Err("of the policy".to_owned()));
    assert_eq!(outcome(&log), (CallOutcome::Panicked, None, None));
}
