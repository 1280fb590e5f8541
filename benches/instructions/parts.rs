//! Which part of a call takes how many instructions, by the file that each was compiled from, inlined or not.

use std::{
    collections::HashMap,
    env, fs,
    process::{Command, Stdio},
};

/// The parts, and what the path of a file of each contains. The first that fits counts; the last fits all.
const PARTS: [(&str, &[&str]); 9] = [
    ("clock", &["/time/instant.rs", "/std/src/time", "/std/src/sys/time", "unix/time.rs", "gettime", "src/clock.rs"]),
    ("tokio", &["/tokio-"]),
    ("call", &["src/call/", "src/outcome/", "src/event/", "src/policy.rs", "src/pipeline/"]),
    ("frames", &["src/context/"]),
    ("limits", &["src/alarm.rs", "src/timed.rs"]),
    ("policies", &["src/policies/"]),
    ("engine", &["src/engine/", "src/budget/"]),
    ("atomics", &["core/src/sync/atomic.rs"]),
    ("rest", &[""]),
];

type Counts = [u64; PARTS.len()];

/// Prints a table of all rows.
pub(super) fn print(rows: impl Iterator<Item = &'static str>) {
    print!("{:<28}{:>8}", "instructions of one call", "all");
    for (name, _) in PARTS {
        print!("{name:>10}");
    }
    println!();
    for row in rows {
        let (Some(many), Some(few)) = (count(row, 2_000), count(row, 1_000)) else {
            println!("valgrind is not installed here, so nothing was counted.");
            return;
        };
        let each: Vec<_> = many.iter().zip(few).map(|(many, few)| many.saturating_sub(few) / 1_000).collect();
        print!("{row:<28}{:>8}", each.iter().sum::<u64>());
        for count in each {
            print!("{count:>10}");
        }
        println!();
    }
}

fn count(row: &str, calls: u32) -> Option<Counts> {
    let file = env::temp_dir().join(format!("callgrind.{}", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display()));
    valgrind.arg(env::current_exe().ok()?).args(["run", row, &calls.to_string()]);
    valgrind.stdin(Stdio::null()).output().ok()?;
    let profile = fs::read_to_string(&file).ok()?;
    fs::remove_file(file).ok()?;
    Some(add_up(&profile))
}

/// The costs of the lines themselves: not those of what they call, which have lines of their own.
fn add_up(profile: &str) -> Counts {
    let (mut counts, mut files, mut part) = ([0; PARTS.len()], HashMap::new(), PARTS.len() - 1);
    let mut is_a_call = false;
    for line in profile.lines() {
        if let Some((what, file)) = line.split_once('=') {
            // A path is spelt out where it is first named: `fi=(12) /path`, and then `fi=(12)`.
            let (number, path) = file.split_once(' ').unwrap_or((file, ""));
            if matches!(what, "fl" | "fi" | "fe" | "cfi" | "cfl") {
                let named = files.entry(number).or_insert_with(|| part_of(path));
                if !what.starts_with('c') {
                    part = *named;
                }
            }
            is_a_call = what == "calls";
            continue;
        }
        let cost = line.rsplit_once(' ').and_then(|(position, cost)| {
            let is_position = position.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first));
            is_position.then(|| cost.parse::<u64>().ok())?
        });
        if let (Some(cost), false) = (cost, is_a_call) {
            counts[part] += cost;
        }
        is_a_call = false;
    }
    counts
}

fn part_of(path: &str) -> usize {
    PARTS.iter().position(|(_, signs)| signs.iter().any(|sign| path.contains(sign))).unwrap_or(PARTS.len() - 1)
}
