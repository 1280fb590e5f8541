//! A service of axum's that asks another one for every answer, through a reqwest client that withstands its bad times, and
//! exports what happens for Prometheus at `/metrics`.
//!
//! ```text
//! cargo run --manifest-path integrations/Cargo.toml --example axum_reqwest            # a few seconds, then it ends
//! cargo run --manifest-path integrations/Cargo.toml --example axum_reqwest -- serve   # until it is interrupted
//! ```
//!
//! It asks itself: first all is well, then one answer in four is an error, then the other service is down, then it is
//! well again. A second service, which is never ill, is asked through the same client all along.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};
use withstand::{
    Bulkhead, CircuitBreaker, MetricsObserver, Retry, Timeout, layers,
    reqwest::{Client, Covers},
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

type Outbound = Client<layers![Timeout, Retry, Bulkhead, CircuitBreaker, Timeout]>;

/// What the handlers share.
#[derive(Clone)]
struct Service {
    client: Outbound,
    users: SocketAddr,
    prices: SocketAddr,
}

impl Service {
    fn new(users: SocketAddr, prices: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let plain = reqwest::Client::builder().no_proxy().build()?;
        // This line was `let client = plain;` once. With `Client::new("outbound", plain)?` each host has the standard
        // pipeline; here its numbers are smaller, so that all of it is over in some seconds.
        let client = Client::builder("outbound", plain)
            .each_host(|pipeline, _host| {
                pipeline
                    .timeout(ms(1000))
                    .retry(Retry::builder())
                    .bulkhead(Bulkhead::builder().limit(50))
                    // Breaks that grow no longer, so that the last part begins with a circuit that lets probes through.
                    .circuit_breaker(
                        CircuitBreaker::builder().time_window(ms(1000)).open_for(BREAK).max_open_for(BREAK),
                    )
                    .timeout(ms(200))
                    .build()
            })
            .covers(Covers::BufferedBody { up_to: 64 * 1024 })
            .deadline_header("x-request-timeout-ms")
            .observer(MetricsObserver::new())
            .build()?;
        Ok(Self { client, users, prices })
    }
}

/// The handlers use the client as they would use reqwest's own.
async fn user(State(service): State<Service>, Path(id): Path<u32>) -> Response {
    relayed(&service, format!("http://{}/users/{id}", service.users)).await
}

async fn price(State(service): State<Service>, Path(id): Path<u32>) -> Response {
    relayed(&service, format!("http://{}/prices/{id}", service.prices)).await
}

async fn relayed(service: &Service, url: String) -> Response {
    match service.client.get(url).send().await {
        Ok(answer) if answer.status().is_success() => answer.text().await.unwrap_or_default().into_response(),
        Ok(answer) => (StatusCode::BAD_GATEWAY, format!("it said {}", answer.status())).into_response(),
        // The circuit is open, or its probes are under way, or there are too many calls already.
        Err(withstand::Error::Rejected(rejection)) => {
            let seconds = rejection.retry_after().unwrap_or_default().as_secs() + 1;
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, seconds.to_string())], "come back later").into_response()
        }
        Err(error) if error.is_timeout() => (StatusCode::GATEWAY_TIMEOUT, error.to_string()).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let prometheus = PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(Matcher::Prefix("withstand".to_owned()), MetricsObserver::DURATION_BUCKETS)?
        .install_recorder()?;
    let metrics = get(move || async move {
        MetricsObserver::record_gauges();
        prometheus.render()
    });

    let flaky = Flaky::default();
    let users = serve(flaky.router()).await?;
    let prices = serve(Flaky::default().router()).await?;
    let app = Router::new().route("/user/{id}", get(user)).route("/price/{id}", get(price));
    let app = app.with_state(Service::new(users, prices)?).route("/metrics", metrics);
    let address = serve(app).await?;
    println!("http://{address}/user/7, http://{address}/price/7, http://{address}/metrics\n");
    if std::env::args().any(|argument| argument == "serve") {
        return Ok(std::future::pending::<io::Result<()>>().await?);
    }

    println!("users are      asked   ok   no  refused   longest   requests that reached users   prices ok");
    for (state, name) in [(WELL, "well"), (FLAKY, "flaky"), (DOWN, "down"), (WELL, "well again")] {
        flaky.state.store(state, Relaxed);
        if name == "well again" {
            sleep(BREAK * 2).await;
        }
        let before = flaky.requests.load(Relaxed);
        let (users, prices) = tokio::join!(load(address, "user"), load(address, "price"));
        let reached = flaky.requests.load(Relaxed) - before;
        println!(
            "{name:<13} {:>6} {:>4} {:>4} {:>8} {:>6} ms {reached:>29} {:>11}",
            CALLS,
            users.ok,
            users.failed,
            users.refused,
            users.longest.as_millis(),
            prices.ok,
        );
        assert_eq!(prices.ok, CALLS, "one bad host does no harm to another");
        match state {
            WELL => assert!(users.ok > CALLS * 9 / 10, "all but those that come while the probes are under way"),
            FLAKY => assert!(users.ok > CALLS * 8 / 10, "retries make up for most of it"),
            _ => assert!(reached < CALLS && users.refused > CALLS / 2, "the circuit keeps the rest away"),
        }
    }

    let scraped = reqwest::get(format!("http://{address}/metrics")).await?.text().await?;
    println!("\nof /metrics:");
    let shown = ["withstand_retries", "withstand_rejections", "withstand_circuit_transitions"];
    scraped
        .lines()
        .filter(|line| shown.iter().any(|name| line.starts_with(name)))
        .for_each(|line| println!("  {line}"));
    assert!(shown.iter().all(|name| scraped.contains(name)), "{scraped}");
    Ok(())
}

