//! The settings of a circuit breaker, and what they must be.

use std::{
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::watch;

use super::{CircuitBreaker, Shared};
use crate::{
    build::{IntoLayer, more_than_zero, share},
    engine::{
        circuit::{Circuit, MAX_PROBES, Settings},
        rng::Rng,
        tuned::Tuned,
        window::{MAX_CONSECUTIVE, MAX_COUNT_WINDOW},
    },
    error::ConfigError,
    event::{Kind, Listeners, PolicyId},
    name::Name,
};

/// The window of a breaker that was given none.
const DEFAULT_WINDOW: Duration = Duration::from_secs(30);
/// The longest break of a breaker that was given none, unless its first one is longer.
const DEFAULT_MAX_OPEN: Duration = Duration::from_secs(60);
/// The lease of a probe where nothing limits what is inside, or nothing is known of it.
pub(super) const DEFAULT_LEASE: Duration = Duration::from_secs(60);
/// The share of slow calls that opens a circuit which watches them.
const DEFAULT_SLOW_RATE: f64 = 0.8;

/// Builds a [`CircuitBreaker`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct CircuitBreakerBuilder {
    pub(super) name: Option<Name>,
    pub(super) count_window: Option<u32>,
    pub(super) time_window: Option<Duration>,
    pub(super) consecutive: Option<u32>,
    pub(super) consecutive_span: Option<Duration>,
    pub(super) failure_rate: Option<f64>,
    pub(super) min_calls: Option<u32>,
    pub(super) slow_call: Option<Duration>,
    pub(super) slow_rate: Option<f64>,
    pub(super) open_for: Duration,
    pub(super) growth: f64,
    pub(super) max_open_for: Option<Duration>,
    pub(super) jitter: f64,
    pub(super) probes: u32,
    pub(super) close_after: Option<u32>,
    pub(super) probe_lease: Option<Duration>,
    pub(super) seed: Option<u64>,
}

impl Default for CircuitBreakerBuilder {
    fn default() -> Self {
        Self {
            name: None,
            count_window: None,
            time_window: None,
            consecutive: None,
            consecutive_span: None,
            failure_rate: None,
            min_calls: None,
            slow_call: None,
            slow_rate: None,
            open_for: Duration::from_secs(5),
            growth: 2.0,
            max_open_for: None,
            jitter: 0.0,
            probes: 3,
            close_after: None,
            probe_lease: None,
            seed: None,
        }
    }
}

impl CircuitBreakerBuilder {
    /// The name in errors and events. Default: `circuit_breaker`.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Looks at the calls of the last stretch of time: 1 ms or more, slid in ten steps. Default: 30 s, if no other
    /// window is named.
    pub const fn time_window(mut self, window: Duration) -> Self {
        self.time_window = Some(window);
        self
    }

    /// Looks at the last so many calls: 1 to 16 384. Default: off.
    pub const fn count_window(mut self, calls: u32) -> Self {
        self.count_window = Some(calls);
        self
    }

