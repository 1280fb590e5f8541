use proptest::{collection::vec, prelude::Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::engine::sync::counted::accesses;

const WINDOW: Duration = Duration::from_secs(10);

fn latencies(quantile: f64, min_samples: u32) -> Latencies {
    Latencies::new(quantile, min_samples, WINDOW).unwrap()
}

/// A dozen buckets from a millisecond, so that tests that look at every counter all the time are quick.
fn coarse(quantile: f64, min_samples: u32) -> Latencies {
    let grid = Grid { lowest: 20, octaves: 12, cuts: 0 };
    Latencies::on_grid(grid, quantile, min_samples, WINDOW).unwrap()
}

fn at(secs: u64) -> Moment {
    Moment::from_nanos(0).after(Duration::from_secs(secs))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn record_many(latencies: &Latencies, n: u32, latency: Duration, now: Moment) {
    for _ in 0..n {
        latencies.record(latency, now);
    }
}

/// Within one bucket: not below, and at most 1/32 above.
fn is_about(estimate: Option<Duration>, exact: Duration) -> bool {
    estimate.is_some_and(|e| exact <= e && e <= exact + exact / 32)
}

#[test]
fn there_is_no_estimate_before_enough_samples() {
    let latencies = latencies(0.95, 100);
    assert_eq!(latencies.estimate(), None);
    record_many(&latencies, 99, ms(20), at(5));
    assert_eq!(latencies.estimate(), None);
    latencies.record(ms(20), at(5));
    assert!(is_about(latencies.estimate(), ms(20)));
}

#[test]
fn enough_samples_may_come_in_several_windows() {
    let latencies = latencies(0.5, 90);
    record_many(&latencies, 30, ms(20), at(5));
    record_many(&latencies, 30, ms(20), at(15));
    record_many(&latencies, 29, ms(20), at(25));
    assert_eq!(latencies.estimate(), None);
    latencies.record(ms(20), at(25));
    assert!(is_about(latencies.estimate(), ms(20)));
}

#[test]
fn steady_traffic_that_suffices_over_three_windows_keeps_its_estimate() {
    let latencies = latencies(0.5, 90);
    for second in 0..200 {
        record_many(&latencies, 3, ms(20), at(second));
        assert_eq!(latencies.estimate().is_some(), second >= 29, "{second}");
    }
}

#[test]
fn the_estimate_is_renewed_when_a_window_ends_and_not_before() {
    let latencies = latencies(0.5, 10);
    record_many(&latencies, 10, ms(20), at(1));
    record_many(&latencies, 1000, ms(80), at(9));
    assert!(is_about(latencies.estimate(), ms(20)));
    latencies.record(ms(20), at(10));
    assert!(is_about(latencies.estimate(), ms(80)));
}

#[test]
fn what_is_older_than_three_windows_is_forgotten() {
    let latencies = latencies(0.5, 10);
    record_many(&latencies, 1000, ms(80), at(5));
    for window in 1..=3 {
        record_many(&latencies, 100, ms(20), at(10 * window));
        assert!(is_about(latencies.estimate(), ms(80)), "{window}");
    }
    latencies.record(ms(20), at(40));
    assert!(is_about(latencies.estimate(), ms(20)));
    assert_eq!(latencies.samples(), 201);
}

#[test]
fn a_gap_as_long_as_all_windows_forgets_everything() {
    for gap in [30, 31, 40, 1_000_000] {
        let latencies = latencies(0.5, 10);
        record_many(&latencies, 1000, ms(80), at(0));
        latencies.record(ms(20), at(gap));
        assert_eq!(latencies.estimate(), None, "{gap}");
        assert_eq!(latencies.samples(), 1);
        record_many(&latencies, 9, ms(20), at(gap));
        assert!(is_about(latencies.estimate(), ms(20)));
    }
}

#[test]
fn a_shorter_gap_keeps_what_is_recent() {
    let latencies = latencies(0.5, 10);
    record_many(&latencies, 1000, ms(80), at(5));
    record_many(&latencies, 20, ms(20), at(15));
    latencies.record(ms(20), at(39));
    // Of windows 0 to 2; now window 0 is forgotten.
    assert!(is_about(latencies.estimate(), ms(80)));
    assert_eq!(latencies.samples(), 21);
    latencies.record(ms(20), at(49));
    assert!(is_about(latencies.estimate(), ms(20)));
}

#[test]
fn traffic_that_dries_up_loses_its_estimate_and_regains_it() {
    let latencies = latencies(0.5, 10);
    record_many(&latencies, 10, ms(20), at(0));
    for second in [10, 20, 30] {
        latencies.record(ms(20), at(second));
        assert!(latencies.estimate().is_some());
    }
    latencies.record(ms(20), at(40));
    assert_eq!(latencies.estimate(), None);
    record_many(&latencies, 6, ms(20), at(41));
    assert_eq!(latencies.estimate(), None);
    latencies.record(ms(20), at(41));
    assert!(latencies.estimate().is_some());
}

#[test]
fn a_clock_that_goes_back_is_no_harm() {
    let latencies = latencies(0.5, 2);
    latencies.record(ms(20), at(100));
    latencies.record(ms(20), at(5));
    assert!(is_about(latencies.estimate(), ms(20)));
}

#[test]
fn absurd_values_count_as_the_nearest_that_the_grid_has() {
    let extremes = latencies(0.5, 1);
    extremes.record(Duration::ZERO, at(0));
    assert!(extremes.estimate().unwrap() < Duration::from_nanos(1060));
    let extremes = latencies(0.5, 1);
    extremes.record(Duration::MAX, Moment::NEVER);
    assert_eq!(extremes.estimate(), Some(Duration::from_nanos((1 << 42) - 1)));
    let endless = Latencies::new(0.5, 1, Duration::MAX).unwrap();
    endless.record(ms(20), at(0));
    endless.record(ms(20), Moment::NEVER);
    assert!(is_about(endless.estimate(), ms(20)));
}

#[test]
fn a_sample_costs_the_same_however_many_there_are_but_for_the_one_that_gives_the_estimate() {
    let latencies = latencies(0.95, 100);
    let costs: Vec<_> = (0..200).map(|_| accesses(|| latencies.record(ms(20), at(1)))).collect();
    let (before, after) = (&costs[..99], &costs[100..]);
    assert!(before.iter().chain(after).all(|cost| *cost < 10), "{costs:?}");
    assert!(costs[99] > 3 * 1024, "it looks at every counter");
}

#[test]
fn while_somebody_turns_the_page_others_record_in_the_window_that_was() {
    let latencies = latencies(0.5, 1);
    latencies.record(ms(20), at(51));
    let turn = latencies.turn.load(Ordering::Relaxed);
    assert_eq!(latencies.claim(turn), Ok(turn));
    assert_eq!(latencies.claim(turn), Err(turn | BUSY), "one at a time");
    latencies.record(ms(80), at(61));
    assert_eq!((latencies.samples(), latencies.settled_window()), (2, None));
    assert!(is_about(latencies.estimate(), ms(20)));
    latencies.release(turn);
    latencies.record(ms(80), at(61));
    assert_eq!((latencies.samples(), latencies.settled_window()), (3, Some(6)));
}

#[test]
fn a_full_counter_does_not_wrap() {
    let latencies = latencies(0.5, 1);
    let bucket = latencies.grid.bucket(nanos(ms(20)));
    latencies.counts[bucket][0].store(FULL, Ordering::Relaxed);
    latencies.record(ms(20), at(0));
    assert_eq!(latencies.samples(), u64::from(FULL));
}

#[test]
fn nonsense_is_refused() {
    let field = |quantile, min_samples, window| {
        let made = Latencies::new(quantile, min_samples, window);
        made.unwrap_err().field
    };
    for quantile in [f64::NAN, 0.0, 1.0, -0.5, 95.0, f64::INFINITY] {
        assert_eq!(field(quantile, 100, WINDOW), "quantile");
    }
    assert_eq!(field(0.95, 0, WINDOW), "min_samples");
    assert_eq!(field(0.95, 100, Duration::ZERO), "window");
}

#[test]
fn the_memory_is_as_documented() {
    let latencies = latencies(0.95, 100);
    assert_eq!(size_of_val(&*latencies.counts), 12 * 1024);
}

#[test]
fn buckets_meet_without_gap_or_overlap() {
    let grid = Grid::FINE;
    let mut lower = 1 << 10;
    for bucket in 0..1024 {
        let upper = grid.upper_edge(bucket);
        assert_eq!(grid.bucket(lower), bucket);
        assert_eq!(grid.bucket(upper), bucket);
        assert!(upper - lower < lower / 32);
        lower = upper + 1;
    }
    assert_eq!(lower, 1 << 42);
}

/// Latencies of many kinds: spread over the grid, crowded, in two humps.
fn samples() -> impl Strategy<Value = Vec<u64>> {
    let wide = (10..41_u32, 0..1024_u64).prop_map(|(power, x)| (1024 + x) << (power - 10));
    let wide = vec(wide, 1..400);
    let crowded = vec(1_000_000..1_100_000_u64, 1..400);
    let humps = vec(prop_oneof![2_000..3_000_u64, 2_000_000_000..3_000_000_000_u64], 1..400);
    prop_oneof![wide, crowded, humps]
}

proptest! {
    #[test]
    fn the_estimate_is_the_sample_of_its_rank_within_a_bucket(
        samples in samples(),
        // In parts of 1024, so that no rank is rounded.
        quantile in 1..1024_u32,
    ) {
        let n = u32::try_from(samples.len()).unwrap();
        let latencies = latencies(f64::from(quantile) / 1024.0, n);
        for &sample in &samples {
            latencies.record(Duration::from_nanos(sample), at(0));
        }
        let mut sorted = samples;
        sorted.sort_unstable();
        let rank = usize::try_from((quantile * n).div_ceil(1024)).unwrap();
        let exact = Duration::from_nanos(sorted[rank - 1]);
        prop_assert!(is_about(latencies.estimate(), exact), "{:?} {exact:?}", latencies);
    }

    #[test]
    fn any_order_of_moments_keeps_samples_and_estimate_in_bounds(
        records in vec((0..200_u64, 1..500_u64), 1..300),
    ) {
        let latencies = coarse(0.9, 5);
        for (n, &(second, millis)) in (1_u64..).zip(&records) {
            latencies.record(ms(millis), at(second));
            prop_assert!(latencies.samples() <= n);
            prop_assert!(latencies.samples() >= 1);
            if let Some(estimate) = latencies.estimate() {
                prop_assert!((ms(1)..ms(1000)).contains(&estimate));
            }
        }
    }

    #[test]
    fn with_time_going_forward_the_last_three_windows_are_held(
        steps in vec(0..15_u64, 1..300),
    ) {
        let latencies = coarse(0.9, 5);
        let (mut now, mut windows) = (0, Vec::new());
        for step in steps {
            now += step;
            let gap = windows.last().is_some_and(|&last| now / 10 - last >= 3);
            windows.retain(|&window| !gap && window + 3 > now / 10);
            windows.push(now / 10);
            latencies.record(ms(20), at(now));
            prop_assert_eq!(latencies.samples(), u64::try_from(windows.len()).unwrap());
        }
    }
}
