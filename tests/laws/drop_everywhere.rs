//! A call is polled so many times and dropped, for every number of times until it ends: nothing is held afterwards.

use std::sync::atomic::Ordering::SeqCst;

use tokio::time::Instant;
use withstand::{Error, Policy, SingleAttempt};

use crate::{
    polled::{End, MANNERS, Manner, polled},
    rows::{ANSWER, BEHAVIOURS, Fault, Op, Row, every_row, every_single_row},
};

type Result = std::result::Result<u32, Error<Fault>>;

/// Drops a call after each number of polls, up to the one at which it ends.
pub(crate) async fn dropped_everywhere<P: Policy<u32, Fault>>(
    row: impl Fn() -> Row<P>,
    op: impl Fn() -> Op,
    manner: Manner,
    call: impl AsyncFn(&Row<P>, &Op, u32, Manner) -> End<Result>,
) {
    for times in 0.. {
        let (row, op) = (row(), op());
        row.prepare().await;
        let began = Instant::now();
        let end = call(&row, &op, times, manner).await;
        let place = format!("{} {op:?} {manner:?} {times} polls: {end:?}", row.pipeline.name());
        let _shown = Shown(&place);

        let counts = &row.counts;
        assert_eq!(counts.calls_started.load(SeqCst), u32::from(times > 0), "calls begun");
        assert_eq!(counts.calls_finished.load(SeqCst), u32::from(times > 0), "calls reported as ended");
        assert_eq!(counts.attempts_started.load(SeqCst), op.started(), "attempts reported as begun");
        assert_eq!(counts.attempts_finished.load(SeqCst), op.started(), "attempts reported as ended");
        assert_eq!(counts.attempts_told.load(SeqCst), op.started(), "attempts that the call tells of");
        let succeeded = matches!(end, End::Done(Ok(ANSWER)));
        row.holds_nothing(&op, succeeded, began).await;

        assert!(times < 200, "it never ends");
        if !matches!(end, End::Dropped) {
            break;
        }
    }
}

/// The same for each behaviour and each manner.
async fn whatever_it_does<P: Policy<u32, Fault>>(
    row: fn() -> Row<P>,
    call: impl AsyncFn(&Row<P>, &Op, u32, Manner) -> End<Result>,
) {
    for behaviour in BEHAVIOURS {
        for manner in MANNERS {
            dropped_everywhere(row, || Op::new(behaviour), manner, &call).await;
        }
    }
}

/// Says where it was if the test fails.
struct Shown<'a>(&'a str);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {}", self.0);
        }
    }
}

/// A call, as callers make it.
pub(crate) async fn called<P: Policy<u32, Fault>>(row: &Row<P>, op: &Op, times: u32, manner: Manner) -> End<Result> {
    polled(times, manner, row.pipeline.call(|| op.attempt())).await
}

async fn a_call<P: Policy<u32, Fault>>(row: fn() -> Row<P>) {
    whatever_it_does(row, called).await;
}

async fn a_guarded_future<P: Policy<u32, Fault> + SingleAttempt>(row: fn() -> Row<P>) {
    whatever_it_does(row, async |row, op, times, manner| {
        polled(times, manner, row.pipeline.guard(async { op.attempt().await })).await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_anywhere_holds_nothing() {
    every_row!(a_call);
}

#[tokio::test(start_paused = true)]
async fn a_guarded_future_that_is_dropped_anywhere_holds_nothing() {
    every_single_row!(a_guarded_future);
}
