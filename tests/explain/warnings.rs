//! What looks wrong, in words.

use super::*;

fn breaker() -> withstand::CircuitBreakerBuilder {
    CircuitBreaker::builder()
}

fn bulkhead() -> withstand::BulkheadBuilder {
    Bulkhead::builder().limit(10)
}

fn queue(wait: Duration) -> withstand::BulkheadBuilder {
    bulkhead().queue(10).max_wait(wait)
}

fn hedge() -> withstand::HedgeBuilder {
    Hedge::builder().delay(ms(100))
}

/// Asserts the kinds and, of the one that the test is about, policies and text.
#[track_caller]
fn assert_warns(plan: &Plan, expected: &[W], about: W, policies: &[&str], text: &str) {
    assert_eq!(kinds(plan), expected, "{plan}");
    let warning = plan.warnings().iter().find(|warning| warning.kind() == about).unwrap();
    assert_eq!(warning.policies(), policies);
    assert_eq!(warning.to_string(), text);
    for policy in policies {
        assert!(text.contains(&format!("`{policy}`")), "{policy} is not in: {text}");
    }
}

/// The kind of the only warning is the one that the test is about.
#[track_caller]
fn assert_warns_only(plan: &Plan, about: W, policies: &[&str], text: &str) {
    assert_warns(plan, &[about], about, policies, text);
}

#[test]
fn of_a_call_that_may_hang() {
    assert_warns_only(
        &plan![circuit_breaker(breaker())],
        W::NoTimeout,
        &[],
        "no timeout limits the time of a call: one that hangs does so for ever; add one for the whole call, \
         outermost, and one for each attempt, innermost",
    );
    // What a custom layer does is unknown: it may well have a timeout.
    assert_eq!(kinds(&plan![layer(Silent)]), []);
}

#[test]
fn of_a_server_that_can_make_a_retry_wait() {
    assert_warns_only(
        &plan![retry(retry(3).max_hint(Duration::MAX)), timeout(secs(1))],
        W::NoTotalTimeout,
        &[],
        "a server that asks to come back late can make a call last without limit; add a timeout for the whole \
         call, outermost",
    );
}

#[test]
fn of_attempts_without_a_timeout_of_their_own() {
    assert_warns_only(
        &plan![timeout(secs(4)), retry(retry(3))],
        W::NoAttemptTimeout,
        &["retry", "timeout"],
        "no timeout is inside the retry `retry`: an attempt that hangs uses up all of the 4s of the timeout \
         `timeout` and is never repeated; add one for each attempt, innermost",
    );
}

#[test]
fn of_a_retry_without_a_classifier() {
    let plan = Pipeline::builder("users-api").timeout(secs(4)).retry(retry(3)).timeout(secs(1));
    assert_warns_only(
        &plan.build().unwrap().explain(),
        W::NoClassifier,
        &["retry"],
        "without a classifier the retry `retry` repeats every error, also those that will never succeed; \
         tell them apart with classify_errors(..)",
    );
}

#[test]
fn of_repeats_without_a_budget() {
    assert_warns_only(
        &plan![timeout(secs(4)), retry(retry(3).without_budget()), timeout(secs(1))],
        W::NoBudget,
        &["retry"],
        "the retry `retry` has no budget: it multiplies the load for as long as an outage lasts; leave out \
         without_budget()",
    );
    let plan = plan![timeout(secs(4)), hedge(hedge().without_budget()), timeout(secs(1))];
    assert_eq!(kinds(&plan), [W::NoBudget]);
}

#[test]
fn of_a_budget_that_cannot_pay() {
    let own = |budget| plan![timeout(secs(4)), retry(retry(3).own_budget(budget)), timeout(secs(1))];
    assert_warns_only(
        &own(RetryBudget::builder().initial(0).cap(0)),
        W::UselessBudget,
        &["retry"],
        "the budget of the retry `retry` holds nothing: it never repeats; raise the cap",
    );
    assert_warns_only(
        &own(RetryBudget::builder().ratio(0.0)),
        W::UselessBudget,
        &["retry"],
        "no success refills the budget of the retry `retry`: once it is spent it never repeats again; raise the \
         ratio",
    );
}

