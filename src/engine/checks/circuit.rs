//! The circuit and its count window.

use std::time::Duration;

use super::{Arc, run, thread};
use crate::engine::{
    circuit::{Change, Circuit, ClosedBy, Recorded, Refusal, Settings, State, Ticket, Trigger},
    moment::Moment,
    rng::Rng,
    window::{CountWindow, Outcome, Tally},
};

const fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

/// Opens at the first failure, for 10 ns; `probes` of which all must succeed; leases of 100 ns.
fn fragile(probes: u32) -> Settings {
    Settings {
        count_window: Some(1),
        time_window: None,
        consecutive: None,
        failure_rate: 1.0,
        slow_rate: None,
        min_calls: 1,
        open_for: Duration::from_nanos(10),
        growth: 1.0,
        max_open: Duration::from_nanos(10),
        jitter: 0.0,
        probes,
        close_after: probes,
        lease: Duration::from_nanos(100),
    }
}

fn circuit(settings: Settings) -> Arc<Circuit> {
    Arc::new(Circuit::new(settings, Rng::seeded(1)))
}

fn fail(circuit: &Circuit, now: Moment) -> Recorded {
    let mut changes = Vec::new();
    let ticket = circuit.admit(|| now, true, &mut changes);
    ticket.expect("the circuit is closed").failure(false, "boom", || now, &mut changes)
}

#[test]
fn at_the_moment_of_half_opening_no_more_than_the_probes_are_out() {
    run(|| {
        let circuit = circuit(fragile(1));
        assert_eq!(fail(&circuit, at(0)), Recorded::Counted);
        let admit = |circuit: &Circuit| {
            let mut changes = Vec::new();
            let admitted = circuit.admit(|| at(10), true, &mut changes);
            // Kept out: the ticket neither finishes nor is abandoned.
            let probe = admitted.map(std::mem::forget).is_ok();
            (probe, changes.len())
        };
        let others = [(); 2].map(|()| {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || admit(&circuit))
        });
        let mine = admit(&circuit);
        let [one, two] = others.map(|other| other.join().expect("a caller does not panic"));

        let probes = [mine.0, one.0, two.0].into_iter().filter(|probe| *probe);
        assert_eq!(probes.count(), 1, "one probe, not none and not more");
        assert_eq!(mine.1 + one.1 + two.1, 1, "it half-opened once");
        assert_eq!(circuit.snapshot(at(10)).probes_in_flight, 1);
    });
}

#[test]
fn an_abandoned_probe_makes_room_whoever_asks_meanwhile() {
    run(|| {
        let circuit = circuit(fragile(1));
        assert_eq!(fail(&circuit, at(0)), Recorded::Counted);
        let probe_and_abandon = |circuit: &Circuit| {
            drop(circuit.admit(|| at(10), true, &mut Vec::new()));
        };
        let other = thread::spawn({
            let circuit = Arc::clone(&circuit);
            move || probe_and_abandon(&circuit)
        });
        probe_and_abandon(&circuit);
        other.join().expect("a caller does not panic");

        let mut changes = Vec::new();
        let ticket = circuit.admit(|| at(10), true, &mut changes).expect("nobody is out");
        assert_eq!(ticket.success(false, || at(10), &mut changes), Recorded::Counted);
        assert_eq!(circuit.state(at(10)), State::Closed);
    });
}

/// With both windows and the streak, so that every word has its race.
#[test]
fn a_result_that_races_with_a_reset_counts_before_it_or_not_at_all() {
    run(|| {
        let circuit = circuit(Settings {
            count_window: Some(4),
            time_window: Some(Duration::from_micros(1)),
            consecutive: Some((100, Duration::ZERO)),
            min_calls: 100,
            failure_rate: 1.0,
            ..fragile(1)
        });
        let other = thread::spawn({
            let circuit = Arc::clone(&circuit);
            move || {
                let before = circuit.generation();
                let recorded = fail(&circuit, at(1));
                (before, recorded)
            }
        });
        circuit.reset(at(2), &mut Vec::new());
        assert_eq!(fail(&circuit, at(3)), Recorded::Counted);
        let (before, recorded) = other.join().expect("a recorder does not panic");

        let seen = circuit.snapshot(at(3));
        assert_eq!(seen.generation, 1);
        assert_eq!(seen.calls, seen.failures);
        assert_eq!(seen.calls, seen.consecutive_failures);
        // Ours is there in any case. Theirs is if the call began after the reset, which it did if the reset was seen
        // before, and did not if the result was stale.
        assert!((1..=2).contains(&seen.calls));
        assert!(before == 0 || seen.calls == 2);
        assert!(recorded == Recorded::Counted || seen.calls == 1);
    });
}

