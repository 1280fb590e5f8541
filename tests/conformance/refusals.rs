//! Who is refused is told so at once, and whoever does nothing holds nothing.

use std::{
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use withstand::{Bulkhead, CallOptions, CircuitBreaker, Error, Pipeline};

use crate::support::{ms, secs};

type Answer = Result<u32, Error<&'static str>>;

/// What a future gives at its first poll.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

async fn answer() -> Result<u32, &'static str> {
    Ok(7)
}

fn bulkhead(queue: usize) -> Arc<Bulkhead> {
    let builder = Bulkhead::builder().limit(1).queue(queue);
    Arc::new(if queue > 0 { builder.max_wait(secs(10)) } else { builder }.build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_refuses_at_the_first_poll_and_not_at_a_timers_tick() {
    let began = Instant::now();
    let is_refused =
        |answer: Option<Answer>| answer.is_some_and(|answer| answer.is_err_and(|error| error.is_rejected()));
    for queue in [0, 1] {
        let bulkhead = bulkhead(queue);
        let pipeline = Pipeline::builder("users").timeout(secs(20)).bulkhead(bulkhead.clone()).build().unwrap();
        let _permit = bulkhead.try_acquire().unwrap();
        let mut waits = pin!(bulkhead.acquire());
        assert_eq!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), queue > 0);
        assert!(is_refused(at_once(pipeline.call(answer))), "queue of {queue}");
        assert!(is_refused(at_once(pipeline.guard(answer()))), "queue of {queue}");
        assert!(at_once(bulkhead.acquire()).is_some_and(|permit| permit.is_err()), "queue of {queue}");
    }
    let none = Bulkhead::builder().limit(0).queue(1).build().unwrap();
    assert!(is_refused(at_once(none.call(answer))));
    let isolated = CircuitBreaker::builder().build().unwrap();
    let _isolation = isolated.isolate();
    assert!(is_refused(at_once(isolated.call(answer))));
    let pipeline = Pipeline::builder("users").build().unwrap();
    let late = pipeline.call_with(CallOptions::new().deadline(began), |_| answer());
    assert!(at_once(late).is_some_and(|answer| answer.is_err_and(|error| error.is_timeout())));
    assert_eq!(Instant::now(), began);

    // The usual way: the shortest wait that a timer knows.
    let semaphore = Semaphore::new(0);
    assert!(at_once(timeout(ms(1), semaphore.acquire())).is_none());
}

/// Whether another call gets in while there are futures that nobody has polled, and after they are dropped.
fn others_get_in<F>(idle: impl Fn() -> F, another: impl Fn() -> bool) -> bool {
    let futures = [idle(), idle()];
    let meanwhile = another();
    drop(futures);
    meanwhile && another()
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_not_polled_holds_no_permit() {
    for queue in [0, 1] {
        let bulkhead = bulkhead(queue);
        let pipeline = Pipeline::builder("users").timeout(secs(20)).bulkhead(bulkhead.clone()).build().unwrap();
        let another = || bulkhead.try_acquire().is_ok();
        assert!(others_get_in(|| pipeline.call(answer), another));
        assert!(others_get_in(|| pipeline.guard(answer()), another));
        assert!(others_get_in(|| bulkhead.call(answer), another));
        assert!(others_get_in(|| bulkhead.acquire(), another));
        // A handle is none either.
        assert!(others_get_in(|| bulkhead.clone(), another));
    }
    let breaker = CircuitBreaker::builder().count_window(1).min_calls(1).open_for(ms(1)).probes(1).build().unwrap();
    _ = breaker.admit().unwrap().failure("down");
    tokio::time::sleep(ms(1)).await;
    assert!(others_get_in(|| breaker.call(answer), || breaker.admit().is_ok()), "nor a probe's slot");

    // A service that gets ready before it is called.
    let semaphore = Semaphore::new(1);
    let ready = || {
        let permit = semaphore.try_acquire();
        async move { drop(permit) }
    };
    assert!(!others_get_in(ready, || semaphore.try_acquire().is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_holds_no_permit() {
    for queue in [0, 1] {
        let bulkhead = bulkhead(queue);
        for _ in 0..10 {
            assert!(at_once(bulkhead.call(pending::<Result<u32, &str>>)).is_none());
            assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 0));
        }
        let held = bulkhead.try_acquire().unwrap();
        for _ in 0..10 {
            assert_eq!(at_once(bulkhead.acquire()).is_none(), queue > 0);
            assert_eq!((bulkhead.in_use(), bulkhead.queued()), (1, 0));
        }
        drop(held);
        assert_eq!(at_once(bulkhead.call(answer)), Some(Ok(7)));
    }
}
