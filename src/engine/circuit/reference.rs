//! The circuit against a slow and obvious model of it, over random histories.

use std::time::Duration;

use proptest::{
    collection::vec,
    option,
    prelude::{Just, ProptestConfig, Strategy, any, prop_oneof},
    proptest,
};

use super::{Change, Circuit, ClosedBy, LEASE, Recorded, Refusal, SLOW, Settings, State, Ticket, Trigger};
use crate::engine::{moment::Moment, rng::Rng, window::Tally};

const MILLI: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit { may_probe: bool },
    Finish { which: usize, end: End },
    Advance { millis: u64 },
    SetLease { millis: u64 },
    Isolate,
    Release,
    Reset,
    Settle,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Success { slow: bool },
    Failure { slow: bool },
    Abandoned,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        3 => any::<bool>().prop_map(|slow| End::Success { slow }),
        4 => any::<bool>().prop_map(|slow| End::Failure { slow }),
        1 => Just(End::Abandoned),
    ];
    prop_oneof![
        12 => prop_oneof![4 => Just(true), 1 => Just(false)].prop_map(|may_probe| Step::Admit { may_probe }),
        12 => (0_usize..4, end).prop_map(|(which, end)| Step::Finish { which, end }),
        6 => prop_oneof![0_u64..150, 0_u64..2_500].prop_map(|millis| Step::Advance { millis }),
        1 => (1_u64..1_000).prop_map(|millis| Step::SetLease { millis }),
        1 => Just(Step::Isolate),
        1 => Just(Step::Release),
        1 => Just(Step::Reset),
        1 => Just(Step::Settle),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let rate = || prop_oneof![Just(0.25), Just(0.5), Just(0.7), Just(1.0)];
    let windows = (
        option::of(1_u32..6),
        option::of((1_u64..1_500).prop_map(Duration::from_millis)),
        option::of((1_u32..4, (0_u64..200).prop_map(Duration::from_millis))),
    );
    let limits = (rate(), option::of(rate()), 0_u32..8);
    let breaks = (1_u64..800, prop_oneof![Just(1.0), Just(1.5), Just(2.0)], 1_u64..2_000);
    let probes = (1_u32..5, 1_u32..5, 1_u64..1_000);
    (windows, limits, breaks, probes).prop_map(|(windows, limits, breaks, probes)| Settings {
        count_window: windows.0,
        time_window: windows.1,
        consecutive: windows.2,
        failure_rate: limits.0,
        slow_rate: limits.1,
        min_calls: limits.2,
        open_for: Duration::from_millis(breaks.0),
        growth: breaks.1,
        max_open: Duration::from_millis(breaks.2),
        jitter: 0.0,
        probes: probes.0,
        close_after: probes.1.min(probes.0),
        lease: Duration::from_millis(probes.2),
    })
}

