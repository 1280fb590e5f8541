//! Bulkhead: admission, the queue, permits, and a limit that changes while calls run.
#![cfg(test)]

mod admission;
mod conservation;
mod erlang;
mod queue;
#[path = "../support/random.rs"]
mod random;
mod resize;
#[path = "../support/mod.rs"]
mod support;

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use withstand::{Bulkhead, Permit};

/// Polls once, and gives what came of it.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a new future once. It must be pending: it waits, or runs.
fn begun<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(poll_once(future.as_mut()).is_pending(), "ready at once");
    future
}

/// A future's output, which must be there at once.
fn ready<F: Future>(future: F) -> F::Output {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not ready at once"),
    }
}

/// As many permits as there are, without waiting.
fn all_permits(bulkhead: &Bulkhead) -> Vec<Permit<'_>> {
    std::iter::from_fn(|| bulkhead.try_acquire().ok()).collect()
}
