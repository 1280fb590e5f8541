//! When to hedge: a quantile of the recent latencies, in a log-linear histogram over rotating windows.

mod grid;
#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests;

use std::{array, fmt, time::Duration};

use super::{
    moment::{Moment, nanos},
    refused::Refused,
    sync::{AtomicU32, AtomicU64, Ordering},
};

pub(super) use grid::Grid;

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