/// A call of the closed state, as the model remembers it: all of them, for ever.
#[derive(Clone, Copy, Debug)]
struct Event {
    at: u64,
    failure: bool,
    slow: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Mode {
    Closed,
    Open,
    HalfOpen { probes: Vec<(u64, u64, u64)>, results: Vec<bool> },
    Isolated,
}

/// Times are nanoseconds.
struct Model {
    settings: Settings,
    mode: Mode,
    era: u32,
    events: Vec<Event>,
    opened_at: u64,
    open_for: u64,
    left_closed_at: u64,
    reopenings: i32,
    handles: u32,
    next_probe: u64,
    lease: u64,
    changes: Vec<Change>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            mode: Mode::Closed,
            era: 0,
            events: Vec::new(),
            opened_at: 0,
            open_for: nanos(settings.open_for),
            left_closed_at: 0,
            reopenings: 0,
            handles: 0,
            next_probe: 1,
            lease: nanos(settings.lease),
            changes: Vec::new(),
            settings,
        }
    }

    fn in_time(&self, now: u64) -> Option<Tally> {
        let slot = (nanos(self.settings.time_window?) / 10).max(1);
        let recent = |event: &&Event| event.at / slot + 10 > now / slot;
        Some(tally(self.events.iter().filter(recent)))
    }

    fn in_count(&self) -> Option<Tally> {
        let size = usize::try_from(self.settings.count_window?).unwrap();
        Some(tally(self.events.iter().rev().take(size)))
    }

    fn run(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev().take_while(|event| event.failure)
    }

    fn min_in_count(&self) -> u32 {
        self.settings.min_calls.min(self.settings.count_window.unwrap_or(u32::MAX))
    }

    fn cause(&self, now: u64) -> Option<(Trigger, Tally)> {
        let settings = &self.settings;
        let time = self.in_time(now).filter(|tally| tally.calls >= settings.min_calls);
        let count = self.in_count().filter(|tally| tally.calls >= self.min_in_count());
        for tally in [time, count].into_iter().flatten() {
            if f64::from(tally.failures) / f64::from(tally.calls) >= settings.failure_rate {
                return Some((Trigger::FailureRate, tally));
            }
        }
        for tally in [time, count].into_iter().flatten() {
            let rate = f64::from(tally.slow) / f64::from(tally.calls);
            if settings.slow_rate.is_some_and(|limit| rate >= limit) {
                return Some((Trigger::SlowRate, tally));
            }
        }
        let (length, span) = settings.consecutive?;
        let run = tally(self.run());
        let start = self.run().last()?.at / MILLI * MILLI;
        let long = run.calls >= length && now - start >= nanos(span);
        let shown = self.in_time(now).or(self.in_count()).unwrap_or(Tally { slow: 0, ..run });
        long.then_some((Trigger::Consecutive, shown))
    }

    fn enter(&mut self, mode: Mode) {
        self.mode = mode;
        self.era += 1;
        self.events.clear();
    }

    fn break_after(&self, reopenings: i32) -> u64 {
        let grown = self.settings.open_for.mul_f64(self.settings.growth.powi(reopenings));
        nanos(grown.min(self.settings.max_open))
    }

    fn open(&mut self, at: u64, trigger: Trigger, tally: Tally, label: &'static str) {
        if self.mode == Mode::Closed {
            self.left_closed_at = at;
            self.reopenings = 0;
        } else {
            self.reopenings += 1;
        }
        self.open_for = self.break_after(self.reopenings);
        self.opened_at = at;
        self.enter(Mode::Open);
        self.changes.push(Change::Opened {
            trigger,
            failure_rate: f64::from(tally.failures) / f64::from(tally.calls),
            slow_rate: f64::from(tally.slow) / f64::from(tally.calls),
            calls: u64::from(tally.calls),
            open_for: Duration::from_nanos(self.open_for),
            reopenings: u32::try_from(self.reopenings).unwrap(),
            label,
        });
    }

    fn close(&mut self, now: u64, by: ClosedBy) {
        self.reopenings = 0;
        self.handles = 0;
        self.enter(Mode::Closed);
        let open_time = Duration::from_nanos(now - self.left_closed_at);
        self.changes.push(Change::Closed { by, open_time });
    }

    /// Adds a result to a half-open phase and draws the conclusion.
    fn result(&mut self, at: u64, success: bool, trigger: Trigger, label: &'static str) {
        let Mode::HalfOpen { results, .. } = &mut self.mode else { unreachable!() };
        results.push(success);
        let successes = u32::try_from(results.iter().filter(|ok| **ok).count()).unwrap();
        let calls = u32::try_from(results.len()).unwrap();
        let failures = calls - successes;
        if trigger == Trigger::Probe {
            let needed = self.settings.close_after;
            self.changes.push(Change::ProbeFinished { success, successes, needed });
        }
        if successes >= self.settings.close_after {
            self.close(at, ClosedBy::Probes);
        } else if failures > self.settings.probes - self.settings.close_after {
            self.open(at, trigger, Tally { calls, failures, slow: 0 }, label);
        }
    }

    fn settle(&mut self, now: u64) {
        loop {
            let Mode::HalfOpen { probes, .. } = &mut self.mode else {
                return;
            };
            probes.sort_by_key(|(_, end, _)| *end);
            let Some((_, end, lease)) = probes.first().copied().filter(|probe| probe.1 <= now) else {
                return;
            };
            probes.remove(0);
            let lease = Duration::from_nanos(lease);
            self.changes.push(Change::ProbeExpired { lease });
            self.result(end, false, Trigger::Lease, LEASE);
        }
    }

    /// The model may change when it is looked at: nobody can tell, or the circuit's `state` would lie.
    fn state(&mut self, now: u64) -> State {
        let kept = (self.mode.clone(), self.era, self.events.clone(), self.changes.len());
        let (opened_at, open_for, reopenings) = (self.opened_at, self.open_for, self.reopenings);
        self.settle(now);
        let end = self.opened_at + self.open_for;
        let state = match &self.mode {
            Mode::Closed => State::Closed,
            Mode::Isolated => State::Isolated,
            Mode::Open if now < end => State::Open { retry_after: Duration::from_nanos(end - now) },
            Mode::Open | Mode::HalfOpen { .. } => State::HalfOpen,
        };
        (self.mode, self.era, self.events) = (kept.0, kept.1, kept.2);
        self.changes.truncate(kept.3);
        (self.opened_at, self.open_for, self.reopenings) = (opened_at, open_for, reopenings);
        state
    }

    fn admit(&mut self, now: u64, may_probe: bool) -> Result<Option<u64>, Refusal> {
        let state = self.state(now);
        if may_probe {
            self.settle(now);
            if self.mode == Mode::Open && state == State::HalfOpen {
                self.enter(Mode::HalfOpen { probes: Vec::new(), results: Vec::new() });
                let open_for_real = Duration::from_nanos(now - self.opened_at);
                self.changes.push(Change::HalfOpened { open_for_real });
            }
        }
        let limit = usize::try_from(self.settings.probes).unwrap();
        match (state, &mut self.mode) {
            (State::Closed, _) => Ok(None),
            (State::Isolated, _) => Err(Refusal::Isolated),
            (State::Open { retry_after }, _) => Err(Refusal::Open { retry_after: retry_after.into() }),
            (_, Mode::HalfOpen { probes, results }) if probes.len() + results.len() == limit => {
                let end = probes.iter().map(|probe| probe.1).min().unwrap();
                let wait = end.saturating_sub(now).min(nanos(self.settings.open_for));
                Err(Refusal::HalfOpen { retry_after: Duration::from_nanos(wait).into() })
            }
            (_, Mode::HalfOpen { probes, .. }) if may_probe => {
                probes.push((self.next_probe, now + self.lease, self.lease));
                self.next_probe += 1;
                Ok(Some(self.next_probe - 1))
            }
            _ => Err(Refusal::HalfOpen { retry_after: Duration::ZERO.into() }),
        }
    }

    fn finish(&mut self, now: u64, era: u32, probe: Option<u64>, end: End) -> Recorded {
        let (failure, slow, label) = match end {
            End::Success { slow } => (false, slow, if slow { SLOW } else { "" }),
            End::Failure { slow } => (true, slow, "boom"),
            End::Abandoned => {
                if probe.is_some() && self.era == era {
                    self.settle(now);
                }
                if let (Mode::HalfOpen { probes, .. }, Some(id)) = (&mut self.mode, probe) {
                    probes.retain(|probe| probe.0 != id);
                }
                return Recorded::Stale;
            }
        };
        if probe.is_some() && self.era == era {
            self.settle(now);
        }
        match (&mut self.mode, probe) {
            _ if self.era != era => Recorded::Stale,
            (Mode::HalfOpen { probes, .. }, Some(id)) => {
                let before = probes.len();
                probes.retain(|probe| probe.0 != id);
                if probes.len() == before {
                    return Recorded::Stale;
                }
                let success = !(failure || slow && self.settings.slow_rate.is_some());
                self.result(now, success, Trigger::Probe, label);
                Recorded::Counted
            }
            _ => {
                self.events.push(Event { at: now, failure, slow });
                if let Some((trigger, tally)) = self.cause(now) {
                    let label = if trigger == Trigger::SlowRate && !failure { SLOW } else { "boom" };
                    self.open(now, trigger, tally, label);
                }
                Recorded::Counted
            }
        }
    }

    fn isolate(&mut self, now: u64) -> u32 {
        self.handles += 1;
        if self.mode == Mode::Closed {
            self.left_closed_at = now;
        }
        if self.mode != Mode::Isolated {
            self.enter(Mode::Isolated);
        }
        self.changes.push(Change::Isolated { handles: self.handles });
        self.era
    }

    fn release(&mut self, isolation: u32, now: u64) {
        if self.mode == Mode::Isolated && self.era == isolation {
            self.handles -= 1;
            self.changes.push(Change::Released { handles: self.handles });
            if self.handles == 0 {
                self.close(now, ClosedBy::Release);
            }
        }
    }

    fn reset(&mut self, now: u64) {
        match self.mode {
            Mode::Closed => self.enter(Mode::Closed),
            _ => self.close(now, ClosedBy::Reset),
        }
    }
}

