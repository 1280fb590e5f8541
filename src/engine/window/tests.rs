//! What holds for each window by itself. The circuit's reference model covers how they count.

use std::{cell::Cell, sync::Barrier, thread, time::Duration};

use super::{CountWindow, MAX_CONSECUTIVE, MAX_COUNT_WINDOW, Outcome, Stale, Streak, Tally, TimeWindow};
use crate::engine::{moment::Moment, sync::counted::accesses};

const FAILED: Outcome = Outcome { failure: true, slow: false };
const SLOW: Outcome = Outcome { failure: false, slow: true };
const NOW: Moment = Moment::from_nanos(123_456_789);

#[test]
fn a_result_of_an_earlier_generation_changes_no_window() {
    let (count, time) = (CountWindow::new(3), TimeWindow::new(Duration::from_secs(1)));
    let streak = Streak::new();
    // Across the wrap of the generation too.
    for generation in [u32::MAX - 1, u32::MAX, 0, 1] {
        let past = generation.wrapping_sub(1);
        count.begin(generation);
        time.begin(generation);
        streak.begin(generation);
        assert_eq!(count.record(past, FAILED), Err(Stale));
        assert_eq!(time.record(past, FAILED, NOW), Err(Stale));
        assert_eq!(streak.failure(past, NOW), Err(Stale));
        assert_eq!(streak.success(past), Err(Stale));
        assert_eq!(count.tally(generation).calls, 0);
        assert_eq!(time.tally(generation, NOW).calls, 0);
        assert_eq!(streak.length(generation), 0);
        assert_eq!(count.record(generation, FAILED).map(|t| t.failures), Ok(1));
        let summed = time.record(generation, FAILED, NOW).unwrap().unwrap();
        assert_eq!((summed.calls, summed.failures), (1, 1));
        assert_eq!(streak.failure(generation, NOW).map(|r| r.length), Ok(1));
    }
}

#[test]
fn the_largest_count_window_counts_to_its_size_in_every_field() {
    let window = CountWindow::new(u32::MAX);
    window.begin(1);
    let both = Outcome { failure: true, slow: true };
    for _ in 0..MAX_COUNT_WINDOW + 100 {
        window.record(1, both).unwrap();
    }
    let tally = window.tally(1);
    assert_eq!(tally.calls, MAX_COUNT_WINDOW);
    assert_eq!((tally.failures, tally.slow), (tally.calls, tally.calls));
    assert_eq!(tally, window.recount(1));
}

#[test]
fn after_many_recorders_at_once_the_totals_are_those_of_the_ring() {
    for size in [1, 2, 7] {
        let window = CountWindow::new(size);
        let barrier = Barrier::new(4);
        window.begin(9);
        thread::scope(|scope| {
            for outcome in [FAILED, SLOW, FAILED, SLOW] {
                let (window, barrier) = (&window, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for _ in 0..20_000 {
                        let tally = window.record(9, outcome).unwrap();
                        assert!(tally.failures <= tally.calls && tally.calls <= size);
                    }
                });
            }
        });
        assert_eq!(window.tally(9), window.recount(9));
        assert_eq!(window.tally(9).calls, size);
    }
}

#[test]
fn a_time_window_loses_no_call_of_many_recorders_at_once() {
    let window = TimeWindow::new(Duration::from_secs(1));
    window.begin(1);
    thread::scope(|scope| {
        for outcome in [FAILED, SLOW, FAILED, SLOW] {
            let window = &window;
            scope.spawn(move || {
                for step in 0..10_000 {
                    // Through all slots of the window, and not beyond.
                    let now = Moment::from_nanos(step * 99_999);
                    assert!(window.record(1, outcome, now).is_ok());
                }
            });
        }
    });
    let tally = window.tally(1, Moment::from_nanos(999_999_999));
    assert_eq!((tally.calls, tally.failures, tally.slow), (40_000, 20_000, 20_000));
}

#[test]
fn a_streak_stays_at_its_longest_and_keeps_its_start() {
    let streak = Streak::new();
    streak.begin(1);
    for _ in 0..MAX_CONSECUTIVE + 10 {
        streak.failure(1, NOW).unwrap();
    }
    let run = streak.failure(1, NOW.after(Duration::from_secs(86_400))).unwrap();
    assert_eq!(run.length, MAX_CONSECUTIVE);
    assert_eq!(run.start, Moment::from_nanos(123_000_000));
    assert_eq!(streak.success(1), Ok(()));
    assert_eq!(streak.length(1), 0);
}

