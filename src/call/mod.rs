//! From a public call to the layers and back.

mod operation;
mod report;
mod standalone;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Mutex,
    task::{self, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

pub(crate) use operation::{Classified, Forwarded};
pub(crate) use standalone::{standalone, standalone_guard};

use crate::{
    clock::instant_of,
    context::{CallOptions, CallState, Context, Frame, deadline_of},
    engine::moment::Moment,
    error::Error,
    event::Telemetry,
    outcome::{Classify, Outcome},
    policy::{Operation, Policy},
    timed::Timed,
};
use operation::{Pinned, Single};
use report::CallReport;

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
    async move {
        let state = CallState::new(&CallOptions::new());
        let root = Frame::root(&state, telemetry, Moment::NEVER, Duration::ZERO);
        let report = CallReport::begin(&root);
        PublicCall { root: Root::new(&state, policy.run(&operation, Context::new(&root))), report, take }.await
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
        let root = Frame::root(&state, telemetry, deadline, left);
        let cx = Context::new(&root);
        let report = CallReport::begin(&root);
        let in_time = async {
            if cx.is_late() {
                return Outcome::refused_as_late(cx, None);
            }
            match Timed::new(cx, deadline, policy.run(&operation, cx)).await {
                Ok(outcome) => outcome,
                Err(late) => late.outcome(cx, &root, None),
            }
        };
        PublicCall { root: Root::new(&state, in_time), report, take }.await
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
    struct PublicCall<'a, F, Take> {
        #[pin]
        root: Root<'a, F>,
        // Outlives what runs inside, whose end is reported first.
        report: CallReport<'a>,
        take: Take,
    }
}

impl<T, E, F, R, Take> Future for PublicCall<'_, F, Take>
where
    F: Future<Output = Outcome<T, E>>,
    Take: Fn(Outcome<T, E>) -> R,
{
    type Output = R;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<R> {
        let this = self.project();
        let Poll::Ready(outcome) = this.root.poll(cx) else { return Poll::Pending };
        if this.report.is_wanted() {
            return Poll::Ready((this.take)(this.report.finish(outcome)));
        }
        Poll::Ready((this.take)(outcome))
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

impl<F: Future> Future for Root<'_, F> {
    type Output = F::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let rang = this.timer.as_ref().as_pin_ref().is_some_and(|timer| timer.is_elapsed());
        this.state.poll_begins(cx.waker(), rang);
        if let Poll::Ready(output) = this.inner.poll(cx) {
            this.state.poll_ends();
            return Poll::Ready(output);
        }
        this.state.poll_ends();
        set_timer(this.timer, this.state.alarms.earliest(), cx);
        Poll::Pending
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
