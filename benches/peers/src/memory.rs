//! The memory of stacks at rest and of calls in flight, measured by another executable of this package, one process for
//! each contestant.

use std::{
    env,
    fmt::Write,
    io::{self, Error},
    process::{Command, Stdio},
};

/// So many stacks at rest, each with its own policies.
pub const STACKS: usize = 10_000;
/// So many calls in flight through each of them: as many as their bulkheads let in.
pub const CALLS_EACH: usize = 100;

/// What one contestant takes up.
pub struct Memory {
    /// Whose it is.
    pub who: String,
    /// Bytes for each stack at rest.
    pub stack: usize,
    /// Bytes for each call in flight, its box included.
    pub call: usize,
    /// What the system gave the process for each call in flight.
    pub resident: usize,
}

impl Memory {
    /// As the other executable prints it.
    pub fn line(&self) -> String {
        format!("{}\t{}\t{}\t{}", self.who, self.stack, self.call, self.resident)
    }

    fn parse(line: &str) -> io::Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [who, stack, call, resident] = fields[..] else {
            return Err(Error::other(format!("not a measurement of memory: {line}")));
        };
        let number = |text: &str| text.parse().map_err(Error::other);
        Ok(Self { who: who.to_owned(), stack: number(stack)?, call: number(call)?, resident: number(resident)? })
    }
}

/// Builds and runs the other executable.
///
/// # Errors
///
/// If there is no cargo, or the other executable fails.
pub fn measure() -> io::Result<Vec<Memory>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--bin", "memory"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(Error::other("measuring memory failed"));
    }
    String::from_utf8_lossy(&output.stdout).lines().map(Memory::parse).collect()
}

/// A table of all.
pub fn markdown(all: &[Memory]) -> String {
    let mut text = "| full stack | bytes at rest | bytes of a call in flight | resident bytes of a call in flight \
                    |\n|---|--:|--:|--:|\n"
        .to_owned();
    for Memory { who, stack, call, resident } in all {
        let _ = writeln!(text, "| {who} | {stack} | {call} | {resident} |");
    }
    text
}
