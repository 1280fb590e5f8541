//! Who waits gets his turn, and does nothing meanwhile.

use std::{
    cell::Cell,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{sleep, timeout},
};
use withstand::{Backoff, Bulkhead, CircuitBreaker, Hedge, Jitter, Pipeline, Retry, Timeout};

use crate::support::{ms, secs};

/// A permit of which there is one.
trait Permits: Sync {
    fn acquire(&self) -> impl Future<Output = impl Drop>;
}

impl Permits for Bulkhead {
    async fn acquire(&self) -> impl Drop {
        Self::acquire(self).await.unwrap()
    }
}

/// As it is often written: whoever comes while it is free takes it, whoever waits or not.
#[derive(Default)]
struct Naive {
    taken: AtomicBool,
    freed: Notify,
}

struct NaivePermit<'a>(&'a Naive);

impl Drop for NaivePermit<'_> {
    fn drop(&mut self) {
        self.0.taken.store(false, SeqCst);
        self.0.freed.notify_one();
    }
}

impl Permits for Naive {
    async fn acquire(&self) -> impl Drop {
        while self.taken.swap(true, SeqCst) {
            self.freed.notified().await;
        }
        NaivePermit(self)
    }
}

/// How many of a hundred turns a polite caller gets, beside three that ask again as soon as they are done.
async fn turns_of_the_polite(permits: impl Permits) -> u32 {
    let (turns, polite) = (AtomicU32::new(0), AtomicU32::new(0));
    let takes_turns = async |count: &AtomicU32, pauses: bool| {
        while turns.load(SeqCst) < 100 {
            let permit = permits.acquire().await;
            turns.fetch_add(1, SeqCst);
            count.fetch_add(1, SeqCst);
            yield_now().await;
            drop(permit);
            if pauses {
                yield_now().await;
            }
        }
    };
    let greedy = AtomicU32::new(0);
    let all = async {
        tokio::join!(
            takes_turns(&greedy, false),
            takes_turns(&greedy, false),
            takes_turns(&greedy, false),
            takes_turns(&polite, true),
        )
    };
    // The naive one never gets to the end of those who wait.
    drop(timeout(secs(1), all).await);
    polite.load(SeqCst)
}

#[tokio::test(start_paused = true)]
async fn greedy_callers_do_not_starve_a_polite_one() {
    let ours = Bulkhead::builder().limit(1).queue(10).max_wait(secs(1)).build().unwrap();
    let polite = turns_of_the_polite(ours).await;
    assert!((24..=26).contains(&polite), "{polite} of 100 turns, among four");
    let polite = turns_of_the_polite(Naive::default()).await;
    assert!(polite <= 2, "{polite} of 100 turns");
}

/// How often a future that waits is polled while other tasks have a thousand turns, and a thousand timers fire.
async fn polls_while_waiting<F: Future>(future: F) -> u32 {
    let (mut future, polls) = (pin!(future), Cell::new(0));
    let counted = poll_fn(|task| {
        polls.set(polls.get() + 1);
        future.as_mut().poll(task).map(|_| ())
    });
    let others = async {
        for _ in 0..1_000 {
            yield_now().await;
        }
        // A paused clock stands still while anyone is busy.
        for _ in 0..if polls.get() < 100 { 1_000 } else { 0 } {
            sleep(ms(1)).await;
        }
    };
    // Each is woken by itself, as in a task of its own.
    let mut tasks = FuturesUnordered::<Pin<Box<dyn Future<Output = ()> + '_>>>::new();
    tasks.push(Box::pin(counted));
    tasks.push(Box::pin(others));
    tasks.next().await;
    drop(tasks);
    polls.get()
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_not_polled_while_nothing_happens() {
    let hang = pending::<Result<u32, &str>>;
    let fails = || async { Err::<u32, _>("down") };

    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(secs(100)).build().unwrap());
    let permit = bulkhead.acquire().await;
    assert!(polls_while_waiting(bulkhead.acquire()).await <= 2, "in a queue");
    let queued = Pipeline::builder("queued").timeout(secs(200)).bulkhead(bulkhead.clone()).build().unwrap();
    assert!(polls_while_waiting(queued.call(hang)).await <= 2, "in the queue of a pipeline");
    drop(permit);

    let backoff = Backoff::constant(secs(100)).cap(secs(100)).jitter(Jitter::None);
    let retry = Retry::builder().backoff(backoff).build().unwrap();
    assert!(polls_while_waiting(retry.call(fails)).await <= 2, "between attempts");
    assert!(polls_while_waiting(Timeout::new(secs(100)).unwrap().call(hang)).await <= 2, "in an attempt");
    let hedge = Hedge::builder().delay(ms(10)).max_hedges(3).without_budget().build().unwrap();
    assert!(polls_while_waiting(hedge.call(hang)).await <= 5, "in a race of four");
    let mut changes = CircuitBreaker::builder().build().unwrap().subscribe();
    assert!(polls_while_waiting(changes.changed()).await <= 2, "for a change of state");
    let stack = Pipeline::standard_hedged("stack").build().unwrap();
    assert!(polls_while_waiting(stack.call(hang)).await <= 5, "in a whole stack, whose attempts take a second");

    let busy = async {
        loop {
            yield_now().await;
        }
    };
    assert!(polls_while_waiting(busy).await >= 1_000, "such a one is noticed");
}
