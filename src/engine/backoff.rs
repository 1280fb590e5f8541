//! Capped, saturating sequences of delays, and jitter.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    refused::Refused,
    rng::{Rng, from_nanos},
};

/// How long to wait before each retry.
///
/// A dependency that fails is often overloaded, and clients that failed together retry together. Growing delays give
/// it time to recover; jitter takes the clients out of step. The default does both and is right for most calls:
///
/// ```
/// use std::time::Duration;
/// use withstand::{Backoff, Jitter};
///
/// // 50 ms, 100 ms, 200 ms, .. 1 s, each a random share of that.
/// let usual = Backoff::default();
/// assert_eq!(format!("{usual:?}"), "Backoff(exponential 50ms x2 up to 1s, full jitter)");
///
/// // A batch job can afford to wait longer.
/// let patient = Backoff::exponential(Duration::from_secs(1)).cap(Duration::from_secs(60));
/// assert_eq!(format!("{patient:?}"), "Backoff(exponential 1s x2 up to 60s, full jitter)");
///
/// // Exactly 100 ms each time: only where there is one client.
/// let steady = Backoff::constant(Duration::from_millis(100)).jitter(Jitter::None);
/// assert_eq!(format!("{steady:?}"), "Backoff(constant 100ms, no jitter)");
/// ```
///
/// # Delays
///
/// With `n` = 0 for the first retry, the delay `v` before jitter is
///
/// | constructor | `v` |
/// |---|---|
/// | [`constant(d)`](Self::constant) | `d` |
/// | [`linear(base)`](Self::linear) | `min(cap, base * (n + 1))` |
/// | [`exponential(base)`](Self::exponential) | `min(cap, base * factor^n)` |
/// | [`decorrelated(base)`](Self::decorrelated) | `uniform(base, min(cap, 3 * previous))`, its own jitter; `previous` starts as `base` |
/// | [`custom(f)`](Self::custom) | what `f` says, and `None` ends the retrying |
///
/// and [`Jitter`] then makes `v` smaller, never larger. So **a delay never exceeds the cap**, and clients that have
/// reached the cap are still spread: adding jitter first and capping afterwards would march them in step. Everything
/// has the resolution of one nanosecond and saturates; a base of zero is a delay of zero with every kind and jitter.
///
/// # Settings
///
/// | setting | default | accepted | why |
/// |---|---|---|---|
/// | kind and base | exponential, 50 ms | any duration | the base of AWS's retry mode of 2026 |
/// | [`factor`](Self::factor) | 2 | finite, at least 1; exponential only | slower growth repeats too early, faster growth reaches the cap at once |
/// | [`cap`](Self::cap) | 1 s, or 20 times the base if that is longer; none for `custom` | at least the base | a longer wait seldom fits the timeout of the whole call |
/// | [`jitter`](Self::jitter) | [`Jitter::Full`]; [`Jitter::None`] for `custom` | not with `decorrelated` | the fewest calls under contention |
///
/// Values that are not accepted are refused when the policy or the pipeline is built.
///
/// # Hints
///
/// Where the server says when to come back (`Retry-After`), the retry policy waits at least that long, up to its
/// own clamp. That holds for every kind of backoff, and a `custom` one need not look at the hint.
///
/// # Source
///
/// Marc Brooker, [Exponential Backoff And Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/),
/// AWS Architecture Blog. The decorrelated kind differs from the one described there, which draws from
/// `uniform(base, 3 * previous)` and then caps: after eight steps from 50 ms to 2 s a quarter of the clients sit
/// exactly on the cap. Here the range is capped instead of the draw, and none do.
#[derive(Clone)]
#[must_use = "a backoff does nothing until a retry policy is given it"]
pub struct Backoff {
    kind: Kind,
    // Settings are kept as they were given: what was never set takes the default of the kind, and what does not
    // belong to the kind is refused by `validate` and not silently dropped.
    factor: Option<f64>,
    cap: Option<Duration>,
    jitter: Option<Jitter>,
}

#[derive(Clone)]
enum Kind {
    Constant(Duration),
    Linear(Duration),
    Exponential(Duration),
    Decorrelated(Duration),
    Custom(Arc<dyn Fn(BackoffStep) -> Option<Duration> + Send + Sync>),
}

