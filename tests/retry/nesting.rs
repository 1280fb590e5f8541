//! Retries inside retries: they never multiply, in whatever way they are nested.

use std::sync::Arc;

use withstand::{
    Backoff, BoxPolicy, Bulkhead, CallOptions, CircuitBreaker, CircuitState, Error, Fallback, Idempotency, Pipeline,
    Reason, Rejection, RetryBudget, RetryStop, Verdict,
};

use super::{pipeline, plain, stops};
use crate::support::{Log, Script, Step, as_it_says, ms};

fn down() -> Script {
    Script::always(Err(Verdict::transient()))
}

#[tokio::test(start_paused = true)]
async fn three_times_three_layers_make_three_attempts() {
    let script = down();
    let pipeline = Pipeline::builder("api")
        .retry(plain(3, ms(10)))
        .retry(plain(3, ms(10)))
        .retry(plain(3, ms(10)))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    let outcome = pipeline.outcome(|| script.attempt()).await;
    assert_eq!(outcome.result, Err(Error::Operation(Verdict::transient())), "one flat error");
    assert!(outcome.is_spent());
    assert_eq!(script.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_as_a_layer_of_a_pipeline_keeps_the_mark() {
    let (log, script) = (Log::new(), down());
    let inner = Arc::new(pipeline(plain(3, ms(10)), &Log::new()));
    let boxed: BoxPolicy<u32, Verdict> = BoxPolicy::new(inner.clone());
    let outer =
        |name: &'static str| Pipeline::builder(name).retry(plain(3, ms(10)).name("outer")).observer(log.clone());
    let outer_of_layer = outer("a").layer(inner).classify_errors(as_it_says).build().unwrap();
    let outer_of_box = outer("b").layer(boxed).classify_errors(as_it_says).build().unwrap();
    for outcome in [outer_of_layer.outcome(|| script.attempt()).await, outer_of_box.outcome(|| script.attempt()).await]
    {
        assert_eq!(outcome.result, Err(Error::Operation(Verdict::transient())));
        assert!(outcome.is_spent());
    }
    assert_eq!(script.attempts(), 3 + 3);
    assert_eq!(stops(&log), [], "the outer ones did not have to give up");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_forwarded_to_a_pipeline_keeps_the_mark() {
    let script = down();
    let inner = pipeline(plain(3, ms(10)), &Log::new());
    let outer = Pipeline::builder("outer").retry(plain(3, ms(10))).build().unwrap();
    let answer = outer.forward(|| inner.outcome(|| script.attempt())).await;
    assert_eq!(answer, Err(Error::Operation(Verdict::transient())), "one flat error");
    assert_eq!(script.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_outer_retry_repeats_what_is_spent_only_if_built_to() {
    let script = down();
    let inner = pipeline(plain(3, ms(10)), &Log::new());
    let outer = Pipeline::builder("outer").retry(plain(3, ms(10)).repeat_spent()).build().unwrap();
    assert!(outer.forward(|| inner.outcome(|| script.attempt())).await.is_err());
    assert_eq!(script.attempts(), 9);
    let both = Pipeline::builder("both").retry(plain(3, ms(10)).name("outer").repeat_spent()).layer(&inner);
    let both = both.classify_errors(as_it_says).build().unwrap();
    assert!(both.outcome(|| script.attempt()).await.is_spent());
    assert_eq!(script.attempts(), 18);
}

#[tokio::test(start_paused = true)]
async fn whatever_a_retry_gives_up_for_its_outcome_is_spent() {
    let empty = Arc::new(RetryBudget::builder().initial(0).build().unwrap());
    let refuses = Script::ready([Err(Verdict::transient()), Err(Verdict::rejected())]);
    let (safe, not_idempotent) = (CallOptions::new(), CallOptions::new().idempotency(Idempotency::Unsafe));
    let cases = [
        (RetryStop::Attempts, plain(1, ms(10)), safe, 1, down()),
        (RetryStop::Elapsed, plain(9, ms(10)).max_elapsed(ms(5)), safe, 1, down()),
        (RetryStop::Deadline, plain(9, ms(10)), safe.deadline(tokio::time::Instant::now() + ms(15)), 1, down()),
        (RetryStop::Budget, plain(9, ms(10)).budget(empty), safe, 1, down()),
        (RetryStop::NotIdempotent, plain(9, ms(10)), not_idempotent, 1, down()),
        (RetryStop::Backoff, plain(9, ms(10)).backoff(Backoff::custom(|_| None)), safe, 1, down()),
        (RetryStop::Rejected, plain(9, ms(0)), safe, 2, refuses),
    ];
    for (why, retry, options, attempts, script) in cases {
        let log = Log::new();
        let outer = Pipeline::builder("outer").retry(plain(3, ms(0)).name("outer").min_time_left(ms(0)));
        let outer = outer.layer(pipeline(retry, &log)).classify_errors(as_it_says).build().unwrap();
        let answer = outer.call_with(options, |_| script.attempt()).await;
        assert_eq!(answer, Err(Error::Operation(Verdict::transient())), "{why:?}");
        assert_eq!((script.attempts(), stops(&log)), (attempts, vec![why]));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_retry_did_not_give_up_on_is_not_spent() {
    for (result, attempts) in [(Ok(1), 1), (Err(Verdict::failure()), 1), (Err(Verdict::ignored()), 1)] {
        let script = Script::always(result);
        let outcome = pipeline(plain(3, ms(10)), &Log::new()).outcome(|| script.attempt()).await;
        assert!(!outcome.is_spent());
        assert_eq!(script.attempts(), attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_the_inner_retry_passes_on_is_repeated_by_an_outer_one_that_was_asked_to() {
    let script = Script::ready([Err(Verdict::rejected()), Ok(2)]);
    let pipeline = Pipeline::builder("api")
        .retry(plain(3, ms(10)).retry_rejected())
        .retry(plain(3, ms(10)))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    assert_eq!(pipeline.call(|| script.attempt()).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_timeout_between_two_retries_is_repeated_by_the_outer_one() {
    // The inner retry was cut off: it did not give up.
    let script = Script::new([Step { takes: ms(90), gives: Ok(1) }, Step { takes: ms(10), gives: Ok(2) }]);
    let pipeline =
        Pipeline::builder("api").retry(plain(3, ms(10))).timeout(ms(50)).retry(plain(3, ms(10))).build().unwrap();
    assert_eq!(pipeline.call(|| script.attempt()).await, Ok(2));
    assert_eq!(script.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_inside_is_no_failure_outside() {
    let inner = Pipeline::builder("inner").bulkhead(Bulkhead::builder().name("narrow").limit(0)).build().unwrap();
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(1).build().unwrap());
    let layered = Pipeline::builder("a").circuit_breaker(breaker.clone()).layer(&inner).build().unwrap();
    let forwarding = Pipeline::builder("b").circuit_breaker(breaker.clone()).build().unwrap();
    for _ in 0..20 {
        let op = || async { Ok::<(), ()>(()) };
        for answer in [layered.call(op).await, forwarding.forward(|| inner.outcome(op)).await] {
            let rejection = answer.unwrap_err();
            let rejection = rejection.rejection().unwrap();
            assert_eq!((rejection.policy().as_str(), rejection.reason()), ("narrow", Reason::BulkheadFull));
        }
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_spent_failure_is_a_failure_to_a_breaker_and_is_handled_by_a_fallback() {
    let script = down();
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(1).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .fallback(Fallback::value(42))
        .circuit_breaker(breaker.clone())
        .retry(plain(3, ms(10)))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    assert_eq!(pipeline.call(|| script.attempt()).await, Ok(42));
    assert_eq!(script.attempts(), 3, "three attempts, then the fallback");
    assert_ne!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_not_spent_where_nothing_real_came_before_it() {
    let pipeline = Pipeline::builder("api").retry(plain(3, ms(1))).bulkhead(Bulkhead::builder().limit(0));
    let pipeline = pipeline.build().unwrap();
    let outcome = pipeline.outcome(|| async { Ok::<(), ()>(()) }).await;
    assert!(!outcome.is_spent());
    assert_eq!(outcome.result.unwrap_err().rejection().map(Rejection::reason), Some(Reason::BulkheadFull));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_ends_in_a_spent_rejection_gives_the_outcome_before_it() {
    let (hangs, refused) =
        (Step { takes: ms(60_000), gives: Ok(1) }, Step { takes: ms(0), gives: Err(Verdict::rejected()) });
    let script = Script::new([hangs, refused]);
    let eager = |name: &'static str| plain(3, ms(1)).name(name).retry_rejected();
    let pipeline = Pipeline::builder("api")
        .retry(eager("outer"))
        .timeout(ms(500))
        .retry(eager("inner"))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    let outcome = pipeline.outcome(|| script.attempt()).await;
    assert!(matches!(outcome.result, Err(Error::Timeout(_))), "{outcome:?}");
    assert!(outcome.is_spent());
}
