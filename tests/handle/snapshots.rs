//! What a handle sees.

use std::future::Future;

use withstand::{
    Bulkhead, CircuitBreaker, CircuitState, Hedge, HedgeDelay, LayerState, Pipeline, PipelineSnapshot, Retry, Timeout,
};

use crate::support::{ms, secs};

fn layer<'a>(snapshot: &'a PipelineSnapshot, name: &str) -> &'a LayerState {
    &snapshot.layers.iter().find(|layer| layer.name == name).unwrap().state
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_shows_each_layer_as_it_is_now() {
    let pipeline = Pipeline::builder("seen")
        .timeout(secs(4))
        .retry(Retry::builder().max_attempts(2))
        .hedge(Hedge::builder().delay(HedgeDelay::fixed(ms(700))))
        .bulkhead(Bulkhead::builder().limit(2).queue(3))
        .circuit_breaker(CircuitBreaker::builder().count_window(10).min_calls(2))
        .timeout(secs(1))
        .build()
        .unwrap();
    let handle = pipeline.handle();
    let mut slow = Box::pin(pipeline.call(std::future::pending::<Result<(), &str>>));
    assert!(slow.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending());
    let now = handle.snapshot();
    assert_eq!(now.pipeline, "seen");
    let names: Vec<_> = now.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["timeout", "retry", "hedge", "bulkhead", "circuit_breaker", "timeout-2"]);
    assert_eq!(now.layers[0].settings, [("limit", "4s".to_owned())]);
    assert!(
        matches!(layer(&now, "bulkhead"), LayerState::Bulkhead(b) if (b.limit, b.in_use, b.queue, b.queued) == (2, 1, 3, 0))
    );
    assert!(matches!(layer(&now, "retry"), LayerState::Retry(r) if r.budget.unwrap().balance >= 10.0));
    assert!(matches!(layer(&now, "hedge"), LayerState::Hedge(h) if h.current_delay == Some(ms(700))));
    assert!(matches!(layer(&now, "timeout-2"), LayerState::None));
    drop(slow);
    let _failed = pipeline.call(|| async { Err::<(), _>("down") }).await;
    let then = handle.snapshot();
    assert!(matches!(layer(&then, "bulkhead"), LayerState::Bulkhead(b) if b.in_use == 0));
    let LayerState::CircuitBreaker(circuit) = layer(&then, "circuit_breaker") else { panic!("no circuit") };
    assert!(matches!(circuit.state, CircuitState::Open { .. }));
    assert_eq!(circuit.transitions.len(), 1);
    assert!(circuit.transitions[0].to.is_open());
    assert_eq!(circuit.transitions[0].opening, circuit.opening);
}

#[tokio::test(start_paused = true)]
async fn the_last_eight_transitions_are_kept() {
    let pipeline = Pipeline::builder("seen")
        .circuit_breaker(CircuitBreaker::builder().consecutive_failures(1).consecutive_span(secs(0)).probes(1))
        .build()
        .unwrap();
    for round in 0..10 {
        let _failed = pipeline.call(|| async { Err::<(), _>("down") }).await;
        tokio::time::sleep(secs(5)).await;
        if round % 2 == 0 {
            pipeline.call(|| async { Ok::<_, &str>(()) }).await.unwrap();
        } else {
            pipeline.handle().reset();
        }
    }
    let snapshot = pipeline.handle().snapshot();
    let LayerState::CircuitBreaker(circuit) = layer(&snapshot, "circuit_breaker") else { panic!("no circuit") };
    let states: Vec<_> = circuit.transitions.iter().map(|transition| transition.to.as_str()).collect();
    assert_eq!(states, ["closed", "open", "closed", "open", "half_open", "closed", "open", "closed"]);
    assert!(circuit.transitions.windows(2).all(|pair| pair[0].at <= pair[1].at));
    assert!(circuit.transitions.iter().all(|transition| transition.to.is_closed() == transition.closed_by.is_some()));
}

#[test]
fn layers_of_an_inner_pipeline_go_by_its_name_and_theirs() {
    let inner = Pipeline::builder("inner").bulkhead(Bulkhead::builder().limit(7)).build().unwrap();
    let outer = Pipeline::builder("outer").timeout(Timeout::new(secs(1)).unwrap()).layer(inner).build().unwrap();
    let snapshot = outer.handle().snapshot();
    assert!(matches!(layer(&snapshot, "inner/bulkhead"), LayerState::Bulkhead(b) if b.limit == 7));
    assert_eq!(outer.handle().explain().to_string(), outer.explain().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_hedge_shows_what_it_knows_of_how_long_calls_take() {
    let pipeline =
        Pipeline::builder("seen").hedge(Hedge::builder().delay(HedgeDelay::quantile(0.9).min_samples(3))).build();
    let pipeline = pipeline.unwrap();
    let known = || match layer(&pipeline.handle().snapshot(), "hedge") {
        LayerState::Hedge(hedge) => hedge.latencies.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!((known().samples, known().estimate), (0, None));
    for _ in 0..3 {
        let call = pipeline.call(|| async {
            tokio::time::sleep(ms(40)).await;
            Ok::<_, ()>(())
        });
        call.await.unwrap();
    }
    assert_eq!(known().samples, 3);
    let estimate = known().estimate.unwrap();
    assert!((ms(40)..ms(42)).contains(&estimate), "{estimate:?}");
}
