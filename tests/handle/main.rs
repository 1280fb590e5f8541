//! Handles on live pipelines, and the registry of them all.
#![cfg(test)]

#[path = "../support/mod.rs"]
mod support;

mod operating;
mod registry;
mod snapshots;
