//! Thousands of tasks on real threads, that are dropped, aborted and panic while limits change: all is counted.
//!
//! The only test with the real clock that takes long. `WITHSTAND_TORTURE_SECONDS` makes it longer, and
//! `WITHSTAND_TORTURE_SEED` is the seed to begin with: threads do not repeat themselves, but what is asked of them does.
#![cfg(test)]

#[path = "../support/heap.rs"]
mod heap;
#[path = "../support/random.rs"]
mod random;
mod record;
mod world;

use std::{
    collections::BTreeMap,
    env,
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    pin::pin,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Poll,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{JoinHandle, JoinSet},
    time::{Duration, Instant, sleep, timeout},
};

use heap::bytes_in_use;
use random::Random;
use record::{CALL, End, OUTCOMES, Op, Record, TOLD_TO};
use world::{KINDS, LIMIT, MOST, MOST_AT_ONCE, WAYS, World, ms};

/// One test at a time: all share the threads and the heap.
static ALONE: Mutex<()> = Mutex::new(());

fn from_env<N: FromStr>(name: &str, default: impl FnOnce() -> N) -> N {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or_else(default)
}

/// Shown if the test fails.
fn seed() -> u64 {
    let seed = from_env("WITHSTAND_TORTURE_SEED", || RandomState::new().hash_one(()));
    eprintln!("WITHSTAND_TORTURE_SEED={seed}");
    seed
}

fn threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap()
}

/// All calls so far.
#[derive(Debug, Default)]
struct Totals {
    calls: u64,
    completed: u64,
    dropped: u64,
    panicked: u64,
    puzzled: u64,
    repeats: u64,
    successes: u64,
    outcomes: BTreeMap<&'static str, u64>,
}

impl Totals {
    fn add(&mut self, record: &Record, end: End) {
        let outcome = record.check(end, MOST_AT_ONCE);
        let made = record.made();
        self.calls += 1;
        self.completed += made.completed;
        self.dropped += made.dropped;
        self.panicked += made.panicked;
        self.puzzled += record.puzzled();
        self.repeats += made.begun.saturating_sub(1);
        self.successes += record.successes();
        *self.outcomes.entry(outcome.map_or("never polled", |outcome| outcome.as_str())).or_default() += 1;
    }
}

/// Polls a call to its end, or drops it after some time, or after some polls.
async fn call(world: &World, record: &Record, way: u64, mut random: Random) -> End {
    let op = Op { record, beside: world.beside(way), seed: random.next(), hangs: false };
    let (manner, millis, mut polls) = (random.below(4), random.below(5), random.below(4));
    let mut call = pin!(world.call(way, op, &mut random));
    match manner {
        0 => timeout(ms(millis), call).await.map_or(End::Dropped, |_| End::Returned),
        1 => {
            poll_fn(|task| {
                if polls == 0 {
                    return Poll::Ready(End::Dropped);
                }
                polls -= 1;
                call.as_mut().poll(task).map(|_| End::Returned)
            })
            .await
        }
        _ => {
            drop(call.await);
            End::Returned
        }
    }
}

/// Makes a call in a task of its own, and aborts some of them.
async fn task(world: Arc<World>, totals: Arc<Mutex<Totals>>, mut random: Random) {
    sleep(ms(random.below(100))).await;
    let record = Arc::new(Record::default());
    let (way, aborts, after) = (random.below(WAYS), random.below(5) == 0, random.below(4));
    let (its_world, its_record) = (world.clone(), record.clone());
    let future = CALL.scope(record.clone(), async move { call(&its_world, &its_record, way, random).await });
    let running = Handle::current().spawn(future);
    if aborts {
        sleep(ms(after)).await;
        running.abort();
    }
    let end = end_of(running).await;
    totals.lock().unwrap().add(&record, end);
}

/// How the task of a call ended.
async fn end_of(running: JoinHandle<End>) -> End {
    match running.await {
        Ok(end) => end,
        Err(aborted) if aborted.is_cancelled() => End::Dropped,
        Err(panicked) => {
            assert_eq!(panicked.into_panic().downcast_ref(), Some(&TOLD_TO));
            End::Panicked
        }
    }
}

/// So many calls within a tenth of a second, and two tasks that change limits and states meanwhile.
async fn round(world: &Arc<World>, totals: &Arc<Mutex<Totals>>, calls: u64, seed: u64) {
    let over = Arc::new(AtomicBool::new(false));
    let mut disturbers = JoinSet::new();
    for number in 0..2 {
        let (world, over, mut random) = (world.clone(), over.clone(), Random::new(seed ^ number));
        disturbers.spawn(async move {
            while !over.load(SeqCst) {
                world.disturb(&mut random).await;
            }
        });
    }
    let mut tasks = JoinSet::new();
    for number in 0..calls {
        let random = Random::new(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9)));
        tasks.spawn(task(world.clone(), totals.clone(), random));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    over.store(true, SeqCst);
    while let Some(ended) = disturbers.join_next().await {
        ended.unwrap();
    }
}

