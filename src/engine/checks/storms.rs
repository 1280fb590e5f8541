//! Longer bodies: several threads, several calls each, and somebody who intervenes meanwhile.

use std::time::Duration;

use super::{Arc, run, thread};
use crate::engine::{
    budget::{Budget, Edge, Slot, Withdrawal},
    circuit::{Change, Circuit, ClosedBy, Recorded, Settings, State},
    moment::Moment,
    rng::Rng,
    sync::{AtomicU64, Mutex, Ordering},
    window::{CountWindow, Outcome, TimeWindow},
};

/// Two of four failures open it for 3 ns; two probes, both must succeed; a lease lasts 6 ns.
fn nervous() -> Settings {
    Settings {
        count_window: Some(4),
        time_window: Some(Duration::from_nanos(40)),
        consecutive: Some((3, Duration::ZERO)),
        failure_rate: 0.5,
        slow_rate: Some(1.0),
        min_calls: 2,
        open_for: Duration::from_nanos(3),
        growth: 2.0,
        max_open: Duration::from_nanos(12),
        jitter: 0.0,
        probes: 2,
        close_after: 2,
        lease: Duration::from_nanos(6),
    }
}

/// A clock that moves on whenever somebody looks.
struct Ticking(AtomicU64);

impl Ticking {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// A circuit under several callers, with what they saw.
struct Storm {
    circuit: Circuit,
    clock: Ticking,
    changes: Mutex<Vec<Change>>,
}

impl Storm {
    fn new(settings: Settings) -> Arc<Self> {
        let circuit = Circuit::new(settings, Rng::seeded(7));
        Arc::new(Self { circuit, clock: Ticking(AtomicU64::new(1)), changes: Mutex::new(Vec::new()) })
    }

    fn note(&self, changes: Vec<Change>) {
        self.changes.lock().expect("nobody panics").extend(changes);
    }

    /// One call that ends as the number says: well, badly, slowly, given up, or never.
    fn call(&self, end: u64) {
        let mut changes = Vec::new();
        let now = || self.clock.now();
        if let Ok(ticket) = self.circuit.admit(now, true, &mut changes) {
            let _recorded = match end % 5 {
                0 => ticket.success(false, now, &mut changes),
                1 | 2 => ticket.failure(false, "boom", now, &mut changes),
                3 => {
                    ticket.abandon(now, &mut changes);
                    Recorded::Stale
                }
                _ => {
                    std::mem::forget(ticket);
                    Recorded::Stale
                }
            };
        }
        self.note(changes);
        let seen = self.circuit.snapshot(self.clock.now());
        assert!(seen.probes_in_flight <= 2 && seen.calls >= seen.failures.max(seen.slow));
    }

    fn count(&self, what: impl Fn(&Change) -> bool) -> usize {
        self.changes.lock().expect("nobody panics").iter().filter(|change| what(change)).count()
    }

