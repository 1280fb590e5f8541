//! The page of guarantees names its evidence, and what it names is there.
#![cfg(test)]

use std::{fs, path::Path};

/// The words and the path of each link of the page to a file of this crate.
fn links(page: &str) -> Vec<(&str, &str)> {
    page.split('[')
        .filter_map(|part| {
            let (words, rest) = part.split_once("](../")?;
            Some((words, rest.split_once(')')?.0))
        })
        .collect()
}

#[test]
fn every_test_that_the_page_of_guarantees_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/GUARANTEES.md")).unwrap();
    let mut named = 0;
    for (words, path) in links(&page) {
        let path = root.join(path.split('#').next().unwrap());
        assert!(path.exists(), "the page links to {}", path.display());
        let is_a_test = words.contains('_') && words.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_a_test {
            let code = fs::read_to_string(&path).unwrap();
            assert!(code.contains(&format!("fn {words}(")), "{} has no test {words}", path.display());
            named += 1;
        }
    }
    assert!(named > 150, "the page names {named} tests: is it read at all?");
}