#[test]
fn of_retries_that_cannot_fit_in_the_total_timeout() {
    assert_warns_only(
        &plan![timeout(secs(2)), retry(Retry::builder()), timeout(secs(1))],
        W::RetriesExceedTimeout,
        &["retry", "timeout"],
        "3 attempts of the retry `retry` with their waits can take 3.15s, but the timeout `timeout` ends them after \
         2s; allow fewer attempts or less time for each",
    );
    assert_eq!(kinds(&plan![timeout(secs(3)), retry(retry(3)), timeout(secs(1))]), []);
    let max_elapsed = retry(100).max_elapsed(secs(2));
    assert_eq!(kinds(&plan![timeout(secs(3)), retry(max_elapsed), timeout(secs(1))]), []);
}

#[test]
fn of_waits_that_alone_cannot_fit_in_the_total_timeout() {
    assert_warns(
        &plan![timeout(secs(4)), retry(retry(3).backoff(Backoff::constant(secs(2))))],
        &[W::NoAttemptTimeout, W::RetriesExceedTimeout],
        W::RetriesExceedTimeout,
        &["retry", "timeout"],
        "the waits of the retry `retry` alone can take 4s, but the timeout `timeout` ends the call after 4s; lower \
         the cap of the backoff or allow fewer attempts",
    );
}

#[test]
fn of_a_max_elapsed_that_is_never_reached() {
    assert_warns_only(
        &plan![timeout(secs(4)), retry(retry(3).max_elapsed(secs(4))), timeout(secs(1))],
        W::UselessMaxElapsed,
        &["retry", "timeout"],
        "max_elapsed of the retry `retry` is 4s, but the timeout `timeout` ends the call after 4s; shorten it or \
         leave it out",
    );
}

#[test]
fn of_a_retry_that_never_repeats() {
    assert_warns_only(
        &plan![timeout(secs(4)), retry(retry(1))],
        W::SingleAttemptRetry,
        &["retry"],
        "the retry `retry` makes a single attempt: max_attempts counts the first one; allow 2 or leave it out",
    );
}

#[test]
fn of_nested_retries() {
    let plan = plan![timeout(secs(4)), retry(retry(3)), retry(retry(3)), timeout(secs(1))];
    assert_warns_only(
        &plan,
        W::NestedRetries,
        &["retry", "retry-2"],
        "the retry `retry` does nothing: it does not repeat what the retry `retry-2` inside it has given up on; \
         keep one of them",
    );
    let spent = retry(2).repeat_spent();
    assert_warns_only(
        &plan![timeout(secs(9)), retry(spent), retry(retry(3)), timeout(secs(1))],
        W::NestedRetries,
        &["retry", "retry-2"],
        "the retry `retry` repeats what the retry `retry-2` inside it has repeated: one call makes up to 6 \
         attempts; keep one of them",
    );
    let rejected = retry(3).retry_rejected();
    assert_warns_only(
        &plan![timeout(secs(20)), retry(rejected), retry(retry(3)), timeout(secs(1))],
        W::NestedRetries,
        &["retry", "retry-2"],
        "the retry `retry` repeats what was rejected inside the retry `retry-2`: one call makes up to 5 attempts; \
         keep one of them",
    );
}

#[test]
fn of_a_hedge_outside_a_retry() {
    assert_warns_only(
        &plan![timeout(secs(9)), hedge(hedge()), retry(retry(3)), timeout(secs(1))],
        W::HedgeOutsideRetry,
        &["hedge", "retry"],
        "the hedge `hedge` is outside of the retry `retry`: each attempt of it is retried, up to 6 attempts for \
         one call; put it inside",
    );
}

