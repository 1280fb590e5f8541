//! What the compiler and `explain()` say to people, word for word.
#![cfg(test)]

use std::{env, process::Command, time::Duration};

use withstand::{CircuitBreaker, Pipeline, Retry};

/// Compilers word things differently: the expectations in `tests/ui` are those of this one.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn what_cannot_work_does_not_compile_and_the_compiler_says_what_to_do() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version);
    if !version.starts_with(COMPILER) {
        println!("Skipped: this is {}, and the expected messages are those of {COMPILER}", version.trim());
        return;
    }
    if cfg!(any(feature = "chaos", feature = "serde")) {
        println!(
            "Skipped: the compiler lists the policies that there are, and the expected lists are of the default ones"
        );
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    #[cfg(feature = "tower")]
    cases.compile_fail("tests/ui/tower/*.rs");
}

#[test]
fn the_readme_shows_what_explain_prints() {
    let users = Pipeline::builder("users-api")
        .circuit_breaker(CircuitBreaker::builder())
        .timeout(Duration::from_secs(4))
        .retry(Retry::builder().max_attempts(5))
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let shown = format!("```text\n{}\n```\n", users.explain());
    assert!(include_str!("../README.md").contains(&shown), "the README should show\n{shown}");
}
