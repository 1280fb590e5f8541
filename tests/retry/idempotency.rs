//! What is repeated though the operation must not be carried out twice.

use std::sync::Arc;

use futures::future::join;
use withstand::{Bulkhead, CallOptions, CircuitBreaker, Error, Idempotency, Pipeline, RetryStop, Verdict, VerdictKind};

use super::{pipeline, plain, stops};
use crate::support::{EVERY_VERDICT, Log, Script, Step, as_it_says, ms, secs};

const UNSAFE: CallOptions = CallOptions::new().idempotency(Idempotency::Unsafe);

#[tokio::test(start_paused = true)]
async fn only_what_surely_was_not_carried_out_is_repeated() {
    for asked in [false, true] {
        for verdict in EVERY_VERDICT.into_iter().filter(|verdict| !verdict.is_success()) {
            let script = Script::always(Err(verdict));
            let log = Log::new();
            let retry = if asked { plain(3, ms(10)).retry_rejected() } else { plain(3, ms(10)) };
            let answer = pipeline(retry, &log).call_with(UNSAFE, |_| script.attempt()).await;
            assert_eq!(answer, Err(Error::Operation(verdict)));
            let (attempts, why) = match verdict.kind() {
                VerdictKind::Unreached | VerdictKind::Throttled => (3, Some(RetryStop::Attempts)),
                VerdictKind::Rejected if asked => (3, Some(RetryStop::Attempts)),
                VerdictKind::Transient => (1, Some(RetryStop::NotIdempotent)),
                _ => (1, None),
            };
            assert_eq!(script.attempts(), attempts, "{verdict:?}");
            assert_eq!(stops(&log), Vec::from_iter(why), "{verdict:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn repeats_end_with_the_first_attempt_that_may_have_been_carried_out() {
    let script =
        Script::ready([Err(Verdict::unreached()), Err(Verdict::throttled()), Err(Verdict::transient()), Ok(0)]);
    let answer = pipeline(plain(9, ms(10)), &Log::new()).call_with(UNSAFE, |_| script.attempt()).await;
    assert_eq!((answer, script.attempts()), (Err(Error::Operation(Verdict::transient())), 3));
}

#[tokio::test(start_paused = true)]
async fn a_closure_is_idempotent_unless_the_caller_says_otherwise() {
    let script = Script::always(Err(Verdict::transient()));
    let retry = plain(3, ms(10)).build().unwrap();
    assert!(retry.call(|| script.attempt()).await.is_err());
    assert!(retry.call_with(CallOptions::new(), |_| script.attempt()).await.is_err());
    assert_eq!(script.attempts(), 6);
    assert!(retry.call_with(UNSAFE, |_| script.attempt()).await.is_err());
    assert_eq!(script.attempts(), 7);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_timed_out_may_have_been_carried_out() {
    let script = Script::new([Step { takes: secs(9), gives: Ok(0) }]);
    let pipeline = Pipeline::builder("api").retry(plain(3, ms(10))).timeout(ms(50)).build().unwrap();
    assert!(pipeline.call_with(UNSAFE, |_| script.attempt()).await.unwrap_err().is_timeout());
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_timed_out_in_a_queue_was_not_carried_out() {
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(secs(9)).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .retry(plain(3, ms(10)).retry_rejected())
        .timeout(ms(50))
        .bulkhead(bulkhead.clone())
        .build()
        .unwrap();
    let script = Script::always(Ok(7));
    let permit = bulkhead.try_acquire().unwrap();
    let held = async {
        tokio::time::sleep(ms(100)).await;
        drop(permit);
    };
    let (answer, ()) = join(pipeline.call_with(UNSAFE, |_| script.attempt()), held).await;
    assert_eq!((answer, script.attempts()), (Ok(7), 1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_unreached_attempt_leaves_that_outcome() {
    let pipeline = Pipeline::builder("api")
        .retry(plain(5, ms(10)))
        .circuit_breaker(CircuitBreaker::builder().min_calls(1))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    let script = Script::always(Err(Verdict::unreached()));
    let answer = pipeline.call_with(UNSAFE, |_| script.attempt()).await;
    assert_eq!((answer, script.attempts()), (Err(Error::Operation(Verdict::unreached())), 1));
}
