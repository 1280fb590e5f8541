//! Arbitrary numbers in every setter of every builder: `build()` refuses them in words, or what it builds works.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime,
    time::{Instant, sleep},
};
use withstand::{
    Backoff, BoxPolicy, Bulkhead, BulkheadBuilder, CallOptions, CircuitBreaker, CircuitBreakerBuilder, Classify,
    ConfigError, Fallback, Hedge, HedgeBuilder, HedgeDelay, Idempotency, Jitter, Outcome, PassThrough, Pipeline,
    Policy, Priority, Retry, RetryBudget, RetryBudgetBuilder, RetryBuilder, Stack, Timeout, TimeoutBuilder, Verdict,
    VerdictKind,
};

use crate::bytes::Bytes;

type Boxed = BoxPolicy<u32, Verdict>;

/// After so many polls a call is dropped: a retry without a wait may go on for billions of attempts, as it was told.
const MOST_POLLS: u32 = 300;
/// So many attempts follow the input; those after them succeed.
const MOST_ATTEMPTS: usize = 60;
/// What timers round up by, all together.
const ROUNDING: Duration = Duration::from_secs(1);

pub(crate) fn run(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        match bytes.below(4) {
            0 => standard(&mut bytes).await,
            1 => upside_down(&mut bytes).await,
            _ => any_order(&mut bytes).await,
        }
    });
}

/// The order that most pipelines have, by the builders as they are.
async fn standard(bytes: &mut Bytes<'_>) {
    let name = name(bytes);
    let builder = Pipeline::builder(name.clone())
        .fallback(fallback(bytes, Fallback::value(7)))
        .timeout(timeout(bytes))
        .retry(retry(bytes))
        .hedge(hedge(bytes))
        .bulkhead(bulkhead(bytes))
        .circuit_breaker(breaker(bytes))
        .timeout(bytes.duration())
        .classify_errors(|verdict: &Verdict| *verdict);
    assert!(!format!("{builder:?}").is_empty());
    check(builder.build(), &name, bytes).await;
}

async fn upside_down(bytes: &mut Bytes<'_>) {
    let name = name(bytes);
    let builder = Pipeline::builder(name.clone())
        .circuit_breaker(breaker(bytes))
        .bulkhead(bulkhead(bytes))
        .hedge(hedge(bytes))
        .retry(retry(bytes))
        .retry(retry(bytes))
        .timeout(timeout(bytes))
        .classify_errors(|verdict: &Verdict| *verdict);
    check(builder.build(), &name, bytes).await;
}

/// Up to eight layers in any order, each built by itself. Those that are refused are left out.
async fn any_order(bytes: &mut Bytes<'_>) {
    let layers: Vec<Boxed> = (0..bytes.below(9)).filter_map(|_| layer(bytes)).collect();
    let around = |inside, layer| BoxPolicy::new(Stack::new(layer, inside));
    let policy: Boxed = layers.into_iter().fold(BoxPolicy::new(PassThrough::default()), around);
    let name = name(bytes);
    let builder = Pipeline::builder(name.clone()).layer(policy).classify_errors(|verdict: &Verdict| *verdict);
    check(builder.build(), &name, bytes).await;
}

fn layer(bytes: &mut Bytes<'_>) -> Option<Boxed> {
    match bytes.below(8) {
        0 => boxed(timeout(bytes).build()),
        1 => boxed(Timeout::new(bytes.duration())),
        2 => boxed(retry(bytes).build()),
        3 => boxed(hedge(bytes).build()),
        4 => {
            let bulkhead = accepted(bulkhead(bytes).build())?;
            let (before, limit) = (bulkhead.limit(), bytes.usize());
            let expected = if accepted(bulkhead.set_limit(limit)).is_some() { limit } else { before };
            assert_eq!(bulkhead.limit(), expected);
            boxed(Ok(bulkhead))
        }
        5 => {
            let breaker = accepted(breaker(bytes).build())?;
            let isolation = bytes.maybe(|_| breaker.isolate());
            assert_eq!(breaker.admit().is_ok(), isolation.is_none());
            boxed(Ok(breaker))
        }
        6 => boxed(fallback(bytes, Fallback::value(7)).build()),
        _ => {
            let (takes, declines) = (bytes.duration(), bytes.flag());
            let slow = move |_: &Outcome<u32, Verdict>| async move {
                sleep(takes).await;
                (!declines).then_some(Ok(7))
            };
            boxed(fallback(bytes, Fallback::from_future(slow)).build())
        }
    }
}

fn boxed<P: Policy<u32, Verdict> + 'static>(policy: Result<P, ConfigError>) -> Option<Boxed> {
    accepted(policy).map(BoxPolicy::new)
}

/// What was built. A refusal says what is wrong, and what would be right.
fn accepted<X>(built: Result<X, ConfigError>) -> Option<X> {
    let error = match built {
        Ok(built) => return Some(built),
        Err(error) => error,
    };
    let words = error.to_string();
    for word in [error.field(), error.value(), error.accepted()] {
        assert!(!word.trim().is_empty(), "{error:?}");
        assert!(words.contains(word), "{words} does not say {word}");
    }
    if let Some(policy) = error.policy() {
        assert!(!policy.as_str().trim().is_empty(), "{error:?}");
        assert!(words.contains(policy.as_str()), "{words}");
    }
    None
}

