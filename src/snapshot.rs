//! What a pipeline is doing, as data: its layers with their settings and their state at one moment.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::{
    clock::instant_of,
    engine::circuit::{ClosedBy, Opening, Snapshot, State},
    event::Kind,
    name::Name,
};

/// A pipeline at one moment: for a page that operators look at, and for a dashboard that asks now and then.
///
/// With the feature `serde` it can be written out. Durations are seconds then, instants are seconds from now or ago.
///
/// ```
/// use withstand::{LayerState, Pipeline};
///
/// let users = Pipeline::standard("users-api").build()?;
/// let snapshot = users.handle().snapshot();
/// assert_eq!(snapshot.pipeline, "users-api");
/// for layer in &snapshot.layers {
///     if let LayerState::Bulkhead(bulkhead) = &layer.state {
///         println!("{}: {} of {} permits in use", layer.name, bulkhead.in_use, bulkhead.limit);
///     }
/// }
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PipelineSnapshot {
    /// The pipeline's name.
    pub pipeline: Name,
    /// Its layers, from the outside in.
    pub layers: Vec<LayerSnapshot>,
}

/// A layer at one moment.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LayerSnapshot {
    /// The policy's name, which is unique in its pipeline.
    pub name: Name,
    /// The kind of policy.
    pub kind: Kind,
    /// The settings of now, as the builder's methods are called, with their values.
    #[cfg_attr(feature = "serde", serde(serialize_with = "written::pairs"))]
    pub settings: Vec<(&'static str, String)>,
    /// What it keeps.
    pub state: LayerState,
}

/// What a layer keeps between calls.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(untagged))]
#[non_exhaustive]
pub enum LayerState {
    /// Nothing: a timeout, a fallback, a policy of the user's own.
    None,
    /// A circuit.
    CircuitBreaker(CircuitSnapshot),
    /// Permits and a queue.
    Bulkhead(BulkheadSnapshot),
    /// A budget.
    Retry(RetrySnapshot),
    /// A budget, and how long calls take.
    Hedge(HedgeSnapshot),
}

/// The permits of a bulkhead at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BulkheadSnapshot {
    /// The most calls at once.
    pub limit: usize,
    /// The permits in use; more than the limit for a while after it was lowered.
    pub in_use: usize,
    /// The most calls that wait.
    pub queue: usize,
    /// The calls that wait.
    pub queued: usize,
}

/// What a retry keeps.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RetrySnapshot {
    /// Its budget, if there is one.
    pub budget: Option<BudgetSnapshot>,
}

/// What a hedge keeps.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HedgeSnapshot {
    /// What it waits now before the first hedge; none if it does not hedge for time.
    #[cfg_attr(feature = "serde", serde(serialize_with = "written::optional_seconds"))]
    pub current_delay: Option<Duration>,
    /// What it knows of how long calls take, if it waits for a quantile of that.
    pub latencies: Option<LatencySnapshot>,
    /// Its budget, if there is one.
    pub budget: Option<BudgetSnapshot>,
}

/// What is known of how long calls take.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LatencySnapshot {
    /// The share of calls that is faster than the estimate.
    pub quantile: f64,
    /// The estimate; none while there are too few samples.
    #[cfg_attr(feature = "serde", serde(serialize_with = "written::optional_seconds"))]
    pub estimate: Option<Duration>,
    /// The samples in its windows.
    pub samples: u64,
}

/// A budget at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BudgetSnapshot {
    /// The tokens in it.
    pub balance: f64,
    /// The most it holds.
    pub cap: u32,
    /// What a success deposits.
    pub ratio: f64,
}

impl BudgetSnapshot {
    pub(crate) const fn new(balance: f64, cap: u32, ratio: f64) -> Self {
        Self { balance, cap, ratio }
    }
}

/// The state of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls are admitted.
    Closed,
    /// Calls are rejected.
    #[non_exhaustive]
    Open {
        /// The rest of the break.
        retry_after: Duration,
    },
    /// A few calls are admitted as probes.
    HalfOpen,
    /// Calls are rejected until the last handle is released.
    Isolated,
}

