//! A limit that changes while calls run.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    task::{JoinSet, yield_now},
    time::Instant,
};
use withstand::{Bulkhead, EventKind, Pipeline, Reason};

use crate::{
    all_permits, begun, poll_once, ready,
    support::{Log, ms},
};

#[tokio::test(start_paused = true)]
async fn growing_admits_those_who_wait_in_their_order() {
    let bulkhead = Bulkhead::builder().limit(1).queue(10).max_wait(ms(100)).build().unwrap();
    let _held = bulkhead.try_acquire().unwrap();
    let mut waiting: Vec<_> = (0..5).map(|_| begun(bulkhead.acquire())).collect();
    bulkhead.set_limit(4).unwrap();
    // Asked in the opposite order: the permits are theirs already.
    let admitted: Vec<bool> = waiting.iter_mut().rev().map(|wait| poll_once(wait.as_mut()).is_ready()).collect();
    assert_eq!(admitted, [false, false, true, true, true]);
    assert_eq!(bulkhead.queued(), 2);
}

#[tokio::test(start_paused = true)]
async fn growing_wakes_whoever_it_admits() {
    let bulkhead = Bulkhead::builder().limit(0).queue(10).max_wait(ms(100)).build().unwrap();
    bulkhead.set_limit(1).unwrap();
    let _held = bulkhead.try_acquire().unwrap();
    let start = Instant::now();
    let (wait, ()) = tokio::join!(bulkhead.acquire(), async {
        tokio::time::sleep(ms(30)).await;
        bulkhead.set_limit(2).unwrap();
    });
    assert_eq!((wait.is_ok(), start.elapsed()), (true, ms(30)));
}

