//! A policy of one's own in eight lines: a rate limit, which this crate does not have.
//!
//! ```text
//! cargo run --example custom_policy
//! ```

use std::{error::Error, io, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use withstand::{Bound, Context, Describe, Operation, Outcome, Pipeline, Policy, Retry, Verdict};

/// Lets one attempt begin at each tick. The others wait for their turn, in their order.
struct RateLimit(Mutex<Interval>);
impl Describe for RateLimit {}
impl<T: Send, E: Send> Policy<T, E> for RateLimit {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        self.0.lock().await.tick().await;
        op.attempt(cx).await
    }
}

const TICK: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay); // no burst after a pause

    // Inside the retry, so that repeats keep to the rate as well.
    let users = Pipeline::builder("users-api")
        .timeout(Duration::from_secs(1))
        .retry(Retry::builder())
        .layer(RateLimit(Mutex::new(ticks)))
        .classify_errors(|_: &io::Error| Verdict::transient())
        .build()?;

    for id in 1..=5 {
        users.call(|| async { Ok(()) }).await?;
        println!("call {id} was answered after {:>3} ms", started.elapsed().as_millis());
    }
    assert!(started.elapsed() >= 4 * TICK, "the first begins at once, the other four with the next ticks");

    // It tells nothing about itself yet, so its share of the worst case is unknown; `describe` could tell.
    let plan = users.explain();
    println!("\n{plan}");
    assert_eq!(plan.attempts(), Bound::Unknown);
    Ok(())
}