#[test]
fn of_two_failures_that_trip_at_once_one_opens_and_a_reset_leaves_nothing_behind() {
    run(|| {
        let circuit = circuit(fragile(1));
        let trip = |circuit: &Circuit| {
            let mut changes = Vec::new();
            if let Ok(ticket) = circuit.admit(|| at(1), false, &mut changes) {
                let _ = ticket.failure(false, "boom", || at(1), &mut changes);
            }
            changes.len()
        };
        let other = thread::spawn({
            let circuit = Arc::clone(&circuit);
            move || trip(&circuit)
        });
        let mine = trip(&circuit);
        let theirs = other.join().expect("a recorder does not panic");

        assert_eq!(mine + theirs, 1, "one opening");
        let mut changes = Vec::new();
        circuit.reset(at(2), &mut changes);
        assert_eq!(changes.len(), 1);
        let seen = circuit.snapshot(at(2));
        assert_eq!((seen.state, seen.calls), (State::Closed, 0));
    });
}

#[test]
fn a_count_window_adds_up_to_its_ring_once_its_recorders_are_done() {
    run(|| {
        let window = Arc::new(CountWindow::new(1));
        window.begin(7);
        let record = |window: &CountWindow, failure| {
            let outcome = Outcome { failure, slow: !failure };
            window.record(7, outcome).expect("the generation is current")
        };
        let others = [(); 2].map(|()| {
            let window = Arc::clone(&window);
            thread::spawn(move || record(&window, true))
        });
        let mine = record(&window, false);
        let [one, two] = others.map(|other| other.join().expect("a recorder does not panic"));

        for tally in [mine, one, two] {
            assert!(tally.failures <= tally.calls && tally.slow <= tally.calls);
        }
        assert_eq!(window.tally(7), window.recount(7));
        assert_eq!(window.tally(7).calls, 1);
    });
}

const FINE: Outcome = Outcome { failure: false, slow: false };
const FAILED: Outcome = Outcome { failure: true, slow: false };
const SLOW: Outcome = Outcome { failure: false, slow: true };

/// Two recorders at once, on a window that holds these: what all of them were told, and what it holds in the end.
fn recorded_at_once(holds: &[Outcome], mine: Outcome, theirs: Outcome) -> ([Tally; 2], Tally) {
    let size = u32::try_from(holds.len()).expect("a small window");
    let window = Arc::new(CountWindow::new(size));
    window.begin(7);
    let record = |window: &CountWindow, outcome| window.record(7, outcome).expect("the generation is current");
    for outcome in holds {
        record(&window, *outcome);
    }
    let other = thread::spawn({
        let window = Arc::clone(&window);
        move || record(&window, theirs)
    });
    let told = record(&window, mine);
    let told = [told, other.join().expect("a recorder does not panic")];
    let end = window.tally(7);
    assert_eq!(end, window.recount(7), "{mine:?} and {theirs:?} in {holds:?}");
    assert_eq!(end.calls, size);
    (told, end)
}

/// A place that holds the same already is left alone: whatever else happens to it meanwhile.
#[test]
fn of_two_recorders_of_which_one_may_change_nothing_one_is_told_what_the_window_holds_in_the_end() {
    for holds in [&[FINE][..], &[FAILED], &[FAILED, FINE], &[SLOW, FAILED]] {
        for (mine, theirs) in [(FINE, FINE), (FINE, FAILED), (FAILED, FAILED), (FAILED, SLOW), (FAILED, FINE)] {
            run(move || {
                let (told, end) = recorded_at_once(holds, mine, theirs);
                // What reaches a threshold is seen by somebody, or the circuit would not open.
                assert!(told.contains(&end), "{mine:?} and {theirs:?} in {holds:?}: {told:?}, not {end:?}");
            });
        }
    }
}

/// The same where a generation begins meanwhile, and the places still hold what the one before left there.
#[test]
fn what_changes_nothing_in_one_generation_counts_in_the_next() {
    for size in [1, 2] {
        for outcome in [FINE, FAILED] {
            run(move || {
                let window = Arc::new(CountWindow::new(size));
                window.begin(1);
                for _ in 0..size {
                    window.record(1, outcome).expect("the generation is current");
                }
                let past = thread::spawn({
                    let window = Arc::clone(&window);
                    move || window.record(1, outcome)
                });
                window.begin(2);
                let told = window.record(2, outcome).expect("the generation is current");
                let told_past = past.join().expect("a recorder does not panic");

                let expected = Tally { calls: 1, failures: u32::from(outcome.failure), slow: 0 };
                assert_eq!((told, window.tally(2), window.recount(2)), (expected, expected, expected));
                let full = Tally { calls: size, failures: size * expected.failures, slow: 0 };
                assert!(told_past.is_err() || told_past == Ok(full), "{told_past:?}");
            });
        }
    }
}

