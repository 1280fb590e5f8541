//! A service that calls another one, which has a bad time, and exports what its pipeline does for Prometheus.
//!
//! ```text
//! cargo run --manifest-path integrations/Cargo.toml --example prometheus            # a few seconds, prints what was scraped
//! cargo run --manifest-path integrations/Cargo.toml --example prometheus -- serve   # until it is interrupted, on port 9464
//! ```
//!
//! To see it in Grafana: run it with `serve`, point Prometheus at it, and import `dashboards/withstand.json`
//! (Dashboards, New, Import), with that Prometheus as the data source.
//!
//! ```yaml
//! scrape_configs:
//!   - job_name: withstand
//!     scrape_interval: 5s
//!     static_configs: [{ targets: ["localhost:9464"] }]
//! ```
//!
//! In a service of your own: the observer on each pipeline, the recorder and its buckets in `main`, and the call of
//! `record_gauges` in the handler, as here.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::{net::TcpListener, time::sleep};
use withstand::{Bulkhead, CircuitBreaker, Fallback, Hedge, MetricsObserver, Pipeline, Retry, Verdict};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let for_ever = std::env::args().any(|argument| argument == "serve");

    // The recorder. Buckets make histograms of durations, and the naming gives them their unit: `.._seconds_bucket`.
    let prometheus = PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(Matcher::Prefix("withstand".to_owned()), MetricsObserver::DURATION_BUCKETS)?
        .install_recorder()?;
    let metrics = get(move || async move {
        MetricsObserver::record_gauges();
        prometheus.render()
    });
    let port = if for_ever { 9464 } else { 0 };
    let exporter = serve(Router::new().route("/metrics", metrics), port).await?;
    let backend = serve(bad_times(), 0).await?;
    println!("metrics: http://{exporter}/metrics");

    let http = reqwest::Client::builder().no_proxy().build()?;
    let users = Pipeline::builder("users-api")
        .fallback(Fallback::value("somebody".to_owned()))
        .timeout(ms(1000))
        .retry(Retry::builder())
        .hedge(Hedge::builder().delay(ms(60)))
        .bulkhead(Bulkhead::builder().limit(10))
        .circuit_breaker(CircuitBreaker::builder().time_window(ms(1000)).open_for(ms(500)))
        .timeout(ms(200))
        .classify_errors(|error: &reqwest::Error| match error.status() {
            Some(StatusCode::TOO_MANY_REQUESTS) => Verdict::throttled().label("http_429"),
            Some(_) => Verdict::transient().label("http_5xx"),
            None => Verdict::transient().label("io"),
        })
        .observer(MetricsObserver::new())
        .build()?;
    let users = Arc::new(users);

    let mut calls = 0_u32;
    while for_ever || calls < 600 {
        calls += 1;
        let (users, http) = (users.clone(), http.clone());
        drop(tokio::spawn(async move {
            let get =
                || async { http.get(format!("http://{backend}/user")).send().await?.error_for_status()?.text().await };
            drop(users.call(get).await);
        }));
        sleep(ms(5)).await;
    }
    sleep(ms(1200)).await;

    let scraped = http.get(format!("http://{exporter}/metrics")).send().await?.text().await?;
    let shown = |line: &&str| line.starts_with("withstand_") && !line.contains("_bucket") && !line.contains("_sum");
    scraped.lines().filter(shown).for_each(|line| println!("{line}"));
    let counted = scraped.lines().filter(|line| line.starts_with("withstand_call_duration_seconds_count"));
    let counted: f64 = counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    println!("\n{calls} calls were made, and {counted} were counted.");
    assert!((counted - f64::from(calls)).abs() < 0.5);
    assert!(scraped.contains("withstand_circuit_transitions_total"), "the circuit has opened");
    Ok(())
}

async fn serve(service: Router, port: u16) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    drop(tokio::spawn(async move { axum::serve(listener, service).await }));
    Ok(address)
}

/// Good, then now and then slow or failing, then down, and so on.
fn bad_times() -> Router {
    let requests = Arc::new(AtomicU64::new(0));
    let answer = move || {
        let number = requests.fetch_add(1, Relaxed);
        async move {
            match (number / 150 % 3, number % 10) {
                (1, 0) => sleep(ms(150)).await,
                (1, 5) => return (StatusCode::TOO_MANY_REQUESTS, ""),
                (1, 7) | (2, _) => return (StatusCode::SERVICE_UNAVAILABLE, ""),
                _ => sleep(ms(5)).await,
            }
            (StatusCode::OK, "Ada")
        }
    };
    Router::new().route("/user", get(answer))
}
