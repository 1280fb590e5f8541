//! What a circuit breaker does, slowly and obviously: everything is kept in lists, and looked through each time.

use withstand::{CircuitBreaker, CircuitBreakerBuilder, Reason};

use crate::users::ms;

/// The unit of time, in milliseconds. All that happens, happens at a multiple of it, and the slots of the windows below
/// are as long or divide it: then a window of `n` holds what is younger than `n`, and nothing is left to rounding.
pub(crate) const UNIT: u64 = 100;

/// Times are in units.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    pub(crate) count_window: Option<usize>,
    pub(crate) time_window: Option<u64>,
    pub(crate) run: Option<(usize, u64)>,
    /// Rates are in percent.
    pub(crate) failure_rate: u32,
    pub(crate) slow: Option<(u64, u32)>,
    pub(crate) min_calls: usize,
    pub(crate) open_for: u64,
    pub(crate) growth: u32,
    pub(crate) max_open_for: u64,
    pub(crate) probes: usize,
    pub(crate) close_after: usize,
    pub(crate) lease: u64,
}

impl Numbers {
    pub(crate) fn builder(&self) -> CircuitBreakerBuilder {
        let number = |n: usize| u32::try_from(n).unwrap();
        let mut builder = CircuitBreaker::builder()
            .open_for(ms(self.open_for * UNIT))
            .growth(f64::from(self.growth))
            .max_open_for(ms(self.max_open_for * UNIT))
            .probes(number(self.probes))
            .close_after(number(self.close_after))
            .probe_lease(ms(self.lease * UNIT));
        if let Some(calls) = self.count_window {
            builder = builder.count_window(number(calls));
        }
        if let Some(window) = self.time_window {
            builder = builder.time_window(ms(window * UNIT));
        }
        if let Some((failures, span)) = self.run {
            // Runs begin in a millisecond, not at a nanosecond: half a unit less leaves no doubt.
            let span = ms((span * UNIT).saturating_sub(UNIT / 2));
            builder = builder.consecutive_failures(number(failures)).consecutive_span(span);
        }
        if self.count_window.is_some() || self.time_window.is_some() {
            builder = builder.failure_rate(f64::from(self.failure_rate) / 100.0).min_calls(number(self.min_calls));
            if let Some((duration, rate)) = self.slow {
                builder = builder.slow_call(ms(duration * UNIT)).slow_rate(f64::from(rate) / 100.0);
            }
        }
        builder
    }
}

/// A call that was counted while the circuit was closed.
#[derive(Clone, Copy, Debug)]
struct Call {
    at: u64,
    failed: bool,
    slow: bool,
    given_up: bool,
    label: &'static str,
}

/// A probe that is out.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Probe {
    id: u64,
    end: u64,
}

#[derive(Clone, Debug)]
enum Mode {
    Closed { calls: Vec<Call> },
    Open,
    HalfOpen { out: Vec<Probe>, results: Vec<bool> },
    Isolated,
}

/// The circuit of an admitted call, as it was then, and its probe if it is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    era: u64,
    probe: Option<u64>,
}

impl Admission {
    pub(crate) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

/// What the end of a call says of the dependency.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Success { slow: bool },
    GivenUpSlow,
    Failure { slow: bool, label: &'static str },
    Nothing,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    numbers: Numbers,
    pub(crate) now: u64,
    mode: Mode,
    /// Counts transitions and resets.
    era: u64,
    open_until: u64,
    /// The length of the last break.
    open_for: u64,
    pub(crate) reopenings: u32,
    handles: u32,
    next_probe: u64,
    /// What was to be told since the last time.
    pub(crate) told: Vec<String>,
}

impl Model {
    pub(crate) fn new(numbers: Numbers) -> Self {
        let (mode, told) = (Mode::Closed { calls: Vec::new() }, Vec::new());
        let (open_until, open_for) = (0, numbers.open_for);
        Self { numbers, now: 0, mode, era: 0, open_until, open_for, reopenings: 0, handles: 0, next_probe: 0, told }
    }

    /// State, and the rest of a break. To look is to settle a copy: what is seen is what a call would find.
    pub(crate) fn state(&self) -> (&'static str, u64) {
        let mut settled = self.clone();
        settled.settle();
        match settled.mode {
            Mode::Closed { .. } => ("closed", 0),
            Mode::Isolated => ("isolated", 0),
            Mode::Open if settled.now < settled.open_until => ("open", settled.open_until - settled.now),
            Mode::Open | Mode::HalfOpen { .. } => ("half_open", 0),
        }
    }

