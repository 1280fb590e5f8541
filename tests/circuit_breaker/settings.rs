//! Nonsense is refused by name; what is merely extreme works.

use std::time::Duration;

use withstand::{CircuitBreaker, CircuitBreakerBuilder, ConfigError, Pipeline};

use crate::users::{ms, sleep};

fn builder() -> CircuitBreakerBuilder {
    CircuitBreaker::builder()
}

/// The field that is refused, and its value.
fn refused(builder: CircuitBreakerBuilder) -> (&'static str, String) {
    let error: ConfigError = builder.build().unwrap_err();
    assert_eq!(error.policy().unwrap(), "circuit_breaker");
    assert!(!error.accepted().is_empty());
    (error.field(), error.value().to_owned())
}

#[test]
fn a_share_is_more_than_nothing_and_at_most_all() {
    for share in [0.0, -0.0, -1.0, 1.000_001, 50.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(refused(builder().failure_rate(share)).0, "failure_rate", "{share}");
        let slow = builder().slow_call(ms(1)).slow_rate(share);
        assert_eq!(refused(slow).0, "slow_rate", "{share}");
    }
    for share in [-0.001, 1.001, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(builder().jitter(share)).0, "jitter", "{share}");
    }
    for factor in [0.0, 0.999, -2.0, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(builder().growth(factor)).0, "growth", "{factor}");
    }
}

#[test]
fn a_number_of_nothing_or_more_than_there_is_room_for_is_refused() {
    let refusals = [
        (builder().count_window(0), "count_window"),
        (builder().count_window(16_385), "count_window"),
        (builder().count_window(u32::MAX), "count_window"),
        (builder().consecutive_failures(0), "consecutive_failures"),
        (builder().consecutive_failures(16_384), "consecutive_failures"),
        (builder().min_calls(0), "min_calls"),
        (builder().probes(0), "probes"),
        (builder().probes(1_001), "probes"),
        (builder().probes(u32::MAX), "probes"),
        (builder().close_after(0), "close_after"),
        (builder().probes(3).close_after(4), "close_after"),
        (builder().time_window(Duration::ZERO), "time_window"),
        (builder().time_window(Duration::from_micros(999)), "time_window"),
        (builder().slow_call(Duration::ZERO), "slow_call"),
        (builder().open_for(Duration::ZERO), "open_for"),
        (builder().probe_lease(Duration::ZERO), "probe_lease"),
        (builder().open_for(ms(10)).max_open_for(ms(9)), "max_open_for"),
    ];
    for (builder, field) in refusals {
        assert_eq!(refused(builder).0, field);
    }
}

#[test]
fn what_would_silently_do_nothing_is_refused() {
    let run = || builder().consecutive_failures(3);
    assert_eq!(refused(builder().slow_rate(0.5)).0, "slow_rate");
    assert_eq!(refused(builder().consecutive_span(ms(5))).0, "consecutive_span");
    assert_eq!(refused(run().failure_rate(0.5)).0, "failure_rate");
    assert_eq!(refused(run().min_calls(5)).0, "min_calls");
    assert_eq!(refused(run().slow_call(ms(5))).0, "slow_call");
    run().failure_rate(0.5).min_calls(5).slow_call(ms(5)).count_window(9).build().unwrap();
}

#[test]
fn an_error_names_pipeline_policy_field_and_value() {
    let error = Pipeline::builder("users").circuit_breaker(builder().name("db").probes(0)).build().unwrap_err();
    assert_eq!(error.to_string(), "pipeline `users`, policy `db`: probes is 0; accepted: 1 to 1000");
    assert_eq!(builder().name(" ").build().unwrap_err().field(), "name");
    let error = builder().name("db").min_calls(0).build().unwrap_err();
    assert_eq!(error.to_string(), "policy `db`: min_calls is 0; accepted: 1 or more");
}

#[tokio::test(start_paused = true)]
async fn extremes_neither_panic_nor_stick() {
    let extremes = [
        builder().count_window(1).min_calls(u32::MAX),
        builder().count_window(16_384).min_calls(1).failure_rate(f64::MIN_POSITIVE),
        builder().consecutive_failures(1).consecutive_span(Duration::ZERO).time_window(Duration::MAX).min_calls(1),
        builder().time_window(Duration::MAX).min_calls(1).slow_call(Duration::MAX),
        builder().time_window(ms(1)).min_calls(1).slow_call(Duration::from_nanos(1)).slow_rate(1.0),
        builder().count_window(1).open_for(Duration::from_nanos(1)).max_open_for(Duration::MAX).growth(f64::MAX),
        builder().count_window(1).open_for(ms(1)).growth(f64::MAX).jitter(1.0),
        builder().count_window(1).probes(1_000).close_after(1).probe_lease(Duration::from_nanos(1)),
        builder().count_window(1).probes(1_000).probe_lease(Duration::MAX),
    ];
    for extreme in extremes {
        let shown = format!("{extreme:?}");
        let breaker = extreme.build().unwrap();
        for _ in 0..3 {
            if let Ok(ticket) = breaker.admit() {
                ticket.failure("down");
            }
            let state = breaker.snapshot().state;
            assert_eq!(state, breaker.state(), "{shown}");
            assert_eq!(breaker.admit().is_ok(), state.as_str() != "open", "{shown}");
            sleep(1).await;
        }
        breaker.reset();
        assert!(breaker.admit().is_ok(), "{shown}");
    }
}
