//! When a hedge begins.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    build::more_than_zero,
    engine::{
        moment::{Moment, nanos},
        quantile::Latencies,
        tuned::Tuned,
    },
    error::ConfigError,
    layer::HedgeWait,
    snapshot::LatencySnapshot,
};

/// When a hedge begins: so long after the attempt before it began.
///
/// | made by | the hedge begins |
/// |---|---|
/// | [`fixed`](Self::fixed), or a [`Duration`] | after this delay |
/// | [`quantile`](Self::quantile) | once the attempt is slower than this share of the recent ones |
/// | [`custom`](Self::custom) | after what a function says |
/// | [`parallel`](Self::parallel) | at once, all of them |
/// | [`on_failure`](Self::on_failure) | only when an attempt has failed |
///
/// Whichever it is: a transient failure starts the next hedge at once. Only a quantile without samples and without a
/// [`starting`](Self::starting) delay starts none at all.
///
/// ```
/// use std::time::Duration;
/// use withstand::{Hedge, HedgeDelay};
///
/// let by_quantile = HedgeDelay::quantile(0.95)
///     .floor(Duration::from_millis(5))
///     .ceiling(Duration::from_millis(500))
///     .starting(Duration::from_millis(100));
/// let hedge = Hedge::builder().delay(by_quantile).build()?;
/// let fixed = Hedge::builder().delay(Duration::from_millis(50)).build()?;
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// # The quantile
///
/// | option | unit, range | default | why |
/// |---|---|---|---|
/// | quantile | share, more than 0, less than 1 | 0.95 | costs at most 5 % load |
/// | [`floor`](Self::floor) | time | 5 ms | below it a hedge gains nothing |
/// | [`ceiling`](Self::ceiling) | time, at least the floor | half the time that the layers inside can take | one bad host must not drag the delay away |
/// | [`starting`](Self::starting) | time | none: no hedge until there are samples | |
/// | [`min_samples`](Self::min_samples) | calls, from 1 | 100 | below that a quantile says nothing |
/// | [`window`](Self::window) | time, from 1 ms | 10 s, of which three are looked at | |
///
/// What is measured: successes, with their time from the start of the operation; attempts that lost the race or timed
/// out, with at least the delay, since all that is known of them is that they were slow. Other failures are not: a host
/// that fails in half a millisecond would pull the delay to zero. A log-linear histogram of fixed size holds them, so an
/// estimate is at most 3.1 % too long.
#[derive(Clone)]
pub struct HedgeDelay(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Fixed(Duration),
    OnFailure,
    Quantile(Quantile),
    Custom(Arc<dyn Fn(u32) -> Option<Duration> + Send + Sync>),
}

#[derive(Clone, Debug)]
pub(super) struct Quantile {
    pub(super) share: f64,
    pub(super) floor: Duration,
    pub(super) ceiling: Option<Duration>,
    pub(super) starting: Option<Duration>,
    pub(super) min_samples: u32,
    pub(super) window: Duration,
}

impl HedgeDelay {
    /// Always this delay. Zero is [`parallel`](Self::parallel).
    #[must_use]
    pub const fn fixed(delay: Duration) -> Self {
        Self(Kind::Fixed(delay))
    }

    /// All hedges at once, together with the first attempt. It multiplies the load; the budget still bounds it.
    #[must_use]
    pub const fn parallel() -> Self {
        Self(Kind::Fixed(Duration::ZERO))
    }

    /// Only when an attempt has failed: a retry without a wait, that the circuit breaker never takes for a probe.
    #[must_use]
    pub const fn on_failure() -> Self {
        Self(Kind::OnFailure)
    }

    /// Once the attempt is slower than this share of the recent ones: more than 0, less than 1.
    #[must_use]
    pub const fn quantile(quantile: f64) -> Self {
        Self(Kind::Quantile(Quantile {
            share: quantile,
            floor: Duration::from_millis(5),
            ceiling: None,
            starting: None,
            min_samples: 100,
            window: Duration::from_secs(10),
        }))
    }

    /// What a function says of the hedge that is next, from 1; `None` for no further hedge but on failure.
    #[must_use]
    pub fn custom(delay: impl Fn(u32) -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self(Kind::Custom(Arc::new(delay)))
    }

    /// The shortest delay that a quantile gives. Default: 5 ms. Other kinds have none.
    #[must_use]
    pub fn floor(self, floor: Duration) -> Self {
        self.with(|quantile| quantile.floor = floor)
    }

    /// The longest delay that a quantile gives: at least the floor. Default: half the time that the layers inside can
    /// take. Other kinds have none.
    #[must_use]
    pub fn ceiling(self, ceiling: Duration) -> Self {
        self.with(|quantile| quantile.ceiling = Some(ceiling))
    }

    /// The delay of a quantile before there are samples enough. Default: none, and no hedge. Other kinds have none.
    #[must_use]
    pub fn starting(self, delay: Duration) -> Self {
        self.with(|quantile| quantile.starting = Some(delay))
    }

    /// How many samples a quantile needs: 1 or more. Default: 100. Other kinds have none.
    #[must_use]
    pub fn min_samples(self, samples: u32) -> Self {
        self.with(|quantile| quantile.min_samples = samples)
    }

    /// How long a window of samples is, of which three are looked at: 1 ms or more. Default: 10 s. Other kinds have none.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        self.with(|quantile| quantile.window = window)
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Quantile)) -> Self {
        if let Kind::Quantile(quantile) = &mut self.0 {
            change(quantile);
        }
        self
    }
}

impl Default for HedgeDelay {
    /// The 95th percentile, with all the defaults.
    fn default() -> Self {
        Self::quantile(0.95)
    }
}

