//! However a call ends, it holds nothing.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};

use futures::future::join_all;
use proptest::{collection::vec, option, prelude::*, sample::select};
use tokio::{runtime::Builder, time::timeout};
use tower::{Layer, Service, ServiceExt};
use withstand::{EventKind, Verdict, tower::PipelineLayer};

use crate::{
    support::{Log, caught, ms, trials},
    world::{ANSWERS, FAILS, HANGS, NEVER_READY, Numbered, Once, Step, Which, World},
};

/// A request whose copies can be counted.
#[derive(Clone)]
struct Held(u32, #[allow(dead_code, reason = "for its drop")] Arc<()>);

impl Numbered for Held {
    fn number(&self) -> u32 {
        self.0
    }
}

fn which() -> impl Strategy<Value = Which> {
    let hedge = option::of(select(vec![0, 10]));
    let limit = || option::of(select(vec![25, 60]));
    (limit(), any::<bool>(), hedge, any::<bool>(), any::<bool>(), limit()).prop_map(
        |(total, retry, hedge, bulkhead, breaker, each)| Which {
            total: total.map(|limit| limit + 100),
            retry,
            hedge,
            bulkhead,
            breaker,
            each,
        },
    )
}

pub(crate) fn worlds() -> impl Strategy<Value = (Which, Vec<Step>)> {
    let verdicts = vec![
        Verdict::transient(),
        Verdict::transient().retry_after(ms(7)),
        Verdict::unreached(),
        Verdict::throttled(),
        Verdict::failure(),
        Verdict::rejected(),
        Verdict::ignored(),
    ];
    let failed = select(verdicts);
    let ready = prop_oneof![3 => Just(Ok(())), 1 => failed.clone().prop_map(Err)];
    let gives = prop_oneof![2 => Just(Ok(7)), 3 => failed.prop_map(Err)];
    let time = || prop_oneof![2 => Just(0), 3 => 1..45_u64, 1 => Just(10_000_000)].prop_map(ms);
    let step = (time(), ready, time(), gives).prop_map(|(ready_after, ready, takes, gives)| Step {
        ready_after,
        ready,
        takes,
        gives,
    });
    (which(), vec(step, 1..6))
}

proptest! {
    #![proptest_config(trials::cases(512))]

    /// Several callers share the service; each goes away after some time, or stays to the end.
    #[test]
    fn whatever_the_service_does_and_whenever_its_callers_leave_nothing_is_held(
        (which, steps) in worlds(),
        permits in 1..4_usize,
        patience in vec(option::of(0..150_u64), 1..5),
        copies in any::<bool>(),
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let log = Log::new();
            let world = World::new(permits, steps);
            let pipeline = Arc::new(which.pipeline(&log));
            let most = pipeline.explain().attempts();
            let copy = move |held: &Held| copies.then(|| held.clone());
            let layer = PipelineLayer::with_requests(pipeline.clone(), copy);
            let service = layer.layer(world.service());
            let held = Arc::new(());
            let calls = patience.iter().zip(0..).map(|(patience, number)| {
                let call = service.clone().oneshot(Held(number, held.clone()));
                let patience = patience.map_or(Duration::from_secs(3600), ms);
                timeout(patience, call)
            });
            let ends = join_all(calls).await;
            drop(service);
            world.holds_nothing_but(0);
            assert_eq!(Arc::strong_count(&held), 1, "a request is left over");
            assert_eq!(log.count(|kind| matches!(kind, EventKind::CallFinished { .. })), ends.len());
            for number in 0..u32::try_from(ends.len()).unwrap() {
                let sent = world.sent().iter().filter(|sent| **sent == number).count();
                let most = if copies { most.at_most().map_or(usize::MAX, |most| usize::try_from(most).unwrap()) } else { 1 };
                assert!(sent <= most, "request {number} was sent {sent} times");
            }
            // Whoever stays is answered, unless the service hangs and no limit ends it.
            for (end, patience) in ends.iter().zip(&patience) {
                assert!(end.is_ok() || patience.is_some() || which.total.is_none(), "a call outlived its limit");
            }
        });
    }
}

/// The n-th poll is the last.
async fn dropped_after(polls: usize, which: Which, steps: &[Step]) -> bool {
    let world = World::new(2, steps);
    let service = PipelineLayer::new(which.pipeline(&Log::new())).layer(world.service());
    let held = Arc::new(());
    let mut call = Box::pin(service.clone().oneshot(Held(1, held.clone())));
    let mut polled = 0;
    let ended = poll_fn(|cx| {
        if polled == polls {
            return Poll::Ready(false);
        }
        polled += 1;
        match call.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if polled == polls => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    drop(call);
    world.holds_nothing_but(1);
    assert_eq!(Arc::strong_count(&held), 1);
    ended
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_after_any_poll_holds_nothing() {
    let slow = Step { ready_after: ms(5), takes: ms(5), ..FAILS };
    let which = Which { total: Some(200), retry: true, hedge: Some(3), bulkhead: true, breaker: true, each: Some(30) };
    let mut polls = 0;
    while !dropped_after(polls, which, &[slow, NEVER_READY, slow, HANGS, ANSWERS]).await {
        polls += 1;
        assert!(polls < 1000);
    }
    assert!(polls > 5, "only {polls} polls were tried");
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_never_polled_is_no_call() {
    let log = Log::new();
    let world = World::new(1, [ANSWERS]);
    let mut service = PipelineLayer::guard(
        withstand::Pipeline::builder("idle").timeout(ms(10)).observer(log.clone()).build().unwrap(),
    )
    .layer(world.service());
    drop(service.call(Once(1)));
    assert!(log.all().is_empty());
    assert_eq!(world.asked(), 0);
    world.holds_nothing_but(1);
}

/// A request that panics when it is cloned, if it is told to.
struct Bomb(Arc<()>, bool);

impl Clone for Bomb {
    fn clone(&self) -> Self {
        assert!(!self.1, "no clones");
        Self(self.0.clone(), self.1)
    }
}

impl Numbered for Bomb {
    fn number(&self) -> u32 {
        1
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_request_is_cloned_unwinds_and_leaves_nothing_behind() {
    let log = Log::new();
    let world = World::new(1, [ANSWERS]);
    let which = Which { retry: true, bulkhead: true, breaker: true, ..Which::default() };
    let service = PipelineLayer::new(which.pipeline(&log)).layer(world.service());
    let held = Arc::new(());
    let left: Weak<()> = Arc::downgrade(&held);
    assert_eq!(caught(service.clone().oneshot(Bomb(held, true))).await.unwrap_err(), "no clones");
    assert_eq!(left.strong_count(), 0);
    world.holds_nothing_but(1);
    assert_eq!(service.clone().oneshot(Bomb(Arc::default(), false)).await, Ok(7));
}
