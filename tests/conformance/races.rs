//! What goes wrong where attempts are repeated.

use std::{
    pin::pin,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

use tokio::{
    select,
    time::{Duration, sleep},
};
use withstand::{
    Backoff, BoxPolicy, Context, Describe, EventKind, Hedge, Jitter, Operation, Outcome, Pipeline, Policy, Retry,
};

use crate::support::{Log, ms};

/// As it is often written: two attempts, of which the first to end has won, however it ended.
struct FirstToEnd;

impl Describe for FirstToEnd {}

impl<T: Send, E: Send> Policy<T, E> for FirstToEnd {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let (first, second) = (pin!(op.attempt(cx)), async {
            sleep(ms(10)).await;
            op.attempt(cx.with_hedge(1)).await
        });
        select! {
            outcome = first => outcome,
            outcome = second => outcome,
        }
    }
}

/// What a race gives whose attempts take so long and end so, the primary first.
async fn winner(hedge: impl Policy<u32, &'static str>, attempts: [(u64, Result<u32, &'static str>); 2]) -> Option<u32> {
    let made = AtomicU32::new(0);
    let pipeline = Pipeline::builder("users").layer(hedge).build().unwrap();
    let call = || async {
        let (takes, ends) = attempts[usize::from(made.fetch_add(1, SeqCst) > 0)];
        sleep(ms(takes)).await;
        ends
    };
    pipeline.call(call).await.ok()
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_first_wins_no_race() {
    let ours = || Hedge::builder().delay(ms(10)).without_budget().build().unwrap();
    let hedge_fails_first = [(50, Ok(1)), (5, Err("down"))];
    assert_eq!(winner(ours(), hedge_fails_first).await, Some(1));
    assert_eq!(winner(FirstToEnd, hedge_fails_first).await, None);
    let primary_fails_first = [(20, Err("down")), (50, Ok(2))];
    assert_eq!(winner(ours(), primary_fails_first).await, Some(2));
    assert_eq!(winner(FirstToEnd, primary_fails_first).await, None);
    let primary_fails_before_there_is_a_race = [(5, Err("down")), (50, Ok(2))];
    assert_eq!(winner(ours(), primary_fails_before_there_is_a_race).await, Some(2));
}

/// The longest wait between attempts, of many.
async fn longest_wait(backoff: Backoff) -> Duration {
    let log = Log::new();
    let retry = Retry::builder().max_attempts(200).backoff(backoff).without_budget().seed(7).build().unwrap();
    let pipeline = Pipeline::builder("users").layer(BoxPolicy::new(retry)).observer(log.clone()).build().unwrap();
    pipeline.call(|| async { Err::<u32, _>("down") }).await.unwrap_err();
    let waits = log.pick(|event| match event {
        EventKind::Retried { delay, .. } => Some(delay),
        _ => None,
    });
    assert_eq!(waits.len(), 199);
    waits.into_iter().max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_jitter_takes_a_wait_over_the_cap() {
    const CAP: Duration = ms(1_000);
    let kinds = [Backoff::constant(CAP), Backoff::linear(ms(50)), Backoff::exponential(ms(50))];
    for kind in kinds {
        for jitter in [Jitter::None, Jitter::Full, Jitter::Equal] {
            let longest = longest_wait(kind.clone().cap(CAP).jitter(jitter)).await;
            assert!(longest <= CAP, "{kind:?} {jitter:?}: {longest:?}");
            assert!(longest >= CAP * 9 / 10, "it is reached: {kind:?} {jitter:?}: {longest:?}");
        }
    }
    let longest = longest_wait(Backoff::decorrelated(ms(50)).cap(CAP)).await;
    assert!(longest <= CAP && longest >= CAP * 8 / 10, "{longest:?}");

    // As it is often written: the cap first, and then a quarter more or less.
    let capped_first = Backoff::custom(|step| Some(CAP * (75 + 50 * (step.retry() % 2)) / 100));
    assert!(longest_wait(capped_first.clone()).await > CAP);
    assert_eq!(longest_wait(capped_first.cap(CAP)).await, CAP, "the cap is that of a backoff of one's own as well");
}
