//! A game day in a test: what do callers see when a third of all attempts goes wrong?
//!
//! ```text
//! cargo run --example chaos --features chaos
//! ```

use std::{error::Error, fmt, time::Duration};

use tokio::time::Instant;
use withstand::{Chaos, Fault, Outcome, Pipeline, Policy, Verdict};

#[derive(Debug)]
struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unavailable")
    }
}

/// The service as it is on a good day.
async fn get_user() -> Result<&'static str, Unavailable> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok("Ada")
}

/// A thousand calls: the share that is answered, and the longest that one took.
async fn day<P: Policy<&'static str, Unavailable>>(name: &str, users: &Pipeline<P>) -> (f64, Duration) {
    let (mut answered, mut longest) = (0, Duration::ZERO);
    for _ in 0..1_000 {
        let began = Instant::now();
        answered += u32::from(users.call(get_user).await.is_ok());
        longest = longest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let share = f64::from(answered) / 1_000.0;
    println!("{name:>40}  {:>7.1}%  {:>5.1} s", share * 100.0, longest.as_secs_f64());
    (share, longest)
}

// On a paused clock: minutes of hangs and pauses take no time.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn Error>> {
    // Three in ten attempts go wrong, in three ways; one in ten is slow, on top of that or not.
    let chaos = || {
        Chaos::builder()
            .error(0.2, || Unavailable)
            .outcome(0.05, || {
                Outcome::<&str, _>::new(Err(withstand::Error::Operation(Unavailable)), Verdict::throttled())
            })
            .hang(0.05)
            .latency_between(0.1, Duration::from_millis(100)..=Duration::from_millis(400))
            .seed(2024) // the same day each time, as a test wants it
    };
    println!("{:>40}  answered  longest", "");

    // Bare but for a timeout, without which a hang would be for ever.
    let bare = chaos().build()?;
    let switch = bare.switch();
    let bare = Pipeline::builder("bare").timeout(Duration::from_secs(1)).chaos(bare).build()?;
    let (answered, _) = day("bare, chaos off", &bare).await;
    assert!(answered >= 1.0, "it is off until somebody turns it on");
    switch.enable();
    let (answered, _) = day("bare, 30 % of attempts fail", &bare).await;
    assert!((0.65..0.75).contains(&answered));

    // Behind the standard pipeline. The faults are innermost: to the other layers they are the dependency's.
    let chaos = chaos().build()?;
    let switch = chaos.switch();
    let users = Pipeline::standard("users-api").chaos(chaos).build()?;
    switch.enable();
    switch.set_rate(Fault::Error, 0.05)?;
    let (answered, longest) = day("standard pipeline, 15 % fail", &users).await;
    assert!(answered > 0.97, "retries mend it");
    assert!(longest < Duration::from_secs(4), "and nobody waits for long");

    // Now the budget bounds the retries: one for each five successes, or they would add to an outage.
    switch.set_rate(Fault::Error, 0.2)?;
    let (answered, _) = day("standard pipeline, 30 % fail", &users).await;
    assert!((0.75..0.95).contains(&answered));

    // The operator goes too far: the circuit opens, and most calls are refused at once.
    switch.set_rate(Fault::Error, 0.8)?;
    let (answered, _) = day("standard pipeline, 90 % fail", &users).await;
    assert!(answered < 0.5);

    // The red button. After the break, probes find that all is well.
    switch.disable_everywhere();
    tokio::time::sleep(Duration::from_secs(70)).await;
    let (answered, _) = day("standard pipeline, chaos off", &users).await;
    assert!(answered >= 1.0);
    Ok(())
}
