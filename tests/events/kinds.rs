//! Each kind of event: who tells it, all that it says, and the level it is for.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, advance, sleep};
use withstand::{
    Bulkhead, CallOptions, CircuitBreaker, Context, Describe, Event, EventKind, Fallback, Hedge, Level, Observer,
    Operation, Outcome, Pipeline, Policy, PolicyId, Priority, RetryBudget, Timeout, Verdict,
};

use super::retry;
use crate::support::{Script, Step, as_it_says, ms, secs};

/// Writes down what it hears: level, kind of policy, and the event's own line.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<String>>>);

impl Written {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Written {
    fn on_event(&self, event: &Event<'_>) {
        let kind = event.policy.map_or("-", |policy| policy.kind().as_str());
        self.0.lock().unwrap().push(format!("{:?} {kind} {event}", event.level()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_repeated_times_out_and_is_answered_by_a_fallback_reads_line_for_line() {
    let written = Written::default();
    let pipeline = Pipeline::builder("api")
        .fallback(Fallback::from_future(|_: &Outcome<u32, Verdict>| async {
            sleep(ms(7)).await;
            Some(Ok(42))
        }))
        .timeout(secs(1))
        .retry(retry(2).max_hint(ms(0)))
        .timeout(Timeout::builder(ms(50)).name("attempt"))
        .classify_errors(as_it_says)
        .observer(written.clone())
        .build()
        .unwrap();
    let throttled = Step { takes: ms(5), gives: Err(Verdict::throttled().retry_after(secs(3))) };
    let script = Script::new([throttled, Step { takes: secs(9), gives: Ok(0) }]);
    let options = CallOptions::new().deadline(Instant::now() + ms(900)).priority(Priority::Critical);
    assert_eq!(pipeline.call_with(options, |_| script.attempt()).await, Ok(42));
    let expected = [
        "Trace - api: CallStarted { deadline_left: Some(900ms), idempotency: Safe, priority: Critical }",
        "Trace - api: AttemptStarted { attempt: 1, hedge: 0 }",
        "Debug - api: AttemptFinished { attempt: 1, hedge: 0, verdict: Some(Throttled), label: \"throttled\", \
         duration: 5ms, probe: false, end: Completed }",
        "Warn retry api/retry: Retried { next_attempt: 2, delay: 10ms, hint: Some(3s), clamped: true }",
        "Trace - api: AttemptStarted { attempt: 2, hedge: 0 }",
        "Debug - api: AttemptFinished { attempt: 2, hedge: 0, verdict: None, label: \"timed_out\", duration: 50ms, \
         probe: false, end: TimedOut }",
        "Warn timeout api/attempt: TimedOut { scope: Attempt, phase: Attempt, limit: 50ms, elapsed: 50ms, \
         late_by: 0ns }",
        "Warn retry api/retry: RetryStopped { why: Attempts, attempts: 2 }",
        "Warn fallback api/fallback: FellBack { original: Transient, reason: None, end: Ok, duration: 7ms }",
        "Debug - api: CallFinished { outcome: Fallback, ok: Some(true), reason: None, rejected_by: None, \
         label: \"fallback\", spent: false, attempts: 2, hedges: 0, winner: 0, duration: 72ms }",
    ];
    assert_eq!(written.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_in_a_queue_and_hedges_in_vain_reads_line_for_line() {
    let written = Written::default();
    let bulkhead = Arc::new(Bulkhead::builder().limit(2).queue(1).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .hedge(Hedge::builder().delay(ms(10)))
        .bulkhead(bulkhead.clone())
        .observer(written.clone())
        .build()
        .unwrap();
    let held = [bulkhead.try_acquire().unwrap(), bulkhead.try_acquire().unwrap()];
    let call = pipeline.call(|| async {
        sleep(ms(30)).await;
        Ok::<_, ()>(1)
    });
    let frees_one = async {
        sleep(ms(5)).await;
        let [_still_held, freed] = held;
        drop(freed);
        sleep(secs(1)).await;
    };
    let (answer, ()) = tokio::join!(call, frees_one);
    assert_eq!(answer, Ok(1));
    let expected = [
        "Trace - api: CallStarted { deadline_left: None, idempotency: Safe, priority: Normal }",
        "Debug bulkhead api/bulkhead: Waited { waited: 5ms, depth: 1, end: Admitted }",
        "Trace - api: AttemptStarted { attempt: 1, hedge: 0 }",
        "Info hedge api/hedge: Hedged { hedge: 1, delay: 10ms, trigger: Delay }",
        "Warn bulkhead api/bulkhead: Rejected { reason: BulkheadFull, retry_after: None, attempt: 1, hedge: 1 }",
        "Debug hedge api/hedge: HedgeSuppressed { why: Bulkhead }",
        "Debug - api: AttemptFinished { attempt: 1, hedge: 0, verdict: Some(Success), label: \"success\", \
         duration: 30ms, probe: false, end: Completed }",
        "Debug - api: CallFinished { outcome: Success, ok: Some(true), reason: None, rejected_by: None, \
         label: \"success\", spent: false, attempts: 1, hedges: 0, winner: 0, duration: 35ms }",
    ];
    assert_eq!(written.take(), expected);
    bulkhead.set_limit(7).unwrap();
    assert_eq!(written.take(), ["Info bulkhead api/bulkhead: LimitChanged { old: 2, new: 7 }"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_a_shared_budget_empty_or_fills_it_says_so() {
    for hedge_spends in [true, false] {
        let written = Written::default();
        let budget = Arc::new(RetryBudget::builder().ratio(1.0).initial(0).cap(2).build().unwrap());
        let pipeline = Pipeline::builder("api")
            .retry(retry(2).budget(budget.clone()))
            .layer(hedge_spends.then(|| Hedge::builder().delay(ms(10)).budget(budget.clone()).build().unwrap()))
            .observer(written.clone())
            .build()
            .unwrap();
        let spender = if hedge_spends { "hedge" } else { "retry" };
        assert!(pipeline.call(|| async { Err::<(), _>(()) }).await.is_err());
        assert!(pipeline.call(|| async { Ok::<_, ()>(()) }).await.is_ok());
        let told: Vec<_> = written.take().into_iter().filter(|line| !line.contains(" - ")).collect();
        let suppressed = hedge_spends.then(|| "Debug hedge api/hedge: HedgeSuppressed { why: Budget }".to_owned());
        let mut expected = vec![format!("Warn {spender} api/{spender}: BudgetEmptied {{ balance: 0.0, cap: 2 }}")];
        expected.extend(suppressed);
        expected.push("Warn retry api/retry: RetryStopped { why: Budget, attempts: 1 }".to_owned());
        expected.push(format!("Info {spender} api/{spender}: BudgetRefilled {{ balance: 1.0, cap: 2 }}"));
        assert_eq!(told, expected);
    }
}

/// Tells something of its own.
struct Tells;

impl Describe for Tells {}

impl<T: Send, E: Send> Policy<T, E> for Tells {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        cx.emit(&PolicyId::custom("tells"), || EventKind::Custom("cache_miss"));
        op.attempt(cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_of_ones_own_is_told_by_a_policy_of_ones_own() {
    let written = Written::default();
    let pipeline = Pipeline::builder("api").layer(Tells).observer(written.clone()).build().unwrap();
    assert!(pipeline.call(|| async { Ok::<_, ()>(1) }).await.is_ok());
    let told = written.take();
    assert_eq!(told[1], "Info custom api/tells: Custom(\"cache_miss\")", "{told:#?}");
}

/// A breaker's events are louder the first time it opens than when it opens again.
#[tokio::test(start_paused = true)]
async fn what_changes_for_the_worse_is_louder_than_what_changes_for_the_better() {
    let levels = Arc::new(Mutex::new(Vec::new()));
    let heard = levels.clone();
    let breaker = CircuitBreaker::builder().count_window(1).min_calls(1).probes(1).close_after(1);
    let breaker = Arc::new(breaker.open_for(secs(1)).growth(1.0).probe_lease(secs(5)).build().unwrap());
    let pipeline = Pipeline::builder("api")
        .circuit_breaker(breaker.clone())
        .observer(move |event: &Event<'_>| {
            if event.policy.is_some() {
                let name = format!("{:?}", event.kind);
                let name = name.split(' ').next().unwrap_or_default().to_owned();
                heard.lock().unwrap().push((name, event.level()));
            }
        })
        .build()
        .unwrap();
    let fail = async || assert!(pipeline.call(|| async { Err::<(), _>(()) }).await.is_err());
    fail().await;
    fail().await;
    sleep(secs(1)).await;
    fail().await;
    sleep(secs(1)).await;
    let hangs = tokio::time::timeout(secs(7), pipeline.call(pending::<Result<(), ()>>));
    assert!(hangs.await.is_err());
    assert!(breaker.admit().is_ok(), "half-open again");
    breaker.reset();
    drop(breaker.isolate());
    let expected = [
        ("Opened", Level::Error),
        ("Rejected", Level::Warn),
        ("HalfOpened", Level::Info),
        ("ProbeFinished", Level::Info),
        ("Opened", Level::Warn),
        ("HalfOpened", Level::Info),
        ("ProbeExpired", Level::Warn),
        ("Opened", Level::Warn),
        ("HalfOpened", Level::Info),
        ("Closed", Level::Info),
        ("Isolated", Level::Warn),
        ("Released", Level::Warn),
        ("Closed", Level::Info),
    ];
    assert_eq!(*levels.lock().unwrap(), expected.map(|(name, level)| (name.to_owned(), level)));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_does_not_end_by_itself_is_labelled_by_its_end() {
    let written = Written::default();
    let hedged = Pipeline::builder("api").hedge(Hedge::builder().delay(ms(10))).observer(written.clone());
    let hedged = hedged.build().unwrap();
    let ends = |written: &Written| {
        let lines = written.take().into_iter().filter(|line| line.contains("AttemptFinished")).collect::<Vec<_>>();
        lines.iter().map(|line| line.split("verdict: ").nth(1).unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let by_index = |attempt: withstand::Attempt| async move {
        if attempt.hedge() == 0 {
            pending::<()>().await;
        }
        sleep(ms(5)).await;
        Ok::<_, ()>(1)
    };
    assert_eq!(hedged.call_with(CallOptions::new(), by_index).await, Ok(1));
    let mut raced = ends(&written);
    raced.sort_unstable();
    assert_eq!(
        raced,
        [
            "None, label: \"superseded\", duration: 15ms, probe: false, end: Superseded }",
            "Some(Success), label: \"success\", duration: 5ms, probe: false, end: Completed }",
        ]
    );
    let plain = Pipeline::builder("api").observer(written.clone()).build().unwrap();
    assert!(tokio::time::timeout(ms(8), plain.call(pending::<Result<(), ()>>)).await.is_err());
    assert_eq!(ends(&written), ["None, label: \"cancelled\", duration: 8ms, probe: false, end: Cancelled }"]);
    let panics = plain.call(|| async { panic!("of the operation") as Result<(), ()> });
    assert!(crate::support::caught(panics).await.is_err());
    assert_eq!(ends(&written), ["None, label: \"panicked\", duration: 0ns, probe: false, end: Panicked }"]);
}

#[tokio::test(start_paused = true)]
async fn a_late_timer_is_told_with_the_time_it_took_and_by_how_much() {
    for (late, told) in [(0, "elapsed: 50ms, late_by: 0ns"), (80, "elapsed: 130ms, late_by: 80ms")] {
        let written = Written::default();
        let pipeline = Pipeline::builder("api").timeout(ms(50)).observer(written.clone()).build().unwrap();
        let (answer, ()) =
            tokio::join!(pipeline.call(pending::<Result<(), ()>>), advance(ms(50) + Duration::from_millis(late)));
        assert!(answer.is_err());
        let expected =
            format!("Warn timeout api/timeout: TimedOut {{ scope: Total, phase: Attempt, limit: 50ms, {told} }}");
        assert!(written.take().contains(&expected));
    }
}
