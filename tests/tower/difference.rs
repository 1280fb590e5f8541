//! But for readiness a service is called as an operation is.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use proptest::prelude::*;
use tokio::{
    runtime::Builder,
    time::{Instant, timeout},
};
use tower::{Layer, ServiceExt};
use withstand::{CallOptions, Error, Idempotency, Verdict, tower::PipelineLayer};

use crate::{
    endings::worlds,
    support::{Log, secs, trials},
    world::{Step, Which, World, wait},
};

/// Four calls, one after the other, each within an hour: how each ended and when, and all that was heard of them.
macro_rules! seen {
    ($which:expr, |$pipeline:ident, $options:ident| $call:expr) => {{
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let log = Log::new();
            let $pipeline = Arc::new($which.pipeline(&log));
            let started = Instant::now();
            let mut ends: Vec<(Option<Result<u32, Error<Verdict>>>, _)> = Vec::new();
            for number in 0..4 {
                let $options = options(number);
                let end = timeout(secs(3600), $call).await.ok();
                ends.push((end, started.elapsed()));
            }
            format!("{:#?}", (ends, log.all()))
        })
    }};
}

fn options(number: u32) -> CallOptions {
    match number {
        2 => CallOptions::new().idempotency(Idempotency::Unsafe),
        _ => CallOptions::new(),
    }
}

fn of_operations(which: Which, steps: &[Step]) -> String {
    let asked = AtomicUsize::new(0);
    let operation = async || {
        let step = steps[asked.fetch_add(1, SeqCst).min(steps.len() - 1)];
        wait(step.ready_after).await;
        step.ready?;
        wait(step.takes).await;
        step.gives
    };
    seen!(which, |pipeline, options| pipeline.call_with(options, |_| operation()))
}

fn of_a_service(which: Which, steps: &[Step]) -> String {
    let world = World::new(1000, steps);
    seen!(which, |pipeline, options| {
        let layer = PipelineLayer::new(pipeline.clone()).call_options(move |_: &u32| options);
        layer.layer(world.service()).oneshot(7_u32)
    })
}

proptest! {
    #![proptest_config(trials::cases(512))]

    #[test]
    fn a_service_is_called_as_an_operation_is_that_waits_fails_and_answers_like_it((which, steps) in worlds()) {
        prop_assert_eq!(of_a_service(which, &steps), of_operations(which, &steps));
    }
}
