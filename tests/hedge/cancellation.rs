//! Drops and panics, anywhere: nothing stays behind.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::task::JoinSet;
use withstand::{
    AttemptEnd, Bulkhead, CallOptions, CallOutcome, Classification, Classify, EventKind, Hedge, HedgeBuilder,
    HedgeDelay, Pipeline, RetryBudget, Verdict, layers,
};

use crate::{
    stage::{Fault, HANG, Stage, answers, every, fails, gives},
    support::{Log, ms},
};

/// Polls a future so many times and drops it then.
struct DropAfter<F> {
    future: Option<Pin<Box<F>>>,
    polls: usize,
}

impl<F: Future> Future for DropAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            self.future = None;
            return Poll::Ready(None);
        }
        self.polls -= 1;
        let poll = self.future.as_mut().unwrap().as_mut().poll(cx).map(Some);
        if poll.is_pending() && self.polls == 0 {
            // At this await point, not at the next wake.
            self.future = None;
            return Poll::Ready(None);
        }
        poll
    }
}

/// The verdict is the fault's; panics if it is told to.
#[derive(Debug, Default)]
struct Judge {
    panics: AtomicBool,
}

impl Classify<u32, Fault> for Judge {
    fn classify(&self, result: Result<&u32, &Fault>) -> Classification {
        assert!(!self.panics.load(Ordering::SeqCst), "in the classifier");
        result.map_or_else(|fault| fault.verdict, |_| Verdict::success()).into()
    }
}

/// A pipeline and all of which something might stay behind.
struct House {
    pipeline: Pipeline<layers![Hedge, Arc<Bulkhead>], Judge>,
    bulkhead: Arc<Bulkhead>,
    budget: Arc<RetryBudget>,
    log: Log,
}

impl House {
    fn new(hedge: HedgeBuilder) -> Self {
        let budget = Arc::new(RetryBudget::builder().ratio(0.0).initial(10).cap(10).build().unwrap());
        let bulkhead = Arc::new(Bulkhead::builder().limit(4).build().unwrap());
        let log = Log::new();
        let pipeline = Pipeline::builder("replicas")
            .hedge(hedge.budget(budget.clone()))
            .bulkhead(bulkhead.clone())
            .classifier(Judge::default())
            .observer(log.clone())
            .build()
            .unwrap();
        Self { pipeline, bulkhead, budget, log }
    }

    fn assert_clean(&self, stage: &Stage) {
        assert_eq!(stage.running(), 0);
        assert_eq!(self.bulkhead.in_use(), 0);
        let spent = stage.starts().iter().filter(|(index, _)| *index > 0).count();
        let expected = 10.0 - f64::from(u32::try_from(spent).unwrap());
        assert!((self.budget.balance() - expected).abs() < 1e-6, "{}", self.budget.balance());
    }

    fn outcomes(&self) -> Vec<CallOutcome> {
        self.log.pick(|kind| match kind {
            EventKind::CallFinished { outcome, .. } => Some(outcome),
            _ => None,
        })
    }

