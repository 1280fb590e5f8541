//! A call through a circuit breaker: admitted, watched, judged.

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
};

use pin_project_lite::pin_project;

use super::CircuitBreaker;
use crate::{
    clock,
    context::Context,
    engine::{
        circuit::{Change, Refusal, Ticket, Trip},
        moment::{Hint, Moment},
    },
    error::{Reason, Rejection},
    event::EventKind,
    layer::{LayerInfo, Live},
    outcome::{Outcome, VerdictKind},
    policy::{Describe, Operation, Policy, Site},
    timed::STALL,
};

impl<T: Send, E: Send> Policy<T, E> for CircuitBreaker {
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        let make = |op: Op, cx| op.attempt(cx);
        Watched { op, make, attempt: Some(make(op, cx)), admitted: Admitted::not_yet(self, cx), ended: false }
    }
}

impl CircuitBreaker {
    #[inline(always)]
    fn refuse<T, E>(&self, refusal: Refusal, cx: Context<'_>) -> Outcome<T, E> {
        cx.emit(&self.shared.id, || EventKind::rejected(&self.rejection(refusal), cx));
        Outcome::rejected(self.rejection(refusal))
    }

    #[inline(always)]
    pub(super) fn rejection(&self, refusal: Refusal) -> Rejection {
        let (reason, retry_after) = match refusal {
            Refusal::Open { retry_after } => (Reason::CircuitOpen, retry_after),
            Refusal::HalfOpen { retry_after } => (Reason::CircuitHalfOpen, retry_after),
            Refusal::Isolated => (Reason::Isolated, Hint::NONE),
        };
        Rejection::new(self.shared.id.name.clone(), reason).with_hint(retry_after)
    }
}

pin_project! {
    /// The attempt inside, under the eyes of its admission: written by hand, because an outcome that leaves an async
    /// block is moved once more than needed.
    struct Watched<'p, 'c, Op, Make, F> {
        op: Op,
        make: Make,
        #[pin]
        attempt: Option<F>,
        // Outlives the attempt: what that held is free by the time that the circuit changes.
        admitted: Admitted<'p, 'c>,
        ended: bool,
    }
}

impl<'c, T, E, Op, Make, F> Future for Watched<'_, 'c, Op, Make, F>
where
    Op: Copy,
    Make: Fn(Op, Context<'c>) -> F,
    F: Future<Output = Outcome<T, E>>,
{
    type Output = Outcome<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Pending;
        }
        if this.admitted.ticket.is_none() {
            match this.admitted.admit() {
                Ok(Admission::Usual) => {}
                // Made anew: the first one does not know that it is a probe.
                Ok(Admission::Probe) => this.attempt.set(Some((this.make)(*this.op, this.admitted.cx))),
                Err(refusal) => {
                    *this.ended = true;
                    return Poll::Ready(this.admitted.breaker.refuse(refusal, this.admitted.cx));
                }
            }
        }
        let Some(attempt) = this.attempt.as_mut().as_pin_mut() else { return Poll::Pending };
        this.admitted.polling = true;
        let poll = attempt.poll(task);
        this.admitted.polling = false;
        let Poll::Ready(outcome) = poll else { return Poll::Pending };
        *this.ended = true;
        if outcome.kind() == VerdictKind::Success && this.admitted.succeeds_unnoticed() {
            return Poll::Ready(outcome);
        }
        let (kind, label, stalled) = (outcome.kind(), outcome.label(), outcome.is_stalled());
        Poll::Ready(outcome.put_aside(|| {
            let left = match kind {
                VerdictKind::Success => this.admitted.count_success(),
                _ => Some(Left::Judgement),
            };
            if let Some(left) = left {
                this.attempt.set(None);
                this.admitted.conclude(left, kind, label, stalled);
            }
        }))
    }
}

enum Admission {
    Usual,
    Probe,
}

/// What is left to do about an outcome once the attempt is gone: a circuit changes, and tells so, only after that.
enum Left {
    Trip(Trip),
    Judgement,
}

/// An admission, from the ticket to the verdict. It outlives the attempt: what that held is free by the time that the
/// circuit changes. Only a success that opens and closes nothing is counted before.
struct Admitted<'p, 'c> {
    breaker: &'p CircuitBreaker,
    /// None before the admission, and once the result is recorded.
    ticket: Option<Ticket<'p>>,
    cx: Context<'c>,
    /// The attempts that had reached the operation before this one.
    started: u32,
    /// Set while the attempt is polled: still set in a `Drop` that runs because the attempt panicked.
    polling: bool,
}

impl<'p, 'c> Admitted<'p, 'c> {
    #[inline]
    fn not_yet(breaker: &'p CircuitBreaker, cx: Context<'c>) -> Self {
        Self { breaker, ticket: None, cx, started: 0, polling: false }
    }

    #[inline(always)]
    fn admit(&mut self) -> Result<Admission, Refusal> {
        let admission = match self.breaker.shared.circuit.admit_if_closed() {
            Some(ticket) => {
                self.ticket = Some(ticket);
                Admission::Usual
            }
            None => self.admit_unless_closed()?,
        };
        if self.breaker.shared.slow_call.get().is_some() {
            self.cx.watch_starts();
        }
        self.started = self.cx.frame().attempts_started();
        Ok(admission)
    }

