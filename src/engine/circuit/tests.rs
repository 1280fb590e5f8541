//! Case by case; `reference` covers what lies between them.

use std::{
    sync::{Barrier, atomic, mpsc},
    thread,
    time::Duration,
};

use super::{Change, Circuit, ClosedBy, LEASE, Recorded, Refusal, SLOW, Settings, State, Ticket, Trigger};
use crate::engine::{moment::Moment, rng::Rng};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A time window of 10 s, half of at least 10 calls, 1 s of break, one probe, 3 s of lease.
fn settings() -> Settings {
    Settings {
        count_window: None,
        time_window: Some(ms(10_000)),
        consecutive: None,
        failure_rate: 0.5,
        slow_rate: None,
        min_calls: 10,
        open_for: ms(1_000),
        growth: 1.0,
        max_open: ms(60_000),
        jitter: 0.0,
        probes: 1,
        close_after: 1,
        lease: ms(3_000),
    }
}

fn last(size: u32, min_calls: u32) -> Settings {
    Settings { count_window: Some(size), time_window: None, min_calls, ..settings() }
}

fn consecutive(length: u32, span: Duration) -> Settings {
    Settings { time_window: None, consecutive: Some((length, span)), ..settings() }
}

/// A circuit with a clock of its own.
struct Bench {
    circuit: Circuit,
    now: Moment,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self { circuit: Circuit::new(settings, Rng::seeded(1)), now: Moment::from_nanos(0) }
    }

    /// Opened by one failure.
    #[expect(clippy::needless_pass_by_value, reason = "the call sites read better")]
    fn opened(settings: Settings) -> Self {
        let bench = Self::new(Settings { min_calls: 1, ..settings });
        assert!(matches!(bench.fail()[..], [Change::Opened { .. }]));
        bench
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    fn admit(&self) -> Result<Ticket<'_>, Refusal> {
        self.circuit.admit(|| self.now, true, &mut Vec::new())
    }

    fn hedge(&self) -> Option<Refusal> {
        self.circuit.admit(|| self.now, false, &mut Vec::new()).err()
    }

    fn refusal(&self) -> Option<Refusal> {
        self.admit().err()
    }

    fn finish(&self, ticket: Ticket<'_>, failed: bool, slow: bool) -> (Recorded, Vec<Change>) {
        let mut changes = Vec::new();
        let recorded = if failed {
            ticket.failure(slow, "boom", || self.now, &mut changes)
        } else {
            ticket.success(slow, || self.now, &mut changes)
        };
        (recorded, changes)
    }

    fn call(&self, failed: bool, slow: bool) -> Vec<Change> {
        let (recorded, changes) = self.finish(self.admit().unwrap(), failed, slow);
        assert_eq!(recorded, Recorded::Counted);
        changes
    }

    fn fail(&self) -> Vec<Change> {
        self.call(true, false)
    }

    fn succeed(&self) -> Vec<Change> {
        self.call(false, false)
    }

    fn state(&self) -> State {
        self.circuit.state(self.now)
    }

    fn calls(&self) -> u32 {
        self.circuit.snapshot(self.now).calls
    }

    fn is_closed(&self) -> bool {
        self.state() == State::Closed
    }

    /// Follows a word of S (success) and F (failure) and tells whether the circuit is closed at the end.
    fn closed_after(&self, word: &str) -> bool {
        for letter in word.chars() {
            self.call(letter == 'F', false);
        }
        self.is_closed()
    }
}

#[test]
fn it_opens_exactly_on_the_tenth_failure_and_says_so_once() {
    let bench = Bench::new(settings());
    assert!(bench.closed_after("FFFFFFFFF"));
    let opened = Change::Opened {
        trigger: Trigger::FailureRate,
        failure_rate: 1.0,
        slow_rate: 0.0,
        calls: 10,
        open_for: ms(1_000),
        reopenings: 0,
        label: "boom",
    };
    assert_eq!(bench.fail(), [opened]);
    assert!(bench.refusal().is_some());
}

#[test]
fn it_opens_at_the_rate_itself_and_not_below_it() {
    assert!(!Bench::new(settings()).closed_after("SSSSSFFFFF"));
    assert!(Bench::new(settings()).closed_after("SSSSSSFFFF"));
}

