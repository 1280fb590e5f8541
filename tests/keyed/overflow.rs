//! What happens when nobody can go, and when an instance cannot be made.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::sleep;
use withstand::{CircuitBreaker, ConfigError, EventKind, Instance, Keyed, Level};

use super::{Counter, brittle, fail, keys, number, numbered, of};
use crate::support::{Log, ms, secs};

/// How often the log has an event of an overflow.
fn overflows(log: &Log) -> usize {
    log.count(|kind| matches!(kind, EventKind::Overflowed { capacity: 2, .. }))
}

#[tokio::test(start_paused = true)]
async fn when_all_are_busy_new_keys_share_one_instance_and_known_keys_keep_theirs() {
    let keyed = of(2);
    let held = [keyed.get(&1), keyed.get(&2)];
    let (third, fourth) = (keyed.get(&3), keyed.get(&4));
    assert_eq!((third.number, fourth.number), (0, 0));
    assert_eq!((Instance::key(&third), Instance::key(&held[0])), (None, Some(&1)));
    fail(&keyed, 3).await;
    assert!(keyed.get(&4).breaker.admit().is_err(), "they share their failures");
    assert!(keyed.get(&1).breaker.admit().is_ok(), "with nobody else");
    assert_eq!((keyed.get(&1).number, keyed.get(&2).number), (1, 2));
    assert_eq!(keys(&keyed), [1, 2]);
    drop(held);
    assert_eq!(keyed.get(&3).number, 3, "as soon as there is room a key gets its own");
    assert!(keyed.get(&3).breaker.admit().is_ok());
}

#[tokio::test(start_paused = true)]
async fn when_all_are_open_new_keys_share_one_instance() {
    let keyed = of(2);
    fail(&keyed, 1).await;
    fail(&keyed, 2).await;
    assert_eq!(keyed.get(&3).number, 0);
    assert_eq!((number(&keyed, 1), number(&keyed, 2)), (Some(1), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn an_overflow_is_told_once_for_a_run_of_them() {
    let log = Log::new();
    let keyed = numbered().name("tenants").capacity(2).observer(log.clone()).build().unwrap();
    let held = [keyed.get(&1), keyed.get(&2)];
    assert_eq!(overflows(&log), 0);
    for key in 3..1_000 {
        drop(keyed.get(&key));
        sleep(ms(5)).await;
    }
    assert_eq!(overflows(&log), 1);
    assert_eq!(log.all()[0].policy.as_deref(), Some("tenants"));
    assert_eq!(log.all()[0].kind.level(), Level::Warn);
    sleep(ms(1_000 - 5 - 1)).await;
    drop(keyed.get(&3));
    assert_eq!(overflows(&log), 1, "not yet a second");
    sleep(secs(1)).await;
    drop(keyed.get(&3));
    assert_eq!(overflows(&log), 2);
    drop(held);
    drop(keyed.get(&3));
    assert_eq!(overflows(&log), 2);
}

/// A key that holds the place of one, and a factory that fails for all but the overflow instance while it is told to.
fn failing(fails: &Arc<AtomicBool>, log: &Log) -> Keyed<u32, CircuitBreaker> {
    let fails = Arc::clone(fails);
    let factory = move |key: Option<&u32>| match key {
        Some(key) if fails.load(SeqCst) => Err(ConfigError::new("limit", key, "another")),
        _ => brittle(),
    };
    Keyed::builder(factory).capacity(2).observer(log.clone()).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_instance_cannot_be_made_shares_one_until_it_can() {
    let (fails, log) = (Arc::new(AtomicBool::new(true)), Log::new());
    let keyed = failing(&fails, &log);
    for _ in 0..10 {
        assert_eq!(Instance::key(&keyed.get(&7)), None);
    }
    let told = log.pick(|kind| match kind {
        EventKind::InstanceFailed { error, .. } => Some(error.to_string()),
        _ => None,
    });
    assert_eq!(told, ["limit is 7; accepted: another"]);
    assert_eq!(log.all()[0].kind.level(), Level::Error);
    assert!(keyed.is_empty());

    fails.store(false, SeqCst);
    assert_eq!(Instance::key(&keyed.get(&7)), Some(&7));
    // The place that was made for it was not lost.
    assert_eq!(Instance::key(&keyed.get(&8)), Some(&8));
    assert_eq!(keys(&keyed), [7, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_fails_or_panics_at_every_other_key_costs_no_room() {
    let turn = Counter::default();
    let keyed: Keyed<u32, CircuitBreaker> = Keyed::builder(move |_| match turn.add() % 3 {
        0 => brittle(),
        1 => Err(ConfigError::new("limit", 1, "another")),
        _ => panic!("in the factory"),
    })
    .capacity(5)
    .build()
    .unwrap();
    for key in 0..300 {
        let got = catch_unwind(AssertUnwindSafe(|| drop(keyed.get(&key))));
        assert_eq!(got.is_err(), key % 3 == 1, "{key}");
        sleep(ms(1)).await;
    }
    assert_eq!(keys(&keyed), [287, 290, 293, 296, 299]);
}

#[test]
fn a_factory_that_asks_for_an_instance_gets_what_there_is_and_waits_for_nobody() {
    static KEYED: OnceLock<Keyed<u32, CircuitBreaker>> = OnceLock::new();
    let keyed = Keyed::builder(|key: Option<&u32>| {
        if let (Some(keyed), Some(key)) = (KEYED.get(), key) {
            // As large as its neighbour's, and looks about.
            assert_eq!(Instance::key(&keyed.get(&1)).copied(), (*key > 1).then_some(1));
            assert_eq!(Instance::key(&keyed.get(key)), None);
            assert_eq!((keyed.sweep(), keyed.remove(&1).is_some()), (0, false));
        }
        brittle()
    });
    let keyed = KEYED.get_or_init(|| keyed.build().unwrap());
    drop(keyed.get(&1));
    drop(keyed.get(&2));
    assert_eq!(keys(keyed), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_ask_for_instances() {
    static KEYED: OnceLock<Keyed<u32, CircuitBreaker>> = OnceLock::new();
    let seen = Counter::default();
    let keyed = Keyed::builder(|_| brittle()).capacity(1).observer({
        let seen = seen.clone();
        move |_: &withstand::Event<'_>| {
            let keyed = KEYED.get().unwrap();
            drop((keyed.get(&5), keyed.remove(&5), keyed.instances()));
            seen.add();
        }
    });
    let keyed = KEYED.get_or_init(|| keyed.build().unwrap());
    let _held = keyed.get(&1);
    drop(keyed.get(&2));
    assert_eq!(seen.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_costs_nobody_an_instance() {
    let keyed: Keyed<u32, CircuitBreaker> = Keyed::builder(|_| brittle())
        .capacity(1)
        .idle_after(Duration::from_secs(1))
        .observer(|_: &withstand::Event<'_>| panic!("in the observer"))
        .build()
        .unwrap();
    let held = keyed.get(&1);
    assert_eq!(Instance::key(&keyed.get(&2)), None);
    drop(held);
    assert_eq!(Instance::key(&keyed.get(&2)), Some(&2));
}
