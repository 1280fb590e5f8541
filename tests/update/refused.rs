//! What is refused, word for word.

use std::{sync::Arc, time::Duration};

use withstand::{
    BackoffConfig, BackoffKind, BudgetConfig, Bulkhead, BulkheadConfig, CircuitBreaker, CircuitBreakerConfig, Fallback,
    Hedge, HedgeConfig, HedgeDelay, HedgeDelayConfig, Jitter, LayerConfig, Pipeline, PipelineConfig, PipelineHandle,
    QuantileConfig, Registry, Retry, RetryBudget, RetryConfig, Timeout, TimeoutConfig,
};

use super::{Tune, settings};
use crate::support::{ms, secs};

/// Whatever is built, its settings refuse this, and nothing has changed.
fn refused(handle: &PipelineHandle, all: impl IntoIterator<Item = (LayerConfig, &'static str)>) {
    for (layer, message) in all {
        assert_eq!(handle.refusal(layer), format!("pipeline `users`, policy {message}"));
    }
}

#[test]
fn a_timeout() {
    let users = Pipeline::builder("users").timeout(secs(4)).retry(Retry::builder()).timeout(secs(1)).build().unwrap();
    let too_long = "more than 0s and at most 30 years; leave the layer out for no timeout";
    let inner = |limit| settings!(TimeoutConfig { name: "timeout-2".to_owned(), limit: limit });
    let handle = users.handle();
    for (limit, shown) in [(Duration::ZERO, "0ns".to_owned()), (Duration::MAX, format!("{:?}", Duration::MAX))] {
        assert_eq!(
            handle.refusal(TimeoutConfig::new(limit)),
            format!("pipeline `users`, policy `timeout`: limit is {shown}; accepted: {too_long}")
        );
    }
    refused(
        &handle,
        [
            (
                inner(secs(4)).into(),
                "`timeout-2`: limit is 4s; accepted: less than 4s, the limit of the timeout `timeout` around it",
            ),
            (
                TimeoutConfig::new(ms(900)).into(),
                "`timeout-2`: limit is 1s; accepted: less than 900ms, the limit of the timeout `timeout` around it",
            ),
        ],
    );
}

#[test]
fn a_retry() {
    let users = Pipeline::builder("users").retry(Retry::builder().without_budget()).build().unwrap();
    let handle = users.handle();
    let backoff = |backoff| settings!(RetryConfig { backoff: backoff }).into();
    refused(
        &handle,
        [
            (
                settings!(RetryConfig { max_attempts: 0 }).into(),
                "`retry`: max_attempts is 0; accepted: 1 or more; it counts the first attempt",
            ),
            (
                settings!(RetryConfig { max_elapsed: Duration::ZERO }).into(),
                "`retry`: max_elapsed is 0s; accepted: more than 0s",
            ),
            (
                backoff(settings!(BackoffConfig { factor: f64::NAN })),
                "`retry`: factor is NaN; accepted: a finite number of at least 1",
            ),
            (
                backoff(settings!(BackoffConfig { cap: ms(1) })),
                "`retry`: cap is 1ms with a base of 50ms; accepted: at least the base",
            ),
            (
                backoff(settings!(BackoffConfig { kind: BackoffKind::Linear, factor: 2.0 })),
                "`retry`: factor is 2; accepted: no factor: only an exponential backoff has one",
            ),
            (
                backoff(settings!(BackoffConfig { kind: BackoffKind::Decorrelated, jitter: Jitter::Full })),
                "`retry`: jitter is Full; accepted: no jitter: a decorrelated backoff has its own",
            ),
            (
                settings!(RetryConfig { retry_rejected: true }).into(),
                "`retry`: retry_rejected is true; accepted: false as it was built, or nothing: a live one keeps it",
            ),
            (
                settings!(RetryConfig { repeat_spent: true }).into(),
                "`retry`: repeat_spent is true; accepted: false as it was built, or nothing: a live one keeps it",
            ),
            (
                settings!(RetryConfig { without_budget: false }).into(),
                "`retry`: without_budget is false; accepted: true as it was built, or nothing: a live one keeps it",
            ),
            (
                settings!(RetryConfig { budget: settings!(BudgetConfig { cap: 3 }) }).into(),
                "`retry`: budget is given; accepted: nothing: a live policy without a budget gets none",
            ),
        ],
    );
}

#[test]
fn a_budget() {
    let users = Pipeline::builder("users").retry(Retry::builder()).build().unwrap();
    let budget = |budget| settings!(RetryConfig { budget: budget }).into();
    refused(
        &users.handle(),
        [
            (budget(settings!(BudgetConfig { ratio: 1.5 })), "`retry`: ratio is 1.5; accepted: a number from 0 to 1"),
            (
                budget(settings!(BudgetConfig { ratio: f64::NAN })),
                "`retry`: ratio is NaN; accepted: a number from 0 to 1",
            ),
            (
                budget(settings!(BudgetConfig { initial: 11 })),
                "`retry`: initial is 11; accepted: 10 as it was built, or nothing: a live one keeps it",
            ),
            (
                settings!(RetryConfig { without_budget: true }).into(),
                "`retry`: without_budget is true; accepted: false as it was built, or nothing: a live one keeps it",
            ),
        ],
    );
}

#[test]
fn a_bulkhead() {
    let plain = Pipeline::builder("users").bulkhead(Bulkhead::builder().limit(5)).build().unwrap();
    refused(
        &plain.handle(),
        [
            (
                settings!(BulkheadConfig { queue: 5 }).into(),
                "`bulkhead`: queue is 5; accepted: 0, as it was built: a live one gets no queue",
            ),
            (
                settings!(BulkheadConfig { max_wait: ms(5) }).into(),
                "`bulkhead`: max_wait is 5ms without a queue; accepted: a wait together with queue(n)",
            ),
        ],
    );
    assert_eq!(
        plain.handle().refusal(settings!(BulkheadConfig { limit: usize::MAX })),
        format!(
            "pipeline `users`, policy `bulkhead`: limit is {}; accepted: at most {}",
            usize::MAX,
            Bulkhead::MAX_LIMIT
        )
    );
    let queued =
        Pipeline::builder("users").timeout(secs(1)).bulkhead(Bulkhead::builder().limit(5).queue(5)).build().unwrap();
    refused(
        &queued.handle(),
        [
            (
                settings!(BulkheadConfig { queue: 0 }).into(),
                "`bulkhead`: queue is 0; accepted: 1 or more: a live one keeps its queue",
            ),
            (
                settings!(BulkheadConfig { max_wait: Duration::ZERO }).into(),
                "`bulkhead`: max_wait is 0s; accepted: more than 0s; leave out the queue for no wait",
            ),
            (
                settings!(BulkheadConfig { max_wait: secs(1) }).into(),
                "`bulkhead`: max_wait is 1s; accepted: less than 1s, the limit of the timeout `timeout` around it",
            ),
            (
                TimeoutConfig::new(ms(100)).into(),
                "`bulkhead`: max_wait is 100ms; accepted: less than 100ms, the limit of the timeout `timeout` around it",
            ),
        ],
    );
}

#[test]
fn a_circuit_breaker() {
    let users = Pipeline::builder("users").circuit_breaker(CircuitBreaker::builder()).timeout(secs(8)).build().unwrap();
    refused(
        &users.handle(),
        [
            (
                settings!(CircuitBreakerConfig { time_window: secs(10) }).into(),
                "`circuit_breaker`: time_window is 10s; accepted: 30s as it was built, or nothing: a live one keeps it",
            ),
            (
                settings!(CircuitBreakerConfig { count_window: 10 }).into(),
                "`circuit_breaker`: count_window is 10; accepted: nothing: a live one that was built without gets none",
            ),
            (
                settings!(CircuitBreakerConfig { consecutive_failures: 10 }).into(),
                "`circuit_breaker`: consecutive_failures is 10; accepted: nothing: a live one that was built without \
                 gets none",
            ),
            (
                settings!(CircuitBreakerConfig { consecutive_span: secs(2) }).into(),
                "`circuit_breaker`: consecutive_span is 2s; accepted: nothing: a live one that was built without \
                 gets none",
            ),
            (
                settings!(CircuitBreakerConfig { failure_rate: 0.0 }).into(),
                "`circuit_breaker`: failure_rate is 0; accepted: more than 0 and at most 1",
            ),
            (
                settings!(CircuitBreakerConfig { min_calls: 0 }).into(),
                "`circuit_breaker`: min_calls is 0; accepted: 1 or more",
            ),
            (
                settings!(CircuitBreakerConfig { slow_rate: 0.5 }).into(),
                "`circuit_breaker`: slow_rate is 0.5 without slow_call; accepted: a rate together with \
                 slow_call(duration)",
            ),
            (
                settings!(CircuitBreakerConfig { slow_call: Duration::ZERO }).into(),
                "`circuit_breaker`: slow_call is 0s; accepted: more than 0s",
            ),
            (
                settings!(CircuitBreakerConfig { open_for: Duration::ZERO }).into(),
                "`circuit_breaker`: open_for is 0s; accepted: more than 0s",
            ),
            (
                settings!(CircuitBreakerConfig { growth: 0.5 }).into(),
                "`circuit_breaker`: growth is 0.5; accepted: a finite factor of 1 or more",
            ),
            (
                settings!(CircuitBreakerConfig { max_open_for: secs(1) }).into(),
                "`circuit_breaker`: max_open_for is 1s; accepted: at least open_for, 5s",
            ),
            (
                settings!(CircuitBreakerConfig { jitter: 1.5 }).into(),
                "`circuit_breaker`: jitter is 1.5; accepted: 0 to 1",
            ),
            (
                settings!(CircuitBreakerConfig { probes: 0 }).into(),
                "`circuit_breaker`: probes is 0; accepted: 1 to 1000",
            ),
            (
                settings!(CircuitBreakerConfig { close_after: 4 }).into(),
                "`circuit_breaker`: close_after is 4; accepted: 1 to probes, 3",
            ),
            (
                settings!(CircuitBreakerConfig { probe_lease: secs(8) }).into(),
                "`circuit_breaker`: probe_lease is 8s; accepted: more than 8s, the longest that a call inside can take",
            ),
        ],
    );
    users.handle().tuned(settings!(CircuitBreakerConfig { probe_lease: secs(9) }));
    refused(
        &users.handle(),
        [(
            TimeoutConfig::new(secs(9)).into(),
            "`circuit_breaker`: probe_lease is 9s; accepted: more than 9s, the longest that a call inside can take",
        )],
    );
    let in_a_row =
        Pipeline::builder("users").circuit_breaker(CircuitBreaker::builder().consecutive_failures(5)).build().unwrap();
    refused(
        &in_a_row.handle(),
        [
            (
                settings!(CircuitBreakerConfig { time_window: secs(30) }).into(),
                "`circuit_breaker`: time_window is 30s; accepted: nothing: a live one that was built without gets none",
            ),
            (
                settings!(CircuitBreakerConfig { consecutive_failures: 20_000 }).into(),
                "`circuit_breaker`: consecutive_failures is 20000; accepted: 1 to 16383",
            ),
            (
                settings!(CircuitBreakerConfig { failure_rate: 0.5 }).into(),
                "`circuit_breaker`: failure_rate is given, but only consecutive failures are counted; accepted: the \
                 setting together with time_window(duration) or count_window(calls)",
            ),
        ],
    );
}

#[test]
fn a_hedge() {
    let build = |delay: HedgeDelay| {
        Pipeline::builder("users").timeout(secs(2)).hedge(Hedge::builder().delay(delay)).build().unwrap()
    };
    let delay = |delay| settings!(HedgeConfig { delay: delay }).into();
    let quantile = |quantile| settings!(HedgeConfig { delay: HedgeDelayConfig::Quantile(quantile) }).into();
    let users = build(HedgeDelay::default());
    refused(
        &users.handle(),
        [
            (settings!(HedgeConfig { max_hedges: 0 }).into(), "`hedge`: max_hedges is 0; accepted: 1 to 32"),
            (settings!(HedgeConfig { max_hedges: 33 }).into(), "`hedge`: max_hedges is 33; accepted: 1 to 32"),
            (
                delay(HedgeDelayConfig::Fixed(ms(5))),
                "`hedge`: delay is a duration; accepted: a quantile as it was built, or nothing: a live one keeps it",
            ),
            (
                quantile(settings!(QuantileConfig { quantile: 0.9 })),
                "`hedge`: quantile is 0.9; accepted: 0.95 as it was built, or nothing: a live one keeps it",
            ),
            (
                quantile(settings!(QuantileConfig { min_samples: 9 })),
                "`hedge`: min_samples is 9; accepted: 100 as it was built, or nothing: a live one keeps it",
            ),
            (
                quantile(settings!(QuantileConfig { window: secs(9) })),
                "`hedge`: window is 9s; accepted: 10s as it was built, or nothing: a live one keeps it",
            ),
            (
                quantile(settings!(QuantileConfig { ceiling: ms(4) })),
                "`hedge`: ceiling is 4ms; accepted: at least the floor, 5ms",
            ),
            (
                quantile(settings!(QuantileConfig { starting: Duration::ZERO })),
                "`hedge`: starting is 0s; accepted: more than 0s",
            ),
        ],
    );
    let users = build(HedgeDelay::custom(|_| None));
    refused(
        &users.handle(),
        [(
            delay(HedgeDelayConfig::OnFailure),
            "`hedge`: delay is on_failure; accepted: a function as it was built, or nothing: a live one keeps it",
        )],
    );
    let users = build(HedgeDelay::fixed(secs(1)));
    refused(
        &users.handle(),
        [
            (
                delay(HedgeDelayConfig::Fixed(secs(2))),
                "`hedge`: delay is 2s; accepted: less than 2s, the limit of the timeout `timeout` around it",
            ),
            (
                delay(HedgeDelayConfig::OnFailure),
                "`hedge`: delay is on_failure; accepted: a duration as it was built, or nothing: a live one keeps it",
            ),
        ],
    );
}

#[test]
fn names_kinds_and_the_order_of_layers() {
    let users = Pipeline::builder("users")
        .fallback(Fallback::value(()))
        .timeout(Timeout::builder(secs(4)).name("total"))
        .retry(Retry::builder())
        .timeout(secs(1))
        .build()
        .unwrap();
    let handle = users.handle();
    let message = |layers: Vec<LayerConfig>| handle.tune(layers).unwrap_err().to_string();
    let named = |name: &str| settings!(TimeoutConfig { name: name.to_owned() });
    assert_eq!(
        handle.update(&PipelineConfig::new("user")).unwrap_err().to_string(),
        "pipeline `users`: name is \"user\"; accepted: \"users\": a live pipeline keeps its name"
    );
    assert_eq!(
        handle.update(&PipelineConfig::default()).unwrap_err().to_string(),
        "pipeline `users`: name is \"\"; accepted: \"users\": a live pipeline keeps its name"
    );
    let live = "total, retry, timeout-2";
    assert_eq!(
        message(vec![BulkheadConfig::default().into()]),
        format!("pipeline `users`: layers is `bulkhead`; accepted: the name of a live layer: {live}")
    );
    assert_eq!(
        message(vec![named("Total").into()]),
        format!("pipeline `users`: layers is `Total`; accepted: the name of a live layer: {live}")
    );
    assert_eq!(
        message(vec![named("fallback").into()]),
        "pipeline `users`: layers is `fallback`; accepted: a layer that has settings"
    );
    assert_eq!(
        message(vec![RetryConfig::default().into(), named("total").into()]),
        "pipeline `users`: layers is `total` out of its place; accepted: each layer once, in the order of the live ones"
    );
    assert_eq!(
        message(vec![named("total").into(), named("total").into()]),
        "pipeline `users`: layers is `total` out of its place; accepted: each layer once, in the order of the live ones"
    );
    assert_eq!(
        message(vec![named("retry").into()]),
        "pipeline `users`, policy `retry`: kind is timeout; accepted: retry, the kind of the live layer"
    );
    let bare = Pipeline::builder("users").build().unwrap();
    assert_eq!(
        bare.handle().refusal(RetryConfig::default()),
        "pipeline `users`: layers is `retry`; accepted: no layers: the live pipeline has none with settings"
    );
    assert_eq!(Registry::global().update(&PipelineConfig::new("nobody-has-this-name")).unwrap_err().field(), "name");
}

#[test]
fn two_layers_of_one_budget_that_say_different_things_about_it() {
    let budget = Arc::new(RetryBudget::builder().build().unwrap());
    let users = Pipeline::builder("users")
        .retry(Retry::builder().budget(budget.clone()))
        .hedge(Hedge::builder().budget(budget.clone()))
        .build()
        .unwrap();
    let retry = |ratio| settings!(RetryConfig { budget: settings!(BudgetConfig { ratio: ratio }) });
    let hedge = |cap| settings!(HedgeConfig { budget: settings!(BudgetConfig { cap: cap, ratio: 0.3 }) });
    let error = users.handle().tune([retry(0.3).into(), hedge(50).into()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pipeline `users`, policy `hedge`: budget is 0.3 up to 50; accepted: 0.3 up to 100, as `retry` says: they share it"
    );
    assert_eq!((budget.ratio(), budget.cap()), (0.2, 100));
    users.handle().tune([retry(0.3).into(), hedge(100).into()]).unwrap();
    assert_eq!((budget.ratio(), budget.cap()), (0.3, 100));
}

#[test]
fn a_layer_of_an_inner_pipeline_is_named_as_it_is_seen() {
    let inner = Pipeline::builder("inner").retry(Retry::builder()).build().unwrap();
    let users = Pipeline::builder("users").timeout(secs(1)).layer(inner).build().unwrap();
    assert_eq!(
        users.handle().refusal(settings!(RetryConfig { name: "inner/retry".to_owned(), max_attempts: 0 })),
        "pipeline `users`, policy `inner/retry`: max_attempts is 0; accepted: 1 or more; it counts the first attempt"
    );
}