    /// Calls, failures and slow calls in the window that is shown.
    pub(crate) fn window(&self) -> (usize, usize, usize) {
        match (self.in_time(), self.in_count()) {
            (Some(window), _) | (None, Some(window)) => sums(&window),
            (None, None) => (0, 0, 0),
        }
    }

    /// Failures in a row.
    pub(crate) fn run(&self) -> usize {
        self.numbers.run.map_or(0, |_| self.failures_in_a_row().len())
    }

    /// Probes that are out, have succeeded, have failed.
    pub(crate) fn probes(&self) -> (usize, usize, usize) {
        let Mode::HalfOpen { out, results } = &self.mode else { return (0, 0, 0) };
        let successes = results.iter().filter(|passed| **passed).count();
        (out.len(), successes, results.len() - successes)
    }

    pub(crate) fn admit(&mut self, may_probe: bool) -> Result<Admission, (Reason, Option<u64>)> {
        if may_probe {
            self.settle();
            if matches!(self.mode, Mode::Open) && self.now >= self.open_until {
                self.enter(Mode::HalfOpen { out: Vec::new(), results: Vec::new() });
                self.told.push("half-opened".to_owned());
            }
        }
        let (state, left) = self.state();
        let admission = |era, probe| Ok(Admission { era, probe });
        match (state, &mut self.mode) {
            ("closed", _) => admission(self.era, None),
            ("isolated", _) => Err((Reason::Isolated, None)),
            ("open", _) => Err((Reason::CircuitOpen, Some(left))),
            (_, Mode::HalfOpen { out, results }) if out.len() + results.len() >= self.numbers.probes => {
                let first_end = out.iter().map(|probe| probe.end).min().unwrap();
                let wait = first_end.saturating_sub(self.now).min(self.numbers.open_for);
                Err((Reason::CircuitHalfOpen, Some(wait)))
            }
            (_, Mode::HalfOpen { out, .. }) if may_probe => {
                self.next_probe += 1;
                out.push(Probe { id: self.next_probe, end: self.now + self.numbers.lease });
                admission(self.era, Some(self.next_probe))
            }
            _ => Err((Reason::CircuitHalfOpen, Some(0))),
        }
    }

    /// Whether a call that began then is slow by now, if that is watched.
    pub(crate) fn is_slow(&self, since: u64) -> bool {
        let has_window = self.numbers.count_window.is_some() || self.numbers.time_window.is_some();
        has_window && self.numbers.slow.is_some_and(|(duration, _)| self.now - since >= duration)
    }

    /// An admitted call has ended. True if that was counted.
    pub(crate) fn finish(&mut self, admission: Admission, end: End) -> bool {
        let still_counts = self.take_back(admission);
        let (failed, slow, label) = match end {
            End::Nothing => return false,
            End::Success { slow } => (false, slow, if slow { "slow" } else { "" }),
            End::GivenUpSlow => (false, true, "slow"),
            End::Failure { slow, label } => (true, slow, label),
        };
        match &mut self.mode {
            _ if !still_counts => return false,
            Mode::Closed { calls } => {
                let given_up = matches!(end, End::GivenUpSlow);
                calls.push(Call { at: self.now, failed, slow, given_up, label });
                let last_failure = calls.iter().rev().find(|call| call.failed).map_or("", |call| call.label);
                if let Some(trigger) = self.threshold() {
                    let label = if trigger == "SlowRate" && !failed { "slow" } else { last_failure };
                    self.open(self.now, trigger, label);
                }
            }
            _ => self.count_probe(self.now, !(failed || slow), "Probe", label),
        }
        true
    }

    /// The era to release.
    pub(crate) fn isolate(&mut self) -> u64 {
        self.handles += 1;
        if !matches!(self.mode, Mode::Isolated) {
            self.enter(Mode::Isolated);
        }
        self.told.push(format!("isolated, {}", self.handles));
        self.era
    }

    pub(crate) fn release(&mut self, isolation: u64) {
        if !matches!(self.mode, Mode::Isolated) || self.era != isolation {
            return;
        }
        self.handles -= 1;
        self.told.push(format!("released, {}", self.handles));
        if self.handles == 0 {
            self.close("Release");
        }
    }

    pub(crate) fn reset(&mut self) {
        match self.mode {
            Mode::Closed { .. } => self.enter(Mode::Closed { calls: Vec::new() }),
            Mode::Open | Mode::HalfOpen { .. } | Mode::Isolated => self.close("Reset"),
        }
    }

