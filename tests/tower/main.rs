//! A pipeline around a service: readiness, requests, cancellation, and that nothing else is different.
#![cfg(test)]
#![cfg(feature = "tower")]

#[path = "../support/mod.rs"]
mod support;

mod difference;
mod endings;
mod readiness;
mod requests;
mod world;
