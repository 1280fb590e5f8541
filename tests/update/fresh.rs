//! A live pipeline that was changed is like one that is built from what it was and what was asked of it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use proptest::{option, prelude::*, sample::select};
use tokio::time::{Instant, sleep};
use withstand::{
    BackoffConfig, BackoffKind, BudgetConfig, BulkheadConfig, CircuitBreakerConfig, ConfigError, Event, HedgeConfig,
    HedgeDelayConfig, Jitter, LayerConfig, Pipeline, PipelineConfig, QuantileConfig, RetryConfig, TimeoutConfig,
    Verdict,
};

use crate::support::{as_it_says, ms, trials::cases};

/// Each of them given or not, as the strategies say.
macro_rules! some_of {
    ($config:ident { $($field:ident: $strategy:expr),+ $(,)? }) => {{
        let made = Just($config::default());
        $(let made = (made, option::of($strategy)).prop_map(|(mut made, value)| {
            made.$field = value;
            made
        });)+
        made
    }};
}

/// What the second says, and else what the first says.
macro_rules! merged {
    ($config:ident, $first:expr, $second:expr, $($field:ident),+) => {{
        let (first, second) = ($first, $second);
        let mut merged = $config::default();
        $(merged.$field = second.$field.clone().or(first.$field.clone());)+
        merged
    }};
}

fn millis(from: &'static [u64]) -> impl Strategy<Value = Duration> {
    select(from).prop_map(ms)
}

fn timeout(name: &'static str, limits: &'static [u64]) -> impl Strategy<Value = LayerConfig> {
    millis(limits).prop_map(move |limit| {
        let mut timeout = TimeoutConfig::new(limit);
        timeout.name = Some(name.to_owned());
        timeout.into()
    })
}

fn backoff() -> impl Strategy<Value = BackoffConfig> {
    use BackoffKind::{Constant, Decorrelated, Exponential, Linear};
    some_of!(BackoffConfig {
        kind: select(vec![Constant, Linear, Exponential, Decorrelated]),
        base: millis(&[0, 10, 50, 200]),
        factor: select(vec![0.5, 1.0, 2.0, 3.0]),
        cap: millis(&[50, 1_000, 3_000]),
        jitter: select(vec![Jitter::None, Jitter::Full, Jitter::Equal]),
    })
}

fn budget() -> impl Strategy<Value = BudgetConfig> {
    some_of!(BudgetConfig { ratio: select(vec![0.0, 0.1, 1.0 / 3.0, 1.0, 1.1]), cap: select(vec![1_u32, 10, 50]) })
}

fn retry() -> impl Strategy<Value = RetryConfig> {
    some_of!(RetryConfig {
        max_attempts: 0_u32..6,
        backoff: backoff(),
        max_elapsed: millis(&[0, 300, 1_000]),
        min_time_left: millis(&[0, 50]),
        max_hint: millis(&[0, 100, 30_000]),
        budget: budget(),
    })
}

fn bulkhead() -> impl Strategy<Value = BulkheadConfig> {
    let limits = select(vec![0_usize, 1, 2, 5, usize::MAX]);
    some_of!(BulkheadConfig { limit: limits, queue: 1_usize..5, max_wait: millis(&[0, 50, 300, 1_500]) })
}

fn breaker() -> impl Strategy<Value = CircuitBreakerConfig> {
    some_of!(CircuitBreakerConfig {
        consecutive_failures: 0_u32..5,
        consecutive_span: millis(&[0, 100]),
        failure_rate: select(vec![0.0, 0.3, 0.5, 1.0]),
        min_calls: 0_u32..6,
        slow_call: millis(&[0, 100, 400]),
        slow_rate: select(vec![0.3, 1.0]),
        open_for: millis(&[0, 100, 1_000]),
        growth: select(vec![0.9, 1.0, 3.0]),
        max_open_for: millis(&[100, 2_000]),
        jitter: select(vec![0.0, 0.5]),
        probes: 0_u32..4,
        close_after: 1_u32..4,
        probe_lease: millis(&[1_000, 3_000, 100_000]),
    })
}

