//! The public API is what `public-api.txt` says: a change of it is seen, and meant.
//!
//! `RENEW=1 cargo test --manifest-path tests/api/Cargo.toml` writes the file anew; then read the difference.
#![cfg(test)]

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Other versions of Rust write some types in other words, and other versions of the format.
const RUST: &str = "1.95.";

#[test]
fn the_public_api_is_the_committed_one() {
    let version = Command::new(cargo()).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    if !version.starts_with(&format!("cargo {RUST}")) {
        println!("Not compared: the file is of Rust {RUST}x, and this is {version}");
        return;
    }
    let now = public_api();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("public-api.txt");
    if env::var_os("RENEW").is_some() {
        fs::write(&file, &now).unwrap();
        println!("Written anew.");
        return;
    }
    let committed = fs::read_to_string(&file).unwrap();
    let difference = [lines_missing(&committed, &now, '-'), lines_missing(&now, &committed, '+')].concat();
    assert!(
        committed == now,
        "The public API has changed:\n{difference}If that is meant, say so in the changelog, and:\n\
         RENEW=1 cargo test --manifest-path tests/api/Cargo.toml"
    );
}

fn lines_missing(from: &str, other: &str, sign: char) -> String {
    let there: HashSet<_> = other.lines().collect();
    from.lines().filter(|line| !there.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
}

/// Without what follows from the rest: blanket, auto-trait and derived impls.
fn public_api() -> String {
    public_api::Builder::from_rustdoc_json(rustdoc_json())
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .unwrap()
        .to_string()
}

/// Rustdoc writes JSON on nightly, or where stable is told to be.
fn rustdoc_json() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    // In the target folder, but apart: the cargo that runs this has a lock on what is there.
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().join("rustdoc-json");
    let status = Command::new(cargo())
        .args(["rustdoc", "--lib", "--all-features", "--quiet", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format=json", "--cap-lints=allow"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTDOCFLAGS")
        .status()
        .unwrap();
    assert!(status.success(), "rustdoc failed");
    target.join("doc/withstand.json")
}

fn cargo() -> PathBuf {
    env::var_os("CARGO").unwrap().into()
}
