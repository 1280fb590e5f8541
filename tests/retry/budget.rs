//! Successes fund repeats, repeats spend, and what did not reach the dependency is given back.

use std::sync::Arc;

use futures::future::join;
use tokio::task::JoinSet;
use withstand::{
    Bulkhead, CircuitBreaker, EventKind, Hedge, HedgeDelay, Pipeline, Retry, RetryBudget, RetryBudgetBuilder,
    RetryStop, Verdict,
};

use super::{pipeline, plain, stops};
use crate::support::{Log, Script, Step, as_it_says, ms, secs};

fn shared(budget: RetryBudgetBuilder) -> Arc<RetryBudget> {
    Arc::new(budget.build().unwrap())
}

#[track_caller]
fn holds(budget: &RetryBudget, tokens: f64) {
    assert!((budget.balance() - tokens).abs() < 1e-5, "{} tokens, not {tokens}", budget.balance());
}

const DOWN: Result<u32, Verdict> = Err(Verdict::transient());

#[tokio::test(start_paused = true)]
async fn a_total_outage_costs_the_balance_and_then_one_attempt_for_each_call() {
    let script = Script::always(DOWN);
    let log = Log::new();
    let retry = plain(3, ms(10)).own_budget(RetryBudget::builder());
    let pipeline = pipeline(retry, &log);
    for _ in 0..100 {
        let outcome = pipeline.outcome(|| script.attempt()).await;
        assert!(outcome.is_spent());
    }
    assert_eq!(script.attempts(), 110, "ten tokens at first");
    let stops = stops(&log);
    assert_eq!(stops.iter().filter(|why| **why == RetryStop::Attempts).count(), 5, "two repeats each");
    assert_eq!(stops.iter().filter(|why| **why == RetryStop::Budget).count(), 95);
    assert_eq!(log.count(|kind| matches!(kind, EventKind::BudgetEmptied { cap: 100, .. })), 1, "an edge, not a level");
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_returns_the_outcome_as_it_is() {
    let budget = shared(RetryBudget::builder().ratio(0.0).initial(0).cap(0));
    let script = Script::always(DOWN);
    let retry = plain(3, ms(10)).budget(budget).build().unwrap();
    assert_eq!(retry.call(|| script.attempt()).await, Err(withstand::Error::Operation(Verdict::transient())));
    assert_eq!(script.attempts(), 1, "a first attempt is never refused");
}

#[tokio::test(start_paused = true)]
async fn each_success_deposits_its_ratio_and_failures_deposit_nothing() {
    let budget = shared(RetryBudget::builder().ratio(0.35).initial(0).cap(2));
    let pipeline = pipeline(plain(3, ms(10)).budget(budget.clone()), &Log::new());
    for expected in [0.35, 0.7, 1.05, 1.4, 1.75, 2.0, 2.0] {
        assert!(pipeline.call(|| async { Ok::<u32, Verdict>(0) }).await.is_ok());
        holds(&budget, expected);
    }
    for verdict in [Verdict::failure(), Verdict::ignored(), Verdict::rejected()] {
        assert!(pipeline.call(|| async { Err::<u32, _>(verdict) }).await.is_err());
        holds(&budget, 2.0);
    }
    let not_found = pipeline.call(|| async { Err::<u32, _>(Verdict::success()) }).await;
    assert!(not_found.is_err());
    holds(&budget, 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_success_after_repeats_deposits_once() {
    let budget = shared(RetryBudget::builder().ratio(0.5).initial(5).cap(10));
    let script = Script::ready([DOWN, DOWN, Ok(0)]);
    let pipeline = pipeline(plain(3, ms(10)).budget(budget.clone()), &Log::new());
    assert!(pipeline.call(|| script.attempt()).await.is_ok());
    holds(&budget, 5.0 - 2.0 + 0.5);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_recovers_says_so_once() {
    let budget = shared(RetryBudget::builder().ratio(1.0).initial(1).cap(4));
    let log = Log::new();
    let pipeline = pipeline(plain(9, ms(10)).budget(budget.clone()), &log);
    assert!(pipeline.call(|| async { DOWN }).await.is_err());
    for _ in 0..10 {
        assert!(pipeline.call(|| async { Ok::<u32, Verdict>(0) }).await.is_ok());
    }
    let edges = log.pick(|kind| match kind {
        EventKind::BudgetEmptied { balance, .. } => Some(("emptied", balance < 1.0)),
        EventKind::BudgetRefilled { balance, .. } => Some(("refilled", balance >= 2.0)),
        _ => None,
    });
    assert_eq!(edges, [("emptied", true), ("refilled", true)]);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_refused_by_a_circuit_gives_its_token_back() {
    let budget = shared(RetryBudget::builder().initial(5));
    let pipeline = Pipeline::builder("api")
        .retry(plain(9, ms(10)).budget(budget.clone()))
        .circuit_breaker(CircuitBreaker::builder().min_calls(2))
        .classify_errors(as_it_says)
        .build()
        .unwrap();
    assert!(pipeline.call(|| async { DOWN }).await.is_err());
    holds(&budget, 4.0);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_the_operation_itself_refuses_gives_its_token_back() {
    // An empty connection pool: the verdict says that the dependency was not called.
    let budget = shared(RetryBudget::builder().initial(5));
    let script = Script::ready([DOWN, Err(Verdict::rejected())]);
    let pipeline = pipeline(plain(9, ms(10)).budget(budget.clone()), &Log::new());
    assert!(pipeline.call(|| script.attempt()).await.is_err());
    assert_eq!(script.attempts(), 2);
    holds(&budget, 5.0);
}

#[tokio::test(start_paused = true)]
async fn refusals_that_are_repeated_cost_nothing_in_the_end() {
    let budget = shared(RetryBudget::builder().initial(1));
    let log = Log::new();
    let pipeline = Pipeline::builder("api")
        .retry(plain(7, ms(10)).budget(budget.clone()).retry_rejected())
        .bulkhead(Bulkhead::builder().limit(0))
        .observer(log.clone())
        .build()
        .unwrap();
    assert!(pipeline.call(|| async { Ok::<(), ()>(()) }).await.is_err());
    assert_eq!(log.count(|kind| matches!(kind, EventKind::Rejected { .. })), 7);
    holds(&budget, 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_its_repeat_reached_the_operation_gives_the_token_back() {
    let budget = shared(RetryBudget::builder().initial(5));
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(secs(9)).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .retry(plain(3, ms(100)).budget(budget.clone()))
        .bulkhead(bulkhead.clone())
        .build()
        .unwrap();
    let during_the_wait = pipeline.call(|| async { Err::<(), _>(()) });
    assert!(tokio::time::timeout(ms(50), during_the_wait).await.is_err());
    holds(&budget, 5.0);

    let in_the_queue = async {
        let call = pipeline.call(|| async { Err::<(), _>(()) });
        let dropped = tokio::time::timeout(ms(200), call).await.is_err();
        (dropped, budget.balance())
    };
    let held = async {
        tokio::time::sleep(ms(10)).await;
        let _held = bulkhead.acquire().await.unwrap();
        tokio::time::sleep(ms(140)).await;
        holds(&budget, 4.0);
        tokio::time::sleep(secs(1)).await;
    };
    let ((dropped, after), ()) = join(in_the_queue, held).await;
    assert!(dropped && (after - 5.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn what_a_token_that_came_back_has_refilled_is_told_with_the_next_success() {
    let budget = shared(RetryBudget::builder().initial(1).cap(1));
    let log = Log::new();
    let others = pipeline(plain(2, ms(10)).budget(budget.clone()), &log);
    let told = || {
        log.pick(|kind| match kind {
            EventKind::BudgetEmptied { .. } => Some("emptied"),
            EventKind::BudgetRefilled { .. } => Some("refilled"),
            _ => None,
        })
    };
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(secs(9)).build().unwrap());
    let builder = Pipeline::builder("api").retry(plain(2, ms(100)).budget(budget.clone()));
    let queued = builder.bulkhead(bulkhead.clone()).build().unwrap();
    for turn in 1..=2 {
        let in_the_queue = tokio::time::timeout(ms(200), queued.call(|| async { Err::<(), _>(()) }));
        let meanwhile = async {
            tokio::time::sleep(ms(10)).await;
            let _held = bulkhead.acquire().await.unwrap();
            tokio::time::sleep(ms(140)).await;
            assert!(others.call(|| async { DOWN }).await.is_err());
            tokio::time::sleep(secs(1)).await;
        };
        assert!(join(in_the_queue, meanwhile).await.0.is_err(), "dropped with its token");
        holds(&budget, 1.0);
        assert_eq!(told(), ["emptied", "refilled"].repeat(turn)[..2 * turn - 1]);
        assert!(others.call(|| async { Ok::<u32, Verdict>(0) }).await.is_ok());
        assert_eq!(told(), ["emptied", "refilled"].repeat(turn));
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_reached_the_operation_stays_paid_however_it_ends() {
    let budget = shared(RetryBudget::builder().initial(5));
    let steps = [Step { takes: ms(0), gives: DOWN }, Step { takes: secs(9), gives: Ok(0) }];
    let dropped = Script::new(steps);
    let retry = plain(3, ms(10)).budget(budget.clone()).build().unwrap();
    assert!(tokio::time::timeout(ms(50), retry.call(|| dropped.attempt())).await.is_err());
    holds(&budget, 4.0);

    let timed_out = Script::new(steps);
    let retry = plain(2, ms(10)).budget(budget.clone()).build().unwrap();
    let pipeline = Pipeline::builder("api").retry(retry).timeout(ms(50)).build().unwrap();
    assert!(pipeline.call(|| timed_out.attempt()).await.is_err());
    holds(&budget, 3.0);
}

#[tokio::test(start_paused = true)]
async fn pipelines_to_the_same_dependency_share_what_it_can_bear() {
    let budget = shared(RetryBudget::builder().initial(3));
    let reads = pipeline(plain(9, ms(10)).budget(budget.clone()), &Log::new());
    let writes = pipeline(plain(9, ms(10)).budget(budget.clone()), &Log::new());
    let script = Script::always(DOWN);
    let (read, write) = join(reads.call(|| script.attempt()), writes.call(|| script.attempt())).await;
    assert!(read.is_err() && write.is_err());
    assert_eq!(script.attempts(), 2 + 3);
    holds(&budget, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_on_several_threads_spend_exactly_what_there_is() {
    let budget = shared(RetryBudget::builder().ratio(0.0).initial(100));
    let retry = Arc::new(plain(50, ms(0)).budget(budget.clone()).build().unwrap());
    let script = Arc::new(Script::always(DOWN));
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let (retry, script) = (retry.clone(), script.clone());
        calls.spawn(async move { retry.call(|| script.attempt()).await.is_err() });
    }
    assert!(calls.join_all().await.into_iter().all(|failed| failed));
    assert_eq!(script.attempts(), 200 + 100);
    holds(&budget, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_success_is_deposited_once_however_many_layers_hold_the_budget() {
    let inner = shared(RetryBudget::builder().ratio(0.25).initial(0));
    let outer = shared(RetryBudget::builder().ratio(0.5).initial(0));
    let retry = |budget: &Arc<RetryBudget>| plain(3, ms(10)).budget(budget.clone());
    let hedge = Hedge::builder().delay(HedgeDelay::on_failure()).budget(inner.clone());
    let pipeline = Pipeline::builder("api").retry(retry(&outer)).retry(retry(&inner)).hedge(hedge).build().unwrap();
    assert!(pipeline.call(|| async { Ok::<_, ()>(()) }).await.is_ok());
    holds(&inner, 0.25);
    holds(&outer, 0.5);

    // Interleaved, and through another pipeline.
    let around = Pipeline::builder("outer").retry(retry(&inner).name("outer")).layer(&pipeline).build().unwrap();
    assert!(around.call(|| async { Ok::<_, ()>(()) }).await.is_ok());
    holds(&inner, 0.5);
    holds(&outer, 1.0);

    let forwards = Pipeline::builder("forwards").retry(retry(&inner)).build().unwrap();
    assert!(forwards.forward(|| pipeline.outcome(|| async { Ok::<_, ()>(()) })).await.is_ok());
    holds(&inner, 0.75);
    holds(&outer, 1.5);
}

#[tokio::test(start_paused = true)]
async fn a_substitute_of_a_fallback_deposits_nothing() {
    let budget = shared(RetryBudget::builder().ratio(1.0).initial(0));
    let pipeline = Pipeline::builder("api")
        .retry(plain(3, ms(10)).budget(budget.clone()))
        .fallback(withstand::Fallback::value(0).handles([withstand::VerdictKind::Transient]))
        .build()
        .unwrap();
    assert_eq!(pipeline.call(|| async { Err::<u32, _>(()) }).await, Ok(0));
    holds(&budget, 0.0);
}

#[test]
fn nonsense_is_refused_by_whoever_builds_the_budget() {
    for (budget, field) in [
        (RetryBudget::builder().ratio(f64::NAN), "ratio"),
        (RetryBudget::builder().ratio(-0.1), "ratio"),
        (RetryBudget::builder().ratio(f64::INFINITY), "ratio"),
        (RetryBudget::builder().ratio(1.1), "ratio"),
        (RetryBudget::builder().initial(11).cap(10), "initial"),
    ] {
        assert_eq!(budget.build().unwrap_err().field(), field);
        let error = Retry::builder().own_budget(budget).build().unwrap_err();
        assert_eq!((error.field(), error.policy().map(ToString::to_string)), (field, Some("retry".to_owned())));
    }
    assert!(RetryBudget::builder().initial(u32::MAX).cap(u32::MAX).build().is_ok());
}

#[test]
fn a_retry_has_a_budget_of_its_own_unless_told() {
    let own = Retry::builder().build().unwrap();
    let budget = own.budget().unwrap();
    holds(budget, 10.0);
    assert_eq!(budget.cap(), 100);
    assert!((budget.ratio() - 0.2).abs() < 1e-9);
    let given = shared(RetryBudget::builder());
    let retry = Retry::builder().budget(given.clone()).build().unwrap();
    assert!(Arc::ptr_eq(retry.budget().unwrap(), &given));
    assert!(Retry::builder().without_budget().build().unwrap().budget().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_was_empty_pays_again_once_successes_have_filled_it() {
    let budget = shared(RetryBudget::builder().ratio(0.5).initial(1).cap(10));
    let log = Log::new();
    let pipeline = pipeline(plain(2, ms(10)).budget(budget.clone()), &log);
    let attempts = async |result: Result<u32, Verdict>| {
        let script = Script::always(result);
        drop(pipeline.call(|| script.attempt()).await);
        script.attempts()
    };
    assert_eq!((attempts(DOWN).await, attempts(DOWN).await), (2, 1), "one token");
    assert_eq!((attempts(Ok(0)).await, attempts(DOWN).await), (1, 1), "half a token is none");
    assert_eq!((attempts(Ok(0)).await, attempts(DOWN).await), (1, 2), "two halves are one");
    assert_eq!(attempts(DOWN).await, 1);
    holds(&budget, 0.0);
}