    /// Whatever has happened, after a reset it is as new.
    fn assert_sound(&self) {
        let mut changes = Vec::new();
        self.circuit.reset(self.clock.now(), &mut changes);
        self.note(changes);
        let seen = self.circuit.snapshot(self.clock.now());
        assert_eq!((seen.state, seen.calls, seen.probes_in_flight), (State::Closed, 0, 0));
        let mut changes = Vec::new();
        let ticket = self.circuit.admit(|| self.clock.now(), true, &mut changes).expect("it is closed");
        assert_eq!(ticket.success(false, || self.clock.now(), &mut changes), Recorded::Counted);
        assert_eq!(self.circuit.snapshot(self.clock.now()).calls, 1);
    }
}

fn storm(settings: Settings, intervene: fn(&Storm)) -> Arc<Storm> {
    let storm = Storm::new(settings);
    let callers = [0, 1, 2].map(|caller| {
        let storm = Arc::clone(&storm);
        thread::spawn(move || (0..4).for_each(|call| storm.call(caller * 3 + call)))
    });
    intervene(&storm);
    for caller in callers {
        caller.join().expect("a caller does not panic");
    }
    storm
}

#[test]
fn every_departure_from_closed_ends_in_one_return() {
    run(|| {
        let storm = storm(nervous(), |storm| {
            for _ in 0..2 {
                let mut changes = Vec::new();
                storm.circuit.settle(storm.clock.now(), &mut changes);
                storm.circuit.reset(storm.clock.now(), &mut changes);
                storm.note(changes);
            }
        });
        storm.assert_sound();
        let opened = storm.count(|change| matches!(change, Change::Opened { reopenings: 0, .. }));
        let reopened = storm.count(|change| matches!(change, Change::Opened { reopenings: 1.., .. }));
        let half_opened = storm.count(|change| matches!(change, Change::HalfOpened { .. }));
        let closed = storm.count(|change| matches!(change, Change::Closed { .. }));
        let by_probes = storm.count(|change| matches!(change, Change::Closed { by: ClosedBy::Probes, .. }));
        assert_eq!(opened, closed);
        assert!(reopened + by_probes <= half_opened && half_opened <= opened + reopened);
    });
}

#[test]
fn an_isolation_among_calls_holds_until_it_is_released() {
    run(|| {
        let storm = storm(nervous(), |storm| {
            let mut changes = Vec::new();
            let one = storm.circuit.isolate(storm.clock.now(), &mut changes);
            let other = storm.circuit.isolate(storm.clock.now(), &mut changes);
            storm.circuit.release(one, storm.clock.now(), &mut changes);
            assert_eq!(storm.circuit.state(storm.clock.now()), State::Isolated);
            storm.circuit.release(other, storm.clock.now(), &mut changes);
            storm.note(changes);
        });
        storm.assert_sound();
        let isolated = storm.count(|change| matches!(change, Change::Isolated { .. }));
        let released = storm.count(|change| matches!(change, Change::Released { .. }));
        let by_release = storm.count(|change| matches!(change, Change::Closed { by: ClosedBy::Release, .. }));
        assert_eq!((isolated, released, by_release), (2, 2, 1));
    });
}

#[test]
fn a_phase_never_has_more_probes_out_than_it_may() {
    run(|| {
        // No lease ends here: what is out is out until it comes back.
        let storm = Storm::new(Settings { lease: Duration::from_secs(1), ..nervous() });
        let out = Arc::new(Mutex::new(Vec::<u32>::new()));
        let callers = [0, 1, 2].map(|caller: u64| {
            let (storm, out) = (Arc::clone(&storm), Arc::clone(&out));
            thread::spawn(move || {
                for call in 0..4 {
                    let mut changes = Vec::new();
                    let Ok(ticket) = storm.circuit.admit(|| storm.clock.now(), true, &mut changes) else { continue };
                    let phase = ticket.generation();
                    if ticket.is_probe() {
                        // Noted after it went out and struck off before it comes back: never more than there are.
                        let mut out = out.lock().expect("nobody panics");
                        out.push(phase);
                        assert!(out.iter().filter(|other| **other == phase).count() <= 2);
                    }
                    if ticket.is_probe() {
                        let mut out = out.lock().expect("nobody panics");
                        let mine = out.iter().position(|other| *other == phase).expect("it was noted");
                        out.swap_remove(mine);
                    }
                    let now = || storm.clock.now();
                    let _recorded = match (caller + call) % 3 {
                        0 => ticket.failure(false, "boom", now, &mut changes),
                        1 => ticket.success(false, now, &mut changes),
                        _ => {
                            ticket.abandon(now, &mut changes);
                            Recorded::Stale
                        }
                    };
                }
            })
        });
        for caller in callers {
            caller.join().expect("a caller does not panic");
        }
        storm.assert_sound();
    });
}

const FAILED: Outcome = Outcome { failure: true, slow: false };
const SLOW: Outcome = Outcome { failure: false, slow: true };

#[test]
fn a_count_window_that_is_run_over_many_times_still_adds_up() {
    run(|| {
        let window = Arc::new(CountWindow::new(3));
        window.begin(1);
        let recorders = [FAILED, SLOW, FAILED].map(|outcome| {
            let window = Arc::clone(&window);
            thread::spawn(move || {
                for _ in 0..5 {
                    let tally = window.record(1, outcome).expect("the generation is current");
                    assert!(tally.calls <= 3 && tally.failures.max(tally.slow) <= tally.calls);
                }
            })
        });
        for recorder in recorders {
            recorder.join().expect("a recorder does not panic");
        }
        assert_eq!(window.tally(1), window.recount(1));
        assert_eq!(window.tally(1).calls, 3);
    });
}

#[test]
fn a_time_window_counts_all_that_is_in_it_and_nothing_else() {
    run(|| {
        let window = Arc::new(TimeWindow::new(Duration::from_nanos(100)));
        window.begin(1);
        let recorders = [1, 2, 3].map(|recorder| {
            let window = Arc::clone(&window);
            thread::spawn(move || {
                for call in 0..4 {
                    let now = Moment::from_nanos(recorder * 5 + call * 10);
                    let tally = window.record(1, FAILED, now).expect("the generation is current");
                    assert!(tally.is_none_or(|tally| tally.failures <= tally.calls && tally.calls <= 12));
                }
            })
        });
        for recorder in recorders {
            recorder.join().expect("a recorder does not panic");
        }
        let all = window.tally(1, Moment::from_nanos(50));
        assert_eq!((all.calls, all.failures), (12, 12));
        assert_eq!(window.tally(1, Moment::from_nanos(10_000)).calls, 0);
    });
}

#[test]
fn a_budget_never_grants_more_than_it_was_given() {
    run(|| {
        let budget = Arc::new(Budget::new(0.5, 2, 3).expect("these settings are valid"));
        let deposits = 4_u32;
        let spenders = [(); 3].map(|()| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || {
                let mut spent = 0_u32;
                for turn in 0..4 {
                    let granted = budget.withdraw() == Withdrawal::Granted;
                    assert!((0.0..=3.0).contains(&budget.balance()));
                    // Every other one did not need it after all.
                    if granted && turn % 2 == 0 {
                        budget.refund(Slot::numbered(turn));
                    } else {
                        spent += u32::from(granted);
                    }
                }
                spent
            })
        });
        for deposit in 0..deposits {
            budget.deposit(Slot::numbered(usize::try_from(deposit).expect("four are few")));
        }
        let spent: u32 = spenders.into_iter().map(|spender| spender.join().expect("a spender does not panic")).sum();
        assert!(f64::from(spent) + budget.balance() <= 2.0 + 0.5 * f64::from(deposits) + 1e-9);
    });
}