fn quantile() -> impl Strategy<Value = QuantileConfig> {
    some_of!(QuantileConfig {
        floor: millis(&[1, 5, 100]),
        ceiling: millis(&[4, 50, 400]),
        starting: millis(&[0, 80, 900]),
    })
}

fn hedge(by_quantile: bool) -> impl Strategy<Value = HedgeConfig> {
    let delay = if by_quantile {
        quantile().prop_map(HedgeDelayConfig::Quantile).boxed()
    } else {
        millis(&[0, 40, 200, 3_000]).prop_map(HedgeDelayConfig::Fixed).boxed()
    };
    some_of!(HedgeConfig { max_hedges: 0_u32..4, delay: delay, budget: budget() })
}

/// Which layers there are, and what is fixed about them.
#[derive(Clone, Copy, Debug)]
struct Shape {
    total: bool,
    retry: bool,
    hedge: Option<bool>,
    bulkhead: Option<bool>,
    breaker: Option<(bool, bool)>,
    attempt: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let fields = (
        any::<bool>(),
        any::<bool>(),
        any::<Option<bool>>(),
        any::<Option<bool>>(),
        any::<Option<(bool, bool)>>(),
        any::<bool>(),
    );
    fields.prop_map(|(total, retry, hedge, bulkhead, breaker, attempt)| Shape {
        total,
        retry,
        hedge,
        bulkhead,
        breaker,
        attempt,
    })
}

/// Settings for a pipeline of this shape; for some layers, or as it is built.
fn config(shape: Shape, whole: bool) -> BoxedStrategy<PipelineConfig> {
    fn layer<S>(there: bool, whole: bool, settings: S) -> BoxedStrategy<Option<LayerConfig>>
    where
        S: Strategy<Value: Into<LayerConfig>> + 'static,
    {
        match (there, whole) {
            (false, _) => Just(None).boxed(),
            (true, true) => settings.prop_map(|settings| Some(settings.into())).boxed(),
            (true, false) => option::of(settings.prop_map(Into::into)).boxed(),
        }
    }
    let queue = shape.bulkhead == Some(true);
    let bulkhead = bulkhead().prop_map(move |mut bulkhead| {
        bulkhead.queue = bulkhead.queue.filter(|_| queue);
        if whole {
            bulkhead.limit = bulkhead.limit.or(Some(2));
            bulkhead.queue = bulkhead.queue.or(queue.then_some(2));
            bulkhead.max_wait = bulkhead.max_wait.filter(|_| queue);
        }
        bulkhead
    });
    let (count, streak) = shape.breaker.unwrap_or_default();
    let breaker = breaker().prop_map(move |mut breaker| {
        if !streak {
            (breaker.consecutive_failures, breaker.consecutive_span) = (None, None);
        }
        if whole {
            breaker.count_window = count.then_some(8);
            breaker.consecutive_failures = breaker.consecutive_failures.or(streak.then_some(3));
        }
        breaker
    });
    let hedged = hedge(shape.hedge == Some(true)).prop_map(move |mut hedge| {
        if whole && shape.hedge == Some(false) {
            hedge.delay = hedge.delay.or(Some(HedgeDelayConfig::Fixed(ms(40))));
        }
        hedge
    });
    let layers = (
        layer(shape.total, whole, timeout("total", &[300, 1_000, 4_000])),
        layer(shape.retry, whole, retry()),
        layer(shape.hedge.is_some(), whole, hedged),
        layer(shape.bulkhead.is_some(), whole, bulkhead),
        layer(shape.breaker.is_some(), whole, breaker),
        layer(shape.attempt, whole, timeout("attempt", &[0, 100, 350, 1_000])),
    );
    layers
        .prop_map(|(a, b, c, d, e, f)| {
            [a, b, c, d, e, f].into_iter().flatten().fold(PipelineConfig::new("p"), PipelineConfig::layer)
        })
        .boxed()
}

/// What a pipeline is built from, and what it is changed to.
fn trial() -> impl Strategy<Value = (PipelineConfig, Vec<PipelineConfig>)> {
    shape().prop_flat_map(|shape| {
        let changes = prop::collection::vec(config(shape, false), 1..4);
        (config(shape, true).prop_filter("refused as it is built", |config| build(config).is_ok()), changes)
    })
}

