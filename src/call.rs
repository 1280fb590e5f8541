//! From a public call to the layers and back: the innermost operation, and what surrounds the outermost layer.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Mutex, PoisonError},
    task::{self, Poll},
    time::Duration,
};

use pin_project::pin_project;

use crate::{
    clock,
    context::{Attempt, CallOptions, CallState, Context, Frame, deadline_of},
    engine::moment::Moment,
    error::{Error, Reason, Rejection},
    event::{AttemptEnd, CallOutcome, EventKind, Telemetry},
    name::Name,
    outcome::{Classify, Outcome, VerdictKind},
    policy::{Operation, Policy},
    timed::Timed,
};

/// Runs an operation under a policy as one public call, and takes of the outcome what its caller wants.
//
// Not an `async fn`, here and wherever a call passes: those store their arguments twice.
pub(crate) fn drive<'a, P, Op, T, E, R>(
    telemetry: &'a Telemetry,
    policy: &'a P,
    operation: Op,
    take: impl Fn(Outcome<T, E>) -> R + Send,
) -> impl Future<Output = R> + Send
where
    P: Policy<T, E>,
    Op: Send + Sync,
    for<'o> &'o Op: Operation<T, E>,
    T: Send,
    E: Send,
{
    let root = Frame::root(telemetry, Moment::NEVER, Duration::ZERO);
    async move {
        let state = CallState::new(&CallOptions::new());
        let mut report = CallReport::begin(&state, &root);
        let attempts = policy.run(&operation, Context::new(&state, &root));
        let outcome = EachPoll { state: &state, inner: attempts }.await;
        report.finish(&outcome);
        take(outcome)
    }
}

/// The same with the caller's options. A future of its own, because only a deadline of the caller needs a timer here.
pub(crate) fn drive_with<'a, P, Op, T, E, R>(
    telemetry: &'a Telemetry,
    options: CallOptions,
    policy: &'a P,
    operation: Op,
    take: impl Fn(Outcome<T, E>) -> R + Send,
) -> impl Future<Output = R> + Send
where
    P: Policy<T, E>,
    Op: Send + Sync,
    for<'o> &'o Op: Operation<T, E>,
    T: Send,
    E: Send,
{
    async move {
        let state = CallState::new(&options);
        let (deadline, left) = deadline_of(&options, &state.reading);
        let root = Frame::root(telemetry, deadline, left);
        let cx = Context::new(&state, &root);
        let mut report = CallReport::begin(&state, &root);
        let outcome = if cx.is_late() {
            Outcome::refused_as_late(cx, None)
        } else {
            let timed = Timed::new(deadline, policy.run(&operation, cx));
            match (EachPoll { state: &state, inner: timed }).await {
                Ok(outcome) => outcome,
                Err(late) => late.outcome(cx, &root, None),
            }
        };
        report.finish(&outcome);
        take(outcome)
    }
}

/// What most callers want of an outcome.
pub(crate) fn result<T, E>(outcome: Outcome<T, E>) -> Result<T, Error<E>> {
    outcome.result
}

/// Voids, at the start of each poll, what the call knew about the present.
#[pin_project]
struct EachPoll<'a, F> {
    state: &'a CallState,
    #[pin]
    inner: F,
}

impl<F: Future> Future for EachPoll<'_, F> {
    type Output = F::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.state.poll_begins();
        let poll = this.inner.poll(cx);
        this.state.poll_ends();
        poll
    }
}

/// Reports the call's end, whichever it is: the one `CallFinished` of each call. Idle without an observer.
struct CallReport<'a> {
    state: &'a CallState,
    root: &'a Frame<'a>,
    /// [`Moment::NEVER`] if nobody listens, or once the end is reported.
    started: Moment,
}

impl<'a> CallReport<'a> {
    #[inline(always)]
    fn begin(state: &'a CallState, root: &'a Frame<'a>) -> Self {
        let mut report = Self { state, root, started: Moment::NEVER };
        if root.telemetry().observer.is_some() {
            let cx = Context::new(state, root);
            report.started = cx.moment();
            root.telemetry().emit(None, || EventKind::CallStarted {
                deadline_left: cx.remaining(),
                idempotency: cx.idempotency(),
                priority: cx.priority(),
            });
        }
        report
    }

    #[inline(always)]
    fn finish<T, E>(&mut self, outcome: &Outcome<T, E>) {
        if self.started != Moment::NEVER {
            let started = std::mem::replace(&mut self.started, Moment::NEVER);
            let reason = outcome.result.as_ref().err().and_then(Error::rejection).map(Rejection::reason);
            let ok = Some(outcome.result.is_ok());
            self.emit(started, CallOutcome::of(outcome), ok, reason, outcome.label(), outcome.is_spent());
        }
    }

