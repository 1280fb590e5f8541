//! A real endpoint for Prometheus, scraped over HTTP after faults were injected, against what was counted by hand; and
//! the dashboard, against what the endpoint exposes.
#![cfg(test)]

mod dashboard;
mod exposition;
mod scenario;
mod service;

use std::collections::BTreeMap;

use exposition::{kinds, labels, parse};
use scenario::scraped;

#[test]
fn the_endpoint_tells_what_was_counted_by_hand() {
    let scraped = scraped();
    let mut told = parse(&scraped.text);
    told.retain(|(name, _), _| !name.ends_with("_bucket") && !name.ends_with("_sum"));
    let mut wrong = Vec::new();
    for series in scraped.counted.keys().chain(told.keys()) {
        let value = |values: &BTreeMap<_, f64>| values.get(series).copied().unwrap_or(f64::NAN);
        let (counted, told) = (value(&scraped.counted), value(&told));
        // A gauge of a budget adds fractions.
        if (counted - told).abs() > 1e-6 || counted.is_nan() || told.is_nan() {
            wrong.push(format!("{series:?}: counted {counted}, told {told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn durations_are_in_seconds_and_fall_into_buckets() {
    let told = parse(&scraped().text);
    let labels = |outcome: &str, label: &str| {
        let labels = [("pipeline", "users-api"), ("outcome", outcome), ("label", label), ("attempt_class", "first")];
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect::<BTreeMap<_, _>>()
    };
    let name = |end: &str| format!("withstand_attempt_duration_seconds_{end}");
    let timed_out = labels("timed_out", "timed_out");
    let sum = told[&(name("sum"), timed_out.clone())];
    assert!((1.0..2.0).contains(&sum), "one attempt, cut off after a second: {sum}");
    let bucket = |below: &str| {
        let mut labels = timed_out.clone();
        labels.insert("le".to_owned(), below.to_owned());
        told[&(name("bucket"), labels)]
    };
    assert_eq!((bucket("0.75"), bucket("2.5"), bucket("+Inf")), (0.0, 1.0, 1.0));
}

#[test]
fn the_endpoint_describes_every_metric() {
    let text = &scraped().text;
    let kinds = kinds(text);
    assert_eq!(kinds.len(), 13, "{kinds:#?}");
    for name in kinds.keys() {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no description");
    }
}

#[test]
fn the_dashboard_reads_exactly_what_the_endpoint_exposes() {
    let (reads, exposed) = (dashboard::reads(), labels(&scraped().text));
    assert_eq!(reads, exposed);
}

#[test]
fn the_legends_of_the_dashboard_show_labels_that_its_queries_keep() {
    let legends = dashboard::legends(&dashboard::dashboard());
    assert!(legends.len() > 15, "only {} legends", legends.len());
    for (query, keys, shown) in legends {
        assert!(shown.is_subset(&keys), "{query} has {keys:?}, and the legend shows {shown:?}");
    }
}
