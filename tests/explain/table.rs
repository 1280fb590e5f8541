//! How a plan prints.

use super::*;

#[test]
fn the_readme_pipeline_prints_as_a_small_table() {
    assert_eq!(
        readme().to_string(),
        "\
pipeline users-api
  #  layer            kind             settings
  1  fallback         fallback         handles transient|unreached|throttled|failure|rejected
  2  timeout          timeout          limit 4s
  3  retry            retry            max_attempts 3,
                                       backoff exponential 50ms x2 up to 1s, full jitter,
                                       budget 0.2 up to 100
  4  bulkhead         bulkhead         limit 100, queue 0
  5  circuit_breaker  circuit_breaker  time_window 30s, failure_rate 0.5, min_calls 20,
                                       open_for 5s to 60s, probes 3, close_after 3
  6  timeout-2        timeout          limit 1s
  operation
attempts for one call   at most 3
time for one call       at most 4s
  without hints         at most 3.15s
load in an outage       3x without budgets; 1x with them, plus at most 100 attempts saved up
warnings                none"
    );
}

#[test]
fn an_empty_pipeline_prints_what_it_lacks() {
    assert_eq!(
        plan![].to_string(),
        "\
pipeline users-api
  operation
attempts for one call   at most 1
time for one call       unbounded
load in an outage       1x
warnings                1
  - no timeout limits the time of a call: one that hangs does so for ever; add one for the whole
    call, outermost, and one for each attempt, innermost"
    );
}

#[test]
fn a_custom_layer_is_shown_by_its_type_and_unknown() {
    let plan = plan![timeout(secs(1)), layer(Silent)];
    let table = plan.to_string();
    assert!(table.contains("  2  Silent   custom\n"), "{table}");
    assert!(table.contains("attempts for one call   unknown\n"), "{table}");
}

#[test]
fn no_line_is_long() {
    let own = LayerInfo::custom("own").setting("text", "word ".repeat(60)).setting("lines", "a\nb");
    let plan = plan![
        circuit_breaker(CircuitBreaker::builder().name("a-breaker-with-a-long-name")),
        retry(retry(3).without_budget().name("a-retry-with-a-long-name")),
        layer(Own(Some(own))),
        bulkhead(Bulkhead::builder().limit(0).queue(1)),
    ];
    for line in plan.to_string().lines() {
        assert!(line.chars().count() < 100, "{} characters: {line}", line.chars().count());
    }
    assert!(plan.to_string().contains("lines a b"));
}

#[test]
fn a_line_is_filled_to_its_last_column() {
    let lines = |first: usize, second: usize| {
        let own = LayerInfo::custom("own").setting("a", "x".repeat(first)).setting("b", "y".repeat(second));
        let plan = plan![layer(Own(Some(own)))].to_string();
        plan.lines().skip(2).take_while(|line| *line != "  operation").map(str::len).collect::<Vec<_>>()
    };
    // The settings begin in column 20, and each has its name, a space and, but for the last, a comma.
    assert_eq!(lines(37, 36), [99]);
    assert_eq!(lines(37, 37), [60, 59]);
    // As wide as a line, and at its beginning.
    assert_eq!(lines(76, 77), [99, 99]);
}

#[test]
fn a_break_that_does_not_grow_has_one_length() {
    let steady = plan![circuit_breaker(CircuitBreaker::builder().growth(1.0).jitter(0.1))].to_string();
    assert!(steady.contains("open_for 5s, jitter 0.1,"), "{steady}");
    let five = Duration::from_secs(5);
    let capped = plan![circuit_breaker(CircuitBreaker::builder().open_for(five).max_open_for(five))].to_string();
    assert!(capped.contains("open_for 5s,"), "{capped}");
}

#[test]
fn a_hedge_without_a_ceiling_shows_none() {
    let hedged = plan![hedge(Hedge::builder())].to_string();
    assert!(hedged.contains("quantile 0.95 from 5ms") && !hedged.contains("from 5ms to"), "{hedged}");
}

/// The kind and the settings of each layer.
fn settings(plan: &Plan) -> Vec<String> {
    let layers = plan.layers().iter();
    layers
        .map(|layer| {
            let settings = layer.settings().iter().map(|(field, value)| format!("{field} {value}"));
            format!("{}: {}", layer.kind(), settings.collect::<Vec<_>>().join(", "))
        })
        .collect()
}

#[test]
fn the_standard_pipelines_are_what_they_are_said_to_be() {
    let breaker = "circuit_breaker: time_window 30s, failure_rate 0.5, min_calls 20, slow_call 800ms at 0.8, \
                   open_for 5s to 60s, jitter 0.1, probes 3, close_after 3";
    let retry = |attempts| {
        format!(
            "retry: max_attempts {attempts}, backoff exponential 50ms x2 up to 1s, full jitter, budget 0.2 up to 100"
        )
    };
    let standard = Pipeline::standard("users-api").build().unwrap().explain();
    assert_eq!(
        settings(&standard),
        ["timeout: limit 4s", &retry(3), "bulkhead: limit 100, queue 0", breaker, "timeout: limit 1s",]
    );
    let hedged = Pipeline::standard_hedged("users-api").build().unwrap().explain();
    assert_eq!(
        settings(&hedged),
        [
            "timeout: limit 4s",
            &retry(2),
            "hedge: max_hedges 1, delay quantile 0.95 from 5ms to 500ms, budget 0.1 up to 10",
            "bulkhead: limit 100, queue 0",
            breaker,
            "timeout: limit 1s",
        ]
    );
}
