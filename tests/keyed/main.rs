//! Keyed policies: one instance for each key, who stays and who goes, and what is shared when there is no room.
#![cfg(test)]

mod alone;
mod instances;
mod model;
mod nested;
mod overflow;
#[path = "../support/random.rs"]
mod random;
mod room;
#[path = "../support/mod.rs"]
mod support;
mod threads;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use withstand::{CircuitBreaker, ConfigError, Describe, Instance, Keyed, KeyedBuilder, LayerInfo};

use support::{ms, secs};

/// A circuit breaker with a number, which says which of all that were made it is.
struct Numbered {
    number: u32,
    breaker: CircuitBreaker,
}

impl Describe for Numbered {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        self.breaker.describe(out);
    }
}

/// The break of [`numbered`] breakers.
const BREAK: Duration = secs(5);

/// Opens with the first failure, and closes with the first success after its break.
fn brittle() -> Result<CircuitBreaker, ConfigError> {
    CircuitBreaker::builder()
        .consecutive_failures(1)
        .consecutive_span(Duration::ZERO)
        .open_for(BREAK)
        .growth(1.0)
        .probes(1)
        .build()
}

/// Numbers its instances in the order in which they are made; 0 is the overflow instance.
fn numbered() -> KeyedBuilder<u32, Numbered> {
    let made = AtomicU32::new(0);
    Keyed::builder(move |_| Ok(Numbered { number: made.fetch_add(1, SeqCst), breaker: brittle()? }))
}

fn of(capacity: usize) -> Keyed<u32, Numbered> {
    numbered().capacity(capacity).build().unwrap()
}

/// The number of the key's instance, if it has one.
fn number(keyed: &Keyed<u32, Numbered>, key: u32) -> Option<u32> {
    keyed.peek(&key).map(|instance| instance.number)
}

/// The keys that have an instance, in their order.
fn keys<P: Describe>(keyed: &Keyed<u32, P>) -> Vec<u32> {
    let mut keys: Vec<_> = keyed.instances().iter().filter_map(|instance| Instance::key(instance).copied()).collect();
    keys.sort_unstable();
    keys
}

/// One call for the key, which fails. A millisecond passes, so that it is seen which call was last.
async fn fail(keyed: &Keyed<u32, Numbered>, key: u32) {
    keyed.get(&key).breaker.call(|| async { Err::<(), _>("down") }).await.unwrap_err();
    tokio::time::sleep(ms(1)).await;
}

/// One call for each key, each a millisecond after the one before.
async fn touch(keyed: &Keyed<u32, Numbered>, keys: impl IntoIterator<Item = u32>) {
    for key in keys {
        drop(keyed.get(&key));
        tokio::time::sleep(ms(1)).await;
    }
}

fn paused<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// Counts. Its clones count together.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU32>);

impl Counter {
    fn add(&self) -> u32 {
        self.0.fetch_add(1, SeqCst)
    }

    fn get(&self) -> u32 {
        self.0.load(SeqCst)
    }
}
