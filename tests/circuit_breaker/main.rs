//! The circuit breaker as its users meet it: in a pipeline, alone, by hand, and shared.

#![cfg(test)]

mod closed;
mod endings;
mod half_open;
mod leases;
mod manual;
mod model;
mod random;
mod settings;
mod shared;
mod stale;
mod subscription;
#[path = "../support/mod.rs"]
mod support;
mod threads;
mod users;
