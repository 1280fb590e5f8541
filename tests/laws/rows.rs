//! One row for each policy, and some for how they are put together.

use std::{
    future::Future,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use withstand::{
    Backoff, BoxPolicy, Bulkhead, CircuitBreaker, CircuitState, ClassifyErrors, Event, EventKind, Fallback, Hedge,
    HedgeDelay, Jitter, Name, Outcome, Pipeline, PipelineBuilder, Policy, Retry, RetryBudget, SingleAttempt, Timeout,
    Verdict,
};

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The limit of every attempt timeout in the rows.
pub(crate) const LIMIT: Duration = ms(20);
/// How long a slow operation takes: longer than the limit.
const SLOW: Duration = ms(30);
/// What an operation answers, and what a fallback does.
pub(crate) const ANSWER: u32 = 7;
pub(crate) const SUBSTITUTE: u32 = 0;

/// What an operation panics with. It does so without a word, as there are thousands of them.
pub(crate) const TOLD_TO: &str = "told to";

/// The errors of operations here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It may be gone the next time.
    Passing,
    /// It will be there the next time as well.
    Lasting,
    /// It is no fault of the dependency.
    Ours,
}

/// When an attempt of an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before there is a future: in the closure.
    Making,
    AtOnce,
    /// At its second poll.
    Later,
    /// After a time that is longer than the limit.
    Slowly,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Ok,
    Err(Fault),
    Panic,
    Never,
}

/// Everything an attempt can do.
pub(crate) const BEHAVIOURS: [(When, How); 11] = [
    (When::Making, How::Panic),
    (When::AtOnce, How::Ok),
    (When::AtOnce, How::Err(Fault::Passing)),
    (When::AtOnce, How::Panic),
    (When::AtOnce, How::Never),
    (When::Later, How::Ok),
    (When::Later, How::Err(Fault::Passing)),
    (When::Later, How::Panic),
    (When::Slowly, How::Ok),
    (When::Slowly, How::Err(Fault::Passing)),
    (When::Slowly, How::Panic),
];

/// An operation that goes through a script, attempt by attempt, and keeps count. All attempts after the last of the
/// script are like that one.
#[derive(Debug)]
pub(crate) struct Op {
    script: Vec<(When, How)>,
    started: AtomicU32,
    ended: AtomicU32,
    alive: AtomicU32,
}

impl Op {
    /// The same at each attempt.
    pub(crate) fn new(behaviour: (When, How)) -> Self {
        Self::following(vec![behaviour])
    }

    pub(crate) fn following(script: Vec<(When, How)>) -> Self {
        Self { script, started: AtomicU32::new(0), ended: AtomicU32::new(0), alive: AtomicU32::new(0) }
    }

    pub(crate) fn attempt(&self) -> impl Future<Output = Result<u32, Fault>> + Send {
        let index = usize::try_from(self.started.fetch_add(1, SeqCst)).unwrap().min(self.script.len() - 1);
        let (when, how) = self.script[index];
        if when == When::Making {
            self.ended.fetch_add(1, SeqCst);
            resume_unwind(Box::new(TOLD_TO));
        }
        self.alive.fetch_add(1, SeqCst);
        let alive = Alive(self);
        async move {
            let _alive = alive;
            match when {
                When::Making | When::AtOnce => {}
                When::Later => yield_now().await,
                When::Slowly => sleep(SLOW).await,
            }
            if how == How::Never {
                std::future::pending::<()>().await;
            }
            self.ended.fetch_add(1, SeqCst);
            match how {
                How::Ok => Ok(ANSWER),
                How::Err(fault) => Err(fault),
                How::Panic | How::Never => resume_unwind(Box::new(TOLD_TO)),
            }
        }
    }

    /// The attempts that were made.
    pub(crate) fn started(&self) -> u32 {
        self.started.load(SeqCst)
    }

    /// The attempts that came to their end.
    pub(crate) fn ended(&self) -> u32 {
        self.ended.load(SeqCst)
    }

