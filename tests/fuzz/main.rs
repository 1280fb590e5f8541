//! What the fuzzer has found worth keeping, run again. To look for more: CONTRIBUTING.md.
#![cfg(test)]

mod bytes;
mod commands;
mod configurations;

use std::{fs, path::Path};

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus");
    for file in files {
        println!("{}", file.display());
        run(&fs::read(file).unwrap());
    }
}

#[test]
fn any_configuration_is_refused_or_works() {
    replay("configurations", configurations::run);
}

#[test]
fn what_must_hold_does_after_any_commands() {
    replay("commands", commands::run);
}
