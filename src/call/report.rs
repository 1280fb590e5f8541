//! What is reported about a call and its attempts as such: their beginnings and their ends.

use crate::{
    ambient::Ambient,
    clock,
    context::{Context, Frame},
    engine::moment::Moment,
    error::{Error, Rejection},
    event::{AttemptEnd, CallOutcome, EventKind},
    outcome::{Outcome, VerdictKind},
    timed::Late,
};

/// Reports the call's end, whichever it is: the one `CallFinished` of each call. Idle without an observer.
pub(super) struct CallReport<'a> {
    pub(super) root: &'a Frame<'a>,
    /// [`Moment::NEVER`] if nobody listens, or once the end is reported.
    started: Moment,
    #[cfg(feature = "tracing")]
    span: Option<&'a tracing::Span>,
}

impl<'a> CallReport<'a> {
    #[inline(always)]
    pub(super) fn begin(root: &'a Frame<'a>) -> Self {
        Self {
            root,
            started: if root.telemetry().observer.is_some() { Self::tell_start(root) } else { Moment::NEVER },
            #[cfg(feature = "tracing")]
            span: None,
        }
    }

    #[cold]
    fn tell_start(root: &Frame<'_>) -> Moment {
        let cx = Context::new(root);
        let started = cx.moment();
        root.telemetry().emit(None, || EventKind::CallStarted {
            deadline_left: cx.remaining(),
            idempotency: cx.idempotency(),
            priority: cx.priority(),
        });
        started
    }

    /// Notes the end in this span as well.
    #[cfg(feature = "tracing")]
    pub(super) fn in_span(mut self, span: &'a tracing::Span) -> Self {
        self.span = Some(span);
        self
    }

    /// Whether anybody listens, and the end is not reported yet.
    #[inline(always)]
    pub(super) fn is_wanted(&self) -> bool {
        self.started != Moment::NEVER
    }

    /// The call ends with this outcome.
    //
    // Who rejected it is read here, where the outcome passes, and not where it is told: a compiler that sees nobody read
    // the words of an error one by one moves them in one piece through all layers, from memory to memory, also where
    // there is no error.
    #[inline(always)]
    pub(super) fn finish<T, E>(&mut self, outcome: Outcome<T, E>) -> Outcome<T, E> {
        let rejection = outcome.result.as_ref().err().and_then(Error::rejection).cloned();
        self.tell_end(outcome, rejection)
    }

    #[cold]
    fn tell_end<T, E>(&mut self, outcome: Outcome<T, E>, rejection: Option<Rejection>) -> Outcome<T, E> {
        let started = std::mem::replace(&mut self.started, Moment::NEVER);
        let ok = Some(outcome.result.is_ok());
        self.emit(started, CallOutcome::of(&outcome), ok, rejection, outcome.label(), outcome.is_spent());
        outcome
    }

    /// Whether the call has a deadline from outside of its layers.
    #[inline(always)]
    pub(super) fn is_limited(&self) -> bool {
        self.root.deadline() != Moment::NEVER
    }

    /// What a call ends with that comes too late.
    #[cold]
    pub(super) fn refuse<T, E>(&mut self) -> Outcome<T, E> {
        let outcome = Outcome::refused_as_late(Context::new(self.root), None);
        if self.is_wanted() { self.finish(outcome) } else { outcome }
    }

    /// What a call ends with that is over its deadline.
    #[cold]
    pub(super) fn end_late<T, E>(&self, late: Late) -> Outcome<T, E> {
        Context::new(self.root).state().ends_late();
        late.as_outcome(self.root)
    }

    fn emit(
        &self,
        started: Moment,
        outcome: CallOutcome,
        ok: Option<bool>,
        rejection: Option<Rejection>,
        label: &'static str,
        spent: bool,
    ) {
        let state = Context::new(self.root).state();
        let kind = EventKind::CallFinished {
            outcome,
            ok,
            reason: rejection.as_ref().map(Rejection::reason),
            rejected_by: rejection.map(Rejection::into_policy),
            label,
            spent,
            attempts: self.root.attempts_started(),
            hedges: state.hedges(),
            winner: state.winner(),
            duration: clock::now().since(started),
        };
        #[cfg(feature = "tracing")]
        if let Some(span) = self.span {
            super::spanned::end_of_call(span, &kind);
        }
        self.root.telemetry().emit(None, || kind);
    }
}

impl CallReport<'_> {
    #[cold]
    fn unfinished(&self) {
        let cx = Context::new(self.root);
        if cx.state().ended_late() {
            Late::after(self.root.deadline()).announce(cx, self.root, None);
            return self.emit(self.started, CallOutcome::Timeout, Some(false), None, "timeout", false);
        }
        let panicked = cx.state().panicked();
        let outcome = if panicked { CallOutcome::Panicked } else { CallOutcome::Cancelled };
        self.emit(self.started, outcome, None, None, outcome.as_str(), false);
    }
}

impl Drop for CallReport<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.is_wanted() {
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

/// The start and the end of an attempt, whichever it is. Reports nothing without an observer.
pub(crate) struct AttemptReport<'a> {
    pub(crate) cx: Context<'a>,
    /// [`Moment::NEVER`] if nobody listens, before the attempt begins, or once its end is reported.
    started: Moment,
}

impl<'a> AttemptReport<'a> {
    #[inline]
    pub(crate) fn new(cx: Context<'a>) -> Self {
        Self { cx, started: Moment::NEVER }
    }

    #[inline(always)]
    pub(crate) fn begin(&mut self) -> Option<Ambient> {
        let cx = self.cx;
        let ambient = cx.operation_starts()?;
        if cx.telemetry().observer.is_some() {
            self.started = Self::tell_start(cx);
        }
        Some(ambient)
    }

    #[cold]
    fn tell_start(cx: Context<'_>) -> Moment {
        let started = cx.moment();
        cx.telemetry().emit(None, || EventKind::AttemptStarted { attempt: cx.attempt(), hedge: cx.hedge() });
        started
    }

    /// To be called before there is an outcome, so that what the observer does comes between none and its return.
    #[inline(always)]
    pub(crate) fn finish(&mut self, kind: VerdictKind, label: &'static str) {
        if self.is_wanted() {
            self.emit_completed(kind, label);
        }
    }

    /// Whether anybody listens, the attempt has begun, and its end is not reported yet.
    #[inline(always)]
    fn is_wanted(&self) -> bool {
        self.started != Moment::NEVER
    }

    #[cold]
    fn emit_completed(&mut self, kind: VerdictKind, label: &'static str) {
        let started = std::mem::replace(&mut self.started, Moment::NEVER);
        self.emit(started, Some(kind), label, AttemptEnd::Completed);
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
        let end = unfinished(self.cx);
        self.emit(self.started, None, end.as_str(), end);
    }
}

/// How an attempt ends that is dropped before it has completed.
pub(super) fn unfinished(cx: Context<'_>) -> AttemptEnd {
    if cx.has_panicked() {
        AttemptEnd::Panicked
    } else if cx.is_superseded() {
        AttemptEnd::Superseded
    } else if clock::now() >= cx.deadline_so_far() {
        AttemptEnd::TimedOut
    } else {
        AttemptEnd::Cancelled
    }
}

impl Drop for AttemptReport<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.is_wanted() {
            self.unfinished();
        }
    }
}
