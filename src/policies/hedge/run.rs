//! A call through a hedge: the first attempt alone for as long as it takes, and beside it those that begin when it is slow
//! or fails.

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use pin_project_lite::pin_project;

use super::{
    Hedge, Shared,
    race::{Next, Race, Sample},
};
use crate::{
    alarm::Alarm,
    budget::Token,
    context::{Context, Frame},
    event::HedgeTrigger,
    outcome::{Outcome, VerdictKind},
    policy::{Operation, Policy},
};

impl<T: Send, E: Send> Policy<T, E> for Hedge {
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        async move {
            let hedge = &*self.shared;
            let race_frame = Frame::new(cx);
            let cx = cx.within(&race_frame);
            let first_frame = Frame::new(cx);
            let first_cx = cx.within(&first_frame).with_hedge(cx.hedge());
            let mut beside = None;
            Raced {
                first: Some(op.attempt(first_cx)),
                first_sample: Sample::new(hedge, first_cx),
                cx,
                beside: &mut beside,
                begin: move |cx, index, token| hedge.attempt(op, cx, index, token),
                hedge,
            }
            .await
        }
    }
}

pin_project! {
    /// Written by hand, because an outcome that leaves an async block is moved once more than needed: the success of a
    /// first attempt that nothing runs beside goes out as it came.
    struct Raced<'b, 'a, T, E, F, Begin, H> {
        // Dropped when it has ended: what it holds is free while others run.
        #[pin]
        first: Option<F>,
        first_sample: Sample<'a>,
        cx: Context<'a>,
        // What is there only if the first attempt does not succeed at once. In a place of its own, as it is large: what is
        // awaited is moved before it is.
        beside: &'b mut Option<Beside<'a, T, E, H>>,
        begin: Begin,
        hedge: &'a Shared,
    }
}

/// A race: what runs beside the first attempt, or might yet.
struct Beside<'a, T, E, H> {
    race: Race<'a, T, E>,
    alarm: Alarm,
    /// Made when the first hedge begins: a call without one allocates nothing.
    hedges: Option<FuturesUnordered<H>>,
}

impl<'a, T, E, F, Begin, H> Future for Raced<'_, 'a, T, E, F, Begin, H>
where
    F: Future<Output = Outcome<T, E>>,
    Begin: Fn(Context<'a>, u32, Option<Token<'a>>) -> H,
    H: Future<Output = (u32, Outcome<T, E>)>,
{
    type Output = Outcome<T, E>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let this = self.as_mut().project();
        // Once in each turn of the task: an attempt that gives up its turn must not get it back at once.
        let Some(Poll::Ready(outcome)) = this.first.as_pin_mut().map(|attempt| attempt.poll(task)) else {
            return self.go_on(None, task).map(Outcome::aside);
        };
        if outcome.kind() == VerdictKind::Success {
            let outcome =
                if this.first_sample.is_idle() { outcome } else { outcome.put_aside(|| this.first_sample.succeed()) };
            let cx = &*this.cx;
            cx.state().won(cx.hedge());
            // What runs beside it, and what a policy of one's own inside may still hold.
            cx.frame().supersede();
            return Poll::Ready(this.hedge.settle(outcome, cx));
        }
        self.go_on(Some(outcome.aside()), task).map(Outcome::aside)
    }
}

impl<'a, T, E, F, Begin, H> Raced<'_, 'a, T, E, F, Begin, H>
where
    Begin: Fn(Context<'a>, u32, Option<Token<'a>>) -> H,
    H: Future<Output = (u32, Outcome<T, E>)>,
{
    /// The first attempt is pending, has just ended with this outcome, or is gone.
    #[cold]
    fn go_on(self: Pin<&mut Self>, ended: Option<Outcome<T, E>>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let mut this = self.project();
        let (hedge, cx) = (*this.hedge, *this.cx);
        let begins = this.beside.is_none();
        let make = || Beside { race: Race::new(hedge, cx), alarm: Alarm::default(), hedges: None };
        let Beside { race, alarm, hedges } = this.beside.get_or_insert_with(make);
        if begins {
            race.begin();
        }
        if let Some(outcome) = ended {
            this.first.set(None);
            this.first_sample.finish(&outcome);
            race.first_runs = false;
            race.end(cx.hedge(), outcome);
        } else if race.first_runs && this.first_sample.has_reached_operation() {
            race.first_reached_operation();
        }
        loop {
            if let Some(hedges) = hedges {
                // The first that wins has won, even if others end in the same poll.
                while race.winner.is_none() {
                    let Poll::Ready(Some((index, outcome))) = FuturesUnordered::poll_next_unpin(hedges, task) else {
                        break;
                    };
                    race.hedges_run = race.hedges_run.saturating_sub(1);
                    race.end(index, outcome);
                }
            }
            let (due, trigger) = match race.next() {
                Next::Done(outcome) => {
                    cx.frame().supersede();
                    return Poll::Ready(hedge.settle(outcome, &cx));
                }
                Next::Wait => return Poll::Pending,
                Next::Hedge { due, trigger } => (due, trigger),
            };
            if due > cx.moment() {
                let call = cx.state();
                if alarm.poll(&call.alarms, &call.reading, due, task).is_pending() {
                    return Poll::Pending;
                }
            }
            // A timer was set for that moment: nobody comes this much later but after a stall.
            if trigger != HedgeTrigger::Parallel && race.stalled(due) {
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some((index, token)) = race.start(trigger) {
                hedges.get_or_insert_with(FuturesUnordered::new).push((this.begin)(cx, index, token));
            }
        }
    }
}

impl Shared {
    /// A success pays into the budget.
    #[inline(always)]
    fn settle<T, E>(&self, outcome: Outcome<T, E>, cx: &Context<'_>) -> Outcome<T, E> {
        match &self.budget {
            Some(budget) => budget.fund(outcome, cx, &self.id),
            None => outcome,
        }
    }

    /// One hedge, from the token that it has paid to its outcome.
    async fn attempt<T, E, Op>(
        &self,
        op: Op,
        cx: Context<'_>,
        index: u32,
        token: Option<Token<'_>>,
    ) -> (u32, Outcome<T, E>)
    where
        T: Send,
        E: Send,
        Op: Operation<T, E>,
    {
        let frame = Frame::new(cx);
        let cx = cx.within(&frame).with_hedge(index);
        let token = token.map(|token| token.spend(&frame));
        let mut sample = Sample::new(self, cx);
        let outcome = op.attempt(cx).await;
        sample.finish(&outcome);
        if let Some(token) = token.filter(|_| outcome.kind() == VerdictKind::Rejected) {
            token.give_back();
        }
        (index, outcome)
    }
}