/// Whether all that can happen has, and at full load, so that nothing is proved by nothing.
fn has_seen_everything(world: &World, totals: &Totals) -> bool {
    let often = [totals.completed, totals.dropped, totals.panicked, totals.puzzled, totals.repeats]
        .iter()
        .all(|number| *number > 100);
    let all_ends = OUTCOMES.iter().all(|outcome| totals.outcomes.contains_key(outcome));
    let all_kinds = world.happened.lock().unwrap().len() == KINDS;
    often && all_ends && all_kinds && world.under_queued.most() >= MOST as u64 / 2
}

#[test]
fn under_torture_everything_is_conserved() {
    const CALLS: u64 = 2_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut seed = seed();
    let world = Arc::new(World::new(ms(8)));
    let totals = Arc::new(Mutex::new(Totals::default()));
    let time = Duration::from_secs_f64(from_env("WITHSTAND_TORTURE_SECONDS", || 1.2));
    let (mut rounds, mut warm, began) = (0, 0, Instant::now());
    // On a busy machine more is refused: then it takes longer for all of it to happen.
    while rounds < 3 || began.elapsed() < time || !has_seen_everything(&world, &totals.lock().unwrap()) {
        assert!(began.elapsed() < time + Duration::from_secs(60), "{:?}: {:?}", totals.lock(), world.happened);
        let runtime = threads();
        let round = round(&world, &totals, CALLS, seed);
        let ended = runtime.block_on(async { timeout(Duration::from_secs(30), round).await });
        ended.expect("a call hangs");
        drop(runtime);
        {
            let totals = totals.lock().unwrap();
            world.check_at_rest(totals.repeats, totals.successes);
        }
        rounds += 1;
        seed = Random::new(seed).next();
        // The first rounds fill what is filled once. From then on they come back to the same number; that a call in a
        // thousand left a few bytes behind would be seen.
        let bytes = bytes_in_use();
        if rounds == 2 {
            warm = bytes;
        } else if rounds > 2 {
            assert!(bytes <= warm + 256, "{bytes} bytes in use after round {rounds}, {warm} after the second");
        }
    }

    assert_eq!(totals.lock().unwrap().calls, rounds * CALLS);
}

/// Drops a runtime while calls run and wait for permits.
fn shuts_down_in_mid_flight(shut_down: fn(Runtime)) {
    const CALLS: u64 = 300;
    let world = Arc::new(World::new(Duration::from_secs(4)));
    let (runtime, mut random) = (threads(), Random::new(seed()));
    let calls: Vec<_> = (0..CALLS)
        .map(|number| {
            let (way, seed, record) = (number % WAYS, random.next(), Arc::new(Record::default()));
            let (its_world, its_record) = (world.clone(), record.clone());
            let call = CALL.scope(record.clone(), async move {
                let op = Op { record: &its_record, beside: its_world.beside(way), seed, hangs: true };
                drop(its_world.call(way, op, &mut Random::new(seed)).await);
                End::Returned
            });
            (record, runtime.spawn(call))
        })
        .collect();
    let began = Instant::now();
    while !world.is_full() {
        assert!(began.elapsed() < Duration::from_secs(10), "nothing gets stuck");
        std::thread::sleep(ms(1));
    }
    shut_down(runtime);
    // In the background it may take a moment.
    while Arc::strong_count(&world) > 1 {
        assert!(began.elapsed() < Duration::from_secs(20), "calls outlive their runtime");
        std::thread::sleep(ms(1));
    }

    let mut totals = Totals::default();
    Builder::new_current_thread().build().unwrap().block_on(async {
        for (record, running) in calls {
            totals.add(&record, end_of(running).await);
        }
    });
    assert!(totals.outcomes["cancelled"] > 2 * LIMIT as u64, "most were under way: {totals:?}");
    world.check_at_rest(totals.repeats, totals.successes);
}

#[test]
fn calls_that_are_pending_when_their_runtime_is_dropped_hold_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    shuts_down_in_mid_flight(drop);
    shuts_down_in_mid_flight(Runtime::shutdown_background);
    shuts_down_in_mid_flight(|runtime| runtime.shutdown_timeout(Duration::ZERO));
}
