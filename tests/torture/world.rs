//! What is tortured: pipelines of all six policies that share their bulkheads, their breaker and their budget.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    runtime::Builder,
    time::{Duration, Instant, sleep, timeout},
};
use withstand::{
    Backoff, Bulkhead, CallOptions, CircuitBreaker, CircuitState, ClassifyErrors, Error, Event, EventKind, Fallback,
    Hedge, Idempotency, Pipeline, Retry, RetryBudget, Timeout, Value, Verdict, layers,
};

use crate::{
    random::Random,
    record::{CALL, Gauge, Op, by_verdict},
};

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

type ByVerdict = ClassifyErrors<fn(&Verdict) -> Verdict>;
type Result = std::result::Result<u32, Error<Verdict>>;

type Standard = layers![Timeout, Retry, Arc<Bulkhead>, Arc<CircuitBreaker>, Timeout];
type AllSix = layers![Fallback<Value<u32>>, Timeout, Retry, Hedge, Arc<Bulkhead>, Arc<CircuitBreaker>, Timeout];
type Single = layers![Fallback<Value<u32>>, Timeout, Arc<Bulkhead>, Arc<CircuitBreaker>, Timeout];
type Inner = layers![Hedge, Arc<Bulkhead>, Arc<CircuitBreaker>, Timeout];
type Nested = layers![Timeout, Retry, Arc<Pipeline<Inner, ByVerdict>>];
type Outer = layers![Timeout, Retry];

/// The limit of both bulkheads at rest, and the highest one that they ever have.
pub(crate) const LIMIT: usize = 12;
pub(crate) const MOST: usize = 24;
const PROBES: u32 = 3;
const INITIAL: u32 = 20;
const CAP: u32 = 50;
const RATIO: f64 = 0.25;
/// Besides the primary.
const HEDGES: u32 = 2;

/// The attempts that one call may have under way at once.
pub(crate) const MOST_AT_ONCE: u64 = 3;

pub(crate) struct World {
    /// The time that an attempt may take.
    each: Duration,
    standard: Pipeline<Standard, ByVerdict>,
    all_six: Pipeline<AllSix, ByVerdict>,
    single: Pipeline<Single, ByVerdict>,
    /// As a layer of another pipeline, and called by one.
    inner: Arc<Pipeline<Inner, ByVerdict>>,
    nested: Pipeline<Nested, ByVerdict>,
    outer: Pipeline<Outer, ByVerdict>,
    /// Whoever finds no permit is refused.
    counted: Arc<Bulkhead>,
    under_counted: Gauge,
    /// Whoever finds no permit waits.
    queued: Arc<Bulkhead>,
    pub(crate) under_queued: Gauge,
    breaker: Arc<CircuitBreaker>,
    budget: Arc<RetryBudget>,
    /// How often what has happened.
    pub(crate) happened: Happened,
}

type Happened = Arc<Mutex<BTreeMap<&'static str, u64>>>;

/// So many kinds of events are watched for, and that an observer panicked.
pub(crate) const KINDS: usize = 11;

/// What an observer panics with, after it has heard.
struct Unheard;

/// The names of those that show that something was shared, waited for or refused.
fn name(kind: &EventKind) -> Option<&'static str> {
    Some(match kind {
        EventKind::Retried { .. } => "retried",
        EventKind::Hedged { .. } => "hedged",
        EventKind::HedgeSuppressed { .. } => "hedge suppressed",
        EventKind::Rejected { .. } => "rejected",
        EventKind::TimedOut { .. } => "timed out",
        EventKind::Waited { .. } => "waited",
        EventKind::Opened { .. } => "opened",
        EventKind::ProbeFinished { .. } => "probe finished",
        EventKind::Isolated { .. } => "isolated",
        EventKind::LimitChanged { .. } => "limit changed",
        _ => return None,
    })
}

/// The number of ways to call in a [`World`].
pub(crate) const WAYS: u64 = 6;

