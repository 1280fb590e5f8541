//! What a snapshot is as JSON.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use withstand::{
    Bulkhead, CallOptions, CircuitBreaker, Classification, Fallback, Hedge, HedgeDelay, Pipeline, Registry, Retry,
    Verdict,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn it_has_exactly_this_shape_and_nothing_of_what_a_call_was_about() {
    let users = Pipeline::builder("users-api")
        .fallback(Fallback::value("a secret answer"))
        .timeout(ms(4_000))
        .retry(Retry::builder().max_attempts(1))
        .hedge(Hedge::builder().delay(HedgeDelay::fixed(ms(500))).without_budget())
        .bulkhead(Bulkhead::builder().limit(5).queue(2))
        .circuit_breaker(CircuitBreaker::builder().count_window(4).min_calls(2).slow_call(ms(900)))
        .timeout(ms(1_000))
        .classify_errors(|_: &String| -> Classification { Verdict::failure().label("http_503") })
        .build()
        .unwrap();
    for key in ["secret-key-1", "secret-key-2"] {
        let answer = users.call_with(CallOptions::new(), move |_| async move {
            Err::<&str, _>(format!("a secret error about {key}"))
        });
        assert_eq!(answer.await, Ok("a secret answer"));
    }
    sleep(ms(1_500)).await;
    let snapshot = serde_json::to_value(users.handle().snapshot()).unwrap();
    let expected = json!({
        "pipeline": "users-api",
        "layers": [
            { "name": "fallback", "kind": "fallback", "settings": { "handles": "transient|unreached|throttled|failure|rejected" }, "state": null },
            { "name": "timeout", "kind": "timeout", "settings": { "limit": "4s" }, "state": null },
            {
                "name": "retry", "kind": "retry",
                "settings": {
                    "max_attempts": "1", "backoff": "exponential 50ms x2 up to 1s, full jitter",
                    "budget": "0.2 up to 100",
                },
                "state": { "budget": { "balance": 10.0, "cap": 100, "ratio": 0.2 } },
            },
            {
                "name": "hedge", "kind": "hedge",
                "settings": { "max_hedges": "1", "delay": "500ms", "budget": "none" },
                "state": { "current_delay": 0.5, "latencies": null, "budget": null },
            },
            {
                "name": "bulkhead", "kind": "bulkhead",
                "settings": { "limit": "5", "queue": "2", "max_wait": "100ms" },
                "state": { "limit": 5, "in_use": 0, "queue": 2, "queued": 0 },
            },
            {
                "name": "circuit_breaker", "kind": "circuit_breaker",
                "settings": {
                    "count_window": "4", "failure_rate": "0.5", "min_calls": "2", "slow_call": "900ms at 0.8",
                    "open_for": "5s to 60s", "probes": "3, close_after 3",
                },
                "state": {
                    "state": "open", "calls": 0, "failures": 0, "slow_calls": 0,
                    "failure_rate": null, "slow_rate": null, "consecutive_failures": 0,
                    "probes_in_flight": 0, "probe_successes": 0, "probe_failures": 0, "reopenings": 0,
                    "opening": {
                        "trigger": "failure_rate", "failure_rate": 1.0, "slow_rate": 0.0, "calls": 2, "label": "http_503",
                    },
                    "open_for": 3.5,
                    "transitions": [{
                        "to": "open", "ago": 1.5,
                        "opening": {
                            "trigger": "failure_rate", "failure_rate": 1.0, "slow_rate": 0.0, "calls": 2,
                            "label": "http_503",
                        },
                        "closed_by": null,
                    }],
                },
            },
            { "name": "timeout-2", "kind": "timeout", "settings": { "limit": "1s" }, "state": null },
        ],
    });
    assert_eq!(snapshot, expected, "\n{}", serde_json::to_string_pretty(&snapshot).unwrap());
    for text in [snapshot.to_string(), serde_json::to_string(&Registry::global().snapshot()).unwrap()] {
        assert!(!text.contains("secret"), "{text}");
    }
    users.handle().reset();
    let Value::Array(layers) = &serde_json::to_value(users.handle().snapshot()).unwrap()["layers"] else { panic!() };
    let state = &layers[5]["state"];
    assert_eq!(
        (&state["state"], &state["open_for"], &state["opening"]),
        (&json!("closed"), &json!(null), &json!(null))
    );
    assert_eq!(state["transitions"][1]["closed_by"], json!("reset"));
}
