//! Each error names the path to what is wrong, once, in every format, wherever the settings stand.

use withstand::PipelineConfig;

use crate::{FORMATS, Format, Service};

/// What is wrong: as JSON, as TOML (empty where it has no such thing), as YAML.
struct Wrong {
    texts: [&'static str; 3],
    /// Empty for the settings as a whole.
    path: &'static str,
    /// What the error says besides, in JSON and TOML. In YAML the reader has words of its own for a wrong type.
    says: &'static str,
    in_yaml: &'static str,
}

const WRONG: &[Wrong] = &[
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"timeout": "4s"}, {"retry": {"max_attempts": "three"}}]}"#,
            "name = 'a'\nlayers = [{ timeout = '4s' }, { retry = { max_attempts = 'three' } }]",
            "name: a\nlayers:\n  - timeout: 4s\n  - retry:\n      max_attempts: three",
        ],
        path: "layers[1].retry.max_attempts",
        says: "invalid type: string \"three\", expected u32",
        in_yaml: "invalid u32",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"retry": {"max_atempts": 3}}]}"#,
            "name = 'a'\nlayers = [{ retry = { max_atempts = 3 } }]",
            "name: a\nlayers:\n  - retry:\n      max_atempts: 3",
        ],
        path: "layers[0].retry.max_atempts",
        says: "unknown field `max_atempts`, expected one of `name`, `max_attempts`",
        in_yaml: "unknown field `max_atempts`, expected one of name, max_attempts",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"retry": {"backoff": {"kind": "quadratic"}}}]}"#,
            "name = 'a'\nlayers = [{ retry = { backoff = { kind = 'quadratic' } } }]",
            "name: a\nlayers:\n  - retry:\n      backoff:\n        kind: quadratic",
        ],
        path: "layers[0].retry.backoff.kind",
        says: "unknown variant `quadratic`, expected one of `constant`, `linear`, `exponential`, `decorrelated`",
        in_yaml: "unknown variant `quadratic`, expected one of constant, linear, exponential, decorrelated",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"retry": {"budget": [0.1]}}]}"#,
            "name = 'a'\nlayers = [{ retry = { budget = [0.1] } }]",
            "name: a\nlayers:\n  - retry:\n      budget: [0.1]",
        ],
        path: "layers[0].retry.budget",
        says: "expected a map of settings",
        in_yaml: "expected mapping start",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"retri": {}}]}"#,
            "name = 'a'\nlayers = [{ retri = {} }]",
            "name: a\nlayers:\n  - retri: {}",
        ],
        path: "layers[0]",
        says: "unknown kind of layer `retri`, expected one of timeout, retry, circuit_breaker, bulkhead, hedge",
        in_yaml: "unknown kind of layer `retri`, expected one of timeout, retry, circuit_breaker, bulkhead, hedge",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"retry": {}, "bulkhead": {"limit": 5}}]}"#,
            "name = 'a'\nlayers = [{ retry = {}, bulkhead = { limit = 5 } }]",
            "name: a\nlayers:\n  - retry: {}\n    bulkhead: { limit: 5 }",
        ],
        path: "layers[0]",
        says: "each layer is a map of its own, in the order of the layers",
        in_yaml: "each layer is a map of its own, in the order of the layers",
    },
    Wrong {
        texts: [r#"{"name": "a", "layers": [{}]}"#, "name = 'a'\nlayers = [{}]", "name: a\nlayers:\n  - {}"],
        path: "layers[0]",
        says: "expected a layer: a map of one key, the kind of policy",
        in_yaml: "expected a layer: a map of one key, the kind of policy",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": ["retry"]}"#,
            "name = 'a'\nlayers = ['retry']",
            "name: a\nlayers:\n  - retry",
        ],
        path: "layers[0]",
        says: "invalid type: string \"retry\", expected a layer: a map of one key, the kind of policy",
        in_yaml: "expected mapping start",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"retry": {"max_attempts": null}}]}"#,
            "",
            "name: a\nlayers:\n  - retry:\n      max_attempts:",
        ],
        path: "layers[0].retry.max_attempts",
        says: "invalid type: null, expected u32",
        in_yaml: "invalid u32",
    },
    Wrong {
        texts: [r#"{"name": "a", "layers": [{"timeout": null}]}"#, "", "name: a\nlayers:\n  - timeout:"],
        path: "layers[0].timeout",
        says: "expected a duration with its unit",
        in_yaml: "expected a duration with its unit",
    },
    Wrong {
        texts: [r#"{"name": null}"#, "", "name:"],
        path: "name",
        says: "invalid type: null, expected a string",
        in_yaml: "null",
    },
    Wrong {
        texts: [r#"{"layers": []}"#, "layers = []", "layers: []"],
        path: "",
        says: "missing field `name`",
        in_yaml: "missing field `name`",
    },
    Wrong {
        texts: [r#"{"name": "a", "leyers": []}"#, "name = 'a'\nleyers = []", "name: a\nleyers: []"],
        path: "leyers",
        says: "unknown field `leyers`, expected `name` or `layers`",
        in_yaml: "unknown field `leyers`, expected one of name, layers",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"bulkhead": {"limit": 5, "max_wait": 50}}]}"#,
            "name = 'a'\nlayers = [{ bulkhead = { limit = 5, max_wait = 50 } }]",
            "name: a\nlayers:\n  - bulkhead: { limit: 5, max_wait: 50 }",
        ],
        path: "layers[0].bulkhead.max_wait",
        says: "invalid type: integer `50`, expected a duration with its unit, such as \"250ms\", \"2s\" or \"1m 30s\"",
        in_yaml: "invalid value: string \"50\", expected a duration with its unit",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"timeout": {"limits": "4s"}}]}"#,
            "name = 'a'\nlayers = [{ timeout = { limits = '4s' } }]",
            "name: a\nlayers:\n  - timeout: { limits: 4s }",
        ],
        path: "layers[0].timeout.limits",
        says: "unknown field `limits`, expected `name` or `limit`",
        in_yaml: "unknown field `limits`, expected one of name, limit",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"hedge": {"delay": {"quantile": "p95"}}}]}"#,
            "name = 'a'\nlayers = [{ hedge = { delay = { quantile = 'p95' } } }]",
            "name: a\nlayers:\n  - hedge: { delay: { quantile: p95 } }",
        ],
        path: "layers[0].hedge.delay.quantile",
        says: "invalid type: string \"p95\", expected f64",
        in_yaml: "invalid floating point",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"hedge": {"delay": "soon"}}]}"#,
            "name = 'a'\nlayers = [{ hedge = { delay = 'soon' } }]",
            "name: a\nlayers:\n  - hedge: { delay: soon }",
        ],
        path: "layers[0].hedge.delay",
        says: "\"parallel\", \"on_failure\", or a map with a quantile",
        in_yaml: "\"parallel\", \"on_failure\", or a map with a quantile",
    },
    Wrong {
        texts: [
            r#"{"name": "a", "layers": [{"circuit_breaker": {"probes": -1}}]}"#,
            "name = 'a'\nlayers = [{ circuit_breaker = { probes = -1 } }]",
            "name: a\nlayers:\n  - circuit_breaker: { probes: -1 }",
        ],
        path: "layers[0].circuit_breaker.probes",
        says: "invalid value: integer `-1`, expected u32",
        in_yaml: "invalid u32",
    },
    Wrong {
        texts: [r#"["a", []]"#, "", "[a, []]"],
        path: "",
        says: "invalid type: sequence, expected a map of settings",
        in_yaml: "expected mapping start",
    },
];

