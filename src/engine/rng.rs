//! The one seam for randomness: seedable, so that jitter is reproducible in tests.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    time::Duration,
};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::sync::{AtomicU64, Ordering};

/// A source of random numbers that many tasks share without a lock.
///
/// Draw `n` depends on the seed and on `n` alone. So a seed reproduces a sequence, and a draw is one `fetch_add` that
/// never waits. It is for spreading load and not for secrets: the numbers are predictable.
#[derive(Debug)]
pub(crate) struct Rng {
    /// The seed, scrambled: neighbouring seeds, which are what people choose, are far apart as keys.
    key: u64,
    draws: AtomicU64,
}

impl Rng {
    /// The sequence that belongs to `seed`. It may differ between versions of this crate and between platforms.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { key: SmallRng::seed_from_u64(seed).next_u64(), draws: AtomicU64::new(0) }
    }

    /// A sequence that no other call gets, in this process or in another one.
    pub(crate) fn from_entropy() -> Self {
        // RandomState asks the operating system once per thread; the serial number parts the calls even where a
        // platform has no entropy to give.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(next_serial());
        Self::seeded(hasher.finish())
    }

    /// Uniform in `[0, 1)`, with 53 random bits.
    pub(crate) fn uniform(&self) -> f64 {
        self.next().random()
    }

    /// Uniform over the whole nanoseconds of `[low, high]`; `low` if `high` is not above it.
    pub(crate) fn range(&self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_nanos();
        if span == 0 {
            return low;
        }
        low.saturating_add(from_nanos(self.next().random_range(0..=span)))
    }

    /// Independent numbers, each uniform in `[0, 1)`, all of one draw.
    #[cfg(feature = "chaos")]
    pub(crate) fn uniforms<const N: usize>(&self) -> [f64; N] {
        let mut draw = self.next();
        std::array::from_fn(|_| draw.random())
    }

    /// Another sequence, which follows from this one's seed and the salt alone.
    #[cfg(feature = "chaos")]
    pub(crate) fn derived(&self, salt: u64) -> Self {
        Self::seeded(self.key ^ salt)
    }

    /// 64 random bits.
    #[cfg(feature = "http")]
    pub(crate) fn bits(&self) -> u64 {
        self.next().next_u64()
    }

    /// The generator of the next draw.
    fn next(&self) -> SmallRng {
        // An odd constant, so that no draw repeats before 2^64 of them. It must not be the one by which the generator
        // expands its seed (the golden ratio's), or consecutive draws would share parts of their state.
        const STRIDE: u64 = 0xD134_2543_DE82_EF95;
        // Relaxed: a draw needs a number of its own, which every read-modify-write gives; it orders nothing else.
        let draw = self.draws.fetch_add(1, Ordering::Relaxed);
        SmallRng::seed_from_u64(self.key.wrapping_add(draw.wrapping_mul(STRIDE)))
    }
}

