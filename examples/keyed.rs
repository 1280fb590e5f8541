//! One circuit breaker for each host inside one retry: a host that is down costs one attempt for a while, then none, and
//! the others are not held responsible for it.
//!
//! ```text
//! cargo run --example keyed --features keyed
//! ```

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use withstand::{
    Backoff, CallOptions, CircuitBreaker, ConfigError, Instance, Keyed, LayerState, Pipeline, Retry, Timeout, layers,
};

const HOSTS: [&str; 3] = ["a.example", "b.example", "c.example"];

/// How often each host was asked. Two of them are down.
static ASKED: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

/// What each host has: a circuit breaker and a timeout of its own.
type Host = Pipeline<layers![CircuitBreaker, Timeout]>;

async fn search(host: usize) -> Result<&'static str, &'static str> {
    ASKED[host].fetch_add(1, Relaxed);
    tokio::time::sleep(Duration::from_millis(2)).await;
    if host < 2 { Err("connection refused") } else { Ok("found") }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), ConfigError> {
    let hosts: Keyed<String, Host> = Keyed::builder(|_host| {
        Pipeline::builder("search-host")
            .circuit_breaker(CircuitBreaker::builder().consecutive_failures(5).consecutive_span(Duration::ZERO))
            .timeout(Duration::from_millis(200))
            .build()
    })
    .build()?;
    let service = Pipeline::builder("search")
        .timeout(Duration::from_secs(2))
        .retry(
            Retry::builder()
                .max_attempts(3)
                .backoff(Backoff::constant(Duration::from_millis(1)))
                .without_budget()
                .retry_rejected() // by one host's circuit: the next attempt goes to another host,
                .max_hint(Duration::ZERO), // which need not wait until that of the first one closes
        )
        .build()?;

    let hosts = &hosts;
    for _ in 0..100 {
        let found = service
            .forward_with(CallOptions::new(), |attempt| async move {
                let host = (attempt.number() as usize - 1) % HOSTS.len();
                hosts.get(HOSTS[host]).outcome(|| search(host)).await
            })
            .await;
        assert_eq!(found, Ok("found"));
    }

    let asked = ASKED.each_ref().map(|asked| asked.load(Relaxed));
    for instance in hosts.instances() {
        let Some(host) = Instance::key(&instance) else { continue };
        for layer in instance.handle().snapshot().layers {
            if let LayerState::CircuitBreaker(circuit) = layer.state {
                println!("{host}: {}", circuit.state);
            }
        }
    }
    assert_eq!(asked, [5, 5, 100]);
    println!("100 searches were answered; each host that is down was asked 5 times.");
    Ok(())
}
