//! No call exceeds what the plan says, whatever the layers and whatever the operation does.

use proptest::{collection::vec, option, prelude::*};
use withstand::{PassThrough, Stack};

use super::*;

/// All times are multiples of this, so that the millisecond that a timer rounds up by is not taken for more.
const UNIT: Duration = ms(100);
/// What rounding adds up to at most.
const ROUNDING: Duration = ms(50);

#[derive(Clone, Debug)]
enum Layer {
    Timeout(u32),
    Retry { attempts: u32, wait: u32, max_elapsed: Option<u32>, spent: bool, rejected: bool, budget: bool },
    Hedge { hedges: u32, delay: Delay },
    Bulkhead { limit: usize, queue: usize },
    Breaker,
    Fallback,
    Twice,
}

#[derive(Clone, Copy, Debug)]
enum Delay {
    Parallel,
    OnFailure,
    Fixed(u32),
}

/// What an attempt does, and how long it takes.
#[derive(Clone, Copy, Debug)]
struct Step {
    takes: u32,
    verdict: Verdict,
}

fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let delay = prop_oneof![Just(Delay::Parallel), Just(Delay::OnFailure), (1..6_u32).prop_map(Delay::Fixed)];
    let retry = (1..4_u32, 0..3_u32, option::of(1..5_u32), any::<bool>(), any::<bool>(), any::<bool>());
    let layer = prop_oneof![
        3 => (1..30_u32).prop_map(Layer::Timeout),
        4 => retry.prop_map(|(attempts, wait, max_elapsed, spent, rejected, budget)| {
            Layer::Retry { attempts, wait, max_elapsed, spent, rejected, budget }
        }),
        3 => (1..3_u32, delay).prop_map(|(hedges, delay)| Layer::Hedge { hedges, delay }),
        1 => (1..3_usize, 0..3_usize).prop_map(|(limit, queue)| Layer::Bulkhead { limit, queue }),
        1 => Just(Layer::Breaker),
        1 => Just(Layer::Fallback),
        1 => Just(Layer::Twice),
    ];
    vec(layer, 0..6)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        6 => Just(Verdict::transient()),
        1 => Just(Verdict::transient().retry_after(UNIT * 3)),
        1 => Just(Verdict::unreached()),
        1 => Just(Verdict::throttled().retry_after(UNIT)),
        2 => Just(Verdict::rejected()),
        1 => Just(Verdict::failure()),
    ];
    // Now and then an attempt hangs.
    let takes = prop_oneof![8 => 0..8_u32, 1 => Just(100_000)];
    vec((takes, verdict).prop_map(|(takes, verdict)| Step { takes, verdict }), 1..8)
}

type Boxed = BoxPolicy<(), Verdict>;

fn boxed(layers: &[Layer]) -> Boxed {
    layers.iter().enumerate().rev().fold(BoxPolicy::new(PassThrough::default()), |inside, (index, layer)| {
        let name = format!("layer-{index}");
        match *layer {
            Layer::Timeout(limit) => around(Timeout::builder(UNIT * limit).name(name).build(), inside),
            Layer::Retry { attempts, wait, max_elapsed, spent, rejected, budget } => {
                let mut retry = Retry::builder().max_attempts(attempts).max_hint(UNIT * 2).name(name);
                retry = retry.backoff(Backoff::constant(UNIT * wait).jitter(withstand::Jitter::None));
                retry = if let Some(elapsed) = max_elapsed { retry.max_elapsed(UNIT * elapsed) } else { retry };
                retry = if spent { retry.repeat_spent() } else { retry };
                retry = if rejected { retry.retry_rejected() } else { retry };
                around(if budget { retry } else { retry.without_budget() }.build(), inside)
            }
            Layer::Hedge { hedges, delay } => {
                let delay = match delay {
                    Delay::Parallel => HedgeDelay::parallel(),
                    Delay::OnFailure => HedgeDelay::on_failure(),
                    Delay::Fixed(delay) => HedgeDelay::fixed(UNIT * delay),
                };
                around(Hedge::builder().max_hedges(hedges).delay(delay).without_budget().name(name).build(), inside)
            }
            Layer::Bulkhead { limit, queue: 0 } => around(Bulkhead::builder().limit(limit).name(name).build(), inside),
            Layer::Bulkhead { limit, queue } => {
                let queue = Bulkhead::builder().limit(limit).queue(queue).max_wait(UNIT * 2);
                around(queue.name(name).build(), inside)
            }
            Layer::Breaker => {
                let breaker = CircuitBreaker::builder().count_window(4).min_calls(2).open_for(UNIT);
                around(breaker.name(name).build(), inside)
            }
            Layer::Fallback => {
                let other_error = |_: &Outcome<(), Verdict>| Some(Err(Verdict::rejected()));
                let fallback = Fallback::from_outcome(other_error).handles([VerdictKind::Rejected]);
                around(fallback.name(name).build(), inside)
            }
            Layer::Twice => BoxPolicy::new(Stack::new(Twice { name }, inside)),
        }
    })
}