    fn ends(&self) -> Vec<(u32, AttemptEnd)> {
        let mut ends = self.log.pick(|kind| match kind {
            EventKind::AttemptFinished { hedge, end, .. } => Some((hedge, end)),
            _ => None,
        });
        ends.sort_by_key(|(hedge, _)| *hedge);
        ends
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_await_point_drops_all_its_attempts() {
    let mut finished = false;
    for polls in 0.. {
        let house = House::new(every(10, 3));
        let stage = Stage::new([HANG, fails(15), gives(30, Verdict::throttled()), answers(50)]);
        let call = house.pipeline.call(|| stage.next());
        let end = DropAfter { future: Some(Box::pin(call)), polls }.await;
        house.assert_clean(&stage);
        let expected = match (polls, &end) {
            (0, _) => vec![],
            (_, None) => vec![CallOutcome::Cancelled],
            (_, Some(_)) => vec![CallOutcome::Success],
        };
        assert_eq!(house.outcomes(), expected, "{polls} polls");
        if end.is_none() {
            assert!(house.ends().iter().all(|(_, end)| matches!(end, AttemptEnd::Cancelled | AttemptEnd::Completed)));
        }
        finished = end.is_some();
        if finished {
            assert!(polls > 4, "it was dropped at several points");
            break;
        }
    }
    assert!(finished);
}

/// Runs a call in a task of its own, which must panic.
async fn panics(house: &Arc<House>, stage: &Arc<Stage>, who: Option<u32>) {
    let mut tasks = JoinSet::new();
    let (of_task, on_stage) = (house.clone(), stage.clone());
    tasks.spawn(async move {
        let operation = |attempt: withstand::Attempt| {
            let stage = &on_stage;
            async move {
                let result = stage.play(attempt.hedge()).await;
                assert_ne!(Some(attempt.hedge()), who, "in the operation");
                result
            }
        };
        of_task.pipeline.call_with(CallOptions::new(), operation).await
    });
    assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_any_attempt_unwinds_and_leaves_nothing_behind() {
    for who in [0, 1, 2] {
        let house = Arc::new(House::new(every(10, 2)));
        let mut parts = [HANG; 3];
        parts[who] = answers(30);
        let stage = Arc::new(Stage::new(parts));
        panics(&house, &stage, Some(u32::try_from(who).unwrap())).await;
        house.assert_clean(&stage);
        assert_eq!(house.outcomes(), [CallOutcome::Panicked]);

        let stage = Stage::new([HANG, answers(5)]);
        assert_eq!(house.pipeline.call(|| stage.next()).await, Ok(1), "it works as before");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_attempt_that_panicked_is_told_to_have() {
    for who in [0, 1] {
        let house = Arc::new(House::new(every(10, 1)));
        let mut parts = [HANG; 2];
        parts[who] = answers(30);
        let who = u32::try_from(who).unwrap();
        panics(&house, &Arc::new(Stage::new(parts)), Some(who)).await;
        let end = |hedge| (hedge, if hedge == who { AttemptEnd::Panicked } else { AttemptEnd::Cancelled });
        assert_eq!(house.ends(), [end(0), end(1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_hedge_inside_a_hedge_too() {
    for who in 0..4 {
        let log = Log::new();
        let builder = Pipeline::builder("replicas").hedge(every(10, 1)).hedge(every(5, 1));
        let pipeline = builder.observer(log.clone()).build().unwrap();
        let starts = AtomicUsize::new(0);
        let call = async move {
            let operation = || async {
                let panics = starts.fetch_add(1, Ordering::SeqCst) == who;
                tokio::time::sleep(ms(100)).await;
                assert!(!panics, "on stage");
                std::future::pending::<Result<(), Fault>>().await
            };
            pipeline.call(operation).await
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(call);
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());

        let ends = log.pick(|kind| match kind {
            EventKind::AttemptFinished { end, .. } => Some(end),
            _ => None,
        });
        assert_eq!(ends.len(), 4);
        assert_eq!(ends.iter().filter(|end| **end == AttemptEnd::Panicked).count(), 1, "{who}: {ends:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_delay_unwinds_and_leaves_nothing_behind() {
    let fuse = Arc::new(AtomicBool::new(true));
    let burns = fuse.clone();
    let delay = HedgeDelay::custom(move |next| {
        assert!(next < 2 || !burns.load(Ordering::SeqCst), "in the delay");
        Some(ms(10))
    });
    let house = Arc::new(House::new(Hedge::builder().delay(delay).max_hedges(2)));
    let stage = Arc::new(Stage::new([HANG]));
    panics(&house, &stage, None).await;
    house.assert_clean(&stage);
    assert_eq!(house.outcomes(), [CallOutcome::Panicked]);
    assert_eq!(house.ends(), [(0, AttemptEnd::Cancelled), (1, AttemptEnd::Cancelled)], "no attempt did");

    fuse.store(false, Ordering::SeqCst);
    let stage = Stage::new([HANG, HANG, answers(5)]);
    assert_eq!(house.pipeline.call(|| stage.next()).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_classifier_unwinds_and_leaves_nothing_behind() {
    let house = House::new(every(10, 2));
    let classifier = Judge { panics: AtomicBool::new(true) };
    let bulkhead = house.bulkhead.clone();
    let pipeline = Pipeline::builder("replicas")
        .hedge(every(10, 2).budget(house.budget.clone()))
        .bulkhead(bulkhead)
        .classifier(classifier)
        .build()
        .unwrap();
    let stage = Arc::new(Stage::new([HANG, answers(5)]));
    let mut tasks = JoinSet::new();
    let on_stage = stage.clone();
    tasks.spawn(async move { pipeline.call(|| on_stage.next()).await });
    assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());
    house.assert_clean(&stage);
}
