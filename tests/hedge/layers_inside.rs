//! Hedges meet bulkheads and circuit breakers.

use std::sync::Arc;

use tokio::time::sleep;
use withstand::{
    Bulkhead, CircuitBreaker, Context, Describe, EventKind, Hedge, HedgeDelay, HedgeSuppression, HedgeTrigger,
    Operation, Outcome, Pipeline, Policy, Reason, Rejection, RetryBudget, Verdict,
};

use crate::{
    stage::{HANG, Stage, answers, by_fault, every, fails, finished, gives, hedges, suppressed},
    support::{Log, ms, secs},
};

fn tokens(initial: u32) -> Arc<RetryBudget> {
    Arc::new(RetryBudget::builder().ratio(0.0).initial(initial).cap(initial).build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_finds_no_permit_is_out_of_the_race_and_gets_its_token_back() {
    let log = Log::new();
    let budget = tokens(5);
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(5).max_wait(ms(100)).build().unwrap());
    let pipeline = Pipeline::builder("replicas")
        .hedge(every(20, 2).budget(budget.clone()))
        .bulkhead(bulkhead.clone())
        .classify_errors(by_fault())
        .observer(log.clone())
        .build()
        .unwrap();
    let stage = Stage::new([answers(100)]);
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(0));
    assert_eq!(stage.starts(), [(0, 0)]);
    assert_eq!(suppressed(&log), [HedgeSuppression::Bulkhead; 2]);
    let refused = log.pick(|kind| match kind {
        EventKind::Rejected { reason, hedge, .. } => Some((reason, hedge)),
        _ => None,
    });
    assert_eq!(refused, [(Reason::BulkheadFull, 1), (Reason::BulkheadFull, 2)]);
    assert_eq!(finished(&log), [(1, 0, 0)]);
    assert!((budget.balance() - 5.0).abs() < 1e-6);
    assert_eq!(bulkhead.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_hedge_was_refused_the_next_may_run() {
    let bulkhead = Arc::new(Bulkhead::builder().limit(2).build().unwrap());
    let pipeline = Pipeline::builder("replicas")
        .hedge(every(20, 2))
        .bulkhead(bulkhead.clone())
        .classify_errors(by_fault())
        .build()
        .unwrap();
    let stage = Stage::new([HANG, answers(5)]);
    let held = bulkhead.try_acquire().unwrap();
    let (answer, ()) = tokio::join!(pipeline.call(|| stage.next()), async {
        sleep(ms(30)).await;
        drop(held);
    });
    assert_eq!(answer, Ok(1));
    assert_eq!(stage.starts(), [(0, 0), (1, 40)]);
    assert_eq!(bulkhead.in_use(), 0, "the loser's permit is back by then");
}

#[tokio::test(start_paused = true)]
async fn a_failed_primary_whose_hedge_is_refused_keeps_its_own_outcome() {
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).build().unwrap());
    let pipeline = Pipeline::builder("replicas")
        .hedge(Hedge::builder().delay(HedgeDelay::on_failure()).without_budget())
        .bulkhead(bulkhead.clone())
        .classify_errors(by_fault())
        .build()
        .unwrap();
    let stage = Stage::new([gives(5, Verdict::transient().retry_after(ms(10))), answers(1)]);
    let (error, _held) = tokio::join!(pipeline.call(|| stage.next()), async {
        sleep(ms(10)).await;
        bulkhead.try_acquire().unwrap()
    });
    assert_eq!(error.unwrap_err().operation().map(|fault| fault.by), Some(0));
    assert_eq!((stage.now(), stage.starts().len()), (15, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_never_a_probe() {
    let log = Log::new();
    let budget = tokens(5);
    let breaker = CircuitBreaker::builder().min_calls(1).open_for(secs(1)).probes(3).close_after(1);
    let breaker = Arc::new(breaker.build().unwrap());
    let pipeline = Pipeline::builder("replicas")
        .hedge(every(20, 2).budget(budget.clone()))
        .circuit_breaker(breaker.clone())
        .classify_errors(by_fault())
        .observer(log.clone())
        .build()
        .unwrap();
    let failing = Stage::new([gives(1, Verdict::failure())]);
    pipeline.call(|| failing.next()).await.unwrap_err();
    assert!(breaker.state().is_open());

    log.clear();
    let refused = Stage::new([answers(1)]);
    let error = pipeline.call(|| refused.next()).await.unwrap_err();
    assert_eq!(error.rejection().map(Rejection::reason), Some(Reason::CircuitOpen));
    assert!(refused.starts().is_empty() && hedges(&log).is_empty(), "a primary that is rejected starts none");

    sleep(secs(1)).await;
    log.clear();
    let stage = Stage::new([answers(100), answers(1)]);
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(0));
    assert_eq!(stage.starts(), [(0, 0)]);
    assert_eq!(suppressed(&log), [HedgeSuppression::Circuit; 2]);
    assert!((budget.balance() - 5.0).abs() < 1e-6);
    assert!(breaker.state().is_closed());
}

#[tokio::test(start_paused = true)]
async fn losers_are_no_evidence_for_a_breaker_inside() {
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(1).build().unwrap());
    let pipeline = Pipeline::builder("replicas")
        .hedge(every(20, 1))
        .circuit_breaker(breaker.clone())
        .classify_errors(by_fault())
        .build()
        .unwrap();
    for _ in 0..10 {
        let stage = Stage::new([HANG, answers(5)]);
        assert_eq!(pipeline.call(|| stage.next()).await, Ok(1));
    }
    assert!(breaker.state().is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_breaker_outside_sees_the_race_as_one_call() {
    let breaker = Arc::new(CircuitBreaker::builder().min_calls(3).failure_rate(0.5).build().unwrap());
    let pipeline = Pipeline::builder("replicas")
        .circuit_breaker(breaker.clone())
        .hedge(every(20, 3))
        .classify_errors(by_fault())
        .build()
        .unwrap();
    let stage = Stage::new([fails(1), fails(1), fails(1), answers(1)]);
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(3));
    assert!(breaker.state().is_closed());
}

#[tokio::test(start_paused = true)]
async fn attempts_that_a_timeout_inside_ends_count_as_failed() {
    let log = Log::new();
    let pipeline = Pipeline::builder("replicas")
        .hedge(Hedge::builder().delay(HedgeDelay::on_failure()).without_budget())
        .timeout(ms(50))
        .classify_errors(by_fault())
        .observer(log.clone())
        .build()
        .unwrap();
    let stage = Stage::new([HANG, answers(5)]);
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(1));
    assert_eq!(stage.starts(), [(0, 0), (1, 50)]);
    assert_eq!(hedges(&log), [(1, ms(50), HedgeTrigger::Failure)]);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_meets_a_circuit_isolated_meanwhile_is_out_of_the_race() {
    let log = Log::new();
    let budget = tokens(5);
    let breaker = Arc::new(CircuitBreaker::builder().build().unwrap());
    let pipeline = Pipeline::builder("replicas")
        .hedge(every(20, 1).budget(budget.clone()))
        .circuit_breaker(breaker.clone())
        .classify_errors(by_fault())
        .observer(log.clone())
        .build()
        .unwrap();
    let stage = Stage::new([answers(50)]);
    let (answer, _isolation) = tokio::join!(pipeline.call(|| stage.next()), async {
        sleep(ms(10)).await;
        breaker.isolate()
    });
    assert_eq!((answer, stage.starts().len()), (Ok(0), 1));
    assert_eq!(suppressed(&log), [HedgeSuppression::Circuit]);
    assert!((budget.balance() - 5.0).abs() < 1e-6);
}

/// Holds hedges up for longer than they have.
struct HoldsHedges;

impl Describe for HoldsHedges {}

impl<T: Send, E: Send> Policy<T, E> for HoldsHedges {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        if cx.hedge() > 0 {
            sleep(secs(9)).await;
        }
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_whose_time_is_up_before_it_reached_the_operation_costs_nothing() {
    let log = Log::new();
    let budget = tokens(5);
    let pipeline = Pipeline::builder("replicas")
        .hedge(every(20, 1).budget(budget.clone()))
        .timeout(ms(50))
        .layer(HoldsHedges)
        .classify_errors(by_fault())
        .observer(log.clone())
        .build()
        .unwrap();
    let stage = Stage::new([HANG]);
    let outcome = pipeline.outcome(|| stage.next()).await;
    assert_eq!(outcome.verdict(), Verdict::transient(), "the primary's, which has timed out as well");
    assert_eq!((stage.now(), stage.starts()), (70, vec![(0, 0)]));
    assert_eq!(suppressed(&log), [HedgeSuppression::Deadline]);
    assert!((budget.balance() - 5.0).abs() < 1e-6);
}