    /// The attempts whose future is there still.
    pub(crate) fn alive(&self) -> u32 {
        self.alive.load(SeqCst)
    }
}

/// Counts a future for as long as it lives.
struct Alive<'a>(&'a Op);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, SeqCst);
    }
}

/// What a pipeline's observer has counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls_started: AtomicU32,
    pub(crate) calls_finished: AtomicU32,
    pub(crate) attempts_started: AtomicU32,
    pub(crate) attempts_finished: AtomicU32,
    /// What was refused, or ended before it reached the operation, perhaps.
    refused: AtomicU32,
    others: AtomicU32,
    /// The attempts that the last `CallFinished` tells of.
    pub(crate) attempts_told: AtomicU32,
    /// Makes the observer panic at each event, once it has counted it.
    pub(crate) panics: AtomicBool,
}

impl Counts {
    fn hear(&self, event: &Event<'_>) {
        let counter = match event.kind {
            EventKind::CallStarted { .. } => &self.calls_started,
            EventKind::CallFinished { attempts, .. } => {
                self.attempts_told.store(attempts, SeqCst);
                &self.calls_finished
            }
            EventKind::AttemptStarted { .. } => &self.attempts_started,
            EventKind::AttemptFinished { .. } => &self.attempts_finished,
            EventKind::Rejected { .. } | EventKind::TimedOut { .. } => &self.refused,
            _ => &self.others,
        };
        counter.fetch_add(1, SeqCst);
        if self.panics.load(SeqCst) {
            resume_unwind(Box::new(TOLD_TO));
        }
    }
}

type ByFault = ClassifyErrors<fn(&Fault) -> Verdict>;

/// A pipeline, and all in it that can be held.
pub(crate) struct Row<P> {
    pub(crate) pipeline: Pipeline<P, ByFault>,
    pub(crate) counts: Arc<Counts>,
    parts: Parts,
}

/// What the layers of a pipeline hold and share.
#[derive(Default)]
pub(crate) struct Parts {
    /// With a single permit each.
    pub(crate) bulkheads: Vec<Arc<Bulkhead>>,
    pub(crate) breakers: Vec<Arc<CircuitBreaker>>,
    pub(crate) budget: Option<Arc<RetryBudget>>,
    /// Another call has the permits of the bulkheads for this long.
    pub(crate) taken_for: Duration,
    /// So many layers repeat what was refused, so that even the first attempt may be within repeats, at most so many.
    pub(crate) repeat_refused: u32,
}

/// The tokens in a budget before the first call.
const INITIAL: f64 = 10.0;
const RATIO: f64 = 0.25;

impl<P: Policy<u32, Fault>> Row<P> {
    /// Brings it to where the call of interest begins.
    pub(crate) async fn prepare(&self) {
        for breaker in &self.parts.breakers {
            while breaker.state().is_open() {
                sleep(ms(1)).await;
            }
        }
        for bulkhead in self.parts.bulkheads.iter().filter(|_| !self.parts.taken_for.is_zero()) {
            let (bulkhead, time) = (Arc::clone(bulkhead), self.parts.taken_for);
            #[expect(clippy::disallowed_methods, reason = "only the library spawns no tasks")]
            tokio::spawn(async move {
                let _permit = bulkhead.try_acquire().unwrap();
                sleep(time).await;
            });
            yield_now().await;
        }
    }

