//! `cargo fuzz run configurations`: see `../configurations.rs`.
#![no_main]

#[allow(dead_code, reason = "each target reads a part of what it can")]
#[path = "../bytes.rs"]
mod bytes;
#[path = "../configurations.rs"]
mod configurations;

libfuzzer_sys::fuzz_target!(|input: &[u8]| configurations::run(input));
