//! What an operator does to a pipeline that runs.

use std::sync::Arc;

use withstand::{CircuitBreaker, CircuitState, EventKind, Pipeline, Reason, Retry};

use crate::support::{Log, secs};

#[tokio::test(start_paused = true)]
async fn an_isolated_pipeline_rejects_every_call_until_it_is_released() {
    let pipeline = Pipeline::standard("operated").build().unwrap();
    let handle = pipeline.handle();
    handle.isolate().unwrap();
    handle.isolate().unwrap();
    let refused = pipeline.call(|| async { Ok::<_, ()>(()) }).await.unwrap_err();
    assert_eq!(refused.rejection().map(withstand::Rejection::reason), Some(Reason::Isolated));
    handle.clone().release();
    assert!(pipeline.call(|| async { Ok::<_, ()>(()) }).await.is_ok(), "twice isolated is once isolated");
}

#[tokio::test(start_paused = true)]
async fn an_isolation_by_handle_leaves_those_by_others_alone() {
    let breaker = Arc::new(CircuitBreaker::builder().build().unwrap());
    let pipeline = Pipeline::builder("operated").circuit_breaker(breaker.clone()).build().unwrap();
    let other = Pipeline::builder("other").circuit_breaker(breaker.clone()).build().unwrap();
    let by_hand = breaker.isolate();
    pipeline.handle().isolate().unwrap();
    other.handle().isolate().unwrap();
    pipeline.handle().release();
    other.handle().release();
    assert_eq!(breaker.state(), CircuitState::Isolated);
    by_hand.release();
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_isolation_ends_with_the_pipeline_and_its_handles() {
    let breaker = Arc::new(CircuitBreaker::builder().build().unwrap());
    let pipeline = Pipeline::builder("operated").circuit_breaker(breaker.clone()).build().unwrap();
    let handle = pipeline.handle();
    handle.isolate().unwrap();
    drop(pipeline);
    assert!(!handle.is_live());
    assert_eq!(breaker.state(), CircuitState::Isolated);
    drop(handle);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_reset_closes_open_and_isolated_circuits() {
    let breaker =
        Arc::new(CircuitBreaker::builder().consecutive_failures(1).consecutive_span(secs(0)).build().unwrap());
    let pipeline = Pipeline::builder("operated").circuit_breaker(breaker.clone()).build().unwrap();
    let _failed = pipeline.call(|| async { Err::<(), _>("down") }).await;
    assert!(breaker.state().is_open());
    pipeline.handle().reset();
    assert!(breaker.state().is_closed());
    pipeline.handle().isolate().unwrap();
    pipeline.handle().reset();
    assert!(breaker.state().is_closed());
}

#[test]
fn what_has_no_circuit_cannot_be_isolated() {
    let pipeline = Pipeline::builder("operated").retry(Retry::builder()).build().unwrap();
    assert_eq!(
        pipeline.handle().isolate().unwrap_err().to_string(),
        "pipeline `operated`: circuit_breaker is missing; accepted: one in the pipeline: without it nothing refuses calls"
    );
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_use_the_handle_while_it_is_told() {
    let log = Log::new();
    let handle: Arc<std::sync::OnceLock<withstand::PipelineHandle>> = Arc::default();
    let (heard, inside) = (log.clone(), handle.clone());
    let observer = move |event: &withstand::Event<'_>| {
        withstand::Observer::on_event(&heard, event);
        if let (EventKind::Isolated { handles: 1, .. }, Some(handle)) = (&event.kind, inside.get()) {
            handle.release();
        }
    };
    let pipeline = Pipeline::standard("operated").observer(observer).build().unwrap();
    handle.set(pipeline.handle()).unwrap();
    pipeline.handle().isolate().unwrap();
    assert!(log.kinds().iter().any(|kind| matches!(kind, EventKind::Isolated { .. })));
}
