//! Chaos: faults on purpose, to see what the other layers make of them.

mod board;
mod run;
mod switch;

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

#[cfg(feature = "serde")]
use crate::{amendment::Amendment, config::LayerConfig};
use crate::{
    build::{FOREVER, IntoLayer, more_than_zero},
    call::standalone_guard,
    engine::rng::Rng,
    error::{ConfigError, Error},
    event::{Fault, Kind, PolicyId},
    layer::{LayerInfo, Live, Role},
    name::Name,
    outcome::{Outcome, Verdict},
    policy::{Describe, Site},
};
use board::{Board, Dial, FAULTS, PerFault, Setting, check_share};
pub use switch::{ChaosKey, ChaosSwitch};

/// Faults on purpose: a share of the attempts gets an error, an outcome of your choice, latency, a hang or a panic.
///
/// **When to use it.** In tests, seeded, to see that a pipeline withstands what you built it for. In production, off
/// until an operator turns it on for a tenant or a share of the calls: a *game day*. **When not.** As a load test: what
/// fails here never reaches the dependency.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// use std::time::Duration;
/// use withstand::{Chaos, Fault, Pipeline, Retry};
///
/// let chaos = Chaos::builder()
///     .error(0.3, || "unavailable")                    // 30 % of the attempts fail,
///     .hang(0.1)                                       // 10 % never end,
///     .latency(0.2, Duration::from_millis(50))         // and 20 % of all take 50 ms longer
///     .seed(1)                                         // the same each time
///     .build()?;
/// let switch = chaos.switch();                         // for the operator
/// let users = Pipeline::builder("users-api")
///     .retry(Retry::builder().max_attempts(5))
///     .timeout(Duration::from_secs(1))
///     .chaos(chaos)                                    // innermost
///     .build()?;
///
/// assert_eq!(users.call(|| async { Ok("Ada") }).await, Ok("Ada")); // it is off
/// switch.enable();
/// for _ in 0..20 {
///     assert_eq!(users.call(|| async { Ok("Ada") }).await, Ok("Ada")); // withstood
/// }
/// switch.set_rate(Fault::Error, 0.9)?;
/// assert!(users.call(|| async { Ok("Ada") }).await.is_err()); // that was too much
/// # Ok::<(), withstand::ConfigError>(()) }).unwrap();
/// ```
///
/// # The faults
///
/// | fault | what the attempt does | its verdict |
/// |---|---|---|
/// | [`error`](ChaosBuilder::error) | ends with the error that a function makes, instead of calling the operation | `Transient`, or the one that you give: [`error_as`](ChaosBuilder::error_as) |
/// | [`outcome`](ChaosBuilder::outcome) | ends with any outcome, such as an HTTP 503 that is an `Ok` | the outcome's |
/// | [`hang`](ChaosBuilder::hang) | never ends, instead of calling the operation: a timeout or the caller ends it | that of the timeout |
/// | [`panic`](ChaosBuilder::panic) | panics, instead of calling the operation | |
/// | [`latency`](ChaosBuilder::latency) | calls the operation, and holds its answer back | the answer's |
///
/// Rates are shares of all attempts, whatever else is on. An attempt ends in one fault at most: those rates share one
/// draw, and together are at most 1. Latency is drawn apart and comes with any of them: an error can be a slow error.
///
/// The classifier judges what the operation gives, and does not see what is injected here; so the verdict is given with
/// the error. The label of what is injected is `chaos`, whoever made it, so that metrics and the event of a circuit that
/// opens say whose failures those were.
///
/// # What the other layers see
///
/// The real thing. What takes the place of the operation is an attempt: it is counted and reported as one, its time
/// counts as the dependency's, a timeout that ends it is a failure and no rejection, and an injected panic is the
/// operation's. Latency comes after the operation: it was carried out, though the answer may come too late for a timeout
/// or lose a race against a hedge, as with a dependency that is slow. (The end of the attempt is reported before that.)
///
/// # Options
///
/// | option | unit, range | default | why |
/// |---|---|---|---|
/// | the five faults | rate, 0 to 1 | none; at least one is required | one at a rate of 0 can be turned up by the switch, one that is not given cannot |
/// | [`latency`](ChaosBuilder::latency), [`latency_between`](ChaosBuilder::latency_between) | time, more than 0, at most thirty years | | uniform in a range |
/// | [`enabled`](ChaosBuilder::enabled) | | off | who deploys it injects nothing |
/// | [`seed`](ChaosBuilder::seed) | | random | the same faults each time, for tests |
/// | [`name`](ChaosBuilder::name) | | `chaos` | |
///
/// # At run time
///
/// [`switch`](Self::switch) gives a [`ChaosSwitch`], which turns it on and off and sets rates while calls run.
///
/// # For each tenant
///
/// A pipeline does not know on whose behalf it is called. Where each tenant has a pipeline of its own, give each a layer
/// for its key, and the switch tells them apart:
///
/// ```
/// use withstand::{Chaos, Pipeline};
///
/// let chaos = Chaos::builder().error(0.2, || "unavailable").build()?;
/// let pipeline_of = |tenant: &str| Pipeline::builder("users-api").chaos(chaos.for_key(tenant.to_owned())).build();
/// let seven = pipeline_of("tenant-7")?;
/// chaos.switch().key("tenant-7").enable()?; // it alone
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// # Reproducible faults
///
/// What becomes of an attempt depends on the seed, on the key and on how many attempts were made before it while it was
/// on; neither on rates nor on what other keys do. So attempts that are made one after the other get the same faults in
/// each run. Of those that race for their place, only the number of each fault is the same.
///
/// # Cancellation
///
/// Dropping the call ends a hang or a latency, and drops the answer that is held back. Neither holds anything.
///
/// # Panics
///
/// An attempt panics at the rate of [`panic`](ChaosBuilder::panic), and if a function that makes an error or an outcome
/// does. Either unwinds as a panic of the operation.
///
/// # Cost
///
/// While it is off, a load and a branch for each attempt. While it is on, one draw for each attempt; nothing is
/// allocated, and no lock is taken.
///
/// # Events
///
/// `ChaosInjected` for each fault, and `ChaosSwitched` when it is switched on or off.
///
/// # Order among layers
///
/// Innermost, inside the attempt timeout: only what is outside of it is put to the test.
/// [`explain`](crate::Pipeline::explain) warns of another place, and of one that is on.
///
/// # Source
///
/// Polly's Simmy, which has a strategy for each fault. Theirs draw one after the other, so an outer one takes its share of
/// those inside; here each rate is what it says.
pub struct Chaos<A = (), B = ()> {
    board: Arc<Board>,
    /// Of the key, if this layer has one, or else of the board.
    dial: Arc<Dial>,
    faults: Arc<Faults<A, B>>,
}

