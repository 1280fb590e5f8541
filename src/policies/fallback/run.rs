//! A call through a fallback: the attempt, and what answers in its place.

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
};

use pin_project_lite::pin_project;

use super::{Fallback, Substitute, Verdicts};
use crate::{
    ambient::{Ambient, Within},
    clock,
    context::Context,
    engine::moment::Moment,
    error::{Error, Phase, Rejection},
    event::{EventKind, FallbackEnd},
    outcome::{Outcome, Verdict},
    policy::{Operation, Policy},
    timed::{Late, Timed},
};

impl<T: Send, E: Send, S: Substitute<T, E>> Policy<T, E> for Fallback<S> {
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        let replace = move |outcome| self.replace(outcome, cx);
        Replaced { handles: self.handles, replace, stage: Stage::Runs { attempt: op.attempt(cx) } }
    }
}

pin_project! {
    /// Written by hand, because an outcome that leaves an async block is moved once more than needed.
    struct Replaced<Replace, F, R> {
        handles: Verdicts,
        replace: Replace,
        #[pin]
        stage: Stage<F, R>,
    }
}

pin_project! {
    #[project = Now]
    enum Stage<F, R> {
        Runs { #[pin] attempt: F },
        Replaces { #[pin] replacement: R },
    }
}

impl<T, E, Replace, F, R> Future for Replaced<Replace, F, R>
where
    Replace: Fn(Outcome<T, E>) -> R,
    F: Future<Output = Outcome<T, E>>,
    R: Future<Output = Outcome<T, E>>,
{
    type Output = Outcome<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let mut this = self.project();
        if let Now::Runs { attempt } = this.stage.as_mut().project() {
            let Poll::Ready(outcome) = attempt.poll(task) else { return Poll::Pending };
            if !this.handles.contains(outcome.kind()) {
                return Poll::Ready(outcome);
            }
            let replacement = (this.replace)(outcome.aside());
            this.stage.set(Stage::Replaces { replacement });
        }
        match this.stage.project() {
            Now::Replaces { replacement } => replacement.poll(task).map(Outcome::aside),
            Now::Runs { .. } => Poll::Pending,
        }
    }
}

impl<S> Fallback<S> {
    async fn replace<T, E>(&self, outcome: Outcome<T, E>, cx: Context<'_>) -> Outcome<T, E>
    where
        T: Send,
        E: Send,
        S: Substitute<T, E>,
    {
        let started = cx.moment();
        cx.enter(Phase::Fallback);
        let until = started.after(self.limit);
        // Calls in it are limited by its own time as well as by the call's.
        let ambient = cx.frame().ambient().narrowed(Ambient::deadline(until));
        let answer = Within { ambient, future: self.substitute.substitute(&outcome) };
        let answer = Timed::new(cx, until, answer).await;
        self.conclude(outcome, answer, started, cx)
    }

    #[cold]
    fn conclude<T, E>(
        &self,
        mut outcome: Outcome<T, E>,
        answer: Result<Option<Result<T, E>>, Late>,
        started: Moment,
        cx: Context<'_>,
    ) -> Outcome<T, E> {
        let original = outcome.kind();
        let reason = outcome.result.as_ref().err().and_then(Error::rejection).map(Rejection::reason);
        let end = match answer {
            Ok(Some(Ok(value))) => {
                outcome = Outcome::new(Ok(value), Verdict::ignored().label("fallback")).substituted();
                FallbackEnd::Ok
            }
            Ok(Some(Err(error))) => {
                outcome.result = Err(Error::Operation(error));
                FallbackEnd::Error
            }
            Ok(None) => FallbackEnd::Declined,
            Err(_late) => FallbackEnd::TimedOut,
        };
        cx.emit(&self.id, || EventKind::FellBack { original, reason, end, duration: clock::now().since(started) });
        outcome
    }
}
