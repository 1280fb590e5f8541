//! What is asked whether it is ready, when, and what that reserves.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use futures::future::{FutureExt, join_all};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt};
use withstand::{AttemptEnd, Bulkhead, CircuitBreaker, EventKind, Pipeline, Reason, Verdict, tower::PipelineLayer};

use crate::{
    support::{Log, ms, secs},
    world::{ANSWERS, FAILS, HANGS, NEVER_READY, Step, Which, World},
};

#[tokio::test(start_paused = true)]
async fn it_is_ready_at_once_and_asks_nothing_of_the_service_inside() {
    let world = World::new(1, [NEVER_READY]);
    let mut service = PipelineLayer::new(Which::default().pipeline(&Log::new())).layer(world.service());
    poll_fn(|cx| Service::<u32>::poll_ready(&mut service, cx)).await.unwrap();
    assert_eq!(world.asked(), 0);
    assert_eq!(world.reserved(), 0);
}

#[tokio::test(start_paused = true)]
async fn idle_clones_that_said_they_were_ready_hoard_nothing() {
    let world = World::new(1, [ANSWERS]);
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).build().unwrap());
    let pipeline = Pipeline::builder("one").bulkhead(bulkhead.clone()).build().unwrap();
    let service = PipelineLayer::new(pipeline).layer(world.service());
    let mut idle = vec![service.clone(); 10];
    for clone in &mut idle {
        poll_fn(|cx| Service::<u32>::poll_ready(clone, cx)).await.unwrap();
    }
    // Nor does a response that nobody polls.
    let unpolled = idle[0].call(1);
    assert_eq!((bulkhead.in_use(), world.reserved()), (0, 0));
    assert_eq!(service.oneshot(2_u32).await, Ok(7));
    assert_eq!(world.sent(), [2]);
    drop(unpolled);
    drop(idle);
    world.holds_nothing_but(0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_waits_until_the_service_is_ready_and_the_wait_is_part_of_it() {
    let log = Log::new();
    let world = World::new(1, [Step { ready_after: ms(30), takes: ms(12), ..ANSWERS }]);
    let service = PipelineLayer::new(Which::default().pipeline(&log)).layer(world.service());
    let started = Instant::now();
    assert_eq!(service.oneshot(1_u32).await, Ok(7));
    assert_eq!(started.elapsed(), ms(42));
    let durations = log.pick(|kind| match kind {
        EventKind::AttemptFinished { duration, .. } => Some(duration),
        _ => None,
    });
    assert_eq!(durations, [ms(42)]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_get_ready_is_the_attempts_timeout_and_is_never_called() {
    let log = Log::new();
    let world = World::new(1, [NEVER_READY, ANSWERS]);
    let which = Which { retry: true, each: Some(20), ..Which::default() };
    let service = PipelineLayer::new(which.pipeline(&log)).layer(world.service());
    assert_eq!(service.clone().oneshot(1_u32).await, Ok(7));
    assert_eq!(world.sent(), [1], "the first attempt was not sent");
    assert_eq!(log.count(|kind| matches!(kind, EventKind::AttemptFinished { end: AttemptEnd::TimedOut, .. })), 1);
    world.holds_nothing_but(1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_ends_while_the_service_is_not_ready_leaves_its_place() {
    let world = World::new(1, [HANGS, ANSWERS]);
    let mut inner = world.service();
    let other = ServiceExt::<u32>::ready(&mut inner).await.unwrap().call(0); // has what all the others wait for
    let which = Which { each: Some(50), ..Which::default() };
    let service = PipelineLayer::new(which.pipeline(&Log::new())).layer(world.service());
    let ends = join_all((1..5_u32).map(|number| service.clone().oneshot(number))).await;
    assert!(ends.iter().all(|end| end.as_ref().is_err_and(withstand::Error::is_timeout)), "{ends:?}");
    drop(other);
    assert_eq!(service.clone().oneshot(9_u32).await, Ok(7));
    assert_eq!(world.sent(), [0, 9]);
    world.holds_nothing_but(2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_get_ready_is_an_error_of_the_attempt_and_the_next_one_has_a_new_clone() {
    let log = Log::new();
    let broken = Step { ready: Err(Verdict::unreached()), ..ANSWERS };
    let world = World::new(1, [broken, broken, ANSWERS]);
    let which = Which { retry: true, ..Which::default() };
    let service = PipelineLayer::new(which.pipeline(&log)).layer(world.service());
    assert_eq!(service.clone().oneshot(1_u32).await, Ok(7));
    assert_eq!(world.asked(), 3);
    assert_eq!(world.sent(), [1]);
    let labels = log.pick(|kind| match kind {
        EventKind::AttemptFinished { label, .. } => Some(label),
        _ => None,
    });
    assert_eq!(labels, ["unreached", "unreached", "success"], "the classifier has judged them");

    let alone = PipelineLayer::new(Which::default().pipeline(&log)).layer(World::new(1, [broken]).service());
    assert_eq!(alone.oneshot(1_u32).await.unwrap_err().into_operation(), Some(Verdict::unreached()));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_get_ready_opens_the_circuit() {
    let world = World::new(1, [Step { ready: Err(Verdict::transient()), ..ANSWERS }]);
    let breaker = CircuitBreaker::builder().count_window(4).min_calls(4);
    let pipeline = Pipeline::builder("broken").circuit_breaker(breaker).build().unwrap();
    let service = PipelineLayer::new(pipeline).layer(world.service());
    for _ in 0..4 {
        assert!(service.clone().oneshot(1_u32).await.unwrap_err().is_operation());
    }
    let error = service.oneshot(1).await.unwrap_err();
    assert_eq!(error.rejection().map(withstand::Rejection::reason), Some(Reason::CircuitOpen));
    assert_eq!(world.asked(), 4, "a call that is refused asks nothing of the service");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_in_the_queue_of_a_bulkhead_asks_nothing_of_the_service() {
    let world = World::new(9, [HANGS]);
    let pipeline = Pipeline::builder("full").bulkhead(Bulkhead::builder().limit(1).queue(5)).build().unwrap();
    let service = PipelineLayer::new(pipeline).layer(world.service());
    let mut calls: Vec<_> = (0..5_u32).map(|number| Box::pin(service.clone().oneshot(number))).collect();
    assert!(join_all(&mut calls).now_or_never().is_none());
    assert_eq!((world.asked(), world.reserved()), (1, 1));
    drop(calls);
    world.holds_nothing_but(1);
}

#[tokio::test(start_paused = true)]
async fn attempts_beside_each_other_are_each_made_ready_and_the_loser_gives_back_what_it_had_reserved() {
    // The first is ready but slow; the second gets ready late, and wins.
    let world = World::new(5, [HANGS, Step { ready_after: ms(5), ..ANSWERS }]);
    let which = Which { hedge: Some(10), ..Which::default() };
    let service = PipelineLayer::new(which.pipeline(&Log::new())).layer(world.service());
    assert_eq!(service.clone().oneshot(1_u32).await, Ok(7));
    assert_eq!(world.sent(), [1, 1]);
    world.holds_nothing_but(1);

    // One gets ready and waits for its answer, the other waits to get ready: the race ends both.
    let world = World::new(5, [NEVER_READY, Step { takes: ms(5), ..FAILS }, ANSWERS]);
    let which = Which { hedge: Some(10), retry: true, ..Which::default() };
    let service = PipelineLayer::new(which.pipeline(&Log::new())).layer(world.service());
    let call = tokio::time::timeout(secs(1), service.clone().oneshot(2_u32));
    assert!(call.await.is_err(), "the first attempt still waits to get ready");
    world.holds_nothing_but(1);
    sleep(ms(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_clones_the_service_once_and_once_more_for_each_attempt_if_a_layer_may_repeat() {
    for (retry, steps, clones) in
        [(false, [ANSWERS, ANSWERS], 1), (true, [ANSWERS, ANSWERS], 2), (true, [FAILS, ANSWERS], 3)]
    {
        let world = World::new(1, steps);
        let which = Which { retry, ..Which::default() };
        let mut service = PipelineLayer::new(which.pipeline(&Log::new())).layer(world.service());
        assert_eq!(service.call(1_u32).await, Ok(7));
        assert_eq!(world.clones.load(SeqCst), clones);
        world.holds_nothing_but(1);
    }
}
