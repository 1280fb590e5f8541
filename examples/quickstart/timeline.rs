//! The timeline: what happens, as it happens. One line for each turn of the script and each change of the circuit, and
//! one line a second that counts the rest.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use withstand::{Event, EventKind};

use crate::{load::Answer, script};

/// Prints what happens in a run. Clones are handles to the same timeline.
#[derive(Clone, Debug)]
pub(crate) struct Timeline(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    counts: Counts,
    circuit: Mutex<Vec<(Duration, Circuit)>>,
}

/// Since the last line that told them.
#[derive(Debug, Default)]
struct Counts {
    service: AtomicU32,
    fallback: AtomicU32,
    nobody: AtomicU32,
    retries: AtomicU32,
    hedges: AtomicU32,
    timeouts: AtomicU32,
    rejections: AtomicU32,
}

/// The states of the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Circuit {
    Closed,
    Open,
    HalfOpen,
}

impl Counts {
    /// What was counted, in words; and counts from zero again.
    fn take(&self) -> String {
        let take = |counter: &AtomicU32| counter.swap(0, Relaxed);
        let (service, fallback, nobody) = (take(&self.service), take(&self.fallback), take(&self.nobody));
        let answers = format!("{service:>3} answered, {fallback:>3} by the fallback, {nobody:>3} failed");
        let actions = [
            (take(&self.retries), "retries"),
            (take(&self.hedges), "hedges"),
            (take(&self.timeouts), "timeouts"),
            (take(&self.rejections), "rejections"),
        ];
        let actions = actions.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        let actions = actions.collect::<Vec<_>>().join(", ");
        if actions.is_empty() { answers } else { format!("{answers} | {actions}") }
    }
}

impl Timeline {
    /// The timeline of a run that started then.
    pub(crate) fn new(started: Instant) -> Self {
        Self(Arc::new(Inner { started, counts: Counts::default(), circuit: Mutex::default() }))
    }

    /// When the run started.
    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    /// Every change of the circuit so far.
    pub(crate) fn circuit(&self) -> Vec<(Duration, Circuit)> {
        self.0.circuit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hears the pipeline: this is its observer.
    pub(crate) fn hear(&self, event: &Event<'_>) {
        let counts = &self.0.counts;
        match event.kind {
            EventKind::Retried { .. } => count(&counts.retries),
            EventKind::Hedged { .. } => count(&counts.hedges),
            EventKind::TimedOut { .. } => count(&counts.timeouts),
            EventKind::Rejected { .. } => count(&counts.rejections),
            EventKind::Opened { failure_rate, open_for, reopenings: 0, .. } => self.turned(
                Circuit::Open,
                format_args!("circuit OPEN: {:.0} % failed; first probe in {open_for:.0?}", failure_rate * 100.0),
            ),
            EventKind::Opened { open_for, .. } => {
                self.turned(
                    Circuit::Open,
                    format_args!("circuit open again: the probe failed; next in {open_for:.0?}"),
                );
            }
            EventKind::HalfOpened { .. } => {
                self.turned(Circuit::HalfOpen, format_args!("circuit half-open: a probe is let through"));
            }
            EventKind::Closed { open_time, .. } => self.turned(
                Circuit::Closed,
                format_args!("circuit CLOSED: the probes passed, after {:.1} s", open_time.as_secs_f64()),
            ),
            EventKind::BudgetEmptied { .. } => self.line(format_args!("the budget of {} is empty", event.source())),
            EventKind::BudgetRefilled { .. } => {
                self.line(format_args!("the budget of {} is half full again", event.source()));
            }
            EventKind::RuntimeStalled { late_by, .. } => {
                self.line(format_args!("this process stood still for {late_by:.0?}"));
            }
            _ => {}
        }
    }

    fn line(&self, what: fmt::Arguments<'_>) {
        print(self.0.started.elapsed(), "*", what);
    }

    fn turned(&self, state: Circuit, what: fmt::Arguments<'_>) {
        let at = self.0.started.elapsed();
        self.0.circuit.lock().unwrap_or_else(PoisonError::into_inner).push((at, state));
        print(at, "*", what);
    }

    /// A call was answered.
    pub(crate) fn answered(&self, answer: Answer) {
        let counts = &self.0.counts;
        count(match answer {
            Answer::Service => &counts.service,
            Answer::Fallback => &counts.fallback,
            Answer::Nobody => &counts.nobody,
        });
    }

    /// The load has come to this point of the script.
    pub(crate) fn reached(&self, at: Duration) {
        if at.subsec_nanos() == 0 && at > Duration::ZERO {
            print(at, " ", format_args!("{}", self.0.counts.take()));
        }
        for phase in script::phases() {
            if phase.from == at {
                print(at, ">", format_args!("{}", phase.announcement));
            } else if phase.until == at {
                print(at, "<", format_args!("{}: over", phase.label));
            }
        }
    }
}

fn count(counter: &AtomicU32) {
    counter.fetch_add(1, Relaxed);
}

fn print(at: Duration, mark: &str, what: fmt::Arguments<'_>) {
    println!("{:>6.2} s {mark} {what}", at.as_secs_f64());
}
