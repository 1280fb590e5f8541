//! This crate's full stack.

use std::sync::Arc;

use withstand::{Bulkhead, CircuitBreaker, Pipeline, Retry, StandardLayers};

use super::{ATTEMPT, TOTAL};

/// All layers, as their builders make them.
pub fn full() -> Arc<Pipeline<StandardLayers>> {
    let pipeline = Pipeline::builder("full")
        .timeout(TOTAL)
        .retry(Retry::builder())
        .bulkhead(Bulkhead::builder().limit(100))
        .circuit_breaker(CircuitBreaker::builder().count_window(100))
        .timeout(ATTEMPT)
        .build();
    Arc::new(pipeline.unwrap())
}
