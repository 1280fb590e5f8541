//! What holds for each policy holds for any number of them in any order.

use std::{sync::Arc, time::Duration};

use proptest::{arbitrary, collection::vec, prelude::*, sample::select};
use tokio::{runtime::Builder, time::sleep};
use withstand::{
    BoxPolicy, ConfigError, Fallback, Hedge, HedgeDelay, Outcome, PassThrough, Pipeline, Policy, Retry, Stack, Timeout,
};

use crate::{
    drop_everywhere::{called, dropped_everywhere},
    polled::MANNERS,
    rows::{
        BEHAVIOURS, Fault, How, LIMIT, Op, Parts, Row, SUBSTITUTE, When, about_to_be_half_open, any, backoff, budget,
        closed, ms, single_permit,
    },
};

#[derive(Clone, Copy, Debug)]
enum Layer {
    Timeout,
    Retry {
        rejected: bool,
        spent: bool,
    },
    Hedge {
        hedges: u32,
        delay: Delay,
    },
    Bulkhead {
        queue: usize,
    },
    Breaker {
        half_open: bool,
    },
    Fallback {
        waits: bool,
    },
    /// All that is further inside is a pipeline of its own.
    Pipeline,
    Absent,
}

#[derive(Clone, Copy, Debug)]
enum Delay {
    Parallel,
    Fixed,
    OnFailure,
}

fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let delay = select(vec![Delay::Parallel, Delay::Fixed, Delay::OnFailure]);
    let layer = prop_oneof![
        2 => Just(Layer::Timeout),
        3 => arbitrary::any::<(bool, bool)>().prop_map(|(rejected, spent)| Layer::Retry { rejected, spent }),
        3 => (1..3_u32, delay).prop_map(|(hedges, delay)| Layer::Hedge { hedges, delay }),
        2 => (0..3_usize).prop_map(|queue| Layer::Bulkhead { queue }),
        2 => arbitrary::any::<bool>().prop_map(|half_open| Layer::Breaker { half_open }),
        1 => arbitrary::any::<bool>().prop_map(|waits| Layer::Fallback { waits }),
        1 => Just(Layer::Pipeline),
        1 => Just(Layer::Absent),
    ];
    vec(layer, 0..7)
}

/// What the attempts do, one after the other.
fn script() -> impl Strategy<Value = Vec<(When, How)>> {
    let lasting = [How::Err(Fault::Lasting), How::Err(Fault::Ours)].map(|how| (When::Later, how));
    vec(select([BEHAVIOURS.as_slice(), &lasting].concat()), 1..4)
}

type Boxed = BoxPolicy<u32, Fault>;

fn around<P: Policy<u32, Fault> + 'static>(policy: Result<P, ConfigError>, inside: Boxed) -> Boxed {
    BoxPolicy::new(Stack::new(policy.unwrap(), inside))
}

/// A pipeline of these layers, whose retries and hedges draw on one budget. Other calls have the permits of its bulkheads
/// for some time.
fn random_row(layers: &[Layer], taken_for: Duration) -> Row<impl Policy<u32, Fault>> {
    let mut parts = Parts { taken_for, ..Parts::default() };
    let mut limit = Duration::ZERO;
    let mut boxed = BoxPolicy::new(PassThrough::default());
    for (index, layer) in layers.iter().enumerate().rev() {
        let name = format!("layer-{index}");
        boxed = match *layer {
            Layer::Timeout => {
                limit += LIMIT;
                around(Timeout::builder(limit).name(name).build(), boxed)
            }
            Layer::Retry { rejected, spent } => {
                parts.repeat_refused += 1;
                let budget = Arc::clone(parts.budget.get_or_insert_with(budget));
                let retry = Retry::builder().backoff(backoff()).budget(budget).name(name);
                let retry = if rejected { retry.retry_rejected() } else { retry };
                around(if spent { retry.repeat_spent() } else { retry }.build(), boxed)
            }
            Layer::Hedge { hedges, delay } => {
                parts.repeat_refused += 1;
                let budget = Arc::clone(parts.budget.get_or_insert_with(budget));
                let delay = match delay {
                    Delay::Parallel => HedgeDelay::parallel(),
                    Delay::Fixed => HedgeDelay::fixed(ms(5)),
                    Delay::OnFailure => HedgeDelay::on_failure(),
                };
                around(Hedge::builder().max_hedges(hedges).delay(delay).budget(budget).name(name).build(), boxed)
            }
            Layer::Bulkhead { queue } => {
                let bulkhead = single_permit(queue, name);
                parts.bulkheads.push(Arc::clone(&bulkhead));
                around(Ok(bulkhead), boxed)
            }
            Layer::Breaker { half_open } => {
                let breaker = if half_open { about_to_be_half_open(name) } else { closed(name) };
                parts.breakers.push(Arc::clone(&breaker));
                around(Ok(breaker), boxed)
            }
            // It may decline, so that it may stand anywhere.
            Layer::Fallback { waits: false } => {
                let substitute = |_: &Outcome<u32, Fault>| Some(Ok(SUBSTITUTE));
                around(Fallback::from_outcome(substitute).name(name).build(), boxed)
            }
            Layer::Fallback { waits: true } => {
                let substitute = |_: &Outcome<u32, Fault>| async {
                    sleep(ms(5)).await;
                    Some(Ok(SUBSTITUTE))
                };
                around(Fallback::from_future(substitute).name(name).build(), boxed)
            }
            Layer::Pipeline => BoxPolicy::new(Pipeline::builder(name).layer(boxed).build().unwrap()),
            Layer::Absent => BoxPolicy::new(Stack::new(None::<Timeout>, boxed)),
        };
    }
    any(boxed, parts)
}

proptest! {
    #![proptest_config(crate::trials::cases(1024))]

    #[test]
    fn a_random_pipeline_that_is_dropped_anywhere_holds_nothing(
        layers in layers(),
        script in script(),
        manner in select(MANNERS.as_slice()),
        taken_for in select(vec![0, 10, 40]),
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let row = || random_row(&layers, ms(taken_for));
            dropped_everywhere(row, || Op::following(script.clone()), manner, called).await;
        });
    }
}