#[test]
fn a_success_that_brings_the_calls_to_the_minimum_opens_it() {
    let bench = Bench::new(last(5, 5));
    assert!(bench.closed_after("FFFS"));
    assert!(matches!(bench.succeed()[..], [Change::Opened { calls: 5, label: "boom", .. }]));
    // The same in a time window, where successes usually skip the sum.
    assert!(!Bench::new(settings()).closed_after("FFFFFSSSSS"));
}

#[test]
fn a_count_window_forgets_what_is_older_than_its_size() {
    let two_of_three = Settings { failure_rate: 0.6, ..last(3, 3) };
    assert!(!Bench::new(two_of_three.clone()).closed_after("FSF"));
    assert!(Bench::new(two_of_three).closed_after("FSSFSSFSS"));
}

#[test]
fn a_minimum_above_a_count_window_is_the_window_and_above_a_time_window_stays() {
    assert!(!Bench::new(last(3, 100)).closed_after("FFF"));
    assert!(Bench::new(settings()).closed_after("FFF"));
}

#[test]
fn a_success_restarts_the_run_of_failures() {
    let bench = Bench::new(consecutive(3, Duration::ZERO));
    assert!(bench.closed_after("FSFF"));
    assert!(!bench.closed_after("F"));
}

#[test]
fn a_run_of_failures_must_also_last() {
    let mut bench = Bench::new(consecutive(3, ms(1_000)));
    assert!(bench.closed_after("FFFFFF"));
    bench.wait(ms(999));
    assert!(bench.closed_after("F"));
    bench.wait(ms(1));
    assert!(!bench.closed_after("F"));
}

#[test]
fn a_run_longer_than_can_be_counted_never_opens_it() {
    let bench = Bench::new(consecutive(u32::MAX, Duration::ZERO));
    assert!(bench.closed_after(&"F".repeat(20_000)));
}

#[test]
fn ten_calls_a_second_apart_are_nine_ten_seconds_after_the_first() {
    let mut bench = Bench::new(settings());
    for _ in 0..10 {
        bench.succeed();
        bench.wait(ms(1_000));
    }
    assert_eq!(bench.calls(), 9);
    bench.wait(ms(1_000));
    assert_eq!(bench.calls(), 8);
}

#[test]
fn a_call_leaves_a_time_window_when_the_window_has_passed() {
    for start in [0, 1, 999, 1_000, 12_345] {
        let mut bench = Bench::new(settings());
        bench.wait(ms(start));
        bench.succeed();
        bench.wait(ms(9_000));
        assert_eq!(bench.calls(), 1);
        bench.wait(ms(1_000));
        assert_eq!(bench.calls(), 0);
    }
}

#[test]
fn old_failures_are_gone_after_any_idle_gap() {
    let mut bench = Bench::new(settings());
    assert!(bench.closed_after("FFFFFFFFF"));
    bench.wait(ms(7 * 24 * 3_600_000));
    assert_eq!(bench.calls(), 0);
    assert!(bench.closed_after("F"));
}

#[test]
fn below_the_minimum_the_rates_are_unknown() {
    let bench = Bench::new(settings());
    assert!(bench.closed_after("FSSSSSSSS"));
    assert_eq!(bench.circuit.snapshot(bench.now).failure_rate, None);
    bench.succeed();
    let seen = bench.circuit.snapshot(bench.now);
    assert_eq!((seen.failure_rate, seen.slow_rate), (Some(0.1), Some(0.0)));
}

#[test]
fn an_abandoned_call_counts_neither_way() {
    let bench = Bench::new(Settings { consecutive: Some((3, Duration::ZERO)), ..settings() });
    for _ in 0..2 {
        bench.fail();
        drop(bench.admit().unwrap());
    }
    let seen = bench.circuit.snapshot(bench.now);
    assert_eq!((seen.calls, seen.consecutive_failures), (2, 2));
}

#[test]
fn slow_calls_open_it_and_the_failure_rate_is_named_first() {
    let slow = |settings| Settings { slow_rate: Some(0.8), ..settings };
    let opened_by = |changes: &[Change]| match changes {
        [Change::Opened { trigger, label, .. }] => Some((*trigger, *label)),
        _ => None,
    };
    let bench = Bench::new(slow(last(2, 2)));
    bench.call(false, true);
    let changes = bench.call(false, true);
    assert_eq!(opened_by(&changes), Some((Trigger::SlowRate, SLOW)));
    let bench = Bench::new(slow(last(2, 2)));
    bench.call(true, true);
    let changes = bench.call(true, true);
    assert_eq!(opened_by(&changes), Some((Trigger::FailureRate, "boom")));
}