    /// Notices the leases that have run out, each as of its own end.
    pub(crate) fn settle(&mut self) {
        while let Mode::HalfOpen { out, .. } = &mut self.mode {
            let Some(first) = out.iter().copied().min_by_key(|probe| (probe.end, probe.id)) else { return };
            if first.end > self.now {
                return;
            }
            out.retain(|probe| *probe != first);
            self.told.push(format!("probe expired after {:?}", ms(self.numbers.lease * UNIT)));
            self.count_probe(first.end, false, "Lease", "lease");
        }
    }

    /// Whether a result still counts. If it is a probe's, the probe is no longer out.
    fn take_back(&mut self, admission: Admission) -> bool {
        if admission.era != self.era {
            return false;
        }
        let Some(id) = admission.probe else { return true };
        self.settle();
        let Mode::HalfOpen { out, .. } = &mut self.mode else { return false };
        let before = out.len();
        out.retain(|probe| probe.id != id);
        out.len() < before
    }

    fn count_probe(&mut self, at: u64, passed: bool, trigger: &str, label: &str) {
        let needed = self.numbers.close_after;
        let Mode::HalfOpen { results, .. } = &mut self.mode else { unreachable!() };
        results.push(passed);
        let (_, successes, failures) = self.probes();
        if trigger == "Probe" {
            self.told.push(format!("probe {}, {successes}/{needed}", if passed { "passed" } else { "failed" }));
        }
        if successes >= needed {
            self.close("Probes");
        } else if failures > self.numbers.probes - needed {
            self.open(at, trigger, label);
        }
    }

    fn open(&mut self, at: u64, trigger: &str, label: &str) {
        self.reopenings = if matches!(self.mode, Mode::Closed { .. }) { 0 } else { self.reopenings + 1 };
        let grown = (0..self.reopenings)
            .fold(self.numbers.open_for, |length, _| (length * u64::from(self.numbers.growth)).min(1_000));
        self.open_for = grown.min(self.numbers.max_open_for);
        self.open_until = at + self.open_for;
        self.enter(Mode::Open);
        self.told.push(format!("opened by {trigger}, {label:?}"));
    }

    fn close(&mut self, by: &str) {
        self.reopenings = 0;
        self.handles = 0;
        self.enter(Mode::Closed { calls: Vec::new() });
        self.told.push(format!("closed by {by}"));
    }

    fn enter(&mut self, mode: Mode) {
        self.mode = mode;
        self.era += 1;
    }

    fn calls(&self) -> &[Call] {
        match &self.mode {
            Mode::Closed { calls } => calls,
            _ => &[],
        }
    }

    fn in_time(&self) -> Option<Vec<Call>> {
        let window = self.numbers.time_window?;
        Some(self.calls().iter().copied().filter(|call| self.now - call.at < window).collect())
    }

    fn in_count(&self) -> Option<Vec<Call>> {
        let size = self.numbers.count_window?;
        Some(self.calls().iter().rev().take(size).copied().collect())
    }

    fn failures_in_a_row(&self) -> Vec<Call> {
        self.calls().iter().rev().copied().filter(|call| !call.given_up).take_while(|call| call.failed).collect()
    }

    /// What opens the circuit, if it is to open now.
    fn threshold(&self) -> Option<&'static str> {
        let numbers = &self.numbers;
        let enough_in_count = numbers.min_calls.min(numbers.count_window.unwrap_or(usize::MAX));
        let in_time = self.in_time().filter(|window| window.len() >= numbers.min_calls);
        let in_count = self.in_count().filter(|window| window.len() >= enough_in_count);
        let windows: Vec<_> = [in_time, in_count].into_iter().flatten().collect();
        let reaches = |part: usize, calls: usize, percent: u32| part * 100 >= calls * usize::try_from(percent).unwrap();
        if windows
            .iter()
            .map(|window| sums(window))
            .any(|(calls, failures, _)| reaches(failures, calls, numbers.failure_rate))
        {
            return Some("FailureRate");
        }
        if let Some((_, rate)) = numbers.slow {
            if windows.iter().map(|window| sums(window)).any(|(calls, _, slow)| reaches(slow, calls, rate)) {
                return Some("SlowRate");
            }
        }
        let (length, span) = numbers.run?;
        let run = self.failures_in_a_row();
        let (last, first) = (run.first()?, run.last()?);
        (run.len() >= length && last.at - first.at >= span).then_some("Consecutive")
    }
}

fn sums(window: &[Call]) -> (usize, usize, usize) {
    let count = |which: fn(&Call) -> bool| window.iter().filter(|call| which(call)).count();
    (window.len(), count(|call| call.failed), count(|call| call.slow))
}
