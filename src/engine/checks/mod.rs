//! What must hold under every interleaving: one body per lock-free engine, run by loom (`--cfg model_loom`), which
//! tries them all up to a number of preemptions, and without the cfg by plain threads, some hundred times.

mod budget;
mod circuit;
mod quantile;

#[cfg(model_loom)]
pub(crate) use loom::{sync::Arc, thread};
#[cfg(not(model_loom))]
pub(crate) use std::{sync::Arc, thread};

/// Runs a body that starts threads of its own, at most two or three, and asserts.
#[cfg(model_loom)]
pub(crate) fn run(body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    // Nearly every known race shows with two preemptions; the third costs minutes.
    model.preemption_bound = Some(2);
    model.check(body);
}

/// Runs a body that starts threads of its own, at most two or three, and asserts.
#[cfg(not(model_loom))]
pub(crate) fn run(body: impl Fn() + Send + Sync + 'static) {
    for _ in 0..300 {
        body();
    }
}