    #[cold]
    fn emit(
        &self,
        started: Moment,
        outcome: CallOutcome,
        ok: Option<bool>,
        reason: Option<Reason>,
        label: &'static str,
        spent: bool,
    ) {
        let state = self.state;
        self.root.telemetry().emit(None, || EventKind::CallFinished {
            outcome,
            ok,
            reason,
            label,
            spent,
            attempts: state.attempts(),
            hedges: state.hedges(),
            winner: state.winner(),
            duration: clock::now().since(started),
        });
    }
}

impl CallReport<'_> {
    #[cold]
    fn unfinished(&self) {
        let panicked = self.state.panicked();
        let outcome = if panicked { CallOutcome::Panicked } else { CallOutcome::Cancelled };
        self.emit(self.started, outcome, None, None, outcome.as_str(), false);
    }
}

impl Drop for CallReport<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.started != Moment::NEVER {
            self.unfinished();
        }
    }
}

impl CallOutcome {
    fn of<T, E>(outcome: &Outcome<T, E>) -> Self {
        match (&outcome.result, outcome.kind()) {
            _ if outcome.is_substitute() => Self::Fallback,
            (Err(Error::Timeout(_)), _) => Self::Timeout,
            (Err(Error::Rejected(_)), _) | (_, VerdictKind::Rejected) => Self::Rejected,
            (_, VerdictKind::Success) => Self::Success,
            (_, VerdictKind::Transient | VerdictKind::Unreached) => Self::Transient,
            (_, VerdictKind::Throttled) => Self::Throttled,
            (_, VerdictKind::Failure) => Self::Failure,
            (_, VerdictKind::Ignored) => Self::Ignored,
        }
    }
}

/// The innermost operation: makes a future with the caller's closure and has the classifier judge its result.
pub(crate) struct Classified<'a, F, C> {
    pub(crate) make: F,
    pub(crate) classifier: &'a C,
}

impl<T, E, F, Fut, C> Operation<T, E> for &Classified<'_, F, C>
where
    T: Send,
    E: Send,
    F: Fn(Attempt) -> Fut + Sync,
    Fut: Future<Output = Result<T, E>> + Send,
    C: Classify<T, E>,
{
    #[inline]
    fn attempt(self, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        ClassifiedAttempt { operation: self, report: AttemptReport::new(cx), future: None, ended: false }
    }
}

/// An attempt of a [`Classified`] operation: written by hand, because an outcome that leaves an async block is moved once
/// more than needed, and every call passes here.
#[pin_project]
struct ClassifiedAttempt<'o, 'c, F, Fut, C> {
    operation: &'o Classified<'o, F, C>,
    /// Outlives the future: it tells how that ended.
    #[pin]
    future: Option<Fut>,
    report: AttemptReport<'c>,
    ended: bool,
}

impl<T, E, F, Fut, C> Future for ClassifiedAttempt<'_, '_, F, Fut, C>
where
    F: Fn(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
{
    type Output = Outcome<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let mut this = self.project();
        let cx = this.report.cx;
        if this.future.is_none() {
            if *this.ended {
                return Poll::Pending;
            }
            if !this.report.begin() {
                *this.ended = true;
                return Poll::Ready(Outcome::refused_as_late(cx, None));
            }
            this.future.set(Some(cx.operation_polled(|| (this.operation.make)(cx.to_attempt()))));
        }
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Pending };
        let Poll::Ready(result) = cx.operation_polled(|| future.poll(task)) else { return Poll::Pending };
        *this.ended = true;
        this.future.set(None);
        let outcome = judged(this.operation.classifier, result);
        this.report.finish(&outcome);
        Poll::Ready(outcome)
    }
}

/// The innermost operation of a forwarded call: the future brings its outcome along.
pub(crate) struct Forwarded<F> {
    pub(crate) make: F,
}

impl<T, E, F, Fut> Operation<T, E> for &Forwarded<F>
where
    T: Send,
    E: Send,
    F: Fn(Attempt) -> Fut + Sync,
    Fut: Future<Output = Outcome<T, E>> + Send,
{
    #[inline]
    fn attempt(self, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        let mut report = AttemptReport::new(cx);
        async move {
            if !report.begin() {
                return Outcome::refused_as_late(report.cx, None);
            }
            let outcome = InOperation::new(&report.cx, &self.make).await;
            report.finish(&outcome);
            outcome
        }
    }
}