#[test]
fn of_nested_hedges() {
    assert_warns_only(
        &plan![timeout(secs(9)), hedge(hedge()), hedge(hedge()), timeout(secs(1))],
        W::NestedHedges,
        &["hedge", "hedge-2"],
        "the hedge `hedge` hedges what the hedge `hedge-2` hedges, up to 4 attempts for one call; keep one",
    );
}

#[test]
fn of_a_hedge_that_begins_too_late() {
    assert_warns_only(
        &plan![timeout(secs(4)), hedge(Hedge::builder().delay(secs(1))), timeout(secs(1))],
        W::HedgeTooLate,
        &["hedge", "timeout-2"],
        "the hedge `hedge` waits 1s, but the timeout `timeout-2` ends an attempt after 1s: a slow one is never \
         hedged; shorten the delay",
    );
    let quantile = HedgeDelay::quantile(0.9).ceiling(secs(1));
    assert_eq!(kinds(&plan![timeout(secs(4)), hedge(Hedge::builder().delay(quantile)), timeout(secs(1))]), []);
}

#[test]
fn of_a_bulkhead_with_too_few_permits_for_one_hedged_call() {
    let plan = plan![timeout(secs(4)), hedge(hedge().max_hedges(2)), bulkhead(Bulkhead::builder().limit(2))];
    assert_warns_only(
        &plan,
        W::HedgeExceedsBulkhead,
        &["hedge", "bulkhead"],
        "the hedge `hedge` makes up to 2 attempts besides the first, but the bulkhead `bulkhead` has 2 permits in \
         all; raise its limit",
    );
}

#[test]
fn of_a_breaker_outside_a_retry() {
    assert_warns_only(
        &plan![timeout(secs(4)), circuit_breaker(breaker().name("users")), retry(retry(3)), timeout(secs(1))],
        W::BreakerOutsideRetry,
        &["users", "retry"],
        "the circuit breaker `users` is outside of the retry `retry`: it sees one result of all the attempts, and \
         stops none that follow; put it inside",
    );
}

#[test]
fn of_a_breaker_outside_a_hedge() {
    assert_warns_only(
        &plan![timeout(secs(4)), circuit_breaker(breaker()), hedge(hedge()), timeout(secs(1))],
        W::BreakerOutsideHedge,
        &["circuit_breaker", "hedge"],
        "the circuit breaker `circuit_breaker` is outside of the hedge `hedge`: it sees one result of the race, and \
         a probe is hedged; put it inside",
    );
}

#[test]
fn of_a_breaker_with_no_timeout_inside() {
    assert_warns_only(
        &plan![timeout(secs(4)), circuit_breaker(breaker())],
        W::BreakerOutsideTimeout,
        &["circuit_breaker", "timeout"],
        "no timeout is inside the circuit breaker `circuit_breaker`: it learns of a call that hangs only when the \
         timeout `timeout` drops it; add one for each attempt, innermost",
    );
}

#[test]
fn of_a_slow_call_that_a_timeout_ends_first() {
    let text = |timeout| {
        format!(
            "the circuit breaker `circuit_breaker` calls slow what takes 1s, but the timeout `{timeout}` ends it \
             after 1s; shorten slow_call"
        )
    };
    let slow = || breaker().slow_call(secs(1));
    let inside = plan![timeout(secs(4)), circuit_breaker(slow()), timeout(secs(1))];
    assert_warns_only(&inside, W::UnreachableSlowCall, &["circuit_breaker", "timeout-2"], &text("timeout-2"));
    let outside = plan![timeout(secs(1)), circuit_breaker(slow()), layer(Silent)];
    assert_warns_only(&outside, W::UnreachableSlowCall, &["circuit_breaker", "timeout"], &text("timeout"));
}

#[test]
fn of_a_queue_inside_a_breaker() {
    assert_warns_only(
        &plan![timeout(secs(4)), circuit_breaker(breaker()), bulkhead(queue(ms(50))), timeout(secs(1))],
        W::QueueInsideBreaker,
        &["circuit_breaker", "bulkhead"],
        "the circuit breaker `circuit_breaker` is outside of the queue of the bulkhead `bulkhead`: a call that waits \
         there was admitted by the state of before; put the bulkhead outside",
    );
    let without = plan![timeout(secs(4)), circuit_breaker(breaker()), bulkhead(bulkhead()), timeout(secs(1))];
    assert_eq!(kinds(&without), []);
}

