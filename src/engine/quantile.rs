//! When to hedge: a quantile of the recent latencies, in a log-linear histogram over rotating windows.

use std::{array, fmt, time::Duration};

use super::{
    moment::{Moment, nanos},
    refused::Refused,
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// How many windows the samples of an estimate come from.
const WINDOWS: usize = 3;

/// The latencies of the last [`WINDOWS`] windows, and one quantile of them.
///
/// A sample is one increment of one counter; a reader reads one word. The counters of a window are in the grid of
/// [`Grid::FINE`], so an estimate is at least the sample of its rank and at most 1/32 (3.1 %) above it: erring towards a
/// later hedge costs less than hedging more often than was asked for. The memory is fixed, 12 KiB of counters.
///
/// The estimate is renewed when a window ends, from the three complete windows, and when samples first reach
/// `min_samples`. With fewer there is none. The first sample after no sample for as long as all the windows finds them
/// forgotten; until it comes, the last estimate stands.
///
/// # Concurrency and memory ordering
///
/// Whoever finds that the window is over tries to set [`BUSY`] in `turn`. The one who succeeds renews the estimate and
/// turns the page (some microseconds every window); the others do not wait and record in the window that was. So there is
/// one writer of estimates and one eraser of counters at a time.
///
/// Setting `BUSY` acquires and clearing it releases, which hands that role over. Recording acquires `turn` too: who sees
/// the new window also sees its counters erased, so no erasure wipes out a sample that came after it. The counters
/// themselves are `Relaxed`: each sample is one read-modify-write, which is never lost or doubled, and a sample that an
/// estimate misses by a moment is in the next. A thread that is suspended within `record` for windows on end may add
/// its sample to a younger window, or see it erased; an estimate over `min_samples` does not feel it.
pub(crate) struct Latencies {
    quantile: f64,
    min_samples: u32,
    /// The length of a window in nanoseconds.
    window: u64,
    grid: Grid,
    /// The counters: for each bucket of the grid one per window, window `n` at `n % WINDOWS`.
    counts: Box<[[AtomicU32; WINDOWS]]>,
    /// Twice the number of the current window, counted from the first moment, plus [`BUSY`].
    turn: AtomicU64,
    /// The estimate in nanoseconds; 0 is none.
    estimate: AtomicU64,
    /// About how many samples there are, kept only while there is no estimate: it says when it is worth counting.
    waiting: AtomicU64,
}

/// In `turn`: someone is at work on the estimate or on the windows.
const BUSY: u64 = 1;

/// The shortest window. With it the number of every moment's window fits `turn`, with room for [`BUSY`].
const SHORTEST_WINDOW: Duration = Duration::from_millis(1);

/// Counters stop here: 2^31 of one bucket in one window. The distance to the end is for threads that pass the check at
/// the same time, so that no counter wraps.
const FULL: u32 = 1 << 31;

impl Latencies {
    /// `quantile` in (0, 1); at least one sample; windows of a millisecond or more.
    pub(crate) fn new(quantile: f64, min_samples: u32, window: Duration) -> Result<Self, Refused> {
        Self::on_grid(Grid::FINE, quantile, min_samples, window)
    }

    /// On a grid of its own, which a model can afford.
    pub(super) fn on_grid(grid: Grid, quantile: f64, min_samples: u32, window: Duration) -> Result<Self, Refused> {
        let refuse = |field, value, accepted| Err(Refused { field, value, accepted });
        if !(quantile > 0.0 && quantile < 1.0) {
            let accepted = "more than 0 and less than 1";
            return refuse("quantile", quantile.to_string(), accepted);
        }
        if min_samples == 0 {
            return refuse("min_samples", min_samples.to_string(), "at least 1");
        }
        if window < SHORTEST_WINDOW {
            return refuse("window", format!("{window:?}"), "at least 1ms");
        }
        let empty = || array::from_fn(|_| AtomicU32::new(0));
        Ok(Self {
            quantile,
            min_samples,
            window: nanos(window),
            counts: (0..grid.buckets()).map(|_| empty()).collect(),
            grid,
            turn: AtomicU64::new(0),
            estimate: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        })
    }

    /// Takes in a latency that ended at `now`. Never waits.
    pub(crate) fn record(&self, latency: Duration, now: Moment) {
        // Acquire: see the type's page.
        let mut turn = self.turn.load(Ordering::Acquire);
        if now >= self.end_of(turn) {
            turn = self.turn_page(turn, now);
        }
        self.count(latency, turn);
        if self.estimate().is_none() {
            self.wait_for_enough();
        }
    }

    /// The quantile, as of the last renewal; none while there are too few samples.
    pub(crate) fn estimate(&self) -> Option<Duration> {
        // Relaxed: the word is all there is to know.
        match self.estimate.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    fn count(&self, latency: Duration, turn: u64) {
        let bucket = self.counts.get(self.grid.bucket(nanos(latency)));
        let Some(counter) = bucket.and_then(|windows| windows.get(slot(number(turn)))) else {
            return;
        };
        // Relaxed, both: see the type's page.
        if counter.load(Ordering::Relaxed) < FULL {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Without an estimate: gives the first one as soon as the samples suffice.
    #[cold]
    fn wait_for_enough(&self) {
        // AcqRel: each waiting thread counted its sample before this; who reaches the number sees all of them counted.
        let waiting = self.waiting.fetch_add(1, Ordering::AcqRel);
        if waiting.saturating_add(1) < u64::from(self.min_samples) {
            return;
        }
        // Relaxed: claiming acquires. If someone else is at work, the next sample tries again.
        let turn = self.turn.load(Ordering::Relaxed) & !BUSY;
        if self.claim(turn).is_ok() {
            self.renew_estimate();
            self.release(turn);
        }
    }

    /// Makes the window of `now` the current one, unless somebody else does. Gives the turn to record in.
    #[cold]
    fn turn_page(&self, turn: u64, now: Moment) -> u64 {
        let old = turn & !BUSY;
        if let Err(current) = self.claim(old) {
            return current;
        }
        let new = self.turn_of(now);
        self.turn_windows(number(old), number(new));
        self.release(new);
        new
    }

    /// From window `old` to window `new`; only while `BUSY` is ours.
    fn turn_windows(&self, old: u64, new: u64) {
        let windows = WINDOWS_U64;
        // The windows that went by without a sample take the place of as many old ones. The last of them waits until
        // the estimate is made, which is thus of complete windows, unless none of them is recent.
        let stale = match new.saturating_sub(old) {
            passed if passed >= windows => windows,
            passed => passed.saturating_sub(1),
        };
        for k in 1..=stale {
            self.erase(old.saturating_add(k));
        }
        self.renew_estimate();
        self.erase(new);
        // Relaxed: an increment that falls between counting and storing makes the first estimate early to try or late by
        // that sample, no more.
        self.waiting.store(self.samples(), Ordering::Relaxed);
    }

    /// Sets `BUSY`, or gives the turn as it is.
    fn claim(&self, turn: u64) -> Result<u64, u64> {
        // Acquire on success, to see what the one before has erased; on failure too, as the result is recorded in.
        self.turn.compare_exchange(turn, turn | BUSY, Ordering::Acquire, Ordering::Acquire)
    }

    /// Clears `BUSY`, and enters the window of `turn`.
    fn release(&self, turn: u64) {
        // Release: hands over what was erased. Nobody else writes this word while it is BUSY.
        self.turn.store(turn, Ordering::Release);
    }

    /// Zeroes the counters of a window. Only while `BUSY` is ours.
    fn erase(&self, number: u64) {
        let counters = self.counts.iter().filter_map(|c| c.get(slot(number)));
        for counter in counters {
            // Relaxed: `release` publishes it. Most are zero already and need no write. A swap and not a store: it has
            // its place among the increments, which is what loom can check.
            if counter.load(Ordering::Relaxed) != 0 {
                counter.swap(0, Ordering::Relaxed);
            }
        }
    }

    /// Computes and publishes the estimate. Only while `BUSY` is ours: counters do not fall in the meantime, and no
    /// older estimate overwrites a newer one.
    fn renew_estimate(&self) {
        let nanos = self.compute().unwrap_or(0);
        // Relaxed: the word is all there is to know.
        self.estimate.store(nanos, Ordering::Relaxed);
    }

    /// The upper edge of the bucket that holds the quantile; none if the samples are too few.
    fn compute(&self) -> Option<u64> {
        // Sums of whole numbers, exact up to 2^53.
        let in_bucket = |windows: &[AtomicU32; WINDOWS]| -> f64 {
            let counters = windows.iter().map(|c| c.load(Ordering::Relaxed));
            counters.map(f64::from).sum()
        };
        let samples: f64 = self.counts.iter().map(in_bucket).sum();
        if samples < f64::from(self.min_samples) {
            return None;
        }
        let rank = self.quantile * samples;
        let mut below = 0.0;
        let bucket = self.counts.iter().position(|windows| {
            below += in_bucket(windows);
            below >= rank
        })?;
        Some(self.grid.upper_edge(bucket))
    }

    /// How many samples there are in all windows.
    pub(crate) fn samples(&self) -> u64 {
        let counters = self.counts.iter().flatten();
        // Relaxed: a sample that arrives meanwhile may be counted or not.
        counters.map(|c| u64::from(c.load(Ordering::Relaxed))).sum()
    }

    /// The number of the current window; none while someone is at work.
    #[cfg(test)]
    pub(super) fn settled_window(&self) -> Option<u64> {
        let turn = self.turn.load(Ordering::Acquire);
        (turn & BUSY == 0).then_some(number(turn))
    }

    /// The first moment after the window of `turn`.
    fn end_of(&self, turn: u64) -> Moment {
        let windows = number(turn).saturating_add(1);
        Moment::from_nanos(windows.saturating_mul(self.window))
    }

    /// The window that `now` falls into. A division, which recording a sample does without.
    fn turn_of(&self, now: Moment) -> u64 {
        let number = now.nanos().checked_div(self.window).unwrap_or(0);
        number.saturating_mul(2)
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies")
            .field("quantile", &self.quantile)
            .field("estimate", &self.estimate())
            .finish_non_exhaustive()
    }
}

#[expect(clippy::as_conversions, reason = "a small constant")]
const WINDOWS_U64: u64 = WINDOWS as u64;

/// The number of a turn's window.
fn number(turn: u64) -> u64 {
    turn / 2
}

/// Where a window's counters are.
fn slot(number: u64) -> usize {
    usize::try_from(number % WINDOWS_U64).unwrap_or(0)
}

/// The edges of the buckets: powers of two, each interval between two of them cut into `2^cuts` equal buckets.
///
/// So the relative width is at most `1 / 2^cuts` everywhere. Values outside count as the lowest or highest inside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// The lowest value is two to this power, at least `cuts`.
    pub(super) lowest: u32,
    /// How many powers of two there are; `lowest + octaves` is less than 64.
    pub(super) octaves: u32,
    pub(super) cuts: u32,
}

impl Grid {
    /// From 2^10 ns, a microsecond, to 2^42 ns, 73 minutes, within 3.1 %: 1024 buckets.
    const FINE: Self = Self { lowest: 10, octaves: 32, cuts: 5 };

    fn buckets(self) -> u32 {
        self.octaves.saturating_mul(1_u32.wrapping_shl(self.cuts))
    }

    fn bucket(self, value: u64) -> usize {
        let lowest = two_to(self.lowest);
        let highest = two_to(self.lowest.saturating_add(self.octaves)).saturating_sub(1);
        let value = value.max(lowest).min(highest);
        let power = value.checked_ilog2().unwrap_or(0);
        // The power's bit and the `cuts` bits after it.
        let leading = value.wrapping_shr(power.saturating_sub(self.cuts));
        let octave = u64::from(power.saturating_sub(self.lowest));
        let before = octave.saturating_mul(two_to(self.cuts));
        let bucket = before.saturating_add(leading.saturating_sub(two_to(self.cuts)));
        usize::try_from(bucket).unwrap_or(usize::MAX)
    }

    /// The highest value that falls into a bucket.
    fn upper_edge(self, bucket: usize) -> u64 {
        let (bucket, cuts) = (u64::try_from(bucket).unwrap_or(u64::MAX), two_to(self.cuts));
        let octave = u32::try_from(bucket.checked_div(cuts).unwrap_or(0)).unwrap_or(u32::MAX);
        let leading = cuts.saturating_add(bucket.checked_rem(cuts).unwrap_or(0));
        let width = two_to(self.lowest.saturating_add(octave).saturating_sub(self.cuts));
        leading.saturating_add(1).saturating_mul(width).saturating_sub(1)
    }
}

/// Saturating, where a grid is not what [`Grid`] asks for.
fn two_to(power: u32) -> u64 {
    1_u64.checked_shl(power).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
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
}
