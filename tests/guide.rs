//! The guide is found, its links lead somewhere, its code is run, and it knows all warnings.
#![cfg(test)]

use std::{collections::BTreeMap, fs, path::Path};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The pages by file name.
fn pages() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join("docs/guide")).unwrap().map(|file| file.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap())).collect()
}

#[test]
fn the_readme_links_to_every_page() {
    let readme = read("README.md");
    let pages = pages();
    assert!(pages.len() >= 8, "where is the guide?");
    for page in pages.keys() {
        assert!(readme.contains(&format!("(docs/guide/{page})")), "the README has no link to {page}");
    }
}

#[test]
fn the_code_of_every_page_is_run() {
    let included = read("src/lib.rs") + &read("integrations/src/lib.rs");
    for (name, page) in pages() {
        assert!(included.contains(&format!("docs/guide/{name}\")]")), "{name} is no doctest");
        for fence in page.lines().filter(|line| line.starts_with("```rust")) {
            assert!(["```rust", "```rust,test_harness"].contains(&fence), "{name}: {fence} is not run");
        }
    }
}

#[test]
fn the_links_between_pages_lead_somewhere() {
    for (name, page) in pages() {
        let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| Path::new(target).extension().is_some_and(|kind| kind == "md")) {
            assert!(root().join("docs/guide").join(target).exists(), "{name} links to {target}");
        }
    }
}

#[test]
fn every_kind_of_warning_is_in_the_page_about_the_order() {
    let (source, page) = (read("src/explain/warning.rs"), read("docs/guide/order.md"));
    let kinds: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \"")?.1.strip_suffix("\","))
        .collect();
    assert!(kinds.len() >= 24, "{kinds:?}");
    for kind in kinds {
        assert!(page.contains(&format!("| `{kind}` |")), "the page does not tell of {kind}");
    }
}
