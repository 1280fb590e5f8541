//! Vectors, bounds and shapes of the delays.

use proptest::{
    prelude::{Just, Strategy, any},
    prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The first `n` delays of one call, each told the one before.
fn delays(backoff: &Backoff, n: u32, rng: &Rng) -> Vec<Duration> {
    let mut previous = None;
    (1..=n)
        .map_while(|retry| {
            previous = backoff.delay(retry, previous, None, rng);
            previous
        })
        .collect()
}

/// The first delays without jitter.
fn plain<const N: usize>(backoff: Backoff) -> [Duration; N] {
    let backoff = backoff.jitter(Jitter::None);
    let n = u32::try_from(N).unwrap();
    delays(&backoff, n, &Rng::seeded(0)).try_into().unwrap()
}

#[test]
fn the_three_plain_kinds_grow_as_their_names_say() {
    let (base, cap) = (secs(1), secs(100));
    assert_eq!(plain(Backoff::exponential(base).cap(cap)), [1, 2, 4].map(secs));
    assert_eq!(plain(Backoff::linear(base).cap(cap)), [1, 2, 3].map(secs));
    assert_eq!(plain(Backoff::constant(base).cap(cap)), [1, 1, 1].map(secs));
}

#[test]
fn exponential_growth_stops_at_the_cap() {
    let short = Backoff::exponential(ms(1)).cap(ms(10));
    assert_eq!(plain(short), [1, 2, 4, 8, 10, 10].map(ms));
    let long = Backoff::exponential(secs(2)).cap(secs(30));
    assert_eq!(plain(long), [2, 4, 8, 16, 30].map(secs));
}

#[test]
fn the_default_doubles_from_50_ms_to_1_s() {
    assert_eq!(plain(Backoff::default()), [50, 100, 200, 400, 800, 1000, 1000].map(ms));
    assert_eq!(Backoff::default().longest(2), Some(ms(150)));
}

#[test]
fn other_factors_multiply() {
    let backoff = Backoff::exponential(ms(100)).factor(1.5);
    assert_eq!(plain(backoff), [100, 150, 225].map(ms));
    assert_eq!(plain(Backoff::exponential(ms(7)).factor(1.0)), [7, 7, 7].map(ms));
}

#[test]
fn a_base_of_zero_is_no_delay_whatever_kind_and_jitter() {
    let rng = Rng::seeded(1);
    let zero = Duration::ZERO;
    for jitter in [Jitter::None, Jitter::Full, Jitter::Equal] {
        for backoff in [
            Backoff::constant(zero),
            Backoff::linear(zero),
            Backoff::exponential(zero),
            Backoff::exponential(zero).factor(f64::MAX),
            Backoff::exponential(zero).cap(zero),
        ] {
            let backoff = backoff.jitter(jitter);
            assert!(delays(&backoff, 2000, &rng).iter().all(Duration::is_zero));
            assert_eq!(backoff.longest(u32::MAX), Some(zero));
        }
    }
    assert_eq!(delays(&Backoff::decorrelated(zero), 10, &rng), [zero; 10]);
}

#[test]
fn the_largest_legal_settings_saturate() {
    let rng = Rng::seeded(1);
    let max = Duration::MAX;
    for backoff in [
        Backoff::constant(max),
        Backoff::linear(max),
        Backoff::exponential(max),
        Backoff::exponential(max).factor(f64::MAX),
    ] {
        let backoff = backoff.jitter(Jitter::None);
        assert_eq!(backoff.validate(), Ok(()));
        for retry in [0, 1, 2, 1 << 31, u32::MAX] {
            assert_eq!(backoff.delay(retry, Some(max), None, &rng), Some(max));
        }
        assert_eq!(backoff.longest(u32::MAX), Some(max));
    }
    let walk = Backoff::decorrelated(max);
    assert_eq!(walk.delay(u32::MAX, Some(max), None, &rng), Some(max));
}

#[test]
fn the_retry_two_to_the_31_waits_for_the_cap() {
    let rng = Rng::seeded(1);
    for backoff in [Backoff::default(), Backoff::linear(ms(50))] {
        let backoff = backoff.jitter(Jitter::None);
        assert_eq!(backoff.delay(1 << 31, None, None, &rng), Some(secs(1)));
    }
}

#[test]
fn the_default_cap_never_shortens_what_was_asked_for() {
    assert_eq!(plain(Backoff::exponential(secs(5))), [secs(5), secs(10), secs(20)]);
    assert_eq!(plain(Backoff::constant(secs(5))), [secs(5)]);
    assert_eq!(Backoff::linear(secs(5)).validate(), Ok(()));
}

/// Mean, least and greatest of many draws, in milliseconds.
fn spread(backoff: &Backoff) -> (f64, f64, f64) {
    const N: u32 = 20_000;
    let rng = Rng::seeded(42);
    let (mut sum, mut least, mut greatest) = (0.0, f64::MAX, 0.0_f64);
    for _ in 0..N {
        let v = backoff.delay(1, None, None, &rng).unwrap().as_secs_f64() * 1e3;
        sum += v;
        least = least.min(v);
        greatest = greatest.max(v);
    }
    (sum / f64::from(N), least, greatest)
}

#[test]
fn full_jitter_spreads_from_zero_and_equal_jitter_from_the_half() {
    let (mean, least, greatest) = spread(&Backoff::constant(ms(100)));
    assert!((49.0..51.0).contains(&mean) && least < 0.1 && greatest > 99.9);
    let equal = Backoff::constant(ms(100)).jitter(Jitter::Equal);
    let (mean, least, greatest) = spread(&equal);
    assert!((74.5..75.5).contains(&mean) && (50.0..50.1).contains(&least) && greatest > 99.9);
    let (mean, least, greatest) = spread(&Backoff::decorrelated(ms(100)));
    assert!((198.0..202.0).contains(&mean) && least >= 100.0 && greatest > 299.0);
}

#[test]
fn capped_clients_stay_spread() {
    let rng = Rng::seeded(9);
    for backoff in [Backoff::exponential(ms(50)).cap(secs(2)), Backoff::decorrelated(ms(50)).cap(secs(2))] {
        let on_the_cap = (0..1000).filter(|_| delays(&backoff, 8, &rng).last() == Some(&secs(2))).count();
        assert_eq!(on_the_cap, 0);
    }
}

#[test]
fn a_custom_backoff_sees_the_step_and_may_stop() {
    let rng = Rng::seeded(1);
    let backoff = Backoff::custom(|step| match step.retry() {
        1 => step.hint(),
        2 => step.previous().map(|p| p * 2),
        _ => None,
    });
    assert_eq!(backoff.delay(1, None, Some(ms(30)), &rng), Some(ms(30)));
    assert_eq!(backoff.delay(2, Some(ms(30)), None, &rng), Some(ms(60)));
    assert_eq!(backoff.delay(3, Some(ms(60)), None, &rng), None);
    assert_eq!(backoff.longest(2), None);
    assert_eq!(backoff.clone().cap(secs(1)).longest(2), Some(secs(2)));
    let capped = backoff.cap(ms(10)).jitter(Jitter::Full);
    assert!(capped.delay(1, None, Some(secs(9)), &rng).unwrap() <= ms(10));
}

#[test]
fn nonsense_is_refused_with_field_value_and_what_is_accepted() {
    let field = |backoff: Backoff| backoff.validate().unwrap_err().field;
    for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.999, -2.0] {
        assert_eq!(field(Backoff::default().factor(factor)), "factor");
    }
    assert_eq!(field(Backoff::linear(ms(1)).factor(2.0)), "factor");
    assert_eq!(field(Backoff::constant(ms(1)).cap(Duration::ZERO)), "cap");
    assert_eq!(field(Backoff::decorrelated(ms(1)).jitter(Jitter::Full)), "jitter");
    assert_eq!(
        Backoff::exponential(ms(200)).cap(ms(100)).validate(),
        Err(Refused { field: "cap", value: "100ms with a base of 200ms".to_owned(), accepted: "at least the base" })
    );
    assert_eq!(Backoff::default().factor(f64::MAX).validate(), Ok(()));
    assert_eq!(Backoff::default().cap(DEFAULT_BASE).validate(), Ok(()));
}

