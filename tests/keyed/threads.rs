//! Real threads at once.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;
use withstand::{CircuitBreaker, ConfigError, Describe, Instance, Keyed, LayerInfo};

use super::random::Random;

const THREADS: usize = 8;

#[test]
fn of_many_who_come_first_one_makes_the_instance_and_all_get_it() {
    const KEYS: usize = 200;
    let made: Arc<[AtomicU32]> = (0..KEYS).map(|_| AtomicU32::new(0)).collect();
    let keyed: Keyed<usize, Serial> = Keyed::builder({
        let made = Arc::clone(&made);
        move |key: Option<&usize>| {
            // The others get as far as they can.
            (0..THREADS).for_each(|_| thread::yield_now());
            Ok(Serial(key.map_or(0, |&key| made[key].fetch_add(1, SeqCst))))
        }
    })
    .build()
    .unwrap();
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for key in 0..KEYS {
                    start.wait();
                    assert_eq!(keyed.get(&key).0, 0);
                }
            });
        }
    });
    assert!(made.iter().all(|made| made.load(SeqCst) == 1));
    assert_eq!(keyed.len(), KEYS);
}

struct Serial(u32);

impl Describe for Serial {
    fn describe(&self, _: &mut Vec<LayerInfo>) {}
}

const KEYS: usize = 40;
const CAPACITY: usize = 10;

/// Some keys have instances whose circuits open, others some that are removed.
const fn may_open(key: usize) -> bool {
    key % 2 == 0
}

/// An instance that knows whether it is the latest of its key.
struct Tracked {
    number: u32,
    breaker: CircuitBreaker,
    alive: Arc<AtomicU32>,
}

impl Describe for Tracked {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        self.breaker.describe(out);
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
    }
}

#[derive(Default)]
struct Key {
    /// The number of the instance that was made last.
    latest: AtomicU32,
    /// Whether somebody has opened its circuit, for longer than the test takes.
    opened: AtomicBool,
    calls: AtomicU32,
}

fn stays_open() -> Result<CircuitBreaker, ConfigError> {
    let hour = Duration::from_secs(3_600);
    let breaker = CircuitBreaker::builder().consecutive_failures(1).consecutive_span(Duration::ZERO);
    breaker.open_for(hour).max_open_for(hour).build()
}

/// Tenants come and go on all threads, far more of them than there is room for; now and then a circuit opens. Whoever holds
/// an instance holds the only one of its key, and no open circuit is ever lost.
#[test]
fn under_torture_a_key_has_one_instance_and_keeps_it_while_it_is_held_or_open() {
    let keys: Arc<[Key]> = (0..KEYS).map(|_| Key::default()).collect();
    let alive = Arc::new(AtomicU32::new(0));
    let keyed: Keyed<usize, Tracked> = Keyed::builder({
        let (keys, alive) = (Arc::clone(&keys), Arc::clone(&alive));
        move |key: Option<&usize>| {
            alive.fetch_add(1, SeqCst);
            let number = key.map_or(0, |&key| keys[key].latest.fetch_add(1, SeqCst) + 1);
            Ok(Tracked { number, breaker: stays_open()?, alive: Arc::clone(&alive) })
        }
    })
    .capacity(CAPACITY)
    .idle_after(Duration::from_nanos(1))
    .build()
    .unwrap();
    let seconds = std::env::var("WITHSTAND_TORTURE_SECONDS").map_or(1, |seconds| seconds.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let torture = |seed: u64| {
        let mut random = Random::new(seed);
        let mut held: Vec<Instance<usize, Tracked>> = Vec::new();
        let mut own = 0_u32;
        while Instant::now() < end {
            let key = usize::try_from(random.below(KEYS as u64)).unwrap();
            let known = &keys[key];
            match random.below(1_000) {
                0 => drop(keyed.sweep()),
                1 => drop(keyed.instances()),
                // To remove an open one is allowed, and would look like a loss.
                2 if !may_open(key) => drop(keyed.remove(&key)),
                3..100 => held.clear(),
                _ => {}
            }
            let instance = keyed.get(&key);
            if Instance::key(&instance).is_none() {
                continue;
            }
            own += 1;
            known.calls.fetch_add(1, SeqCst);
            assert_eq!(Instance::key(&instance), Some(&key));
            assert_eq!(instance.number, known.latest.load(SeqCst), "the only one");
            if may_open(key)
                && random.below(10_000) == 0
                && keys.iter().filter(|key| key.opened.load(SeqCst)).count() < CAPACITY / 2
            {
                if let Ok(ticket) = instance.breaker.admit() {
                    ticket.failure("down");
                    known.opened.store(true, SeqCst);
                }
            } else if known.opened.load(SeqCst) {
                assert!(instance.breaker.admit().is_err(), "it was open");
            }
            assert_eq!(instance.number, known.latest.load(SeqCst), "for as long as it is held");
            if held.len() < 3 && random.below(4) == 0 {
                held.push(instance);
            }
        }
        own
    };
    let own: u32 = thread::scope(|scope| {
        let torture = &torture;
        let threads: Vec<_> = (1..=4).map(|seed| scope.spawn(move || torture(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(own, keys.iter().map(|key| key.calls.load(SeqCst)).sum::<u32>());
    assert!(keyed.len() <= CAPACITY);
    assert_eq!(alive.load(SeqCst) as usize, keyed.len() + 1, "and the one that is shared");
    for (key, known) in (0..).zip(&*keys) {
        if known.opened.load(SeqCst) {
            assert!(keyed.peek(&key).is_some_and(|instance| instance.breaker.state().is_open()), "{key} was open");
        }
    }
    drop(keyed);
    assert_eq!(alive.load(SeqCst), 0);
}
