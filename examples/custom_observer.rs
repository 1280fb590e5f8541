//! An observer of one's own in eight lines: it counts calls by how they ended.
//!
//! ```text
//! cargo run --example custom_observer
//! ```

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use withstand::{CircuitBreaker, CircuitState, Event, EventKind, Observer, Observers, Pipeline, Verdict};

/// How many calls ended in which way: what a counter of a metrics library would hold.
#[derive(Clone, Default)]
struct CallsByOutcome(Arc<Mutex<BTreeMap<&'static str, u32>>>);
impl Observer for CallsByOutcome {
    fn on_event(&self, event: &Event<'_>) {
        if let EventKind::CallFinished { outcome, .. } = event.kind {
            *self.0.lock().unwrap().entry(outcome.as_str()).or_default() += 1;
        }
    }
}

/// A closure is an observer too: this one prints what a log would keep.
fn log(event: &Event<'_>) {
    if let EventKind::Opened { .. } | EventKind::HalfOpened { .. } | EventKind::Closed { .. } = event.kind {
        println!("{event}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let breaker =
        CircuitBreaker::builder().count_window(10).min_calls(5).open_for(Duration::from_millis(20)).build()?;
    let breaker = Arc::new(breaker);
    let calls = CallsByOutcome::default();
    let users = Pipeline::builder("users-api")
        .circuit_breaker(breaker.clone())
        .classify_errors(|_: &io::Error| Verdict::transient().label("timed_out"))
        .observer(Observers::new().with(calls.clone()).with(log))
        .build()?;

    // The service is down: five calls find out, five more are spared.
    for _ in 0..10 {
        let down = users.call(|| async { Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut)) }).await;
        assert!(down.is_err());
    }
    // It is back, and after the break three probes find out.
    tokio::time::sleep(Duration::from_millis(25)).await;
    for _ in 0..4 {
        users.call(|| async { Ok(()) }).await?;
    }
    assert_eq!(breaker.state(), CircuitState::Closed);

    let calls = calls.0.lock().unwrap();
    println!("\ncalls by outcome: {calls:?}");
    assert_eq!(*calls, BTreeMap::from([("transient", 5), ("rejected", 5), ("success", 4)]));
    Ok(())
}
