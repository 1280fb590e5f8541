//! What the dashboard reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

/// The metrics that the dashboard reads, with the keys of the labels that it reads of each.
pub(crate) fn reads() -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for expression in expressions(&dashboard()) {
        let (names, keys) = parts(&expression);
        assert!(!names.is_empty(), "it reads nothing: {expression}");
        for name in names {
            metrics.entry(name).or_default().extend(keys.iter().cloned());
        }
    }
    metrics
}

pub(crate) fn dashboard() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/withstand.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// All queries, wherever they are.
fn expressions(json: &Value) -> Vec<String> {
    match json {
        Value::Object(fields) => {
            let own = ["expr", "query"].iter().filter_map(|field| fields.get(*field)?.as_str());
            let own = own.filter(|query| query.contains("withstand_")).map(str::to_owned);
            own.chain(fields.values().flat_map(expressions)).collect()
        }
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

/// The metrics in a query, and the keys that it selects or groups by.
fn parts(query: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let names = query.split(|letter| !is_word(letter)).filter(|word| word.starts_with("withstand_"));
    let names = names.map(|name| {
        let whole = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        whole.filter(|whole| whole.ends_with("_seconds")).unwrap_or(name).to_owned()
    });
    let grouped = between(query, "by (", ")").flat_map(|keys| keys.split(','));
    let selected = between(query, "{", "}").flat_map(|list| list.split(','));
    let selected = selected.map(|selector| selector.split(|letter| !is_word(letter)).next().unwrap());
    let asked = between(query, "label_values(", ")").filter_map(|list| list.split(',').nth(1));
    let keys = grouped.chain(selected).chain(asked).map(|key| key.trim().to_owned());
    (names.collect(), keys.filter(|key| key != "le").collect())
}

fn between<'q>(query: &'q str, open: &'q str, close: &'q str) -> impl Iterator<Item = &'q str> {
    query.split(open).skip(1).map(move |rest| rest.split(close).next().unwrap())
}

/// The keys that the legends show must be among those that are grouped by.
pub(crate) fn legends(json: &Value) -> Vec<(String, BTreeSet<String>, BTreeSet<String>)> {
    match json {
        Value::Object(fields) => {
            let own = fields.get("expr").zip(fields.get("legendFormat")).map(|(query, legend)| {
                let (query, legend) = (query.as_str().unwrap(), legend.as_str().unwrap());
                (query.to_owned(), parts(query).1, between(legend, "{{", "}}").map(str::to_owned).collect())
            });
            own.into_iter().chain(fields.values().flat_map(legends)).collect()
        }
        Value::Array(items) => items.iter().flat_map(legends).collect(),
        _ => Vec::new(),
    }
}
