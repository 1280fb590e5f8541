//! What holds for every call, whatever the settings and whatever the operation does.

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::join_all;
use proptest::{collection::vec, option, prelude::*};
use tokio::time::{Instant, sleep};
use withstand::{
    Backoff, Bulkhead, CallOptions, EventKind, Fallback, Hedge, Jitter, Outcome, Pipeline, Retry, RetryBudget, Timeout,
    Verdict, VerdictKind,
};

use super::delays;
use crate::support::{Log, Script, Step, as_it_says, ms, secs};

/// The granularity of tokio's timers.
const TICK: Duration = ms(1);

fn paused<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn millis(most: u64) -> impl Strategy<Value = Duration> {
    (0..=most).prop_map(Duration::from_millis)
}

fn verdicts() -> impl Strategy<Value = Result<u32, Verdict>> {
    let hinted = |verdict: Verdict| {
        option::of(millis(300)).prop_map(move |hint| match hint {
            Some(hint) => Err(verdict.retry_after(hint)),
            None => Err(verdict),
        })
    };
    prop_oneof![
        2 => (0..9_u32).prop_map(Ok),
        5 => hinted(Verdict::transient()),
        2 => hinted(Verdict::unreached()),
        2 => hinted(Verdict::throttled()),
        1 => hinted(Verdict::rejected()),
        1 => Just(Err(Verdict::failure())),
        1 => Just(Err(Verdict::ignored())),
    ]
}

fn scripts() -> impl Strategy<Value = Vec<Step>> {
    let takes = prop_oneof![Just(ms(0)), millis(50), millis(400)];
    vec((takes, verdicts()).prop_map(|(takes, gives)| Step { takes, gives }), 1..8)
}

fn backoffs() -> impl Strategy<Value = (Backoff, Duration)> {
    let jitter = prop_oneof![Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Equal)];
    (0..4_u8, millis(120), millis(200), 1.0..4.0_f64, jitter).prop_map(|(kind, base, more, factor, jitter)| {
        let cap = base + more;
        let backoff = match kind {
            0 => Backoff::constant(base).jitter(jitter),
            1 => Backoff::linear(base).jitter(jitter),
            2 => Backoff::exponential(base).factor(factor).jitter(jitter),
            _ => Backoff::decorrelated(base),
        };
        (backoff.cap(cap), cap)
    })
}

/// The settings of a pipeline of every kind of layer.
#[derive(Clone, Debug)]
struct Settings {
    total: Option<Duration>,
    deadline: Option<Duration>,
    attempts: u32,
    backoff: Backoff,
    cap: Duration,
    max_hint: Duration,
    min_left: Duration,
    max_elapsed: Option<Duration>,
    budget: Option<(u32, f64)>,
    rejected: bool,
    hedged: Option<Duration>,
    attempt: Option<Duration>,
    limit: usize,
    seed: u64,
}

fn settings() -> impl Strategy<Value = Settings> {
    let times = (option::of(150..600_u64), option::of(1..600_u64), option::of(1..600_u64), option::of(1..149_u64));
    let retry = (1..7_u32, backoffs(), millis(200), millis(30), any::<bool>(), any::<u64>());
    let others = (option::of((0..4_u32, 0.0..=1.0_f64)), option::of(millis(100)), 1..4_usize);
    (times, retry, others).prop_map(
        |(
            (total, deadline, elapsed, attempt),
            (attempts, (backoff, cap), max_hint, min_left, rejected, seed),
            others,
        )| {
            let (budget, hedged, limit) = others;
            Settings {
                total: total.map(ms),
                deadline: deadline.map(ms),
                attempts,
                backoff,
                cap,
                max_hint,
                min_left,
                max_elapsed: elapsed.map(ms),
                budget,
                rejected,
                hedged,
                attempt: attempt.map(ms),
                limit,
                seed,
            }
        },
    )
}

