//! A pipeline as a layer of tower: in axum, around clients of hyper, reqwest and tonic, and among the layers of tower.
#![cfg(test)]

mod axum_server;
mod http_clients;
mod layers;
mod server;
mod tonic_client;

use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
