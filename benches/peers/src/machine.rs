//! Where it was measured, and what.

use std::{fmt::Write, fs, process::Command, thread};

/// The lock file of the very build that runs.
const LOCK: &str = include_str!("../Cargo.lock");

/// The crates whose versions matter, in the order of the table's columns.
const CRATES: [&str; 15] = [
    "withstand",
    "tokio",
    "failsafe",
    "recloser",
    "backon",
    "tokio-retry",
    "throttle-net",
    "seatbelt",
    "layered",
    "tick",
    "tower",
    "tower-resilience",
    "governor",
    "stats_alloc",
    "futures-util",
];

/// Two lists: the machine, the versions.
pub fn markdown() -> String {
    let mut text = String::new();
    for (what, value) in [
        ("CPU", cpu()),
        ("cores", thread::available_parallelism().map_or_else(|_| unknown(), |cores| cores.to_string())),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("compiler", compiler()),
        ("load when written", read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
    ] {
        let _ = writeln!(text, "- {what}: {value}");
    }
    let versions: Vec<String> = CRATES.iter().filter_map(|name| Some(format!("{name} {}", version(name)?))).collect();
    let _ = writeln!(text, "- versions: {}", versions.join(", "));
    text
}

fn version(name: &str) -> Option<&'static str> {
    let mut lines = LOCK.lines();
    lines.find(|line| *line == format!("name = \"{name}\""))?;
    lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

fn cpu() -> String {
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(unknown, |(_, model)| model.to_owned())
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(|_| unknown(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

fn unknown() -> String {
    "unknown".to_owned()
}
