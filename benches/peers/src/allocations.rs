//! Allocations of a call, counted by another executable of this package: a counting allocator makes each one dearer,
//! which would be unfair to those who allocate.

use std::{
    collections::HashMap,
    env,
    io::{self, Error},
    process::{Command, Stdio},
};

use crate::who::Who;

/// Allocations for each call, by the row's key and the contestant's name.
pub type Allocations = HashMap<(String, String), f64>;

/// What the other executable prints for a contestant.
pub fn line(row: &str, who: Who, count: usize, calls: u32) -> String {
    #[expect(clippy::cast_precision_loss, reason = "not that many")]
    let each = count as f64 / f64::from(calls);
    format!("{row}\t{}\t{each}", who.name())
}

/// Builds and runs the other executable.
///
/// # Errors
///
/// If there is no cargo, or the other executable fails.
pub fn count() -> io::Result<Allocations> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--bin", "allocations"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(Error::other("counting allocations failed"));
    }
    String::from_utf8_lossy(&output.stdout).lines().map(parse).collect()
}

fn parse(line: &str) -> io::Result<((String, String), f64)> {
    let fields: Vec<&str> = line.split('\t').collect();
    match fields[..] {
        [row, who, each] => Ok(((row.to_owned(), who.to_owned()), each.parse().map_err(Error::other)?)),
        _ => Err(Error::other(format!("not a count: {line}"))),
    }
}
