//! Numbers for the `metrics` crate.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, Unit, with_recorder};

use crate::{
    error::Reason,
    event::{Event, EventKind, Observer, PolicyId},
    handle::Registry,
    name::Name,
    outcome::VerdictKind,
    snapshot::{CircuitState, LayerSnapshot, LayerState, PipelineSnapshot},
};

/// Keeps the numbers of the pipelines that it observes, through the [`metrics`](https://docs.rs/metrics) crate. With the
/// feature `metrics`.
///
/// ```
/// use withstand::{MetricsObserver, Pipeline};
///
/// let users = Pipeline::standard("users-api").observer(MetricsObserver::new()).build()?;
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// Where the numbers go is up to the recorder that is installed, such as that of `metrics-exporter-prometheus`. While
/// there is none, a call costs about as much as one without an observer. One that is installed later hears of all calls
/// that begin after. (For a recorder that has no size of its own and is set for a thread only this cannot be told: it
/// hears nothing.)
///
/// # Metrics
///
/// Names, units and attributes are as OpenTelemetry would have them. Gauges with a * are read off the live pipelines by
/// [`record_gauges`](Self::record_gauges), whatever observer these have.
///
/// | metric | kind | unit | attributes | what |
/// |---|---|---|---|---|
/// | `withstand.call.duration` | histogram | s | `pipeline`, `outcome`, `reason`, `label` | one measurement per public call, from its first poll to its end |
/// | `withstand.attempt.duration` | histogram | s | `pipeline`, `outcome`, `label`, `attempt_class` | one per attempt that reached the operation |
/// | `withstand.retries` | counter | | `pipeline`, `policy` | attempts that a retry added |
/// | `withstand.hedges` | counter | | `pipeline`, `policy`, `trigger` | attempts that a hedge added |
/// | `withstand.timeouts` | counter | | `pipeline`, `policy`, `scope`, `phase` | what a timeout or a deadline ended |
/// | `withstand.fallbacks` | counter | | `pipeline`, `policy`, `outcome`, `reason`, `end` | outcomes that a fallback was asked to replace |
/// | `withstand.rejections` | counter | | `pipeline`, `policy`, `reason` | calls and attempts that a policy refused |
/// | `withstand.circuit.transitions` | counter | | `pipeline`, `policy`, `state`, `trigger` | changes of a circuit to that state |
/// | `withstand.circuit.state` | gauge* | | `pipeline`, `policy` | 0 closed, 1 half-open, 2 open, 3 isolated; set at transitions as well |
/// | `withstand.bulkhead.in_use` | gauge* | | `pipeline`, `policy` | permits in use |
/// | `withstand.bulkhead.limit` | gauge* | | `pipeline`, `policy` | permits that there are |
/// | `withstand.bulkhead.queued` | gauge* | | `pipeline`, `policy` | calls that wait for a permit |
/// | `withstand.budget.balance` | gauge* | | `pipeline`, `policy` | tokens in the budget of a retry or a hedge |
///
/// # Attributes
///
/// No others are ever used, and all their values come from the code and the configuration: none comes from a request or an
/// error, so the number of series is bounded. One that does not apply is left out.
///
/// | attribute | values |
/// |---|---|
/// | `pipeline`, `policy` | the names |
/// | `outcome` | of a call: `success`, `transient`, `throttled`, `failure`, `ignored`, `rejected`, `timeout`, `fallback`, `cancelled`, `panicked`; of an attempt: the verdict, or how it ended without one: `superseded`, `cancelled`, `timed_out`, `panicked`; of a fallback: the verdict that it was asked to replace |
/// | `reason` | why it was rejected: `circuit_open`, `bulkhead_full`, ... |
/// | `label` | the classifier's, or the word of the outcome |
/// | `attempt_class` | `first`, `retry`, `hedge` |
/// | `trigger` | of a hedge: `delay`, `failure`, `parallel`; of a circuit: what opened or closed it |
/// | `scope`, `phase` | what was limited, and what it was doing: `total`, `attempt`, `deadline`; `queue`, `backoff`, ... |
/// | `end` | of a fallback: `ok`, `error`, `declined`, `timed_out` |
/// | `state` | `closed`, `half_open`, `open`, `isolated` |
///
/// Look at latencies by `outcome`, never at all together: rejections take nanoseconds, and in an outage they would pull
/// the percentiles down.
///
/// # Cost
///
/// Each number looks its handle up in the recorder, which takes some hundred nanoseconds and an allocation. Handles are not
/// kept: recorders forget what is idle, and what a kept handle counts after that is lost.
#[derive(Debug, Default)]
pub struct MetricsObserver {
    described: AtomicBool,
}