#[test]
fn unvalidated_nonsense_still_keeps_the_cap() {
    let rng = Rng::seeded(1);
    for backoff in [
        Backoff::default().factor(f64::NAN),
        Backoff::default().factor(f64::NEG_INFINITY),
        Backoff::exponential(secs(2)),
        Backoff::decorrelated(secs(2)),
        Backoff::constant(secs(2)),
    ] {
        let backoff = backoff.cap(ms(100));
        assert!(delays(&backoff, 100, &rng).iter().all(|&v| v <= ms(100)));
        assert!(backoff.longest(3).unwrap() <= ms(300));
    }
}

#[test]
fn a_description_reads_like_the_setting() {
    for (backoff, words) in [
        (Backoff::default(), "exponential 50ms x2 up to 1s, full jitter"),
        (Backoff::default().factor(1.5).jitter(Jitter::Equal), "exponential 50ms x1.5 up to 1s, equal jitter"),
        (Backoff::default().factor(f64::MAX), "exponential 50ms x1.7976931348623157e308 up to 1s, full jitter"),
        (Backoff::default().factor(1e9), "exponential 50ms x1e9 up to 1s, full jitter"),
        (Backoff::default().factor(999_999_999.0), "exponential 50ms x999999999 up to 1s, full jitter"),
        (Backoff::linear(ms(10)).jitter(Jitter::None), "linear 10ms up to 1s, no jitter"),
        (Backoff::constant(ms(10)), "constant 10ms, full jitter"),
        (Backoff::decorrelated(ms(10)), "decorrelated 10ms up to 1s"),
        (Backoff::custom(|_| None), "custom"),
        (Backoff::custom(|_| None).cap(secs(1)).jitter(Jitter::Full), "custom up to 1s, full jitter"),
    ] {
        assert_eq!(backoff.describe(), words);
    }
}

