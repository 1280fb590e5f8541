//! What holds for every policy: a table of rows, and laws that each row is held against.
#![cfg(test)]

#[path = "../support/trials.rs"]
mod trials;

mod drop_everywhere;
mod one_law_for_all;
mod polled;
mod random_pipelines;
mod rows;
