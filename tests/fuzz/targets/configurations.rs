//! `cargo fuzz run configurations`: see `../configurations.rs`.
#![no_main]

#[path = "../bytes.rs"]
mod bytes;
#[path = "../configurations.rs"]
mod configurations;

libfuzzer_sys::fuzz_target!(|input: &[u8]| configurations::run(input));