#[test]
fn the_longest_sums_are_exact_where_they_can_be_checked_by_hand() {
    let longest = |backoff: Backoff, n| backoff.longest(n).unwrap();
    // 50 + 100 + .. + 950, then 1000 for ever: cap and base divide, and where they do not.
    assert_eq!(longest(Backoff::linear(ms(50)), 20), ms(10_500));
    assert_eq!(longest(Backoff::linear(ms(50)), 22), ms(12_500));
    assert_eq!(longest(Backoff::linear(ms(300)).cap(secs(1)), 5), ms(300 + 600 + 900 + 2000));
    assert_eq!(longest(Backoff::default(), 7), ms(50 + 100 + 200 + 400 + 800 + 2000));
    assert_eq!(longest(Backoff::decorrelated(ms(50)), 4), ms(150 + 450 + 2000));
    assert_eq!(longest(Backoff::constant(ms(50)), 4), ms(200));
    for n in [0, 1] {
        let first = ms(50 * u64::from(n));
        assert_eq!(longest(Backoff::default(), n), first);
        assert_eq!(longest(Backoff::linear(ms(50)), n), first);
    }
    // The cap, less what the first five fell short of it.
    assert_eq!(longest(Backoff::default(), u32::MAX), ms(1000 * u64::from(u32::MAX) - (950 + 900 + 800 + 600 + 200)));
}

