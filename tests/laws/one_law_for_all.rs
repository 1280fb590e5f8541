//! What every policy does alike with what an operation gives.

use std::sync::atomic::Ordering::SeqCst;

use tokio::time::Instant;
use withstand::{CallOptions, Error, Outcome, Policy, SingleAttempt, VerdictKind};

use crate::{
    polled::{End, Manner, polled},
    rows::{ANSWER, BEHAVIOURS, Fault, How, Op, Row, SUBSTITUTE, TOLD_TO, When, every_row, every_single_row},
};

/// Makes one call to its end, whichever it is.
async fn end_of<P: Policy<u32, Fault>>(row: &Row<P>, op: &Op) -> End<Outcome<u32, Fault>> {
    row.prepare().await;
    polled(u32::MAX, Manner::Promptly, row.pipeline.outcome(|| op.attempt())).await
}

fn has_fallback<P>(row: &Row<P>) -> bool {
    row.pipeline.name().as_str().contains("fallback") || *row.pipeline.name() == "all six"
}

/// Whether the call never got to its operation, which only the row that waits in vain may do.
fn was_refused<P>(row: &Row<P>, op: &Op, outcome: &Outcome<u32, Fault>) -> bool {
    let refused = op.started() == 0;
    assert_eq!(refused, *row.pipeline.name() == "bulkhead without end");
    if refused {
        assert!(outcome.result.as_ref().is_err_and(Error::is_rejected), "{outcome:?}");
        assert!(outcome.verdict().is_rejected(), "{outcome:?}");
    }
    refused
}