#[test]
fn the_break_ends_when_it_says_and_not_a_nanosecond_later() {
    let mut bench = Bench::opened(settings());
    let open = |millis| {
        let retry_after = ms(millis);
        (State::Open { retry_after }, Some(Refusal::Open { retry_after: retry_after.into() }))
    };
    assert_eq!((bench.state(), bench.refusal()), open(1_000));
    bench.wait(ms(500));
    assert_eq!((bench.state(), bench.refusal()), open(500));
    bench.wait(ms(500));
    assert_eq!(bench.state(), State::HalfOpen);
    assert!(bench.admit().is_ok_and(|ticket| ticket.is_probe()));
}

#[test]
fn a_call_beyond_the_probes_is_told_when_the_lease_or_the_break_would_be_over() {
    let mut bench = Bench::opened(settings());
    bench.wait(ms(1_000));
    let _probe = bench.admit();
    for (waited, millis) in [(0, 1_000), (1_999, 1_000), (2_700, 300)] {
        let now = bench.now.after(ms(waited));
        let refusal = bench.circuit.admit(|| now, true, &mut Vec::new()).err();
        let retry_after = ms(millis);
        assert_eq!(refusal, Some(Refusal::HalfOpen { retry_after: retry_after.into() }));
        assert_eq!(bench.circuit.state(now), State::HalfOpen);
    }
}

#[test]
fn a_failed_probe_opens_for_a_full_break_and_a_good_one_closes_with_empty_windows() {
    let mut bench = Bench::opened(settings());
    bench.wait(ms(1_500));
    let changes = bench.fail();
    assert!(matches!(
        changes[..],
        [
            Change::ProbeFinished { success: false, successes: 0, needed: 1 },
            Change::Opened { trigger: Trigger::Probe, reopenings: 1, label: "boom", .. },
        ]
    ));
    assert_eq!(bench.state(), State::Open { retry_after: ms(1_000) });
    bench.wait(ms(1_000));
    let closed = Change::Closed { by: ClosedBy::Probes, open_time: ms(2_500) };
    assert_eq!(bench.succeed().last(), Some(&closed));
    assert!(bench.is_closed());
    assert_eq!(bench.calls(), 0);
}

#[test]
fn close_after_so_many_of_so_many_decides_as_soon_as_it_can() {
    let cases = [
        (3, 3, "SS", State::HalfOpen, 'S', true),
        (3, 3, "SS", State::HalfOpen, 'F', false),
        (3, 2, "FS", State::HalfOpen, 'S', true),
        (3, 2, "FS", State::HalfOpen, 'F', false),
        (4, 3, "SFS", State::HalfOpen, 'F', false),
        (4, 3, "SFS", State::HalfOpen, 'S', true),
    ];
    for (probes, close_after, word, state, letter, closes) in cases {
        let mut bench = Bench::opened(Settings { probes, close_after, ..settings() });
        bench.wait(ms(1_000));
        for letter in word.chars() {
            bench.call(letter == 'F', false);
        }
        assert_eq!(bench.state(), state);
        bench.call(letter == 'F', false);
        assert_eq!(bench.is_closed(), closes);
        assert_ne!(bench.state(), State::HalfOpen);
    }
}

#[test]
fn abandoned_probes_use_nothing_up() {
    let mut bench = Bench::opened(settings());
    bench.wait(ms(1_000));
    for _ in 0..10 {
        let probe = bench.admit().unwrap();
        assert!(bench.refusal().is_some());
        drop(probe);
    }
    assert_eq!(bench.state(), State::HalfOpen);
    bench.succeed();
    assert!(bench.is_closed());
}

#[test]
fn a_slow_success_is_a_failed_probe_where_slow_calls_are_watched() {
    for (slow_rate, closes) in [(Some(1.0), false), (None, true)] {
        let mut bench = Bench::opened(Settings { slow_rate, ..settings() });
        bench.wait(ms(1_000));
        bench.call(false, true);
        assert_eq!(bench.is_closed(), closes);
    }
}

