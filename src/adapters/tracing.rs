//! Events and spans for the `tracing` crate.

use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::{
    error::Reason,
    event::{Event, EventKind, Observer, Spans},
    name::Name,
    outcome::VerdictKind,
};

/// Tells [`tracing`](https://docs.rs/tracing) what happens: a span for each call, an event for each [`EventKind`], with
/// fields and no prose. With the feature `tracing`.
///
/// ```
/// use withstand::{Pipeline, TracingObserver};
///
/// let users = Pipeline::standard("users-api").observer(TracingObserver::new()).build()?;
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// It writes nowhere by itself: what becomes of spans and events is up to the subscriber that is installed, such as that
/// of `tracing-subscriber`, or of `tracing-opentelemetry`, which makes OpenTelemetry's traces of them. While there is
/// none, a call costs about as much as one without an observer. One that is installed later hears of all calls that begin
/// after.
///
/// # Spans
///
/// All have the target `withstand` and the level INFO. A span is entered whenever its call or attempt is polled or
/// dropped, so what the operation itself tells `tracing` nests in it. Fields with a * are recorded at its end.
///
/// | span | for | fields |
/// |---|---|---|
/// | `withstand.call` | each public call | `pipeline`, `outcome`\*, `reason`\* and `rejected_by`\* if a policy rejected it, `label`\*, `attempts`\*, `hedges`\* |
/// | `withstand.attempt` | each attempt, if [`attempt_spans`](Self::attempt_spans) asks for them | `pipeline`, `attempt`, `hedge`, `probe`, `verdict`\* if it completed, `end`\*, `label`\* |
///
/// A failed one also records `otel.status_code` as `ERROR`, which OpenTelemetry's bridge makes the status of the span.
/// Failed are calls with the outcome transient, throttled, failure, rejected, timeout or panicked.
///
/// # Events
///
/// All have the target `withstand`, the level that [`EventKind::level`] gives them, and what happened as the message:
/// `retried`. Besides `pipeline`, and `policy` and `kind` where a policy reports, the fields are those of the
/// [`EventKind`], under the same names. Durations are in seconds, as floating-point numbers; words are in snake case; a
/// field that is `None` is left out.
///
/// At INFO and above, a call that succeeds at its first attempt says nothing.
///
/// ```text
/// WARN withstand.call{pipeline="users-api"}: withstand: retried pipeline="users-api" policy="retry" kind="retry" next_attempt=2 delay=0.031 clamped=false
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingObserver {
    attempt_spans: bool,
}

impl TracingObserver {
    /// Events, and a span for each call.
    #[must_use]
    pub const fn new() -> Self {
        Self { attempt_spans: false }
    }

    /// Also a span for each attempt, inside that of its call: for traces that show retries and hedges side by side.
    #[must_use]
    pub const fn attempt_spans(mut self) -> Self {
        self.attempt_spans = true;
        self
    }
}

impl Observer for TracingObserver {
    fn on_event(&self, event: &Event<'_>) {
        tell(event);
    }

    /// Whether there is a subscriber that wants anything at all.
    fn is_enabled(&self) -> bool {
        LevelFilter::current() != LevelFilter::OFF
    }

    fn spans(&self) -> Spans {
        if self.attempt_spans { Spans::CallsAndAttempts } else { Spans::Calls }
    }
}

