//! From a public call to the layers and back.

mod operation;
mod report;
#[cfg(feature = "tracing")]
mod spanned;
mod standalone;

use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::{Pin, pin},
    sync::Mutex,
    task::{self, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

pub(crate) use operation::{Classified, Forwarded};
#[cfg(feature = "tower")]
pub(crate) use operation::{InOperation, judged};
#[cfg(feature = "tower")]
pub(crate) use report::AttemptReport;
pub(crate) use standalone::{standalone, standalone_guard};

use crate::{
    ambient,
    clock::instant_of,
    context::{CallOptions, CallState, Context, Frame},
    engine::moment::Moment,
    error::Error,
    event::Telemetry,
    outcome::{Classify, Outcome},
    policy::{Operation, Policy},
    timed::{Late, time_is_up},
};
use operation::{Pinned, Single};
use report::CallReport;

/// Runs an operation under a policy as one public call, and takes of the outcome what its caller wants.
//
// Not an `async fn`, here and wherever a call passes: those store their arguments twice.
pub(crate) fn drive<'a, O, P, Op, T, E, R>(
    telemetry: &'a Telemetry,
    options: O,
    policy: &'a P,
    operation: Op,
    take: impl Fn(Outcome<T, E>) -> R + Send,
) -> impl Future<Output = R> + Send
where
    O: Options,
    P: Policy<T, E>,
    Op: Send + Sync,
    for<'o> &'o Op: Operation<T, E>,
    T: Send,
    E: Send,
{
    async move {
        let telemetry = telemetry.now();
        #[cfg(feature = "tracing")]
        if telemetry.observer.is_some() {
            if let Some(span) = spanned::wanted(telemetry) {
                return Box::pin(spanned::drive(span, telemetry, options, policy, &operation, take)).await;
            }
        }
        let state = CallState::new(options.given());
        let root = Frame::root(&state, telemetry, options.given());
        let report = CallReport::begin(&root);
        PublicCall {
            root: Root::new(&state, policy.run(&operation, Context::new(&root))),
            stage: Stage::Begins,
            report,
            take,
            options: PhantomData::<O>,
        }
        .await
    }
}

/// What the caller of a call says about it.
pub(crate) trait Options: Copy + Send {
    /// Whether the call may have a deadline from outside of its layers.
    const LIMIT: bool;

    fn given(self) -> CallOptions;
}

impl Options for CallOptions {
    const LIMIT: bool = true;

    #[inline(always)]
    fn given(self) -> CallOptions {
        self
    }
}

/// Nothing, which takes no room in the future of a call.
#[derive(Clone, Copy)]
pub(crate) struct Unspecified;

impl Options for Unspecified {
    const LIMIT: bool = ambient::SEEN;

    #[inline(always)]
    fn given(self) -> CallOptions {
        CallOptions::new()
    }
}

/// What most callers want of an outcome.
pub(crate) fn result<T, E>(outcome: Outcome<T, E>) -> Result<T, Error<E>> {
    outcome.result
}

pin_project! {
    /// A public call, with what is reported about it and what its caller wants of the outcome.
    //
    // Here and in the layers, what goes well keeps its outcome in registers: nobody refers to it, and nothing that can
    // unwind comes between its arrival and its return. What is referred to is written to memory and read again in every
    // layer.
    struct PublicCall<'a, F, Take, O> {
        #[pin]
        root: Root<'a, F>,
        // Kept only where there is a deadline.
        stage: Stage,
        // Outlives what runs inside, whose end is reported first.
        report: CallReport<'a>,
        take: Take,
        options: PhantomData<O>,
    }
}

impl<T, E, F, R, Take, O> Future for PublicCall<'_, F, Take, O>
where
    F: Future<Output = Outcome<T, E>>,
    Take: Fn(Outcome<T, E>) -> R,
    O: Options,
{
    type Output = R;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<R> {
        let mut this = self.project();
        if O::LIMIT && this.report.is_limited() && this.stage.is_too_late(this.report.root) {
            return Poll::Ready((this.take)(this.report.refuse()));
        }
        let Poll::Ready(outcome) = this.root.as_mut().poll_inside(cx) else {
            if O::LIMIT && this.report.is_limited() {
                if let Poll::Ready(late) = this.stage.time_is_up(this.report.root, cx) {
                    return Poll::Ready((this.take)(this.report.end_late(late)));
                }
            }
            this.root.set_timer(cx);
            return Poll::Pending;
        };
        if this.report.is_wanted() {
            return Poll::Ready((this.take)(this.report.finish(outcome)));
        }
        Poll::Ready((this.take)(outcome))
    }
}

