//! The deadline of a request, from its header to the calls that its handler makes.
#![cfg(all(test, feature = "axum"))]

mod layer;
mod loopback;
