//! Which attempt wins, and what those that do not win do to the race.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::time::{Instant, sleep};
use withstand::{
    CallOptions, Error, Hedge, HedgeDelay, HedgeSuppression, HedgeTrigger, Pipeline, RetryBudget, Verdict,
};

use crate::{
    stage::{Fault, HANG, Part, Stage, answers, every, fails, finished, gives, hedged, hedges, suppressed},
    support::{Log, ms},
};

fn transient_in(takes: u64, hint: u64) -> Part {
    gives(takes, Verdict::transient().retry_after(ms(hint)))
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_fails_in_its_first_poll_is_hedged_like_any_other() {
    let log = Log::new();
    let pipeline = hedged(every(20, 1), &log);
    let result = pipeline
        .call_with(CallOptions::new(), |attempt| async move {
            match attempt.hedge() {
                0 => Err(Fault { by: 0, verdict: Verdict::transient() }),
                hedge => Ok(hedge),
            }
        })
        .await;
    assert_eq!(result, Ok(1));
    assert_eq!(hedges(&log), [(1, ms(0), HedgeTrigger::Failure)]);
}

#[tokio::test(start_paused = true)]
async fn the_first_acceptable_outcome_wins_and_the_others_are_gone_by_then() {
    for verdict in [Verdict::success(), Verdict::failure(), Verdict::ignored()] {
        let log = Log::new();
        let stage = Stage::new([answers(500), gives(30, verdict), answers(400)]);
        let result = hedged(every(20, 2), &log).call(|| stage.next()).await;
        assert_eq!(stage.running(), 0, "{verdict:?}");
        assert_eq!(stage.now(), 50);
        match result {
            Ok(winner) => assert_eq!((winner, verdict), (1, Verdict::success())),
            Err(error) => assert_eq!(error, Error::Operation(Fault { by: 1, verdict })),
        }
        assert_eq!(finished(&log), [(3, 2, 1)]);
        sleep(ms(1000)).await;
        assert_eq!(stage.starts().len(), 3, "nothing begins after the end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_first_attempt_starts_no_hedge() {
    let stage = Stage::new([gives(5, Verdict::failure()), answers(1)]);
    let error = hedged(every(20, 3), &Log::new()).call(|| stage.next()).await.unwrap_err();
    assert_eq!(error.operation().map(|fault| fault.by), Some(0));
    assert_eq!(stage.starts(), [(0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_end_together_the_primary_wins() {
    let log = Log::new();
    let stage = Stage::new([answers(100), gives(50, Verdict::failure())]);
    assert_eq!(hedged(every(50, 1), &log).call(|| stage.next()).await, Ok(0));
    assert_eq!(finished(&log), [(2, 1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_starts_the_next_at_once() {
    for verdict in [Verdict::transient(), Verdict::unreached()] {
        let log = Log::new();
        let stage = Stage::new([gives(7, verdict), gives(3, verdict), answers(5)]);
        assert_eq!(hedged(every(20, 3), &log).call(|| stage.next()).await, Ok(2));
        assert_eq!((stage.now(), stage.starts()), (15, vec![(0, 0), (1, 7), (2, 10)]));
        let failure = |hedge, after| (hedge, ms(after), HedgeTrigger::Failure);
        assert_eq!(hedges(&log), [failure(1, 7), failure(2, 3)]);
        assert_eq!(finished(&log), [(3, 2, 2)]);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_delay_counts_from_the_hedge_that_it_started() {
    let stage = Stage::new([fails(15), HANG, answers(5)]);
    assert_eq!(hedged(every(20, 3), &Log::new()).call(|| stage.next()).await, Ok(2));
    assert_eq!(stage.starts(), [(0, 0), (1, 15), (2, 35)]);
}

#[tokio::test(start_paused = true)]
async fn with_a_hint_the_next_begins_then_whatever_the_delay() {
    for hint in [3, 50, 5000] {
        let stage = Stage::new([transient_in(5, hint), answers(5)]);
        assert_eq!(hedged(every(20, 3), &Log::new()).call(|| stage.next()).await, Ok(1));
        assert_eq!(stage.starts(), [(0, 0), (1, 5 + hint)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_stands_even_if_another_attempt_fails_without_one() {
    let stage = Stage::new([transient_in(25, 100), fails(10), answers(5)]);
    assert_eq!(hedged(every(20, 2), &Log::new()).call(|| stage.next()).await, Ok(2));
    assert_eq!(stage.starts(), [(0, 0), (1, 20), (2, 125)]);
}

#[tokio::test(start_paused = true)]
async fn a_hint_past_the_deadline_ends_the_call_at_once() {
    let stage = Stage::new([transient_in(5, 100), answers(5)]);
    let options = CallOptions::new().deadline(Instant::now() + ms(105));
    let error = hedged(every(20, 3), &Log::new()).call_with(options, |_| stage.next()).await.unwrap_err();
    assert_eq!(error.operation().map(|fault| fault.by), Some(0));
    assert_eq!(stage.now(), 5);
}

#[tokio::test(start_paused = true)]
async fn throttled_stops_further_hedges_and_what_runs_may_still_win() {
    let throttled = gives(5, Verdict::throttled().retry_after(ms(70)));
    let log = Log::new();
    let stage = Stage::new([answers(500), throttled, HANG]);
    assert_eq!(hedged(every(20, 5), &log).call(|| stage.next()).await, Ok(0));
    assert_eq!(stage.starts(), [(0, 0), (1, 20)]);
    assert_eq!(suppressed(&log), [HedgeSuppression::Throttled]);

    let stage = Stage::new([throttled, answers(1)]);
    let outcome = hedged(every(20, 5), &log).outcome(|| stage.next()).await;
    assert_eq!(outcome.verdict(), throttled.verdict);
    assert_eq!((stage.now(), stage.starts()), (5, vec![(0, 0)]), "nothing to wait for");

    // A pending failure's hedge does not begin any more either.
    let stage = Stage::new([transient_in(25, 100), throttled, answers(1)]);
    let outcome = hedged(every(20, 5), &log).outcome(|| stage.next()).await;
    assert_eq!(outcome.verdict(), Verdict::transient().retry_after(ms(100)));
    assert_eq!((stage.now(), stage.starts()), (25, vec![(0, 0), (1, 20)]));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_the_primary_is_the_outcome() {
    let rejected = Verdict::rejected().retry_after(ms(30));
    let log = Log::new();
    let stage = Stage::new([gives(5, rejected), answers(1)]);
    let outcome = hedged(every(20, 3), &log).outcome(|| stage.next()).await;
    assert_eq!(outcome.verdict(), rejected);
    assert_eq!((stage.now(), stage.starts()), (5, vec![(0, 0)]));
    assert!(hedges(&log).is_empty());
    assert_eq!(finished(&log), [(1, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_runs_when_the_primary_is_rejected_may_win_and_no_other_begins() {
    let rejected = gives(25, Verdict::rejected());
    let stage = Stage::new([rejected, answers(100), answers(1)]);
    assert_eq!(hedged(every(20, 3), &Log::new()).call(|| stage.next()).await, Ok(1));
    assert_eq!(stage.starts(), [(0, 0), (1, 20)]);

    let stage = Stage::new([rejected, fails(100), answers(1)]);
    let outcome = hedged(every(20, 3), &Log::new()).outcome(|| stage.next()).await;
    assert_eq!(outcome.verdict(), Verdict::rejected());
    assert_eq!(stage.starts(), [(0, 0), (1, 20)]);
}

#[tokio::test(start_paused = true)]
async fn if_none_wins_the_outcome_is_the_primarys_with_the_largest_hint() {
    let log = Log::new();
    let stage =
        Stage::new([transient_in(25, 10), transient_in(10, 40), gives(5, Verdict::throttled().retry_after(ms(30)))]);
    let outcome = hedged(every(20, 2), &log).outcome(|| stage.next()).await;
    assert_eq!(outcome.verdict(), Verdict::transient().retry_after(ms(40)));
    assert_eq!(outcome.result.unwrap_err().operation().map(|fault| fault.by), Some(0));
    assert_eq!(finished(&log), [(3, 2, 0)]);

    let stage = Stage::new([fails(1), fails(1), fails(1)]);
    let outcome = hedged(every(20, 2), &log).outcome(|| stage.next()).await;
    assert_eq!(outcome.verdict(), Verdict::transient());
    assert_eq!((stage.now(), stage.starts().len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn on_failure_obeys_hints_as_well() {
    let stage = Stage::new([transient_in(5, 70), answers(5)]);
    let hedge = Hedge::builder().delay(HedgeDelay::on_failure()).without_budget();
    assert_eq!(hedged(hedge, &Log::new()).call(|| stage.next()).await, Ok(1));
    assert_eq!(stage.starts(), [(0, 0), (1, 75)]);
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_a_day_counts_as_half_a_minute() {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    for (hint, starts) in [(29_999, 30_004), (30_001, 30_005), (DAY, 30_005)] {
        let stage = Stage::new([transient_in(5, hint), answers(5)]);
        assert_eq!(hedged(every(20, 1), &Log::new()).call(|| stage.next()).await, Ok(1));
        assert_eq!(stage.starts(), [(0, 0), (1, starts)]);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_hint_if_the_budget_is_empty() {
    let log = Log::new();
    let budget = RetryBudget::builder().ratio(0.0).initial(1).cap(1);
    let pipeline = hedged(every(20, 3).own_budget(budget), &log);
    let stage = Stage::new([transient_in(5, 100), transient_in(5, 5000), answers(5)]);
    let outcome = pipeline.outcome(|| stage.next()).await;
    assert_eq!(outcome.verdict(), Verdict::transient().retry_after(ms(5000)));
    assert_eq!((stage.now(), stage.starts()), (110, vec![(0, 0), (1, 105)]));
    assert_eq!(suppressed(&log), [HedgeSuppression::Budget]);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_it_waits_for_a_hint_gives_the_token_back() {
    let budget = Arc::new(RetryBudget::builder().ratio(0.0).initial(1).cap(1).build().unwrap());
    let pipeline = hedged(every(20, 3).budget(budget.clone()), &Log::new());
    let stage = Stage::new([transient_in(5, 100), answers(5)]);
    assert!(tokio::time::timeout(ms(50), pipeline.call(|| stage.next())).await.is_err());
    assert!((budget.balance() - 1.0).abs() < 1e-6);
    let stage = Stage::new([transient_in(5, 100), answers(5)]);
    assert_eq!(pipeline.call(|| stage.next()).await, Ok(1));
    assert!(budget.balance() < 1e-6);
}

#[tokio::test(start_paused = true)]
async fn an_ok_is_judged_like_an_error() {
    let by_status = |status: Result<&u32, &()>| match status {
        Ok(429) => Verdict::throttled(),
        Ok(501) => Verdict::failure(),
        Ok(503) => Verdict::transient(),
        _ => Verdict::success(),
    };
    let pipeline = Pipeline::builder("replicas").hedge(every(20, 1)).classify(by_status).build().unwrap();
    for (statuses, answer, attempts) in [
        ([503, 200], 200, 2),
        ([503, 429], 503, 2),
        ([503, 501], 501, 2),
        ([501, 200], 501, 1),
        ([429, 200], 429, 1),
        ([200, 503], 200, 1),
    ] {
        let made = AtomicUsize::new(0);
        let call = pipeline.call(|| {
            let status = statuses[made.fetch_add(1, Relaxed)];
            async move {
                sleep(ms(5)).await;
                Ok(status)
            }
        });
        assert_eq!(call.await, Ok(answer), "{statuses:?}");
        assert_eq!(made.into_inner(), attempts, "{statuses:?}");
    }
}