#[test]
fn a_probe_that_never_ends_is_a_failed_one_from_the_end_of_its_lease() {
    let mut bench = Bench::opened(settings());
    bench.wait(ms(1_000));
    let probe = bench.admit().unwrap();
    let noticed = bench.now.after(ms(3_400));
    let retry_after = ms(600);
    // Looking tells the same before and after somebody noticed.
    assert_eq!(bench.circuit.state(noticed), State::Open { retry_after });
    let mut changes = Vec::new();
    let refusal = bench.circuit.admit(|| noticed, true, &mut changes).err();
    assert_eq!(refusal, Some(Refusal::Open { retry_after: retry_after.into() }));
    assert!(matches!(
        changes[..],
        [Change::ProbeExpired { .. }, Change::Opened { trigger: Trigger::Lease, label: LEASE, reopenings: 1, .. },]
    ));
    assert_eq!(bench.circuit.state(noticed), State::Open { retry_after });
    assert_eq!(bench.finish(probe, false, false), (Recorded::Stale, vec![]));
}

#[test]
fn a_verdict_at_the_very_end_of_its_lease_is_too_late() {
    let mut bench = Bench::opened(settings());
    bench.wait(ms(1_000));
    let probe = bench.admit().unwrap();
    let mut changes = Vec::new();
    let end = bench.now.after(ms(3_000));
    assert_eq!(probe.success(false, || end, &mut changes), Recorded::Stale);
    assert!(matches!(changes[0], Change::ProbeExpired { lease } if lease == ms(3_000)));
}

#[test]
fn after_a_long_silence_an_expired_probe_has_reopened_and_half_opened_again() {
    let mut bench = Bench::opened(settings());
    bench.wait(ms(1_000));
    let hung = bench.admit().unwrap();
    let later = bench.now.after(ms(60_000));
    assert_eq!(bench.circuit.state(later), State::HalfOpen);
    let mut changes = Vec::new();
    let probe = bench.circuit.admit(|| later, true, &mut changes).unwrap();
    assert_eq!(changes.len(), 3);
    drop(hung);
    assert_eq!(bench.circuit.snapshot(later).probes_in_flight, 1);
    drop(probe);
}

#[test]
fn a_hedge_is_never_a_probe_and_changes_nothing() {
    let mut bench = Bench::opened(settings());
    let retry_after = ms(1_000);
    assert_eq!(bench.hedge(), Some(Refusal::Open { retry_after: retry_after.into() }));
    bench.wait(ms(1_000));
    let before = bench.circuit.generation();
    let retry_after = Duration::ZERO;
    assert_eq!(bench.hedge(), Some(Refusal::HalfOpen { retry_after: retry_after.into() }));
    assert_eq!(bench.circuit.generation(), before);
    bench.succeed();
    assert_eq!(bench.hedge(), None);
}

#[test]
fn calls_from_before_the_opening_change_nothing() {
    let mut bench = Bench::new(Settings { min_calls: 1, ..settings() });
    let (failing, succeeding, late) = {
        let circuit = &bench.circuit;
        let admit = || circuit.admit(|| bench.now, true, &mut Vec::new()).unwrap();
        (admit(), admit(), admit())
    };
    bench.fail();
    let before = bench.circuit.snapshot(bench.now);
    assert_eq!(bench.finish(failing, true, false), (Recorded::Stale, vec![]));
    assert_eq!(bench.finish(succeeding, false, false), (Recorded::Stale, vec![]));
    assert_eq!(bench.circuit.snapshot(bench.now), before);
    // And not even when it is closed again.
    let later = bench.now.after(ms(1_000));
    let mut changes = Vec::new();
    let probe = bench.circuit.admit(|| later, true, &mut changes).unwrap();
    let _ = probe.success(false, || later, &mut changes);
    let recorded = late.failure(false, "boom", || later, &mut changes);
    assert_eq!(recorded, Recorded::Stale);
    assert_eq!(bench.circuit.state(later), State::Closed);
    bench.wait(ms(1_000));
    assert_eq!(bench.calls(), 0);
}

