//! Counts instructions with callgrind, of a program that runs itself.

use std::{
    env,
    process::{Command, Stdio},
};

/// The instructions of this very program while it makes so many calls.
fn instructions(row: &str, calls: u32) -> Option<u64> {
    let me = env::current_exe().ok()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(me).args(["run", row]);
    let output = valgrind.arg(calls.to_string()).stdin(Stdio::null()).output().ok()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected = told.lines().find_map(|line| line.split_once("Collected :"))?.1;
    collected.trim().parse().ok()
}

/// The instructions of one call: what ten thousand more take, by the ten thousand. So many, because what comes before the
/// first call may take a little more in one run than in the other: a map's keys are hashed with a random seed.
pub(super) fn of_one_call(row: &str) -> Option<u64> {
    Some((instructions(row, 11_000)? - instructions(row, 1_000)?) / 10_000)
}
