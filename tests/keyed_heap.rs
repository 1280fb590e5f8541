//! What `Keyed` takes from the heap. Not among the others of `keyed`, because these share their heap with nobody.
#![cfg(test)]

#[path = "support/heap.rs"]
mod heap;

use std::{future::ready, time::Duration};

use heap::{allocations, alone, bytes_in_use};
use withstand::{CircuitBreaker, Instance, Keyed, Pipeline, StandardLayers};

fn tenants(capacity: usize) -> Keyed<String, Pipeline<StandardLayers>> {
    Keyed::builder(|_| Pipeline::standard("tenant").build()).capacity(capacity).build().unwrap()
}

#[test]
fn a_call_of_a_known_key_allocates_nothing() {
    alone(async {
        let tenants = &tenants(2);
        drop((tenants.get("a"), tenants.get("b")));
        assert_eq!(allocations(|| async { drop(tenants.get("a")) }).await, 0, "get");
        assert_eq!(allocations(|| async { drop(tenants.peek("a")) }).await, 0, "peek");
        assert_eq!(allocations(|| async { drop(tenants.peek("z")) }).await, 0, "peek at nobody");
        let call = || async { tenants.get("b").call(|| ready(Ok::<_, u32>(7))).await };
        assert_eq!(allocations(call).await, 0, "call");
        let service = Pipeline::standard("service").build().unwrap();
        let inside = || service.forward(|| async { tenants.get("b").outcome(|| ready(Ok::<_, u32>(7))).await });
        assert_eq!(allocations(inside).await, 0, "inside another");
    });
}

#[test]
fn a_call_that_finds_no_room_allocates_nothing() {
    alone(async {
        let tenants = &tenants(2);
        let _held = (tenants.get("a"), tenants.get("b"));
        assert!(Instance::key(&tenants.get("c")).is_none());
        assert_eq!(allocations(|| async { drop(tenants.get("c")) }).await, 0);
    });
}

/// A hundred thousand keys go through so few places that they are all looked at for each, and through a hundred.
#[test]
fn memory_is_bounded_however_many_keys_come() {
    alone(async {
        for capacity in [10, 100] {
            let tenants: Keyed<String, CircuitBreaker> =
                Keyed::builder(|_| CircuitBreaker::builder().build()).capacity(capacity).build().unwrap();
            let churn = async |keys: std::ops::Range<u32>| {
                for key in keys {
                    drop(tenants.get(&format!("tenant {key}")).call(|| ready(Ok::<_, ()>(7))).await);
                }
            };
            churn(0..20_000).await;
            let before = bytes_in_use();
            churn(20_000..100_000).await;
            let grown = bytes_in_use().saturating_sub(before);
            // An instance of these has more than a thousand bytes. What the map keeps for readers that may still be there,
            // before it gives it back, is some dozens of empty ones.
            assert!(grown < 100_000, "{grown} bytes for 80 000 keys");
            assert_eq!(tenants.len(), capacity);
        }
    });
}

/// The number that the documentation gives.
#[test]
fn an_instance_of_the_standard_pipeline_takes_a_few_kilobytes() {
    alone(async {
        let tenants = tenants(1_000);
        let before = bytes_in_use();
        for key in 0..1_000 {
            drop(tenants.get(&key.to_string()));
        }
        let each = (bytes_in_use() - before) / 1_000;
        assert!((2_000..8_000).contains(&each), "{each} bytes");
        tokio::time::sleep(Duration::from_secs(600)).await;
        tenants.sweep();
        let left = bytes_in_use().saturating_sub(before);
        assert!(left < 400_000, "{left} bytes are left of a thousand");
    });
}