    /// Opens after so many failures in a row: 1 to 16 383. For low traffic, where a rate has nothing to count.
    /// Default: off. They are spread over [`consecutive_span`](Self::consecutive_span): by itself, five failures within
    /// a millisecond, as in a test, open nothing.
    pub const fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive = Some(failures);
        self
    }

    /// The first and the last failure in a row are at least this far apart; zero for any distance. Default: 1 s, since
    /// many streams of one connection die together in a millisecond.
    pub const fn consecutive_span(mut self, span: Duration) -> Self {
        self.consecutive_span = Some(span);
        self
    }

    /// Opens when this share of the calls in a window fails: more than 0, at most 1. Default: 0.5.
    pub const fn failure_rate(mut self, rate: f64) -> Self {
        self.failure_rate = Some(rate);
        self
    }

    /// Rates mean nothing below this many calls in a window: 1 or more. A count window that is smaller needs to be full.
    /// Default: 20.
    pub const fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = Some(calls);
        self
    }

    /// Calls that run for this long are slow: more than zero. Counted from the start of the operation to when its answer
    /// is seen here: while this process stands still, calls under way get slow. Default: off.
    pub const fn slow_call(mut self, duration: Duration) -> Self {
        self.slow_call = Some(duration);
        self
    }

    /// Opens when this share of the calls in a window is slow: more than 0, at most 1. Default: 0.8 with
    /// [`slow_call`](Self::slow_call), else off.
    pub const fn slow_rate(mut self, rate: f64) -> Self {
        self.slow_rate = Some(rate);
        self
    }

    /// The length of the first break: more than zero. Default: 5 s.
    pub const fn open_for(mut self, duration: Duration) -> Self {
        self.open_for = duration;
        self
    }

    /// How much longer each break is than the one before, until the circuit closes: a factor from 1. Default: 2.
    pub const fn growth(mut self, factor: f64) -> Self {
        self.growth = factor;
        self
    }

    /// The longest break, before jitter: at least `open_for`. Default: 60 s, or `open_for` if that is longer.
    pub const fn max_open_for(mut self, duration: Duration) -> Self {
        self.max_open_for = Some(duration);
        self
    }

    /// Makes each break longer by a random share of up to this, never shorter: 0 to 1. Default: 0.
    pub const fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// The probes of a half-open circuit: at most so many are out at once, and at most so many are counted: 1 to 1000.
    /// Default: 3.
    pub const fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// So many successful probes close the circuit: 1 to `probes`. Default: all of them, so that the first one that fails
    /// opens it again. What resilience4j does with five probes and a threshold of a half is `probes(5).close_after(3)`.
    pub const fn close_after(mut self, successes: u32) -> Self {
        self.close_after = Some(successes);
        self
    }

    /// A probe that is out for longer has failed: longer than a call inside can take. Default: 10 s, or twice the time
    /// that the layers inside can take, whichever is longer; 60 s if that has no limit.
    pub const fn probe_lease(mut self, lease: Duration) -> Self {
        self.probe_lease = Some(lease);
        self
    }

    /// Makes the jitter the same each time, for tests. Default: random.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range; the error names it.
    pub fn build(self) -> Result<CircuitBreaker, ConfigError> {
        IntoLayer::<CircuitBreaker>::into_layer(self, Kind::CircuitBreaker.into())
    }

    fn check(&self) -> Result<Settings, ConfigError> {
        self.check_windows()?;
        self.check_breaks()?;
        Ok(self.settings())
    }

    /// What was given, and the defaults of what was not.
    pub(super) fn settings(&self) -> Settings {
        let no_window = self.count_window.is_none() && self.time_window.is_none() && self.consecutive.is_none();
        let slow_rate = self.slow_call.map(|_| self.slow_rate.unwrap_or(DEFAULT_SLOW_RATE));
        let span = self.consecutive_span.unwrap_or(Duration::from_secs(1));
        Settings {
            count_window: self.count_window,
            time_window: if no_window { Some(DEFAULT_WINDOW) } else { self.time_window },
            consecutive: self.consecutive.map(|failures| (failures, span)),
            failure_rate: self.failure_rate.unwrap_or(0.5),
            slow_rate,
            min_calls: self.min_calls.unwrap_or(20),
            open_for: self.open_for,
            growth: self.growth,
            max_open: self.max_open_for.unwrap_or(DEFAULT_MAX_OPEN.max(self.open_for)),
            jitter: self.jitter,
            probes: self.probes,
            close_after: self.close_after.unwrap_or(self.probes),
            lease: self.probe_lease.unwrap_or(DEFAULT_LEASE),
        }
    }

    fn check_windows(&self) -> Result<(), ConfigError> {
        if let Some(window) = self.time_window.filter(|window| *window < Duration::from_millis(1)) {
            return Err(ConfigError::new("time_window", format_args!("{window:?}"), "1ms or more"));
        }
        count("count_window", self.count_window, MAX_COUNT_WINDOW)?;
        count("consecutive_failures", self.consecutive, MAX_CONSECUTIVE)?;
        count("min_calls", self.min_calls, u32::MAX)?;
        self.failure_rate.map_or(Ok(()), |rate| share("failure_rate", rate))?;
        self.slow_rate.map_or(Ok(()), |rate| share("slow_rate", rate))?;
        self.slow_call.map_or(Ok(()), |duration| more_than_zero("slow_call", duration))?;
        self.check_unused()
    }

    /// What would silently do nothing.
    fn check_unused(&self) -> Result<(), ConfigError> {
        if let (Some(rate), None) = (self.slow_rate, self.slow_call) {
            let value = format!("{rate} without slow_call");
            return Err(ConfigError::new("slow_rate", value, "a rate together with slow_call(duration)"));
        }
        if let (Some(span), None) = (self.consecutive_span, self.consecutive) {
            let value = format!("{span:?} without consecutive_failures");
            return Err(ConfigError::new("consecutive_span", value, "a span together with consecutive_failures(n)"));
        }
        let only_consecutive = self.consecutive.is_some() && self.count_window.is_none() && self.time_window.is_none();
        let rates = [
            ("failure_rate", self.failure_rate.is_some()),
            ("min_calls", self.min_calls.is_some()),
            ("slow_call", self.slow_call.is_some()),
        ];
        match rates.iter().find(|(_, given)| only_consecutive && *given) {
            Some((field, _)) => {
                let accepted = "the setting together with time_window(duration) or count_window(calls)";
                Err(ConfigError::new(field, "given, but only consecutive failures are counted", accepted))
            }
            None => Ok(()),
        }
    }

    fn check_breaks(&self) -> Result<(), ConfigError> {
        more_than_zero("open_for", self.open_for)?;
        if !(self.growth.is_finite() && self.growth >= 1.0) {
            return Err(ConfigError::new("growth", self.growth, "a finite factor of 1 or more"));
        }
        if let Some(max) = self.max_open_for.filter(|max| *max < self.open_for) {
            let accepted = format!("at least open_for, {:?}", self.open_for);
            return Err(ConfigError::new("max_open_for", format_args!("{max:?}"), accepted));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(ConfigError::new("jitter", self.jitter, "0 to 1"));
        }
        count("probes", Some(self.probes), MAX_PROBES)?;
        if let Some(successes) = self.close_after.filter(|successes| !(1..=self.probes).contains(successes)) {
            return Err(ConfigError::new("close_after", successes, format!("1 to probes, {}", self.probes)));
        }
        self.probe_lease.map_or(Ok(()), |lease| more_than_zero("probe_lease", lease))
    }
}

