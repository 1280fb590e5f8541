//! The ends of attempts, and how they are counted.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    task::Poll,
};

use proptest::{collection::vec, prelude::*};
use tokio::time::sleep;
use withstand::{
    AttemptEnd, CallOptions, CallOutcome, CircuitBreaker, Context, Describe, EventKind, Fallback, Frame, Hedge,
    Observers, Operation, Outcome, Pipeline, Policy, Reason, Value, Verdict,
};

use super::{End, Spiteful, ends, finished, outcome, retry};
use crate::support::{Log, Script, Step, as_it_says, caught, ms};

#[tokio::test(start_paused = true)]
async fn a_refused_repeat_is_no_attempt() {
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .retry(retry(9))
        .circuit_breaker(CircuitBreaker::builder().min_calls(2))
        .observer(log.clone())
        .build()
        .unwrap();
    assert!(pipeline.call(|| async { Err::<(), _>(()) }).await.is_err());
    assert_eq!((finished(&log).numbers, ends(&log).len()), ((2, 0, 0), 2));
    let refused = log.pick(|kind| match kind {
        EventKind::Rejected { reason, attempt, hedge, .. } => Some((reason, attempt, hedge)),
        _ => None,
    });
    assert_eq!(refused, [(Reason::CircuitOpen, 3, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_race_reports_who_won_and_that_the_others_were_superseded() {
    let hedge = |hedges| Hedge::builder().max_hedges(hedges).delay(ms(10)).without_budget();
    for (winner, attempts) in [(0, 3), (1, 3), (2, 3)] {
        let log = Log::new();
        let pipeline = Pipeline::builder("api").hedge(hedge(2)).observer(log.clone()).build().unwrap();
        let call = pipeline.call_with(CallOptions::new(), |attempt| async move {
            if attempt.hedge() == winner {
                sleep(ms(50)).await;
                return Ok::<_, ()>(attempt.hedge());
            }
            pending().await
        });
        assert_eq!(call.await, Ok(winner));
        assert_eq!(finished(&log).numbers, (attempts, 2, winner));
        let mut ends = ends(&log);
        ends.sort_unstable_by_key(|(_, hedge, _)| *hedge);
        let expected = [0, 1, 2]
            .map(|hedge| (1, hedge, if hedge == winner { AttemptEnd::Completed } else { AttemptEnd::Superseded }));
        assert_eq!(ends, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_panics_is_the_only_attempt_that_panicked() {
    let log = Log::new();
    let hedge = Hedge::builder().delay(ms(10)).without_budget();
    let pipeline = Pipeline::builder("api").hedge(hedge).observer(log.clone()).build().unwrap();
    let call = pipeline.call_with(CallOptions::new(), |attempt| async move {
        assert_eq!(attempt.hedge(), 0, "of the hedge");
        pending::<Result<(), ()>>().await
    });
    assert!(caught(call).await.unwrap_err().contains("of the hedge"));
    assert_eq!(outcome(&log), (CallOutcome::Panicked, None, None));
    let mut ends = ends(&log);
    ends.sort_unstable_by_key(|(_, hedge, _)| *hedge);
    assert_eq!(ends, [(1, 0, AttemptEnd::Cancelled), (1, 1, AttemptEnd::Panicked)]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_cut_off_by_a_timeout_and_one_dropped_by_the_caller_are_told_apart() {
    let log = Log::new();
    let pipeline = Pipeline::builder("api").retry(retry(3)).timeout(ms(50)).observer(log.clone()).build().unwrap();
    let call = pipeline.call(pending::<Result<(), ()>>);
    assert!(tokio::time::timeout(ms(140), call).await.is_err());
    let expected = [(1, 0, AttemptEnd::TimedOut), (2, 0, AttemptEnd::TimedOut), (3, 0, AttemptEnd::Cancelled)];
    assert_eq!(ends(&log), expected);
    assert_eq!((outcome(&log).0, finished(&log).numbers), (CallOutcome::Cancelled, (3, 0, 0)));
}

fn step() -> impl Strategy<Value = Step> {
    let takes = prop_oneof![Just(0), 1..30_u64, 40..99_u64];
    let gives = prop_oneof![
        Just(Ok(1)),
        Just(Err(Verdict::transient())),
        Just(Err(Verdict::throttled().retry_after(ms(15)))),
        Just(Err(Verdict::rejected())),
        Just(Err(Verdict::failure())),
    ];
    (takes, gives).prop_map(|(takes, gives)| Step { takes: ms(takes), gives })
}

fn fallback(wanted: bool) -> Option<Fallback<Value<u32>>> {
    wanted.then(|| Fallback::value(42).build().unwrap())
}

proptest! {
    #![proptest_config(crate::support::trials::cases(256))]

    #[test]
    fn a_call_and_its_attempts_each_end_once_wherever_it_is_dropped(
        polls in 1..30_usize,
        steps in vec(step(), 1..8),
        falls_back in any::<bool>(),
        panics in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (log, script) = (Log::new(), Script::new(steps));
        runtime.block_on(async {
            let observers = Observers::new().with(log.clone());
            let pipeline = Pipeline::builder("api")
                .layer(fallback(falls_back))
                .timeout(ms(200))
                .retry(retry(4))
                .hedge(Hedge::builder().delay(ms(20)).without_budget())
                .timeout(ms(60))
                .classify_errors(as_it_says)
                .observer(if panics { observers.with(Spiteful) } else { observers })
                .build()
                .unwrap();
            let mut call = pin!(pipeline.outcome(|| script.attempt()));
            let mut left = polls;
            let _ended: Option<Outcome<u32, Verdict>> = poll_fn(|task| {
                if left == 0 {
                    return Poll::Ready(None);
                }
                left -= 1;
                call.as_mut().poll(task).map(Some)
            })
            .await;
        });
        let End { outcome, numbers: (attempts, hedges, _), .. } = finished(&log);
        prop_assert_eq!(attempts as usize, script.attempts());
        let started = log.pick(|kind| match kind {
            EventKind::AttemptStarted { attempt, hedge, .. } => Some((attempt, hedge)),
            _ => None,
        });
        let mut ended: Vec<_> = ends(&log).into_iter().map(|(attempt, hedge, _)| (attempt, hedge)).collect();
        let mut sorted = started.clone();
        sorted.sort_unstable();
        ended.sort_unstable();
        prop_assert_eq!(&sorted, &ended, "each attempt that starts ends once");
        sorted.dedup();
        prop_assert_eq!(sorted.len(), attempts as usize, "and no two of them have the same number");
        prop_assert_eq!(started.iter().filter(|(_, hedge)| *hedge > 0).count(), hedges as usize);
        let cancelled = ends(&log).iter().any(|(_, _, end)| *end == AttemptEnd::Cancelled);
        prop_assert!(outcome == CallOutcome::Cancelled || !cancelled);
    }
}

/// Two attempts at once, each in a frame of its own or, as it is often written, not.
struct Both {
    in_frames: bool,
}

impl Describe for Both {}

impl<T: Send, E: Send> Policy<T, E> for Both {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let (one, other) = (Frame::new(cx), Frame::new(cx));
        let [one, other] = if self.in_frames { [cx.within(&one), cx.within(&other)] } else { [cx; 2] };
        let (first, second) = (op.attempt(one), op.attempt(other.with_hedge(1)));
        tokio::select! {
            biased;
            outcome = first => outcome,
            outcome = second => outcome,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_attempts_at_once_only_the_one_that_panicked_is_told_to_have() {
    for (who, in_frames) in [(0, true), (1, true), (0, false), (1, false)] {
        let log = Log::new();
        let pipeline = Pipeline::builder("api").layer(Both { in_frames }).observer(log.clone()).build().unwrap();
        let begun = AtomicU32::new(0);
        let call = pipeline.call(|| async {
            let panics = begun.fetch_add(1, Ordering::Relaxed) == who;
            sleep(ms(10)).await;
            assert!(!panics, "of the operation");
            pending::<Result<(), ()>>().await
        });
        assert_eq!(caught(call).await, Err("of the operation".to_owned()));
        let mut ends = ends(&log);
        ends.sort_by_key(|(_, hedge, _)| *hedge);
        let expected = if who == 0 {
            [AttemptEnd::Panicked, AttemptEnd::Cancelled]
        } else {
            [AttemptEnd::Cancelled, AttemptEnd::Panicked]
        };
        assert_eq!(ends, [(1, 0, expected[0]), (1, 1, expected[1])]);
    }
}