/// How the delays of many clients are spread. It only ever shortens a delay.
///
/// ```
/// use withstand::Jitter;
///
/// assert_eq!(Jitter::default(), Jitter::Full);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// The delay `v` as it is. Clients that fail together retry together.
    None,
    /// `uniform(0, v)`. With 100 clients in contention it needs 796 calls where no jitter needs 1852 (computed with
    /// the simulator of the article that [`Backoff`] cites).
    #[default]
    Full,
    /// `v/2 + uniform(0, v/2)`: where a retry that follows at once is sure to be wasted.
    Equal,
}

/// What a [custom backoff](Backoff::custom) decides upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffStep {
    retry: u32,
    previous: Option<Duration>,
    hint: Option<Duration>,
}

impl BackoffStep {
    /// The number of the retry that the delay comes before; 1 for the first.
    #[must_use]
    pub fn retry(&self) -> u32 {
        self.retry
    }

    /// The delay before the previous retry; none at the first.
    #[must_use]
    pub fn previous(&self) -> Option<Duration> {
        self.previous
    }

    /// When the server asked to be called again, from now, if it did.
    #[must_use]
    pub fn hint(&self) -> Option<Duration> {
        self.hint
    }
}

const DEFAULT_BASE: Duration = Duration::from_millis(50);
const DEFAULT_FACTOR: f64 = 2.0;
const DEFAULT_CAP: Duration = Duration::from_secs(1);
/// As many bases as the default cap is of the default base: a longer base grows as far, and does not stand still.
const GROWTH_BEFORE_CAP: u32 = 20;

impl Default for Backoff {
    /// Exponential from 50 ms, doubling, up to 1 s, with full jitter.
    fn default() -> Self {
        Self::exponential(DEFAULT_BASE)
    }
}

impl Backoff {
    /// The same delay each time; [full jitter](Jitter::Full) makes it a random share of `delay` unless told otherwise.
    pub fn constant(delay: Duration) -> Self {
        Self::of(Kind::Constant(delay))
    }

    /// `base`, twice `base`, three times `base`, .. up to the cap.
    pub fn linear(base: Duration) -> Self {
        Self::of(Kind::Linear(base))
    }

    /// `base`, then [`factor`](Self::factor) times longer with each retry, up to the cap.
    pub fn exponential(base: Duration) -> Self {
        Self::of(Kind::Exponential(base))
    }

    /// A random walk: each delay is between `base` and three times the one before, up to the cap.
    ///
    /// It spreads clients well and never retries sooner than `base`, but a delay can be shorter than the one before.
    pub fn decorrelated(base: Duration) -> Self {
        Self::of(Kind::Decorrelated(base))
    }