fn build(config: &PipelineConfig) -> Result<Pipeline<impl withstand::Policy<u32, Verdict> + use<>>, ConfigError> {
    Pipeline::from_config(config.clone()).build()
}

fn merge(built: &PipelineConfig, asked: &PipelineConfig) -> PipelineConfig {
    let merged = |layer: &LayerConfig| {
        let same = |other: &&LayerConfig| other.kind() == layer.kind() && other.name() == layer.name();
        match (layer, asked.layers.iter().find(same)) {
            (_, None) => layer.clone(),
            (LayerConfig::Timeout(a), Some(LayerConfig::Timeout(b))) => {
                merged!(TimeoutConfig, a, b, name, limit).into()
            }
            (LayerConfig::Retry(a), Some(LayerConfig::Retry(b))) => {
                let mut retry =
                    merged!(RetryConfig, a, b, max_attempts, backoff, max_elapsed, min_time_left, max_hint, budget);
                if let (Some(a), Some(b)) = (&a.backoff, &b.backoff) {
                    let mut backoff = merged!(BackoffConfig, a, b, kind, base, factor, cap, jitter);
                    // What does not belong to another kind is left behind.
                    if backoff.kind.is_some_and(|kind| kind != BackoffKind::Exponential) && b.factor.is_none() {
                        backoff.factor = None;
                    }
                    if backoff.kind == Some(BackoffKind::Decorrelated) && b.jitter.is_none() {
                        backoff.jitter = None;
                    }
                    retry.backoff = Some(backoff);
                }
                retry.budget = merged_budget(a.budget.as_ref(), b.budget.as_ref());
                retry.into()
            }
            (LayerConfig::Hedge(a), Some(LayerConfig::Hedge(b))) => {
                let mut hedge = merged!(HedgeConfig, a, b, max_hedges, delay, budget);
                if let (Some(HedgeDelayConfig::Quantile(a)), Some(HedgeDelayConfig::Quantile(b))) = (&a.delay, &b.delay)
                {
                    hedge.delay =
                        Some(HedgeDelayConfig::Quantile(merged!(QuantileConfig, a, b, floor, ceiling, starting)));
                }
                hedge.budget = merged_budget(a.budget.as_ref(), b.budget.as_ref());
                hedge.into()
            }
            (LayerConfig::Bulkhead(a), Some(LayerConfig::Bulkhead(b))) => {
                merged!(BulkheadConfig, a, b, limit, queue, max_wait).into()
            }
            (LayerConfig::CircuitBreaker(a), Some(LayerConfig::CircuitBreaker(b))) => merged!(
                CircuitBreakerConfig,
                a,
                b,
                count_window,
                consecutive_failures,
                consecutive_span,
                failure_rate,
                min_calls,
                slow_call,
                slow_rate,
                open_for,
                growth,
                max_open_for,
                jitter,
                probes,
                close_after,
                probe_lease
            )
            .into(),
            (layer, Some(other)) => panic!("{layer:?} is not {other:?}"),
        }
    };
    built.layers.iter().map(merged).fold(PipelineConfig::new("p"), PipelineConfig::layer)
}

fn merged_budget(a: Option<&BudgetConfig>, b: Option<&BudgetConfig>) -> Option<BudgetConfig> {
    match (a, b) {
        (Some(a), Some(b)) => Some(merged!(BudgetConfig, a, b, initial, ratio, cap)),
        (a, b) => b.or(a).cloned(),
    }
}

/// Without all that is random; and a budget begins with a token, whatever its cap.
fn calm(config: &PipelineConfig, whole: bool) -> PipelineConfig {
    let calmed = |layer: &LayerConfig| {
        let mut layer = layer.clone();
        match &mut layer {
            LayerConfig::Retry(retry) => {
                if whole {
                    retry.backoff.get_or_insert_default();
                }
                if let Some(backoff) = &mut retry.backoff {
                    backoff.jitter = whole.then_some(Jitter::None);
                    backoff.kind = backoff.kind.filter(|kind| *kind != BackoffKind::Decorrelated);
                }
                retry.max_hint = whole.then_some(Duration::ZERO);
                if whole {
                    retry.budget.get_or_insert_default().initial = Some(1);
                }
            }
            LayerConfig::Hedge(hedge) if whole => hedge.budget.get_or_insert_default().initial = Some(1),
            LayerConfig::CircuitBreaker(breaker) => breaker.jitter = None,
            _ => {}
        }
        layer
    };
    config.layers.iter().map(calmed).fold(PipelineConfig::new("p"), PipelineConfig::layer)
}

