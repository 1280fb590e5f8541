//! What is known of the calls of a closed phase, and whether it is enough to open the circuit.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::engine::{
    moment::Moment,
    tuned::Tuned,
    window::{CountWindow, Outcome, Run, Stale, Streak, Tally, TimeWindow},
};

use super::{
    report::{Opening, SLOW, Trigger},
    settings::Settings,
};

/// The caller's clock: read when something first needs the time, and only once.
pub(super) struct Reading<F> {
    read: Option<F>,
    moment: Moment,
}

impl<F: FnOnce() -> Moment> Reading<F> {
    #[inline]
    pub(super) fn new(read: F) -> Self {
        Self { read: Some(read), moment: Moment::NEVER }
    }

    pub(super) fn get(&mut self) -> Moment {
        if let Some(read) = self.read.take() {
            self.moment = read();
        }
        self.moment
    }
}

/// What finished, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    pub(super) outcome: Outcome,
    /// Whether it would have been a success or a failure is not known.
    given_up: bool,
    label: &'static str,
}

impl Finished {
    #[inline]
    pub(super) fn success(slow: bool) -> Self {
        Self { outcome: Outcome { failure: false, slow }, given_up: false, label: if slow { SLOW } else { "" } }
    }

    pub(super) fn failure(slow: bool, label: &'static str) -> Self {
        Self { outcome: Outcome { failure: true, slow }, given_up: false, label }
    }

    /// It was slow already when it was given up.
    pub(super) fn given_up() -> Self {
        Self { given_up: true, ..Self::success(true) }
    }
}

/// Why the circuit opens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cause {
    pub(super) trigger: Trigger,
    pub(super) tally: Tally,
    pub(super) label: &'static str,
}

impl Cause {
    pub(super) fn new(trigger: Trigger, tally: Tally, finished: Finished) -> Self {
        Self { trigger, tally, label: finished.label }
    }
}

impl From<Cause> for Opening {
    fn from(Cause { trigger, tally, label }: Cause) -> Self {
        let (failure_rate, slow_rate) = (tally.failure_rate(), tally.slow_rate());
        Self { trigger, failure_rate, slow_rate, calls: tally.calls, label }
    }
}

/// The windows of a circuit and their thresholds.
#[derive(Debug)]
pub(super) struct Evidence {
    time: Option<TimeWindow>,
    count: Option<CountWindow>,
    streak: Option<(Streak, Tuned<u32>, Tuned<Duration>)>,
    failure_rate: Tuned<f64>,
    slow_rate: Tuned<Option<f64>>,
    min_calls: Tuned<u32>,
    /// More calls than the window has room for would never be seen. Time has room for any number.
    most_in_count: u32,
    /// How the last failure went, to tell if a success then fills the window. A lock of std's in the models too: it is
    /// only taken by what failed, and guards nothing else.
    last_failure: Mutex<&'static str>,
}

