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
    outcome::{Classify, Outcome, Verdict, VerdictKind},
    policy::{Operation, Policy},
    timed::Timed,
};

/// Runs an operation under a policy as one public call.
pub(crate) async fn drive<P, Op, T, E>(telemetry: &Telemetry, policy: &P, op: Op) -> Outcome<T, E>
where
    P: Policy<T, E>,
    Op: Operation<T, E>,
    T: Send,
    E: Send,
{
    let state = CallState::new(CallOptions::new());
    let root = Frame::root(telemetry, Moment::NEVER, Duration::ZERO);
    let cx = Context::new(&state, &root);
    let report = CallReport::begin(cx);
    let outcome = EachPoll { state: &state, inner: policy.run(op, cx) }.await;
    report.finish(&outcome);
    outcome
}

/// The same with the caller's options. A future of its own, because only a deadline of the caller needs a timer here.
pub(crate) async fn drive_with<P, Op, T, E>(
    telemetry: &Telemetry,
    options: CallOptions,
    policy: &P,
    op: Op,
) -> Outcome<T, E>
where
    P: Policy<T, E>,
    Op: Operation<T, E>,
    T: Send,
    E: Send,
{
    let state = CallState::new(options);
    let (deadline, left) = deadline_of(&options, &state.reading);
    let root = Frame::root(telemetry, deadline, left);
    let cx = Context::new(&state, &root);
    let report = CallReport::begin(cx);
    let outcome = if cx.is_late() {
        Outcome::timed_out(&root)
    } else {
        let timed = Timed::new(deadline, policy.run(op, cx));
        match (EachPoll { state: &state, inner: timed }).await {
            Ok(outcome) => outcome,
            Err(late) => late.outcome(cx, &root, None),
        }
    };
    report.finish(&outcome);
    outcome
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.state.poll_begins();
        this.inner.poll(cx)
    }
}

/// Reports the call's end, whichever it is: the one `CallFinished` of each call. Idle without an observer.
struct CallReport<'a> {
    cx: Context<'a>,
    /// None if nobody listens, or once the end is reported.
    started: Option<Moment>,
}

impl<'a> CallReport<'a> {
    #[inline]
    fn begin(cx: Context<'a>) -> Self {
        let started = cx.telemetry().observer.is_some().then(|| cx.moment());
        if started.is_some() {
            cx.telemetry().emit(None, || EventKind::CallStarted {
                deadline_left: cx.remaining(),
                idempotency: cx.idempotency(),
                priority: cx.priority(),
            });
        }
        Self { cx, started }
    }