fn tally<'a, I: Iterator<Item = &'a Event>>(events: I) -> Tally {
    events.fold(Tally::default(), |sum, event| Tally {
        calls: sum.calls + 1,
        failures: sum.failures + u32::from(event.failure),
        slow: sum.slow + u32::from(event.slow),
    })
}

/// Everything that can be seen of the circuit is what the model says.
fn compare(circuit: &Circuit, model: &mut Model, now: u64) {
    let seen = circuit.snapshot(Moment::from_nanos(now));
    assert_eq!(seen.state, model.state(now));
    assert_eq!(circuit.state(Moment::from_nanos(now)), seen.state);
    assert_eq!(seen.generation, model.era);
    assert_eq!(circuit.generation(), model.era);
    assert_eq!(i64::from(seen.reopenings), i64::from(model.reopenings));
    let (out, results) = match &model.mode {
        Mode::HalfOpen { probes, results } => (probes.len(), results.clone()),
        _ => (0, Vec::new()),
    };
    let successes = results.iter().filter(|ok| **ok).count();
    let phase = (seen.probes_in_flight, seen.probe_successes, seen.probe_failures);
    let expected = (out, successes, results.len() - successes);
    assert_eq!((phase.0 as usize, phase.1 as usize, phase.2 as usize), expected);
    let tally = model.in_time(now).or(model.in_count()).unwrap_or_default();
    assert_eq!((seen.calls, seen.failures, seen.slow), (tally.calls, tally.failures, tally.slow));
    let min_calls = match model.settings.time_window {
        Some(_) => model.settings.min_calls,
        None => model.min_in_count(),
    };
    let known = tally.calls >= min_calls.max(1);
    assert_eq!(seen.failure_rate, known.then(|| tally.failure_rate()));
    assert_eq!(seen.slow_rate, known.then(|| tally.slow_rate()));
    if model.settings.consecutive.is_some() {
        assert_eq!(seen.consecutive_failures as usize, model.run().count());
    }
}