#[derive(Clone, Copy, Debug)]
struct Call {
    begins: u64,
    takes: [u64; 2],
    gives: [Result<u32, Verdict>; 2],
    gives_up: Option<u64>,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let takes = || select(vec![0_u64, 0, 20, 90, 150, 390, 700]);
    let verdicts = vec![Ok(1), Ok(2), Err(Verdict::transient()), Err(Verdict::transient()), Err(Verdict::failure())];
    let gives = || select(verdicts.clone());
    let call = (0_u64..3_000, [takes(), takes()], [gives(), gives()], option::weighted(0.1, 0_u64..900));
    let call = call.prop_map(|(begins, takes, gives, gives_up)| Call { begins, takes, gives, gives_up });
    prop::collection::vec(call, 1..25)
}

/// All that is told about these calls, and what comes of them.
fn trace(built: &PipelineConfig, changes: &[PipelineConfig], calls: &[Call]) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let begin = Instant::now();
        let told = Arc::new(Mutex::new(Vec::new()));
        let note = {
            let told = told.clone();
            move |line: String| {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{:?} {line}", begin.elapsed()));
            }
        };
        let observe = note.clone();
        let users = Pipeline::from_config(built.clone())
            .classify_errors(as_it_says)
            .observer(move |event: &Event<'_>| observe(event.to_string()))
            .build()
            .unwrap();
        for change in changes {
            users.handle().update(change).unwrap();
        }
        told.lock().unwrap().clear();
        join_all(calls.iter().map(async |call| {
            sleep(ms(call.begins)).await;
            let answer = users.call_with(withstand::CallOptions::new(), |attempt| async move {
                let nth = usize::from((attempt.number() + attempt.hedge()) % 2 == 0);
                sleep(ms(call.takes[nth])).await;
                call.gives[nth]
            });
            let patience = ms(call.gives_up.unwrap_or(1_000_000));
            note(format!("{:?}", tokio::time::timeout(patience, answer).await));
        }))
        .await;
        drop(users);
        told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_local_rejects: u32::MAX, ..cases(400) })]

    #[test]
    fn it_is_explained_as_one_that_is_built_anew_and_refuses_what_that_refuses((built, changes) in trial()) {
        let live = build(&built).unwrap();
        let mut now = built;
        for asked in changes {
            let then = merge(&now, &asked);
            match (live.handle().update(&asked), build(&then)) {
                (Ok(told), Ok(fresh)) => {
                    prop_assert_eq!(live.explain().to_string(), fresh.explain().to_string());
                    prop_assert_eq!(live.handle().explain().to_string(), fresh.explain().to_string());
                    let again = live.handle().update(&asked).unwrap();
                    prop_assert_eq!(&again, &[], "told before: {:?}", told);
                    now = then;
                }
                (Err(live), Err(fresh)) => prop_assert_eq!(live.to_string(), fresh.to_string()),
                (updated, built) => prop_assert!(false, "{updated:?}, but {:?}", built.map(|_| "built")),
            }
            prop_assert_eq!(live.explain().to_string(), build(&now).unwrap().explain().to_string());
        }
    }

    #[test]
    fn it_does_what_one_does_that_is_built_anew((built, changes) in trial(), calls in calls()) {
        let built = calm(&built, true);
        if build(&built).is_err() {
            return Ok(());
        }
        let live = build(&built).unwrap();
        let (mut now, mut made) = (built.clone(), Vec::new());
        for asked in changes.iter().map(|asked| calm(asked, false)) {
            if live.handle().update(&asked).is_ok() {
                now = merge(&now, &asked);
                made.push(asked);
            }
        }
        prop_assert_eq!(trace(&built, &made, &calls), trace(&now, &[], &calls));
    }
}
