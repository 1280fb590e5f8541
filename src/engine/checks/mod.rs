//! What must hold under every interleaving: one body for each structure that threads share, run in three ways. loom
//! (`--cfg model_loom`) tries all interleavings up to a number of preemptions; shuttle (`--cfg model_shuttle`) draws some
//! thousands at random, and so runs the longer bodies too; without either, plain threads run it some hundred times.

mod budget;
mod circuit;
mod quantile;
/// Too long for all interleavings.
#[cfg(not(model_loom))]
mod storms;

#[cfg(model_loom)]
pub(crate) use loom::{sync::Arc, thread};
#[cfg(model_shuttle)]
pub(crate) use shuttle::{sync::Arc, thread};
#[cfg(not(any(model_loom, model_shuttle)))]
pub(crate) use std::{sync::Arc, thread};

/// Runs a body that starts threads of its own, at most two or three, and asserts.
#[cfg(model_loom)]
pub(crate) fn run(body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    // Nearly every known race shows with two preemptions; the third costs minutes.
    model.preemption_bound = Some(2);
    model.check(body);
}

/// Runs a body that starts threads of its own, and asserts.
#[cfg(model_shuttle)]
pub(crate) fn run(body: impl Fn() + Send + Sync + 'static) {
    const SCHEDULES: usize = 5000;
    // Half of the schedules are uniformly random, half change their mind a few times only, which finds what needs one
    // thread to stand still for long.
    let body = std::sync::Arc::new(body);
    let same = std::sync::Arc::clone(&body);
    shuttle::check_random(move || same(), SCHEDULES);
    shuttle::check_pct(move || body(), SCHEDULES, 3);
}

/// Runs a body that starts threads of its own, at most two or three, and asserts.
#[cfg(not(any(model_loom, model_shuttle)))]
pub(crate) fn run(body: impl Fn() + Send + Sync + 'static) {
    for _ in 0..300 {
        body();
    }
}
