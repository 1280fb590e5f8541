//! Nonsense in a configuration is refused by name, and what is not refused works.
#![cfg(test)]

mod across_layers;

use std::{fmt::Debug, time::Duration};

use withstand::{
    Backoff, Bulkhead, CircuitBreaker, CircuitBreakerBuilder, ConfigError, Fallback, Hedge, HedgeBuilder, HedgeDelay,
    Jitter, Pipeline, Policy, Retry, RetryBudget, RetryBuilder, Timeout, VerdictKind,
};

const ZERO: Duration = Duration::ZERO;
const MAX: Duration = Duration::MAX;
const TICK: Duration = Duration::from_nanos(1);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A refusal names the policy, the field, the value and what would be accepted, and prints them all.
#[track_caller]
fn refused<P: Debug>(built: Result<P, ConfigError>, policy: &str, field: &str, value: &str) {
    let error = built.unwrap_err();
    assert_eq!(error.field(), field, "{error}");
    assert_eq!(error.value(), value, "{error}");
    assert_eq!(error.policy().map(withstand::Name::as_str), Some(policy), "{error}");
    assert!(!error.accepted().is_empty(), "{error}");
    assert_eq!(error.to_string(), format!("policy `{policy}`: {field} is {value}; accepted: {}", error.accepted()));
}

/// What was built lets a success pass, ends a failure and survives a call that hangs.
#[track_caller]
fn works<P: Policy<u8, &'static str>>(built: Result<P, ConfigError>) {
    let policy = built.unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let pipeline = Pipeline::builder("p").layer(policy).build().unwrap();
        assert!(!pipeline.explain().to_string().is_empty());
        for _ in 0..3 {
            let success = pipeline.call(|| async { Ok::<_, &str>(1) });
            if let Ok(result) = tokio::time::timeout(secs(100), success).await {
                assert!(result.is_ok() || result.is_err_and(|error| error.operation().is_none()));
            }
            let failure = pipeline.call(|| async { Err::<u8, _>("down") });
            drop(tokio::time::timeout(secs(100), failure).await);
            let hang = pipeline.call(|| async { std::future::pending::<Result<u8, &str>>().await });
            drop(tokio::time::timeout(secs(100), hang).await);
        }
    });
}

#[test]
fn a_blank_name_is_refused() {
    refused(Timeout::builder(secs(1)).name("").build(), "timeout", "name", "\"\"");
    refused(Retry::builder().name(" ").build(), "retry", "name", "\" \"");
    refused(Hedge::builder().name("\t").build(), "hedge", "name", "\"\\t\"");
    refused(Bulkhead::builder().limit(1).name("").build(), "bulkhead", "name", "\"\"");
    refused(CircuitBreaker::builder().name("").build(), "circuit_breaker", "name", "\"\"");
    refused(Fallback::value(1).name("").build(), "fallback", "name", "\"\"");
    let error = Pipeline::builder(" ").build().unwrap_err();
    assert_eq!(error.to_string(), "pipeline ` `: name is \" \"; accepted: a name that is not blank");
}

#[test]
fn a_timeout_is_longer_than_nothing_and_shorter_than_for_ever() {
    refused(Timeout::new(ZERO), "timeout", "limit", "0ns");
    refused(Timeout::new(MAX), "timeout", "limit", "18446744073709551615.999999999s");
    works(Timeout::new(TICK));
    works(Timeout::new(secs(30 * 365 * 24 * 60 * 60)));
}

#[test]
fn a_retry_makes_an_attempt_and_has_time_for_it() {
    let retry = Retry::builder;
    refused(retry().max_attempts(0).build(), "retry", "max_attempts", "0");
    refused(retry().max_elapsed(ZERO).build(), "retry", "max_elapsed", "0s");
    works(retry().max_attempts(1).build());
    works(retry().max_attempts(u32::MAX).build());
    works(retry().max_attempts(u32::MAX).without_budget().build());
    for extreme in [TICK, MAX] {
        works(retry().max_elapsed(extreme).build());
    }
    for extreme in [ZERO, TICK, MAX] {
        works(retry().min_time_left(extreme).build());
        works(retry().max_hint(extreme).build());
    }
}

#[test]
fn a_backoff_grows_and_stays_below_its_cap() {
    let retry = |backoff: Backoff| -> Result<Retry, ConfigError> { Retry::builder().backoff(backoff).build() };
    let exponential = || Backoff::exponential(ms(50));
    for (factor, shown) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (-1.0, "-1"), (0.0, "0"), (0.99, "0.99")] {
        refused(retry(exponential().factor(factor)), "retry", "factor", shown);
    }
    refused(retry(Backoff::constant(ms(50)).factor(2.0)), "retry", "factor", "2");
    refused(retry(exponential().cap(ms(49))), "retry", "cap", "49ms with a base of 50ms");
    refused(retry(Backoff::decorrelated(ms(50)).jitter(Jitter::Full)), "retry", "jitter", "Full");
    works(retry(exponential().factor(f64::MAX)));
    for extreme in [ZERO, TICK, MAX] {
        for backoff in [Backoff::constant, Backoff::linear, Backoff::exponential, Backoff::decorrelated] {
            works(retry(backoff(extreme)));
            works(retry(backoff(extreme).cap(MAX)));
        }
        works(retry(Backoff::custom(move |_| Some(extreme))));
        works(retry(Backoff::custom(move |_| Some(MAX)).cap(extreme).jitter(Jitter::Equal)));
    }
}