    /// Fails unless everything is back that a call has held. It succeeded or not, and began at this moment.
    pub(crate) async fn holds_nothing(&self, op: &Op, succeeded: bool, began: Instant) {
        assert_eq!(op.alive(), 0, "an attempt outlives its call");
        let Parts { bulkheads, breakers, budget, taken_for, repeat_refused } = &self.parts;
        for breaker in breakers {
            let now = breaker.snapshot();
            assert_eq!(now.probes_in_flight, 0, "a probe is held: {now:?}");
            let to_blame = op.ended() > 0 || began.elapsed() >= LIMIT;
            assert!(to_blame || !now.state.is_open(), "opened by nothing: {now:?}");
        }
        if let Some(budget) = budget {
            let earned = if succeeded { RATIO } else { 0.0 };
            let repeats = op.started().saturating_sub(1);
            let refused = self.counts.refused.load(SeqCst) > 0;
            let most = if refused { repeats.max(op.started() * repeat_refused) } else { repeats };
            let (balance, spent) = (budget.balance(), INITIAL + earned - budget.balance());
            assert!((0.0..=f64::from(budget.cap())).contains(&balance), "{balance}");
            let due = f64::from(repeats) - 1e-9..=f64::from(most) + 1e-9;
            assert!(due.contains(&spent), "{spent} spent on {repeats} repeats, {most} at most");
        }
        let queued: usize = bulkheads.iter().map(|bulkhead| bulkhead.queued()).sum();
        assert_eq!(queued, 0, "a place in the queue is held");
        sleep(*taken_for + ms(1)).await;
        for bulkhead in bulkheads {
            assert_eq!(bulkhead.in_use(), 0, "a permit is held");
        }
        while breakers.iter().any(|breaker| breaker.state().is_open()) {
            sleep(ms(1)).await;
        }
        assert_eq!(self.pipeline.call(|| async { Ok(ANSWER) }).await, Ok(ANSWER), "the next call");
        for breaker in breakers {
            assert_eq!(breaker.state(), CircuitState::Closed, "after the next call");
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "classifiers are given references")]
fn classify(fault: &Fault) -> Verdict {
    match fault {
        Fault::Passing => Verdict::transient(),
        Fault::Lasting => Verdict::failure(),
        Fault::Ours => Verdict::ignored(),
    }
}

fn pipeline(name: &'static str) -> PipelineBuilder<withstand::PassThrough> {
    Pipeline::builder(name)
}

macro_rules! row {
    ($builder:expr, $parts:expr) => {{
        let counts = Arc::new(Counts::default());
        let ears = Arc::clone(&counts);
        let classify: fn(&Fault) -> Verdict = classify;
        let builder = $builder.classify_errors(classify).observer(move |event: &Event<'_>| ears.hear(event));
        Row { pipeline: builder.build().unwrap(), counts, parts: $parts }
    }};
}

pub(crate) fn budget() -> Arc<RetryBudget> {
    Arc::new(RetryBudget::builder().initial(10).ratio(RATIO).build().unwrap())
}

pub(crate) fn backoff() -> Backoff {
    Backoff::constant(ms(10)).jitter(Jitter::None)
}

pub(crate) fn closed(name: impl Into<Name>) -> Arc<CircuitBreaker> {
    Arc::new(CircuitBreaker::builder().slow_call(SLOW).name(name).build().unwrap())
}

/// Its break is nearly over, and one probe decides.
pub(crate) fn about_to_be_half_open(name: impl Into<Name>) -> Arc<CircuitBreaker> {
    let breaker = CircuitBreaker::builder().name(name).count_window(1).min_calls(1).open_for(ms(5)).probes(1);
    let breaker = Arc::new(breaker.build().unwrap());
    _ = breaker.admit().unwrap().failure("told");
    assert!(breaker.state().is_open());
    breaker
}

pub(crate) fn single_permit(queue: usize, name: impl Into<Name>) -> Arc<Bulkhead> {
    let bulkhead = Bulkhead::builder().name(name).limit(1).queue(queue);
    let bulkhead = if queue > 0 { bulkhead.max_wait(ms(15)) } else { bulkhead };
    Arc::new(bulkhead.build().unwrap())
}

pub(crate) fn nothing() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    row!(pipeline("nothing"), Parts::default())
}

pub(crate) fn timeout() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    row!(pipeline("timeout").timeout(LIMIT), Parts::default())
}

pub(crate) fn retry() -> Row<impl Policy<u32, Fault>> {
    let budget = budget();
    let retry = Retry::builder().backoff(backoff()).budget(Arc::clone(&budget));
    row!(pipeline("retry").retry(retry), Parts { budget: Some(budget), ..Parts::default() })
}

