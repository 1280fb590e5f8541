//! Faults on purpose: how many, which, and what the other layers make of them.
#![cfg(test)]
#![cfg(feature = "chaos")]

#[path = "../support/mod.rs"]
mod support;

mod cancellation;
mod explained;
mod faults;
mod keys;
mod rates;
mod settings;

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use support::{Log, ms};
use withstand::{Chaos, EventKind, Fault, InjectError, Pipeline, Policy, Verdict};

/// An error that no operation here gives.
const OURS: Verdict = Verdict::unreached();

/// The plainest chaos with all that attempts can end in, each at this rate.
type Plain = Chaos<InjectError<fn() -> Verdict>>;

fn ours() -> Verdict {
    OURS
}

/// Faults of every kind but an outcome.
fn plain(latency: f64, error: f64, hang: f64, panic: f64) -> withstand::ChaosBuilder<InjectError<fn() -> Verdict>> {
    let make: fn() -> Verdict = ours;
    Chaos::builder().latency(latency, ms(50)).error(error, make).hang(hang).panic(panic)
}

/// Counts its calls, and succeeds.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Counted {
    fn call(&self) -> impl Future<Output = Result<u32, Verdict>> + Send + use<> {
        self.0.fetch_add(1, SeqCst);
        std::future::ready(Ok(7))
    }

    fn calls(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// What becomes of so many attempts, one after the other, each with a limit of its own: the faults of each.
async fn fates(chaos: impl Policy<u32, Verdict>, attempts: usize) -> Vec<Vec<Fault>> {
    let log = Log::new();
    let pipeline =
        Pipeline::builder("fates").timeout(support::secs(1)).layer(chaos).observer(log.clone()).build().unwrap();
    let mut fates = Vec::new();
    for _ in 0..attempts {
        log.clear();
        drop(support::caught(pipeline.call(|| async { Ok(7) })).await);
        fates.push(injected(&log));
    }
    fates
}

fn injected(log: &Log) -> Vec<Fault> {
    log.pick(|kind| match kind {
        EventKind::ChaosInjected { fault, .. } => Some(fault),
        _ => None,
    })
}

/// Panics that are injected say nothing here: there are thousands.
fn silently() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().downcast_ref::<&str>().is_some_and(|message| message.starts_with("chaos: ")) {
                usual(info);
            }
        }));
    });
}
