//! What a call takes up while it waits: timers and bytes, held to written limits.
#![cfg(test)]

mod sizes;
mod timers;