    #[inline]
    fn finish<T, E>(mut self, outcome: &Outcome<T, E>) {
        if let Some(started) = self.started.take() {
            let reason = outcome.result.as_ref().err().and_then(Error::rejection).map(Rejection::reason);
            self.emit(
                started,
                CallOutcome::of(outcome),
                Some(outcome.result.is_ok()),
                reason,
                outcome.label(),
                outcome.is_spent(),
            );
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
        let state = self.cx.state();
        self.cx.telemetry().emit(None, || EventKind::CallFinished {
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

impl Drop for CallReport<'_> {
    fn drop(&mut self) {
        if let Some(started) = self.started.take() {
            let outcome =
                if self.cx.state().operation_panicked() { CallOutcome::Panicked } else { CallOutcome::Cancelled };
            self.emit(started, outcome, None, None, outcome.as_str(), false);
        }
    }
}

impl CallOutcome {
    fn of<T, E>(outcome: &Outcome<T, E>) -> Self {
        match (&outcome.result, outcome.verdict().kind()) {
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
    pub(crate) make: &'a F,
    pub(crate) classifier: &'a C,
}

/// The innermost operation of a forwarded call: the future brings its outcome along.
pub(crate) struct Forwarded<'a, F> {
    pub(crate) make: &'a F,
}

/// The innermost operation of a single future that is pinned elsewhere.
pub(crate) struct Single<'a, 'f, F, C> {
    pub(crate) slot: &'a Mutex<Option<Pinned<'f, F>>>,
    pub(crate) classifier: &'a C,
}

/// Derived, these would ask the closure and the classifier to be `Copy`.
macro_rules! copy {
    ($($operation:ty: [$($generics:tt)*]),+ $(,)?) => {$(
        impl<$($generics)*> Clone for $operation {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<$($generics)*> Copy for $operation {}
    )+};
}

copy! {
    Classified<'_, F, C>: [F, C],
    Forwarded<'_, F>: [F],
    Single<'_, '_, F, C>: [F, C],
}

impl<T, E, F, Fut, C> Operation<T, E> for Classified<'_, F, C>
where
    T: Send,
    E: Send,
    F: Fn(Attempt) -> Fut + Sync,
    Fut: Future<Output = Result<T, E>> + Send,
    C: Classify<T, E>,
{
    #[inline]
    async fn attempt(self, cx: Context<'_>) -> Outcome<T, E> {
        if let Err(timed_out) = cx.operation_starts() {
            return Outcome::refused_as_late(timed_out);
        }
        let report = AttemptReport::begin(cx);
        let future = cx.state().operation_polled(|| (self.make)(cx.to_attempt()));
        let result = InOperation { state: cx.state(), inner: future }.await;
        report.finish(judged(self.classifier, result))
    }
}

impl<T, E, F, Fut> Operation<T, E> for Forwarded<'_, F>
where
    T: Send,
    E: Send,
    F: Fn(Attempt) -> Fut + Sync,
    Fut: Future<Output = Outcome<T, E>> + Send,
{
    async fn attempt(self, cx: Context<'_>) -> Outcome<T, E> {
        if let Err(timed_out) = cx.operation_starts() {
            return Outcome::refused_as_late(timed_out);
        }
        let report = AttemptReport::begin(cx);
        let future = cx.state().operation_polled(|| (self.make)(cx.to_attempt()));
        let outcome = InOperation { state: cx.state(), inner: future }.await;
        report.finish(outcome)
    }
}

impl<T, E, F, C> Operation<T, E> for Single<'_, '_, F, C>
where
    T: Send,
    E: Send,
    F: Future<Output = Result<T, E>> + Send,
    C: Classify<T, E>,
{
    async fn attempt(self, cx: Context<'_>) -> Outcome<T, E> {
        // Never contended: one task polls a call at a time.
        let Some(future) = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            let rejection = Rejection::new(Name::new("guard"), Reason::AlreadyAttempted);
            return Outcome::rejected(rejection);
        };
        if let Err(timed_out) = cx.operation_starts() {
            return Outcome::refused_as_late(timed_out);
        }
        let report = AttemptReport::begin(cx);
        let result = InOperation { state: cx.state(), inner: future }.await;
        report.finish(judged(self.classifier, result))
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

    #[inline]
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
pub(crate) async fn guard<P, T, E, F, C>(telemetry: &Telemetry, policy: &P, classifier: &C, future: F) -> Outcome<T, E>
where
    P: Policy<T, E>,
    F: Future<Output = Result<T, E>> + Send,
    C: Classify<T, E>,
    T: Send,
    E: Send,
{
    let place = pin!(Some(future));
    let slot = Mutex::new(Some(Pinned::new(place)));
    drive(telemetry, policy, Single { slot: &slot, classifier }).await
}

/// Marks, while it polls, that the operation itself runs: a panic that passes through here is the operation's.
#[pin_project]
struct InOperation<'a, F> {
    state: &'a CallState,
    #[pin]
    inner: F,
}

impl<F: Future> Future for InOperation<'_, F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.state.operation_polled(|| this.inner.poll(cx))
    }
}

/// Reports the attempt's end, whichever it is. Idle without an observer.
struct AttemptReport<'a> {
    cx: Context<'a>,
    /// None if nobody listens, or once the end is reported.
    started: Option<Moment>,
}

impl<'a> AttemptReport<'a> {
    #[inline]
    fn begin(cx: Context<'a>) -> Self {
        let started = cx.telemetry().observer.is_some().then(|| cx.moment());
        if started.is_some() {
            cx.telemetry().emit(None, || EventKind::AttemptStarted { attempt: cx.attempt(), hedge: cx.hedge() });
        }
        Self { cx, started }
    }

    #[inline]
    fn finish<T, E>(mut self, outcome: Outcome<T, E>) -> Outcome<T, E> {
        if let Some(started) = self.started.take() {
            self.emit(started, Some(outcome.verdict()), outcome.label(), AttemptEnd::Completed);
        }
        outcome
    }

    #[cold]
    fn emit(&self, started: Moment, verdict: Option<Verdict>, label: &'static str, end: AttemptEnd) {
        let cx = self.cx;
        cx.telemetry().emit(None, || EventKind::AttemptFinished {
            attempt: cx.attempt(),
            hedge: cx.hedge(),
            verdict: verdict.map(|verdict| verdict.kind()),
            label,
            duration: clock::now().since(started),
            probe: cx.is_probe(),
            end,
        });
    }
}

impl Drop for AttemptReport<'_> {
    fn drop(&mut self) {
        if let Some(started) = self.started.take() {
            let cx = self.cx;
            let end = if cx.state().operation_panicked() {
                AttemptEnd::Panicked
            } else if cx.is_superseded() {
                AttemptEnd::Superseded
            } else if clock::now() >= cx.deadline_moment() {
                AttemptEnd::TimedOut
            } else {
                AttemptEnd::Cancelled
            };
            self.emit(started, None, end.as_str(), end);
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
                async move {
                    let make = |_| operation();
                    let classified = $crate::call::Classified { make: &make, classifier: &$crate::DefaultClassifier };
                    $crate::call::drive($crate::event::Telemetry::SILENT, self, classified).await.result
                }
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
                async move {
                    let classified =
                        $crate::call::Classified { make: &operation, classifier: &$crate::DefaultClassifier };
                    $crate::call::drive_with($crate::event::Telemetry::SILENT, options, self, classified).await.result
                }
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
                async move {
                    $crate::call::guard($crate::event::Telemetry::SILENT, self, &$crate::DefaultClassifier, future)
                        .await
                        .result
                }
            }
        }
    };
}

pub(crate) use {standalone, standalone_guard};
