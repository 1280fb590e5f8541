//! What is written is read again as it was.

use std::time::Duration;

use proptest::{option, prelude::*, sample::select};
use withstand::{
    BackoffConfig, BackoffKind, BudgetConfig, BulkheadConfig, CircuitBreakerConfig, HedgeConfig, HedgeDelayConfig,
    Jitter, LayerConfig, PipelineConfig, QuantileConfig, RetryConfig, TimeoutConfig,
};

use crate::{FORMATS, Service};

/// Each of them given or not, as the strategies say.
macro_rules! some_of {
    ($config:ident { $($field:ident: $strategy:expr),+ $(,)? }) => {{
        let made = Just($config::default());
        $(let made = (made, option::of($strategy)).prop_map(|(mut made, value)| {
            made.$field = value;
            made
        }).boxed();)+
        made
    }};
}

fn name() -> impl Strategy<Value = String> {
    let awkward: &'static [&str] =
        &["", " ", "null", "yes", "1e3", "~", "a: b", "- a", "# a", "\"", "'", "\\", "a\nb", "ü", "0x1F", "{}"];
    prop_oneof![select(awkward).prop_map(str::to_owned), "[a-z/_-]{1,20}"]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0_u64..100_000).prop_map(Duration::from_millis),
        any::<u64>().prop_map(Duration::from_nanos),
        (any::<u32>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs.into(), nanos)),
        select(vec![Duration::ZERO, Duration::from_nanos(1), Duration::MAX]),
    ]
}

/// With few digits: JSON as `serde_json` reads it by default rounds in the last of many.
fn number() -> impl Strategy<Value = f64> {
    (0_u32..1_000_000).prop_map(|n| f64::from(n) / 1_000.0)
}

fn budget() -> impl Strategy<Value = BudgetConfig> {
    some_of!(BudgetConfig { ratio: number(), initial: any::<u32>(), cap: any::<u32>() })
}

fn backoff() -> impl Strategy<Value = BackoffConfig> {
    use BackoffKind::{Constant, Decorrelated, Exponential, Linear};
    some_of!(BackoffConfig {
        kind: select(vec![Constant, Linear, Exponential, Decorrelated]),
        base: duration(),
        factor: number(),
        cap: duration(),
        jitter: select(vec![Jitter::None, Jitter::Full, Jitter::Equal]),
    })
}

fn quantile() -> impl Strategy<Value = QuantileConfig> {
    some_of!(QuantileConfig {
        quantile: number(),
        floor: duration(),
        ceiling: duration(),
        starting: duration(),
        min_samples: any::<u32>(),
        window: duration(),
    })
}

fn delay() -> impl Strategy<Value = HedgeDelayConfig> {
    prop_oneof![
        duration().prop_map(HedgeDelayConfig::Fixed),
        Just(HedgeDelayConfig::OnFailure),
        quantile().prop_map(HedgeDelayConfig::Quantile),
    ]
}

fn breaker() -> impl Strategy<Value = CircuitBreakerConfig> {
    some_of!(CircuitBreakerConfig {
        name: name(),
        time_window: duration(),
        count_window: any::<u32>(),
        consecutive_failures: any::<u32>(),
        consecutive_span: duration(),
        failure_rate: number(),
        min_calls: any::<u32>(),
        slow_call: duration(),
        slow_rate: number(),
        open_for: duration(),
        growth: number(),
        max_open_for: duration(),
        jitter: number(),
        probes: any::<u32>(),
        close_after: any::<u32>(),
        probe_lease: duration(),
    })
}

fn layer() -> impl Strategy<Value = LayerConfig> {
    // TOML's integers are signed.
    let size = || 0..usize::MAX / 2;
    prop_oneof![
        some_of!(TimeoutConfig { name: name(), limit: duration() }).prop_map(LayerConfig::from),
        some_of!(RetryConfig {
            name: name(),
            max_attempts: any::<u32>(),
            backoff: backoff(),
            max_elapsed: duration(),
            min_time_left: duration(),
            max_hint: duration(),
            budget: budget(),
            without_budget: any::<bool>(),
            retry_rejected: any::<bool>(),
            repeat_spent: any::<bool>(),
        })
        .prop_map(LayerConfig::from),
        some_of!(BulkheadConfig { name: name(), limit: size(), queue: size(), max_wait: duration() })
            .prop_map(LayerConfig::from),
        breaker().prop_map(LayerConfig::from),
        some_of!(HedgeConfig {
            name: name(),
            max_hedges: any::<u32>(),
            delay: delay(),
            budget: budget(),
            without_budget: any::<bool>(),
        })
        .prop_map(LayerConfig::from),
    ]
}

fn pipeline() -> impl Strategy<Value = PipelineConfig> {
    (name(), prop::collection::vec(layer(), 0..6)).prop_map(|(name, layers)| {
        let mut config = PipelineConfig::new(name);
        config.layers = layers;
        config
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_every_format_alone_and_as_a_part_of_something_else(config in pipeline()) {
        for format in FORMATS {
            let text = format.write(&config);
            let read = format.read::<PipelineConfig>(&text);
            prop_assert_eq!(read.as_ref(), Ok(&config), "{:?}:\n{}", format, text);
            let service = Service { users: config.clone() };
            let text = format.write(&service);
            prop_assert_eq!(format.read::<Service>(&text), Ok(service), "{:?}:\n{}", format, text);
        }
        let value = serde_json::to_value(&config).unwrap();
        prop_assert_eq!(serde_json::from_value::<PipelineConfig>(value).unwrap(), config);
    }
}
