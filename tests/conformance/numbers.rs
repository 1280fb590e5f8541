//! Numbers that nobody means: every setting takes them and works, or refuses them.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use withstand::{
    Backoff, BoxPolicy, Bulkhead, CallOptions, CircuitBreaker, ConfigError, Fallback, Hedge, HedgeDelay, Jitter,
    Outcome, Pipeline, Policy, Retry, RetryBudget, Timeout, Verdict,
};

use crate::support::{as_it_says, ms, secs};

type Boxed = BoxPolicy<u32, Verdict>;

fn boxed<P: Policy<u32, Verdict> + 'static>(policy: Result<P, ConfigError>) -> Result<Boxed, ConfigError> {
    policy.map(BoxPolicy::new)
}

fn retry(backoff: Backoff) -> Result<Boxed, ConfigError> {
    boxed(Retry::builder().backoff(backoff).without_budget().build())
}

fn hedge(delay: HedgeDelay) -> Result<Boxed, ConfigError> {
    boxed(Hedge::builder().delay(delay).without_budget().build())
}

/// Every setting of every builder that is a duration.
fn with_every_duration(long: Duration) -> Vec<(&'static str, Result<Boxed, ConfigError>)> {
    let breaker = || CircuitBreaker::builder().count_window(1).min_calls(1);
    let waits = |_: &Outcome<u32, Verdict>| async { Some(Ok(0)) };
    let quantile = || HedgeDelay::quantile(0.5).min_samples(1).floor(Duration::ZERO);
    vec![
        ("timeout", boxed(Timeout::new(long))),
        ("backoff: constant", retry(Backoff::constant(long))),
        ("backoff: constant, no jitter", retry(Backoff::constant(long).jitter(Jitter::None))),
        ("backoff: linear", retry(Backoff::linear(long))),
        ("backoff: exponential", retry(Backoff::exponential(long))),
        ("backoff: exponential, equal jitter", retry(Backoff::exponential(long).jitter(Jitter::Equal))),
        ("backoff: decorrelated", retry(Backoff::decorrelated(long))),
        ("backoff: cap", retry(Backoff::exponential(ms(1)).factor(1e300).cap(long))),
        ("backoff: cap, linear", retry(Backoff::linear(long).cap(long))),
        ("backoff: custom", retry(Backoff::custom(move |_| Some(long)))),
        ("retry: max_elapsed", boxed(Retry::builder().max_elapsed(long).build())),
        ("retry: min_time_left", boxed(Retry::builder().min_time_left(long).build())),
        ("retry: max_hint", boxed(Retry::builder().max_hint(long).build())),
        ("breaker: time_window", boxed(CircuitBreaker::builder().time_window(long).min_calls(1).build())),
        (
            "breaker: consecutive_span",
            boxed(CircuitBreaker::builder().consecutive_failures(2).consecutive_span(long).build()),
        ),
        ("breaker: slow_call", boxed(breaker().slow_call(long).build())),
        ("breaker: open_for", boxed(breaker().open_for(long).build())),
        ("breaker: open_for, jitter", boxed(breaker().open_for(long).jitter(1.0).build())),
        ("breaker: max_open_for", boxed(breaker().open_for(ms(1)).max_open_for(long).growth(f64::MAX).build())),
        ("breaker: probe_lease", boxed(breaker().open_for(ms(1)).probe_lease(long).build())),
        ("bulkhead: max_wait", boxed(Bulkhead::builder().limit(1).queue(1).max_wait(long).build())),
        ("hedge: fixed", hedge(HedgeDelay::fixed(long))),
        ("hedge: custom", hedge(HedgeDelay::custom(move |_| Some(long)))),
        ("hedge: floor", hedge(quantile().floor(long))),
        ("hedge: ceiling", hedge(quantile().ceiling(long))),
        ("hedge: floor and ceiling", hedge(quantile().floor(long).ceiling(long))),
        ("hedge: starting", hedge(quantile().starting(long))),
        ("hedge: window", hedge(quantile().window(long))),
        ("fallback: limit", boxed(Fallback::from_future(waits).limit(long).build())),
    ]
}

/// Calls that end in every way, some of them twice so that a second result meets what the first one left.
async fn use_it(name: &str, policy: Boxed, long: Duration) {
    let pipeline = Pipeline::builder("any").layer(policy).classify_errors(as_it_says).build();
    let Ok(pipeline) = pipeline else { return };
    assert!(!pipeline.explain().to_string().is_empty(), "{name}");
    let hinted = Verdict::transient().retry_after(long);
    for reply in [Ok(7), Err(Verdict::transient()), Err(hinted), Err(Verdict::throttled().retry_after(long)), Ok(7)] {
        for takes in [0, 1] {
            let call = pipeline.call(|| async move {
                if takes > 0 {
                    sleep(ms(takes)).await;
                }
                reply
            });
            // It may wait for ever, as it was told to.
            drop(timeout(secs(1), call).await);
        }
    }
    let far = CallOptions::new().deadline(Instant::now() + secs(1_000_000_000));
    drop(timeout(secs(1), pipeline.call_with(far, |_| std::future::pending::<Result<u32, Verdict>>())).await);
    assert!(!pipeline.explain().to_string().is_empty(), "{name}");
}

#[tokio::test(start_paused = true)]
async fn no_duration_is_too_long_or_too_short_to_be_refused_or_work() {
    assert!(Instant::now().checked_add(Duration::MAX).is_none(), "whoever adds it to the time panics");
    let short = [Duration::ZERO, Duration::from_nanos(1)];
    let long = [Duration::from_nanos(u64::MAX), Duration::from_secs(u64::MAX), Duration::MAX];
    for duration in short.into_iter().chain(long) {
        let mut accepted = 0;
        for (name, policy) in with_every_duration(duration) {
            match policy {
                Ok(policy) => {
                    accepted += 1;
                    use_it(name, policy, duration).await;
                }
                Err(error) => assert!(!error.field().is_empty(), "{name}"),
            }
        }
        assert!(accepted >= 8, "{accepted} settings accept {duration:?}");
    }
}

/// Every setting of every builder that is a share or a factor.
fn with_every_share(share: f64) -> Vec<(&'static str, Result<Boxed, ConfigError>)> {
    let breaker = || CircuitBreaker::builder().slow_call(ms(1));
    vec![
        ("failure_rate", boxed(breaker().failure_rate(share).build())),
        ("slow_rate", boxed(breaker().slow_rate(share).build())),
        ("growth", boxed(breaker().growth(share).build())),
        ("jitter", boxed(breaker().jitter(share).build())),
        ("factor", retry(Backoff::exponential(ms(1)).factor(share))),
        ("ratio", boxed(Retry::builder().own_budget(RetryBudget::builder().ratio(share)).build())),
        ("ratio", boxed(Hedge::builder().own_budget(RetryBudget::builder().ratio(share)).build())),
        ("quantile", hedge(HedgeDelay::quantile(share))),
    ]
}

#[test]
fn what_is_no_number_is_no_threshold() {
    assert_eq!(1.0_f64.partial_cmp(&f64::NAN), None, "no rate would ever reach it");
    for nonsense in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
        for (field, policy) in with_every_share(nonsense) {
            let error = policy.err().unwrap_or_else(|| panic!("{field} accepts {nonsense}"));
            assert_eq!(error.field(), field);
            assert!(error.value().to_lowercase().contains(&nonsense.abs().to_string().to_lowercase()), "{error}");
        }
    }
    for (field, policy) in with_every_share(1.0).into_iter().filter(|(field, _)| *field != "quantile") {
        assert!(policy.is_ok(), "{field}");
    }
}