impl World {
    /// With attempts that may take so long.
    pub(crate) fn new(each: Duration) -> Self {
        let happened = Happened::default();
        let counted = Arc::new(Bulkhead::builder().limit(LIMIT).build().unwrap());
        let queued = Arc::new(Bulkhead::builder().limit(LIMIT).queue(32).max_wait(each / 2).build().unwrap());
        let breaker = CircuitBreaker::builder().count_window(64).min_calls(32).open_for(ms(1)).growth(1.0);
        let breaker = Arc::new(breaker.probes(PROBES).probe_lease(each * 2).slow_call(each * 3 / 4).build().unwrap());
        let budget = Arc::new(RetryBudget::builder().initial(INITIAL).cap(CAP).ratio(RATIO).build().unwrap());
        let total = each * 5 / 2;
        let retry = || {
            let backoff = Backoff::exponential(ms(1)).cap(ms(3));
            Retry::builder().backoff(backoff).min_time_left(ms(1)).budget(budget.clone()).retry_rejected()
        };
        let hedge = || Hedge::builder().max_hedges(HEDGES).delay(ms(1)).budget(budget.clone());
        let by_verdict: fn(&Verdict) -> Verdict = by_verdict;

        macro_rules! built {
            ($builder:expr, next_to_operation: $is_inner:literal) => {{
                let (happened, heard) = (happened.clone(), AtomicU64::new(0));
                let observed = $builder.classify_errors(by_verdict).observer(move |event: &Event<'_>| {
                    if let Some(name) = name(&event.kind) {
                        *happened.lock().unwrap().entry(name).or_default() += 1;
                    }
                    // What no call causes, such as a reset, is of no call.
                    let _of_none = CALL.try_with(|call| call.hear(event, $is_inner));
                    if heard.fetch_add(1, Relaxed) % 8 == 0 {
                        *happened.lock().unwrap().entry("observer panicked").or_default() += 1;
                        resume_unwind(Box::new(Unheard));
                    }
                });
                observed.build().unwrap()
            }};
        }

