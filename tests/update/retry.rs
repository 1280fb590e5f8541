//! Attempts, waits and budgets of a retry.

use std::{sync::Arc, time::Duration};

use withstand::{
    Backoff, BackoffConfig, BackoffKind, BudgetConfig, CallOptions, Jitter, Pipeline, PipelineHandle, Retry,
    RetryBudget, RetryConfig, StandardLayers, Verdict, layers,
};

use super::{Tune, settings};
use crate::support::{Script, as_it_says, ms, secs};

type Users = Pipeline<layers![Retry], withstand::ClassifyErrors<fn(&Verdict) -> Verdict>>;

/// Five attempts, 100 ms, 200 ms, 400 ms, .. apart.
fn users() -> Users {
    let backoff = Backoff::exponential(ms(100)).cap(secs(10)).jitter(Jitter::None);
    let as_it_says: fn(&Verdict) -> Verdict = as_it_says;
    let retry = Retry::builder().max_attempts(5).backoff(backoff).without_budget();
    Pipeline::builder("users").retry(retry).classify_errors(as_it_says).build().unwrap()
}

/// The waits of a call of which no attempt succeeds.
async fn waits(users: &Users, verdict: Verdict) -> Vec<Duration> {
    let script = Script::always(Err(verdict));
    let _failed = users.call(|| script.attempt()).await;
    script.gaps()
}

fn backoff(users: &PipelineHandle, backoff: BackoffConfig) -> Vec<String> {
    users.tuned(settings!(RetryConfig { backoff: backoff }))
}

fn balance(budget: &RetryBudget) -> String {
    budget.balance().to_string()
}