#[test]
fn a_budget_deposits_a_share_and_holds_what_it_begins_with() {
    let own = |budget| Retry::builder().own_budget(budget).build();
    let hedge = |budget| Hedge::builder().own_budget(budget).build();
    let budget = RetryBudget::builder;
    let ratios = [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf"), (-0.1, "-0.1"), (1.1, "1.1")];
    for (ratio, shown) in ratios {
        refused(own(budget().ratio(ratio)), "retry", "ratio", shown);
        refused(hedge(budget().ratio(ratio)), "hedge", "ratio", shown);
        assert_eq!(budget().ratio(ratio).build().unwrap_err().field(), "ratio");
    }
    refused(own(budget().initial(101)), "retry", "initial", "101 with a cap of 100");
    for ratio in [0.0, -0.0, f64::MIN_POSITIVE, 1.0] {
        works(own(budget().ratio(ratio)));
    }
    works(own(budget().initial(0).cap(0)));
    works(own(budget().initial(u32::MAX).cap(u32::MAX)));
    works(hedge(budget().initial(0).cap(u32::MAX)));
}

#[test]
fn a_hedge_makes_a_few_attempts_at_some_time() {
    let hedge = Hedge::builder;
    for (hedges, shown) in [(0, "0"), (33, "33"), (u32::MAX, "4294967295")] {
        refused(hedge().max_hedges(hedges).build(), "hedge", "max_hedges", shown);
    }
    works(hedge().max_hedges(32).delay(HedgeDelay::parallel()).without_budget().build());
    works(hedge().delay(HedgeDelay::on_failure()).build());
    for extreme in [ZERO, TICK, MAX] {
        works(hedge().delay(extreme).build());
        works(hedge().delay(HedgeDelay::custom(move |_| Some(extreme))).build());
    }
    works(hedge().delay(HedgeDelay::custom(|_| None)).build());
}

#[test]
fn a_hedge_by_quantile_has_one_and_samples_for_it() {
    let hedge =
        |delay: HedgeDelay| -> Result<Hedge, ConfigError> { HedgeBuilder::delay(Hedge::builder(), delay).build() };
    let p95 = || HedgeDelay::quantile(0.95);
    let quantiles = [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (-0.5, "-0.5"), (0.0, "0"), (1.0, "1"), (95.0, "95")];
    for (quantile, shown) in quantiles {
        refused(hedge(HedgeDelay::quantile(quantile)), "hedge", "quantile", shown);
    }
    refused(hedge(p95().ceiling(ms(4))), "hedge", "ceiling", "4ms");
    refused(hedge(p95().starting(ZERO)), "hedge", "starting", "0s");
    refused(hedge(p95().min_samples(0)), "hedge", "min_samples", "0");
    refused(hedge(p95().window(Duration::from_nanos(999_999))), "hedge", "window", "999.999µs");
    works(hedge(HedgeDelay::quantile(f64::MIN_POSITIVE).floor(ZERO)));
    works(hedge(p95().floor(MAX).starting(TICK).min_samples(u32::MAX).window(MAX)));
    works(hedge(p95().floor(ZERO).ceiling(ZERO).starting(MAX).min_samples(1).window(ms(1))));
}

#[test]
fn a_bulkhead_has_a_limit_that_its_semaphore_can_count() {
    let bulkhead = Bulkhead::builder;
    let most = Bulkhead::MAX_LIMIT;
    refused(bulkhead().build(), "bulkhead", "limit", "missing");
    refused(bulkhead().limit(most + 1).build(), "bulkhead", "limit", &(most + 1).to_string());
    refused(bulkhead().limit(usize::MAX).build(), "bulkhead", "limit", &usize::MAX.to_string());
    refused(bulkhead().limit(1).queue(1).max_wait(ZERO).build(), "bulkhead", "max_wait", "0s");
    refused(bulkhead().limit(1).max_wait(secs(1)).build(), "bulkhead", "max_wait", "1s without a queue");
    works(bulkhead().limit(0).build());
    works(bulkhead().limit(0).queue(usize::MAX).max_wait(MAX).build());
    works(bulkhead().limit(1).queue(usize::MAX).max_wait(TICK).build());
    works(bulkhead().limit(most).queue(usize::MAX).max_wait(MAX).build());
}

#[test]
fn a_breaker_has_windows_that_can_be_kept() {
    let breaker = |set: fn(CircuitBreakerBuilder) -> CircuitBreakerBuilder| set(CircuitBreaker::builder()).build();
    let bad = |built, field, value| refused(built, "circuit_breaker", field, value);
    bad(breaker(|b| b.time_window(ZERO)), "time_window", "0ns");
    bad(breaker(|b| b.time_window(Duration::from_nanos(999_999))), "time_window", "999.999µs");
    bad(breaker(|b| b.count_window(0)), "count_window", "0");
    bad(breaker(|b| b.count_window(u32::MAX)), "count_window", "4294967295");
    bad(breaker(|b| b.consecutive_failures(0)), "consecutive_failures", "0");
    bad(breaker(|b| b.consecutive_failures(u32::MAX)), "consecutive_failures", "4294967295");
    bad(breaker(|b| b.consecutive_span(secs(1))), "consecutive_span", "1s without consecutive_failures");
    bad(breaker(|b| b.min_calls(0)), "min_calls", "0");
    bad(breaker(|b| b.slow_call(ZERO)), "slow_call", "0s");
    bad(breaker(|b| b.slow_rate(0.5)), "slow_rate", "0.5 without slow_call");
    works(breaker(|b| b.time_window(ms(1))));
    works(breaker(|b| b.time_window(MAX)));
    works(breaker(|b| b.count_window(1)));
    works(breaker(|b| b.count_window(10_000).min_calls(u32::MAX)));
    works(breaker(|b| b.consecutive_failures(1).consecutive_span(MAX)));
    works(breaker(|b| b.consecutive_failures(10_000).consecutive_span(ZERO)));
    works(breaker(|b| b.slow_call(TICK).slow_rate(f64::MIN_POSITIVE).min_calls(1)));
    works(breaker(|b| b.slow_call(MAX)));
}

#[test]
fn rates_of_a_breaker_are_shares() {
    let rates = [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (1.01, "1.01"),
        (50.0, "50"),
    ];
    for (rate, shown) in rates {
        refused(CircuitBreaker::builder().failure_rate(rate).build(), "circuit_breaker", "failure_rate", shown);
        let slow = CircuitBreaker::builder().slow_call(secs(1)).slow_rate(rate);
        refused(slow.build(), "circuit_breaker", "slow_rate", shown);
    }
    for rate in [f64::MIN_POSITIVE, 1.0] {
        works(CircuitBreaker::builder().failure_rate(rate).min_calls(1).build());
    }
}

#[test]
fn a_breaker_opens_for_a_while_and_closes_again() {
    let breaker = |set: fn(CircuitBreakerBuilder) -> CircuitBreakerBuilder| set(CircuitBreaker::builder()).build();
    let bad = |built, field, value| refused(built, "circuit_breaker", field, value);
    bad(breaker(|b| b.open_for(ZERO)), "open_for", "0s");
    bad(breaker(|b| b.growth(f64::NAN)), "growth", "NaN");
    bad(breaker(|b| b.growth(f64::INFINITY)), "growth", "inf");
    bad(breaker(|b| b.growth(-2.0)), "growth", "-2");
    bad(breaker(|b| b.growth(0.9)), "growth", "0.9");
    bad(breaker(|b| b.max_open_for(secs(4))), "max_open_for", "4s");
    bad(breaker(|b| b.jitter(f64::NAN)), "jitter", "NaN");
    bad(breaker(|b| b.jitter(-0.1)), "jitter", "-0.1");
    bad(breaker(|b| b.jitter(f64::INFINITY)), "jitter", "inf");
    bad(breaker(|b| b.probes(0)), "probes", "0");
    bad(breaker(|b| b.probes(u32::MAX)), "probes", "4294967295");
    bad(breaker(|b| b.close_after(0)), "close_after", "0");
    bad(breaker(|b| b.close_after(4)), "close_after", "4");
    bad(breaker(|b| b.probe_lease(ZERO)), "probe_lease", "0s");
    let quick = |set: fn(CircuitBreakerBuilder) -> CircuitBreakerBuilder| {
        set(CircuitBreaker::builder().count_window(1).min_calls(1)).build()
    };
    works(quick(|b| b.open_for(TICK).growth(f64::MAX).max_open_for(MAX).jitter(1.0)));
    works(quick(|b| b.open_for(MAX).max_open_for(MAX).jitter(1.0)));
    works(quick(|b| b.open_for(TICK).probes(1_000).close_after(1).probe_lease(TICK)));
    works(quick(|b| b.open_for(TICK).probe_lease(MAX)));
}

#[test]
fn a_fallback_answers_for_something_and_has_time_for_it() {
    refused(Fallback::value(1).handles([]).build(), "fallback", "handles", "empty");
    refused(Fallback::value(1).limit(ZERO).build(), "fallback", "limit", "0s");
    let slow = || Fallback::from_future(|_: &withstand::Outcome<u8, &'static str>| std::future::pending());
    for extreme in [TICK, MAX] {
        works(slow().limit(extreme).build());
    }
    works(Fallback::value(1).handles([VerdictKind::Success; 100]).build());
}