impl CircuitState {
    /// The state in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half_open",
            Self::Isolated => "isolated",
        }
    }

    /// Whether it is [`Closed`](Self::Closed).
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Closed)
    }

    /// Whether it is [`Open`](Self::Open).
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<State> for CircuitState {
    fn from(state: State) -> Self {
        match state {
            State::Closed => Self::Closed,
            State::Open { retry_after } => Self::Open { retry_after },
            State::HalfOpen => Self::HalfOpen,
            State::Isolated => Self::Isolated,
        }
    }
}

/// A circuit at one moment.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CircuitSnapshot {
    /// The state.
    #[cfg_attr(feature = "serde", serde(serialize_with = "written::state"))]
    pub state: CircuitState,
    /// The calls in the time window if there is one, else in the count window. Windows are kept while it is closed.
    pub calls: u32,
    /// The failures among them.
    pub failures: u32,
    /// The slow calls among them.
    pub slow_calls: u32,
    /// The share of failures; none below `min_calls`.
    pub failure_rate: Option<f64>,
    /// The share of slow calls; none below `min_calls`.
    pub slow_rate: Option<f64>,
    /// The failures in a row, if they are watched.
    pub consecutive_failures: u32,
    /// The probes that are out.
    pub probes_in_flight: u32,
    /// The probes that have succeeded.
    pub probe_successes: u32,
    /// The probes that have failed.
    pub probe_failures: u32,
    /// How often it has opened again since it was last closed.
    pub reopenings: u32,
    /// What opened it, for as long as it is not closed again: for whoever looks after the event.
    pub opening: Option<Opening>,
    /// The end of the break; none while it is closed or isolated. Written out as `open_for`, in seconds from now.
    #[cfg_attr(feature = "serde", serde(rename = "open_for", serialize_with = "written::from_now"))]
    pub open_until: Option<Instant>,
    /// The last transitions that were made, eight at most, the oldest first.
    pub transitions: Vec<Transition>,
}

impl CircuitSnapshot {
    pub(crate) fn new(snapshot: Snapshot, transitions: Vec<Transition>) -> Self {
        Self {
            state: snapshot.state.into(),
            calls: snapshot.calls,
            failures: snapshot.failures,
            slow_calls: snapshot.slow,
            failure_rate: snapshot.failure_rate,
            slow_rate: snapshot.slow_rate,
            consecutive_failures: snapshot.consecutive_failures,
            probes_in_flight: snapshot.probes_in_flight,
            probe_successes: snapshot.probe_successes,
            probe_failures: snapshot.probe_failures,
            reopenings: snapshot.reopenings,
            opening: snapshot.opening,
            open_until: snapshot.open_until.and_then(instant_of),
            transitions,
        }
    }
}

/// A transition of a circuit, as it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Transition {
    /// The state it came to; if that is open, for how long.
    #[cfg_attr(feature = "serde", serde(serialize_with = "written::state"))]
    pub to: CircuitState,
    /// When. Written out as `ago`, in seconds.
    #[cfg_attr(feature = "serde", serde(rename = "ago", serialize_with = "written::ago"))]
    pub at: Instant,
    /// What opened it, if it opened.
    pub opening: Option<Opening>,
    /// What closed it, if it closed.
    pub closed_by: Option<ClosedBy>,
}

impl Transition {
    pub(crate) const fn new(to: CircuitState, at: Instant) -> Self {
        Self { to, at, opening: None, closed_by: None }
    }
}

/// How these values are written out.
#[cfg(feature = "serde")]
mod written {
    use std::time::Duration;

    use serde::{Serialize, Serializer};
    use tokio::time::Instant;

    use super::CircuitState;

    pub(super) fn pairs<S: Serializer>(pairs: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pairs.iter().map(|(field, value)| (field, value)))
    }

    pub(super) fn state<S: Serializer>(state: &CircuitState, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(state.as_str())
    }

    #[expect(clippy::ref_option, reason = "serde hands fields by reference")]
    pub(super) fn optional_seconds<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
    }

    #[expect(clippy::ref_option, reason = "serde hands fields by reference")]
    pub(super) fn from_now<S: Serializer>(instant: &Option<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
        let left = instant.map(|instant| instant.saturating_duration_since(Instant::now()));
        optional_seconds(&left, serializer)
    }

    pub(super) fn ago<S: Serializer>(instant: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(Instant::now().saturating_duration_since(*instant).as_secs_f64())
    }
}
