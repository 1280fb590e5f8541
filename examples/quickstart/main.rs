//! A service has a bad ten seconds, and the same application lives through them twice: bare, then behind a pipeline.
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! Service and client are real HTTP on loopback, and the faults follow a [`script`]. While it runs it prints what
//! happens; at the end a table of both runs and where to find the chart. It [checks](check) what it promises.

mod chart;
mod check;
mod client;
mod load;
mod report;
mod script;
mod service;
mod timeline;

use std::{error::Error, path::Path, process::ExitCode, sync::Arc, time::Duration};

use withstand::{
    Backoff, Bulkhead, CallOptions, CircuitBreaker, Event, Fallback, Hedge, Pipeline, Retry, RetryBudget, Verdict,
};

use crate::{
    check::Limits,
    client::{ApiError, Client, User},
    load::Answer,
    report::Run,
    service::Service,
    timeline::Timeline,
};

/// How long the application waits for an answer, with or without a pipeline.
const PATIENCE: Duration = Duration::from_secs(2);

/// What limits the load on a service in trouble. The pipeline is built with these numbers and checked against them.
const LIMITS: Limits = Limits {
    window: Duration::from_secs(1),
    failure_rate: 0.5,
    min_calls: 20,
    open_for: ms(150),
    max_open_for: ms(300),
    probes: 3,
    in_flight: 50,
    retry_budget: 100,
    hedge_budget: 20,
};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    println!("-- bare: one request for each call, given up after {PATIENCE:?} --\n");
    let bare = bare().await?;

    println!("\n-- the same calls through a pipeline --\n");
    let pipeline = pipeline().await?;

    println!();
    report::print([&bare, &pipeline]);
    let path = Path::new("target/quickstart.svg");
    chart::draw(path, [&bare, &pipeline])?;
    println!("\nBoth runs over time: {}\n", path.display());

    match check::promises(&bare, &pipeline, &LIMITS) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(broken) => {
            eprintln!("A promise was broken: {broken}.");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Calls through a pipeline of all six policies.
async fn pipeline() -> Result<Run, Box<dyn Error>> {
    let service = Service::start().await?;
    let client = Client::new(service.replicas.clone());
    let timeline = Timeline::new(service.started);
    let observer = timeline.clone();

    // The script packs a bad day into ten seconds, so these times are some ten times shorter than in life.
    let retry = Retry::builder()
        .max_attempts(3)
        .backoff(Backoff::exponential(ms(20)).cap(ms(200)))
        .own_budget(RetryBudget::builder().ratio(0.2).cap(LIMITS.retry_budget));
    let hedge = Hedge::builder().delay(ms(50)).own_budget(RetryBudget::builder().ratio(0.2).cap(LIMITS.hedge_budget));
    let breaker = CircuitBreaker::builder()
        .time_window(LIMITS.window)
        .failure_rate(LIMITS.failure_rate)
        .min_calls(LIMITS.min_calls)
        .open_for(LIMITS.open_for)
        .max_open_for(LIMITS.max_open_for)
        .probes(LIMITS.probes);

    let users = Pipeline::builder("users-api") // outermost first
        .fallback(Fallback::value(User::anonymous()))
        .timeout(PATIENCE) // the whole call
        .retry(retry)
        .hedge(hedge)
        .bulkhead(Bulkhead::builder().limit(LIMITS.in_flight))
        .circuit_breaker(breaker)
        .timeout(ms(200)) // each attempt
        .classify_errors(|error: &ApiError| match error {
            ApiError::Connect(_) => Verdict::unreached(),
            ApiError::Throttled(after) => Verdict::throttled().retry_after(*after),
            ApiError::Status(status) if status.is_client_error() => Verdict::failure(),
            _ => Verdict::transient(),
        })
        .observer(move |event: &Event<'_>| observer.hear(event))
        .build()?;
    println!("{}", users.explain());

    let users = Arc::new(users);
    let load = load::drive(&timeline, |id| {
        let (users, client) = (users.clone(), client.clone());
        async move {
            let user = users
                .call_with(CallOptions::new(), |attempt| client.get_user(id, attempt.number(), attempt.hedge()))
                .await;
            answer(user)
        }
    });
    let load = load.await?;
    Ok(Run { name: "pipeline", load, arrivals: service.stop(), circuit: timeline.circuit() })
}

/// The same calls without a pipeline.
async fn bare() -> Result<Run, Box<dyn Error>> {
    let service = Service::start().await?;
    let client = Client::new(service.replicas.clone());
    let timeline = Timeline::new(service.started);

    let load = load::drive(&timeline, |id| {
        let client = client.clone();
        async move { tokio::time::timeout(PATIENCE, client.get_user(id, 1, 0)).await.map_or(Answer::Nobody, answer) }
    });
    let load = load.await?;
    Ok(Run { name: "bare", load, arrivals: service.stop(), circuit: timeline.circuit() })
}

fn answer<E>(user: Result<User, E>) -> Answer {
    match user {
        Ok(user) if user.is_anonymous() => Answer::Fallback,
        Ok(_) => Answer::Service,
        Err(_) => Answer::Nobody,
    }
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
