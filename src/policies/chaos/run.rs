//! An attempt through a chaos: left alone, held back, or replaced.

use std::{
    future::{Future, pending},
    panic::panic_any,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{Chaos, Inject};
use crate::{
    call::Forwarded,
    context::Context,
    event::{EventKind, Fault, PolicyId},
    outcome::Outcome,
    policy::{Operation, Policy},
    timed::wait_until,
};

/// What an injected panic says.
const PANIC: &str = "chaos: a panic that was injected on purpose";

impl<T, E, A, B> Policy<T, E> for Chaos<A, B>
where
    T: Send,
    E: Send,
    A: Inject<T, E>,
    B: Inject<T, E>,
{
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        if self.dial.is_on() {
            Disturbed::Wild { attempt: self.disturb(op, cx) }
        } else {
            Disturbed::Calm { attempt: op.attempt(cx) }
        }
    }
}

pin_project! {
    /// Written by hand, so that while it is off the attempt stands where it is made and its outcome goes out as it came.
    #[project = Now]
    enum Disturbed<F, D> {
        Calm { #[pin] attempt: F },
        Wild { #[pin] attempt: D },
    }
}

impl<T, E, F, D> Future for Disturbed<F, D>
where
    F: Future<Output = Outcome<T, E>>,
    D: Future<Output = Outcome<T, E>>,
{
    type Output = Outcome<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        match self.project() {
            Now::Calm { attempt } => attempt.poll(task),
            Now::Wild { attempt } => attempt.poll(task),
        }
    }
}

/// What becomes of an attempt.
#[derive(Clone, Copy)]
struct Fate {
    latency: Option<Duration>,
    /// What takes the place of the operation, if anything does.
    ending: Option<Fault>,
}

/// The faults that end an attempt, in the order in which they share a draw.
const ENDINGS: [Fault; 4] = [Fault::Error, Fault::Outcome, Fault::Hang, Fault::Panic];

impl<A, B> Chaos<A, B> {
    /// One draw for each attempt, whatever the rates: they change nothing about what becomes of the attempts after it.
    fn draw(&self) -> Fate {
        let [end, late, how_late] = self.dial.draw();
        let mut reached = 0.0;
        let ending = ENDINGS.into_iter().find(|fault| {
            reached += self.dial.rate(*fault);
            end < reached
        });
        let is_late = late < self.dial.rate(Fault::Latency);
        let latency = self.board.latency.as_ref().filter(|_| is_late).map(|range| {
            let span = range.end().saturating_sub(*range.start());
            range.start().saturating_add(span.mul_f64(how_late))
        });
        Fate { latency, ending }
    }

    /// Nothing is drawn before the first poll: an attempt may be made, dropped and made anew.
    fn disturb<T, E, Op>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send
    where
        T: Send,
        E: Send,
        A: Inject<T, E>,
        B: Inject<T, E>,
        Op: Operation<T, E>,
    {
        async move {
            let Fate { latency, ending } = self.draw();
            let Some(ending) = ending else {
                let outcome = op.attempt(cx).await;
                hold_back(self.id(), latency, cx).await;
                return outcome;
            };
            // As an operation of its own: it is counted and reported, its panic is told from one of ours, and a timeout
            // that ends it is no rejection.
            let instead = Forwarded { make: |_: Context<'_>| self.instead(ending, latency, cx) };
            (&instead).attempt(cx).await
        }
    }

    #[expect(clippy::panic, reason = "the fault that was asked for")]
    async fn instead<T, E>(&self, ending: Fault, latency: Option<Duration>, cx: Context<'_>) -> Outcome<T, E>
    where
        A: Inject<T, E>,
        B: Inject<T, E>,
    {
        hold_back(self.id(), latency, cx).await;
        tell(self.id(), ending, None, cx);
        let outcome = match ending {
            Fault::Error => self.faults.error.inject(),
            Fault::Outcome => self.faults.outcome.inject(),
            Fault::Panic => panic_any(PANIC),
            Fault::Hang | Fault::Latency => None,
        };
        match outcome {
            Some(outcome) => {
                let label = outcome.verdict().label("chaos");
                outcome.reclassified(label)
            }
            // A hang. (An error and an outcome have a rate only where there is something to inject.)
            None => pending().await,
        }
    }
}

async fn hold_back(id: &PolicyId, latency: Option<Duration>, cx: Context<'_>) {
    if let Some(latency) = latency {
        tell(id, Fault::Latency, Some(latency), cx);
        wait_until(cx, cx.moment().after(latency)).await;
    }
}

fn tell(id: &PolicyId, fault: Fault, latency: Option<Duration>, cx: Context<'_>) {
    let (attempt, hedge) = (cx.attempt(), cx.hedge());
    cx.emit(id, || EventKind::ChaosInjected { fault, latency, attempt, hedge });
}