/// An event of `tracing` at a fixed level, because each place in the code has one: that of [`EventKind::level`].
macro_rules! told {
    ($event:ident, $level:ident, $message:literal $(, $field:ident = $value:expr)*) => {{
        tracing::event!(
            target: "withstand",
            tracing::Level::$level,
            pipeline = $event.pipeline.map(|pipeline| pipeline.as_str()),
            policy = $event.policy.map(|policy| policy.name().as_str()),
            kind = $event.policy.map(|policy| policy.kind().as_str()),
            $($field = $value,)*
            $message
        );
    }};
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
fn tell(event: &Event<'_>) {
    match event.kind {
        EventKind::CallStarted { deadline_left, idempotency, priority } => told!(
            event,
            TRACE,
            "call started",
            deadline_left = deadline_left.map(seconds),
            idempotency = idempotency.as_str(),
            priority = priority.as_str()
        ),
        EventKind::CallFinished {
            outcome,
            ok,
            reason,
            ref rejected_by,
            label,
            spent,
            attempts,
            hedges,
            winner,
            duration,
        } => told!(
            event,
            DEBUG,
            "call finished",
            outcome = outcome.as_str(),
            ok = ok,
            reason = reason.map(Reason::as_str),
            rejected_by = rejected_by.as_ref().map(Name::as_str),
            label = label,
            spent = spent,
            attempts = number(attempts),
            hedges = number(hedges),
            winner = number(winner),
            duration = seconds(duration)
        ),
        EventKind::AttemptStarted { attempt, hedge } => {
            told!(event, TRACE, "attempt started", attempt = number(attempt), hedge = number(hedge));
        }
        EventKind::AttemptFinished { attempt, hedge, verdict, label, duration, probe, end } => told!(
            event,
            DEBUG,
            "attempt finished",
            attempt = number(attempt),
            hedge = number(hedge),
            verdict = verdict.map(VerdictKind::as_str),
            label = label,
            duration = seconds(duration),
            probe = probe,
            end = end.as_str()
        ),
        EventKind::Retried { next_attempt, delay, hint, clamped } => told!(
            event,
            WARN,
            "retried",
            next_attempt = number(next_attempt),
            delay = seconds(delay),
            hint = hint.map(seconds),
            clamped = clamped
        ),
        EventKind::RetryStopped { why, attempts } => {
            told!(event, WARN, "retry stopped", why = why.as_str(), attempts = number(attempts));
        }
        EventKind::Hedged { hedge, delay, trigger } => {
            told!(event, INFO, "hedged", hedge = number(hedge), delay = seconds(delay), trigger = trigger.as_str());
        }
        EventKind::HedgeSuppressed { why } => told!(event, DEBUG, "hedge suppressed", why = why.as_str()),
        EventKind::TimedOut { scope, phase, limit, elapsed, late_by } => told!(
            event,
            WARN,
            "timed out",
            scope = scope.as_str(),
            phase = phase.as_str(),
            limit = seconds(limit),
            elapsed = seconds(elapsed),
            late_by = seconds(late_by)
        ),
        EventKind::Rejected { reason, retry_after, attempt, hedge } => told!(
            event,
            WARN,
            "rejected",
            reason = reason.as_str(),
            retry_after = retry_after.map(seconds),
            attempt = number(attempt),
            hedge = number(hedge)
        ),
        EventKind::Waited { waited, depth, end } => {
            told!(event, DEBUG, "waited", waited = seconds(waited), depth = number(depth), end = end.as_str());
        }
        EventKind::FellBack { original, reason, end, duration } => told!(
            event,
            WARN,
            "fell back",
            original = original.as_str(),
            reason = reason.map(Reason::as_str),
            end = end.as_str(),
            duration = seconds(duration)
        ),
        EventKind::RuntimeStalled { late_by } => told!(event, ERROR, "runtime stalled", late_by = seconds(late_by)),
        EventKind::BudgetEmptied { balance, cap } => {
            told!(event, WARN, "budget emptied", balance = balance, cap = number(cap));
        }
        EventKind::BudgetRefilled { balance, cap } => {
            told!(event, INFO, "budget refilled", balance = balance, cap = number(cap));
        }
        EventKind::LimitChanged { old, new } => {
            told!(event, INFO, "limit changed", old = number(old), new = number(new));
        }
        EventKind::Reconfigured { field, ref old, ref new } => {
            told!(event, INFO, "reconfigured", field = field, old = old.as_str(), new = new.as_str());
        }
        #[cfg(feature = "chaos")]
        EventKind::ChaosInjected { fault, latency, attempt, hedge } => told!(
            event,
            WARN,
            "chaos injected",
            fault = fault.as_str(),
            latency = latency.map(seconds),
            attempt = number(attempt),
            hedge = number(hedge)
        ),
        #[cfg(feature = "chaos")]
        EventKind::ChaosSwitched { on } => told!(event, WARN, "chaos switched", on = on),
        #[cfg(feature = "keyed")]
        EventKind::Overflowed { capacity } => told!(event, WARN, "overflowed", capacity = number(capacity)),
        #[cfg(feature = "keyed")]
        EventKind::InstanceFailed { ref error } => {
            told!(event, ERROR, "instance failed", error = tracing::field::display(error));
        }
        EventKind::Custom(what) => told!(event, INFO, "custom", what = what),
        EventKind::Opened { trigger, failure_rate, slow_rate, calls, open_for, reopenings, label } => {
            macro_rules! opened {
                ($level:ident) => {
                    told!(
                        event,
                        $level,
                        "opened",
                        trigger = trigger.as_str(),
                        failure_rate = failure_rate,
                        slow_rate = slow_rate,
                        calls = number(calls),
                        open_for = seconds(open_for),
                        reopenings = number(reopenings),
                        label = label
                    )
                };
            }
            // The first time is news; that it is still down is expected.
            if reopenings == 0 { opened!(ERROR) } else { opened!(WARN) }
        }
        EventKind::HalfOpened { open_time } => told!(event, INFO, "half-opened", open_time = seconds(open_time)),
        EventKind::ProbeFinished { passed, successes, needed } => {
            told!(
                event,
                INFO,
                "probe finished",
                passed = passed,
                successes = number(successes),
                needed = number(needed)
            );
        }
        EventKind::ProbeExpired { lease } => told!(event, WARN, "probe expired", lease = seconds(lease)),
        EventKind::Closed { by, open_time } => {
            told!(event, INFO, "closed", by = by.as_str(), open_time = seconds(open_time));
        }
        EventKind::Isolated { handles } => told!(event, WARN, "isolated", handles = number(handles)),
        EventKind::Released { handles } => told!(event, WARN, "released", handles = number(handles)),
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Signed: OpenTelemetry has no other numbers, and its bridge makes strings of those.
fn number(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
