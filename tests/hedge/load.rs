//! What hedging at a quantile costs: about as many hedges as there are calls beyond it.

use std::{sync::Mutex, time::Duration};

use tokio::time::sleep;
use withstand::{Hedge, HedgeDelay};

use crate::{
    random::Random,
    stage::{Fault, hedged, hedges},
    support::{Log, secs},
};

type Latency = fn(&mut Random) -> Duration;

/// The share of calls that were hedged at the 95th percentile, once that was known.
async fn share_of_hedges(latency: Latency) -> f64 {
    const WARM_UP: u32 = 2_000;
    const CALLS: u32 = 10_000;
    const SEEDS: u64 = 8;
    let mut hedged_calls = 0;
    for seed in 0..SEEDS {
        let log = Log::new();
        let delay = HedgeDelay::quantile(0.95).window(secs(200));
        let pipeline = hedged(Hedge::builder().delay(delay).without_budget(), &log);
        let random = Mutex::new(Random::new(seed));
        for call in 0..CALLS + WARM_UP {
            log.clear();
            let operation = || {
                let takes = latency(&mut random.lock().unwrap());
                async move {
                    sleep(takes).await;
                    Ok::<_, Fault>(())
                }
            };
            pipeline.call(operation).await.unwrap();
            if call >= WARM_UP && !hedges(&log).is_empty() {
                hedged_calls += 1;
            }
        }
    }
    let calls = u32::try_from(SEEDS).unwrap() * CALLS;
    f64::from(hedged_calls) / f64::from(calls)
}

const fn millis(mean: u64) -> Duration {
    Duration::from_millis(mean)
}

/// A quantile that only looked at those who finished would lower its own delay, and hedge 8 to 12 calls in a hundred here.
#[tokio::test(start_paused = true)]
async fn about_one_call_in_twenty_is_hedged() {
    let latencies: [(&str, Latency); 3] = [
        ("without a memory", |random| random.exponential(millis(200))),
        ("some very slow", |random| {
            let mean = if random.unit() < 0.04 { 5000 } else { 100 };
            millis(mean) + random.exponential(millis(30))
        }),
        ("a heavy tail", |random| {
            let mean = if random.unit() < 0.1 { 1500 } else { 100 };
            random.exponential(millis(mean))
        }),
    ];
    for (name, latency) in latencies {
        let share = share_of_hedges(latency).await;
        // A heavy tail costs a little more: the estimate falls faster than it climbs.
        assert!((0.04..0.065).contains(&share), "{share} of the calls, {name}");
    }
}
