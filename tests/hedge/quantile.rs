//! A delay that follows the recent latencies: what is measured, and between which bounds.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use withstand::{
    Context, Describe, Hedge, HedgeDelay, HedgeSuppression, Operation, Outcome, Pipeline, Policy, RetryBudget, Verdict,
};

use crate::{
    stage::{HANG, Part, Stage, answers, by_fault, gives, hedged, suppressed},
    support::{EVERY_VERDICT, Log, ms, secs},
};

/// This quantile of at least ten samples; 100 ms before.
fn quantile(quantile: f64) -> HedgeDelay {
    HedgeDelay::quantile(quantile).min_samples(10).starting(ms(100))
}

fn hedge(delay: HedgeDelay) -> Arc<Hedge> {
    Arc::new(Hedge::builder().delay(delay).without_budget().build().unwrap())
}

/// With a budget that is always empty: it measures and never hedges.
fn measuring(delay: HedgeDelay) -> Arc<Hedge> {
    let empty = RetryBudget::builder().ratio(0.0).initial(0).cap(1);
    Arc::new(Hedge::builder().delay(delay).own_budget(empty).build().unwrap())
}

/// Makes calls whose attempts play these parts.
async fn calls(hedge: &Arc<Hedge>, calls: u32, parts: &[Part]) {
    let pipeline = Pipeline::builder("replicas").hedge(hedge.clone()).classify_errors(by_fault()).build().unwrap();
    for _ in 0..calls {
        let stage = Stage::new(parts);
        drop(pipeline.call(|| stage.next()).await);
    }
}

/// An estimate is at most 1/32 too long.
fn assert_about(hedge: &Hedge, millis: u64) {
    let delay = hedge.current_delay().unwrap();
    assert!(delay >= ms(millis) && delay <= ms(millis).mul_f64(33.0 / 32.0), "{delay:?} instead of {millis} ms");
}

#[tokio::test(start_paused = true)]
async fn a_success_counts_with_its_time_once_there_are_enough() {
    let hedge = measuring(quantile(0.5));
    calls(&hedge, 9, &[answers(40)]).await;
    assert_eq!(hedge.current_delay(), Some(ms(100)));
    calls(&hedge, 1, &[answers(40)]).await;
    assert_about(&hedge, 40);
}

