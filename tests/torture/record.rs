//! One call, counted twice: by the operation itself, and by what its pipelines report.

use std::{
    future::pending,
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use tokio::{
    task::yield_now,
    time::{Duration, sleep},
};
use withstand::{AttemptEnd, CallOutcome, Event, EventKind, Verdict};

use crate::random::Random;

tokio::task_local! {
    /// The call whose future is being polled or dropped: what is reported meanwhile is reported of it.
    pub(crate) static CALL: Arc<Record>;
}

/// What an operation or a classifier panics with. It does so without a word, as there are thousands of them.
pub(crate) const TOLD_TO: &str = "told to";

/// What an operation fails with to make the classifier panic.
pub(crate) const PUZZLE: Duration = Duration::from_nanos(13);

/// Classifies an error that is its verdict, unless it is a puzzle.
pub(crate) fn by_verdict(verdict: &Verdict) -> Verdict {
    if verdict.hint() == Some(PUZZLE) {
        CALL.with(|call| one_more(&call.puzzled));
        resume_unwind(Box::new(TOLD_TO));
    }
    *verdict
}

type Counter = AtomicU64;

fn one_more(counter: &Counter) -> u64 {
    counter.fetch_add(1, SeqCst) + 1
}

/// How many attempts there are at once, and how many there were at most.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    now: Counter,
    most: Counter,
}

impl Gauge {
    fn enter(&self) {
        self.most.fetch_max(one_more(&self.now), SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, SeqCst);
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.load(SeqCst)
    }

    pub(crate) fn most(&self) -> u64 {
        self.most.load(SeqCst)
    }
}

/// The attempts of a call by how they ended.
#[derive(Debug, Default)]
struct Attempts {
    begun: Counter,
    completed: Counter,
    dropped: Counter,
    panicked: Counter,
}

impl Attempts {
    fn all(&self) -> Tally {
        Tally {
            begun: self.begun.load(SeqCst),
            completed: self.completed.load(SeqCst),
            dropped: self.dropped.load(SeqCst),
            panicked: self.panicked.load(SeqCst),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) begun: u64,
    pub(crate) completed: u64,
    pub(crate) dropped: u64,
    pub(crate) panicked: u64,
}

impl Tally {
    fn is_balanced(&self) -> bool {
        self.begun == self.completed + self.dropped + self.panicked
    }
}

/// Everything that is known of one call.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// As the operation counts them.
    made: Attempts,
    /// As the pipeline next to the operation reports them.
    heard: Attempts,
    /// As a pipeline around that one reports them.
    heard_outside: Attempts,
    /// The classifier panicked about so many: the operation had completed, but has no verdict.
    puzzled: Counter,
    successes: Counter,
    at_once: Gauge,
    calls_begun: Counter,
    calls_ended: Counter,
    last_end: Mutex<Option<CallOutcome>>,
}

/// What has become of a call's future, as whoever polled it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Returned,
    Dropped,
    Panicked,
}

impl Record {
    /// Hears an event of a pipeline: the one next to the operation, or one around it.
    pub(crate) fn hear(&self, event: &Event<'_>, is_inner: bool) {
        let heard = if is_inner { &self.heard } else { &self.heard_outside };
        let counter = match &event.kind {
            EventKind::CallStarted { .. } => &self.calls_begun,
            EventKind::CallFinished { outcome, .. } => {
                *self.last_end.lock().unwrap() = Some(*outcome);
                &self.calls_ended
            }
            EventKind::AttemptStarted { .. } => &heard.begun,
            EventKind::AttemptFinished { end: AttemptEnd::Completed, .. } => &heard.completed,
            EventKind::AttemptFinished { end: AttemptEnd::Panicked, .. } => &heard.panicked,
            EventKind::AttemptFinished { .. } => &heard.dropped,
            _ => return,
        };
        one_more(counter);
    }

    pub(crate) fn made(&self) -> Tally {
        self.made.all()
    }

    pub(crate) fn puzzled(&self) -> u64 {
        self.puzzled.load(SeqCst)
    }

    pub(crate) fn successes(&self) -> u64 {
        self.successes.load(SeqCst)
    }