fn name(bytes: &mut Bytes<'_>) -> String {
    match bytes.byte() {
        0..=7 => String::new(),
        8..=15 => " \t".to_owned(),
        16..=23 => "retry".to_owned(),
        24..=31 => "{} \u{202e}\n\0".to_owned(),
        32..=39 => "n".repeat(10_000),
        own => format!("layer-{own}"),
    }
}

/// Gives a builder what the input has for it: each setter in its turn, or not at all.
macro_rules! set {
    ($bytes:ident, $builder:expr, $($setter:ident($value:expr)),+ $(,)?) => {{
        let mut builder = $builder;
        $(if $bytes.flag() {
            builder = builder.$setter($value);
        })+
        builder
    }};
}

fn timeout(bytes: &mut Bytes<'_>) -> TimeoutBuilder {
    let builder = Timeout::builder(bytes.duration());
    set!(bytes, builder, name(name(bytes)))
}

fn retry(bytes: &mut Bytes<'_>) -> RetryBuilder {
    let mut retry = set!(
        bytes,
        Retry::builder(),
        name(name(bytes)),
        max_attempts(bytes.u32()),
        backoff(backoff(bytes)),
        max_elapsed(bytes.duration()),
        min_time_left(bytes.duration()),
        max_hint(bytes.duration()),
        own_budget(budget(bytes)),
        seed(bytes.u64()),
    );
    if bytes.flag() {
        retry = retry.retry_rejected();
    }
    if bytes.flag() {
        retry = retry.repeat_spent();
    }
    match bytes.below(4) {
        0 => retry.without_budget(),
        1 => accepted(budget(bytes).build()).map_or_else(Retry::builder, |budget| retry.budget(Arc::new(budget))),
        _ => retry,
    }
}

fn backoff(bytes: &mut Bytes<'_>) -> Backoff {
    let waits = [bytes.duration(), bytes.duration()];
    let backoff = match bytes.below(5) {
        0 => Backoff::constant(waits[0]),
        1 => Backoff::linear(waits[0]),
        2 => Backoff::exponential(waits[0]),
        3 => Backoff::decorrelated(waits[0]),
        _ => Backoff::custom(move |step| step.previous().map_or(Some(waits[0]), |_| waits.get(1).copied())),
    };
    let jitter = bytes.one_of(&[Jitter::None, Jitter::Full, Jitter::Equal]);
    set!(bytes, backoff, cap(bytes.duration()), factor(bytes.float()), jitter(jitter))
}

fn budget(bytes: &mut Bytes<'_>) -> RetryBudgetBuilder {
    set!(bytes, RetryBudget::builder(), ratio(bytes.float()), initial(bytes.u32()), cap(bytes.u32()))
}

fn hedge(bytes: &mut Bytes<'_>) -> HedgeBuilder {
    let delay = match bytes.below(5) {
        0 => HedgeDelay::fixed(bytes.duration()),
        1 => HedgeDelay::on_failure(),
        2 => HedgeDelay::parallel(),
        3 => HedgeDelay::quantile(bytes.float()),
        _ => {
            let delays = [bytes.duration(), bytes.duration()];
            HedgeDelay::custom(move |hedge| delays.get(usize::try_from(hedge).unwrap()).copied())
        }
    };
    let delay = set!(
        bytes,
        delay,
        floor(bytes.duration()),
        ceiling(bytes.duration()),
        starting(bytes.duration()),
        window(bytes.duration()),
        min_samples(bytes.u32()),
    );
    let hedge = set!(
        bytes,
        Hedge::builder(),
        name(name(bytes)),
        max_hedges(bytes.u32()),
        delay(delay),
        own_budget(budget(bytes)),
    );
    if bytes.flag() { hedge.without_budget() } else { hedge }
}

fn bulkhead(bytes: &mut Bytes<'_>) -> BulkheadBuilder {
    set!(
        bytes,
        Bulkhead::builder(),
        name(name(bytes)),
        limit(bytes.usize()),
        queue(bytes.usize()),
        max_wait(bytes.duration()),
    )
}

fn breaker(bytes: &mut Bytes<'_>) -> CircuitBreakerBuilder {
    set!(
        bytes,
        CircuitBreaker::builder(),
        name(name(bytes)),
        count_window(bytes.u32()),
        time_window(bytes.duration()),
        consecutive_failures(bytes.u32()),
        consecutive_span(bytes.duration()),
        failure_rate(bytes.float()),
        min_calls(bytes.u32()),
        slow_call(bytes.duration()),
        slow_rate(bytes.float()),
        open_for(bytes.duration()),
        growth(bytes.float()),
        max_open_for(bytes.duration()),
        jitter(bytes.float()),
        probes(bytes.u32()),
        close_after(bytes.u32()),
        probe_lease(bytes.duration()),
        seed(bytes.u64()),
    )
}