/// What has become of a call that has a deadline.
#[derive(PartialEq, Eq)]
enum Stage {
    Begins,
    Runs,
    /// The alarm was so late that the rest of the process got a turn.
    Stalled,
}

impl Stage {
    /// Whether nothing is to be called at all.
    #[cold]
    fn is_too_late(&mut self, root: &Frame<'_>) -> bool {
        *self == Self::Begins && {
            *self = Self::Runs;
            Context::new(root).is_late()
        }
    }

    #[cold]
    fn time_is_up(&mut self, root: &Frame<'_>, task: &mut task::Context<'_>) -> Poll<Late> {
        let call = Context::new(root).state();
        let ring = |at, _: &mut task::Context<'_>| call.alarms.poll(&call.reading, at);
        let mut stalled = *self == Self::Stalled;
        let poll = time_is_up(call, root.deadline(), &mut stalled, task, ring);
        if stalled {
            *self = Self::Stalled;
        }
        poll
    }
}

pin_project! {
    /// The outermost future of a call. It voids, at the start of each poll, what the call knew about the present, and
    /// has the one timer of all that waits inside.
    pub(crate) struct Root<'a, F> {
        state: &'a CallState,
        #[pin]
        timer: Option<Sleep>,
        #[pin]
        inner: F,
    }
}

impl<'a, F> Root<'a, F> {
    #[inline(always)]
    pub(crate) fn new(state: &'a CallState, inner: F) -> Self {
        Self { state, timer: None, inner }
    }
}

impl<F: Future> Root<'_, F> {
    #[inline(always)]
    fn poll_inside(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let rang = this.timer.as_ref().as_pin_ref().is_some_and(|timer| timer.is_elapsed());
        this.state.poll_begins(cx.waker(), rang);
        if let Poll::Ready(output) = this.inner.poll(cx) {
            this.state.poll_ends();
            return Poll::Ready(output);
        }
        this.state.poll_ends();
        Poll::Pending
    }

    /// What waits inside has said until when.
    fn set_timer(self: Pin<&mut Self>, cx: &mut task::Context<'_>) {
        let this = self.project();
        set_timer(this.timer, this.state.alarms.earliest(), cx);
    }
}

impl<F: Future> Future for Root<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let poll = self.as_mut().poll_inside(cx);
        if poll.is_pending() {
            self.set_timer(cx);
        }
        poll
    }
}

/// Has the task woken at that moment.
fn set_timer(mut timer: Pin<&mut Option<Sleep>>, at: Moment, cx: &mut task::Context<'_>) {
    let Some(at) = instant_of(at) else { return timer.set(None) };
    let is_new = timer.is_none();
    if is_new {
        timer.set(Some(sleep_until(at)));
    }
    let Some(mut timer) = timer.as_pin_mut() else { return };
    // Starts it, which a poll does only while there is cooperative budget.
    if is_new || timer.deadline() != at || timer.is_elapsed() {
        timer.as_mut().reset(at);
    }
    // Tells it whom to wake. Without budget it has the task woken at once instead, so that this is tried again.
    if timer.poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

/// Runs a single future under a policy as one public call.
pub(crate) fn guard<'a, P, T, E, F, C, O>(
    telemetry: &'a Telemetry,
    options: O,
    policy: &'a P,
    classifier: &'a C,
    future: F,
) -> impl Future<Output = Result<T, Error<E>>> + Send + use<'a, P, T, E, F, C, O>
where
    P: Policy<T, E>,
    F: Future<Output = Result<T, E>> + Send,
    C: Classify<T, E>,
    O: Options,
    T: Send,
    E: Send,
{
    async move {
        let place = pin!(Some(future));
        let single = Single { slot: Mutex::new(Some(Pinned::new(place))), classifier };
        drive(telemetry, options, policy, single, result).await
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
