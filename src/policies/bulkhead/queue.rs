//! The queue of a bulkhead: who waits, for how long, and how that ends.

use std::{
    pin::Pin,
    task::{self, Poll, Waker},
};

use pin_project_lite::pin_project;
use tokio::sync::{AcquireError, SemaphorePermit};

use super::{Bulkhead, Permit, Refusal, permits::Fair};
use crate::{
    call::Root,
    clock,
    context::{CallOptions, CallState, Context, Frame},
    engine::{moment::Moment, sync::Ordering},
    error::Phase,
    event::{EventKind, Telemetry, WaitEnd},
    timed::Timed,
};

impl Bulkhead {
    /// The same for who is no call.
    #[cold]
    pub(super) async fn wait_outside_of_calls(&self) -> Result<Permit<'_>, Refusal> {
        let state = CallState::new(CallOptions::new());
        let frame = Frame::root(&state, Telemetry::SILENT, CallOptions::new());
        Root::new(&state, self.wait(Context::new(&frame))).await
    }

    /// Waits in the queue.
    #[cold]
    pub(super) async fn wait(&self, cx: Context<'_>) -> Result<Permit<'_>, Refusal> {
        let fair = self.shared.permits.fair().ok_or(Refusal::Full)?;
        let place = Place::take(self, fair).ok_or(Refusal::Full)?;
        cx.enter(Phase::Queue);
        let (telemetry, started) = (cx.telemetry(), clock::now());
        let mut waited = Waited { bulkhead: self, telemetry, started, depth: place.depth, end: WaitEnd::Cancelled };
        let deadline = cx.deadline_moment();
        let until = started.after(self.shared.max_wait.get());
        let result = match Timed::new(cx, until.min(deadline), queued(self, fair)).await {
            // The time may have come to both at once.
            Ok(Ok(_permit)) if cx.is_late() => Err(Refusal::Late),
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(Refusal::Full),
            Err(_) if deadline <= until => Err(Refusal::Late),
            Err(_) => Err(Refusal::QueueTimeout),
        };
        waited.end = match &result {
            Ok(_) => WaitEnd::Admitted,
            Err(Refusal::Late) => WaitEnd::Deadline,
            Err(_) => WaitEnd::QueueTimeout,
        };
        result
    }
}

pin_project! {
    /// A wait for a permit. One that is dropped with a permit it does not know of yet returns it as any other is
    /// returned: the semaphore by itself would give it to the next who waits, whatever debt there is. (And so it does
    /// if it is dropped in a turn that has used up tokio's cooperative budget: then the next permit pays.)
    pub(super) struct Queued<'a, F: Future<Output = Result<SemaphorePermit<'a>, AcquireError>>> {
        bulkhead: &'a Bulkhead,
        #[pin]
        acquire: F,
        done: bool,
    }

    impl<'a, F: Future<Output = Result<SemaphorePermit<'a>, AcquireError>>> PinnedDrop for Queued<'a, F> {
        fn drop(this: Pin<&mut Self>) {
            if !this.done {
                drop(this.poll(&mut task::Context::from_waker(Waker::noop())));
            }
        }
    }
}

/// Waits for a permit, without limit.
pub(super) fn queued<'a>(
    bulkhead: &'a Bulkhead,
    fair: &'a Fair,
) -> Queued<'a, impl Future<Output = Result<SemaphorePermit<'a>, AcquireError>>> {
    Queued { bulkhead, acquire: fair.acquire(), done: false }
}

impl<'a, F: Future<Output = Result<SemaphorePermit<'a>, AcquireError>>> Future for Queued<'a, F> {
    type Output = Result<Permit<'a>, AcquireError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let poll = this.acquire.poll(cx);
        *this.done = poll.is_ready();
        poll.map_ok(|permit| {
            // From now on it is one of ours, which knows of debts.
            permit.forget();
            Permit { bulkhead: this.bulkhead }
        })
    }
}

/// A place in the queue, given up when it is dropped.
pub(super) struct Place<'a> {
    bulkhead: &'a Bulkhead,
    fair: &'a Fair,
    depth: usize,
}

impl<'a> Place<'a> {
    pub(super) fn take(bulkhead: &'a Bulkhead, fair: &'a Fair) -> Option<Self> {
        if bulkhead.limit() == 0 {
            return None;
        }
        // Relaxed: the number alone matters; the semaphore orders what is done with the permit.
        let more = |waiting: usize| (waiting < bulkhead.shared.queue.get()).then(|| waiting.saturating_add(1));
        let before = bulkhead.shared.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { bulkhead, fair, depth: before.saturating_add(1) })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.bulkhead.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        // A permit that was given at the very moment of leaving went back to the semaphore, past `Permit`.
        self.fair.settle_if_in_debt();
    }
}

/// Reports a wait when it is over, however it ends.
struct Waited<'a> {
    bulkhead: &'a Bulkhead,
    telemetry: &'a Telemetry,
    started: Moment,
    depth: usize,
    end: WaitEnd,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.telemetry.emit(Some(&self.bulkhead.shared.id), || EventKind::Waited {
            waited: clock::now().since(self.started),
            depth: self.depth,
            end: self.end,
        });
    }
}
