//! Calls in spans of `tracing`, for observers that want them. A way of their own, so that other calls do not pay for it.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{self, Poll},
};

use pin_project_lite::pin_project;
use tracing::{Span, field::Empty, info_span};

use super::{Options, PublicCall, Root, Stage, report};
use crate::{
    context::{CallState, Context, Frame},
    event::{AttemptEnd, CallOutcome, EventKind, Spans, Telemetry},
    name::Name,
    outcome::{Outcome, VerdictKind},
    policy::{Operation, Policy},
};

/// The span of a call that begins now, and which others it is to have; nothing if none is wanted, or a filter is against it.
#[cold]
pub(super) fn wanted(telemetry: &Telemetry) -> Option<(Span, Spans)> {
    let spans = telemetry.spans();
    if spans == Spans::None {
        return None;
    }
    let span = info_span!(
        target: "withstand", "withstand.call", pipeline = pipeline(telemetry), outcome = Empty, reason = Empty,
        rejected_by = Empty, label = Empty, attempts = Empty, hedges = Empty, otel.status_code = Empty,
    );
    (!span.is_disabled()).then_some((span, spans))
}

fn pipeline(telemetry: &Telemetry) -> Option<&str> {
    telemetry.pipeline.as_ref().map(Name::as_str)
}

/// The same as [`drive`](super::drive), in a span.
pub(super) async fn drive<O: Options, T: Send, E: Send, R>(
    (span, spans): (Span, Spans),
    telemetry: &Telemetry,
    options: O,
    policy: &impl Policy<T, E>,
    op: impl Operation<T, E>,
    take: impl Fn(Outcome<T, E>) -> R + Send,
) -> R {
    let state = CallState::new(options.given());
    let root = Frame::root(&state, telemetry, options.given());
    let report = span.in_scope(|| report::CallReport::begin(&root)).in_span(&span);
    let op = InSpans { op, wanted: spans >= Spans::CallsAndAttempts };
    let call = PublicCall {
        root: Root::new(&state, policy.run(op, Context::new(&root))),
        stage: Stage::Begins,
        report,
        take,
        options: PhantomData::<O>,
    };
    InSpan { entered_on_drop: EnteredOnDrop(&span), call, left_on_drop: LeftOnDrop(&span) }.await
}

pin_project! {
    /// A call that is polled, and dropped, in its span.
    struct InSpan<'a, F> {
        // Dropped in this order.
        entered_on_drop: EnteredOnDrop<'a>,
        #[pin]
        call: F,
        left_on_drop: LeftOnDrop<'a>,
    }
}

impl<F: Future> Future for InSpan<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Never across a poll, and left by a panic as well.
        let _entered = this.left_on_drop.0.enter();
        this.call.poll(task)
    }
}

/// What is dropped after this, up to the [`LeftOnDrop`], is dropped in the span.
struct EnteredOnDrop<'a>(&'a Span);

impl Drop for EnteredOnDrop<'_> {
    fn drop(&mut self) {
        self.0.with_subscriber(|(id, subscriber)| subscriber.enter(id));
    }
}

struct LeftOnDrop<'a>(&'a Span);

impl Drop for LeftOnDrop<'_> {
    fn drop(&mut self) {
        self.0.with_subscriber(|(id, subscriber)| subscriber.exit(id));
    }
}

/// An operation whose attempts have spans, if they are wanted.
#[derive(Clone, Copy)]
struct InSpans<Op> {
    op: Op,
    wanted: bool,
}

impl<T: Send, E: Send, Op: Operation<T, E>> Operation<T, E> for InSpans<Op> {
    fn attempt(self, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        let span = AttemptSpan { cx, wanted: self.wanted, span: None };
        InAttemptSpan { span, attempt: Some(self.op.attempt(cx)) }
    }
}

pin_project! {
    struct InAttemptSpan<'c, F> {
        span: AttemptSpan<'c>,
        #[pin]
        attempt: Option<F>,
    }

    impl<F> PinnedDrop for InAttemptSpan<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(span) = this.span.span.take() {
                this.span.unfinished(&span);
                span.in_scope(|| this.attempt.set(None));
            }
        }
    }
}

impl<T, E, F: Future<Output = Outcome<T, E>>> Future for InAttemptSpan<'_, F> {
    type Output = Outcome<T, E>;

    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let mut this = self.project();
        this.span.begin();
        let Some(attempt) = this.attempt.as_mut().as_pin_mut() else { return Poll::Pending };
        let Some(span) = &this.span.span else { return attempt.poll(task) };
        let Poll::Ready(outcome) = span.in_scope(|| attempt.poll(task)) else { return Poll::Pending };
        // Ended with this, though what has ended may stay in its place for a while.
        span.in_scope(|| this.attempt.set(None));
        end_of_attempt(span, Some(outcome.kind()), AttemptEnd::Completed, outcome.label());
        this.span.span = None;
        this.span.wanted = false;
        Poll::Ready(outcome)
    }
}

struct AttemptSpan<'c> {
    cx: Context<'c>,
    /// Until it has begun.
    wanted: bool,
    span: Option<Span>,
}

impl AttemptSpan<'_> {
    fn begin(&mut self) {
        let cx = self.cx;
        // What is too late does not reach the operation, and is no attempt.
        if std::mem::take(&mut self.wanted) && !cx.is_late() {
            self.span = Some(info_span!(
                target: "withstand", "withstand.attempt", pipeline = pipeline(cx.telemetry()),
                attempt = i64::from(cx.attempt()), hedge = i64::from(cx.hedge()), probe = cx.is_probe(), verdict = Empty, end = Empty,
                label = Empty, otel.status_code = Empty,
            ));
        }
    }

    fn unfinished(&self, span: &Span) {
        let end = report::unfinished(self.cx);
        end_of_attempt(span, None, end, end.as_str());
    }
}

fn end_of_attempt(span: &Span, verdict: Option<VerdictKind>, end: AttemptEnd, label: &'static str) {
    if let Some(verdict) = verdict {
        span.record("verdict", verdict.as_str());
    }
    span.record("end", end.as_str()).record("label", label);
    let failed = match verdict {
        Some(VerdictKind::Success | VerdictKind::Ignored) => false,
        Some(_) => true,
        None => matches!(end, AttemptEnd::TimedOut | AttemptEnd::Panicked),
    };
    mark(span, failed);
}

/// Notes how a call has ended.
pub(super) fn end_of_call(span: &Span, kind: &EventKind) {
    let EventKind::CallFinished { outcome, reason, ref rejected_by, label, attempts, hedges, .. } = *kind else {
        return;
    };
    span.record("outcome", outcome.as_str());
    if let Some(reason) = reason {
        span.record("reason", reason.as_str());
    }
    if let Some(rejected_by) = rejected_by {
        span.record("rejected_by", rejected_by.as_str());
    }
    span.record("label", label).record("attempts", i64::from(attempts)).record("hedges", i64::from(hedges));
    // An `Ok` may be a failure, such as an HTTP 503, and an `Err` none, such as a 404.
    let fine =
        matches!(outcome, CallOutcome::Success | CallOutcome::Ignored | CallOutcome::Fallback | CallOutcome::Cancelled);
    mark(span, !fine);
}

/// What OpenTelemetry's bridge makes the status of the span.
fn mark(span: &Span, failed: bool) {
    if failed {
        span.record("otel.status_code", "ERROR");
    }
}