#[test]
fn an_isolated_circuit_refuses_until_the_last_release() {
    let mut bench = Bench::new(settings());
    let mut changes = Vec::new();
    let one = bench.circuit.isolate(bench.now, &mut changes);
    let other = bench.circuit.isolate(bench.now, &mut changes);
    bench.wait(ms(3_600_000));
    assert_eq!(bench.refusal(), Some(Refusal::Isolated));
    bench.circuit.release(one, bench.now, &mut changes);
    assert_eq!(bench.state(), State::Isolated);
    bench.circuit.release(other, bench.now, &mut changes);
    bench.circuit.release(other, bench.now, &mut changes);
    assert!(bench.is_closed());
    let closed = Change::Closed { by: ClosedBy::Release, open_time: ms(3_600_000) };
    let expected = [
        Change::Isolated { handles: 1 },
        Change::Isolated { handles: 2 },
        Change::Released { handles: 1 },
        Change::Released { handles: 0 },
        closed,
    ];
    assert_eq!(changes, expected);
}

#[test]
fn a_reset_ends_an_isolation_and_its_release_comes_too_late_for_another() {
    let bench = Bench::new(settings());
    let mut changes = Vec::new();
    let ended = bench.circuit.isolate(bench.now, &mut changes);
    bench.circuit.reset(bench.now, &mut changes);
    assert!(bench.is_closed());
    let other = bench.circuit.isolate(bench.now, &mut changes);
    bench.circuit.release(ended, bench.now, &mut changes);
    assert_eq!(bench.state(), State::Isolated);
    bench.circuit.release(other, bench.now, &mut changes);
    assert!(bench.is_closed());
    let closed = |by| Change::Closed { by, open_time: Duration::ZERO };
    let isolated = Change::Isolated { handles: 1 };
    let released = Change::Released { handles: 0 };
    assert_eq!(changes, [isolated, closed(ClosedBy::Reset), isolated, released, closed(ClosedBy::Release)]);
}

#[test]
fn a_reset_of_a_closed_circuit_forgets_half_a_run_and_the_calls_under_way() {
    let bench = Bench::new(consecutive(3, Duration::ZERO));
    bench.fail();
    let under_way = bench.admit().unwrap();
    let mut changes = Vec::new();
    bench.circuit.reset(bench.now, &mut changes);
    assert_eq!(changes, []);
    assert_eq!(bench.finish(under_way, true, false).0, Recorded::Stale);
    assert!(bench.closed_after("FF"));
}

#[test]
fn breaks_grow_up_to_the_cap_and_start_over_when_closed() {
    let mut bench = Bench::opened(Settings { open_for: ms(5_000), growth: 1.5, max_open: ms(8_000), ..settings() });
    for expected in [5_000, 7_500, 8_000, 8_000] {
        let retry_after = ms(expected);
        assert_eq!(bench.refusal(), Some(Refusal::Open { retry_after: retry_after.into() }));
        bench.wait(retry_after);
        bench.fail();
    }
    bench.wait(ms(8_000));
    bench.succeed();
    bench.fail();
    assert_eq!(bench.state(), State::Open { retry_after: ms(5_000) });
}

#[test]
fn a_break_that_neither_grows_nor_jitters_is_exact_to_the_nanosecond() {
    // More digits than a floating-point number of seconds holds.
    let open_for = Duration::new(1_000_000_000, 1);
    let settings = Settings { open_for, max_open: open_for, ..settings() };
    assert_eq!(settings.break_length(0, 0.9), open_for);
}