impl Settings {
    fn retry(&self) -> Retry {
        let mut retry = Retry::builder()
            .max_attempts(self.attempts)
            .backoff(self.backoff.clone())
            .max_hint(self.max_hint)
            .min_time_left(self.min_left)
            .seed(self.seed);
        retry = match self.budget {
            Some((initial, ratio)) => retry.own_budget(RetryBudget::builder().initial(initial).ratio(ratio).cap(9)),
            None => retry.without_budget(),
        };
        if let Some(elapsed) = self.max_elapsed {
            retry = retry.max_elapsed(elapsed);
        }
        if self.rejected {
            retry = retry.retry_rejected();
        }
        retry.build().unwrap()
    }

    fn options(&self) -> CallOptions {
        match self.deadline {
            Some(left) => CallOptions::new().deadline(Instant::now() + left),
            None => CallOptions::new(),
        }
    }

    /// The longest that a call may take, if anything limits it.
    fn longest(&self) -> Option<Duration> {
        self.total.into_iter().chain(self.deadline).min()
    }
}

/// One call through all kinds of layers: how often it was attempted and when, how long it took, what was reported.
fn call(settings: &Settings, steps: &[Step]) -> (Vec<Duration>, Duration, Log) {
    paused(async {
        let (script, log) = (Script::new(steps.iter().copied()), Log::new());
        let hedge = settings.hedged.filter(|delay| settings.attempt.is_none_or(|limit| *delay < limit));
        let hedge = hedge.map(|delay| Hedge::builder().delay(delay).without_budget().build().unwrap());
        let pipeline = Pipeline::builder("api")
            .layer(settings.total.map(|limit| Timeout::builder(limit).name("total").build().unwrap()))
            .fallback(
                // It takes longer than it may, and so it takes part in the time and changes nothing else.
                Fallback::from_future(|_: &Outcome<u32, Verdict>| async {
                    sleep(secs(9)).await;
                    None
                })
                .limit(ms(7)),
            )
            .retry(settings.retry())
            .layer(hedge)
            .layer(settings.attempt.map(|limit| Timeout::builder(limit).name("attempt").build().unwrap()))
            .bulkhead(Bulkhead::builder().limit(settings.limit))
            .classify_errors(as_it_says)
            .observer(log.clone())
            .build()
            .unwrap();
        let started = Instant::now();
        let _answer = pipeline.call_with(settings.options(), |_| script.attempt()).await;
        let took = started.elapsed();
        (script.starts().into_iter().map(|start| start - started).collect(), took, log)
    })
}

/// What a concurrent load did to a budget.
struct Load {
    retried: u32,
    /// The repeats that the dependency has had.
    repeats: f64,
    deposits: f64,
    balance: f64,
}

/// Calls that begin at random times, fail at random, and are in part dropped half way.
fn load(initial: u32, ratio: f64, calls: &[(Duration, Vec<Step>, Option<Duration>)]) -> Load {
    paused(async {
        let budget = Arc::new(RetryBudget::builder().initial(initial).ratio(ratio).cap(1000).build().unwrap());
        let log = Log::new();
        let pipeline = Pipeline::builder("api")
            .retry(Retry::builder().max_attempts(5).budget(budget.clone()).seed(1))
            .bulkhead(Bulkhead::builder().limit(3).queue(3).max_wait(ms(20)))
            .classify_errors(as_it_says)
            .observer(log.clone())
            .build()
            .unwrap();
        let all = calls.iter().map(|(begins, steps, dropped)| {
            let (pipeline, script) = (&pipeline, Script::new(steps.iter().copied()));
            async move {
                sleep(*begins).await;
                let call = pipeline.call(|| script.attempt());
                match dropped {
                    Some(after) => drop(tokio::time::timeout(*after, call).await),
                    None => drop(call.await),
                }
            }
        });
        join_all(all).await;
        let count = |is_meant: fn(&EventKind) -> bool| u32::try_from(log.count(is_meant)).unwrap();
        let refused = Some(VerdictKind::Rejected);
        let repeats = log.count(
            |kind| matches!(kind, EventKind::AttemptFinished { attempt: 2.., verdict, .. } if *verdict != refused),
        );
        Load {
            retried: count(|kind| matches!(kind, EventKind::Retried { .. })),
            repeats: f64::from(u32::try_from(repeats).unwrap()),
            deposits: f64::from(count(|kind| matches!(kind, EventKind::CallFinished { ok: Some(true), .. }))) * ratio,
            balance: budget.balance(),
        }
    })
}

