//! The modules of the library are floors: a file uses its own floor and those below, never one above.
#![cfg(test)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The floors, from the ground up.
const FLOORS: [&[&str]; 7] = [
    &["engine"],
    &[
        "name",
        "outcome",
        "error",
        "event",
        "clock",
        "alarm",
        "ambient",
        "config",
        "amendment",
        "context",
        "deadline",
        "snapshot",
        "layer",
        "timeout_header",
    ],
    &["policy", "call", "timed", "budget", "bounds", "build"],
    &["policies"],
    &["configured", "explain", "handle", "pipeline", "layers", "keyed"],
    &["adapters"],
    &["lib"],
];

struct Source {
    /// From `src`, with slashes.
    path: String,
    /// Without comments.
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        let room = self.path.split('/').next().unwrap();
        room.strip_suffix(".rs").unwrap_or(room)
    }

    /// What this file uses of the crate: the paths after each `crate::`, those in braces as well.
    fn uses(&self) -> Vec<String> {
        let mut uses = Vec::new();
        for (start, _) in self.code.match_indices("crate::") {
            // A macro names what its user sees, which is all at the top of the crate.
            if self.code[..start].ends_with('$') {
                continue;
            }
            let rest = &self.code[start + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => uses.extend(items(group)),
                None => uses.push(path_at(rest)),
            }
        }
        uses
    }
}

/// The paths in a group, up to its closing brace.
fn items(group: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (1, Vec::new(), String::new());
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match letter {
            ',' if depth == 1 => items.push(std::mem::take(&mut item)),
            _ if depth == 0 => break,
            letter => item.push(letter),
        }
    }
    items.push(item);
    items.iter().map(|item| path_at(item.trim())).filter(|path| !path.is_empty()).collect()
}

fn path_at(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || matches!(letter, '_' | ':')).collect()
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>();
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                sources.push(Source { path, code: code.join("\n") });
            }
        }
    }
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn every_file_has_its_floor() {
    for source in sources() {
        assert!(floor(source.room()).is_some(), "{} is on no floor", source.path);
    }
}

#[test]
fn a_file_uses_its_own_floor_and_those_below() {
    let mut seen = 0;
    for source in sources() {
        let own = floor(source.room()).unwrap();
        for used in source.uses() {
            let room = used.split("::").next().unwrap();
            // What is no room is something that `lib.rs` exports: only the tests in the sources may use that.
            let Some(other) = floor(room) else { panic!("{} uses crate::{used}", source.path) };
            assert!(other <= own, "{} is on floor {own} and uses crate::{used} of floor {other}", source.path);
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} uses were found: they are written in a way that this test cannot read");
}

#[test]
fn policies_never_use_each_other() {
    let sources = sources();
    let policies = || sources.iter().filter(|source| source.room() == "policies" && source.path != "policies/mod.rs");
    let name = |source: &Source| source.path.split('/').nth(1).unwrap().trim_end_matches(".rs").to_owned();
    for source in policies() {
        let used = source.uses().into_iter().find(|used| used.starts_with("policies"));
        assert_eq!(used, None, "{}", source.path);
        for neighbour in policies().map(name).filter(|neighbour| *neighbour != name(source)) {
            assert!(!source.code.contains(&format!("super::{neighbour}")), "{} uses {neighbour}", source.path);
        }
    }
}

#[test]
fn the_engines_know_no_runtime_no_clock_and_no_atomics_but_those_behind_their_door() {
    for source in sources().iter().filter(|source| source.room() == "engine") {
        for word in ["tokio", "Instant", "SystemTime", "async ", ".await"] {
            assert!(!source.code.contains(word), "{} says {word}", source.path);
        }
        // Indented is a static in a function, such as a count of ids: loom has none of those.
        let passes_by = |line: &str| line.contains("std::sync::atomic") && !line.starts_with(' ');
        let door = source.path == "engine/sync.rs";
        assert!(door || !source.code.lines().any(passes_by), "{} passes by engine/sync.rs", source.path);
    }
}

#[test]
fn a_use_is_read_however_it_is_written() {
    let code = "use crate::{\n    a::{B, C},\n    d,\n};\nuse crate::e::F;\nlet x = crate::g::h();\n$crate::I";
    let source = Source { path: "pipeline.rs".to_owned(), code: code.to_owned() };
    assert_eq!(source.uses(), ["a::", "d", "e::F", "g::h"]);
}
