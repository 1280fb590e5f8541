//! Calls of gRPC methods through a pipeline: a real server of tonic's on loopback, and real faults.
#![cfg(test)]

mod answers;
mod connections;
#[path = "../support/echo.rs"]
mod echo;
mod frames;
#[allow(dead_code, reason = "the tests of tower need more of it")]
#[path = "../support/server.rs"]
mod server;
mod streams;
mod times;
mod world;

use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