#[test]
fn growth_too_slow_to_add_up_has_an_upper_bound() {
    let slow = Backoff::exponential(ms(1)).factor(1.000_001);
    let exact: Duration = (1..=10_000).map(|retry| slow.grown(ms(1), retry)).sum();
    let bound = slow.longest(10_000).unwrap();
    assert!(bound >= exact && bound < exact + exact / 100);
    assert!(slow.longest(u32::MAX).unwrap() <= secs(u64::from(u32::MAX)));
}

fn kinds() -> impl Strategy<Value = Backoff> {
    let nanos = prop_oneof![0..=u64::MAX, 0..=10_000_000_000_u64];
    (0..4, nanos.clone(), nanos, 1.0..100.0_f64, 0..3, any::<bool>()).prop_map(
        |(kind, base, more, factor, jitter, capped)| {
            let base = Duration::from_nanos(base);
            let backoff = match kind {
                0 => Backoff::constant(base),
                1 => Backoff::linear(base),
                2 => Backoff::exponential(base).factor(factor),
                _ => Backoff::decorrelated(base),
            };
            let backoff = match (kind, jitter) {
                (3, _) | (_, 0) => backoff,
                (_, 1) => backoff.jitter(Jitter::None),
                _ => backoff.jitter(Jitter::Equal),
            };
            if capped { backoff.cap(base.saturating_add(Duration::from_nanos(more))) } else { backoff }
        },
    )
}

proptest! {
    #[test]
    fn no_delay_exceeds_the_cap(
        backoff in kinds(),
        retry: u32,
        previous: Option<Duration>,
        seed: u64,
    ) {
        prop_assert_eq!(backoff.validate(), Ok(()));
        let delay = backoff.delay(retry, previous, None, &Rng::seeded(seed)).unwrap();
        prop_assert!(delay <= backoff.effective_cap());
    }

    #[test]
    fn without_jitter_delays_never_fall(backoff in kinds(), seed: u64) {
        let backoff = backoff.jitter(Jitter::None);
        if !matches!(backoff.kind, Kind::Decorrelated(_)) {
            let delays = delays(&backoff, 40, &Rng::seeded(seed));
            prop_assert!(delays.is_sorted());
        }
    }

    #[test]
    fn equal_jitter_keeps_the_upper_half(base in 0..u64::MAX, seed: u64) {
        let v = Duration::from_nanos(base);
        let backoff = Backoff::constant(v).jitter(Jitter::Equal);
        let delay = backoff.delay(1, None, None, &Rng::seeded(seed)).unwrap();
        prop_assert!((v / 2..=v).contains(&delay));
    }

    #[test]
    fn decorrelated_delays_stay_between_base_and_three_times_the_previous(
        base in 0..1_000_000_000_u64,
        cap in prop_oneof![Just(0), 0..100_000_000_000_u64],
        seed: u64,
    ) {
        let base = Duration::from_nanos(base);
        let cap = base + Duration::from_nanos(cap);
        let mut previous = base;
        for delay in delays(&Backoff::decorrelated(base).cap(cap), 30, &Rng::seeded(seed)) {
            prop_assert!(base <= delay && delay <= cap.min(previous * 3));
            previous = delay;
        }
    }

    #[test]
    fn the_longest_sum_is_never_exceeded(backoff in kinds(), retries in 0..50_u32, seed: u64) {
        let sum = delays(&backoff, retries, &Rng::seeded(seed))
            .into_iter()
            .fold(Duration::ZERO, Duration::saturating_add);
        prop_assert!(sum <= backoff.longest(retries).unwrap());
    }

    #[test]
    fn without_jitter_the_longest_sum_is_the_sum(backoff in kinds(), retries in 0..50_u32) {
        if !matches!(backoff.kind, Kind::Decorrelated(_)) {
            let backoff = backoff.jitter(Jitter::None);
            let sum = delays(&backoff, retries, &Rng::seeded(0))
                .into_iter()
                .fold(Duration::ZERO, Duration::saturating_add);
            prop_assert_eq!(Some(sum), backoff.longest(retries));
        }
    }
}
