//! A call through a retry: one attempt after the other.

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{Retry, Shared, spread};
use crate::{
    budget::Token,
    call::yield_once,
    context::{Context, Idempotency},
    engine::moment::{Hint, Moment},
    error::{Error, Phase, Reason},
    event::{EventKind, RetryStop},
    outcome::{Outcome, VerdictKind},
    policy::{Operation, Policy},
    timed::wait_until,
};

impl<T: Send, E: Send> Policy<T, E> for Retry {
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        let go_on = move |series, next| Series::go_on(series, op, next);
        let first = op.attempt(cx.with_attempt(cx.attempt()));
        Repeated { retry: &self.shared, cx, go_on, started: Moment::NEVER, stage: Stage::First { attempt: first } }
    }
}

pin_project! {
    /// Written by hand, because an outcome that leaves an async block is moved once more than needed: the first attempt
    /// stands where it is made, and its success goes out as it came.
    struct Repeated<'p, 'c, GoOn, F, Rest> {
        retry: &'p Shared,
        cx: Context<'c>,
        go_on: GoOn,
        // When the first attempt began; kept only if something depends on it.
        started: Moment,
        #[pin]
        stage: Stage<F, Rest>,
    }
}

pin_project! {
    #[project = Now]
    enum Stage<F, Rest> {
        First { #[pin] attempt: F },
        /// The attempts after the first, which did not succeed.
        Rest { #[pin] rest: Rest },
        Over,
    }
}

impl<'p, 'c, T, E, GoOn, F, Rest> Future for Repeated<'p, 'c, GoOn, F, Rest>
where
    GoOn: Fn(Series<'p, 'c, T, E>, Option<Moment>) -> Rest,
    F: Future<Output = Outcome<T, E>>,
    Rest: Future<Output = Outcome<T, E>>,
{
    type Output = Outcome<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let mut this = self.project();
        if let Now::First { attempt } = this.stage.as_mut().project() {
            if this.retry.max_elapsed.get().is_some() && *this.started == Moment::NEVER {
                *this.started = this.cx.moment();
            }
            let Poll::Ready(outcome) = attempt.poll(task) else { return Poll::Pending };
            if outcome.kind() == VerdictKind::Success {
                return Poll::Ready(this.retry.succeed(outcome, this.cx));
            }
            let outcome = outcome.put_aside(|| this.stage.set(Stage::Over));
            let mut series = Series::new(this.retry, *this.cx, *this.started);
            match series.judge(outcome) {
                Judgement::Done(outcome) => return Poll::Ready(outcome),
                Judgement::Again { next } => this.stage.set(Stage::Rest { rest: (this.go_on)(series, next) }),
            }
        }
        match this.stage.project() {
            Now::Rest { rest } => rest.poll(task).map(Outcome::aside),
            Now::First { .. } | Now::Over => Poll::Pending,
        }
    }
}

impl Shared {
    /// A success pays into the budget.
    #[inline(always)]
    fn succeed<T, E>(&self, success: Outcome<T, E>, cx: &Context<'_>) -> Outcome<T, E> {
        match &self.budget {
            Some(budget) => budget.fund(success, cx, &self.id),
            None => success,
        }
    }
}

/// The attempts of one call.
struct Series<'p, 'c, T, E> {
    retry: &'p Shared,
    cx: Context<'c>,
    /// When the first attempt began; kept only if something depends on it.
    started: Moment,
    attempts: u32,
    delay: Hint,
    /// What the repeat that is under way has paid.
    token: Option<Token<'p>>,
    /// The attempts that had reached the operation when it was paid.
    reached: u32,
    /// The last outcome that was not a rejection: what is returned if all that follows is refused.
    real: Option<Outcome<T, E>>,
}

enum Judgement<T, E> {
    Done(Outcome<T, E>),
    /// Attempt again at this moment, or at once.
    Again {
        next: Option<Moment>,
    },
}

impl<'p, 'c, T, E> Series<'p, 'c, T, E> {
    fn new(retry: &'p Shared, cx: Context<'c>, started: Moment) -> Self {
        Self { retry, cx, started, attempts: 1, delay: None.into(), token: None, reached: 0, real: None }
    }

    /// What comes after the first attempt.
    fn go_on<Op>(mut self, op: Op, mut next: Option<Moment>) -> impl Future<Output = Outcome<T, E>> + Send
    where
        T: Send,
        E: Send,
        Op: Operation<T, E>,
    {
        async move {
            loop {
                match next {
                    Some(next) => wait_until(self.cx, next).await,
                    // A delay of zero still lets others run: attempts that fail at once must not starve the thread.
                    None => yield_once().await,
                }
                // In a scope of its own: an outcome that outlived it would take room during the waits.
                next = {
                    let outcome = op.attempt(self.next_attempt()).await;
                    if outcome.kind() == VerdictKind::Success {
                        return self.retry.succeed(outcome, &self.cx);
                    }
                    match self.judge(outcome) {
                        Judgement::Done(outcome) => return outcome,
                        Judgement::Again { next } => next,
                    }
                };
            }
        }
    }

    fn next_attempt(&mut self) -> Context<'c> {
        let number = self.cx.attempt().saturating_add(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        self.cx.with_attempt(number)
    }

    #[cold]
    fn judge(&mut self, outcome: Outcome<T, E>) -> Judgement<T, E> {
        if outcome.kind() == VerdictKind::Rejected {
            // The dependency was not called after all: the token goes back.
            self.token = None;
        } else {
            self.settle();
        }
        let is_repeatable = self.is_repeatable(&outcome);
        if outcome.kind() == VerdictKind::Rejected && !(is_repeatable && self.retries_rejection(&outcome)) {
            return Judgement::Done(self.refused(outcome));
        }
        if !is_repeatable {
            return Judgement::Done(outcome);
        }
        match self.next(&outcome) {
            Ok(next) => {
                if outcome.kind() != VerdictKind::Rejected {
                    self.real = Some(outcome);
                }
                Judgement::Again { next }
            }
            Err(why) => Judgement::Done(self.stop(outcome, why)),
        }
    }

    fn retries_rejection(&self, outcome: &Outcome<T, E>) -> bool {
        let isolated = matches!(&outcome.result, Err(Error::Rejected(r)) if r.reason() == Reason::Isolated);
        self.retry.repeat_rejected && !isolated
    }

    fn is_repeatable(&self, outcome: &Outcome<T, E>) -> bool {
        let repeatable = matches!(
            outcome.kind(),
            VerdictKind::Transient | VerdictKind::Unreached | VerdictKind::Throttled | VerdictKind::Rejected
        );
        repeatable && (self.retry.repeat_spent || !outcome.is_spent())
    }

    /// A rejection that is not repeated: the last real outcome instead, if there is one.
    fn refused(&mut self, rejection: Outcome<T, E>) -> Outcome<T, E> {
        match self.real.take() {
            None => rejection,
            Some(real) => {
                let hint = rejection.verdict().hint().or(real.verdict().hint());
                self.stop(real.hinted(hint), RetryStop::Rejected)
            }
        }
    }

    fn stop(&mut self, outcome: Outcome<T, E>, why: RetryStop) -> Outcome<T, E> {
        let attempts = self.attempts;
        self.cx.emit(&self.retry.id, || EventKind::RetryStopped { why, attempts });
        match self.real.take() {
            Some(real) if outcome.kind() == VerdictKind::Rejected => {
                let hint = outcome.verdict().hint().or(real.verdict().hint());
                real.hinted(hint).spent()
            }
            _ => outcome.spent(),
        }
    }

    /// When to attempt again, or why not.
    fn next(&mut self, outcome: &Outcome<T, E>) -> Result<Option<Moment>, RetryStop> {
        let (retry, cx) = (self.retry, self.cx);
        let unsafe_to_repeat = outcome.kind() == VerdictKind::Transient && cx.idempotency() == Idempotency::Unsafe;
        if unsafe_to_repeat || cx.is_used_up() {
            return Err(RetryStop::NotIdempotent);
        }
        if self.attempts >= retry.max_attempts.get() {
            return Err(RetryStop::Attempts);
        }
        let hint = outcome.verdict().hint();
        let computed =
            retry.backoff.get().delay(self.attempts, self.delay.get(), hint, &retry.rng).ok_or(RetryStop::Backoff)?;
        let obeyed = hint.unwrap_or_default().min(retry.max_hint.get());
        let delay = computed.max(obeyed).saturating_add(retry.rng.range(Duration::ZERO, spread(obeyed)));
        let now = cx.moment();
        let next = now.after(delay);
        let deadline = cx.deadline_moment();
        if deadline != Moment::NEVER && next.after(retry.min_time_left.get()) > deadline {
            return Err(RetryStop::Deadline);
        }
        if retry.max_elapsed.get().is_some_and(|most| next.since(self.started) > most) {
            return Err(RetryStop::Elapsed);
        }
        if let Some(budget) = &retry.budget {
            self.token = Some(budget.withdraw(cx, &retry.id).ok_or(RetryStop::Budget)?);
            self.reached = cx.frame().attempts_started();
        }
        self.delay = Some(computed).into();
        let next_attempt = cx.attempt().saturating_add(self.attempts);
        let clamped = hint.is_some_and(|hint| hint > retry.max_hint.get());
        cx.emit(&retry.id, || EventKind::Retried { next_attempt, delay, hint, clamped });
        if delay.is_zero() {
            return Ok(None);
        }
        cx.enter(Phase::Backoff);
        Ok(Some(next))
    }
}

impl<T, E> Series<'_, '_, T, E> {
    /// What the repeat has paid stays paid if it has reached the operation; if not, it goes back.
    fn settle(&mut self) {
        if let Some(token) = self.token.take() {
            token.settle(self.cx.frame().attempts_started() != self.reached);
        }
    }
}

impl<T, E> Drop for Series<'_, '_, T, E> {
    #[inline]
    fn drop(&mut self) {
        self.settle();
    }
}
