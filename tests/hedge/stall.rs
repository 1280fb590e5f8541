//! A process that stood still is no reason for a hedge.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{advance, sleep},
};
use withstand::{Hedge, HedgeDelay, HedgeSuppression, Pipeline, Timeout};

use crate::{
    stage::{HANG, Stage, answers, by_fault, every, gives, hedged, suppressed},
    support::{Log, ms, secs},
};

/// The clock jumps while nothing is polled.
async fn stalls(after: u64, time: Duration) {
    sleep(ms(after)).await;
    advance(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_process_starts_no_hedge_and_the_delay_begins_anew() {
    let log = Log::new();
    let stage = Stage::new([answers(1000), HANG]);
    let pipeline = hedged(every(20, 1), &log);
    let (answer, ()) = tokio::join!(pipeline.call(|| stage.next()), stalls(5, ms(500)));
    assert_eq!(answer, Ok(0));
    assert_eq!(stage.starts(), [(0, 0), (1, 525)]);
    assert_eq!(suppressed(&log), [HedgeSuppression::Stalled]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_while_the_process_stood_still_wins() {
    let log = Log::new();
    let stage = Stage::new([answers(100), HANG]);
    let pipeline = hedged(every(20, 1), &log);
    let (answer, ()) = tokio::join!(pipeline.call(|| stage.next()), stalls(5, ms(500)));
    assert_eq!(answer, Ok(0));
    assert_eq!(stage.starts(), [(0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_little_late_is_late_and_no_stall() {
    for late in [1, 100] {
        let stage = Stage::new([answers(1000), HANG]);
        let pipeline = hedged(every(20, 1), &Log::new());
        let (answer, ()) = tokio::join!(pipeline.call(|| stage.next()), stalls(5, ms(15 + late)));
        assert_eq!(answer, Ok(0));
        assert_eq!(stage.starts(), [(0, 0), (1, 20 + late)]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_hedge_that_a_failure_asked_for_begins_after_the_stall() {
    let stage = Stage::new([gives(5, withstand::Verdict::transient().retry_after(ms(50))), answers(5)]);
    let pipeline = hedged(every(20, 1), &Log::new());
    let (answer, ()) = tokio::join!(pipeline.call(|| stage.next()), stalls(10, ms(500)));
    assert_eq!(answer, Ok(1));
    assert_eq!(stage.starts(), [(0, 0), (1, 510)]);
}

/// The answer is there when the process wakes up, but the task that brings it has not run yet.
#[tokio::test(start_paused = true)]
async fn after_a_stall_what_brings_the_answer_gets_a_turn_though_a_hedge_is_around() {
    for delay in [ms(50), ms(3_000)] {
        let hedge = Hedge::builder().delay(delay).without_budget();
        let pipeline = Pipeline::builder("api").hedge(hedge).timeout(ms(500)).build().unwrap();
        let (bring, answer) = oneshot::channel();
        let answer = Mutex::new(Some(answer));
        let call = pipeline.call(|| async {
            let first = answer.lock().unwrap().take();
            match first {
                Some(answer) => Ok::<u32, ()>(answer.await.unwrap()),
                None => std::future::pending().await,
            }
        });
        let brings = async {
            sleep(ms(400)).await;
            bring.send(7).unwrap();
        };
        // Polled after the call in the turn in which both wake up.
        let (result, (), ()) = tokio::join!(call, stalls(5, ms(1_000)), brings);
        assert_eq!(result, Ok(7), "{delay:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_timed_out_because_the_process_stood_still_asks_for_no_hedge() {
    let log = Log::new();
    let pipeline = Pipeline::builder("replicas")
        .hedge(Hedge::builder().delay(HedgeDelay::on_failure()).without_budget())
        .timeout(ms(50))
        .classify_errors(by_fault())
        .observer(log.clone())
        .build()
        .unwrap();
    let stage = Stage::new([HANG, answers(5)]);
    let (outcome, ()) = tokio::join!(pipeline.outcome(|| stage.next()), stalls(5, ms(500)));
    assert!(outcome.is_stalled() && outcome.result.is_err());
    assert_eq!(stage.starts(), [(0, 0)]);
    assert_eq!(suppressed(&log), [HedgeSuppression::Stalled]);
}

#[tokio::test(start_paused = true)]
async fn what_timed_out_because_the_process_stood_still_is_not_measured() {
    let delay = || HedgeDelay::quantile(0.5).min_samples(1).starting(secs(1)).ceiling(secs(60));
    let hedge = || Arc::new(Hedge::builder().delay(delay()).max_hedges(1).without_budget().build().unwrap());
    let (inside, outside) = (hedge(), hedge());
    let timeout_inside = Pipeline::builder("inside").hedge(inside.clone()).timeout(ms(500)).build().unwrap();
    let timeout_outside =
        Pipeline::builder("outside").layer(Timeout::new(ms(500)).unwrap()).hedge(outside.clone()).build().unwrap();
    let hangs = std::future::pending::<Result<(), ()>>;
    for stands_still in [true, false] {
        if stands_still {
            let (answer, ()) = tokio::join!(timeout_inside.call(hangs), stalls(5, secs(9)));
            assert!(answer.is_err());
            let (answer, ()) = tokio::join!(timeout_outside.call(hangs), stalls(5, secs(9)));
            assert!(answer.is_err());
        } else {
            assert!(timeout_inside.call(hangs).await.is_err());
            assert!(timeout_outside.call(hangs).await.is_err());
        }
        for hedge in [&inside, &outside] {
            let measured = hedge.current_delay() != Some(secs(1));
            assert_eq!(measured, !stands_still, "{:?}", hedge.current_delay());
        }
    }
}
