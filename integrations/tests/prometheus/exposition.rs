//! The text that Prometheus reads, as data.

use std::collections::{BTreeMap, BTreeSet};

/// A series: the name of the metric, and its labels.
pub(crate) type Series = (String, BTreeMap<String, String>);

/// The values of all series of this crate, as they stand in the text.
pub(crate) fn parse(text: &str) -> BTreeMap<Series, f64> {
    let ours = text.lines().filter(|line| line.starts_with("withstand_"));
    let values: Vec<_> = ours.map(line).collect();
    let count = values.len();
    let values: BTreeMap<_, _> = values.into_iter().collect();
    assert_eq!(values.len(), count, "no series is told twice");
    values
}

/// Words in labels have neither commas nor quotes here.
fn line(line: &str) -> (Series, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.strip_suffix('}').map_or((series, ""), |series| series.split_once('{').unwrap());
    let label = |label: &str| {
        let (key, value) = label.split_once('=').unwrap();
        (key.to_owned(), value.trim_matches('"').to_owned())
    };
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(label).collect();
    ((name.to_owned(), labels), value.parse().unwrap())
}

/// The kinds of the metrics of this crate, by name.
pub(crate) fn kinds(text: &str) -> BTreeMap<String, String> {
    let kind = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        name.starts_with("withstand_").then(|| (name.to_owned(), kind.to_owned()))
    };
    text.lines().filter_map(kind).collect()
}

/// The metrics of this crate with the keys of their labels, a histogram as one.
pub(crate) fn labels(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let kinds = kinds(text);
    let mut metrics: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for ((name, labels), _) in parse(text) {
        let whole = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        let metric = if kinds.get(whole).is_some_and(|kind| kind == "histogram") { whole } else { &name };
        let keys = labels.into_keys().filter(|key| key != "le");
        metrics.entry(metric.to_owned()).or_default().extend(keys);
    }
    metrics
}
