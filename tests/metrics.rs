//! Metrics: the catalogue in the docs is what is emitted, and nothing else ever is.
#![cfg(test)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex},
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    set_default_local_recorder,
};
use support::{as_it_says, ms};
use tokio::time::sleep;
use withstand::{
    Backoff, Bulkhead, CallOptions, CircuitBreaker, Fallback, Hedge, Jitter, MetricsObserver, Observer, Pipeline,
    Retry, RetryBudget, Verdict,
};

/// All attributes that there are: bounded words, and the names of the configuration.
const ATTRIBUTES: [&str; 11] =
    ["pipeline", "policy", "outcome", "reason", "label", "trigger", "scope", "phase", "state", "end", "attempt_class"];

/// The name of a metric, and its attributes with their values.
type Series = (String, BTreeMap<String, String>);

/// A recorder that keeps everything.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    described: BTreeMap<String, (&'static str, Option<Unit>)>,
    values: BTreeMap<Series, Vec<f64>>,
    kinds: BTreeMap<String, &'static str>,
}

impl Kept {
    fn values(&self) -> BTreeMap<Series, Vec<f64>> {
        self.0.lock().unwrap().values.clone()
    }

    /// The last value of a series.
    fn last(&self, name: &str, pipeline: &str, policy: &str) -> Option<f64> {
        let labels =
            [("pipeline", pipeline), ("policy", policy)].map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.values().get(&(name.to_owned(), labels.into())).and_then(|values| values.last().copied())
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, kind: &'static str) {
        self.0.lock().unwrap().described.insert(name.as_str().to_owned(), (kind, unit));
    }

    fn register(&self, key: &Key, kind: &'static str) -> Arc<One> {
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        self.0.lock().unwrap().kinds.insert(key.name().to_owned(), kind);
        Arc::new(One { all: self.clone(), series: (key.name().to_owned(), labels) })
    }
}

struct One {
    all: Kept,
    series: Series,
}

impl One {
    fn keep(&self, value: f64) {
        self.all.0.lock().unwrap().values.entry(self.series.clone()).or_default().push(value);
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        assert_eq!(value, 1);
        self.keep(1.0);
    }
    fn absolute(&self, _: u64) {
        unreachable!()
    }
}

impl GaugeFn for One {
    fn increment(&self, _: f64) {
        unreachable!()
    }
    fn decrement(&self, _: f64) {
        unreachable!()
    }
    fn set(&self, value: f64) {
        self.keep(value);
    }
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        self.keep(value);
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&key, unit, "counter");
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&key, unit, "gauge");
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&key, unit, "histogram");
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.register(key, "counter"))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.register(key, "gauge"))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.register(key, "histogram"))
    }
}

/// Has all happen that is counted.
async fn everything(pipeline: &str) {
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(2).open_for(ms(10)).build().unwrap());
    let users = Pipeline::builder(pipeline.to_owned())
        .fallback(Fallback::value(0))
        .timeout(ms(500))
        .retry(Retry::builder().max_attempts(2).backoff(Backoff::constant(ms(1)).jitter(Jitter::None)))
        .hedge(Hedge::builder().delay(ms(20)).own_budget(RetryBudget::builder().initial(9).cap(10)))
        .bulkhead(Bulkhead::builder().limit(2).queue(1).max_wait(ms(5)))
        .circuit_breaker(breaker.clone())
        .timeout(ms(100))
        .classify_errors(as_it_says)
        .observer(MetricsObserver::new())
        .build()
        .unwrap();
    assert_eq!(users.call(|| async { Ok::<_, Verdict>(1) }).await, Ok(1));
    assert_eq!(users.call(pending::<Result<i32, Verdict>>).await, Ok(0), "hedged, timed out, repeated, replaced");
    while breaker.state().is_closed() {
        assert_eq!(users.call(|| async { Err(Verdict::transient()) }).await, Ok(0));
    }
    assert_eq!(users.call(|| async { Ok::<_, Verdict>(1) }).await, Ok(0), "rejected and replaced");
    sleep(ms(50)).await;
    for _ in 0..3 {
        assert_eq!(users.call(|| async { Ok::<_, Verdict>(1) }).await, Ok(1));
    }
    drop(breaker.isolate());
    let refused = Pipeline::builder(pipeline.to_owned()).bulkhead(Bulkhead::builder().limit(0));
    let refused = refused.observer(MetricsObserver::new()).build().unwrap();
    assert!(refused.call(|| async { Ok::<_, ()>(1) }).await.is_err());
    MetricsObserver::record_gauges();
}

