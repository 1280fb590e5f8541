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
    HedgeDelay, Jitter, Outcome, Pipeline, PipelineBuilder, Policy, Retry, RetryBudget, SingleAttempt, Timeout,
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

/// An operation that does the same at each attempt, and keeps count.
#[derive(Debug)]
pub(crate) struct Op {
    when: When,
    how: How,
    started: AtomicU32,
    ended: AtomicU32,
    alive: AtomicU32,
}

impl Op {
    pub(crate) fn new((when, how): (When, How)) -> Self {
        Self { when, how, started: AtomicU32::new(0), ended: AtomicU32::new(0), alive: AtomicU32::new(0) }
    }

    pub(crate) fn attempt(&self) -> impl Future<Output = Result<u32, Fault>> + Send {
        self.started.fetch_add(1, SeqCst);
        if self.when == When::Making {
            return self.end_of(None);
        }
        self.alive.fetch_add(1, SeqCst);
        self.end_of(Some(Alive(self)))
    }

    fn end_of<'a>(&'a self, alive: Option<Alive<'a>>) -> impl Future<Output = Result<u32, Fault>> + Send {
        if alive.is_none() {
            self.ended.fetch_add(1, SeqCst);
            resume_unwind(Box::new(TOLD_TO));
        }
        async move {
            let _alive = alive;
            match self.when {
                When::Making | When::AtOnce => {}
                When::Later => yield_now().await,
                When::Slowly => sleep(SLOW).await,
            }
            if self.how == How::Never {
                std::future::pending::<()>().await;
            }
            self.ended.fetch_add(1, SeqCst);
            match self.how {
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

#[derive(Default)]
struct Parts {
    bulkhead: Option<Arc<Bulkhead>>,
    breaker: Option<Arc<CircuitBreaker>>,
    budget: Option<Arc<RetryBudget>>,
    /// Another call has the bulkhead's only permit for this long.
    taken_for: Duration,
}

/// The tokens in a budget before the first call.
const INITIAL: f64 = 10.0;
const RATIO: f64 = 0.25;

impl<P: Policy<u32, Fault>> Row<P> {
    /// Brings it to where the call of interest begins.
    pub(crate) async fn prepare(&self) {
        if let Some(breaker) = &self.parts.breaker {
            while breaker.state().is_open() {
                sleep(ms(1)).await;
            }
        }
        if let (Some(bulkhead), false) = (&self.parts.bulkhead, self.parts.taken_for.is_zero()) {
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
        let Parts { bulkhead, breaker, budget, taken_for } = &self.parts;
        if let Some(breaker) = breaker {
            let now = breaker.snapshot();
            assert_eq!(now.probes_in_flight, 0, "a probe is held: {now:?}");
            let to_blame = op.ended() > 0 || began.elapsed() >= LIMIT;
            assert!(to_blame || !now.state.is_open(), "opened by nothing: {now:?}");
        }
        if let Some(budget) = budget {
            let earned = if succeeded { RATIO } else { 0.0 };
            let spent = f64::from(op.started().saturating_sub(1));
            let balance = budget.balance();
            assert!((INITIAL + earned - spent - balance).abs() < 1e-9, "{balance} left after {spent} repeats");
        }
        if let Some(bulkhead) = bulkhead {
            assert_eq!(bulkhead.queued(), 0, "a place in the queue is held");
            sleep(*taken_for + ms(1)).await;
            assert_eq!(bulkhead.in_use(), 0, "a permit is held");
        }
        let open = breaker.as_ref().is_some_and(|breaker| breaker.state() != CircuitState::Closed);
        let next = self.pipeline.call(|| async { Ok(ANSWER) }).await;
        assert!(next == Ok(ANSWER) || open && next.is_err() || open && next == Ok(SUBSTITUTE), "then: {next:?}");
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

fn budget() -> Arc<RetryBudget> {
    Arc::new(RetryBudget::builder().initial(10).ratio(RATIO).build().unwrap())
}

fn backoff() -> Backoff {
    Backoff::constant(ms(10)).jitter(Jitter::None)
}

fn closed() -> Arc<CircuitBreaker> {
    Arc::new(CircuitBreaker::builder().slow_call(SLOW).build().unwrap())
}

/// Its break is nearly over, and one probe decides.
fn about_to_be_half_open() -> Arc<CircuitBreaker> {
    let breaker = CircuitBreaker::builder().count_window(1).min_calls(1).open_for(ms(5)).probes(1);
    let breaker = Arc::new(breaker.build().unwrap());
    _ = breaker.admit().unwrap().failure("told");
    assert!(breaker.state().is_open());
    breaker
}

fn single_permit(queue: usize) -> Arc<Bulkhead> {
    let bulkhead = Bulkhead::builder().limit(1).queue(queue);
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
    let bulkhead = single_permit(0);
    row!(pipeline("bulkhead").bulkhead(Arc::clone(&bulkhead)), Parts { bulkhead: Some(bulkhead), ..Parts::default() })
}

/// A call that has to wait for its permit, and gets it.
pub(crate) fn bulkhead_after_a_wait() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let bulkhead = single_permit(1);
    let parts = Parts { bulkhead: Some(Arc::clone(&bulkhead)), taken_for: ms(10), ..Parts::default() };
    row!(pipeline("bulkhead after a wait").bulkhead(bulkhead), parts)
}

/// A call that waits in vain.
pub(crate) fn bulkhead_without_end() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let bulkhead = single_permit(1);
    let parts = Parts { bulkhead: Some(Arc::clone(&bulkhead)), taken_for: ms(40), ..Parts::default() };
    row!(pipeline("bulkhead without end").bulkhead(bulkhead), parts)
}

pub(crate) fn breaker() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let breaker = closed();
    row!(
        pipeline("breaker").circuit_breaker(Arc::clone(&breaker)),
        Parts { breaker: Some(breaker), ..Parts::default() }
    )
}

pub(crate) fn breaker_half_open() -> Row<impl Policy<u32, Fault> + SingleAttempt> {
    let breaker = about_to_be_half_open();
    let builder = pipeline("breaker half-open").circuit_breaker(Arc::clone(&breaker)).timeout(LIMIT);
    row!(builder, Parts { breaker: Some(breaker), ..Parts::default() })
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

pub(crate) fn boxed() -> Row<impl Policy<u32, Fault>> {
    let budget = budget();
    let retry = Retry::builder().backoff(backoff()).budget(Arc::clone(&budget)).build().unwrap();
    let timeout = BoxPolicy::<u32, Fault>::new(Timeout::new(LIMIT).unwrap());
    let builder = pipeline("boxed").layer(BoxPolicy::<u32, Fault>::new(retry)).layer(timeout);
    row!(builder, Parts { budget: Some(budget), ..Parts::default() })
}

/// As the standard pipeline has them.
pub(crate) fn stack() -> Row<impl Policy<u32, Fault>> {
    let (budget, bulkhead, breaker) = (budget(), single_permit(0), closed());
    let builder = pipeline("stack")
        .timeout(ms(200))
        .retry(Retry::builder().backoff(backoff()).budget(Arc::clone(&budget)))
        .bulkhead(Arc::clone(&bulkhead))
        .circuit_breaker(Arc::clone(&breaker))
        .timeout(LIMIT);
    let parts =
        Parts { bulkhead: Some(bulkhead), breaker: Some(breaker), budget: Some(budget), taken_for: Duration::ZERO };
    row!(builder, parts)
}

/// All six, with one budget for retries and hedges, a queue that is waited in, and a circuit that is half-open.
pub(crate) fn all_six() -> Row<impl Policy<u32, Fault>> {
    let (budget, bulkhead, breaker) = (budget(), single_permit(1), about_to_be_half_open());
    let builder = pipeline("all six")
        .fallback(Fallback::value(SUBSTITUTE))
        .timeout(ms(200))
        .retry(Retry::builder().backoff(backoff()).budget(Arc::clone(&budget)))
        .hedge(Hedge::builder().delay(ms(5)).budget(Arc::clone(&budget)))
        .bulkhead(Arc::clone(&bulkhead))
        .circuit_breaker(Arc::clone(&breaker))
        .timeout(LIMIT);
    let parts = Parts { bulkhead: Some(bulkhead), breaker: Some(breaker), budget: Some(budget), taken_for: ms(10) };
    row!(builder, parts)
}

/// The same layers in two pipelines, one inside the other.
pub(crate) fn nested() -> Row<impl Policy<u32, Fault>> {
    let (budget, bulkhead, breaker) = (budget(), single_permit(0), closed());
    let inner = pipeline("inner").bulkhead(Arc::clone(&bulkhead)).circuit_breaker(Arc::clone(&breaker)).timeout(LIMIT);
    let builder = pipeline("nested")
        .retry(Retry::builder().backoff(backoff()).budget(Arc::clone(&budget)))
        .layer(inner.build().unwrap());
    let parts =
        Parts { bulkhead: Some(bulkhead), breaker: Some(breaker), budget: Some(budget), taken_for: Duration::ZERO };
    row!(builder, parts)
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
    };
}

pub(crate) use {every_row, every_single_row};