#[tokio::test(start_paused = true)]
async fn shrinking_interrupts_nobody_and_takes_permits_as_they_come_free() {
    let bulkhead = Bulkhead::builder().limit(4).queue(1).max_wait(ms(100)).build().unwrap();
    let mut held = all_permits(&bulkhead);
    let mut waiting = begun(bulkhead.acquire());
    bulkhead.set_limit(2).unwrap();
    assert_eq!((bulkhead.limit(), bulkhead.in_use()), (2, 4));
    held.pop();
    held.pop();
    assert_eq!(bulkhead.in_use(), 2);
    assert!(poll_once(waiting.as_mut()).is_pending(), "both permits are in use");
    held.pop();
    let _permit = ready(waiting).unwrap();
    assert_eq!(bulkhead.in_use(), 2);
    drop(held);
    assert_eq!(all_permits(&bulkhead).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_and_given_again_before_it_came_free_stays_one_permit() {
    let bulkhead = Bulkhead::builder().limit(3).build().unwrap();
    let held = all_permits(&bulkhead);
    for limit in [1, 3, 0, 2, 5, 3] {
        bulkhead.set_limit(limit).unwrap();
        let free = limit.saturating_sub(3);
        assert_eq!(all_permits(&bulkhead).len(), free, "{limit}");
        assert_eq!(bulkhead.in_use(), 3);
    }
    drop(held);
    assert_eq!(all_permits(&bulkhead).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn at_zero_newcomers_are_rejected_and_those_who_wait_may_still_be_lucky() {
    let bulkhead = Bulkhead::builder().limit(1).queue(5).max_wait(ms(100)).build().unwrap();
    let held = bulkhead.try_acquire().unwrap();
    let mut early = begun(bulkhead.acquire());
    bulkhead.set_limit(0).unwrap();
    assert_eq!(ready(bulkhead.acquire()).unwrap_err().reason(), Reason::BulkheadFull);
    drop(held);
    assert!(poll_once(early.as_mut()).is_pending());
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 1));
    bulkhead.set_limit(1).unwrap();
    drop(ready(early).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_permit_given_to_one_who_goes_away_pays_what_shrinking_took() {
    let bulkhead = Bulkhead::builder().limit(1).queue(5).max_wait(ms(100)).build().unwrap();
    let held = bulkhead.try_acquire().unwrap();
    let waiting = begun(bulkhead.acquire());
    let mut next = begun(bulkhead.acquire());
    drop(held);
    bulkhead.set_limit(0).unwrap();
    drop(waiting);
    assert!(poll_once(next.as_mut()).is_pending(), "the debt comes before whoever waits");
    drop(next);
    assert!(bulkhead.try_acquire().is_err(), "the limit is 0");
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 0));
}

#[test]
fn from_the_highest_limit_to_the_lowest_and_back_is_one_step() {
    let bulkhead = Bulkhead::builder().limit(Bulkhead::MAX_LIMIT).build().unwrap();
    let held = bulkhead.try_acquire().unwrap();
    for _ in 0..3 {
        bulkhead.set_limit(0).unwrap();
        assert_eq!(bulkhead.in_use(), 1);
        assert!(bulkhead.try_acquire().is_err());
        bulkhead.set_limit(Bulkhead::MAX_LIMIT).unwrap();
        assert_eq!(bulkhead.in_use(), 1);
    }
    bulkhead.set_limit(1).unwrap();
    assert!(bulkhead.try_acquire().is_err());
    drop(held);
    assert_eq!(all_permits(&bulkhead).len(), 1);
}

#[test]
fn a_limit_beyond_the_highest_is_refused_and_changes_nothing() {
    let bulkhead = Bulkhead::builder().name("wall").limit(2).build().unwrap();
    for nonsense in [Bulkhead::MAX_LIMIT + 1, usize::MAX] {
        let error = bulkhead.set_limit(nonsense).unwrap_err();
        assert_eq!((error.policy().unwrap().as_str(), error.field()), ("wall", "limit"));
    }
    assert_eq!((bulkhead.limit(), all_permits(&bulkhead).len()), (2, 2));
}

#[test]
fn every_pipeline_it_is_part_of_is_told_of_a_change() {
    let bulkhead = Arc::new(Bulkhead::builder().limit(2).build().unwrap());
    let pipeline = |name: &'static str, log: &Log| {
        Pipeline::builder(name).bulkhead(bulkhead.clone()).observer(log.clone()).build().unwrap()
    };
    let (reads, writes, gone) = (Log::new(), Log::new(), Log::new());
    let _kept = (pipeline("reads", &reads), pipeline("writes", &writes));
    drop(pipeline("gone", &gone));
    bulkhead.set_limit(2).unwrap();
    bulkhead.set_limit(5).unwrap();
    bulkhead.set_limit(1).unwrap();
    for log in [&reads, &writes] {
        let changes = log.pick(|kind| match kind {
            EventKind::LimitChanged { old, new, .. } => Some((old, new)),
            _ => None,
        });
        assert_eq!(changes, [(2, 5), (5, 1)]);
    }
    assert!(gone.all().is_empty());
}

/// Several threads change the limit while tasks take and return permits, wait, and go away while they wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_changes_ends_with_exactly_as_many_permits_as_the_limit() {
    const HIGHEST: usize = 6;
    for last in [0, 1, HIGHEST] {
        let wall = Bulkhead::builder().limit(3).queue(64).max_wait(Duration::from_secs(3600)).build().unwrap();
        let wall = Arc::new(wall);
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for caller in 0..16 {
            let (wall, running, peak) = (wall.clone(), running.clone(), peak.clone());
            callers.spawn(async move {
                for turn in 0..400 {
                    let call = wall.call(|| async {
                        peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        yield_now().await;
                        running.fetch_sub(1, Ordering::SeqCst);
                        Ok::<_, std::convert::Infallible>(())
                    });
                    if (caller + turn) % 3 == 0 {
                        // Goes away while it waits, or before it has run; if it runs already, it ends.
                        let leaves = async {
                            yield_now().await;
                            Err(())
                        };
                        let waits = wall.acquire();
                        tokio::select! { biased; _ = waits => {}, Err::<(), ()>(()) = leaves => {} }
                    } else {
                        let _rejected_at_zero = call.await;
                    }
                }
            });
        }
        let changers: Vec<_> = (0..3_usize)
            .map(|changer| {
                let wall = wall.clone();
                thread::spawn(move || {
                    for turn in 0..3000 {
                        wall.set_limit((turn * 5 + changer * 3) % (HIGHEST + 1)).unwrap();
                        thread::yield_now();
                    }
                    // Whoever waits must not wait for ever.
                    wall.set_limit(1).unwrap();
                })
            })
            .collect();
        for changer in changers {
            tokio::task::block_in_place(|| changer.join().unwrap());
        }
        callers.join_all().await;
        wall.set_limit(last).unwrap();
        assert_eq!((wall.in_use(), wall.queued()), (0, 0));
        assert_eq!(all_permits(&wall).len(), last);
        assert!(peak.load(Ordering::SeqCst) <= HIGHEST);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shrunken_limit_counts_calls_that_began_before() {
    let bulkhead = Bulkhead::builder().limit(2).build().unwrap();
    let hang = || pending::<Result<(), std::convert::Infallible>>();
    let first = begun(bulkhead.call(hang));
    let second = begun(bulkhead.call(hang));
    bulkhead.set_limit(1).unwrap();
    drop(first);
    assert!(ready(bulkhead.call(|| async { Ok::<_, ()>(()) })).is_err());
    drop(second);
    assert!(ready(bulkhead.call(|| async { Ok::<_, ()>(()) })).is_ok());
}

/// Without a queue the permits are a number; it is as exact as the semaphore.
#[test]
fn a_storm_without_a_queue_ends_with_all_permits_free() {
    const HIGHEST: usize = 4;
    let wall = Bulkhead::builder().limit(HIGHEST).build().unwrap();
    let (running, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if let Ok(_permit) = wall.try_acquire() {
                        peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        running.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
        scope.spawn(|| (0..20_000).for_each(|turn| wall.set_limit(turn % (HIGHEST + 1)).unwrap()));
    });
    assert!(peak.into_inner() <= HIGHEST);
    assert_eq!(wall.in_use(), 0);
    wall.set_limit(2).unwrap();
    let held = [wall.try_acquire().unwrap(), wall.try_acquire().unwrap()];
    assert!(wall.try_acquire().is_err());
    drop(held);
    assert_eq!(wall.in_use(), 0);
}
