//! The examples of the documentation.

use withstand::{Pipeline, PipelineConfig};

use crate::{FORMATS, Format};

/// The example in this format on the page of `PipelineConfig`.
fn example(format: Format) -> String {
    let fence = format!("/// ```{}\n", format!("{format:?}").to_lowercase());
    let page = include_str!("../../../src/config/mod.rs");
    let (_, rest) = page.split_once(&fence).unwrap_or_else(|| panic!("there is no example in {format:?}"));
    let (example, _) = rest.split_once("/// ```").unwrap();
    example.lines().map(|line| format!("{}\n", line.trim_start_matches("///"))).collect()
}

#[test]
fn the_examples_of_the_page_say_the_same_in_all_formats() {
    let [json, toml, yaml] =
        FORMATS.map(|format| format.read::<PipelineConfig>(&unindented(&example(format))).unwrap());
    assert_eq!(json, toml);
    assert_eq!(json, yaml);
    assert_eq!(json.layers.len(), 5);
}

#[test]
fn what_the_example_builds_is_nearly_the_standard_pipeline() {
    let config: PipelineConfig = Format::Toml.read(&example(Format::Toml)).unwrap();
    let built = Pipeline::from_config(config).build().unwrap().explain().to_string();
    let standard = Pipeline::standard("users-api").build().unwrap().explain().to_string();
    let without_jitter = |text: &str| text.replace(" jitter 0.1,", "").split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(without_jitter(&built), without_jitter(&standard));
}

/// Without the space after the slashes.
fn unindented(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}
