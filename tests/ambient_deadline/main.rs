//! A call that is made inside another call's operation is limited by what is around it, and nobody passes that on.
#![cfg(all(test, feature = "deadlines"))]

#[path = "../support/mod.rs"]
mod support;

mod clamping;
mod endings;
mod property;
mod reach;
mod scopes;
mod values;