/// The rows of the catalogue: kind, unit and attributes of each metric.
fn catalogue() -> BTreeMap<String, (String, String, BTreeSet<String>)> {
    let source = include_str!("../src/adapters/metrics.rs");
    let rows = source.lines().filter(|line| line.starts_with("/// | `withstand."));
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_start_matches("/// |").split('|').map(str::trim).collect();
        let word = |cell: &str| cell.trim_matches(['`', '*', ' ']).to_owned();
        let attributes = cells[3].split(',').map(word).collect();
        (word(cells[0]), (word(cells[1]), word(cells[2]), attributes))
    };
    rows.map(row).collect()
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_in_the_docs_is_what_is_emitted() {
    let kept = Kept::default();
    let _guard = set_default_local_recorder(&kept);
    everything("catalogue").await;
    let told = kept.0.lock().unwrap();
    let mut emitted: BTreeMap<_, (String, String, BTreeSet<_>)> = BTreeMap::new();
    for (name, labels) in told.values.keys() {
        let (kind, unit) = told.described[name];
        assert_eq!(told.kinds[name], kind, "{name} is described as what it is");
        let unit = if unit == Some(Unit::Seconds) { "s" } else { "" };
        let entry = emitted.entry(name.clone());
        entry.or_insert((kind.to_owned(), unit.to_owned(), BTreeSet::new())).2.extend(labels.keys().cloned());
    }
    assert_eq!(emitted, catalogue());
    assert_eq!(told.described.keys().collect::<Vec<_>>(), emitted.keys().collect::<Vec<_>>());
    let used: BTreeSet<_> = emitted.values().flat_map(|(_, _, attributes)| attributes.iter().cloned()).collect();
    assert_eq!(used, ATTRIBUTES.map(str::to_owned).into());
}

#[tokio::test(start_paused = true)]
async fn durations_are_measured_once_for_each_call_and_each_attempt_in_seconds() {
    let kept = Kept::default();
    let _guard = set_default_local_recorder(&kept);
    let backoff = Backoff::constant(ms(250)).jitter(Jitter::None);
    let users = Pipeline::builder("seconds")
        .retry(Retry::builder().max_attempts(3).backoff(backoff))
        .classify_errors(as_it_says)
        .observer(MetricsObserver::new())
        .build()
        .unwrap();
    let call = users.call_with(CallOptions::new(), |attempt| async move {
        sleep(ms(500)).await;
        if attempt.number() < 3 { Err(Verdict::throttled()) } else { Ok(1) }
    });
    assert_eq!(call.await, Ok(1));
    let mut values = kept.values();
    values.retain(|(name, _), _| name.ends_with("duration"));
    let values: Vec<_> = values
        .into_iter()
        .map(|((name, mut labels), values)| {
            assert_eq!(labels.remove("pipeline").unwrap(), "seconds");
            (name, labels.into_values().collect::<Vec<_>>().join(" "), values)
        })
        .collect();
    let row = |name: &str, labels: &str, values: &[f64]| (name.to_owned(), labels.to_owned(), values.to_vec());
    assert_eq!(
        values,
        [
            row("withstand.attempt.duration", "first throttled throttled", &[0.5]),
            row("withstand.attempt.duration", "retry success success", &[0.5]),
            row("withstand.attempt.duration", "retry throttled throttled", &[0.5]),
            row("withstand.call.duration", "success success", &[2.0]),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_is_installed_later_hears_of_the_calls_that_begin_after() {
    let observer = MetricsObserver::new();
    assert!(!observer.is_enabled());
    let users = Pipeline::builder("later").observer(observer).build().unwrap();
    let kept = Kept::default();
    let call = users.call(|| async { Ok::<_, ()>(1) });
    assert!(call.await.is_ok());
    let guard = set_default_local_recorder(&kept);
    assert!(MetricsObserver::new().is_enabled());
    assert!(users.call(|| async { Ok::<_, ()>(1) }).await.is_ok());
    drop(guard);
    assert!(users.call(|| async { Ok::<_, ()>(1) }).await.is_ok());
    assert_eq!(kept.values().values().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn gauges_are_of_all_pipelines_with_or_without_an_observer_and_those_of_one_name_are_one() {
    let build = |name: &'static str, limit| {
        let breaker = Arc::new(CircuitBreaker::builder().build().unwrap());
        let bulkhead = Arc::new(Bulkhead::builder().limit(limit).queue(3).build().unwrap());
        let pipeline = Pipeline::builder(name).bulkhead(bulkhead.clone()).circuit_breaker(breaker.clone());
        (pipeline.build().unwrap(), bulkhead, breaker)
    };
    let (tenants, _other) = ([build("tenants", 3), build("tenants", 4)], build("other", 5));
    let _held = [&tenants[0].1, &tenants[1].1, &tenants[1].1].map(|bulkhead| bulkhead.try_acquire().unwrap());
    let _isolated = tenants[0].2.isolate();
    MetricsObserver::record_gauges();
    let kept = Kept::default();
    let _guard = set_default_local_recorder(&kept);
    MetricsObserver::record_gauges();
    let gauge = |name: &str, pipeline: &str| kept.last(&format!("withstand.bulkhead.{name}"), pipeline, "bulkhead");
    assert_eq!((gauge("in_use", "tenants"), gauge("limit", "tenants")), (Some(3.0), Some(7.0)));
    assert_eq!(
        (gauge("in_use", "other"), gauge("limit", "other"), gauge("queued", "other")),
        (Some(0.0), Some(5.0), Some(0.0))
    );
    let state = |pipeline: &str| kept.last("withstand.circuit.state", pipeline, "circuit_breaker");
    assert_eq!((state("tenants"), state("other")), (Some(3.0), Some(0.0)), "the worst");
}