    /// Fails unless both counts agree with each other and with how the call's future ended. It is gone now.
    pub(crate) fn check(&self, end: End, most_at_once: u64) -> Option<CallOutcome> {
        assert_eq!(self.at_once.now(), 0, "an attempt outlives its call: {self:?}");
        assert!(self.at_once.most() <= most_at_once, "more attempts at once than {most_at_once}: {self:?}");
        assert!(self.made().is_balanced(), "admitted is not completed + dropped + panicked: {self:?}");
        let (made, puzzled) = (self.made(), self.puzzled());
        // What has no verdict is not reported as completed.
        let reported = Tally { completed: made.completed - puzzled, dropped: made.dropped + puzzled, ..made };
        assert_eq!(self.heard.all(), reported, "reported otherwise than it was: {self:?}");
        assert!(self.heard_outside.all().is_balanced(), "reported otherwise than it was: {self:?}");
        let (begun, ended) = (self.calls_begun.load(SeqCst), self.calls_ended.load(SeqCst));
        assert_eq!(begun, ended, "each call ends once: {self:?}");
        let outcome = *self.last_end.lock().unwrap();
        match (end, outcome) {
            // No outcome: dropped before its first poll it was no call.
            (End::Panicked, Some(CallOutcome::Panicked)) | (End::Dropped, Some(CallOutcome::Cancelled) | None) => {}
            (End::Returned, Some(outcome)) => {
                assert!(!matches!(outcome, CallOutcome::Cancelled | CallOutcome::Panicked), "{self:?}");
            }
            _ => panic!("{end:?} is not {outcome:?}: {self:?}"),
        }
        outcome
    }
}

/// One of the things that an operation may do.
const HANG: u64 = 4;

/// An operation that does something else at each attempt, unless it hangs at every one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op<'a> {
    pub(crate) record: &'a Record,
    /// The attempts that hold the same permits.
    pub(crate) beside: &'a Gauge,
    pub(crate) seed: u64,
    pub(crate) hangs: bool,
}

impl<'a> Op<'a> {
    pub(crate) fn attempt(self) -> impl Future<Output = Result<u32, Verdict>> + Send + use<'a> {
        let number = one_more(&self.record.made.begun);
        let running = Running::new(self);
        let mut random = Random::new(self.seed.wrapping_add(number));
        let (how, pause) = (if self.hangs { HANG } else { random.below(100) }, random.below(4));
        if how == 0 {
            running.panic();
        }
        async move {
            match random.below(8) {
                0..=3 => {}
                4 | 5 => yield_now().await,
                _ => sleep(Duration::from_millis(pause)).await,
            }
            match how {
                1..=3 => running.panic(),
                HANG..=8 => pending().await,
                9..=30 => running.complete(Err(Verdict::transient())),
                31..=33 => running.complete(Err(Verdict::unreached())),
                34..=36 => running.complete(Err(Verdict::throttled().retry_after(Duration::from_millis(pause)))),
                37..=39 => running.complete(Err(Verdict::failure())),
                40..=42 => running.complete(Err(Verdict::ignored())),
                43 => running.complete(Err(Verdict::transient().retry_after(PUZZLE))),
                _ => running.complete(Ok(7)),
            }
        }
    }
}

/// All ends of a call that are reported.
pub(crate) const OUTCOMES: [&str; 10] = [
    "success",
    "transient",
    "throttled",
    "failure",
    "ignored",
    "rejected",
    "timeout",
    "fallback",
    "cancelled",
    "panicked",
];

/// An attempt that runs. Dropped, it was dropped.
struct Running<'a> {
    op: Op<'a>,
    end: &'a Counter,
}

impl<'a> Running<'a> {
    fn new(op: Op<'a>) -> Self {
        op.record.at_once.enter();
        op.beside.enter();
        Self { op, end: &op.record.made.dropped }
    }

    fn panic(mut self) -> ! {
        self.end = &self.op.record.made.panicked;
        drop(self);
        resume_unwind(Box::new(TOLD_TO))
    }

    fn complete(mut self, result: Result<u32, Verdict>) -> Result<u32, Verdict> {
        self.end = &self.op.record.made.completed;
        if result.is_ok() {
            one_more(&self.op.record.successes);
        }
        result
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.op.record.at_once.leave();
        self.op.beside.leave();
        one_more(self.end);
    }
}