fn check(format: Format, wrong: &Wrong, error: &str) {
    let says = if format == Format::Yaml { wrong.in_yaml } else { wrong.says };
    assert!(error.contains(says), "{format:?}: {says} is not in\n{error}");
    let path = if wrong.path.is_empty() { String::new() } else { format!("{}: ", wrong.path) };
    assert!(error.contains(&path), "{format:?}: {path} is not in\n{error}");
    // YAML's reader shows its words once more beside the lines that they are about.
    let most = if format == Format::Yaml && error.contains(" --> ") { 2 } else { 1 };
    let quotes = |line: &&str| line.starts_with(|letter: char| letter.is_ascii_digit());
    let own_words = error.lines().filter(|line| !quotes(line)).collect::<Vec<_>>().join("\n");
    for part in [says, &path].into_iter().filter(|part| !part.is_empty()) {
        assert!(own_words.matches(part).count() <= most, "{format:?}: more than {most} times {part} in\n{error}");
    }
    for garbled in ["\n\n", "in `layers", "PipelineConfig", "Fields", "LayerConfig", "line 0"] {
        assert!(!error.trim_end().contains(garbled), "{format:?}: {garbled:?} in\n{error}");
    }
}

#[test]
fn alone() {
    for wrong in WRONG {
        for (format, text) in FORMATS.into_iter().zip(wrong.texts).filter(|(_, text)| !text.is_empty()) {
            check(format, wrong, &format.read::<PipelineConfig>(text).unwrap_err());
        }
    }
}

