//! Hedge: when another attempt begins, which one wins, what it costs, and what becomes of the others.
#![cfg(test)]

mod budget;
mod cancellation;
mod delays;
mod layers_inside;
mod load;
mod model;
mod quantile;
#[path = "../support/random.rs"]
mod random;
mod stage;
mod stall;
#[path = "../support/mod.rs"]
mod support;
mod verdicts;