impl MetricsObserver {
    /// Buckets in seconds that suit both histograms: those that OpenTelemetry advises for the durations of requests.
    ///
    /// Exporters that know nothing better draw no histogram or one with other bounds. For `metrics-exporter-prometheus`:
    ///
    /// ```text
    /// PrometheusBuilder::new()
    ///     .with_recommended_naming(true)
    ///     .set_buckets_for_metric(Matcher::Prefix("withstand".to_owned()), MetricsObserver::DURATION_BUCKETS)?
    /// ```
    pub const DURATION_BUCKETS: &'static [f64] =
        &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

    /// Reads the gauges off all live pipelines of this process, whether or not these have an observer. Call it when somebody
    /// is about to look: in the handler that answers a scrape, or every few seconds where numbers are pushed.
    ///
    /// Pipelines of the same name count as one: of permits, calls that wait and tokens it is the sum, of the states of
    /// circuits the worst. A policy that several pipelines share counts in each. The layers of a pipeline inside another
    /// are in both, there under the name `inner/retry`. The last values of a pipeline that is gone stay, unless the
    /// recorder forgets them.
    ///
    /// ```
    /// use withstand::MetricsObserver;
    ///
    /// async fn metrics_endpoint(render: impl Fn() -> String) -> String {
    ///     MetricsObserver::record_gauges();
    ///     render() // such as `PrometheusHandle::render`
    /// }
    /// ```
    pub fn record_gauges() {
        if with_recorder(is_real) {
            with_recorder(describe);
            for ((metric, pipeline, policy), value) in gauges() {
                Attributes::new(Some(&pipeline), Some(&policy)).set(metric, value);
            }
        }
    }

    /// For one pipeline or, cloned or anew, for many: the names of the pipelines tell them apart.
    #[must_use]
    pub const fn new() -> Self {
        Self { described: AtomicBool::new(false) }
    }
}

impl Clone for MetricsObserver {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl Observer for MetricsObserver {
    fn on_event(&self, event: &Event<'_>) {
        // Relaxed: to describe twice does no harm. Not in `new()`, which may come before the recorder.
        if !self.described.swap(true, Relaxed) {
            with_recorder(describe);
        }
        record(event);
    }

