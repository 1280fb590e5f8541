//! The innermost operations: what the layers attempt in the end.

use std::{
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{self, Poll},
};

use pin_project_lite::pin_project;

use super::report::AttemptReport;
use crate::{
    context::Context,
    error::{Error, Reason, Rejection},
    name::Name,
    outcome::{Classify, Outcome},
    policy::Operation,
};

/// The innermost operation: makes a future with the caller's closure and has the classifier judge its result.
pub(crate) struct Classified<'a, F, C> {
    pub(crate) make: F,
    pub(crate) classifier: &'a C,
}

impl<T, E, F, Fut, C> Operation<T, E> for &Classified<'_, F, C>
where
    T: Send,
    E: Send,
    F: Fn(Context<'_>) -> Fut + Sync,
    Fut: Future<Output = Result<T, E>> + Send,
    C: Classify<T, E>,
{
    #[inline]
    fn attempt(self, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        ClassifiedAttempt { operation: self, stage: Stage::Begins, report: AttemptReport::new(cx) }
    }
}

pin_project! {
    /// An attempt of a [`Classified`] operation: written by hand, because an outcome that leaves an async block is
    /// moved once more than needed, and every call passes here.
    struct ClassifiedAttempt<'o, 'c, F, Fut, C> {
        operation: &'o Classified<'o, F, C>,
        #[pin]
        stage: Stage<Fut>,
        // Outlives the future: it tells how that ended.
        report: AttemptReport<'c>,
    }
}

pin_project! {
    #[project = Now]
    enum Stage<Fut> {
        Begins,
        Runs { #[pin] future: Fut },
        Over,
    }
}

impl<T, E, F, Fut, C> Future for ClassifiedAttempt<'_, '_, F, Fut, C>
where
    F: Fn(Context<'_>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
{
    type Output = Outcome<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let mut this = self.project();
        let cx = this.report.cx;
        let (ambient, begins) = match this.stage.as_mut().project() {
            Now::Begins => {
                let Some(ambient) = this.report.begin() else {
                    this.stage.set(Stage::Over);
                    return Poll::Ready(Outcome::refused_as_late(cx, None));
                };
                (ambient, true)
            }
            Now::Runs { .. } => (cx.frame().ambient(), false),
            Now::Over => return Poll::Pending,
        };
        let poll = cx.operation_polled(ambient, || {
            if begins {
                this.stage.set(Stage::Runs { future: (this.operation.make)(cx) });
            }
            match this.stage.as_mut().project() {
                Now::Runs { future } => future.poll(task),
                _ => Poll::Pending,
            }
        });
        let Poll::Ready(result) = poll else { return Poll::Pending };
        this.stage.set(Stage::Over);
        Poll::Ready(judged(this.operation.classifier, result, this.report))
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
    F: Fn(Context<'_>) -> Fut + Sync,
    Fut: Future<Output = Outcome<T, E>> + Send,
{
    #[inline]
    fn attempt(self, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        let mut report = AttemptReport::new(cx);
        async move {
            if report.begin().is_none() {
                return Outcome::refused_as_late(report.cx, None);
            }
            let outcome = InOperation::new(&report.cx, &self.make).await;
            report.finish(outcome.kind(), outcome.label());
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
            if report.begin().is_none() {
                return Outcome::refused_as_late(report.cx, None);
            }
            let result = InOperation { cx: &report.cx, inner: future }.await;
            judged(self.classifier, result, &mut report)
        }
    }
}

#[inline(always)]
pub(crate) fn judged<T, E>(
    classifier: &impl Classify<T, E>,
    result: Result<T, E>,
    report: &mut AttemptReport<'_>,
) -> Outcome<T, E> {
    let classification = classifier.classify(result.as_ref());
    report.finish(classification.verdict().kind(), classification.label());
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

pin_project! {
    /// Marks, while it polls, that the operation itself runs: a panic that passes through here is the operation's.
    pub(crate) struct InOperation<'w, 'c, F> {
        cx: &'w Context<'c>,
        #[pin]
        inner: F,
    }
}

impl<'w, 'c, F> InOperation<'w, 'c, F> {
    #[inline(always)]
    pub(crate) fn new(cx: &'w Context<'c>, make: impl FnOnce(Context<'_>) -> F) -> Self {
        Self { cx, inner: cx.operation_polled(cx.frame().ambient(), || make(*cx)) }
    }
}

impl<F: Future> Future for InOperation<'_, '_, F> {
    type Output = F::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.cx.operation_polled(this.cx.frame().ambient(), || this.inner.poll(task))
    }
}