#[test]
fn jitter_makes_breaks_longer_and_never_shorter() {
    let lengths: Vec<Duration> = (0..200)
        .map(|seed| {
            let settings = Settings { jitter: 0.1, min_calls: 1, ..settings() };
            let bench = Bench { circuit: Circuit::new(settings, Rng::seeded(seed)), now: Moment::from_nanos(0) };
            bench.fail();
            match bench.state() {
                State::Open { retry_after } => retry_after,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert!(lengths.iter().all(|l| (ms(1_000)..ms(1_100)).contains(l)));
    assert!(lengths.iter().max() > Some(&ms(1_090)));
    assert!(lengths.iter().min() < Some(&ms(1_010)));
}

#[test]
fn absurd_settings_saturate() {
    let mut bench = Bench::opened(Settings {
        count_window: Some(u32::MAX),
        time_window: Some(Duration::MAX),
        consecutive: Some((u32::MAX, Duration::MAX)),
        open_for: Duration::MAX,
        growth: f64::MAX,
        max_open: Duration::MAX,
        jitter: 1.0,
        probes: u32::MAX,
        close_after: u32::MAX,
        lease: Duration::MAX,
        ..settings()
    });
    bench.wait(ms(100 * 365 * 24 * 3_600_000));
    assert!(matches!(bench.refusal(), Some(Refusal::Open { .. })));
    bench.now = Moment::NEVER;
    // The last moment is the end of everything, leases too: what is admitted then has expired.
    let probe = bench.admit().unwrap();
    assert_eq!(bench.finish(probe, false, false).0, Recorded::Stale);
}

#[test]
fn the_clock_is_read_only_where_the_time_matters() {
    let unread = || -> Moment { panic!("nobody needs the time") };
    let circuit = Circuit::new(
        Settings { count_window: Some(10), consecutive: Some((5, ms(1))), ..last(10, 10) },
        Rng::seeded(1),
    );
    let mut changes = Vec::new();
    let ticket = circuit.admit(unread, true, &mut changes).unwrap();
    assert_eq!(ticket.success(false, unread, &mut changes), Recorded::Counted);
    assert_eq!(changes.capacity(), 0);
}

#[test]
fn of_a_thousand_calls_at_the_moment_of_half_opening_exactly_the_probes_pass() {
    const THREADS: usize = 8;
    for _ in 0..20 {
        let mut bench = Bench::opened(Settings { probes: 3, close_after: 3, ..settings() });
        bench.wait(ms(1_000));
        let (barrier, passed) = (Barrier::new(THREADS), atomic::AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    let tickets: Vec<_> = (0..125).filter_map(|_| bench.admit().ok()).collect();
                    let mine = u32::try_from(tickets.len()).unwrap();
                    passed.fetch_add(mine, atomic::Ordering::Relaxed);
                    // No ticket is dropped before every call has been made.
                    barrier.wait();
                });
            }
        });
        assert_eq!(passed.into_inner(), 3);
    }
}

#[test]
fn a_probe_whose_clock_panics_is_abandoned() {
    let mut bench = Bench::opened(settings());
    bench.wait(ms(1_000));
    let probe = bench.admit().unwrap();
    let clock = || -> Moment { panic!("a broken clock") };
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| probe.success(false, clock, &mut Vec::new())));
    assert!(ended.is_err());
    assert!(bench.admit().is_ok());
}

/// Asks in another thread while the lock is held here: whoever needs it would wait for ever.
fn refusal_without_the_lock(circuit: &Circuit, now: Moment) -> Option<Refusal> {
    let (answer, answered) = mpsc::channel();
    thread::scope(|scope| {
        let held = circuit.control.lock().unwrap();
        scope.spawn(move || answer.send(circuit.admit(|| now, true, &mut Vec::new()).err()));
        let refusal = answered.recv_timeout(Duration::from_secs(5));
        drop(held);
        refusal.ok().flatten()
    })
}

#[test]
fn whoever_is_refused_waits_for_no_lock() {
    let mut bench = Bench::opened(settings());
    let open = Refusal::Open { retry_after: ms(1_000).into() };
    assert_eq!(refusal_without_the_lock(&bench.circuit, bench.now), Some(open));
    bench.now = bench.now.after(ms(1_000));
    let probe = bench.circuit.admit(|| bench.now, true, &mut Vec::new()).unwrap();
    let half_open = Refusal::HalfOpen { retry_after: ms(1_000).into() };
    assert_eq!(refusal_without_the_lock(&bench.circuit, bench.now), Some(half_open));
    drop(probe);
    let _isolation = bench.circuit.isolate(bench.now, &mut Vec::new());
    assert_eq!(refusal_without_the_lock(&bench.circuit, bench.now), Some(Refusal::Isolated));
}

#[test]
fn who_comes_to_the_lock_when_the_circuit_has_closed_meanwhile_is_admitted() {
    let circuit = Circuit::new(settings(), Rng::seeded(1));
    for may_probe in [true, false] {
        let mut changes = Vec::new();
        let admitted = circuit.lock(&mut changes).admit(Moment::from_nanos(0), may_probe);
        assert_eq!((admitted, changes.len()), (Ok((circuit.generation(), None)), 0));
    }
}
