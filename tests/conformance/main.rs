//! The bugs that libraries of this kind are known to have had, one test each. Where it can be, a naive policy that has
//! the bug fails the same check: so the check would find it. State that
//! grows with its input is in `bounded_memory`.
#![cfg(test)]

mod breaker;
mod fairness;
mod numbers;
mod panics;
mod races;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
mod time;
