//! `cargo fuzz run commands`: see `../commands.rs`.
#![no_main]

#[allow(dead_code, reason = "each target reads a part of what it can")]
#[path = "../bytes.rs"]
mod bytes;
#[path = "../commands.rs"]
mod commands;

libfuzzer_sys::fuzz_target!(|input: &[u8]| commands::run(input));