/// What is injected.
#[derive(Clone)]
struct Faults<A, B> {
    error: A,
    outcome: B,
}

impl Chaos {
    /// Starts without faults.
    pub fn builder() -> ChaosBuilder {
        ChaosBuilder {
            name: None,
            rates: PerFault::default(),
            faults: Faults { error: (), outcome: () },
            latency: None,
            enabled: false,
            seed: None,
        }
    }
}

impl<A, B> Chaos<A, B> {
    /// Switches it on and off while calls run.
    #[must_use]
    pub fn switch(&self) -> ChaosSwitch {
        ChaosSwitch(Arc::clone(&self.board))
    }

    /// A layer for the pipeline of this key, with the same faults and the same switch. It can be switched for itself, by
    /// [`ChaosSwitch::key`], and has a sequence of faults of its own. Layers of one key that live at the same time are
    /// the same in both.
    #[must_use]
    pub fn for_key(&self, key: impl Into<Name>) -> Self {
        Self { board: Arc::clone(&self.board), dial: self.board.dial_of(key.into()), faults: Arc::clone(&self.faults) }
    }

    fn id(&self) -> &PolicyId {
        &self.board.id
    }
}

standalone_guard!([A, B] Chaos<A, B>);

impl<A, B> fmt::Debug for Chaos<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos").field("name", &self.id().name).field("on", &self.dial.is_on()).finish_non_exhaustive()
    }
}

/// What a [`Chaos`] puts in the place of an operation's outcome: made by [`ChaosBuilder::error`] and
/// [`ChaosBuilder::outcome`]. `()` is nothing.
pub trait Inject<T, E>: Send + Sync {
    /// The outcome; `None` where there is nothing to inject.
    fn inject(&self) -> Option<Outcome<T, E>>;
}

impl<T, E> Inject<T, E> for () {
    fn inject(&self) -> Option<Outcome<T, E>> {
        None
    }
}

