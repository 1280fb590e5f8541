//! A call through a bulkhead: with a permit at once, or with one from the queue.

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
};

use pin_project_lite::pin_project;

use super::{Bulkhead, Permit, Refusal};
use crate::{
    context::Context,
    error::Reason,
    outcome::Outcome,
    policy::{Operation, Policy},
};

impl<T: Send, E: Send> Policy<T, E> for Bulkhead {
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        let (wait, make) = (Bulkhead::wait, |op: Op, cx| op.attempt(cx));
        let stage = Stage::Runs { attempt: make(op, cx) };
        Bounded { bulkhead: self, cx, op, wait, make, stage, permit: None, ended: false }
    }
}

pin_project! {
    /// Written by hand, because an outcome that leaves an async block is moved once more than needed.
    struct Bounded<'p, 'c, Op, Wait, Make, F, W> {
        bulkhead: &'p Bulkhead,
        cx: Context<'c>,
        op: Op,
        wait: Wait,
        make: Make,
        #[pin]
        stage: Stage<F, W>,
        // Given back when the attempt has ended, though that stands in its place until the layer is dropped. Outlives
        // one that is dropped before, whose resources are free before another one begins.
        permit: Option<Permit<'p>>,
        ended: bool,
    }
}

pin_project! {
    #[project = Now]
    enum Stage<F, W> {
        /// From the start: an attempt stands where it is made, and is not polled before there is a permit.
        Runs { #[pin] attempt: F },
        /// In the place of the attempt, which is made anew.
        Queued { #[pin] wait: W },
    }
}

impl<'p, 'c, T, E, Op, Wait, Make, F, W> Future for Bounded<'p, 'c, Op, Wait, Make, F, W>
where
    Op: Copy,
    Wait: Fn(&'p Bulkhead, Context<'c>) -> W,
    Make: Fn(Op, Context<'c>) -> F,
    W: Future<Output = Result<Permit<'p>, Refusal>>,
    F: Future<Output = Outcome<T, E>>,
{
    type Output = Outcome<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Pending;
        }
        if this.permit.is_none() && matches!(*this.stage, Stage::Runs { .. }) {
            *this.permit = this.bulkhead.try_permit();
            if this.permit.is_none() {
                if this.bulkhead.shared.queue.get() == 0 || this.cx.hedge() > 0 {
                    *this.ended = true;
                    return Poll::Ready(this.bulkhead.refuse(Reason::BulkheadFull, *this.cx));
                }
                this.stage.set(Stage::Queued { wait: (this.wait)(this.bulkhead, *this.cx) });
            }
        }
        if let Now::Queued { wait } = this.stage.as_mut().project() {
            match wait.poll(task) {
                Poll::Ready(Ok(permit)) => {
                    *this.permit = Some(permit);
                    this.stage.set(Stage::Runs { attempt: (this.make)(*this.op, *this.cx) });
                }
                Poll::Ready(Err(refusal)) => {
                    *this.ended = true;
                    return Poll::Ready(refusal.outcome(this.bulkhead, *this.cx));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let Now::Runs { attempt } = this.stage.as_mut().project() else { return Poll::Pending };
        let Poll::Ready(outcome) = attempt.poll(task) else { return Poll::Pending };
        *this.ended = true;
        match this.permit.take().and_then(Permit::count_out) {
            None => Poll::Ready(outcome),
            Some(permit) => Poll::Ready(outcome.put_aside(|| drop(permit))),
        }
    }
}
