//! How often, how reproducibly, and when at all.

use futures::FutureExt as _;
use proptest::prelude::*;
use withstand::{Chaos, Fault, Pipeline};

use crate::{Counted, Plain, fates, ours, plain, silently, support::trials::cases};

/// Within this many standard deviations: a test in a hundred thousand fails by chance, and a seeded one never.
const DEVIATIONS: f64 = 4.5;

fn assert_share(name: &str, count: usize, of: usize, rate: f64) {
    let (count, of) = (f64::from(u32::try_from(count).unwrap()), f64::from(u32::try_from(of).unwrap()));
    let spread = DEVIATIONS * (of * rate * (1.0 - rate)).sqrt();
    assert!((count - of * rate).abs() <= spread, "{name}: {count} of {of} at {rate}");
}

const ATTEMPTS: usize = 20_000;

#[tokio::test(start_paused = true)]
async fn each_fault_gets_its_share_whatever_else_is_on() {
    silently();
    let (latency, error, hang, panic) = (0.25, 0.1, 0.05, 0.02);
    let outcome = || withstand::Outcome::new(Ok(1), withstand::Verdict::success());
    let chaos = plain(latency, error, hang, panic).outcome(0.3, outcome).seed(42).enabled().build().unwrap();
    let fates = fates(chaos, ATTEMPTS).await;
    let count = |fault| fates.iter().filter(|fate| fate.contains(&fault)).count();
    assert_share("error", count(Fault::Error), ATTEMPTS, error);
    assert_share("outcome", count(Fault::Outcome), ATTEMPTS, 0.3);
    assert_share("hang", count(Fault::Hang), ATTEMPTS, hang);
    assert_share("panic", count(Fault::Panic), ATTEMPTS, panic);
    assert_share("latency", count(Fault::Latency), ATTEMPTS, latency);
    // Latency falls on those that end in a fault as often as on the others.
    let slow_errors = fates.iter().filter(|fate| **fate == [Fault::Latency, Fault::Error]).count();
    assert_share("slow errors", slow_errors, count(Fault::Error), latency);
    // And of two faults the first is latency.
    assert!(fates.iter().all(|fate| fate.len() < 2 || (fate.len() == 2 && fate[0] == Fault::Latency)));
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_one_is_all_and_a_rate_of_zero_is_none() {
    let all = Chaos::builder().error(1.0, ours).hang(0.0).seed(1).enabled().build().unwrap();
    assert!(fates(all, 1_000).await.iter().all(|fate| *fate == [Fault::Error]));
    let none = plain(0.0, 0.0, 0.0, 0.0).seed(1).enabled().build().unwrap();
    assert!(fates(none, 1_000).await.iter().all(Vec::is_empty));
    // Shares that add up to one in decimals leave nobody out, whatever their sum is in binary.
    silently();
    let thirds = plain(0.0, 0.1, 0.2, 0.7).seed(1).enabled().build().unwrap();
    assert!(fates(thirds, 2_000).await.iter().all(|fate| fate.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_faults_and_others_others() {
    silently();
    let seeded = |seed| plain(0.3, 0.2, 0.1, 0.1).seed(seed).enabled().build().unwrap();
    assert_eq!(fates(seeded(7), 300).await, fates(seeded(7), 300).await);
    assert_ne!(fates(seeded(7), 300).await, fates(seeded(8), 300).await);
    let random = || plain(0.3, 0.2, 0.1, 0.1).enabled().build().unwrap();
    assert_ne!(fates(random(), 300).await, fates(random(), 300).await);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_off_nothing_is_injected_or_drawn() {
    silently();
    let seeded = || plain(0.3, 0.2, 0.1, 0.1).seed(7).build().unwrap();
    let fresh = seeded();
    fresh.switch().enable();
    let expected = fates(&fresh, 100).await;
    let used = seeded();
    assert!(fates(&used, 500).await.iter().all(Vec::is_empty));
    // On at no rate is off as well.
    let idle = seeded();
    for fault in [Fault::Latency, Fault::Error, Fault::Hang, Fault::Panic] {
        idle.switch().set_rate(fault, 0.0).unwrap();
    }
    idle.switch().enable();
    assert!(fates(&idle, 500).await.iter().all(Vec::is_empty));
    for (fault, rate) in [(Fault::Latency, 0.3), (Fault::Error, 0.2), (Fault::Hang, 0.1), (Fault::Panic, 0.1)] {
        idle.switch().set_rate(fault, rate).unwrap();
    }
    used.switch().enable();
    assert_eq!(fates(&used, 100).await, expected, "the draws before were none");
    assert_eq!(fates(&idle, 100).await, expected, "the draws before were none");
}

#[tokio::test(start_paused = true)]
async fn it_is_switched_in_mid_run_and_holds_from_the_next_attempt_on() {
    let operation = Counted::default();
    let chaos = Chaos::builder().error(1.0, ours).build().unwrap();
    let switch = chaos.switch();
    let pipeline = Pipeline::builder("p").chaos(chaos).build().unwrap();
    for on in [false, true, false, true] {
        if on {
            switch.enable();
        } else {
            switch.disable();
        }
        assert_eq!(switch.is_enabled(), on);
        for _ in 0..3 {
            assert_eq!(pipeline.call(|| operation.call()).await.is_err(), on);
        }
    }
    assert_eq!(operation.calls(), 6);
    // What is under way goes on as it began.
    let mut under_way = Box::pin(pipeline.call(|| async {
        tokio::task::yield_now().await;
        Ok(7)
    }));
    switch.disable();
    assert!((&mut under_way).now_or_never().is_none());
    switch.enable();
    assert_eq!(under_way.await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_drawn_before_the_first_poll() {
    let seeded = || Chaos::builder().error(0.5, ours).seed(1).enabled().build().unwrap();
    let chaos = seeded();
    let pipeline = Pipeline::builder("p").layer(&chaos).build().unwrap();
    for _ in 0..10 {
        drop(pipeline.call(|| async { Ok(7) }));
    }
    assert_eq!(fates(&chaos, 50).await, fates(seeded(), 50).await);
}

proptest! {
    #![proptest_config(cases(64))]

    /// What becomes of an attempt depends on its number: raising a rate spares nobody who was hit before.
    #[test]
    fn a_higher_rate_hits_the_same_attempts_and_more(seed: u64, low in 0.0..=1.0_f64, high in 0.0..=1.0_f64) {
        let (low, high) = (low.min(high), low.max(high));
        let at = |rate: f64| -> Plain { plain(0.0, rate, 0.0, 0.0).seed(seed).enabled().build().unwrap() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (few, many) = runtime.block_on(async { (fates(at(low), 40).await, fates(at(high), 40).await) });
        for (few, many) in few.iter().zip(many) {
            prop_assert!(few.len() <= many.len());
        }
    }
}
