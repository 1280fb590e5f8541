//! Capped, saturating sequences of delays, and jitter.

mod live;

use std::{fmt, sync::Arc, time::Duration};

#[cfg(feature = "serde")]
pub use live::BackoffKind;
pub(crate) use live::LiveBackoff;

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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
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

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests;