pub(crate) fn bulkhead() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let bulkhead = single_permit(0, "bulkhead");
    row!(pipeline("bulkhead").bulkhead(Arc::clone(&bulkhead)), Parts { bulkheads: vec![bulkhead], ..Parts::default() })
}

/// A call that has to wait for its permit, and gets it.
pub(crate) fn bulkhead_after_a_wait() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let bulkhead = single_permit(1, "bulkhead");
    let parts = Parts { bulkheads: vec![Arc::clone(&bulkhead)], taken_for: ms(10), ..Parts::default() };
    row!(pipeline("bulkhead after a wait").bulkhead(bulkhead), parts)
}

/// A call that waits in vain.
pub(crate) fn bulkhead_without_end() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let bulkhead = single_permit(1, "bulkhead");
    let parts = Parts { bulkheads: vec![Arc::clone(&bulkhead)], taken_for: ms(40), ..Parts::default() };
    row!(pipeline("bulkhead without end").bulkhead(bulkhead), parts)
}

pub(crate) fn breaker() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let breaker = closed("breaker");
    row!(
        pipeline("breaker").circuit_breaker(Arc::clone(&breaker)),
        Parts { breakers: vec![breaker], ..Parts::default() }
    )
}

pub(crate) fn breaker_half_open() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let breaker = about_to_be_half_open("breaker");
    let builder = pipeline("breaker half-open").circuit_breaker(Arc::clone(&breaker)).timeout(LIMIT);
    row!(builder, Parts { breakers: vec![breaker], ..Parts::default() })
}

pub(crate) fn hedge() -> Row<impl Policy<u32, Fault>> {
    let budget = budget();
    let hedge = Hedge::builder().max_hedges(2).delay(ms(5)).budget(Arc::clone(&budget));
    row!(pipeline("hedge").hedge(hedge), Parts { budget: Some(budget), ..Parts::default() })
}

pub(crate) fn hedge_in_parallel() -> Row<impl Policy<u32, Fault>> {
    let budget = budget();
    let hedge = Hedge::builder().max_hedges(2).delay(HedgeDelay::parallel()).budget(Arc::clone(&budget));
    row!(pipeline("hedge in parallel").hedge(hedge), Parts { budget: Some(budget), ..Parts::default() })
}

pub(crate) fn fallback() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    row!(pipeline("fallback").fallback(Fallback::value(SUBSTITUTE)), Parts::default())
}

pub(crate) fn fallback_that_waits() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let fallback = Fallback::from_future(|_: &Outcome<u32, Fault>| async {
        sleep(ms(5)).await;
        Some(Ok(SUBSTITUTE))
    });
    row!(pipeline("fallback that waits").fallback(fallback), Parts::default())
}

/// Armed with everything, and off.
#[cfg(feature = "chaos")]
pub(crate) fn chaos_off() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let chaos = withstand::Chaos::builder().latency(1.0, ms(5)).error(0.4, || Fault::Passing).hang(0.3).panic(0.3);
    row!(pipeline("chaos off").chaos(chaos), Parts::default())
}

/// Each answer is held back, within a permit and a probe.
#[cfg(feature = "chaos")]
pub(crate) fn chaos_latency() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let (bulkhead, breaker) = (single_permit(0, "bulkhead"), about_to_be_half_open("breaker"));
    let builder = pipeline("chaos latency").bulkhead(Arc::clone(&bulkhead)).circuit_breaker(Arc::clone(&breaker));
    let builder = builder.timeout(LIMIT).chaos(withstand::Chaos::builder().latency(1.0, ms(5)).enabled());
    row!(builder, Parts { bulkheads: vec![bulkhead], breakers: vec![breaker], ..Parts::default() })
}

pub(crate) fn boxed() -> Row<impl Policy<u32, Fault>> {
    let budget = budget();
    let retry = Retry::builder().backoff(backoff()).budget(Arc::clone(&budget)).build().unwrap();
    let timeout = BoxPolicy::<u32, Fault>::new(Timeout::new(LIMIT).unwrap());
    let builder = pipeline("boxed").layer(BoxPolicy::<u32, Fault>::new(retry)).layer(timeout);
    row!(builder, Parts { budget: Some(budget), ..Parts::default() })
}