#[test]
fn of_a_queue_wait_longer_than_the_attempt_timeout() {
    assert_warns_only(
        &plan![timeout(secs(4)), bulkhead(queue(secs(2))), timeout(secs(1))],
        W::QueueExceedsTimeout,
        &["bulkhead", "timeout-2"],
        "a call may wait 2s in the queue of the bulkhead `bulkhead`, longer than the 1s that the timeout `timeout-2` \
         allows an attempt; a tenth of that is enough",
    );
    let around = plan![timeout(secs(4)), retry(retry(3)), timeout(secs(1)), bulkhead(queue(secs(2)))];
    assert_eq!(kinds(&around), [W::QueueExceedsTimeout]);
    // One that is as long is no longer, and where nobody waits there is no wait.
    assert_eq!(kinds(&plan![timeout(secs(4)), bulkhead(queue(secs(1))), timeout(secs(1))]), []);
    assert_eq!(kinds(&plan![timeout(secs(4)), bulkhead(bulkhead()), timeout(ms(5))]), []);
}

#[test]
fn of_a_bulkhead_outside_a_retry() {
    assert_warns_only(
        &plan![timeout(secs(4)), bulkhead(bulkhead()), retry(retry(3)), timeout(secs(1))],
        W::BulkheadOutsideRetry,
        &["bulkhead", "retry"],
        "the bulkhead `bulkhead` is outside of the retry `retry`: a call keeps its permit while it waits to be \
         repeated; put it inside",
    );
}

#[test]
fn of_a_bulkhead_that_rejects_everything() {
    assert_warns_only(
        &plan![timeout(secs(4)), bulkhead(Bulkhead::builder().limit(0))],
        W::ClosedBulkhead,
        &["bulkhead"],
        "the bulkhead `bulkhead` has a limit of 0: it rejects every call; raise it",
    );
}

#[test]
fn of_an_asynchronous_fallback_inside_the_total_timeout() {
    let cache = Fallback::from_future(|_: &Outcome<(), io::Error>| async { None });
    assert_warns_only(
        &plan![timeout(secs(4)), fallback(cache)],
        W::FallbackInsideTimeout,
        &["fallback", "timeout"],
        "the fallback `fallback` is inside the timeout `timeout`, which may have no time left when it begins; put it \
         outermost",
    );
}

#[test]
fn of_a_fallback_that_is_not_outermost() {
    assert_warns_only(
        &plan![timeout(secs(4)), fallback(Fallback::value(()))],
        W::FallbackNotOutermost,
        &["fallback", "timeout"],
        "the fallback `fallback` is inside the timeout `timeout` and does not answer for what that ends or refuses; \
         put it outermost",
    );
    let rejected = || Fallback::value(()).handles([VerdictKind::Rejected]);
    assert_warns(
        &plan![retry(retry(3)), fallback(rejected()), timeout(secs(1))],
        &[W::FallbackNotOutermost],
        W::FallbackNotOutermost,
        &["fallback", "retry"],
        "the fallback `fallback` is inside the retry `retry`, which does not repeat what it answers; put it \
         outermost",
    );
    let two = plan![fallback(Fallback::value(())), fallback(rejected()), timeout(secs(1))];
    assert_eq!(kinds(&two), []);
}

#[test]
fn are_found_in_pipelines_and_boxes_inside_as_well() {
    let inner = Pipeline::builder("inner").retry(retry(3)).timeout(secs(1)).build().unwrap();
    let boxed: BoxPolicy<(), io::Error> = BoxPolicy::new(inner);
    let plan = plan![circuit_breaker(breaker()), layer(boxed)];
    assert_eq!(kinds(&plan), [W::BreakerOutsideRetry]);
    assert_eq!(plan.layers().len(), 3);
}
