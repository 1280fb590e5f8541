//! Without a queue, under calls that come at random: the share that is rejected is the one that Erlang computed.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};
use withstand::Bulkhead;

use crate::random::Random;

const BATCHES: u32 = 30;
const BATCH: u32 = 3000;
const SERVICE: Duration = Duration::from_secs(10);

/// The mean share that is rejected, and its standard error, from the means of batches: those hardly depend on each other,
/// while neighbouring calls do.
async fn rejected_share(limit: usize, erlangs: u32, mut service: impl FnMut(&mut Random) -> Duration) -> (f64, f64) {
    let bulkhead = Arc::new(Bulkhead::builder().limit(limit).build().unwrap());
    let mut random = Random::new(7);
    let mut calls = JoinSet::new();
    let mut shares = Vec::new();
    let mut arrival = tokio::time::Instant::now();
    // The first batch fills the empty system and is left out.
    for batch in 0..=BATCHES {
        let mut rejected = 0;
        for _ in 0..BATCH {
            arrival += random.exponential(SERVICE / erlangs);
            sleep_until(arrival).await;
            while calls.try_join_next().is_some() {}
            if bulkhead.in_use() == limit {
                let refused = bulkhead.call(|| async { Ok::<_, Infallible>(()) }).await;
                assert!(refused.is_err_and(|error| error.is_rejected()));
                rejected += 1;
            } else {
                let (bulkhead, takes) = (bulkhead.clone(), service(&mut random));
                calls.spawn(async move {
                    let serve = || async {
                        sleep(takes).await;
                        Ok::<_, Infallible>(())
                    };
                    assert!(bulkhead.call(serve).await.is_ok());
                });
                // Let it take its permit before the next one comes.
                tokio::task::yield_now().await;
            }
        }
        if batch > 0 {
            shares.push(f64::from(rejected) / f64::from(BATCH));
        }
    }
    let n = f64::from(BATCHES);
    let mean = shares.iter().sum::<f64>() / n;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// Four standard errors: one seed in sixteen thousand is further off. And they are small enough to tell something.
fn assert_erlang((share, error): (f64, f64), expected: f64) {
    assert!(error < 0.06 * expected, "{share} ± {error}: too rough");
    assert!((share - expected).abs() < 4.0 * error, "{share} ± {error} instead of {expected}");
}

#[tokio::test(start_paused = true)]
async fn ten_permits_under_five_erlangs_reject_one_call_in_54() {
    assert_erlang(rejected_share(10, 5, |random| random.exponential(SERVICE)).await, 0.018_385);
}

#[tokio::test(start_paused = true)]
async fn ten_permits_under_ten_erlangs_reject_one_call_in_5() {
    assert_erlang(rejected_share(10, 10, |random| random.exponential(SERVICE)).await, 0.214_582);
}

#[tokio::test(start_paused = true)]
async fn the_distribution_of_service_times_does_not_matter() {
    assert_erlang(rejected_share(10, 10, |_| SERVICE).await, 0.214_582);
    // One call in ten takes 91 times as long as the others.
    let uneven = |random: &mut Random| if random.unit() < 0.1 { SERVICE.mul_f64(9.1) } else { SERVICE / 10 };
    assert_erlang(rejected_share(10, 10, uneven).await, 0.214_582);
}
