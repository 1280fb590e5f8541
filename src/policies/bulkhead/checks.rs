//! The permits under every interleaving: see [`engine::checks`](crate::engine::checks) for the three ways to run this.
//!
//! tokio's semaphore has models of its own; here each of its methods is one step, and the steps between them are ours.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use super::{
    Bulkhead, Permit,
    permits::Permits,
    queue::{Place, queued},
};
use crate::engine::checks::{Arc, run, thread};

fn with_queue(limit: usize) -> Arc<Bulkhead> {
    Arc::new(Bulkhead::builder().limit(limit).queue(4).build().expect("these settings are valid"))
}

/// Waits for a permit without a runtime: looks `looks` times, then leaves the queue.
fn wait_a_little(bulkhead: &Bulkhead, looks: usize) -> Option<Permit<'_>> {
    let fair = bulkhead.shared.permits.fair()?;
    let _place = Place::take(bulkhead, fair)?;
    let mut wait = pin!(queued(bulkhead, fair));
    let mut task = Context::from_waker(Waker::noop());
    (0..looks).find_map(|_| match wait.as_mut().poll(&mut task) {
        Poll::Ready(permit) => permit.ok(),
        Poll::Pending => None,
    })
}

/// Nothing is in use any more: as many can be taken as the limit says, and not one more.
fn assert_whole(bulkhead: &Bulkhead, limit: usize) {
    assert_eq!((bulkhead.limit(), bulkhead.in_use()), (limit, 0));
    let all: Vec<_> = std::iter::from_fn(|| bulkhead.try_permit()).take(limit + 1).collect();
    assert_eq!(all.len(), limit);
}

#[test]
fn a_counter_neither_loses_a_permit_nor_gives_one_too_many() {
    run(|| {
        let permits = Arc::new(Permits::new(1, false));
        let take = |permits: &Permits| {
            let taken = permits.try_take();
            if taken {
                assert_eq!(permits.in_use(), 1);
                permits.give_back();
            }
            taken
        };
        let other = thread::spawn({
            let permits = Arc::clone(&permits);
            move || take(&permits)
        });
        let mine = take(&permits);
        let theirs = other.join().expect("nobody panics");
        assert!(mine || theirs, "one is refused only because the other has it");
        assert_eq!(permits.in_use(), 0);
    });
}

#[test]
fn a_limit_that_shrinks_while_a_permit_comes_back_takes_that_permit() {
    run(|| {
        let bulkhead = with_queue(2);
        let holder = thread::spawn({
            let bulkhead = Arc::clone(&bulkhead);
            move || drop(bulkhead.try_permit())
        });
        bulkhead.set_limit(1).expect("1 is a limit");
        holder.join().expect("nobody panics");
        assert_whole(&bulkhead, 1);
    });
}

#[test]
fn a_limit_that_shrinks_and_grows_again_leaves_all_permits() {
    run(|| {
        let bulkhead = with_queue(1);
        let holder = thread::spawn({
            let bulkhead = Arc::clone(&bulkhead);
            move || drop(bulkhead.try_permit())
        });
        bulkhead.set_limit(0).expect("0 is a limit");
        bulkhead.set_limit(2).expect("2 is a limit");
        holder.join().expect("nobody panics");
        assert_whole(&bulkhead, 2);
    });
}

#[test]
fn two_who_resize_at_once_leave_the_limit_of_the_last() {
    run(|| {
        let bulkhead = with_queue(2);
        let held = bulkhead.try_permit().expect("there are two");
        let other = thread::spawn({
            let bulkhead = Arc::clone(&bulkhead);
            move || bulkhead.set_limit(0).expect("0 is a limit")
        });
        bulkhead.set_limit(3).expect("3 is a limit");
        drop(held);
        other.join().expect("nobody panics");
        let limit = bulkhead.limit();
        assert!(limit == 0 || limit == 3);
        assert_whole(&bulkhead, limit);
    });
}

#[test]
fn a_waiter_that_leaves_while_the_limit_shrinks_takes_no_permit_along() {
    run(|| {
        let bulkhead = with_queue(1);
        let held = bulkhead.try_permit().expect("there is one");
        let waiter = thread::spawn({
            let bulkhead = Arc::clone(&bulkhead);
            move || drop(wait_a_little(&bulkhead, 1))
        });
        let holder = thread::spawn({
            let bulkhead = Arc::clone(&bulkhead);
            move || bulkhead.set_limit(0).expect("0 is a limit")
        });
        drop(held);
        waiter.join().expect("nobody panics");
        holder.join().expect("nobody panics");
        assert_whole(&bulkhead, 0);
        bulkhead.set_limit(2).expect("2 is a limit");
        assert_whole(&bulkhead, 2);
    });
}

/// Too long for all interleavings.
#[cfg(not(model_loom))]
#[test]
fn waiters_come_and_go_while_the_limit_changes_and_no_permit_is_lost() {
    run(|| {
        let bulkhead = with_queue(2);
        let callers = [1, 2, 3].map(|looks| {
            let bulkhead = Arc::clone(&bulkhead);
            thread::spawn(move || {
                for _ in 0..4 {
                    let permit = bulkhead.try_permit().or_else(|| wait_a_little(&bulkhead, looks));
                    assert!(bulkhead.queued() <= 4);
                    drop(permit);
                }
            })
        });
        for limit in [1, 3, 0, 2] {
            bulkhead.set_limit(limit).expect("a small number is a limit");
        }
        for caller in callers {
            caller.join().expect("nobody panics");
        }
        assert_whole(&bulkhead, 2);
    });
}
