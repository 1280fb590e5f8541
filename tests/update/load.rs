//! Settings that change while many calls are under way on several threads. For about a second of real time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, sleep, timeout},
};
use withstand::{
    BackoffConfig, BackoffKind, BudgetConfig, BulkheadConfig, CircuitBreakerConfig, ClassifyErrors, Configured, Event,
    EventKind, HedgeConfig, HedgeDelayConfig, LayerState, Pipeline, PipelineConfig, PipelineHandle, QuantileConfig,
    RetryConfig, TimeoutConfig, Verdict, layers,
};

use super::settings;
use crate::{
    random::Random,
    support::{ms, secs},
};

/// What was heard, by number.
#[derive(Default)]
struct Heard {
    calls: [AtomicU64; 2],
    attempts: [AtomicU64; 2],
    changes: AtomicU64,
}

impl Heard {
    fn on_event(&self, event: &Event<'_>) {
        let one_more = |count: &AtomicU64| {
            count.fetch_add(1, Relaxed);
        };
        match event.kind {
            EventKind::CallStarted { .. } => one_more(&self.calls[0]),
            EventKind::CallFinished { .. } => one_more(&self.calls[1]),
            EventKind::AttemptStarted { .. } => one_more(&self.attempts[0]),
            EventKind::AttemptFinished { .. } => one_more(&self.attempts[1]),
            EventKind::Reconfigured { .. } => one_more(&self.changes),
            _ => {}
        }
    }
}

/// Whatever settings there are, at random.
fn shuffled(random: &mut Random) -> PipelineConfig {
    let kinds = [BackoffKind::Constant, BackoffKind::Linear, BackoffKind::Exponential, BackoffKind::Decorrelated];
    let mut below = |end: u64| random.below(end);
    let base = Duration::from_micros(below(500));
    let floor = Duration::from_micros(below(1_000));
    let share = |tenths: u64| f64::from(u32::try_from(tenths).unwrap()) / 10.0;
    let queue = usize::try_from(1 + below(20)).unwrap();
    let number = |n: u64| u32::try_from(n).unwrap();
    PipelineConfig::new("shaken")
        .layer(TimeoutConfig::new(ms(50 + below(200))))
        .layer(settings!(RetryConfig {
            max_attempts: number(1 + below(5)),
            backoff: settings!(BackoffConfig {
                kind: kinds[usize::try_from(below(4)).unwrap()],
                base: base,
                cap: base + ms(below(2))
            }),
            max_elapsed: ms(1 + below(100)),
            max_hint: ms(below(3)),
            budget: settings!(BudgetConfig { ratio: share(below(11)), cap: number(below(50)) }),
        }))
        .layer(settings!(HedgeConfig {
            max_hedges: number(1 + below(3)),
            delay: HedgeDelayConfig::Quantile(settings!(QuantileConfig {
                floor: floor,
                ceiling: floor + ms(below(3)),
                starting: Duration::from_micros(1 + below(900))
            })),
        }))
        .layer(settings!(BulkheadConfig {
            limit: usize::try_from(below(12)).unwrap(),
            queue: queue,
            max_wait: ms(1 + below(20)),
        }))
        .layer(settings!(CircuitBreakerConfig {
            failure_rate: share(1 + below(10)),
            min_calls: number(1 + below(50)),
            slow_call: ms(1 + below(5)),
            slow_rate: share(1 + below(10)),
            open_for: ms(1 + below(5)),
            growth: 1.0 + share(below(10)),
            max_open_for: ms(6),
            jitter: share(below(11)),
            probes: number(3 + below(8)),
            close_after: number(1 + below(3)),
            probe_lease: secs(300 + below(9)),
        }))
        .layer(settings!(TimeoutConfig { name: "attempt".to_owned(), limit: ms(2 + below(40)) }))
}

type AsItSays = ClassifyErrors<fn(&Verdict) -> Verdict>;

struct Load {
    pipeline: Pipeline<layers![Configured], AsItSays>,
    heard: Arc<Heard>,
    inside: AtomicUsize,
    most_inside: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    fn new() -> Arc<Self> {
        let heard = Arc::new(Heard::default());
        let as_it_says: fn(&Verdict) -> Verdict = crate::support::as_it_says;
        let pipeline = Pipeline::from_config(shuffled(&mut Random::new(7)))
            .classify_errors(as_it_says)
            .observer({
                let heard = heard.clone();
                move |event: &Event<'_>| heard.on_event(event)
            })
            .build()
            .unwrap();
        let (inside, most_inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { pipeline, heard, inside, most_inside, stop: AtomicBool::new(false) })
    }

