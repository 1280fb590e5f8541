//! Time is tokio's, so that a paused clock tests everything.

use std::future::pending;

use tokio::time::{Duration, Instant, sleep};
use withstand::{Backoff, Bulkhead, CircuitBreaker, CircuitState, Fallback, Hedge, Jitter, Outcome, Retry, Timeout};

use crate::support::{ms, secs};

const HOUR: Duration = secs(3600);

/// Whether something takes an hour on the paused clock, give or take what a timer rounds.
async fn takes_an_hour<F: Future>(future: F) -> bool {
    let began = Instant::now();
    drop(future.await);
    (HOUR..HOUR + ms(5)).contains(&began.elapsed())
}

/// If one of them waited in real time, this test would take hours.
#[tokio::test(start_paused = true)]
async fn every_wait_is_over_in_no_time_on_a_paused_clock() {
    let hang = pending::<Result<u32, &str>>;
    let fails = || async { Err::<u32, _>("down") };
    assert!(takes_an_hour(Timeout::new(HOUR).unwrap().call(hang)).await, "timeout");

    let backoff = Backoff::constant(HOUR).cap(HOUR).jitter(Jitter::None);
    assert!(
        takes_an_hour(Retry::builder().max_attempts(2).backoff(backoff).build().unwrap().call(fails)).await,
        "retry"
    );

    let bulkhead = Bulkhead::builder().limit(1).queue(1).max_wait(HOUR).build().unwrap();
    let _permit = bulkhead.try_acquire().unwrap();
    assert!(takes_an_hour(bulkhead.acquire()).await, "bulkhead");

    let hedged = Hedge::builder().delay(HOUR).build().unwrap();
    let answers = async |hedge: u32| if hedge == 0 { pending().await } else { Ok::<_, &str>(7) };
    let call = hedged.call_with(withstand::CallOptions::new(), |attempt| answers(attempt.hedge()));
    assert!(takes_an_hour(call).await, "hedge");

    let waits = |_: &Outcome<u32, &str>| pending::<Option<Result<u32, &'static str>>>();
    assert!(takes_an_hour(Fallback::from_future(waits).limit(HOUR).build().unwrap().call(fails)).await, "fallback");

    let breaker = CircuitBreaker::builder().count_window(1).min_calls(1).open_for(HOUR).build().unwrap();
    let mut changes = breaker.subscribe();
    _ = breaker.admit().unwrap().failure("down");
    assert!(changes.changed().await.is_open());
    assert!(takes_an_hour(changes.changed()).await, "circuit breaker");
    assert_eq!(breaker.state(), CircuitState::HalfOpen);

    // A clock that does not know of it.
    #[expect(clippy::disallowed_methods, reason = "this is what goes wrong")]
    let began = std::time::Instant::now();
    sleep(HOUR).await;
    assert!(began.elapsed() < HOUR);
}

/// Real time that passes is none on a paused clock: a window does not slide and a break does not end.
#[tokio::test(start_paused = true)]
async fn real_time_moves_nothing() {
    let breaker = CircuitBreaker::builder().time_window(ms(10)).min_calls(2).open_for(ms(10)).build().unwrap();
    let began = Instant::now();
    _ = breaker.admit().unwrap().failure("down");
    std::thread::sleep(ms(20));
    assert_eq!(breaker.snapshot().calls, 1);
    _ = breaker.admit().unwrap().failure("down");
    std::thread::sleep(ms(20));
    assert!(breaker.state().is_open());
    assert_eq!(Instant::now(), began);
}