#[test]
fn the_start_of_a_streak_is_exact_however_far_from_zero_it_lies() {
    for start in [0, 1 << 38, (1 << 38) - 1, 4_611_686_018_427, 18_000_000_000_000] {
        let start = Moment::from_nanos(start * 1_000_000);
        let streak = Streak::new();
        streak.begin(1);
        streak.failure(1, start).unwrap();
        let earlier = Moment::from_nanos(start.nanos().saturating_sub(5_000_000));
        assert_eq!(streak.failure(1, earlier).map(|run| run.start), Ok(earlier));
        assert_eq!(streak.failure(1, start.after(Duration::from_millis(1_500))).map(|run| run.start), Ok(start));
    }
}

/// The accesses of the dearest of twenty.
fn most<R>(of: impl Fn() -> R) -> u64 {
    (0..20).map(|_| accesses(&of)).max().unwrap_or_default()
}

/// The accesses to memory that threads share, which is where all that a window holds lies: what it costs at most to
/// record one more of each, and to look at the sum, after so many calls.
fn work(calls: u32, record: impl Fn(Outcome), look: impl Fn() -> Tally) -> [u64; 4] {
    let fine = Outcome { failure: false, slow: false };
    for outcome in [fine, FAILED, SLOW].into_iter().cycle().zip(0..calls).map(|(outcome, _)| outcome) {
        record(outcome);
    }
    [most(|| record(fine)), most(|| record(FAILED)), most(|| record(SLOW)), most(look)]
}

#[test]
fn a_window_costs_the_same_however_long_it_is_and_however_many_calls_it_holds() {
    let count_window = |size: u32, calls: u32| {
        let window = CountWindow::new(size);
        window.begin(1);
        work(calls, |outcome| assert!(window.record(1, outcome).is_ok()), || window.tally(1))
    };
    let time_window = |length: u64, calls: u32| {
        let window = TimeWindow::new(Duration::from_secs(length));
        window.begin(1);
        // All of them within one window, through all of its slots.
        let now = Cell::new(Moment::from_nanos(0).after(Duration::from_secs(length) * 2));
        let step = Duration::from_secs(length) / (calls + 100);
        let record = |outcome| {
            assert!(window.record(1, outcome, now.get()).is_ok());
            now.set(now.get().after(step));
        };
        work(calls, record, || window.tally(1, now.get()))
    };
    let (of_count, of_time) = (count_window(100, 100), time_window(10, 100));
    assert!(of_count.iter().all(|accesses| (1..=4).contains(accesses)), "{of_count:?}");
    assert!(of_time.iter().all(|accesses| (1..=40).contains(accesses)), "{of_time:?}");
    for size in [1_000, MAX_COUNT_WINDOW] {
        for calls in [100, 100_000] {
            assert_eq!(count_window(size, calls), of_count, "after {calls} calls in a window of {size}");
        }
    }
    for length in [1, 3_600, 365 * 86_400] {
        for calls in [100, 100_000] {
            assert_eq!(time_window(length, calls), of_time, "after {calls} calls in a window of {length} s");
        }
    }
}

#[test]
fn one_more_success_among_successes_costs_next_to_nothing() {
    let fine = Outcome { failure: false, slow: false };
    let count = CountWindow::new(100);
    count.begin(1);
    for _ in 0..100 {
        count.record(1, fine).unwrap();
    }
    let cheap = accesses(|| count.record(1, fine));
    assert!(cheap <= 2, "a window full of successes is read and not written: {cheap}");
    count.record(1, FAILED).unwrap();
    assert!(accesses(|| count.record(1, fine)) > cheap);

    let streak = Streak::new();
    streak.begin(1);
    assert_eq!(accesses(|| streak.success(1)), 1, "where there is no run nothing is written");

    // Nor is a time window summed up, unless it may hold something worse.
    let time = TimeWindow::new(Duration::from_nanos(10));
    time.begin(1);
    let at = |period: u64| Moment::from_nanos(1_000 + period);
    let cost = |period: u64| accesses(|| assert!(time.record(1, fine, at(period)).is_ok()));
    let cheap = cost(0);
    assert!(cheap < 5, "{cheap}");
    assert!(time.record(1, FAILED, at(1)).is_ok_and(|tally| tally.is_some()));
    assert!((1..=10).all(|period| cost(period) > 10), "the failure is among the last ten periods");
    assert_eq!(cost(11), cheap);
    assert_eq!(time.record(1, fine, at(11)), Ok(None));
}
