//! How often, upon which verdicts, and what is returned in the end.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use futures::future::join_all;
use tokio::time::Instant;
use withstand::{
    Backoff, BoxPolicy, Bulkhead, CallOptions, CircuitBreaker, Context, Describe, Error, EventKind, Operation, Outcome,
    Pipeline, Policy, Reason, Rejection, Retry, RetryStop, Verdict, VerdictKind,
};

use super::{delays, pipeline, plain, stops};
use crate::support::{EVERY_VERDICT, Log, Script, as_it_says, caught, ms, secs};

#[tokio::test(start_paused = true)]
async fn max_attempts_counts_the_first_attempt() {
    for attempts in [1, 2, 3, 7] {
        let script = Script::always(Err(Verdict::transient()));
        let answer = plain(attempts, ms(10)).build().unwrap().call(|| script.attempt()).await;
        assert_eq!(answer, Err(Error::Operation(Verdict::transient())));
        assert_eq!(script.attempts(), attempts as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_success_ends_it() {
    let script = Script::ready([Err(Verdict::transient()), Err(Verdict::unreached()), Ok(3)]);
    let log = Log::new();
    let outcome = pipeline(plain(10, ms(10)), &log).outcome(|| script.attempt()).await;
    assert_eq!(outcome.result, Ok(3));
    assert!(!outcome.is_spent());
    assert_eq!((script.attempts(), delays(&log).len(), stops(&log).len()), (3, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_verdict_alone_decides_whether_a_result_is_repeated() {
    for asked in [false, true] {
        for verdict in EVERY_VERDICT {
            let script = Script::always(Err(verdict));
            let retry = if asked { plain(3, ms(10)).retry_rejected() } else { plain(3, ms(10)) };
            let outcome = pipeline(retry, &Log::new()).outcome(|| script.attempt()).await;
            let repeated = match verdict.kind() {
                VerdictKind::Transient | VerdictKind::Unreached | VerdictKind::Throttled => true,
                VerdictKind::Rejected => asked,
                _ => false,
            };
            assert_eq!(script.attempts(), if repeated { 3 } else { 1 }, "{verdict:?}, asked: {asked}");
            assert_eq!(outcome.result, Err(Error::Operation(verdict)), "as it is, never a wrapper");
            assert_eq!(outcome.verdict(), verdict);
            assert_eq!(outcome.is_spent(), repeated, "{verdict:?}: given up on is what would have been repeated");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_ok_that_the_classifier_calls_transient_is_repeated() {
    let statuses = Mutex::new(vec![0, 500, 500]);
    let pipeline = Pipeline::builder("api")
        .retry(plain(5, ms(10)))
        .classify(|status: Result<&u32, &()>| match status {
            Ok(500..) => Verdict::transient(),
            _ => Verdict::success(),
        })
        .build()
        .unwrap();
    let answer = pipeline.call(|| async { Ok::<_, ()>(statuses.lock().unwrap().pop().unwrap()) }).await;
    assert_eq!(answer, Ok(0));
    assert!(statuses.lock().unwrap().is_empty(), "three attempts");

    let bad = pipeline.outcome(|| async { Ok(503) }).await;
    assert_eq!(bad.result, Ok(503), "the last bad answer is an answer still");
    assert!(bad.is_spent());
}

#[tokio::test(start_paused = true)]
async fn an_error_that_the_classifier_calls_a_success_is_returned_at_once() {
    let script = Script::always(Err(Verdict::success()));
    let log = Log::new();
    let outcome = pipeline(plain(5, ms(10)), &log).outcome(|| script.attempt()).await;
    assert_eq!((outcome.result, script.attempts()), (Err(Error::Operation(Verdict::success())), 1));
    assert_eq!(stops(&log), []);
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_transient_errors_ends_it_as_it_is() {
    let script = Script::ready([Err(Verdict::transient()), Err(Verdict::failure()), Ok(0)]);
    let log = Log::new();
    let outcome = pipeline(plain(5, ms(10)), &log).outcome(|| script.attempt()).await;
    assert_eq!(outcome.result, Err(Error::Operation(Verdict::failure())));
    assert_eq!((script.attempts(), outcome.is_spent()), (2, false));
    assert_eq!(stops(&log), [], "nothing was given up");
}

#[tokio::test(start_paused = true)]
async fn the_last_of_several_different_errors_is_returned() {
    let script = Script::ready([Err(Verdict::transient()), Err(Verdict::throttled()), Err(Verdict::unreached())]);
    let answer = pipeline(plain(3, ms(10)), &Log::new()).call(|| script.attempt()).await;
    assert_eq!(answer, Err(Error::Operation(Verdict::unreached())));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_knows_its_number() {
    let numbers = Mutex::new(Vec::new());
    let retry = plain(3, ms(10)).build().unwrap();
    let answer: Result<(), _> = retry
        .call_with(CallOptions::new(), |attempt| {
            numbers.lock().unwrap().push((attempt.number(), attempt.hedge()));
            async { Err("down") }
        })
        .await;
    assert_eq!(answer, Err(Error::Operation("down")));
    assert_eq!(numbers.into_inner().unwrap(), [(1, 0), (2, 0), (3, 0)]);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_sends_the_whole_request() {
    let bodies = Mutex::new(Vec::new());
    let request = String::from("ping");
    let retry = plain(3, ms(10)).build().unwrap();
    let answer: Result<(), _> = retry
        .call(|| {
            let body = request.clone();
            async {
                bodies.lock().unwrap().push(body);
                Err("down")
            }
        })
        .await;
    assert!(answer.is_err());
    assert_eq!(bodies.into_inner().unwrap(), ["ping"; 3]);
}

#[tokio::test(start_paused = true)]
async fn concurrent_calls_count_their_attempts_apart() {
    let retry = plain(4, ms(10)).build().unwrap();
    let answers = join_all((1..=6).map(|succeeds_at| {
        let (retry, made) = (&retry, AtomicU32::new(0));
        async move {
            let answer = retry
                .call(|| async {
                    if made.fetch_add(1, Relaxed) + 1 == succeeds_at { Ok(succeeds_at) } else { Err("down") }
                })
                .await;
            (answer.ok(), made.into_inner())
        }
    }))
    .await;
    let expected: Vec<_> = (1..=6).map(|at| if at <= 4 { (Some(at), at) } else { (None, 4) }).collect();
    assert_eq!(answers, expected);
}

/// Counts how many of its kind are alive.
#[derive(Debug)]
struct Response {
    _alive: Arc<()>,
}

#[tokio::test(start_paused = true)]
async fn discarded_results_are_dropped_and_only_the_last_one_is_kept_for_a_refusal() {
    let alive = Arc::new(());
    let made = AtomicU32::new(0);
    let retry = plain(5, ms(10)).build().unwrap();
    let answer = retry
        .call(|| async {
            let earlier = Arc::strong_count(&alive) - 1;
            assert!(earlier <= 1, "{earlier} discarded results are alive");
            match made.fetch_add(1, Relaxed) {
                4 => Ok(Response { _alive: alive.clone() }),
                _ => Err(Response { _alive: alive.clone() }),
            }
        })
        .await;
    assert_eq!(Arc::strong_count(&alive), 2, "the one that is returned");
    drop(answer);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[tokio::test(start_paused = true)]
async fn what_refuses_every_attempt_is_called_as_often_as_was_asked_and_calls_nothing() {
    for (asked, refusals) in [(true, 7), (false, 1)] {
        let script = Script::always(Ok(0));
        let log = Log::new();
        let retry = if asked { plain(7, ms(10)).retry_rejected() } else { plain(7, ms(10)) };
        let pipeline = Pipeline::builder("api")
            .retry(retry)
            .bulkhead(Bulkhead::builder().limit(0))
            .observer(log.clone())
            .build()
            .unwrap();
        let outcome = pipeline.outcome(|| script.attempt()).await;
        assert_eq!(outcome.result.unwrap_err().rejection().map(Rejection::reason), Some(Reason::BulkheadFull));
        assert_eq!(script.attempts(), 0);
        assert_eq!(log.count(|kind| matches!(kind, EventKind::Rejected { .. })), refusals);
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_is_refused_returns_the_last_real_outcome_with_the_hint_of_the_refusal() {
    // The second failure opens the circuit: the third attempt is refused.
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .retry(plain(5, ms(10)))
        .circuit_breaker(CircuitBreaker::builder().min_calls(2).open_for(secs(5)))
        .classify_errors(as_it_says)
        .observer(log.clone())
        .build()
        .unwrap();
    let script = Script::ready([Err(Verdict::unreached()), Err(Verdict::transient()), Ok(0)]);
    let outcome = pipeline.outcome(|| script.attempt()).await;
    assert_eq!(script.attempts(), 2);
    assert_eq!(outcome.result, Err(Error::Operation(Verdict::transient())));
    assert!(outcome.is_spent());
    assert_eq!(outcome.verdict(), Verdict::transient().retry_after(ms(4_990)));
    assert_eq!(stops(&log), [RetryStop::Rejected]);

    // With no real outcome before it the refusal is what is left.
    let refused = pipeline.outcome(|| script.attempt()).await;
    assert_eq!(refused.result.unwrap_err().rejection().map(Rejection::reason), Some(Reason::CircuitOpen));
    assert_eq!(script.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_hint_leaves_the_hint_of_the_last_real_outcome() {
    let hinted = Verdict::transient().retry_after(ms(20));
    let script = Script::ready([Err(hinted), Err(Verdict::rejected())]);
    let outcome = pipeline(plain(5, ms(10)), &Log::new()).outcome(|| script.attempt()).await;
    assert_eq!((outcome.verdict(), outcome.result), (hinted, Err(Error::Operation(hinted))));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_waits_out_an_open_circuit_calls_again_when_it_is_half_open() {
    let pipeline = Pipeline::builder("api")
        .retry(plain(3, ms(10)).retry_rejected())
        .circuit_breaker(CircuitBreaker::builder().min_calls(1).open_for(secs(5)))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    let script = Script::ready([Err(Verdict::transient()), Ok(2)]);
    let started = Instant::now();
    assert_eq!(pipeline.call(|| script.attempt()).await, Ok(2));
    assert_eq!(script.attempts(), 2);
    assert!(started.elapsed() >= secs(5), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn when_every_repeat_is_refused_though_it_was_asked_for_the_last_real_outcome_is_returned() {
    let script = Script::ready([Err(Verdict::transient()), Err(Verdict::rejected().retry_after(ms(70)))]);
    let log = Log::new();
    let outcome = pipeline(plain(4, ms(10)).retry_rejected(), &log).outcome(|| script.attempt()).await;
    assert_eq!(outcome.result, Err(Error::Operation(Verdict::transient())));
    assert_eq!(outcome.verdict().hint(), Some(ms(70)));
    assert!(outcome.is_spent());
    assert_eq!((script.attempts(), stops(&log)), (4, vec![RetryStop::Attempts]));
}

#[tokio::test(start_paused = true)]
async fn an_isolated_circuit_is_never_asked_again() {
    let breaker = Arc::new(CircuitBreaker::builder().build().unwrap());
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .retry(plain(7, ms(10)).retry_rejected())
        .circuit_breaker(breaker.clone())
        .observer(log.clone())
        .build()
        .unwrap();
    let isolation = breaker.isolate();
    let answer: Result<(), Error<()>> = pipeline.call(|| async { unreachable!() }).await;
    assert_eq!(answer.unwrap_err().rejection().map(Rejection::reason), Some(Reason::Isolated));
    assert_eq!(log.count(|kind| matches!(kind, EventKind::Rejected { .. })), 1);
    drop(isolation);
    assert_eq!(pipeline.call(|| async { Ok::<_, ()>(1) }).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_during_the_wait_makes_no_further_attempt() {
    let script = Script::always(Err(Verdict::transient()));
    let retry = plain(5, secs(1)).build().unwrap();
    let call = retry.call(|| script.attempt());
    assert!(tokio::time::timeout(ms(500), call).await.is_err());
    tokio::time::sleep(secs(10)).await;
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_polled_calls_nothing() {
    let script = Script::always(Ok(0));
    let log = Log::new();
    let pipeline = pipeline(plain(5, secs(1)), &log);
    drop(pipeline.call(|| script.attempt()));
    assert_eq!((script.attempts(), log.kinds().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_operation_is_not_repeated() {
    let script = Script::always(Err(Verdict::transient()));
    let retry = plain(5, ms(10)).build().unwrap();
    let call = retry.call(|| async {
        let answer = script.attempt().await;
        assert!(script.attempts() < 2, "the second attempt panics");
        answer
    });
    assert_eq!(caught(call).await, Err("the second attempt panics".to_owned()));
    assert_eq!(script.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn zero_attempts_are_refused_and_the_most_are_not() {
    let error = Retry::builder().max_attempts(0).build().unwrap_err();
    assert_eq!((error.field(), error.value()), ("max_attempts", "0"));
    let error = Retry::builder().max_elapsed(ms(0)).build().unwrap_err();
    assert_eq!((error.field(), error.value()), ("max_elapsed", "0s"));
    let error = Retry::builder().backoff(Backoff::exponential(ms(1)).factor(f64::NAN)).build().unwrap_err();
    assert_eq!((error.field(), error.value()), ("factor", "NaN"));
    let error = Retry::builder().name(" ").build().unwrap_err();
    assert_eq!(error.field(), "name");
    assert!(Retry::builder().max_attempts(u32::MAX).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_retry_behind_a_pointer_or_without_its_type_is_the_same_retry() {
    let retry = || plain(3, ms(10)).build().unwrap();
    let (shared, borrowed) = (Arc::new(retry()), retry());
    let script = Script::always(Err(Verdict::transient()));
    let call = || script.attempt();
    let all = [
        Pipeline::builder("api").retry(shared).build().unwrap().call(call).await,
        Pipeline::builder("api").layer(&borrowed).build().unwrap().call(call).await,
        Pipeline::builder("api").layer(Some(retry())).build().unwrap().call(call).await,
        Pipeline::builder("api").layer(BoxPolicy::new(retry())).build().unwrap().call(call).await,
    ];
    assert!(all.iter().all(Result::is_err));
    assert_eq!(script.attempts(), 12);
    assert!(Pipeline::builder("api").layer(None::<Retry>).build().unwrap().call(call).await.is_err());
    assert_eq!(script.attempts(), 13);
}

/// Lets so many attempts through.
struct Quota(AtomicU32);

impl Describe for Quota {}

impl<T: Send, E: Send> Policy<T, E> for Quota {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        match self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => op.attempt(cx).await,
            Err(_) => Outcome::rejected(Rejection::new("quota", Reason::RateLimited)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn seven_attempts_through_a_quota_of_three_make_three_calls() {
    for (asked, why) in [(true, RetryStop::Attempts), (false, RetryStop::Rejected)] {
        let script = Script::always(Err(Verdict::transient()));
        let log = Log::new();
        let retry = if asked { plain(7, ms(10)).retry_rejected() } else { plain(7, ms(10)) };
        let pipeline = Pipeline::builder("api")
            .retry(retry)
            .layer(Quota(AtomicU32::new(3)))
            .classify_errors(as_it_says)
            .observer(log.clone())
            .build()
            .unwrap();
        let outcome = pipeline.outcome(|| script.attempt()).await;
        assert_eq!(outcome.result, Err(Error::Operation(Verdict::transient())), "the last real one");
        assert!(outcome.is_spent());
        assert_eq!((script.attempts(), stops(&log)), (3, vec![why]));
        let made = log.pick(|kind| match kind {
            EventKind::RetryStopped { attempts, .. } => Some(attempts),
            _ => None,
        });
        assert_eq!(made, [if asked { 7 } else { 4 }]);

        let refused = pipeline.call(|| script.attempt()).await.unwrap_err();
        assert_eq!(refused.rejection().map(Rejection::reason), Some(Reason::RateLimited));
    }
}