/// A number given out once per process.
fn next_serial() -> u64 {
    // Not through `sync`: loom's atomics cannot live in a static, and there is no interleaving to check in one counter.
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only distinctness counts.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// `Duration::from_nanos` for all that a `Duration` can hold, saturating beyond.
pub(super) fn from_nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    match (u64::try_from(nanos / PER_SECOND), u32::try_from(nanos % PER_SECOND)) {
        (Ok(secs), Ok(subsec)) => Duration::new(secs, subsec),
        _ => Duration::MAX,
    }
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use std::{thread, time::Duration};

    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::{Rng, from_nanos};

    fn draws(rng: &Rng, n: usize) -> Vec<u64> {
        (0..n).map(|_| rng.uniform().to_bits()).collect()
    }

    #[test]
    fn a_seed_reproduces_its_sequence() {
        assert_eq!(draws(&Rng::seeded(7), 100), draws(&Rng::seeded(7), 100));
    }

    #[test]
    fn neighbouring_seeds_share_no_draw() {
        let mut all: Vec<u64> = (0..100).flat_map(|seed| draws(&Rng::seeded(seed), 100)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10_000);
    }

    #[test]
    fn two_sources_from_entropy_differ() {
        assert_ne!(draws(&Rng::from_entropy(), 4), draws(&Rng::from_entropy(), 4));
    }

    #[test]
    fn uniform_is_uniform_and_consecutive_draws_are_independent() {
        const N: u32 = 100_000;
        let rng = Rng::seeded(1);
        let mut buckets = [0_u32; 10];
        let (mut sum, mut products, mut last) = (0.0, 0.0, 0.5);
        for _ in 0..N {
            let u = rng.uniform();
            assert!((0.0..1.0).contains(&u));
            let tenth = (1..10).filter(|&n| u >= f64::from(n) / 10.0).count();
            buckets[tenth] += 1;
            sum += u;
            products += (u - 0.5) * (last - 0.5);
            last = u;
        }
        let n = f64::from(N);
        assert!((sum / n - 0.5).abs() < 0.005, "mean {}", sum / n);
        // 12 is one over the variance: this is the correlation of a draw with the one before.
        assert!((12.0 * products / n).abs() < 0.015);
        assert!(buckets.iter().all(|&b| (9_600..10_400).contains(&b)));
    }

    #[cfg(feature = "chaos")]
    #[test]
    fn the_numbers_of_one_draw_are_uniform_independent_and_no_other_draw_s() {
        const N: u32 = 100_000;
        let rng = Rng::seeded(1);
        let (mut sums, mut products, mut across, mut last) = ([0.0; 2], 0.0, 0.0, 0.5);
        for _ in 0..N {
            let [a, b] = rng.uniforms();
            assert!((0.0..1.0).contains(&a) && (0.0..1.0).contains(&b));
            sums = [sums[0] + a, sums[1] + b];
            products += (a - 0.5) * (b - 0.5);
            across += (a - 0.5) * (last - 0.5);
            last = b;
        }
        let n = f64::from(N);
        assert!(sums.iter().all(|sum| (sum / n - 0.5).abs() < 0.005), "{sums:?}");
        assert!((12.0 * products / n).abs() < 0.015 && (12.0 * across / n).abs() < 0.015);
    }

    #[cfg(feature = "chaos")]
    #[test]
    fn a_derived_sequence_depends_on_seed_and_salt_alone() {
        let (used, fresh) = (Rng::seeded(7), Rng::seeded(7));
        draws(&used, 10);
        assert_eq!(draws(&used.derived(1), 10), draws(&fresh.derived(1), 10));
        assert_ne!(draws(&fresh.derived(1), 10), draws(&fresh.derived(2), 10));
        assert_ne!(draws(&fresh.derived(1), 10), draws(&Rng::seeded(8).derived(1), 10));
    }

    #[test]
    fn an_empty_or_inverted_range_is_its_low_end() {
        let rng = Rng::seeded(1);
        let (one, two) = (Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(rng.range(one, one), one);
        assert_eq!(rng.range(two, one), two);
    }

    #[test]
    fn a_range_reaches_both_ends_and_every_nanosecond() {
        let rng = Rng::seeded(1);
        let low = Duration::new(5, 999_999_998);
        let mut seen: Vec<_> = (0..200).map(|_| rng.range(low, low + Duration::from_nanos(4))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn draws_of_many_threads_are_the_draws_of_one() {
        let shared = Rng::seeded(3);
        let mut got: Vec<u64> = thread::scope(|s| {
            let handles: Vec<_> = (0..4).map(|_| s.spawn(|| draws(&shared, 250))).collect();
            handles.into_iter().flat_map(|h| h.join().unwrap()).collect()
        });
        let mut expected = draws(&Rng::seeded(3), 1000);
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected);
    }

    proptest! {
        #[test]
        fn a_range_keeps_its_bounds(seed: u64, a: Duration, b: Duration) {
            let (low, high) = (a.min(b), a.max(b));
            let drawn = Rng::seeded(seed).range(low, high);
            prop_assert!((low..=high).contains(&drawn));
        }

        #[test]
        fn nanoseconds_convert_both_ways(duration: Duration) {
            prop_assert_eq!(from_nanos(duration.as_nanos()), duration);
        }
    }

    #[test]
    fn the_longest_durations_do_not_overflow() {
        let rng = Rng::seeded(1);
        assert_eq!(from_nanos(u128::MAX), Duration::MAX);
        assert!(rng.range(Duration::ZERO, Duration::MAX) <= Duration::MAX);
        assert_eq!(rng.range(Duration::MAX, Duration::MAX), Duration::MAX);
    }
}
