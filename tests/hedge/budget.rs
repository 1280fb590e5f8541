//! What hedges may cost.

use std::sync::{Arc, Mutex};

use futures::future::join_all;
use proptest::{collection::vec, prelude::*};
use tokio::{
    runtime::Builder,
    time::{sleep, timeout},
};
use withstand::{
    CallOutcome, Context, Describe, Event, EventKind, Hedge, HedgeSuppression, Operation, Outcome, Pipeline, Policy,
    Retry, RetryBudget, Verdict,
};

use crate::{
    stage::{HANG, Part, Stage, answers, by_fault, every, fails, gives, hedged, hedges, suppressed},
    support::{Log, ms},
};

#[tokio::test(start_paused = true)]
async fn its_own_budget_begins_with_one_token_and_is_funded_by_a_tenth_of_a_success() {
    let log = Log::new();
    let pipeline = hedged(Hedge::builder().delay(ms(10)), &log);
    let mut hedged_calls = Vec::new();
    for call in 1..=31 {
        log.clear();
        let stage = Stage::new([answers(50)]);
        pipeline.call(|| stage.next()).await.unwrap();
        if hedges(&log).is_empty() {
            assert_eq!(suppressed(&log), [HedgeSuppression::Budget]);
        } else {
            hedged_calls.push(call);
        }
    }
    assert_eq!(hedged_calls, [1, 11, 21, 31]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_stops_the_hedges_of_a_call_and_not_the_call() {
    let log = Log::new();
    let budget = RetryBudget::builder().ratio(0.0).initial(2).cap(2);
    let pipeline = hedged(every(10, 5).own_budget(budget), &log);
    let stage = Stage::new([answers(500)]);
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(0));
    assert_eq!(stage.starts(), [(0, 0), (1, 10), (2, 20)]);
    assert_eq!(suppressed(&log), [HedgeSuppression::Budget]);
    let emptied = |kind: &EventKind| matches!(kind, EventKind::BudgetEmptied { cap: 2, .. });
    assert_eq!(log.count(emptied), 1);
    let stage = Stage::new([fails(5), answers(1)]);
    let error = pipeline.call(|| stage.next()).await.unwrap_err();
    assert_eq!(error.operation().map(|fault| fault.by), Some(0));
    assert_eq!(log.count(emptied), 1, "told once");
}

#[tokio::test(start_paused = true)]
async fn failures_fund_nothing_and_one_success_funds_a_shared_budget_once() {
    let budget = Arc::new(RetryBudget::builder().ratio(0.5).initial(5).cap(50).build().unwrap());
    let pipeline = Pipeline::builder("replicas")
        .retry(Retry::builder().budget(budget.clone()))
        .hedge(every(10, 1).budget(budget.clone()))
        .classify_errors(by_fault())
        .build()
        .unwrap();
    let balance = || budget.balance();
    let call = async |parts: [Part; 2]| {
        let stage = Stage::new(parts);
        drop(pipeline.call(|| stage.next()).await);
    };
    call([answers(1), HANG]).await;
    assert!((balance() - 5.5).abs() < 1e-6, "one success");
    call([HANG, answers(1)]).await;
    assert!((balance() - 5.0).abs() < 1e-6, "one hedge, one success");
    call([gives(1, Verdict::failure()), HANG]).await;
    assert!((balance() - 5.0).abs() < 1e-6, "one failure");
    call([gives(1, Verdict::ignored()), HANG]).await;
    assert!((balance() - 5.0).abs() < 1e-6, "nothing to do with the dependency");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_the_operation_itself_rejects_costs_nothing() {
    let log = Log::new();
    let budget = Arc::new(RetryBudget::builder().ratio(0.0).initial(1).cap(1).build().unwrap());
    let pipeline = hedged(every(10, 3).budget(budget.clone()), &log);
    let empty_pool = gives(1, Verdict::rejected());
    let stage = Stage::new([answers(100), empty_pool, empty_pool, HANG]);
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(0));
    assert_eq!(stage.starts(), [(0, 0), (1, 10), (2, 20), (3, 30)], "one token for three");
    assert_eq!(suppressed(&log), [HedgeSuppression::Rejected; 2]);
    assert!(budget.balance() < 1e-6, "the third had reached the dependency");
}

#[tokio::test(start_paused = true)]
async fn pipelines_that_share_a_budget_share_its_tokens() {
    let budget = Arc::new(RetryBudget::builder().ratio(0.0).initial(1).cap(1).build().unwrap());
    let (first, second) = (Log::new(), Log::new());
    for log in [&first, &second] {
        let stage = Stage::new([answers(50)]);
        hedged(every(10, 1).budget(budget.clone()), log).call(|| stage.next()).await.unwrap();
    }
    assert_eq!((hedges(&first).len(), hedges(&second).len()), (1, 0));
    assert_eq!(suppressed(&second), [HedgeSuppression::Budget]);
}

/// Holds hedges for a while before they reach the operation.
struct HoldHedges;

impl Describe for HoldHedges {}

impl<T: Send, E: Send> Policy<T, E> for HoldHedges {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        if cx.hedge() > 0 {
            sleep(ms(100)).await;
        }
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_is_dropped_gives_its_token_back_unless_it_has_reached_the_operation() {
    let budget = Arc::new(RetryBudget::builder().initial(5).build().unwrap());
    let hedge = Hedge::builder().delay(ms(10)).budget(budget.clone());
    let pipeline = Pipeline::builder("held").hedge(hedge).layer(HoldHedges).classify_errors(by_fault());
    let pipeline = pipeline.build().unwrap();
    for (after, left) in [(5, 5.0), (50, 5.0), (150, 4.0)] {
        let stage = Stage::new([HANG, HANG]);
        assert!(timeout(ms(after), pipeline.call(|| stage.next())).await.is_err());
        assert!((budget.balance() - left).abs() < 1e-9, "dropped after {after} ms: {}", budget.balance());
    }
}

#[test]
fn a_budget_can_be_read() {
    let hedge = Hedge::builder().build().unwrap();
    let budget = hedge.budget().unwrap();
    assert!((budget.balance() - 1.0).abs() < 1e-6 && (budget.ratio() - 0.1).abs() < 1e-6);
    assert_eq!(budget.cap(), 10);
    assert_eq!(RetryBudget::builder().initial(7).build().unwrap().initial(), 7);
    assert!(every(1, 1).build().unwrap().budget().is_none());
}

/// What has been paid into a budget and taken out of it, as its observer hears.
#[derive(Debug, Default)]
struct Ledger {
    successes: u32,
    hedges: u32,
    overdrawn: Option<String>,
}

fn check_ledger(calls: Vec<(u64, Vec<Part>)>, initial: u32, eighths: u32, max_hedges: u32) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let ratio = f64::from(eighths) / 8.0;
        let budget = RetryBudget::builder().ratio(ratio).initial(initial).cap(1000).build().unwrap();
        let budget = Arc::new(budget);
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let book = ledger.clone();
        let observer = move |event: &Event<'_>| {
            let mut ledger = book.lock().unwrap();
            match event.kind {
                EventKind::CallFinished { outcome: CallOutcome::Success, .. } => ledger.successes += 1,
                EventKind::Hedged { .. } => ledger.hedges += 1,
                _ => return,
            }
            if ledger.hedges * 8 > initial * 8 + eighths * ledger.successes {
                ledger.overdrawn = Some(format!("{ledger:?}"));
            }
        };
        let pipeline = Pipeline::builder("replicas")
            .hedge(every(10, max_hedges).budget(budget.clone()))
            .classify_errors(by_fault())
            .observer(observer)
            .build()
            .unwrap();
        let peaks = join_all(calls.into_iter().map(async |(begins, parts)| {
            sleep(ms(begins)).await;
            let stage = Stage::new(parts);
            drop(pipeline.call(|| stage.next()).await);
            assert_eq!(stage.running(), 0);
            stage.peak()
        }));
        let most = peaks.await.into_iter().max().unwrap_or(0);
        assert!(most <= usize::try_from(max_hedges).unwrap() + 1);
        let ledger = ledger.lock().unwrap();
        assert!(ledger.overdrawn.is_none(), "{ledger:?}");
        let expected = f64::from(initial) + ratio * f64::from(ledger.successes) - f64::from(ledger.hedges);
        assert!((budget.balance() - expected).abs() < 1e-3, "{} {ledger:?}", budget.balance());
    });
}

proptest! {
    #![proptest_config(crate::support::trials::cases(256))]

    #[test]
    fn hedges_never_cost_more_than_was_saved(
        calls in vec((0..200_u64, vec(part(), 1..5)), 1..40),
        initial in 0..5_u32,
        eighths in 0..9_u32,
        max_hedges in 1..4_u32,
    ) {
        check_ledger(calls, initial, eighths, max_hedges);
    }
}

fn part() -> impl Strategy<Value = Part> {
    let verdict = prop_oneof![
        3 => Just(Verdict::success()),
        2 => Just(Verdict::transient()),
        1 => Just(Verdict::failure()),
        1 => Just(Verdict::throttled()),
    ];
    (0..100_u64, verdict).prop_map(|(takes, verdict)| gives(takes, verdict))
}