fn count(field: &'static str, given: Option<u32>, most: u32) -> Result<(), ConfigError> {
    match given {
        Some(0) if most == u32::MAX => Err(ConfigError::new(field, 0, "1 or more")),
        Some(number) if number == 0 || number > most => Err(ConfigError::new(field, number, format!("1 to {most}"))),
        _ => Ok(()),
    }
}

impl IntoLayer<CircuitBreaker> for CircuitBreakerBuilder {
    type Layer = CircuitBreaker;

    fn into_layer(self, default_name: Name) -> Result<CircuitBreaker, ConfigError> {
        let id = PolicyId::new(Kind::CircuitBreaker, self.name.clone(), default_name)?;
        let settings = self.check().map_err(|error| error.in_policy(&id.name))?;
        let rng = self.seed.map_or_else(Rng::from_entropy, Rng::seeded);
        let (changed, _) = watch::channel(());
        Ok(CircuitBreaker {
            shared: Arc::new(Shared {
                id,
                circuit: Circuit::new(settings, rng),
                slow_call: Tuned::new(self.slow_call),
                lease_inside: AtomicU64::new(0),
                listeners: Listeners::default(),
                changed,
                transitions: Mutex::default(),
                asked: Mutex::new(self),
            }),
        })
    }
}

impl CircuitBreakerBuilder {
    /// The settings as `explain()` shows them: those that were given, and those that matter though they were not.
    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        let settings = self.settings();
        let mut shown = Vec::new();
        if let Some(window) = settings.time_window {
            shown.push(("time_window", format!("{window:?}")));
        }
        if let Some(calls) = settings.count_window {
            shown.push(("count_window", calls.to_string()));
        }
        if let Some((failures, span)) = settings.consecutive {
            shown.push(("consecutive_failures", format!("{failures} over {span:?}")));
        }
        if settings.time_window.is_some() || settings.count_window.is_some() {
            shown.push(("failure_rate", settings.failure_rate.to_string()));
            shown.push(("min_calls", settings.min_calls.to_string()));
        }
        if let (Some(slow_call), Some(rate)) = (self.slow_call, settings.slow_rate) {
            shown.push(("slow_call", format!("{slow_call:?} at {rate}")));
        }
        let grows = settings.growth > 1.0 && settings.max_open > settings.open_for;
        let longest = if grows { format!(" to {:?}", settings.max_open) } else { String::new() };
        shown.push(("open_for", format!("{:?}{longest}", settings.open_for)));
        if settings.jitter > 0.0 {
            shown.push(("jitter", settings.jitter.to_string()));
        }
        shown.push(("probes", format!("{}, close_after {}", settings.probes, settings.close_after)));
        shown
    }

    /// The lease that was asked for; without one it follows from what is inside.
    pub(super) const fn lease(&self) -> Option<Duration> {
        self.probe_lease
    }
}