/// The innermost operation of a single future that is pinned elsewhere.
pub(crate) struct Single<'a, 'f, F, C> {
    pub(crate) slot: Mutex<Option<Pinned<'f, F>>>,
    pub(crate) classifier: &'a C,
}

impl<T, E, F, C> Operation<T, E> for &Single<'_, '_, F, C>
where
    T: Send,
    E: Send,
    F: Future<Output = Result<T, E>> + Send,
    C: Classify<T, E>,
{
    #[inline]
    fn attempt(self, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        let mut report = AttemptReport::new(cx);
        async move {
            // Never contended: one task polls a call at a time.
            let Some(future) = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                return Outcome::rejected(Rejection::new(Name::new("guard"), Reason::AlreadyAttempted));
            };
            if !report.begin() {
                return Outcome::refused_as_late(report.cx, None);
            }
            let result = InOperation { cx: &report.cx, inner: future }.await;
            let outcome = judged(self.classifier, result);
            report.finish(&outcome);
            outcome
        }
    }
}

#[inline]
fn judged<T, E>(classifier: &impl Classify<T, E>, result: Result<T, E>) -> Outcome<T, E> {
    let classification = classifier.classify(result.as_ref());
    Outcome::new(result.map_err(Error::Operation), classification)
}

/// A single future in its place, which drops it as soon as its attempt is dropped.
pub(crate) struct Pinned<'f, F> {
    place: Pin<&'f mut Option<F>>,
}

impl<'f, F> Pinned<'f, F> {
    pub(crate) fn new(place: Pin<&'f mut Option<F>>) -> Self {
        Self { place }
    }
}

impl<F: Future> Future for Pinned<'_, F> {
    type Output = F::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        match self.get_mut().place.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Pinned<'_, F> {
    fn drop(&mut self) {
        self.place.set(None);
    }
}

/// Runs a single future under a policy as one public call.
pub(crate) fn guard<'a, P, T, E, F, C>(
    telemetry: &'a Telemetry,
    policy: &'a P,
    classifier: &'a C,
    future: F,
) -> impl Future<Output = Result<T, Error<E>>> + Send + use<'a, P, T, E, F, C>
where
    P: Policy<T, E>,
    F: Future<Output = Result<T, E>> + Send,
    C: Classify<T, E>,
    T: Send,
    E: Send,
{
    async move {
        let place = pin!(Some(future));
        let single = Single { slot: Mutex::new(Some(Pinned::new(place))), classifier };
        drive(telemetry, policy, single, result).await
    }
}

/// The same with the caller's options.
pub(crate) fn guard_with<'a, P, T, E, F, C>(
    telemetry: &'a Telemetry,
    options: CallOptions,
    policy: &'a P,
    classifier: &'a C,
    future: F,
) -> impl Future<Output = Result<T, Error<E>>> + Send + use<'a, P, T, E, F, C>
where
    P: Policy<T, E>,
    F: Future<Output = Result<T, E>> + Send,
    C: Classify<T, E>,
    T: Send,
    E: Send,
{
    async move {
        let place = pin!(Some(future));
        let single = Single { slot: Mutex::new(Some(Pinned::new(place))), classifier };
        drive_with(telemetry, options, policy, single, result).await
    }
}

/// Marks, while it polls, that the operation itself runs: a panic that passes through here is the operation's.
#[pin_project]
struct InOperation<'w, 'c, F> {
    cx: &'w Context<'c>,
    #[pin]
    inner: F,
}

impl<'w, 'c, F> InOperation<'w, 'c, F> {
    #[inline(always)]
    fn new(cx: &'w Context<'c>, make: impl FnOnce(Attempt) -> F) -> Self {
        Self { cx, inner: cx.operation_polled(|| make(cx.to_attempt())) }
    }
}

impl<F: Future> Future for InOperation<'_, '_, F> {
    type Output = F::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.cx.operation_polled(|| this.inner.poll(task))
    }
}

/// The start and the end of an attempt, whichever it is. Reports nothing without an observer.
struct AttemptReport<'a> {
    cx: Context<'a>,
    /// [`Moment::NEVER`] if nobody listens, before the attempt begins, or once its end is reported.
    started: Moment,
}

impl<'a> AttemptReport<'a> {
    #[inline]
    fn new(cx: Context<'a>) -> Self {
        Self { cx, started: Moment::NEVER }
    }

    #[inline(always)]
    fn begin(&mut self) -> bool {
        let cx = self.cx;
        if !cx.operation_starts() {
            return false;
        }
        if cx.telemetry().observer.is_some() {
            self.started = cx.moment();
            cx.telemetry().emit(None, || EventKind::AttemptStarted { attempt: cx.attempt(), hedge: cx.hedge() });
        }
        true
    }