impl From<Duration> for HedgeDelay {
    fn from(delay: Duration) -> Self {
        Self::fixed(delay)
    }
}

impl fmt::Debug for HedgeDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed(delay) => f.debug_tuple("Fixed").field(delay).finish(),
            Kind::OnFailure => f.write_str("OnFailure"),
            Kind::Quantile(quantile) => quantile.fmt(f),
            Kind::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// A [`HedgeDelay`] at work.
pub(super) struct Delay {
    /// As it was given; its numbers of now are the words below.
    pub(super) kind: Kind,
    pub(super) fixed: Tuned<Duration>,
    pub(super) floor: Tuned<Duration>,
    pub(super) ceiling: Tuned<Option<Duration>>,
    pub(super) starting: Tuned<Option<Duration>>,
    /// What a quantile has measured.
    latencies: Option<Latencies>,
    /// The ceiling that a pipeline around it has asked for, in nanoseconds.
    ceiling_inside: AtomicU64,
}

impl Delay {
    pub(super) fn new(delay: HedgeDelay) -> Result<Self, ConfigError> {
        let latencies = match &delay.0 {
            Kind::Quantile(quantile) => Some(quantile.check()?),
            _ => None,
        };
        let (fixed, (floor, ceiling, starting)) = match &delay.0 {
            Kind::Fixed(delay) => (*delay, Default::default()),
            Kind::Quantile(quantile) => (Duration::ZERO, (quantile.floor, quantile.ceiling, quantile.starting)),
            Kind::OnFailure | Kind::Custom(_) => Default::default(),
        };
        Ok(Self {
            kind: delay.0,
            fixed: Tuned::new(fixed),
            floor: Tuned::new(floor),
            ceiling: Tuned::new(ceiling),
            starting: Tuned::new(starting),
            latencies,
            ceiling_inside: AtomicU64::new(u64::MAX),
        })
    }

    /// The delay before the `next`th hedge; none for no hedge by time.
    pub(super) fn before(&self, next: u32) -> Option<Duration> {
        match &self.kind {
            Kind::Fixed(_) => Some(self.fixed.get()),
            Kind::OnFailure => None,
            Kind::Custom(delay) => delay(next),
            Kind::Quantile(_) => {
                let estimate = self.latencies.as_ref().and_then(Latencies::estimate);
                let delay = estimate.map(|estimate| estimate.max(self.floor.get())).or_else(|| self.starting.get())?;
                Some(delay.min(self.ceiling()))
            }
        }
    }

    fn ceiling(&self) -> Duration {
        // Relaxed: a number that orders nothing else.
        self.ceiling.get().unwrap_or_else(|| Duration::from_nanos(self.ceiling_inside.load(Relaxed)))
    }

    /// Whether there is too little to know when to hedge.
    pub(super) fn lacks_samples(&self) -> bool {
        matches!(self.kind, Kind::Quantile(_)) && self.before(1).is_none()
    }

    pub(super) fn snapshot(&self) -> Option<LatencySnapshot> {
        match (&self.kind, &self.latencies) {
            (Kind::Quantile(quantile), Some(latencies)) => Some(LatencySnapshot {
                quantile: quantile.share,
                estimate: latencies.estimate(),
                samples: latencies.samples(),
            }),
            _ => None,
        }
    }

    pub(super) fn measures(&self) -> bool {
        self.latencies.is_some()
    }

    pub(super) fn record(&self, latency: Duration, now: Moment) {
        if let Some(latencies) = &self.latencies {
            latencies.record(latency, now);
        }
    }

    /// What is inside takes so long at most: half of it is the longest wait that makes sense.
    #[expect(clippy::arithmetic_side_effects, reason = "two is not zero")]
    pub(super) fn lower_ceiling(&self, inside: Duration) {
        self.ceiling_inside.fetch_min(nanos(inside / 2), Relaxed);
    }

    /// What is inside has changed.
    #[cfg(feature = "serde")]
    pub(super) fn set_ceiling(&self, inside: Option<Duration>) {
        self.ceiling_inside.store(u64::MAX, Relaxed);
        if let Some(inside) = inside {
            self.lower_ceiling(inside);
        }
    }

    pub(super) fn wait(&self) -> HedgeWait {
        match &self.kind {
            Kind::Fixed(_) => HedgeWait::Fixed(self.fixed.get()),
            Kind::OnFailure => HedgeWait::OnFailure,
            Kind::Quantile(_) => HedgeWait::UpTo(self.ceiling()),
            Kind::Custom(_) => HedgeWait::Unknown,
        }
    }
}

impl Quantile {
    fn check(&self) -> Result<Latencies, ConfigError> {
        if let Some(ceiling) = self.ceiling.filter(|ceiling| *ceiling < self.floor) {
            let accepted = format!("at least the floor, {:?}", self.floor);
            return Err(ConfigError::new("ceiling", format_args!("{ceiling:?}"), accepted));
        }
        self.starting.map_or(Ok(()), |starting| more_than_zero("starting", starting))?;
        Ok(Latencies::new(self.share, self.min_samples, self.window)?)
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Fixed(_) if self.fixed.get().is_zero() => f.write_str("parallel"),
            Kind::Fixed(_) => write!(f, "{:?}", self.fixed.get()),
            Kind::OnFailure => f.write_str("on failure"),
            Kind::Custom(_) => f.write_str("custom"),
            Kind::Quantile(quantile) => {
                write!(f, "quantile {} from {:?}", quantile.share, self.floor.get())?;
                match self.ceiling() {
                    ceiling if nanos(ceiling) == u64::MAX => Ok(()),
                    ceiling => write!(f, " to {ceiling:?}"),
                }
            }
        }
    }
}