/// See [`ChaosBuilder::error`].
#[derive(Clone, Copy)]
pub struct InjectError<F> {
    make: F,
    verdict: Verdict,
}

impl<T, E, F: Fn() -> E + Send + Sync> Inject<T, E> for InjectError<F> {
    fn inject(&self) -> Option<Outcome<T, E>> {
        Some(Outcome::new(Err(Error::Operation((self.make)())), self.verdict))
    }
}

impl<F> fmt::Debug for InjectError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectError").field("verdict", &self.verdict).finish_non_exhaustive()
    }
}

/// See [`ChaosBuilder::outcome`].
#[derive(Clone, Copy)]
pub struct InjectOutcome<F>(F);

impl<T, E, F: Fn() -> Outcome<T, E> + Send + Sync> Inject<T, E> for InjectOutcome<F> {
    fn inject(&self) -> Option<Outcome<T, E>> {
        Some((self.0)())
    }
}

impl<F> fmt::Debug for InjectOutcome<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InjectOutcome")
    }
}

/// Builds a [`Chaos`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct ChaosBuilder<A = (), B = ()> {
    name: Option<Name>,
    /// Of the faults that were given.
    rates: PerFault<Option<f64>>,
    faults: Faults<A, B>,
    latency: Option<RangeInclusive<Duration>>,
    enabled: bool,
    seed: Option<u64>,
}

impl<A, B> ChaosBuilder<A, B> {
    /// The name in events. Default: `chaos`.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Holds the answers of this share of the attempts back for so long: more than zero.
    pub fn latency(self, rate: f64, latency: Duration) -> Self {
        self.latency_between(rate, latency..=latency)
    }

    /// The same for a time that is uniform in a range: `.latency_between(0.1, ms(100)..=ms(800))`.
    pub fn latency_between(mut self, rate: f64, range: RangeInclusive<Duration>) -> Self {
        self.rates.latency = Some(rate);
        self.latency = Some(range);
        self
    }

    /// Ends this share of the attempts with an error, which is `Transient`, instead of calling the operation.
    pub fn error<E, F: Fn() -> E>(self, rate: f64, make: F) -> ChaosBuilder<InjectError<F>, B> {
        self.error_as(rate, Verdict::transient(), make)
    }

    /// The same with another verdict: `.error_as(0.1, Verdict::throttled().retry_after(secs(2)), || ApiError::Busy)`.
    pub fn error_as<E, F: Fn() -> E>(self, rate: f64, verdict: Verdict, make: F) -> ChaosBuilder<InjectError<F>, B> {
        let Self { name, mut rates, faults: Faults { error: _, outcome }, latency, enabled, seed } = self;
        rates.error = Some(rate);
        let faults = Faults { error: InjectError { make, verdict }, outcome };
        ChaosBuilder { name, rates, faults, latency, enabled, seed }
    }

    /// Ends this share of the attempts with any outcome instead of calling the operation. The outcome's label becomes
    /// `chaos`.
    ///
    /// ```
    /// use withstand::{Chaos, Outcome, Verdict};
    ///
    /// # #[derive(Debug)] struct Response(u16);
    /// let chaos = Chaos::builder()
    ///     .outcome(0.1, || Outcome::<_, std::io::Error>::new(Ok(Response(503)), Verdict::transient()))
    ///     .build()?;
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    pub fn outcome<T, E, F>(self, rate: f64, make: F) -> ChaosBuilder<A, InjectOutcome<F>>
    where
        F: Fn() -> Outcome<T, E>,
    {
        let Self { name, mut rates, faults: Faults { error, outcome: _ }, latency, enabled, seed } = self;
        rates.outcome = Some(rate);
        let faults = Faults { error, outcome: InjectOutcome(make) };
        ChaosBuilder { name, rates, faults, latency, enabled, seed }
    }

    /// Has this share of the attempts never end. Only a timeout, a deadline or the caller ends those: see that there is
    /// one.
    pub const fn hang(mut self, rate: f64) -> Self {
        self.rates.hang = Some(rate);
        self
    }

    /// Has this share of the attempts panic. The panic unwinds through the call, and the process's panic hook hears it;
    /// where panics abort, the process ends.
    pub const fn panic(mut self, rate: f64) -> Self {
        self.rates.panic = Some(rate);
        self
    }

    /// Injects from the start, as tests want it. Default: off, until [`ChaosSwitch::enable`].
    pub const fn enabled(mut self) -> Self {
        self.enabled = true;
        self
    }