    #[inline(always)]
    fn finish<T, E>(&mut self, outcome: &Outcome<T, E>) {
        if self.started != Moment::NEVER {
            let started = std::mem::replace(&mut self.started, Moment::NEVER);
            self.emit(started, Some(outcome.kind()), outcome.label(), AttemptEnd::Completed);
        }
    }

    #[cold]
    fn emit(&self, started: Moment, verdict: Option<VerdictKind>, label: &'static str, end: AttemptEnd) {
        let cx = self.cx;
        cx.telemetry().emit(None, || EventKind::AttemptFinished {
            attempt: cx.attempt(),
            hedge: cx.hedge(),
            verdict,
            label,
            duration: clock::now().since(started),
            probe: cx.is_probe(),
            end,
        });
    }
}

impl AttemptReport<'_> {
    #[cold]
    fn unfinished(&self) {
        let cx = self.cx;
        let end = if cx.has_panicked() {
            AttemptEnd::Panicked
        } else if cx.is_superseded() {
            AttemptEnd::Superseded
        } else if clock::now() >= cx.deadline_moment() {
            AttemptEnd::TimedOut
        } else {
            AttemptEnd::Cancelled
        };
        self.emit(self.started, None, end.as_str(), end);
    }
}

impl Drop for AttemptReport<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.started != Moment::NEVER {
            self.unfinished();
        }
    }
}

/// Keeps the future of a public call from being polled on and on by a layer that is always ready to go on.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The ways to use a policy without a pipeline. They judge as [`DefaultClassifier`](crate::DefaultClassifier) does.
macro_rules! standalone {
    ([$($generics:tt)*] $policy:ty) => {
        impl<$($generics)*> $policy {
            /// Calls an operation under this policy alone: `Ok` is a success, `Err` is transient. A
            /// [`Pipeline`](crate::Pipeline) gives it a classifier, a name and an observer.
            ///
            /// # Errors
            ///
            /// The operation's own error, a timeout, or a rejection.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future cancels what is under way and gives back all that it holds.
            pub fn call<T, E, F, Fut>(
                &self,
                operation: F,
            ) -> impl Future<Output = Result<T, $crate::Error<E>>> + Send
            where
                Self: $crate::Policy<T, E>,
                F: Fn() -> Fut + Send + Sync,
                Fut: Future<Output = Result<T, E>> + Send,
                T: Send,
                E: Send,
            {
                let classified =
                    $crate::call::Classified { make: move |_| operation(), classifier: &$crate::DefaultClassifier };
                $crate::call::drive($crate::event::Telemetry::SILENT, self, classified, $crate::call::result)
            }

            /// The same with options for this call, and a closure that is told about each attempt.
            ///
            /// # Errors
            ///
            /// The operation's own error, a timeout, or a rejection.
            pub fn call_with<T, E, F, Fut>(
                &self,
                options: $crate::CallOptions,
                operation: F,
            ) -> impl Future<Output = Result<T, $crate::Error<E>>> + Send
            where
                Self: $crate::Policy<T, E>,
                F: Fn($crate::Attempt) -> Fut + Send + Sync,
                Fut: Future<Output = Result<T, E>> + Send,
                T: Send,
                E: Send,
            {
                let classified = $crate::call::Classified { make: operation, classifier: &$crate::DefaultClassifier };
                let telemetry = $crate::event::Telemetry::SILENT;
                $crate::call::drive_with(telemetry, options, self, classified, $crate::call::result)
            }
        }
    };
}

/// The same for a policy that makes a single attempt: it can guard a future as well.
macro_rules! standalone_guard {
    ([$($generics:tt)*] $policy:ty) => {
        $crate::call::standalone!([$($generics)*] $policy);

        impl<$($generics)*> $crate::SingleAttempt for $policy {}

        impl<$($generics)*> $policy {
            /// Runs a single future under this policy alone.
            ///
            /// # Errors
            ///
            /// The future's own error, a timeout, or a rejection.
            pub fn guard<T, E, Fut>(
                &self,
                future: Fut,
            ) -> impl Future<Output = Result<T, $crate::Error<E>>> + Send
            where
                Self: $crate::Policy<T, E>,
                Fut: Future<Output = Result<T, E>> + Send,
                T: Send,
                E: Send,
            {
                $crate::call::guard($crate::event::Telemetry::SILENT, self, &$crate::DefaultClassifier, future)
            }
        }
    };
}

pub(crate) use {standalone, standalone_guard};