/// As the standard pipeline has them.
pub(crate) fn stack() -> Row<impl Policy<u32, Fault>> {
    let (budget, bulkhead, breaker) = (budget(), single_permit(0, "bulkhead"), closed("breaker"));
    let builder = pipeline("stack")
        .timeout(ms(200))
        .retry(Retry::builder().backoff(backoff()).budget(Arc::clone(&budget)))
        .bulkhead(Arc::clone(&bulkhead))
        .circuit_breaker(Arc::clone(&breaker))
        .timeout(LIMIT);
    let parts = Parts { bulkheads: vec![bulkhead], breakers: vec![breaker], budget: Some(budget), ..Parts::default() };
    row!(builder, parts)
}

/// All six, with one budget for retries and hedges, a queue that is waited in, and a circuit that is half-open.
pub(crate) fn all_six() -> Row<impl Policy<u32, Fault>> {
    let (budget, bulkhead, breaker) = (budget(), single_permit(1, "bulkhead"), about_to_be_half_open("breaker"));
    let builder = pipeline("all six")
        .fallback(Fallback::value(SUBSTITUTE))
        .timeout(ms(200))
        .retry(Retry::builder().backoff(backoff()).budget(Arc::clone(&budget)))
        .hedge(Hedge::builder().delay(ms(5)).budget(Arc::clone(&budget)))
        .bulkhead(Arc::clone(&bulkhead))
        .circuit_breaker(Arc::clone(&breaker))
        .timeout(LIMIT);
    let parts = Parts {
        bulkheads: vec![bulkhead],
        breakers: vec![breaker],
        budget: Some(budget),
        taken_for: ms(10),
        ..Parts::default()
    };
    row!(builder, parts)
}

/// The same layers in two pipelines, one inside the other.
pub(crate) fn nested() -> Row<impl Policy<u32, Fault>> {
    let (budget, bulkhead, breaker) = (budget(), single_permit(0, "bulkhead"), closed("breaker"));
    let inner = pipeline("inner").bulkhead(Arc::clone(&bulkhead)).circuit_breaker(Arc::clone(&breaker)).timeout(LIMIT);
    let builder = pipeline("nested")
        .retry(Retry::builder().backoff(backoff()).budget(Arc::clone(&budget)))
        .layer(inner.build().unwrap());
    let parts = Parts { bulkheads: vec![bulkhead], breakers: vec![breaker], budget: Some(budget), ..Parts::default() };
    row!(builder, parts)
}

/// Of a policy that is not known here.
pub(crate) fn any(policy: BoxPolicy<u32, Fault>, parts: Parts) -> Row<impl Policy<u32, Fault>> {
    row!(pipeline("any").layer(policy), parts)
}

/// Holds each row against a law.
macro_rules! every_row {
    ($law:path) => {
        crate::rows::every_single_row!($law);
        $law(crate::rows::retry).await;
        $law(crate::rows::hedge).await;
        $law(crate::rows::hedge_in_parallel).await;
        $law(crate::rows::boxed).await;
        $law(crate::rows::stack).await;
        $law(crate::rows::all_six).await;
        $law(crate::rows::nested).await;
    };
}

/// Holds each row that makes a single attempt against a law.
macro_rules! every_single_row {
    ($law:path) => {
        $law(crate::rows::nothing).await;
        $law(crate::rows::timeout).await;
        $law(crate::rows::bulkhead).await;
        $law(crate::rows::bulkhead_after_a_wait).await;
        $law(crate::rows::bulkhead_without_end).await;
        $law(crate::rows::breaker).await;
        $law(crate::rows::breaker_half_open).await;
        $law(crate::rows::fallback).await;
        $law(crate::rows::fallback_that_waits).await;
        #[cfg(feature = "chaos")]
        $law(crate::rows::chaos_off).await;
        #[cfg(feature = "chaos")]
        $law(crate::rows::chaos_latency).await;
    };
}

pub(crate) use {every_row, every_single_row};