    /// Makes the faults the same each time, for tests. Default: random.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range; the error names it.
    pub fn build(self) -> Result<Chaos<A, B>, ConfigError> {
        IntoLayer::<Chaos<A, B>>::into_layer(self, Kind::Chaos.into())
    }

    fn check(&self, setting: &Setting) -> Result<(), ConfigError> {
        let mut given = 0_u32;
        for fault in FAULTS {
            if let Some(rate) = *self.rates.get(fault) {
                check_share(fault, rate)?;
                given = given.saturating_add(1);
            }
        }
        if given == 0 {
            let accepted = "at least one of latency, error, outcome, hang and panic; leave the layer out for none";
            return Err(ConfigError::new("faults", "empty", accepted));
        }
        if let Some(range) = &self.latency {
            check_latency(range)?;
        }
        setting.check(None)
    }
}

fn check_latency(range: &RangeInclusive<Duration>) -> Result<(), ConfigError> {
    let (shortest, longest) = (range.start(), range.end());
    more_than_zero("latency", *shortest)?;
    if longest < shortest {
        let value = format_args!("{shortest:?} to {longest:?}").to_string();
        return Err(ConfigError::new("latency", value, "a range from the shorter to the longer time"));
    }
    if *longest > FOREVER {
        return Err(ConfigError::new("latency", format_args!("{longest:?}"), "at most 30 years; hang is for ever"));
    }
    Ok(())
}

impl<A, B> fmt::Debug for ChaosBuilder<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChaosBuilder")
            .field("name", &self.name)
            .field("rates", &self.rates)
            .field("latency", &self.latency)
            .field("enabled", &self.enabled)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl<A, B> IntoLayer<Chaos<A, B>> for ChaosBuilder<A, B> {
    type Layer = Chaos<A, B>;

    fn into_layer(self, default_name: Name) -> Result<Chaos<A, B>, ConfigError> {
        let id = PolicyId::new(Kind::Chaos, self.name.clone(), default_name)?;
        let (mut setting, mut armed) = (Setting::default(), PerFault::default());
        setting.enabled = self.enabled;
        for fault in FAULTS {
            *armed.get_mut(fault) = self.rates.get(fault).is_some();
            *setting.rates.get_mut(fault) = self.rates.get(fault).unwrap_or_default();
        }
        self.check(&setting).map_err(|error| error.in_policy(&id.name))?;
        let rng = self.seed.map_or_else(Rng::from_entropy, Rng::seeded);
        let board = Arc::new(Board::new(id, armed, self.latency, setting, rng));
        Ok(Chaos { dial: Arc::clone(&board.dial), board, faults: Arc::new(self.faults) })
    }
}

impl<A, B> Describe for Chaos<A, B> {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        let shown = Arc::new(Shown { board: Arc::clone(&self.board), dial: Arc::clone(&self.dial) });
        out.push(shown.info().live(shown));
    }

    fn attach(&self, site: &Site<'_>) {
        self.dial.listeners().add(site.telemetry);
    }
}

/// A layer without what it injects.
struct Shown {
    board: Arc<Board>,
    dial: Arc<Dial>,
}

impl Live for Shown {
    fn info(&self) -> LayerInfo {
        let (latency, on) = (self.board.latency.as_ref(), self.dial.is_on());
        let longest_latency = latency.map_or(Duration::ZERO, |range| *range.end());
        let may_hang = self.board.armed().any(|fault| fault == Fault::Hang);
        let role = Role::Chaos { longest: (!may_hang).then_some(longest_latency), on };
        let info = LayerInfo::new(self.board.id.clone(), role).setting("enabled", on);
        self.board.armed().fold(info, |info, fault| {
            let (rate, name) = (self.dial.rate(fault), fault.as_str());
            match latency.filter(|_| fault == Fault::Latency).map(|range| (range.start(), range.end())) {
                Some((always, end)) if always == end => info.setting(name, format_args!("{rate} of {always:?}")),
                Some((shortest, longest)) => info.setting(name, format_args!("{rate} of {shortest:?} to {longest:?}")),
                None => info.setting(name, rate),
            }
        })
    }

    /// No configuration is of a chaos: it is changed by its switch.
    #[cfg(feature = "serde")]
    fn amend(self: Arc<Self>, config: &LayerConfig) -> Result<Amendment, ConfigError> {
        Err(config.misplaced(Kind::Chaos))
    }
}
