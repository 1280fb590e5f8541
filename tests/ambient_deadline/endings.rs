//! How a call ends whose time is over, and what its policies make of that.

use std::{
    future::{pending, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use withstand::{
    AttemptEnd, CallOptions, CallOutcome, CircuitBreaker, CircuitState, Deadline, Error, EventKind, Fallback, Phase,
    Pipeline, Scope, Timeout, VerdictKind,
};

use crate::support::{Log, ms, secs};

async fn never() -> Result<u32, String> {
    pending().await
}

#[tokio::test(start_paused = true)]
async fn a_call_that_begins_after_the_outer_deadline_calls_nothing() {
    let called = AtomicU32::new(0);
    let inner = Pipeline::builder("inner").fallback(Fallback::value(7)).timeout(secs(1)).build().unwrap();
    let late = async {
        sleep(ms(20)).await;
        inner
            .outcome(|| async {
                called.fetch_add(1, Relaxed);
                Ok::<u32, String>(1)
            })
            .await
    };
    let outcome = Deadline::after(ms(10)).scope(late).await;
    assert_eq!((called.into_inner(), outcome.verdict().kind()), (0, VerdictKind::Rejected));
    let Err(Error::Timeout(timed_out)) = outcome.result else { panic!("no timeout") };
    assert_eq!((timed_out.scope(), timed_out.phase(), timed_out.attempts()), (Scope::Deadline, Phase::Entry, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_outer_timeout_drops_is_a_timeout_to_the_breaker_inside() {
    let breaker = Arc::new(CircuitBreaker::builder().consecutive_failures(1).consecutive_span(ms(0)).build().unwrap());
    let log = Log::new();
    let inner = Pipeline::builder("inner").circuit_breaker(breaker.clone()).observer(log.clone()).build().unwrap();
    let outer = Timeout::new(ms(50)).unwrap();
    outer.call(|| inner.call(never)).await.unwrap_err();
    assert!(matches!(breaker.state(), CircuitState::Open { .. }));
    let ends = log.pick(|kind| match kind {
        EventKind::AttemptFinished { end, .. } => Some(end),
        _ => None,
    });
    assert_eq!(ends, [AttemptEnd::TimedOut]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_drops_before_the_outer_deadline_says_nothing_to_the_breaker() {
    let breaker = Arc::new(CircuitBreaker::builder().consecutive_failures(1).consecutive_span(ms(0)).build().unwrap());
    let inner = Pipeline::builder("inner").circuit_breaker(breaker.clone()).build().unwrap();
    let outer = Timeout::new(ms(50)).unwrap();
    timeout(ms(49), outer.call(|| inner.call(never))).await.unwrap_err();
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_of_a_scope_a_call_ends_itself_and_says_so_once() {
    let log = Log::new();
    let inner = Pipeline::builder("inner").timeout(secs(1)).observer(log.clone()).build().unwrap();
    let began = Instant::now();
    let outcome = Deadline::after(ms(50)).scope(inner.outcome(never)).await;
    assert_eq!((began.elapsed(), outcome.verdict().kind()), (ms(50), VerdictKind::Transient));
    let Err(Error::Timeout(timed_out)) = outcome.result else { panic!("no timeout") };
    assert_eq!((timed_out.scope(), timed_out.limit(), timed_out.attempts()), (Scope::Deadline, ms(50), 1));
    let told = log.pick(|kind| match kind {
        EventKind::AttemptFinished { end, .. } => Some(end.as_str()),
        EventKind::TimedOut { .. } => Some("told"),
        EventKind::CallFinished { outcome: CallOutcome::Timeout, duration, .. } if duration == ms(50) => {
            Some("finished")
        }
        EventKind::CallFinished { .. } => Some("finished in another way"),
        _ => None,
    });
    assert_eq!(told, [AttemptEnd::TimedOut.as_str(), "told", "finished"]);
}

/// A future that is shared goes on after the call in which it was first polled is gone. It has its deadline from there and
/// is ended by nobody, so it ends itself.
#[tokio::test(start_paused = true)]
async fn a_call_that_leaves_the_operation_in_which_it_began_does_not_hang() {
    let inner = Timeout::new(secs(1)).unwrap();
    let mut escaped = pin!(inner.call(never));
    let outer = Timeout::new(ms(50)).unwrap();
    let began = Instant::now();
    {
        let mut outer_call = pin!(outer.guard(poll_fn(|task| {
            assert!(escaped.as_mut().poll(task).is_pending());
            Poll::<Result<(), ()>>::Pending
        })));
        assert!(futures::future::poll_immediate(outer_call.as_mut()).await.is_none());
    }
    assert!(matches!(escaped.await, Err(Error::Timeout(_))));
    assert_eq!(began.elapsed(), ms(50));
}

/// Wakes whoever shares a future, as `Shared` does.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The same, and it is polled in the operation at the very deadline: left to that, and then alone.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_left_to_an_operation_which_is_gone_ends_itself_soon() {
    let inner = Timeout::new(secs(1)).unwrap();
    let mut escaped = pin!(inner.call(never));
    let outer = Timeout::new(ms(50)).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let ended = outer.guard(poll_fn(|_| {
        assert!(escaped.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        Poll::<Result<(), ()>>::Pending
    }));
    ended.await.unwrap_err();
    let before = woken.0.load(Relaxed);
    sleep(ms(60)).await;
    assert!(woken.0.load(Relaxed) > before, "nobody would ever look at it again");
    assert!(matches!(futures::future::poll_immediate(escaped).await, Some(Err(Error::Timeout(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_leaves_no_deadline_behind() {
    let outer = Timeout::new(ms(50)).unwrap();
    let inner = Timeout::new(ms(20)).unwrap();
    for later in [false, true] {
        let call = outer.call(|| {
            inner.call(|| async {
                if later {
                    sleep(ms(1)).await;
                }
                // As it is, so that it panics.
                assert!(Deadline::current().is_none(), "down");
                Ok::<(), ()>(())
            })
        });
        std::panic::AssertUnwindSafe(call).catch_unwind().await.unwrap_err();
        assert_eq!(Deadline::current(), None);
    }
    let scope = Deadline::after(ms(5)).scope(async { panic!("down") });
    std::panic::AssertUnwindSafe(scope).catch_unwind().await.unwrap_err();
    assert_eq!(Deadline::current(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_told_to_ignores_the_deadline_around_it() {
    let inner = Pipeline::builder("inner").build().unwrap();
    let options = CallOptions::new().ignoring_outer_deadline();
    let after = async {
        sleep(ms(20)).await;
        inner
            .call_with(options, |attempt| async move {
                sleep(ms(20)).await;
                Ok::<_, ()>((attempt.deadline(), Deadline::current()))
            })
            .await
    };
    assert_eq!(Deadline::after(ms(10)).scope(after).await, Ok((None, None)));
}
