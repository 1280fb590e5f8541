//! What several tests need: an observer that collects, and an operation that follows a script.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod trials;

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep};
use withstand::{Event, EventKind, Observer, Verdict};

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// One of each kind.
pub(crate) const EVERY_VERDICT: [Verdict; 7] = [
    Verdict::success(),
    Verdict::transient(),
    Verdict::unreached(),
    Verdict::throttled(),
    Verdict::failure(),
    Verdict::ignored(),
    Verdict::rejected(),
];

/// The classifier of operations whose error is the verdict on it: `.classify_errors(as_it_says)`.
pub(crate) fn as_it_says(verdict: &Verdict) -> Verdict {
    *verdict
}

/// Collects events. Its clones share what they hear.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Heard>>>);

/// An event, and who reported it.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) pipeline: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) kind: EventKind,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn all(&self) -> Vec<Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn kinds(&self) -> Vec<EventKind> {
        self.all().into_iter().map(|heard| heard.kind).collect()
    }

    /// What `pick` makes of each event that it picks.
    pub(crate) fn pick<R>(&self, pick: impl FnMut(EventKind) -> Option<R>) -> Vec<R> {
        self.kinds().into_iter().filter_map(pick).collect()
    }

    pub(crate) fn count(&self, is_meant: impl Fn(&EventKind) -> bool) -> usize {
        self.kinds().iter().filter(|kind| is_meant(kind)).count()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        let heard = Heard {
            pipeline: event.pipeline.map(ToString::to_string),
            policy: event.policy.map(|policy| policy.name().to_string()),
            kind: event.kind.clone(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
    }
}

/// One attempt of a [`Script`]: how long it takes, and what it gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) takes: Duration,
    pub(crate) gives: Result<u32, Verdict>,
}

/// An operation that goes through its steps, attempt by attempt; all attempts after the last step are like that one.
#[derive(Debug)]
pub(crate) struct Script {
    steps: Vec<Step>,
    starts: Mutex<Vec<Instant>>,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps: Vec<_> = steps.into_iter().collect();
        assert!(!steps.is_empty(), "a script has at least one step");
        Self { steps, starts: Mutex::default() }
    }

    /// Attempts that are ready at once.
    pub(crate) fn ready(results: impl IntoIterator<Item = Result<u32, Verdict>>) -> Self {
        Self::new(results.into_iter().map(|gives| Step { takes: Duration::ZERO, gives }))
    }

    /// The same at every attempt, at once.
    pub(crate) fn always(result: Result<u32, Verdict>) -> Self {
        Self::ready([result])
    }

    pub(crate) async fn attempt(&self) -> Result<u32, Verdict> {
        let index = {
            let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
            starts.push(Instant::now());
            starts.len().min(self.steps.len()) - 1
        };
        let Step { takes, gives } = self.steps[index];
        if !takes.is_zero() {
            sleep(takes).await;
        }
        gives
    }

    pub(crate) fn attempts(&self) -> usize {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// When the attempts began.
    pub(crate) fn starts(&self) -> Vec<Instant> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The time from the start of each attempt to the start of the next.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        self.starts().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

/// The output of a future, or the message that it panicked with. It is dropped before this returns.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|task| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(task))) {
        Ok(poll) => poll.map(Ok),
        Err(payload) => {
            let message = payload.downcast_ref::<&str>().map(ToString::to_string);
            Poll::Ready(Err(message.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()))
        }
    })
    .await
}
