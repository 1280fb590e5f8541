//! What time allows: deadlines, `min_time_left`, `max_elapsed`.

use std::{sync::Arc, time::Duration};

use futures::future::join;
use tokio::time::Instant;
use withstand::{
    Bulkhead, CallOptions, Context, Describe, Error, EventKind, Operation, Outcome, Phase, Pipeline, Policy,
    RetryBudget, RetryStop, Scope, TimedOut, Timeout, Verdict,
};

use super::{pipeline, plain, stops};
use crate::support::{Log, Script, Step, as_it_says, ms, secs};

fn within(limit: u64) -> CallOptions {
    CallOptions::new().deadline(Instant::now() + ms(limit))
}

#[tokio::test(start_paused = true)]
async fn a_deadline_nearer_than_the_next_delay_returns_the_last_outcome_at_once() {
    let script = Script::always(Err(Verdict::transient()));
    let log = Log::new();
    let started = Instant::now();
    let answer = pipeline(plain(9, ms(40)), &log).call_with(within(100), |_| script.attempt()).await;
    assert_eq!(answer, Err(Error::Operation(Verdict::transient())), "not a timeout");
    assert_eq!((script.attempts(), started.elapsed()), (3, ms(80)), "it does not sleep towards the deadline");
    assert_eq!(stops(&log), [RetryStop::Deadline]);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_layer_outside_is_such_a_deadline() {
    let script = Script::always(Err(Verdict::transient()));
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .timeout(ms(100))
        .retry(plain(9, ms(40)))
        .classify_errors(as_it_says)
        .observer(log.clone())
        .build()
        .unwrap();
    let outcome = pipeline.outcome(|| script.attempt()).await;
    assert_eq!((outcome.result, script.attempts()), (Err(Error::Operation(Verdict::transient())), 3));
    assert_eq!(stops(&log), [RetryStop::Deadline]);
    assert_eq!(log.count(|kind| matches!(kind, EventKind::TimedOut { .. })), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hint_beyond_the_deadline_gives_up_at_once() {
    let script = Script::always(Err(Verdict::throttled().retry_after(secs(5))));
    let log = Log::new();
    let started = Instant::now();
    let outcome = pipeline(plain(9, ms(1)), &log).call_with(within(4_000), |_| script.attempt()).await;
    assert_eq!(outcome, Err(Error::Operation(Verdict::throttled().retry_after(secs(5)))));
    assert_eq!((script.attempts(), started.elapsed(), stops(&log)), (1, ms(0), vec![RetryStop::Deadline]));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_begins_with_min_time_left_and_not_with_less() {
    for (delay, attempts) in [(90, 2), (91, 1)] {
        let script = Script::always(Err(Verdict::transient()));
        let retry = plain(2, ms(delay)).build().unwrap();
        assert!(retry.call_with(within(100), |_| script.attempt()).await.is_err());
        assert_eq!(script.attempts(), attempts, "the default is 10 ms");
    }
    for (min, attempts) in [(60, 2), (61, 1)] {
        let script = Script::always(Err(Verdict::transient()));
        let retry = plain(2, ms(40)).min_time_left(ms(min)).build().unwrap();
        assert!(retry.call_with(within(100), |_| script.attempt()).await.is_err());
        assert_eq!(script.attempts(), attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_is_due_at_the_deadline_is_not_made() {
    for limit in [ms(100), ms(200)] {
        let script = Script::always(Err(Verdict::transient()));
        let pipeline = Pipeline::builder("api")
            .timeout(limit)
            .retry(plain(9, ms(100)).min_time_left(ms(0)))
            .classify_errors(as_it_says)
            .build()
            .unwrap();
        let started = Instant::now();
        let answer = pipeline.call(|| script.attempt()).await;
        assert_eq!(answer, Err(Error::Operation(Verdict::transient())), "the last real outcome");
        assert!(script.starts().iter().all(|start| *start < started + limit));
        assert!(started.elapsed() <= limit);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_past_at_entry_calls_nothing() {
    let script = Script::always(Ok(0));
    let now = Instant::now();
    tokio::time::sleep(ms(5)).await;
    // Long before anything in this process, if the platform's clock can say so.
    let long_ago = now.checked_sub(secs(3_600)).unwrap_or(now);
    for deadline in [now, Instant::now(), long_ago] {
        let retry = plain(3, ms(1)).build().unwrap();
        let answer = retry.call_with(CallOptions::new().deadline(deadline), |_| script.attempt()).await;
        let timed_out = answer.unwrap_err();
        let timed_out = timed_out.timed_out().unwrap();
        assert_eq!((timed_out.scope(), timed_out.phase()), (Scope::Deadline, Phase::Entry));
        assert_eq!((timed_out.attempts(), timed_out.limit()), (0, ms(0)));
    }
    assert_eq!(script.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_during_an_attempt_is_a_timeout_and_counts_the_attempts() {
    let script =
        Script::new([Step { takes: ms(10), gives: Err(Verdict::transient()) }, Step { takes: secs(9), gives: Ok(0) }]);
    let retry = plain(3, ms(10)).build().unwrap();
    let started = Instant::now();
    let error = retry.call_with(within(100), |_| script.attempt()).await.unwrap_err();
    let timed_out = error.timed_out().unwrap();
    assert_eq!((timed_out.scope(), timed_out.phase()), (Scope::Deadline, Phase::Attempt));
    assert_eq!((timed_out.attempts(), timed_out.limit(), started.elapsed()), (2, ms(100), ms(100)));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_has_a_timeout_of_its_own() {
    let script = Script::new([
        Step { takes: secs(9), gives: Ok(1) },
        Step { takes: secs(9), gives: Ok(2) },
        Step { takes: ms(10), gives: Ok(3) },
    ]);
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .retry(plain(3, ms(5)))
        .timeout(ms(50))
        .classify_errors(as_it_says)
        .observer(log.clone())
        .build()
        .unwrap();
    assert_eq!(pipeline.call(|| script.attempt()).await, Ok(3));
    assert_eq!(script.attempts(), 3);
    let timeouts = log.pick(|kind| match kind {
        EventKind::TimedOut { scope, phase, limit, .. } => Some((scope, phase, limit)),
        _ => None,
    });
    assert_eq!(timeouts, [(Scope::Attempt, Phase::Attempt, ms(50)); 2]);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_told_the_nearest_deadline_and_the_outer_one_is_back_after_it() {
    let pipeline = Pipeline::builder("api").timeout(ms(100)).retry(plain(3, ms(30))).timeout(ms(60)).build().unwrap();
    let started = Instant::now();
    let told = std::sync::Mutex::new(Vec::new());
    let answer: Result<(), _> = pipeline
        .call_with(CallOptions::new(), |attempt| {
            told.lock().unwrap().push((attempt.deadline().unwrap() - started, attempt.remaining().unwrap()));
            async { Err("down") }
        })
        .await;
    assert_eq!(answer, Err(Error::Operation("down")));
    assert_eq!(told.into_inner().unwrap(), [(ms(60), ms(60)), (ms(90), ms(60)), (ms(100), ms(40))]);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_later_than_max_elapsed_after_the_first() {
    for (most, attempts) in [(100, 3), (99, 2), (49, 1)] {
        let script = Script::always(Err(Verdict::transient()));
        let log = Log::new();
        let started = Instant::now();
        let outcome = pipeline(plain(9, ms(50)).max_elapsed(ms(most)), &log).outcome(|| script.attempt()).await;
        assert!(outcome.is_spent());
        assert_eq!((script.attempts(), stops(&log)), (attempts, vec![RetryStop::Elapsed]));
        assert!(started.elapsed() <= ms(most), "it stops before the wait, not after it");
    }
}

#[tokio::test(start_paused = true)]
async fn max_elapsed_counts_from_the_beginning_of_the_first_attempt_and_not_from_its_end() {
    let fails = Step { takes: ms(60), gives: Err(Verdict::transient()) };
    let script = Script::new([fails]);
    let began = Instant::now();
    assert!(plain(9, ms(10)).max_elapsed(ms(100)).build().unwrap().call(|| script.attempt()).await.is_err());
    // The third would begin at 140 ms, which is within 100 ms of the end of the first.
    assert_eq!(script.starts(), [began, began + ms(70)]);
}

#[tokio::test(start_paused = true)]
async fn max_elapsed_ends_no_attempt() {
    let script = Script::new([Step { takes: secs(9), gives: Ok(1) }]);
    assert_eq!(plain(3, ms(1)).max_elapsed(ms(10)).build().unwrap().call(|| script.attempt()).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_in_a_queue_calls_nothing_and_leaves_the_last_real_outcome() {
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(ms(90)).build().unwrap());
    let budget = Arc::new(RetryBudget::builder().initial(5).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .timeout(ms(100))
        .retry(plain(3, ms(20)).budget(budget.clone()))
        .bulkhead(bulkhead.clone())
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    let script = Script::always(Err(Verdict::transient()));
    let held = async {
        tokio::time::sleep(ms(10)).await;
        let permit = bulkhead.acquire().await.unwrap();
        tokio::time::sleep(secs(1)).await;
        drop(permit);
    };
    let started = Instant::now();
    let call = async { (pipeline.outcome(|| script.attempt()).await, started.elapsed()) };
    let ((outcome, took), ()) = join(call, held).await;
    assert_eq!(outcome.result, Err(Error::Operation(Verdict::transient())));
    assert!(outcome.is_spent());
    assert_eq!((script.attempts(), took), (1, ms(100)));
    assert!((budget.balance() - 5.0).abs() < 1e-9, "the repeat never reached the operation");
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_times_out_in_a_queue_is_a_rejection_and_repeated_only_if_asked() {
    for (asked, waits) in [(false, 1), (true, 3)] {
        let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(secs(9)).build().unwrap());
        let _held = bulkhead.try_acquire().unwrap();
        let retry = if asked { plain(3, ms(5)).retry_rejected() } else { plain(3, ms(5)) };
        let log = Log::new();
        let pipeline = Pipeline::builder("api")
            .retry(retry)
            .layer(Timeout::new(ms(50)).unwrap())
            .bulkhead(bulkhead.clone())
            .observer(log.clone())
            .build()
            .unwrap();
        let outcome = pipeline.outcome(|| async { Ok::<(), ()>(()) }).await;
        assert_eq!(outcome.verdict(), Verdict::rejected());
        let error = outcome.result.unwrap_err();
        let timed_out = error.timed_out().map(|at| (at.scope(), at.phase(), at.attempts()));
        assert_eq!(timed_out, Some((Scope::Attempt, Phase::Queue, 0)));
        assert_eq!(log.count(|kind| matches!(kind, EventKind::Waited { .. })), waits);
        assert_eq!(TimedOut::limit(error.timed_out().unwrap()), ms(50));
    }
}

/// Holds every attempt back for a while.
struct Hold(Duration);

impl Describe for Hold {}

impl<T: Send, E: Send> Policy<T, E> for Hold {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        tokio::time::sleep(self.0).await;
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_between_two_attempts_is_backoff_and_its_repeat_is_not_paid_for() {
    // The retry does not sleep towards a deadline, but what is inside it may.
    let budget = Arc::new(RetryBudget::builder().initial(5).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .timeout(ms(100))
        .retry(plain(3, ms(20)).budget(budget.clone()))
        .layer(Hold(ms(50)))
        .build()
        .unwrap();
    let error = pipeline.call(|| async { Err::<(), _>(()) }).await.unwrap_err();
    let at = error.timed_out().map(|at| (at.scope(), at.phase(), at.attempts()));
    assert_eq!(at, Some((Scope::Total, Phase::Backoff, 1)));
    assert!((budget.balance() - 5.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn what_comes_together_with_the_deadline_is_returned_as_it_is() {
    for (gives, stop) in [
        (Ok(7), None),
        (Err(Verdict::failure()), None),
        (Err(Verdict::rejected()), None),
        (Err(Verdict::transient()), Some(RetryStop::Deadline)),
    ] {
        let script = Script::new([Step { takes: ms(100), gives }]);
        let log = Log::new();
        let answer = pipeline(plain(3, ms(0)), &log).call_with(within(100), |_| script.attempt()).await;
        assert_eq!(answer, gives.map_err(Error::Operation));
        assert_eq!((script.attempts(), stops(&log)), (1, Vec::from_iter(stop)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_begins_however_little_time_is_left() {
    let script = Script::always(Ok(7));
    let retry = plain(3, ms(1)).min_time_left(secs(60)).build().unwrap();
    let options = CallOptions::new().deadline(Instant::now() + Duration::from_nanos(1));
    assert_eq!(retry.call_with(options, |_| script.attempt()).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_past_at_entry_is_a_rejection_to_whoever_reads_the_verdict() {
    let pipeline = pipeline(plain(3, ms(1)), &Log::new());
    let outcome = pipeline.outcome_with(within(0), |_| async { Ok(7) }).await;
    assert_eq!((outcome.verdict(), outcome.label(), outcome.is_spent()), (Verdict::rejected(), "timeout", false));

    // A pipeline that is forwarded to passes that on: nothing repeats it.
    let outer = Pipeline::builder("outer").retry(plain(3, ms(1))).build().unwrap();
    let log = Log::new();
    let inner = Pipeline::builder("inner").observer(log.clone()).classify_errors(as_it_says).build().unwrap();
    let late = within(0);
    let answer = outer.forward(|| inner.outcome_with(late, |_| async { Ok::<u32, Verdict>(7) })).await;
    assert!(answer.unwrap_err().is_timeout());
    assert_eq!(log.count(|kind| matches!(kind, EventKind::CallFinished { attempts: 0, .. })), 1);
}