    #[cold]
    fn admit_unless_closed(&mut self) -> Result<Admission, Refusal> {
        let (shared, cx) = (&self.breaker.shared, self.cx);
        let mut changes = Vec::new();
        let admission = shared.circuit.admit(|| cx.moment(), cx.hedge() == 0, &mut changes);
        shared.announce(&changes, |event| cx.emit(&shared.id, || event));
        let ticket = admission?;
        let probes = ticket.is_probe();
        if probes {
            self.cx = cx.as_probe();
            // Wakes subscribers, whose wakers may panic: the ticket goes back by itself then, and nothing is recorded.
            shared.sent(&ticket);
        }
        self.ticket = Some(ticket);
        Ok(if probes { Admission::Probe } else { Admission::Usual })
    }

    /// Most successes open and close nothing: those are counted at once, and nobody need wait for the attempt to be gone.
    /// Ends without anything that could unwind where a success is nothing new.
    #[inline(always)]
    #[expect(clippy::mem_forget, reason = "only a probe has something to give back")]
    fn succeeds_unnoticed(&mut self) -> bool {
        let unnoticed = self.breaker.shared.slow_call.get().is_none()
            && self.ticket.as_ref().is_some_and(Ticket::success_changes_nothing);
        if unnoticed {
            std::mem::forget(self.ticket.take());
        }
        unnoticed
    }

    #[inline(always)]
    fn count_success(&mut self) -> Option<Left> {
        let slow = self.is_slow(|| self.cx.moment());
        match &self.ticket {
            Some(ticket) if !ticket.is_probe() => match ticket.count_success(slow, || self.cx.moment()) {
                None => {
                    self.ticket = None;
                    None
                }
                Some(trip) => Some(Left::Trip(trip)),
            },
            _ => Some(Left::Judgement),
        }
    }

    fn conclude(&mut self, left: Left, kind: VerdictKind, label: &'static str, stalled: bool) {
        let Some(ticket) = self.ticket.take() else { return };
        if let Left::Trip(trip) = left {
            return self.record(|changes| ticket.trip(&trip, changes));
        }
        let cx = self.cx;
        match kind {
            // A probe's: all others are counted by `count_success`.
            VerdictKind::Success => {
                let slow = self.is_slow(|| cx.moment());
                self.record(|changes| ticket.success(slow, || cx.moment(), changes));
            }
            VerdictKind::Transient | VerdictKind::Unreached | VerdictKind::Failure if !stalled => {
                let slow = self.is_slow(|| cx.moment());
                self.record(|changes| ticket.failure(slow, label, || cx.moment(), changes));
            }
            _says_nothing => self.record(|changes| ticket.abandon(|| cx.moment(), changes)),
        }
    }

    #[inline(always)]
    fn record<R>(&self, record: impl FnOnce(&mut Vec<Change>) -> R) {
        let mut changes = Vec::new();
        // A stale result changes nothing; its caller has it all the same.
        record(&mut changes);
        let shared = &self.breaker.shared;
        shared.announce(&changes, |event| self.cx.emit(&shared.id, || event));
    }

    #[inline(always)]
    fn is_slow(&self, now: impl FnOnce() -> Moment) -> bool {
        let Some(slow_call) = self.breaker.shared.slow_call.get() else { return false };
        let running = self.has_reached_operation();
        running && self.cx.frame().last_start().is_some_and(|started| now().since(started) >= slow_call)
    }

    fn has_reached_operation(&self) -> bool {
        self.cx.frame().attempts_started() != self.started
    }
}

impl<'p> Admitted<'p, '_> {
    /// Dropped before it completed: by a timeout, by its caller, or because it panicked.
    #[cold]
    fn abandon(&self, ticket: Ticket<'p>) {
        let now = clock::now();
        let deadline = self.cx.deadline_so_far();
        if !self.has_reached_operation() {
            self.record(|changes| ticket.abandon(|| now, changes));
        } else if self.polling && self.cx.state().operation_panicked() {
            self.record(|changes| ticket.failure(false, "panic", || now, changes));
        } else if now >= deadline && now.since(deadline) <= STALL {
            self.record(|changes| ticket.failure(self.is_slow(|| now), "timeout", || now, changes));
        } else if now < deadline && self.is_slow(|| now) {
            self.record(|changes| ticket.given_up_slow(|| now, changes));
        } else {
            // Much later than at the deadline means that this process stood still.
            self.record(|changes| ticket.abandon(|| now, changes));
        }
    }
}

impl Drop for Admitted<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.abandon(ticket);
        }
    }
}

impl Describe for CircuitBreaker {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.push(self.shared.info().live(self.shared.clone()));
    }

    /// A lease that was not asked for is longer than a call through any of the pipelines can take.
    fn attach(&self, site: &Site<'_>) {
        self.shared.listeners.add(site.telemetry);
        self.shared.follow(site.longest_inside());
    }
}