#[test]
fn as_a_field_of_a_services_own_settings() {
    for wrong in WRONG {
        for (format, text) in FORMATS.into_iter().zip(wrong.texts).filter(|(_, text)| !text.is_empty()) {
            check(format, wrong, &format.read::<Service>(&format.within(text)).unwrap_err());
        }
    }
}

#[test]
fn from_a_value_that_was_read_before() {
    for wrong in WRONG {
        let value: serde_json::Value = serde_json::from_str(wrong.texts[0]).unwrap();
        check(Format::Json, wrong, &serde_json::from_value::<PipelineConfig>(value).unwrap_err().to_string());
        if !wrong.texts[1].is_empty() {
            let value: toml::Value = toml::from_str(wrong.texts[1]).unwrap();
            check(Format::Toml, wrong, &value.try_into::<PipelineConfig>().unwrap_err().to_string());
        }
    }
}

#[test]
fn what_the_two_most_common_look_like() {
    let error = Format::Json.read::<PipelineConfig>(WRONG[0].texts[0]).unwrap_err();
    assert_eq!(error, "layers[1].retry.max_attempts: invalid type: string \"three\", expected u32 at line 1 column 78");
    let error = Format::Toml.read::<PipelineConfig>(WRONG[0].texts[1]).unwrap_err();
    assert_eq!(
        error.trim_end(),
        "layers[1].retry.max_attempts: TOML parse error at line 2, column 58\n  \
         |\n\
         2 | layers = [{ timeout = '4s' }, { retry = { max_attempts = 'three' } }]\n  \
         |                                                          ^^^^^^^\n\
         invalid type: string \"three\", expected u32"
    );
}

#[test]
fn a_key_that_is_given_twice_is_refused() {
    for (format, text) in [
        (Format::Json, r#"{"name": "a", "layers": [{"retry": {"max_attempts": 3, "max_attempts": 4}}]}"#),
        (Format::Json, r#"{"name": "a", "layers": [{"retry": {}, "retry": {}}]}"#),
        (Format::Json, r#"{"name": "a", "name": "b"}"#),
        (Format::Toml, "name = 'a'\nname = 'b'"),
        (Format::Yaml, "name: a\nlayers:\n  - retry:\n      max_attempts: 3\n      max_attempts: 4"),
        (Format::Yaml, "name: a\nlayers:\n  - retry: {}\n    retry: {}"),
    ] {
        assert!(format.read::<PipelineConfig>(text).is_err(), "{text}");
    }
}
