//! The quantile of latencies.

use std::time::Duration;

use super::{
    super::{
        moment::Moment,
        quantile::{Grid, Latencies},
    },
    Arc, run, thread,
};

const SHORT: Duration = Duration::from_nanos(2);
const LONG: Duration = Duration::from_nanos(4);
const WINDOW: Duration = Duration::from_millis(1);

/// Two buckets, [2, 4) and [4, 8), which keeps the model small.
fn shared(quantile: f64, min_samples: u32) -> Arc<Latencies> {
    let grid = Grid { lowest: 1, octaves: 2, cuts: 0 };
    let latencies = Latencies::on_grid(grid, quantile, min_samples, WINDOW);
    Arc::new(latencies.expect("these settings are valid"))
}

fn window(number: u32) -> Moment {
    Moment::from_nanos(0).after(WINDOW.saturating_mul(number))
}

/// Records one latency in another thread while `here` is done in this one.
fn race(latencies: &Arc<Latencies>, there: Duration, now: Moment, here: impl FnOnce(&Latencies)) {
    let other = thread::spawn({
        let latencies = Arc::clone(latencies);
        move || latencies.record(there, now)
    });
    here(latencies);
    other.join().expect("recording does not panic");
}

#[test]
fn two_samples_that_race_over_the_end_of_a_window_turn_it_once_and_are_counted_once() {
    run(|| {
        let latencies = shared(0.9, 1);
        for number in 0..3 {
            latencies.record(SHORT, window(number));
        }
        // Window 3 takes the place of window 0, whose sample must be erased before anything is counted there.
        race(&latencies, SHORT, window(3), |l| l.record(SHORT, window(3)));

        assert_eq!(latencies.settled_window(), Some(3));
        assert_eq!(latencies.samples(), 4);
        let estimate = latencies.estimate().expect("one sample is enough");
        assert_eq!(estimate, Duration::from_nanos(3));
    });
}

#[test]
fn a_late_sample_of_the_old_window_is_neither_lost_nor_doubled() {
    run(|| {
        let latencies = shared(0.5, 1);
        latencies.record(SHORT, window(0));
        race(&latencies, SHORT, window(0), |l| l.record(SHORT, window(1)));

        assert_eq!(latencies.settled_window(), Some(1));
        assert_eq!(latencies.samples(), 3);
        assert_eq!(latencies.estimate(), Some(Duration::from_nanos(3)));
    });
}

#[test]
fn the_sample_that_suffices_gives_the_first_estimate_whoever_brings_it() {
    run(|| {
        let latencies = shared(0.9, 2);
        race(&latencies, SHORT, window(0), |l| l.record(LONG, window(0)));

        assert_eq!(latencies.settled_window(), Some(0));
        assert_eq!(latencies.samples(), 2);
        assert_eq!(latencies.estimate(), Some(Duration::from_nanos(7)));
    });
}

#[test]
fn a_gap_that_ends_while_the_first_estimate_is_made_is_forgotten_now_or_with_the_next_sample() {
    run(|| {
        let latencies = shared(0.9, 2);
        latencies.record(SHORT, window(0));
        race(&latencies, SHORT, window(0), |l| l.record(LONG, window(7)));

        match (latencies.settled_window(), latencies.samples()) {
            // The late sample came before the gap was noticed, and is forgotten, or after it, and counts.
            (Some(7), 1) => assert_eq!(latencies.estimate(), None),
            (Some(7), 2) => {}
            // The other thread was at work, so the page was not turned.
            (Some(0), 3) => assert!(latencies.estimate().is_some()),
            other => panic!("{other:?} cannot be"),
        }
        latencies.record(LONG, window(14));
        assert_eq!(latencies.settled_window(), Some(14));
        assert_eq!(latencies.samples(), 1);
        assert_eq!(latencies.estimate(), None);
    });
}

#[test]
fn two_samples_at_the_end_of_a_gap_agree_on_what_is_forgotten() {
    run(|| {
        let latencies = shared(0.9, 2);
        for _ in 0..2 {
            latencies.record(SHORT, window(0));
        }
        race(&latencies, LONG, window(7), |l| l.record(LONG, window(7)));

        // Who came while the other erased is erased too, or counts: never with the old samples.
        assert_eq!(latencies.settled_window(), Some(7));
        match latencies.samples() {
            1 => assert_eq!(latencies.estimate(), None),
            2 => {}
            other => panic!("{other} samples of 1 or 2 possible ones"),
        }
    });
}