    /// Whether there is a recorder.
    fn is_enabled(&self) -> bool {
        with_recorder(is_real)
    }
}

/// Whether this is not what stands in where no recorder is installed. That one does not say so, but it has no size, as a
/// static it is at an address, and few others are both: what is installed for the process is boxed, and a box of nothing
/// is nowhere.
fn is_real(recorder: &dyn Recorder) -> bool {
    let nowhere = std::ptr::without_provenance::<()>(align_of_val(recorder));
    size_of_val(recorder) > 0 || std::ptr::addr_eq(recorder, nowhere)
}

#[derive(Clone, Copy)]
enum Instrument {
    Counter,
    Gauge,
    Histogram,
}

const CALL_DURATION: &str = "withstand.call.duration";
const ATTEMPT_DURATION: &str = "withstand.attempt.duration";
const RETRIES: &str = "withstand.retries";
const HEDGES: &str = "withstand.hedges";
const TIMEOUTS: &str = "withstand.timeouts";
const FALLBACKS: &str = "withstand.fallbacks";
const REJECTIONS: &str = "withstand.rejections";
const TRANSITIONS: &str = "withstand.circuit.transitions";
const CIRCUIT_STATE: &str = "withstand.circuit.state";
const IN_USE: &str = "withstand.bulkhead.in_use";
const LIMIT: &str = "withstand.bulkhead.limit";
const QUEUED: &str = "withstand.bulkhead.queued";
const BALANCE: &str = "withstand.budget.balance";

const DESCRIPTIONS: &[(&str, Instrument, &str)] = &[
    (CALL_DURATION, Instrument::Histogram, "How long calls took, by how they ended"),
    (ATTEMPT_DURATION, Instrument::Histogram, "How long attempts took that reached the operation, by how they ended"),
    (RETRIES, Instrument::Counter, "Attempts that a retry added"),
    (HEDGES, Instrument::Counter, "Attempts that a hedge added"),
    (TIMEOUTS, Instrument::Counter, "What a timeout or a deadline ended"),
    (FALLBACKS, Instrument::Counter, "Outcomes that a fallback was asked to replace"),
    (REJECTIONS, Instrument::Counter, "Calls and attempts that a policy refused"),
    (TRANSITIONS, Instrument::Counter, "Changes of the state of a circuit, by the state it came to"),
    (CIRCUIT_STATE, Instrument::Gauge, "The state of a circuit: 0 closed, 1 half-open, 2 open, 3 isolated"),
    (IN_USE, Instrument::Gauge, "Permits of a bulkhead that are in use"),
    (LIMIT, Instrument::Gauge, "Permits that a bulkhead has"),
    (QUEUED, Instrument::Gauge, "Calls that wait for a permit"),
    (BALANCE, Instrument::Gauge, "Tokens in the budget of a retry or a hedge"),
];

fn describe(recorder: &dyn Recorder) {
    for &(name, instrument, description) in DESCRIPTIONS {
        let name = KeyName::from_const_str(name);
        match instrument {
            Instrument::Counter => recorder.describe_counter(name, Some(Unit::Count), description.into()),
            Instrument::Gauge => recorder.describe_gauge(name, Some(Unit::Count), description.into()),
            Instrument::Histogram => recorder.describe_histogram(name, Some(Unit::Seconds), description.into()),
        }
    }
}

fn record(event: &Event<'_>) {
    let at = || Attributes::of(event);
    match event.kind {
        EventKind::CallFinished { outcome, reason, label, duration, .. } => at()
            .with("outcome", outcome.as_str())
            .with_some("reason", reason.map(Reason::as_str))
            .with("label", label)
            .measure(CALL_DURATION, duration),
        EventKind::AttemptFinished { attempt, hedge, verdict, label, duration, end, .. } => at()
            .with("outcome", verdict.map_or(end.as_str(), VerdictKind::as_str))
            .with("label", label)
            .with("attempt_class", attempt_class(attempt, hedge))
            .measure(ATTEMPT_DURATION, duration),
        EventKind::Retried { .. } => at().count(RETRIES),
        EventKind::Hedged { trigger, .. } => at().with("trigger", trigger.as_str()).count(HEDGES),
        EventKind::TimedOut { scope, phase, .. } => {
            at().with("scope", scope.as_str()).with("phase", phase.as_str()).count(TIMEOUTS);
        }
        EventKind::FellBack { original, reason, end, .. } => at()
            .with("outcome", original.as_str())
            .with_some("reason", reason.map(Reason::as_str))
            .with("end", end.as_str())
            .count(FALLBACKS),
        EventKind::Rejected { reason, .. } => at().with("reason", reason.as_str()).count(REJECTIONS),
        EventKind::Opened { trigger, open_for, .. } => {
            at().enter(CircuitState::Open { retry_after: open_for }, Some(trigger.as_str()));
        }
        EventKind::HalfOpened { .. } => at().enter(CircuitState::HalfOpen, None),
        EventKind::Closed { by, .. } => at().enter(CircuitState::Closed, Some(by.as_str())),
        // Further handles find it isolated.
        EventKind::Isolated { handles: 1 } => at().enter(CircuitState::Isolated, None),
        _ => {}
    }
}

const fn attempt_class(attempt: u32, hedge: u32) -> &'static str {
    match (attempt, hedge) {
        (0 | 1, 0) => "first",
        (_, 0) => "retry",
        _ => "hedge",
    }
}

