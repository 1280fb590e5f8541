//! A stage on which attempts play their parts, and a record of who came on when.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use withstand::{
    ClassifyErrors, EventKind, Hedge, HedgeBuilder, HedgeSuppression, HedgeTrigger, Pipeline, Verdict, layers,
};

use crate::support::{Log, ms};

/// An attempt's error: which attempt it was, and the verdict on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) by: u32,
    pub(crate) verdict: Verdict,
}

/// What an attempt does: after so many milliseconds it gives this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) takes: u64,
    pub(crate) verdict: Verdict,
}

pub(crate) const fn gives(takes: u64, verdict: Verdict) -> Part {
    Part { takes, verdict }
}

pub(crate) const fn answers(takes: u64) -> Part {
    gives(takes, Verdict::success())
}

pub(crate) const fn fails(takes: u64) -> Part {
    gives(takes, Verdict::transient())
}

/// Longer than any test.
pub(crate) const HANG: Part = answers(1_000_000_000);

/// Gives attempt `n` its part `n`; those after the last have the last one's.
#[derive(Debug)]
pub(crate) struct Stage {
    parts: Vec<Part>,
    opened: Instant,
    starts: Mutex<Vec<(u32, u64)>>,
    running: AtomicUsize,
    peak: AtomicUsize,
}

impl Stage {
    pub(crate) fn new(parts: impl Into<Vec<Part>>) -> Self {
        Self {
            parts: parts.into(),
            opened: Instant::now(),
            starts: Mutex::default(),
            running: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    /// The next attempt, in the order in which they begin.
    pub(crate) async fn next(&self) -> Result<u32, Fault> {
        let index = u32::try_from(self.starts.lock().unwrap().len()).unwrap();
        self.play(index).await
    }

    /// The attempt of this index.
    pub(crate) async fn play(&self, index: u32) -> Result<u32, Fault> {
        self.starts.lock().unwrap().push((index, self.now()));
        let _on_stage = OnStage::enter(self);
        let part = self.parts.get(usize::try_from(index).unwrap()).or(self.parts.last()).unwrap();
        if part.takes > 0 {
            sleep(ms(part.takes)).await;
        }
        if part.verdict.is_success() { Ok(index) } else { Err(Fault { by: index, verdict: part.verdict }) }
    }

    /// Milliseconds since the stage was opened.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap()
    }

    /// Which attempts began, and when.
    pub(crate) fn starts(&self) -> Vec<(u32, u64)> {
        self.starts.lock().unwrap().clone()
    }

    /// How many run now.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// The most that ever ran at once.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

struct OnStage<'a>(&'a Stage);

impl<'a> OnStage<'a> {
    fn enter(stage: &'a Stage) -> Self {
        let running = stage.running.fetch_add(1, Ordering::SeqCst) + 1;
        stage.peak.fetch_max(running, Ordering::SeqCst);
        Self(stage)
    }
}

impl Drop for OnStage<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) type ByFault = ClassifyErrors<fn(&Fault) -> Verdict>;

pub(crate) fn by_fault() -> fn(&Fault) -> Verdict {
    |fault| fault.verdict
}

/// A hedge of a fixed delay without a budget.
pub(crate) fn every(delay: u64, max_hedges: u32) -> HedgeBuilder {
    Hedge::builder().delay(ms(delay)).max_hedges(max_hedges).without_budget()
}

/// A pipeline of that hedge alone.
pub(crate) fn hedged(hedge: HedgeBuilder, log: &Log) -> Pipeline<layers![Hedge], ByFault> {
    Pipeline::builder("replicas").hedge(hedge).classify_errors(by_fault()).observer(log.clone()).build().unwrap()
}

/// The hedges that began.
pub(crate) fn hedges(log: &Log) -> Vec<(u32, Duration, HedgeTrigger)> {
    log.pick(|kind| match kind {
        EventKind::Hedged { hedge, delay, trigger, .. } => Some((hedge, delay, trigger)),
        _ => None,
    })
}

/// Why those did not begin that did not.
pub(crate) fn suppressed(log: &Log) -> Vec<HedgeSuppression> {
    log.pick(|kind| match kind {
        EventKind::HedgeSuppressed { why, .. } => Some(why),
        _ => None,
    })
}

/// Attempts, hedges and winner of each call that finished.
pub(crate) fn finished(log: &Log) -> Vec<(u32, u32, u32)> {
    log.pick(|kind| match kind {
        EventKind::CallFinished { attempts, hedges, winner, .. } => Some((attempts, hedges, winner)),
        _ => None,
    })
}