    /// A sequence of your own. `None` ends the retrying with the last outcome.
    ///
    /// Neither cap nor jitter are applied unless they are set.
    ///
    /// ```
    /// use std::time::Duration;
    /// use withstand::Backoff;
    ///
    /// // A schedule that ends: no retry after the third.
    /// let schedule = [10, 100, 1_000].map(Duration::from_millis);
    /// let backoff = Backoff::custom(move |step| {
    ///     let index = usize::try_from(step.retry()).ok()?.checked_sub(1)?;
    ///     schedule.get(index).copied()
    /// });
    /// assert_eq!(format!("{backoff:?}"), "Backoff(custom)");
    /// ```
    pub fn custom<F>(delay: F) -> Self
    where
        F: Fn(BackoffStep) -> Option<Duration> + Send + Sync + 'static,
    {
        Self::of(Kind::Custom(Arc::new(delay)))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, factor: None, cap: None, jitter: None }
    }

    /// By how much an exponential backoff grows with each retry; 2 by default, and 1 at least.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = Some(factor);
        self
    }

    /// The longest delay; 1 s by default, or 20 times the base where that is longer.
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = Some(cap);
        self
    }

    /// How delays are spread; [`Jitter::Full`] by default.
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = Some(jitter);
        self
    }

    /// Whether the settings make sense, for `build()` to ask.
    pub(crate) fn validate(&self) -> Result<(), Refused> {
        let refuse = |field, value, accepted| Err(Refused { field, value, accepted });
        if let Some(factor) = self.factor {
            if !matches!(self.kind, Kind::Exponential(_)) {
                let accepted = "no factor: only an exponential backoff has one";
                return refuse("factor", Number(factor).to_string(), accepted);
            }
            if !(factor.is_finite() && factor >= 1.0) {
                let accepted = "a finite number of at least 1";
                return refuse("factor", Number(factor).to_string(), accepted);
            }
        }
        if let (Some(cap), Some(base)) = (self.cap, self.base()) {
            if cap < base {
                let value = format!("{cap:?} with a base of {base:?}");
                return refuse("cap", value, "at least the base");
            }
        }
        match (&self.kind, self.jitter) {
            (Kind::Decorrelated(_), Some(jitter)) => {
                let accepted = "no jitter: a decorrelated backoff has its own";
                refuse("jitter", format!("{jitter:?}"), accepted)
            }
            _ => Ok(()),
        }
    }

    /// The delay before retry number `retry` (1 for the first), or none to stop retrying.
    ///
    /// `previous` is what this returned for the retry before. `hint` is for custom backoffs to see; the others leave it
    /// to the retry policy.
    pub(crate) fn delay(
        &self,
        retry: u32,
        previous: Option<Duration>,
        hint: Option<Duration>,
        rng: &Rng,
    ) -> Option<Duration> {
        let step = BackoffStep { retry, previous, hint };
        let v = match &self.kind {
            Kind::Constant(delay) => *delay,
            Kind::Linear(base) => base.saturating_mul(retry.max(1)),
            Kind::Exponential(base) => self.grown(*base, retry),
            Kind::Decorrelated(base) => {
                let low = (*base).min(self.effective_cap());
                let high = widest(previous.unwrap_or(*base)).min(self.effective_cap());
                return Some(rng.range(low, high));
            }
            Kind::Custom(delay) => delay(step)?,
        };
        Some(self.jittered(v.min(self.effective_cap()), rng))
    }

    /// The largest sum that the delays before the first `retries` retries can have; none if it is not known, because
    /// a custom backoff has no cap.
    ///
    /// Quick for any number of retries. It is exact but for one case: growth so slow that the cap is thousands of
    /// retries away, where it is an upper bound.
    pub(crate) fn longest(&self, retries: u32) -> Option<Duration> {
        let cap = self.effective_cap();
        Some(match &self.kind {
            Kind::Constant(delay) => (*delay).min(cap).saturating_mul(retries),
            Kind::Linear(base) => longest_linear(*base, cap, retries),
            Kind::Exponential(base) => sum_until(cap, retries, |retry| self.grown(*base, retry).min(cap)),
            Kind::Decorrelated(base) => {
                let mut longest = *base;
                sum_until(cap, retries, |_| {
                    longest = widest(longest).min(cap);
                    longest
                })
            }
            Kind::Custom(_) => self.cap?.saturating_mul(retries),
        })
    }

    /// In words, for the plan of a pipeline: `exponential 50ms x2 up to 1s, full jitter`.
    pub(crate) fn describe(&self) -> String {
        let cap = self.effective_cap();
        let kind = match &self.kind {
            Kind::Constant(delay) => format!("constant {delay:?}"),
            Kind::Linear(base) => format!("linear {base:?} up to {cap:?}"),
            Kind::Exponential(base) => {
                let factor = Number(self.effective_factor());
                format!("exponential {base:?} x{factor} up to {cap:?}")
            }
            Kind::Decorrelated(base) => return format!("decorrelated {base:?} up to {cap:?}"),
            Kind::Custom(_) => match self.cap {
                Some(cap) => format!("custom up to {cap:?}"),
                None => "custom".to_owned(),
            },
        };
        match (self.effective_jitter(), &self.kind) {
            (Jitter::None, Kind::Custom(_)) => kind,
            (Jitter::None, _) => kind + ", no jitter",
            (Jitter::Full, _) => kind + ", full jitter",
            (Jitter::Equal, _) => kind + ", equal jitter",
        }
    }

    /// `base * factor^n`, where n is 0 for the first retry.
    fn grown(&self, base: Duration, retry: u32) -> Duration {
        if base.is_zero() {
            // An infinite power times zero is not a number.
            return base;
        }
        let n = f64::from(retry.saturating_sub(1));
        let secs = base.as_secs_f64() * self.effective_factor().powf(n);
        // What is too large for a duration, infinity included, is an error here. The rounding of a base of many years
        // must not make a delay shorter than the base.
        Duration::try_from_secs_f64(secs).map_or(Duration::MAX, |v| v.max(base))
    }

    fn jittered(&self, v: Duration, rng: &Rng) -> Duration {
        match self.effective_jitter() {
            Jitter::None => v,
            Jitter::Full => rng.range(Duration::ZERO, v),
            Jitter::Equal => rng.range(from_nanos(v.as_nanos() / 2), v),
        }
    }

    /// The shortest delay before jitter, which is also the first; a custom backoff has none that is known.
    fn base(&self) -> Option<Duration> {
        match self.kind {
            Kind::Constant(base) | Kind::Linear(base) | Kind::Exponential(base) | Kind::Decorrelated(base) => {
                Some(base)
            }
            Kind::Custom(_) => None,
        }
    }

    fn effective_factor(&self) -> f64 {
        self.factor.unwrap_or(DEFAULT_FACTOR)
    }

    fn effective_cap(&self) -> Duration {
        // A default must not refuse or shorten what was asked for, nor take its growth from it.
        let default = || self.base().map_or(Duration::MAX, |b| b.saturating_mul(GROWTH_BEFORE_CAP).max(DEFAULT_CAP));
        self.cap.unwrap_or_else(default)
    }

    fn effective_jitter(&self) -> Jitter {
        self.jitter.unwrap_or(match self.kind {
            // Someone who says exactly what is wanted gets exactly that.
            Kind::Custom(_) => Jitter::None,
            _ => Jitter::Full,
        })
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backoff").field(&format_args!("{}", self.describe())).finish()
    }
}

