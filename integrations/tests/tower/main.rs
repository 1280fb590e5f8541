//! A pipeline as a layer of tower: in axum, around clients of hyper, reqwest and tonic, and among the layers of tower.
#![cfg(test)]

mod axum_server;
#[allow(dead_code, reason = "the tests of tonic need more of it")]
#[path = "../support/echo.rs"]
mod echo;
mod http_clients;
mod layers;
#[path = "../support/server.rs"]
mod server;
mod tonic_client;

use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