        let standard = Pipeline::builder("standard").timeout(total).retry(retry()).bulkhead(counted.clone());
        let all_six = Pipeline::builder("all six").fallback(Fallback::value(0)).timeout(total).retry(retry());
        let all_six = all_six.hedge(hedge()).bulkhead(queued.clone());
        let single = Pipeline::builder("single").fallback(Fallback::value(0)).timeout(total).bulkhead(counted.clone());
        let inner = Pipeline::builder("inner").hedge(hedge()).bulkhead(queued.clone());
        let inner = built!(inner.circuit_breaker(breaker.clone()).timeout(each), next_to_operation: true);
        let inner = Arc::new(inner);
        let nested = Pipeline::builder("nested").timeout(total).retry(retry()).layer(inner.clone());
        let outer = Pipeline::builder("outer").timeout(total).retry(retry());
        Self {
            each,
            standard: built!(standard.circuit_breaker(breaker.clone()).timeout(each), next_to_operation: true),
            all_six: built!(all_six.circuit_breaker(breaker.clone()).timeout(each), next_to_operation: true),
            single: built!(single.circuit_breaker(breaker.clone()).timeout(each), next_to_operation: true),
            nested: built!(nested, next_to_operation: true),
            outer: built!(outer, next_to_operation: false),
            inner,
            counted,
            under_counted: Gauge::default(),
            queued,
            under_queued: Gauge::default(),
            breaker,
            budget,
            happened,
        }
    }

    /// Whether both bulkheads have given out all that they have, and some wait for more.
    pub(crate) fn is_full(&self) -> bool {
        [&self.counted, &self.queued].iter().all(|bulkhead| bulkhead.in_use() == LIMIT) && self.queued.queued() > 0
    }

    /// The attempts that hold permits of the same bulkhead as those of this way.
    pub(crate) fn beside(&self, way: u64) -> &Gauge {
        if matches!(way, 0 | 2) { &self.under_counted } else { &self.under_queued }
    }

    /// One call, through one of the pipelines.
    pub(crate) async fn call(&self, way: u64, op: Op<'_>, random: &mut Random) -> Result {
        let mut options = CallOptions::new();
        if random.below(4) == 0 {
            options = options.idempotency(Idempotency::Unsafe);
        }
        if random.below(4) == 0 {
            options = options.deadline(Instant::now() + self.each * u32::try_from(random.below(16)).unwrap() / 8);
        }
        match way {
            0 => self.standard.call_with(options, |_| op.attempt()).await,
            1 => self.all_six.call(|| op.attempt()).await,
            2 => self.single.guard_with(options, async { op.attempt().await }).await,
            3 => self.nested.call_with(options, |_| op.attempt()).await,
            4 => self.outer.forward(|| self.inner.outcome(|| op.attempt())).await,
            _ => self.inner.call(|| op.attempt()).await,
        }
    }

    /// Does to the shared parts what may be done to them while calls run.
    pub(crate) async fn disturb(&self, random: &mut Random) {
        let bulkhead = if random.below(2) == 0 { &self.counted } else { &self.queued };
        let pause = sleep(ms(random.below(3)));
        match random.below(8) {
            0..=2 => bulkhead.set_limit(usize::try_from(random.below(MOST as u64 + 1)).unwrap()).unwrap(),
            3 => {
                let _isolation = self.breaker.isolate();
                pause.await;
            }
            4 => self.breaker.reset(),
            5 => {
                let _permit = timeout(ms(1), bulkhead.acquire()).await;
                pause.await;
            }
            6 => {
                let ticket = self.breaker.admit();
                pause.await;
                drop(ticket);
            }
            _ => drop(timeout(ms(1), self.breaker.subscribe().changed()).await),
        }
        self.within_bounds();
        sleep(ms(1)).await;
    }

    /// What holds at any moment.
    fn within_bounds(&self) {
        let balance = self.budget.balance();
        assert!((0.0..=f64::from(CAP)).contains(&balance), "{balance} in a budget of {CAP}");
        let now = self.breaker.snapshot();
        assert!(now.probes_in_flight <= PROBES, "{now:?}");
        for gauge in [&self.under_counted, &self.under_queued] {
            assert!(gauge.most() <= MOST as u64, "{gauge:?}");
        }
    }

    /// What holds when nothing runs any more: so many attempts beyond each call's first one were made, and so many
    /// attempts succeeded.
    pub(crate) fn check_at_rest(&self, repeats: u64, successes: u64) {
        self.within_bounds();
        let tokens = |number: u64| f64::from(u32::try_from(number).unwrap());
        let (spent, earned) = (tokens(repeats), RATIO * tokens(successes));
        let balance = self.budget.balance();
        assert!(
            spent + balance <= f64::from(INITIAL) + earned + 1e-6,
            "{spent} spent and {balance} left of {INITIAL} and {earned} earned"
        );

        for bulkhead in [&self.counted, &self.queued] {
            assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 0), "held: {bulkhead:?}");
            bulkhead.set_limit(LIMIT).unwrap();
            let permits: Vec<_> = std::iter::from_fn(|| bulkhead.try_acquire().ok()).take(2 * MOST).collect();
            assert_eq!(permits.len(), LIMIT, "permits lost or found: {bulkhead:?}");
        }
        assert_eq!(self.breaker.snapshot().probes_in_flight, 0, "{:?}", self.breaker.snapshot());
        self.breaker.reset();
        assert_eq!(self.breaker.state(), CircuitState::Closed);

        let answer = || async { Ok(7) };
        Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            assert_eq!(self.standard.call(answer).await, Ok(7));
            assert_eq!(self.all_six.call(answer).await, Ok(7));
            assert_eq!(self.single.guard(answer()).await, Ok(7));
            assert_eq!(self.nested.call(answer).await, Ok(7));
            assert_eq!(self.outer.forward(|| self.inner.outcome(answer)).await, Ok(7));
        });
    }
}