#[test]
fn a_recorder_of_the_past_leaves_a_count_window_alone() {
    run(|| {
        let window = Arc::new(CountWindow::new(2));
        window.begin(1);
        let failed = Outcome { failure: true, slow: false };
        let past = thread::spawn({
            let window = Arc::clone(&window);
            move || window.record(1, failed).is_ok()
        });
        window.begin(2);
        let fine = Outcome { failure: false, slow: false };
        assert!(window.record(2, fine).is_ok());
        past.join().expect("a recorder does not panic");

        let expected = Tally { calls: 1, failures: 0, slow: 0 };
        assert_eq!(window.tally(2), expected);
        assert_eq!(window.recount(2), expected);
        // Nor is the place of the next result lost.
        assert!(window.record(2, fine).is_ok());
        assert_eq!(window.recount(2).calls, 2);
    });
}

#[test]
fn an_expired_lease_and_the_late_verdict_count_once() {
    run(|| {
        let circuit = circuit(fragile(1));
        assert_eq!(fail(&circuit, at(0)), Recorded::Counted);
        let late = thread::spawn({
            let circuit = Arc::clone(&circuit);
            move || {
                let mut changes = Vec::new();
                let ticket = circuit.admit(|| at(10), true, &mut changes);
                // Its lease ends at 110; refused only if the other one was first.
                let recorded = ticket.map(|ticket| ticket.success(false, || at(112), &mut changes));
                (recorded, changes)
            }
        });
        let mut changes = Vec::new();
        let answer = circuit.admit(|| at(112), true, &mut changes).map(std::mem::forget);
        let (recorded, theirs) = late.join().expect("a caller does not panic");

        changes.extend(theirs);
        let expiries = |change: &&Change| matches!(change, Change::ProbeExpired { .. });
        let reopenings = |change: &&Change| {
            let lease = Trigger::Lease;
            matches!(change, Change::Opened { trigger, .. } if *trigger == lease)
        };
        let expired = changes.iter().filter(expiries).count();
        assert_eq!(expired, changes.iter().filter(reopenings).count());
        match recorded {
            Ok(recorded) => {
                assert_eq!(recorded, Recorded::Stale);
                assert_eq!(expired, 1);
                assert!(matches!(circuit.state(at(112)), State::Open { .. } | State::HalfOpen));
            }
            Err(refusal) => {
                assert!(matches!(refusal, Refusal::HalfOpen { .. }));
                assert_eq!((answer, expired), (Ok(()), 0));
            }
        }
    });
}

/// All that can befall a circuit at once: a probe's result, the end of its lease, another caller, and an operator.
#[test]
fn an_isolation_among_results_and_expiring_leases_holds_and_each_probe_ends_once() {
    run(|| {
        let circuit = circuit(fragile(1));
        assert_eq!(fail(&circuit, at(0)), Recorded::Counted);
        // The lease of the first probe ends before the other caller comes.
        let callers = [(at(10), at(20), true), (at(112), at(113), false)].map(|(begin, end, succeeds)| {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || {
                let mut changes = Vec::new();
                let ticket = circuit.admit(|| begin, true, &mut changes).ok();
                let probes = ticket.as_ref().is_some_and(Ticket::is_probe);
                let recorded = ticket.map(|ticket| {
                    if succeeds {
                        ticket.success(false, || end, &mut changes)
                    } else {
                        ticket.failure(false, "boom", || end, &mut changes)
                    }
                });
                (probes && recorded == Some(Recorded::Counted), changes)
            })
        });
        let mut changes = Vec::new();
        let isolation = circuit.isolate(at(112), &mut changes);
        let [first, second] = callers.map(|caller| caller.join().expect("a caller does not panic"));

        // Whatever came before, it is isolated, nobody is out, and nobody gets in.
        let seen = circuit.snapshot(at(112));
        assert_eq!((seen.state, seen.generation, seen.probes_in_flight), (State::Isolated, isolation, 0));
        assert!(matches!(circuit.admit(|| at(1_000), true, &mut changes), Err(Refusal::Isolated)));

        circuit.release(isolation, at(1_000), &mut changes);
        changes.extend(first.1.into_iter().chain(second.1));
        let count = |is_meant: fn(&Change) -> bool| changes.iter().filter(|change| is_meant(change)).count();
        let finished = count(|change| matches!(change, Change::ProbeFinished { .. }));
        let expired = count(|change| matches!(change, Change::ProbeExpired { .. }));
        assert_eq!(finished, usize::from(first.0) + usize::from(second.0));
        assert!(expired == 0 || !first.0, "a lease that has expired leaves no result to count");
        let isolated = count(|change| matches!(change, Change::Isolated { .. }));
        let released = count(|change| matches!(change, Change::Closed { by: ClosedBy::Release, .. }));
        assert_eq!((isolated, released), (1, 1));
        // It begins anew, and nothing of before is in its window.
        let seen = circuit.snapshot(at(1_000));
        assert_eq!((seen.state, seen.calls), (State::Closed, 0));
        assert_eq!(fail(&circuit, at(1_001)), Recorded::Counted);
    });
}