/// The upper end of a decorrelated delay's range.
fn widest(previous: Duration) -> Duration {
    previous.saturating_mul(3)
}

/// The sum of `min(cap, base * k)` for k from 1 to `retries`.
fn longest_linear(base: Duration, cap: Duration, retries: u32) -> Duration {
    let (base, cap, retries) = (base.as_nanos(), cap.as_nanos(), u128::from(retries));
    // How many delays are not cut by the cap. A base of zero never gets there.
    let rising = cap.checked_div(base).unwrap_or(retries).min(retries);
    let capped = retries.saturating_sub(rising);
    let triangle = rising.saturating_mul(rising.saturating_add(1)) / 2;
    let sum = base.saturating_mul(triangle);
    from_nanos(sum.saturating_add(cap.saturating_mul(capped)))
}

/// The sum of the first `retries` terms of a sequence that rises and then stays at `cap`.
fn sum_until(cap: Duration, retries: u32, mut term: impl FnMut(u32) -> Duration) -> Duration {
    // A factor of 1.01 from 1 ns to 1 s takes 2083 terms. What rises more slowly than this has its remaining terms
    // counted as if each were the last and largest.
    const TERMS: u32 = 4096;
    let mut sum = Duration::ZERO;
    for retry in 1..=retries.min(TERMS) {
        let v = term(retry);
        if v >= cap {
            let remaining = retries.saturating_sub(retry).saturating_add(1);
            return sum.saturating_add(cap.saturating_mul(remaining));
        }
        sum = sum.saturating_add(v);
    }
    match retries.saturating_sub(TERMS) {
        0 => sum,
        remaining => sum.saturating_add(term(retries).saturating_mul(remaining)),
    }
}

/// A number for people: the largest one has 309 digits if written out.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.abs() < 1e9 { write!(f, "{}", self.0) } else { write!(f, "{:e}", self.0) }
    }
}

#[cfg(all(test, not(model_loom)))]
mod tests {
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
            Err(Refused {
                field: "cap",
                value: "100ms with a base of 200ms".to_owned(),
                accepted: "at least the base",
            })
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
        assert_eq!(
            longest(Backoff::default(), u32::MAX),
            ms(1000 * u64::from(u32::MAX) - (950 + 900 + 800 + 600 + 200))
        );
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
}