#[tokio::test(start_paused = true)]
async fn attempts() {
    let users = users();
    assert_eq!(waits(&users, Verdict::transient()).await.len(), 4);
    assert_eq!(users.handle().tuned(settings!(RetryConfig { max_attempts: 2 })), ["retry: max_attempts 5 -> 2"]);
    assert_eq!(waits(&users, Verdict::transient()).await.len(), 1);
    users.handle().tuned(settings!(RetryConfig { max_attempts: 9 }));
    assert_eq!(waits(&users, Verdict::transient()).await.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_makes_no_more_attempts_than_are_allowed_by_then() {
    let users = users();
    let script = Script::always(Err(Verdict::transient()));
    let (_failed, ()) = tokio::join!(users.call(|| script.attempt()), async {
        tokio::time::sleep(ms(350)).await; // the third attempt has been made
        users.handle().tuned(settings!(RetryConfig { max_attempts: 2 }));
    });
    assert_eq!(script.attempts(), 4, "the one that was waited for, and no more");
}

#[tokio::test(start_paused = true)]
async fn each_number_of_the_backoff() {
    let users = users();
    let now = async || waits(&users, Verdict::transient()).await;
    let handle = users.handle();
    assert_eq!(
        backoff(&handle, settings!(BackoffConfig { base: ms(10) })),
        ["retry: backoff exponential 100ms x2 up to 10s, no jitter -> exponential 10ms x2 up to 10s, no jitter"]
    );
    assert_eq!(now().await, [10, 20, 40, 80].map(ms));
    backoff(&handle, settings!(BackoffConfig { factor: 3.0 }));
    assert_eq!(now().await, [10, 30, 90, 270].map(ms));
    backoff(&handle, settings!(BackoffConfig { cap: ms(50) }));
    assert_eq!(now().await, [10, 30, 50, 50].map(ms));
    backoff(&handle, settings!(BackoffConfig { jitter: Jitter::Equal }));
    assert!(now().await.iter().zip([10, 30, 50, 50]).all(|(wait, most)| (ms(most) / 2..=ms(most)).contains(wait)));
}

#[tokio::test(start_paused = true)]
async fn another_kind_keeps_what_it_can_use() {
    let users = users();
    let now = async || waits(&users, Verdict::transient()).await;
    let handle = users.handle();
    backoff(&handle, settings!(BackoffConfig { cap: ms(250), factor: 3.0 }));
    for (kind, waits) in [
        (BackoffKind::Linear, [100, 200, 250, 250]),
        (BackoffKind::Constant, [100; 4]),
        (BackoffKind::Exponential, [100, 200, 250, 250]),
    ] {
        backoff(&handle, settings!(BackoffConfig { kind: kind }));
        assert_eq!(now().await, waits.map(ms), "{kind:?}");
    }
    backoff(&handle, settings!(BackoffConfig { kind: BackoffKind::Decorrelated }));
    assert!(now().await.iter().all(|wait| (ms(100)..=ms(250)).contains(wait)));
    assert!(handle.explain().to_string().contains("decorrelated 100ms up to 250ms"));
}

#[tokio::test(start_paused = true)]
async fn a_base_that_is_raised_in_the_middle_of_a_call_never_goes_beyond_the_cap() {
    let users = users();
    let walk = |base, cap| settings!(BackoffConfig { kind: BackoffKind::Decorrelated, base: base, cap: cap });
    backoff(&users.handle(), walk(ms(10), ms(1_000)));
    let script = Script::always(Err(Verdict::transient()));
    let (_failed, ()) = tokio::join!(users.call(|| script.attempt()), async {
        tokio::time::sleep(ms(5)).await;
        backoff(&users.handle(), walk(ms(500), ms(600)));
    });
    assert!(script.gaps()[1..].iter().all(|wait| (ms(500)..=ms(600)).contains(wait)), "{:?}", script.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_function_is_kept_until_a_kind_is_given() {
    let steady = Backoff::custom(|_| Some(ms(70)));
    let retry = Retry::builder().without_budget().backoff(steady);
    let as_it_says: fn(&Verdict) -> Verdict = as_it_says;
    let users: Users = Pipeline::builder("users").retry(retry).classify_errors(as_it_says).build().unwrap();
    let handle = users.handle();
    assert_eq!(
        backoff(&handle, settings!(BackoffConfig { cap: ms(60) })),
        ["retry: backoff custom -> custom up to 60ms"]
    );
    assert_eq!(waits(&users, Verdict::transient()).await, [60, 60].map(ms));
    assert_eq!(
        handle.refusal(settings!(RetryConfig { backoff: settings!(BackoffConfig { base: ms(10) }) })),
        "pipeline `users`, policy `retry`: base is 10ms; accepted: a base together with a kind: the live backoff is a \
         function, which has none"
    );
    backoff(&handle, settings!(BackoffConfig { kind: BackoffKind::Constant, jitter: Jitter::None }));
    assert_eq!(waits(&users, Verdict::transient()).await, [50, 50].map(ms));
}

#[tokio::test(start_paused = true)]
async fn how_late_an_attempt_may_begin() {
    let users = users();
    assert_eq!(
        users.handle().tuned(settings!(RetryConfig { max_elapsed: ms(300) })),
        ["retry: max_elapsed none -> 300ms"]
    );
    assert_eq!(waits(&users, Verdict::transient()).await, [100, 200].map(ms));
    users.handle().tuned(settings!(RetryConfig { max_elapsed: ms(100) }));
    assert_eq!(waits(&users, Verdict::transient()).await, [100].map(ms));
}

#[tokio::test(start_paused = true)]
async fn how_much_time_must_be_left() {
    let users = users();
    let attempts = async || {
        let script = Script::always(Err(Verdict::transient()));
        let within = CallOptions::new().deadline(tokio::time::Instant::now() + ms(350));
        let _failed = users.call_with(within, |_| script.attempt()).await;
        script.attempts()
    };
    assert_eq!(attempts().await, 3);
    assert_eq!(
        users.handle().tuned(settings!(RetryConfig { min_time_left: ms(60) })),
        ["retry: min_time_left 10ms -> 60ms"]
    );
    assert_eq!(attempts().await, 2);
}

#[tokio::test(start_paused = true)]
async fn the_longest_hint_that_is_obeyed() {
    let users = users();
    let throttled = Verdict::throttled().retry_after(secs(20));
    let range = |most| most..=most + most / 10;
    assert!(waits(&users, throttled).await.iter().all(|wait| range(secs(20)).contains(wait)));
    assert_eq!(users.handle().tuned(settings!(RetryConfig { max_hint: secs(5) })), ["retry: max_hint 30s -> 5s"]);
    assert!(waits(&users, throttled).await.iter().all(|wait| range(secs(5)).contains(wait)));
}

#[tokio::test(start_paused = true)]
async fn what_a_success_deposits_and_the_most_that_a_budget_holds() {
    let budget = Arc::new(RetryBudget::builder().ratio(0.5).initial(40).cap(50).build().unwrap());
    let users = Pipeline::builder("users").retry(Retry::builder().budget(budget.clone())).build().unwrap();
    let tuned = |budget| users.handle().tuned(settings!(RetryConfig { budget: budget }));
    let succeed = async || users.call(|| async { Ok::<_, ()>(()) }).await.unwrap();
    succeed().await;
    assert_eq!(balance(&budget), "40.5");
    assert_eq!(tuned(settings!(BudgetConfig { ratio: 0.25 })), ["retry: ratio 0.5 -> 0.25"]);
    succeed().await;
    assert_eq!(balance(&budget), "40.75", "what is in it is kept");
    assert_eq!(tuned(settings!(BudgetConfig { cap: 3 })), ["retry: cap 50 -> 3"]);
    assert_eq!(balance(&budget), "3", "down to the cap");
    succeed().await;
    assert_eq!(balance(&budget), "3");
    tuned(settings!(BudgetConfig { cap: 4, ratio: 1.0 }));
    succeed().await;
    assert_eq!((balance(&budget), budget.initial()), ("4".to_owned(), 40));
}

#[tokio::test(start_paused = true)]
async fn an_emptied_budget_whose_cap_is_lowered_still_tells_that_it_is_refilled() {
    use withstand::EventKind::{BudgetEmptied, BudgetRefilled};
    let log = crate::support::Log::new();
    let budget = Arc::new(RetryBudget::builder().ratio(1.0).initial(0).cap(100).build().unwrap());
    let users = Pipeline::builder("users")
        .retry(Retry::builder().budget(budget.clone()))
        .observer(log.clone())
        .build()
        .unwrap();
    let fail = async || users.call(|| async { Err::<(), _>(()) }).await.unwrap_err();
    let succeed = async || users.call(|| async { Ok::<_, ()>(()) }).await.unwrap();
    fail().await;
    for _ in 0..20 {
        succeed().await;
    }
    users.handle().tuned(settings!(RetryConfig { budget: settings!(BudgetConfig { cap: 10 }) }));
    assert_eq!(balance(&budget), "10");
    fail().await;
    succeed().await;
    let edges = log.pick(|kind| match kind {
        BudgetEmptied { .. } => Some("emptied"),
        BudgetRefilled { .. } => Some("refilled"),
        _ => None,
    });
    assert_eq!(edges, ["emptied", "refilled"]);
}

#[test]
fn a_ratio_that_is_rounded_changes_once() {
    let users: Pipeline<StandardLayers> = Pipeline::standard("users").build().unwrap();
    let third = || settings!(RetryConfig { budget: settings!(BudgetConfig { ratio: 1.0 / 3.0 }) });
    assert_eq!(users.handle().tuned(third()), ["retry: ratio 0.2 -> 0.333333"]);
    assert_eq!(users.handle().tuned(third()), [""; 0]);
}