async fn success_is_untouched<P: Policy<u32, Fault>>(row: fn() -> Row<P>) {
    for when in [When::AtOnce, When::Later] {
        let (row, op, began) = (row(), Op::new((when, How::Ok)), Instant::now());
        let End::Done(outcome) = end_of(&row, &op).await else { panic!("{} does not end", row.pipeline.name()) };
        if !was_refused(&row, &op, &outcome) {
            assert_eq!(outcome.result, Ok(ANSWER), "{}", row.pipeline.name());
            assert_eq!((outcome.verdict().kind(), outcome.label()), (VerdictKind::Success, "success"));
            assert!(!outcome.is_spent() && !outcome.is_stalled() && !outcome.is_substitute(), "{outcome:?}");
        }
        row.holds_nothing(&op, outcome.result.is_ok(), began).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_passes_through_untouched() {
    every_row!(success_is_untouched);
}

async fn hopeless_is_not_repeated<P: Policy<u32, Fault>>(row: fn() -> Row<P>) {
    for (fault, verdict) in [(Fault::Lasting, VerdictKind::Failure), (Fault::Ours, VerdictKind::Ignored)] {
        let (row, op, began) = (row(), Op::new((When::AtOnce, How::Err(fault))), Instant::now());
        let End::Done(outcome) = end_of(&row, &op).await else { panic!("{} does not end", row.pipeline.name()) };
        if !was_refused(&row, &op, &outcome) {
            if has_fallback(&row) && fault == Fault::Lasting {
                assert_eq!(outcome.result, Ok(SUBSTITUTE), "{}", row.pipeline.name());
            } else {
                assert_eq!(outcome.result, Err(Error::Operation(fault)), "{}", row.pipeline.name());
                assert_eq!(outcome.verdict().kind(), verdict);
            }
            assert_eq!(op.ended(), 1, "{}", row.pipeline.name());
        }
        row.holds_nothing(&op, false, began).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_hopeless_or_our_own_mistake_is_not_repeated() {
    every_row!(hopeless_is_not_repeated);
}

async fn panic_is_untouched<P: Policy<u32, Fault>>(row: fn() -> Row<P>) {
    for when in [When::Making, When::AtOnce, When::Later] {
        let (row, op, began) = (row(), Op::new((when, How::Panic)), Instant::now());
        match end_of(&row, &op).await {
            End::Panicked(payload) => assert_eq!(payload.downcast_ref(), Some(&TOLD_TO), "{}", row.pipeline.name()),
            End::Done(outcome) => assert!(was_refused(&row, &op, &outcome)),
            end => panic!("{}: {end:?}", row.pipeline.name()),
        }
        row.holds_nothing(&op, false, began).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_reaches_the_caller_with_its_payload() {
    every_row!(panic_is_untouched);
}

async fn nothing_is_called_too_late<P: Policy<u32, Fault>>(row: fn() -> Row<P>) {
    let (row, op, began) = (row(), Op::new((When::AtOnce, How::Ok)), Instant::now());
    row.prepare().await;
    let late = CallOptions::new().deadline(Instant::now());
    let result = row.pipeline.call_with(late, |_| op.attempt()).await;
    assert!(result.as_ref().is_err_and(Error::is_timeout), "{}: {result:?}", row.pipeline.name());
    assert_eq!(op.started(), 0, "{}", row.pipeline.name());
    row.holds_nothing(&op, false, began).await;
}

#[tokio::test(start_paused = true)]
async fn past_its_deadline_a_call_calls_nothing() {
    every_row!(nothing_is_called_too_late);
}

/// What can be compared of two calls.
fn shown<T: std::fmt::Debug>(end: &End<T>) -> String {
    match end {
        End::Panicked(_) => "panicked".to_owned(),
        end => format!("{end:?}"),
    }
}

async fn all_ways_agree<P: Policy<u32, Fault>>(row: fn() -> Row<P>) {
    for behaviour in BEHAVIOURS {
        let mut ends = Vec::new();
        for way in 0..4 {
            let (row, op, began) = (row(), Op::new(behaviour), Instant::now());
            row.prepare().await;
            let pipeline = &row.pipeline;
            let end = match way {
                0 => polled(u32::MAX, Manner::Promptly, pipeline.call(|| op.attempt())).await,
                1 => polled(u32::MAX, Manner::Promptly, pipeline.call_with(CallOptions::new(), |_| op.attempt())).await,
                2 => polled(u32::MAX, Manner::Promptly, async { pipeline.outcome(|| op.attempt()).await.result }).await,
                _ => {
                    let bare = crate::rows::nothing();
                    let forwarded = pipeline.forward(|| bare.pipeline.outcome(|| op.attempt()));
                    polled(u32::MAX, Manner::Promptly, forwarded).await
                }
            };
            row.holds_nothing(&op, matches!(end, End::Done(Ok(ANSWER))), began).await;
            ends.push((shown(&end), op.started(), op.ended()));
        }
        let all_alike = ends.iter().all(|end| *end == ends[0]);
        assert!(all_alike, "{} {behaviour:?}: {ends:#?}", row().pipeline.name());
    }
}

#[tokio::test(start_paused = true)]
async fn all_ways_to_call_come_to_the_same_end() {
    every_row!(all_ways_agree);
}

async fn guard_agrees<P: Policy<u32, Fault> + SingleAttempt>(row: fn() -> Row<P>) {
    for behaviour in BEHAVIOURS.into_iter().filter(|(when, _)| *when != When::Making) {
        let mut ends = Vec::new();
        for guarded in [false, true] {
            let (row, op, began) = (row(), Op::new(behaviour), Instant::now());
            row.prepare().await;
            let end = if guarded {
                polled(u32::MAX, Manner::Promptly, row.pipeline.guard(async { op.attempt().await })).await
            } else {
                polled(u32::MAX, Manner::Promptly, row.pipeline.call(|| op.attempt())).await
            };
            row.holds_nothing(&op, matches!(end, End::Done(Ok(ANSWER))), began).await;
            ends.push((shown(&end), op.started(), op.ended()));
        }
        assert_eq!(ends[0], ends[1], "{} {behaviour:?}", row().pipeline.name());
    }
}

#[tokio::test(start_paused = true)]
async fn a_guarded_future_comes_to_the_end_that_a_call_comes_to() {
    every_single_row!(guard_agrees);
}

async fn observers_change_nothing<P: Policy<u32, Fault>>(row: fn() -> Row<P>) {
    for behaviour in BEHAVIOURS {
        let mut ends = Vec::new();
        for panics in [false, true] {
            let (row, op, began) = (row(), Op::new(behaviour), Instant::now());
            row.counts.panics.store(panics, SeqCst);
            let end = end_of(&row, &op).await;
            let succeeded = matches!(&end, End::Done(outcome) if outcome.result == Ok(ANSWER));
            row.holds_nothing(&op, succeeded, began).await;
            let end = match end {
                End::Done(outcome) => format!("{:?} {:?} {}", outcome.result, outcome.verdict(), outcome.label()),
                other => shown(&other),
            };
            ends.push((end, op.started(), op.ended()));
        }
        assert_eq!(ends[0], ends[1], "{} {behaviour:?}", row().pipeline.name());
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_changes_nothing() {
    every_row!(observers_change_nothing);
}