impl Evidence {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            time: settings.time_window.map(TimeWindow::new),
            count: settings.count_window.map(CountWindow::new),
            streak: settings.consecutive.map(|(length, span)| (Streak::new(), Tuned::new(length), Tuned::new(span))),
            failure_rate: Tuned::new(settings.failure_rate),
            slow_rate: Tuned::new(settings.slow_rate),
            min_calls: Tuned::new(settings.min_calls),
            most_in_count: settings.count_window.unwrap_or(u32::MAX),
            last_failure: Mutex::new(""),
        }
    }

    /// Changes the thresholds, and neither the windows nor what is in them.
    #[cfg(feature = "serde")]
    pub(super) fn set(&self, settings: &Settings) {
        self.failure_rate.set(settings.failure_rate);
        self.slow_rate.set(settings.slow_rate);
        self.min_calls.set(settings.min_calls);
        if let (Some((_, length, span)), Some((failures, over))) = (&self.streak, settings.consecutive) {
            length.set(failures);
            span.set(over);
        }
    }

    fn min_in_count(&self) -> u32 {
        self.min_calls.get().min(self.most_in_count)
    }

    /// Starts the generation knowing nothing. One thread at a time, and before any recorder learns the generation.
    pub(super) fn begin(&self, generation: u32) {
        if let Some(time) = &self.time {
            time.begin(generation);
        }
        if let Some(count) = &self.count {
            count.begin(generation);
        }
        if let Some((streak, ..)) = &self.streak {
            streak.begin(generation);
        }
    }

    /// Whether a success that was not slow would leave all counts as they are.
    #[inline(always)]
    pub(super) fn success_changes_nothing(&self, generation: u32) -> bool {
        self.time.is_none()
            && self.count.as_ref().is_none_or(|count| count.success_changes_nothing(generation))
            && self.streak.as_ref().is_none_or(|(streak, ..)| streak.success_changes_nothing(generation))
    }

    /// Takes a result in. Gives the reason to open if there now is one.
    #[inline]
    pub(super) fn record<F: FnOnce() -> Moment>(
        &self,
        generation: u32,
        finished: Finished,
        now: &mut Reading<F>,
    ) -> Result<Option<Cause>, Stale> {
        let outcome = finished.outcome;
        if outcome.failure {
            self.keep(finished.label);
        }
        let in_time = match &self.time {
            Some(time) => time.record(generation, outcome, now.get())?,
            None => None,
        };
        let in_count = match &self.count {
            Some(count) => Some(count.record(generation, outcome)?),
            None => None,
        };
        let run = match &self.streak {
            Some((streak, ..)) if outcome.failure => Some(streak.failure(generation, now.get())?),
            Some((streak, ..)) if !finished.given_up => streak.success(generation).map(|()| None)?,
            _ => None,
        };
        // The usual case, and no threshold is as low as zero.
        if run.is_none() && in_time.is_none_or(Tally::is_spotless) && in_count.is_none_or(Tally::is_spotless) {
            return Ok(None);
        }
        Ok(self.cause(finished, run, in_time, in_count, now))
    }

    #[cold]
    fn cause<F: FnOnce() -> Moment>(
        &self,
        finished: Finished,
        run: Option<Run>,
        in_time: Option<Tally>,
        in_count: Option<Tally>,
        now: &mut Reading<F>,
    ) -> Option<Cause> {
        let tripped =
            self.tripped_by_rate(in_time, in_count).or_else(|| self.tripped_by_streak(run?, now, in_time.or(in_count)));
        let (trigger, tally) = tripped?;
        let label = match trigger {
            _ if finished.outcome.failure => finished.label,
            Trigger::SlowRate => SLOW,
            _ => *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner),
        };
        Some(Cause { trigger, tally, label })
    }

    #[cold]
    fn keep(&self, label: &'static str) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = label;
    }

    /// The window to show to people, with its rates if it holds enough calls, and the run of failures.
    pub(super) fn view(&self, generation: u32, now: Moment) -> (Tally, bool, u32) {
        let (tally, min_calls) = match (&self.time, &self.count) {
            (Some(time), _) => (time.tally(generation, now), self.min_calls.get()),
            (None, Some(count)) => (count.tally(generation), self.min_in_count()),
            (None, None) => (Tally::default(), self.min_calls.get()),
        };
        let known = tally.calls > 0 && tally.calls >= min_calls;
        let run = self.streak.as_ref().map_or(0, |(streak, ..)| streak.length(generation));
        (tally, known, run)
    }

    fn tripped_by_rate(&self, in_time: Option<Tally>, in_count: Option<Tally>) -> Option<(Trigger, Tally)> {
        let filled = [
            in_time.filter(|tally| tally.calls >= self.min_calls.get()),
            in_count.filter(|tally| tally.calls >= self.min_in_count()),
        ];
        let first = |exceeds: &dyn Fn(&Tally) -> bool| filled.into_iter().flatten().find(exceeds);
        let limit = self.failure_rate.get();
        let by_failures = first(&|tally| tally.failure_rate() >= limit);
        let by_slowness = || {
            let limit = self.slow_rate.get()?;
            first(&|tally| tally.slow_rate() >= limit)
        };
        by_failures
            .map(|tally| (Trigger::FailureRate, tally))
            .or_else(|| by_slowness().map(|tally| (Trigger::SlowRate, tally)))
    }

    fn tripped_by_streak<F: FnOnce() -> Moment>(
        &self,
        run: Run,
        now: &mut Reading<F>,
        tally: Option<Tally>,
    ) -> Option<(Trigger, Tally)> {
        let (_, length, span) = self.streak.as_ref()?;
        let long_enough = run.length >= length.get() && now.get().since(run.start) >= span.get();
        // Without a window the run itself is all that was looked at.
        let tally = tally.unwrap_or(Tally { calls: run.length, failures: run.length, slow: 0 });
        long_enough.then_some((Trigger::Consecutive, tally))
    }
}