fn around<P>(policy: Result<P, withstand::ConfigError>, inside: Boxed) -> Boxed
where
    P: Policy<(), Verdict> + 'static,
{
    BoxPolicy::new(Stack::new(policy.unwrap(), inside))
}

/// A policy of the user's own that tells the truth.
struct Twice {
    name: String,
}

impl Describe for Twice {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.push(LayerInfo::custom(self.name.clone()).attempts(2).added_time(UNIT));
    }
}

impl<T: Send, E: Send> Policy<T, E> for Twice {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        tokio::time::sleep(UNIT).await;
        let _first = op.attempt(cx).await;
        op.attempt(cx).await
    }
}

/// Makes two calls at once, which compete for permits, and gives the most attempts and the longest time of the two.
fn run<P: Policy<(), Verdict>, C>(pipeline: &Pipeline<P, C>, steps: &[Step]) -> (u64, Duration)
where
    C: withstand::Classify<(), Verdict>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let call = async || {
        let (attempts, started) = (AtomicU64::new(0), tokio::time::Instant::now());
        let operation = || {
            let attempt = attempts.fetch_add(1, Relaxed);
            let step = steps[usize::try_from(attempt).unwrap() % steps.len()];
            async move {
                tokio::time::sleep(UNIT * step.takes).await;
                Err::<(), _>(step.verdict)
            }
        };
        pipeline.call(operation).await.unwrap_err();
        (attempts.load(Relaxed), started.elapsed())
    };
    let (first, second) = runtime.block_on(async { tokio::join!(call(), call()) });
    (first.0.max(second.0), first.1.max(second.1))
}

proptest! {
    #![proptest_config(crate::trials::cases(1_000))]

    #[test]
    fn no_call_exceeds_its_plan(layers in layers(), steps in steps()) {
        let pipeline = Pipeline::builder("any")
            .layer(boxed(&layers))
            .classify_errors(|verdict: &Verdict| *verdict)
            .build();
        // Some stacks are nonsense, and are refused.
        let Ok(pipeline) = pipeline else { return Ok(()) };
        let plan = pipeline.explain();
        let (attempts, time) = run(&pipeline, &steps);
        if let Bound::AtMost(most) = plan.attempts() {
            prop_assert!(attempts <= most, "{attempts} attempts\n{plan}");
        }
        if let Bound::AtMost(longest) = plan.time() {
            prop_assert!(time <= longest + ROUNDING, "{time:?}\n{plan}");
        }
        let hints = steps.iter().any(|step| step.verdict.hint().is_some());
        let has_breaker = layers.iter().any(|layer| matches!(layer, Layer::Breaker));
        if let (Bound::AtMost(longest), false, false) = (plan.time_without_hints(), hints, has_breaker) {
            prop_assert!(time <= longest + ROUNDING, "{time:?} without hints\n{plan}");
        }
    }
}
