//! Permits, queue and waits of a bulkhead.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
};

use tokio::time::Instant;
use withstand::{Bulkhead, BulkheadConfig, Pipeline, layers};

use super::{Tune, settings};
use crate::support::{ms, secs};

type Users = Pipeline<layers![Arc<Bulkhead>]>;
type Hanging<'a> = Pin<Box<dyn Future<Output = Result<(), withstand::Error<()>>> + Send + 'a>>;

fn users(limit: usize, queue: usize) -> (Users, Arc<Bulkhead>) {
    let bulkhead = Bulkhead::builder().limit(limit).queue(queue);
    let bulkhead = if queue > 0 { bulkhead.max_wait(secs(60)) } else { bulkhead };
    let bulkhead = Arc::new(bulkhead.build().unwrap());
    (Pipeline::builder("users").bulkhead(bulkhead.clone()).build().unwrap(), bulkhead)
}

/// A call that has begun, and hangs wherever it got to.
fn hang(users: &Users) -> Hanging<'_> {
    let mut call: Hanging<'_> = Box::pin(users.call(pending));
    poll(&mut call);
    call
}

fn poll(call: &mut Hanging<'_>) {
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

fn rejected(users: &Users) -> bool {
    let mut call: Hanging<'_> = Box::pin(users.call(pending));
    call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[tokio::test(start_paused = true)]
async fn growing_admits_those_who_wait_at_once_and_in_their_order() {
    let (users, bulkhead) = users(1, 10);
    let mut calls: Vec<_> = (0..5).map(|_| hang(&users)).collect();
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (1, 4));
    assert_eq!(users.handle().tuned(settings!(BulkheadConfig { limit: 3 })), ["bulkhead: limit 1 -> 3"]);
    calls.iter_mut().for_each(poll);
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (3, 2));
    calls.drain(3..).for_each(drop);
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (3, 0), "the first two who waited have them");
}

#[tokio::test(start_paused = true)]
async fn shrinking_interrupts_nobody_and_takes_permits_back_as_they_come_free() {
    for queue in [0, 10] {
        let (users, bulkhead) = users(4, queue);
        let mut calls: Vec<_> = (0..4).map(|_| hang(&users)).collect();
        users.handle().tuned(settings!(BulkheadConfig { limit: 2 }));
        assert_eq!(bulkhead.in_use(), 4);
        calls.iter_mut().for_each(poll);
        drop(calls.drain(..2));
        assert_eq!((bulkhead.in_use(), bulkhead.limit()), (2, 2));
        assert!(bulkhead.try_acquire().is_err(), "the two that came free are gone");
        drop(calls);
        assert_eq!(bulkhead.in_use(), 0);
        let held: Vec<_> = (0..2).map(|_| bulkhead.try_acquire().unwrap()).collect();
        assert!(bulkhead.try_acquire().is_err());
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_queue_turns_nobody_out_and_lets_fewer_in() {
    let (users, bulkhead) = users(1, 3);
    let calls: Vec<_> = (0..4).map(|_| hang(&users)).collect();
    assert!(rejected(&users));
    assert_eq!(users.handle().tuned(settings!(BulkheadConfig { queue: 1 })), ["bulkhead: queue 3 -> 1"]);
    assert_eq!(bulkhead.queued(), 3);
    assert!(rejected(&users));
    users.handle().tuned(settings!(BulkheadConfig { queue: 4 }));
    assert!(!rejected(&users));
    drop(calls);
}

#[tokio::test(start_paused = true)]
async fn calls_that_begin_to_wait_later_wait_as_long_as_is_said_by_then() {
    let (users, bulkhead) = users(1, 3);
    let _held = bulkhead.try_acquire().unwrap();
    let begin = Instant::now();
    assert_eq!(
        users.handle().tuned(settings!(BulkheadConfig { max_wait: ms(200) })),
        ["bulkhead: max_wait 60s -> 200ms"]
    );
    let error = users.call(pending::<Result<(), ()>>).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().reason(), withstand::Reason::QueueTimeout);
    assert_eq!(begin.elapsed(), ms(200));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_settings_do_not_mention_stays_as_it_was_set_by_hand() {
    let (users, bulkhead) = users(4, 2);
    bulkhead.set_limit(7).unwrap();
    users.handle().tuned(settings!(BulkheadConfig { queue: 3 }));
    assert_eq!(bulkhead.limit(), 7);
    assert_eq!(users.handle().tuned(settings!(BulkheadConfig { limit: 4 })), ["bulkhead: limit 7 -> 4"]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_turns_newcomers_away_and_serves_who_waits_when_it_grows_again() {
    let (users, bulkhead) = users(1, 3);
    let mut calls: Vec<_> = (0..2).map(|_| hang(&users)).collect();
    users.handle().tuned(settings!(BulkheadConfig { limit: 0 }));
    assert!(rejected(&users));
    drop(calls.remove(0));
    poll(&mut calls[0]);
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 1));
    users.handle().tuned(settings!(BulkheadConfig { limit: 1 }));
    poll(&mut calls[0]);
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (1, 0));
}