#[test]
fn below_its_cap_a_budget_holds_all_that_came_and_did_not_go() {
    run(|| {
        // All that can come is 6.5; half of the cap refills it.
        let budget = Arc::new(Budget::new(0.5, 2, 7).expect("these settings are valid"));
        let threads = [0, 1, 2].map(|slot| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || {
                let (mut spent, mut edges) = (0_u32, Vec::new());
                for turn in 0..3 {
                    match budget.withdraw() {
                        Withdrawal::Granted if turn == 1 => budget.refund(Slot::numbered(slot)),
                        Withdrawal::Granted => spent += 1,
                        Withdrawal::Refused { edges: told } => edges.extend(told),
                    }
                    edges.push(budget.deposit(Slot::numbered(slot)));
                }
                (spent, edges)
            })
        });
        let ends = threads.map(|thread| thread.join().expect("nobody panics"));
        let left = 2.0 + 0.5 * 9.0 - f64::from(ends.iter().map(|(spent, _)| spent).sum::<u32>());
        assert!((budget.balance() - left).abs() < 1e-9, "{} and not {left}", budget.balance());

        let count = |edge| ends.iter().flat_map(|(_, edges)| edges).filter(|&&told| told == Some(edge)).count();
        let (emptied, refilled) = (count(Edge::Emptied), count(Edge::Refilled));
        assert!(emptied == refilled || emptied == refilled + 1 && left < 3.5, "{emptied}, {refilled} and {left}");
    });
}