#[tokio::test(start_paused = true)]
async fn a_success_in_the_first_poll_counts_like_any_other_and_once() {
    let hedge = measuring(quantile(0.5).floor(ms(2)));
    calls(&hedge, 9, &[answers(0)]).await;
    assert_eq!(hedge.current_delay(), Some(ms(100)));
    calls(&hedge, 1, &[answers(0)]).await;
    assert_eq!(hedge.current_delay(), Some(ms(2)), "the floor");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_hedged_at_that_quantile() {
    let hedge = hedge(quantile(0.9));
    calls(&hedge, 9, &[answers(10)]).await;
    calls(&hedge, 1, &[answers(40)]).await;
    let pipeline = Pipeline::builder("replicas").hedge(hedge.clone()).classify_errors(by_fault()).build().unwrap();
    let stage = Stage::new([HANG, answers(1)]);
    pipeline.call(|| stage.next()).await.unwrap();
    assert_eq!(stage.starts(), [(0, 0), (1, 11)], "10 ms and the width of its bucket");
}

#[tokio::test(start_paused = true)]
async fn without_samples_and_a_starting_delay_there_is_no_hedge_at_all() {
    for part in [answers(5000), gives(5, Verdict::transient())] {
        let log = Log::new();
        let stage = Stage::new([part, answers(1)]);
        drop(hedged(Hedge::builder(), &log).call(|| stage.next()).await);
        assert_eq!(stage.starts(), [(0, 0)]);
        assert_eq!(suppressed(&log), [HedgeSuppression::NoSamples]);
    }
    assert_eq!(Hedge::builder().build().unwrap().current_delay(), None);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_lost_counts_with_its_time_so_far() {
    let hedge = hedge(quantile(0.75).min_samples(20));
    calls(&hedge, 10, &[HANG, answers(5)]).await;
    // Ten of 5 ms, ten of 105 ms.
    assert_about(&hedge, 105);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_lost_counts_with_no_less_than_the_delay() {
    let hedge = hedge(quantile(0.25).min_samples(20));
    calls(&hedge, 10, &[answers(130), HANG]).await;
    // Ten of 130 ms; ten that ran for 30 ms and had not answered.
    assert_about(&hedge, 100);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_counts_with_no_less_than_the_delay() {
    for (limit, expected) in [(80, 100), (150, 150)] {
        let hedge = measuring(quantile(0.5).ceiling(ms(1000)));
        let pipeline = Pipeline::builder("replicas")
            .hedge(hedge.clone())
            .timeout(ms(limit))
            .classify_errors(by_fault())
            .build()
            .unwrap();
        for _ in 0..10 {
            let stage = Stage::new([HANG]);
            pipeline.call(|| stage.next()).await.unwrap_err();
        }
        assert_about(&hedge, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_counts_with_no_less_than_the_delay() {
    for (limit, expected) in [(80, 100), (150, 150)] {
        let hedge = measuring(quantile(0.5));
        let pipeline = Pipeline::builder("replicas")
            .timeout(ms(limit))
            .hedge(hedge.clone())
            .classify_errors(by_fault())
            .build()
            .unwrap();
        for _ in 0..10 {
            let stage = Stage::new([HANG]);
            pipeline.call(|| stage.next()).await.unwrap_err();
        }
        assert_about(&hedge, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_not_measured() {
    let hedge = measuring(quantile(0.5));
    for verdict in EVERY_VERDICT.into_iter().filter(|verdict| !verdict.is_success()) {
        calls(&hedge, 50, &[gives(1, verdict)]).await;
        assert_eq!(hedge.current_delay(), Some(ms(100)), "{verdict:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_their_caller_gave_up_are_not_measured() {
    let hedge = measuring(quantile(0.5));
    for _ in 0..50 {
        timeout(ms(20), calls(&hedge, 1, &[HANG])).await.unwrap_err();
    }
    assert_eq!(hedge.current_delay(), Some(ms(100)));
}

/// Takes 200 ms before each attempt.
struct Slow;
impl Describe for Slow {}
impl<T: Send, E: Send> Policy<T, E> for Slow {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        sleep(ms(200)).await;
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_before_the_operation_begins_is_not_measured() {
    let hedge = hedge(quantile(0.5));
    let pipeline =
        Pipeline::builder("replicas").hedge(hedge.clone()).layer(Slow).classify_errors(by_fault()).build().unwrap();
    for _ in 0..10 {
        let stage = Stage::new([answers(40)]);
        pipeline.call(|| stage.next()).await.unwrap();
        assert_eq!(stage.starts(), [(0, 200)], "nor does it bring a hedge on");
    }
    assert_about(&hedge, 40);
}

#[tokio::test(start_paused = true)]
async fn floor_and_ceiling_bound_the_quantile() {
    let fast = measuring(quantile(0.5));
    calls(&fast, 10, &[answers(1)]).await;
    assert_eq!(fast.current_delay(), Some(ms(5)), "unless told otherwise");
    let lower = measuring(quantile(0.5).floor(ms(20)).ceiling(ms(90)));
    assert_eq!(lower.current_delay(), Some(ms(90)), "the starting delay too");
    calls(&lower, 10, &[answers(10)]).await;
    assert_eq!(lower.current_delay(), Some(ms(20)));
    let slow = measuring(quantile(0.5).ceiling(ms(90)));
    calls(&slow, 10, &[answers(400)]).await;
    assert_eq!(slow.current_delay(), Some(ms(90)));
    let exact = measuring(quantile(0.5).floor(ms(30)).ceiling(ms(30)));
    assert_eq!(exact.current_delay(), Some(ms(30)), "they may meet");
}

#[tokio::test(start_paused = true)]
async fn half_of_what_the_layers_inside_can_take_is_the_ceiling_unless_one_is_given() {
    let pipeline = |hedge: &Arc<Hedge>| {
        Pipeline::builder("replicas").hedge(hedge.clone()).timeout(secs(1)).classify_errors(by_fault()).build().unwrap()
    };
    let hedge = measuring(quantile(0.5));
    let in_pipeline = pipeline(&hedge);
    for _ in 0..10 {
        let stage = Stage::new([answers(900)]);
        in_pipeline.call(|| stage.next()).await.unwrap();
    }
    assert_eq!(hedge.current_delay(), Some(ms(500)));

    let given = measuring(quantile(0.5).ceiling(ms(700)));
    let in_pipeline = pipeline(&given);
    for _ in 0..10 {
        let stage = Stage::new([answers(900)]);
        in_pipeline.call(|| stage.next()).await.unwrap();
    }
    assert_eq!(given.current_delay(), Some(ms(700)));

    let alone = measuring(quantile(0.5));
    calls(&alone, 10, &[answers(900)]).await;
    assert_about(&alone, 900);
}

#[tokio::test(start_paused = true)]
async fn what_is_old_is_forgotten() {
    let hedge = measuring(quantile(0.5).window(secs(1)));
    calls(&hedge, 10, &[answers(80)]).await;
    assert_about(&hedge, 80);
    sleep(Duration::from_secs(4)).await;
    calls(&hedge, 1, &[answers(20)]).await;
    assert_eq!(hedge.current_delay(), Some(ms(100)), "one sample is not enough");
    calls(&hedge, 9, &[answers(20)]).await;
    assert_about(&hedge, 20);
}

#[tokio::test(start_paused = true)]
async fn unless_told_otherwise_it_is_the_95th_percentile_of_a_hundred_samples() {
    for (slow, expected) in [(5, 20), (6, 300)] {
        let hedge = measuring(HedgeDelay::default());
        calls(&hedge, 99 - slow, &[answers(20)]).await;
        calls(&hedge, slow, &[answers(300)]).await;
        assert_eq!(hedge.current_delay(), None, "99 are too few");
        calls(&hedge, 1, &[answers(20)]).await;
        assert_about(&hedge, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn unless_told_otherwise_a_sample_counts_for_half_a_minute() {
    let hedge = measuring(HedgeDelay::default());
    calls(&hedge, 100, &[answers(20)]).await;
    // Three windows of 10 s, the present one apart: for 20 s nothing is forgotten, after 40 s all is.
    sleep(secs(17)).await;
    calls(&hedge, 1, &[answers(20)]).await;
    assert_about(&hedge, 20);
    sleep(secs(24)).await;
    calls(&hedge, 1, &[answers(20)]).await;
    assert_eq!(hedge.current_delay(), None);
}

#[tokio::test(start_paused = true)]
async fn unless_told_otherwise_a_call_has_one_hedge() {
    let hedge = hedge(HedgeDelay::fixed(ms(10)));
    let pipeline = Pipeline::builder("replicas").hedge(hedge).classify_errors(by_fault()).build().unwrap();
    let stage = Stage::new([answers(1000)]);
    pipeline.call(|| stage.next()).await.unwrap();
    assert_eq!(stage.starts(), [(0, 0), (1, 10)]);
}