/// The state of a circuit as a number, the worse the higher.
const fn badness(state: CircuitState) -> f64 {
    match state {
        CircuitState::Closed => 0.0,
        CircuitState::HalfOpen => 1.0,
        CircuitState::Open { .. } => 2.0,
        CircuitState::Isolated => 3.0,
    }
}

/// What all live pipelines show, by metric, pipeline and policy. Those that nothing tells apart are one.
fn gauges() -> HashMap<(&'static str, Name, Name), f64> {
    let mut gauges = HashMap::new();
    for PipelineSnapshot { pipeline, layers } in Registry::global().snapshot() {
        for layer in &layers {
            for (metric, value) in shown(layer) {
                let gauge = gauges.entry((metric, pipeline.clone(), layer.name.clone())).or_insert(0.0);
                *gauge = if metric == CIRCUIT_STATE { value.max(*gauge) } else { value + *gauge };
            }
        }
    }
    gauges
}

/// What a layer shows.
fn shown(layer: &LayerSnapshot) -> Vec<(&'static str, f64)> {
    match &layer.state {
        LayerState::None => Vec::new(),
        LayerState::CircuitBreaker(circuit) => vec![(CIRCUIT_STATE, badness(circuit.state))],
        LayerState::Bulkhead(bulkhead) => vec![
            (IN_USE, count_as_f64(bulkhead.in_use)),
            (LIMIT, count_as_f64(bulkhead.limit)),
            (QUEUED, count_as_f64(bulkhead.queued)),
        ],
        LayerState::Retry(retry) => retry.budget.map(|budget| (BALANCE, budget.balance)).into_iter().collect(),
        LayerState::Hedge(hedge) => hedge.budget.map(|budget| (BALANCE, budget.balance)).into_iter().collect(),
    }
}

/// Exact up to four billion, and then that.
fn count_as_f64(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

static METADATA: Metadata<'static> = Metadata::new("withstand", Level::INFO, Some(module_path!()));

/// The attributes of one measurement.
#[derive(Clone)]
struct Attributes(Vec<Label>);

impl Attributes {
    /// Whose it is.
    fn new(pipeline: Option<&Name>, policy: Option<&Name>) -> Self {
        // As many as there are at most.
        let mut attributes = Self(Vec::with_capacity(5));
        for (key, name) in [("pipeline", pipeline), ("policy", policy)] {
            if let Some(name) = name {
                attributes.0.push(Label::new(key, name.to_cow()));
            }
        }
        attributes
    }

    fn of(event: &Event<'_>) -> Self {
        Self::new(event.pipeline, event.policy.map(PolicyId::name))
    }

    fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.0.push(Label::from_static_parts(key, value));
        self
    }

    fn with_some(self, key: &'static str, value: Option<&'static str>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    fn count(self, name: &'static str) {
        let key = Key::from_parts(name, self.0);
        with_recorder(|recorder| recorder.register_counter(&key, &METADATA)).increment(1);
    }

    fn measure(self, name: &'static str, duration: Duration) {
        let key = Key::from_parts(name, self.0);
        with_recorder(|recorder| recorder.register_histogram(&key, &METADATA)).record(duration);
    }

    fn set(self, name: &'static str, value: f64) {
        let key = Key::from_parts(name, self.0);
        with_recorder(|recorder| recorder.register_gauge(&key, &METADATA)).set(value);
    }

    fn enter(self, state: CircuitState, trigger: Option<&'static str>) {
        self.clone().set(CIRCUIT_STATE, badness(state));
        self.with("state", state.as_str()).with_some("trigger", trigger).count(TRANSITIONS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recorder of no size, as those are that only forward.
    struct Nothing;

    impl Recorder for Nothing {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: metrics::SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: metrics::SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: metrics::SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> metrics::Counter {
            metrics::Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> metrics::Gauge {
            metrics::Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> metrics::Histogram {
            metrics::Histogram::noop()
        }
    }

    #[test]
    fn what_stands_in_for_a_recorder_is_none_and_one_of_no_size_that_is_installed_is_one() {
        assert!(!with_recorder(is_real));
        metrics::set_global_recorder(Nothing).map_err(drop).unwrap();
        assert!(with_recorder(is_real));
    }
}