const CALLS: u32 = 200;

/// How long a circuit stays open.
const BREAK: Duration = ms(300);

/// How it looked to those who asked.
#[derive(Default)]
struct Seen {
    ok: u32,
    failed: u32,
    refused: u32,
    longest: Duration,
}

/// Asks for a while, some at once.
async fn load(address: SocketAddr, what: &str) -> Seen {
    let client = reqwest::Client::new();
    let mut calls = Vec::new();
    for id in 0..CALLS {
        let call = client.get(format!("http://{address}/{what}/{id}")).send();
        calls.push(tokio::spawn(async move {
            let began = Instant::now();
            let status = call.await.map_or(StatusCode::INTERNAL_SERVER_ERROR, |answer| answer.status());
            (status, began.elapsed())
        }));
        sleep(ms(4)).await;
    }
    let mut seen = Seen::default();
    for call in calls {
        let Ok((status, elapsed)) = call.await else { continue };
        match status {
            StatusCode::OK => seen.ok += 1,
            StatusCode::SERVICE_UNAVAILABLE => seen.refused += 1,
            _ => seen.failed += 1,
        }
        seen.longest = seen.longest.max(elapsed);
    }
    seen
}

const WELL: u32 = 0;
const FLAKY: u32 = 1;
const DOWN: u32 = 2;

/// The other service.
#[derive(Clone, Default)]
struct Flaky {
    state: Arc<AtomicU32>,
    requests: Arc<AtomicU32>,
}

impl Flaky {
    fn router(&self) -> Router {
        let flaky = self.clone();
        Router::new().fallback(move || flaky.clone().answer())
    }

    async fn answer(self) -> Response {
        let number = self.requests.fetch_add(1, Relaxed);
        sleep(ms(3)).await;
        match (self.state.load(Relaxed), number % 8) {
            (FLAKY, 0) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            (FLAKY, 4) => {
                (StatusCode::TOO_MANY_REQUESTS, [(HeaderName::from_static("retry-after"), "0")]).into_response()
            }
            (DOWN, _) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            _ => "Ada".into_response(),
        }
    }
}

async fn serve(service: Router) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(tokio::spawn(async move { axum::serve(listener, service).await }));
    Ok(address)
}