proptest! {
    #![proptest_config(crate::support::trials::cases(512))]

    #[test]
    fn no_call_outlasts_its_deadline_and_no_attempt_begins_after_it(settings in settings(), steps in scripts()) {
        let (starts, took, _) = call(&settings, &steps);
        if let Some(longest) = settings.longest() {
            prop_assert!(took <= longest + TICK, "{took:?} of {longest:?}");
            for start in starts {
                prop_assert!(start < longest, "an attempt at {start:?} of {longest:?}");
            }
        }
    }

    #[test]
    fn attempts_never_exceed_their_number_nor_the_budget(settings in settings(), steps in scripts()) {
        let (starts, _, log) = call(&settings, &steps);
        let primaries = log.count(|kind| matches!(kind, EventKind::AttemptStarted { hedge: 0, .. }));
        let retried = log.count(|kind| matches!(kind, EventKind::Retried { .. }));
        prop_assert!(primaries <= settings.attempts as usize);
        prop_assert!(retried < settings.attempts as usize);
        if settings.hedged.is_none() {
            prop_assert_eq!(starts.len(), primaries);
        }
        if let (Some((initial, _)), false) = (settings.budget, settings.rejected) {
            prop_assert!(retried <= initial as usize, "one call deposits at its very end");
        }
    }

    #[test]
    fn no_delay_exceeds_the_cap_but_for_a_hint_and_none_undercuts_a_hint(settings in settings(), steps in scripts()) {
        let (_, _, log) = call(&settings, &steps);
        let most = settings.cap.max(settings.max_hint) + settings.max_hint / 10;
        for (delay, hint, clamped) in log.pick(|kind| match kind {
            EventKind::Retried { delay, hint, clamped, .. } => Some((delay, hint, clamped)),
            _ => None,
        }) {
            let obeyed = hint.unwrap_or_default().min(settings.max_hint);
            prop_assert!(delay >= obeyed);
            prop_assert!(delay <= settings.cap.max(obeyed) + obeyed / 10);
            prop_assert!(delay <= most);
            prop_assert_eq!(clamped, hint.is_some_and(|hint| hint > settings.max_hint));
        }
    }

    #[test]
    fn no_attempt_of_a_retry_begins_later_than_max_elapsed(settings in settings(), steps in scripts()) {
        let settings = Settings { hedged: None, ..settings };
        let (starts, _, _) = call(&settings, &steps);
        if let (Some(most), Some(first)) = (settings.max_elapsed, starts.first()) {
            prop_assert!(starts.iter().all(|start| *start <= *first + most + TICK));
        }
    }

    #[test]
    fn the_same_seed_and_script_give_the_same_call(settings in settings(), steps in scripts()) {
        let (first, second) = (call(&settings, &steps), call(&settings, &steps));
        prop_assert_eq!(first.0, second.0);
        prop_assert_eq!(delays(&first.2), delays(&second.2));
    }

    #[test]
    fn tokens_are_neither_made_nor_lost_by_concurrent_calls(
        initial in 0..6_u32,
        ratio in 0.0..=1.0_f64,
        calls in vec((millis(200), scripts(), option::of(millis(150))), 1..30),
    ) {
        let load = load(initial, ratio, &calls);
        let funds = f64::from(initial) + load.deposits;
        prop_assert!(load.repeats <= f64::from(load.retried));
        prop_assert!(load.repeats <= funds + 1e-3, "{} repeats of {funds} tokens", load.repeats);
        // What is not spent on a repeat is there still, whatever was refused or dropped on its way.
        prop_assert!((load.balance - (funds - load.repeats)).abs() < 1e-3, "{} of {funds}", load.balance);
    }
}