fn fallback<S>(bytes: &mut Bytes<'_>, builder: withstand::FallbackBuilder<S>) -> withstand::FallbackBuilder<S> {
    const KINDS: [VerdictKind; 3] = [VerdictKind::Rejected, VerdictKind::Transient, VerdictKind::Success];
    set!(bytes, builder, name(name(bytes)), limit(bytes.duration()), handles(KINDS.into_iter().take(bytes.below(4))),)
}

/// What an attempt does: it takes its time, and ends with a result or a panic.
#[derive(Clone, Copy, Debug)]
struct Step {
    takes: Option<Duration>,
    ends: Option<Result<u32, Verdict>>,
}

fn step(bytes: &mut Bytes<'_>) -> Step {
    let hint = bytes.maybe(Bytes::duration);
    let ends = match bytes.below(9) {
        0 | 1 => Some(Ok(1)),
        2 => Some(Err(Verdict::success())),
        3 => Some(Err(Verdict::unreached().retry_after(hint))),
        4 => Some(Err(Verdict::throttled().retry_after(hint))),
        5 => Some(Err(Verdict::failure())),
        6 => Some(Err(Verdict::rejected().retry_after(hint))),
        7 => None,
        _ => Some(Err(Verdict::transient().retry_after(hint))),
    };
    Step { takes: bytes.maybe(Bytes::duration), ends }
}

/// The pipeline is refused, or explains itself and makes a few calls that end within what it has explained.
async fn check<P, C>(built: Result<Pipeline<P, C>, ConfigError>, name: &str, bytes: &mut Bytes<'_>)
where
    P: Policy<u32, Verdict>,
    C: Classify<u32, Verdict>,
{
    if let Err(error) = &built {
        assert!(error.pipeline().is_some_and(|pipeline| pipeline == name), "of no pipeline: {error:?}");
    }
    let Some(pipeline) = accepted(built) else { return };
    let plan = pipeline.explain();
    assert!(!plan.to_string().is_empty() && !format!("{plan:?}").is_empty());
    for warning in plan.warnings() {
        assert!(!warning.to_string().is_empty());
    }
    for _ in 0..=bytes.below(6) {
        let steps: Vec<_> = (0..=bytes.below(6)).map(|_| step(bytes)).collect();
        let mut options = CallOptions::new();
        if let Some(deadline) = bytes.maybe(Bytes::duration).and_then(|left| Instant::now().checked_add(left)) {
            options = options.deadline(deadline);
        }
        options = options.idempotency(bytes.one_of(&[Idempotency::Safe, Idempotency::Unsafe]));
        options = options.priority(bytes.one_of(&[Priority::Normal, Priority::Background, Priority::Critical]));
        let (made, alive) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let call = pipeline.call_with(options, |_| attempt(&steps, &made, &alive));
        let started = Instant::now();
        let limit = bytes.one_of(&[1, 1_000, 3_600_000, 3_600_000_000]);
        tokio::select! {
            biased;
            ended = ended(call) => if ended {
                let longest = plan.time().at_most().map_or(Duration::MAX, |longest| longest.saturating_add(ROUNDING));
                assert!(started.elapsed() <= longest, "{:?} instead of {longest:?}: {plan}", started.elapsed());
            },
            () = sleep(Duration::from_millis(limit)) => {}
        }
        assert_eq!(alive.load(Relaxed), 0, "an attempt outlives its call");
        let most = plan.attempts().at_most().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        assert!(made.load(Relaxed) <= most, "{made:?} attempts: {plan}");
        sleep(bytes.duration().min(Duration::from_secs(60))).await;
    }
}

/// Polls a future until it ends or panics: true; or drops it after many polls: false.
async fn ended(call: impl Future) -> bool {
    let mut call = pin!(call);
    let mut polls = 0;
    poll_fn(|task| {
        polls += 1;
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(task).is_ready())) {
            Ok(false) if polls > MOST_POLLS => Poll::Ready(false),
            Ok(false) => Poll::Pending,
            Ok(true) | Err(_) => Poll::Ready(true),
        }
    })
    .await
}

fn attempt<'a>(
    steps: &'a [Step],
    made: &AtomicUsize,
    alive: &'a AtomicUsize,
) -> impl Future<Output = Result<u32, Verdict>> + Send + use<'a> {
    let index = made.fetch_add(1, Relaxed);
    alive.fetch_add(1, Relaxed);
    let alive = Alive(alive);
    async move {
        let _alive = alive;
        let last = Step { takes: None, ends: Some(Ok(2)) };
        let step = if index < MOST_ATTEMPTS { steps[index % steps.len()] } else { last };
        if let Some(takes) = step.takes {
            sleep(takes).await;
        }
        // Without the panic hook, which would say a word for each, and end the fuzzer.
        step.ends.unwrap_or_else(|| resume_unwind(Box::new("told to")))
    }
}

struct Alive<'a>(&'a AtomicUsize);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