fn follow(settings: &Settings, steps: &[Step]) {
    let circuit = Circuit::new(settings.clone(), Rng::seeded(1));
    let mut model = Model::new(settings.clone());
    let mut tickets: Vec<(Ticket<'_>, u32, Option<u64>)> = Vec::new();
    let mut isolations = Vec::new();
    let mut changes = Vec::new();
    let mut now = 7 * MILLI / 2;
    for step in steps {
        let moment = Moment::from_nanos(now);
        match *step {
            Step::Admit { may_probe } => {
                let expected = model.admit(now, may_probe);
                let admitted = circuit.admit(|| moment, may_probe, &mut changes);
                assert_eq!(admitted.as_ref().err(), expected.as_ref().err());
                if let (Ok(ticket), Ok(probe)) = (admitted, expected) {
                    assert_eq!(ticket.is_probe(), probe.is_some());
                    tickets.push((ticket, model.era, probe));
                }
            }
            Step::Finish { which, end } if which < tickets.len() => {
                let (ticket, era, probe) = tickets.remove(which);
                let expected = model.finish(now, era, probe, end);
                let recorded = match end {
                    End::Success { slow } => ticket.success(slow, || moment, &mut changes),
                    End::Failure { slow } => ticket.failure(slow, "boom", || moment, &mut changes),
                    End::Abandoned => {
                        ticket.abandon(|| moment, &mut changes);
                        Recorded::Stale
                    }
                };
                assert_eq!(recorded, expected);
            }
            Step::Finish { .. } => {}
            Step::Advance { millis } => now += millis * MILLI,
            Step::SetLease { millis } => {
                model.lease = millis * MILLI;
                circuit.set_lease(Duration::from_millis(millis));
            }
            Step::Isolate => {
                isolations.push(circuit.isolate(moment, &mut changes));
                assert_eq!(isolations.last(), Some(&model.isolate(now)));
            }
            Step::Release => {
                if let Some(isolation) = isolations.pop() {
                    model.release(isolation, now);
                    circuit.release(isolation, moment, &mut changes);
                }
            }
            Step::Reset => (model.reset(now), circuit.reset(moment, &mut changes)).1,
            Step::Settle => (model.settle(now), circuit.settle(moment, &mut changes)).1,
        }
        compare(&circuit, &mut model, now);
        assert_eq!(changes, model.changes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2_048), ..ProptestConfig::default() })]

    #[test]
    fn the_circuit_does_what_the_model_does(settings in settings(), steps in vec(step(), 1..160)) {
        follow(&settings, &steps);
    }
}
