//! The reqwest client against real servers on loopback, and what can go wrong with them.
#![cfg(test)]

mod answers;
mod bodies;
mod connections;
mod hedges;
mod hosts;
mod streams;
mod upstream;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use reqwest::StatusCode;
use withstand::{
    Backoff, Bulkhead, BulkheadSnapshot, CircuitBreaker, CircuitSnapshot, Event, EventKind, LayerState, Retry, Timeout,
    layers,
    reqwest::{Client, ClientBuilder, Host},
};

type Layers = layers![Timeout, Retry, Bulkhead, CircuitBreaker, Timeout];
type Outbound = Client<Layers>;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Quick to repeat, and quick to open: with four failures of four.
fn outbound() -> ClientBuilder<Layers> {
    with(Retry::builder(), 100)
}

fn with(retry: withstand::RetryBuilder, permits: usize) -> ClientBuilder<Layers> {
    Client::builder("outbound", reqwest::Client::new()).each_host(move |pipeline, _| {
        pipeline
            .timeout(Duration::from_secs(20))
            .retry(retry.clone().backoff(Backoff::constant(ms(5))))
            .bulkhead(Bulkhead::builder().limit(permits))
            .circuit_breaker(CircuitBreaker::builder().min_calls(4).open_for(Duration::from_secs(60)))
            .timeout(ms(400))
            .build()
    })
}

/// What an operator sees of the host of a URL.
fn seen<S>(client: &Outbound, url: &str, pick: impl Fn(LayerState) -> Option<S>) -> S {
    let host = Host::of(&url.parse().unwrap()).unwrap();
    let layers = client.hosts().peek(&host).expect("a pipeline of its own").handle().snapshot().layers;
    layers.into_iter().find_map(|layer| pick(layer.state)).unwrap()
}

fn circuit(client: &Outbound, url: &str) -> CircuitSnapshot {
    seen(client, url, |state| match state {
        LayerState::CircuitBreaker(circuit) => Some(circuit),
        _ => None,
    })
}

fn permits(client: &Outbound, url: &str) -> BulkheadSnapshot {
    seen(client, url, |state| match state {
        LayerState::Bulkhead(bulkhead) => Some(bulkhead),
        _ => None,
    })
}

/// Counts the repeats and the hedges that were decided on, even if nothing came of them, and observes them.
fn repeats() -> (Arc<AtomicU32>, impl Fn(&Event<'_>) + Send + Sync + 'static) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let observer = move |event: &Event<'_>| {
        if matches!(event.kind, EventKind::Retried { .. } | EventKind::Hedged { .. }) {
            counted.fetch_add(1, Relaxed);
        }
    };
    (count, observer)
}

/// What caused an error, in words, the innermost last.
fn causes(error: &reqwest::Error) -> Vec<String> {
    let causes = std::iter::successors(std::error::Error::source(error), |&cause| cause.source());
    causes.map(ToString::to_string).collect()
}

const OK: StatusCode = StatusCode::OK;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

fn shared<T>(value: T) -> Arc<T> {
    Arc::new(value)
}
