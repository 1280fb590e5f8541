//! What the deadline around a call does to each of its policies.

use std::{
    future::{pending, ready},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use withstand::{Backoff, Bulkhead, Deadline, Error, Fallback, Hedge, Jitter, Pipeline, Reason, Retry, Scope, Timeout};

use crate::support::{ms, secs};

async fn never() -> Result<u32, String> {
    pending().await
}

/// Runs a call inside the operation of another one that has so long, and says what came of it and when. The outer one's
/// own error is none: it tells that the inner one was ended.
async fn inside<T: Send, E: Send, Fut>(
    limit: Duration,
    call: impl Fn() -> Fut + Send + Sync,
) -> (Result<Result<T, Error<E>>, Error<()>>, Duration)
where
    Fut: Future<Output = Result<T, Error<E>>> + Send,
{
    let began = Instant::now();
    let outer = Timeout::new(limit).unwrap();
    let result = outer.call(|| async { Ok::<_, ()>(call().await) }).await;
    (result, began.elapsed())
}

fn timed_out<T, E>(result: Result<T, Error<E>>) -> withstand::TimedOut {
    match result {
        Err(Error::Timeout(timed_out)) => timed_out,
        _ => panic!("it did not time out"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_longer_timeout_inside_ends_with_the_outer_one_which_is_reported() {
    let inner = Timeout::new(secs(4)).unwrap();
    let (result, took) = inside(ms(50), || inner.call(never)).await;
    assert_eq!(took, ms(50));
    assert_eq!(timed_out(result).scope(), Scope::Total);
}

#[tokio::test(start_paused = true)]
async fn an_equal_timeout_inside_leaves_the_report_to_the_outer_one() {
    let inner = Timeout::new(ms(50)).unwrap();
    for _ in 0..10 {
        let (result, took) = inside(ms(50), || inner.call(never)).await;
        assert_eq!(took, ms(50));
        assert_eq!(timed_out(result).limit(), ms(50));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_timeout_inside_ends_by_itself() {
    let inner = Timeout::new(ms(20)).unwrap();
    let (result, took) = inside(ms(50), || inner.call(never)).await;
    assert_eq!(took, ms(20));
    assert_eq!(timed_out(result.unwrap()).scope(), Scope::Total);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_sees_the_outer_deadline_though_no_layer_around_it_has_one() {
    let inner = Pipeline::builder("inner").build().unwrap();
    let began = Instant::now();
    let seen = inside(ms(50), || {
        inner.call_with(withstand::CallOptions::new(), |attempt| ready(Ok::<_, ()>(attempt.deadline())))
    });
    assert_eq!(seen.await.0.unwrap().unwrap(), Some(began + ms(50)));
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_a_queue_ends_with_the_outer_deadline() {
    let bulkhead = Bulkhead::builder().limit(1).queue(1).max_wait(secs(10)).build().unwrap();
    let taken = bulkhead.acquire().await.unwrap();
    let (result, took) = inside(ms(50), || bulkhead.call(never)).await;
    assert_eq!((took, bulkhead.queued()), (ms(50), 0));
    assert_eq!(timed_out(result).scope(), Scope::Total);
    drop(taken);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_waited_for_by_hand_is_not_waited_for_longer() {
    let bulkhead = Bulkhead::builder().limit(1).queue(1).max_wait(secs(10)).build().unwrap();
    let taken = bulkhead.acquire().await.unwrap();
    let began = Instant::now();
    let waited = Deadline::after(ms(50)).scope(bulkhead.acquire()).await;
    assert_eq!(waited.unwrap_err().reason(), Reason::QueueTimeout);
    assert_eq!((began.elapsed(), bulkhead.queued()), (ms(50), 0));
    drop(taken);
}

#[tokio::test(start_paused = true)]
async fn a_retry_does_not_sleep_towards_an_outer_deadline_that_it_cannot_meet() {
    let backoff = Backoff::constant(ms(100)).jitter(Jitter::None);
    let retry = Retry::builder().backoff(backoff).without_budget().build().unwrap();
    let attempts = AtomicU32::new(0);
    let (result, took) = inside(ms(250), || {
        retry.call(|| async {
            attempts.fetch_add(1, Relaxed);
            sleep(ms(60)).await;
            Err::<u32, _>("down")
        })
    })
    .await;
    // At 0 and 160 ms; a third would begin at 320 ms.
    assert_eq!(result.unwrap().unwrap_err(), Error::Operation("down"));
    assert_eq!((attempts.into_inner(), took), (2, ms(220)));
}

#[tokio::test(start_paused = true)]
async fn no_hedge_begins_at_the_outer_deadline_or_after_it() {
    for (delay, attempts) in [(ms(49), 2), (ms(50), 1), (ms(200), 1)] {
        let hedge = Hedge::builder().delay(delay).without_budget().build().unwrap();
        let begun = AtomicU32::new(0);
        let (result, took) = inside(ms(50), || {
            hedge.call(|| {
                begun.fetch_add(1, Relaxed);
                never()
            })
        })
        .await;
        assert_eq!((took, begun.into_inner()), (ms(50), attempts), "hedged after {delay:?}");
        assert_eq!(timed_out(result).scope(), Scope::Total);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_sees_the_deadline_of_its_own_attempt() {
    let seen = std::sync::Mutex::new(Vec::new());
    let inner = Pipeline::builder("inner").build().unwrap();
    let outer = Pipeline::builder("outer")
        .hedge(Hedge::builder().delay(ms(10)).without_budget())
        .timeout(ms(50))
        .build()
        .unwrap();
    let began = Instant::now();
    let call = outer.call(|| async {
        inner
            .call(|| async {
                // Asked in the second poll, when the time of the timeout has begun.
                sleep(ms(5)).await;
                seen.lock().unwrap().push(Deadline::current().unwrap().instant() - began);
                never().await
            })
            .await
    });
    call.await.unwrap_err();
    assert_eq!(seen.into_inner().unwrap(), [ms(50), ms(60)]);
}

#[tokio::test(start_paused = true)]
async fn what_a_fallback_calls_is_limited_by_the_fallbacks_own_time_and_by_the_outer_deadline() {
    for (outer, expected) in [(secs(1), ms(100)), (ms(30), ms(30))] {
        let inner = Pipeline::builder("inner").build().unwrap();
        let began = Instant::now();
        let fallback = Fallback::from_future(|_: &withstand::Outcome<Duration, ()>| async {
            let seen = inner.call(|| async { Ok::<_, ()>(Deadline::current()) }).await.unwrap();
            Some(Ok(seen.unwrap().instant() - began))
        });
        let fallback = fallback.build().unwrap();
        let (result, _) = inside(outer, || fallback.call(|| ready(Err(())))).await;
        assert_eq!(result.unwrap().unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn three_deep_the_outermost_limit_counts() {
    let (a, b, c) = (Timeout::new(ms(50)).unwrap(), Timeout::new(secs(1)).unwrap(), Timeout::new(secs(2)).unwrap());
    let began = Instant::now();
    let left = std::sync::Mutex::new(Vec::new());
    let result = a
        .call(|| async {
            sleep(ms(10)).await;
            b.call(|| async {
                sleep(ms(10)).await;
                c.call_with(withstand::CallOptions::new(), |attempt| {
                    left.lock().unwrap().push(attempt.remaining().unwrap());
                    never()
                })
                .await
            })
            .await
        })
        .await;
    assert_eq!((began.elapsed(), left.into_inner().unwrap()), (ms(50), vec![ms(30)]));
    assert_eq!((timed_out(result).limit()), ms(50));
}

#[tokio::test(start_paused = true)]
async fn a_nearer_deadline_of_the_callers_own_counts_and_a_later_one_does_not() {
    let inner = Pipeline::builder("inner").build().unwrap();
    for (own, expected) in [(ms(20), ms(20)), (secs(3), ms(50))] {
        let (_, took) = inside(ms(50), || {
            let options = withstand::CallOptions::new().deadline(Instant::now() + own);
            inner.call_with(options, |_| never())
        })
        .await;
        assert_eq!(took, expected);
    }
}