    async fn attempt(&self, fate: u64) -> Result<u64, Verdict> {
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        self.most_inside.fetch_max(self.inside.fetch_add(1, Relaxed) + 1, Relaxed);
        let _inside = Leave(&self.inside);
        match fate % 8 {
            0 => sleep(ms(1)).await,
            1 => sleep(ms(8)).await,
            2 => sleep(secs(3600)).await,
            _ => yield_now().await,
        }
        match fate % 5 {
            0 => Err(Verdict::transient()),
            1 => Err(Verdict::throttled().retry_after(ms(1))),
            _ => Ok(fate),
        }
    }

    /// Calls for as long as nobody says to stop. Some are given up. How many there were.
    async fn calls(self: Arc<Self>, seed: u64) -> u64 {
        let mut random = Random::new(seed);
        let mut made = 0;
        while !self.stop.load(Relaxed) {
            let fate = random.next();
            let call = self.pipeline.call(|| self.attempt(fate));
            let patience = if fate % 13 == 0 { ms(2) } else { secs(60) };
            drop(timeout(patience, call).await);
            made += 1;
            yield_now().await;
        }
        made
    }
}

/// Its permits: the limit, those in use, those who wait.
fn permits(handle: &PipelineHandle) -> (usize, usize, usize) {
    let found = handle.snapshot().layers.into_iter().find_map(|layer| match layer.state {
        LayerState::Bulkhead(bulkhead) => Some((bulkhead.limit, bulkhead.in_use, bulkhead.queued)),
        _ => None,
    });
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn settings_that_change_under_load_lose_no_permit_no_waiter_and_no_count() {
    let load = Load::new();
    let handle = load.pipeline.handle();
    let mut callers = JoinSet::new();
    for seed in 0..48 {
        callers.spawn(load.clone().calls(seed));
    }
    // Two who change it at once, and one who looks.
    let change = |seed: u64, until: Instant, handle: PipelineHandle| async move {
        let mut random = Random::new(seed);
        let (mut changed, mut told) = (0_u64, 0);
        while Instant::now() < until {
            told += handle.update(&shuffled(&mut random)).unwrap().len();
            changed += 1;
            let nonsense = shuffled(&mut random).layer(settings!(TimeoutConfig { limit: Duration::ZERO }));
            assert!(handle.update(&nonsense).is_err());
            yield_now().await;
        }
        (changed, u64::try_from(told).unwrap())
    };
    let until = Instant::now() + ms(1_000);
    let look = {
        let handle = handle.clone();
        async move {
            while Instant::now() < until {
                let (_, in_use, queued) = permits(&handle);
                assert!(in_use <= 11 + 11 && queued <= 20, "{in_use} in use, {queued} wait");
                assert!(handle.explain().to_string().contains("pipeline shaken"));
                yield_now().await;
            }
        }
    };
    let mut writers = JoinSet::new();
    for seed in [1, 2] {
        writers.spawn(change(seed, until, handle.clone()));
    }
    look.await;
    let changes = writers.join_all().await;
    assert!(changes.iter().all(|(changed, _)| *changed > 50), "{changes:?}");
    let told: u64 = changes.iter().map(|(_, told)| told).sum();

    // Settled: a limit of 3, and no more are inside than that, hedges included.
    let settled = PipelineConfig::new("shaken")
        .layer(settings!(BulkheadConfig { limit: 3, queue: 20, max_wait: ms(20) }))
        .layer(settings!(CircuitBreakerConfig { failure_rate: 1.0, slow_rate: 1.0, min_calls: 10_000 }));
    let told_last = u64::try_from(handle.update(&settled).unwrap().len()).unwrap();
    let in_time = timeout(secs(10), async {
        while permits(&handle).1 > 3 {
            yield_now().await;
        }
    });
    in_time.await.expect("permits beyond the limit come back");
    load.most_inside.store(load.inside.load(Relaxed), Relaxed);
    sleep(ms(100)).await;
    let most = load.most_inside.load(Relaxed);
    assert!((1..=3).contains(&most), "{most} were inside at once");

    load.stop.store(true, Relaxed);
    let made: u64 = timeout(secs(20), callers.join_all()).await.expect("no waiter is forgotten").iter().sum();
    assert_eq!(permits(&handle), (3, 0, 0));
    assert_eq!(load.inside.load(Relaxed), 0);
    let heard = |counts: &[AtomicU64; 2]| counts.each_ref().map(|count| count.load(Relaxed));
    assert_eq!(heard(&load.heard.calls), [made; 2]);
    let [begun, ended] = heard(&load.heard.attempts);
    assert_eq!(begun, ended);
    assert_eq!(load.heard.changes.load(Relaxed), told + told_last);

    // And it works as one that is built anew.
    handle.update(&PipelineConfig::new("shaken").layer(settings!(BulkheadConfig { limit: 48 }))).unwrap();
    handle.reset();
    let together: Vec<_> = (0..48).map(|_| load.pipeline.call(|| load.attempt(3))).collect();
    assert!(futures::future::join_all(together).await.iter().all(Result::is_ok));
}
