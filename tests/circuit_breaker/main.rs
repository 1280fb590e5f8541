//! The circuit breaker as its users meet it: in a pipeline, alone, by hand, and shared.

#![cfg(test)]

mod closed;
mod defaults;
mod endings;
mod half_open;
mod leases;
mod manual;
mod model;
mod probes;
mod random;
mod settings;
mod shared;
mod stale;
mod subscription;
#[path = "../support/mod.rs"]
mod support;
mod telling;
mod threads;
mod users;
