//! Random series of attempts against a slow and obvious simulation of one.

use std::{future::Future, sync::Arc};

use proptest::{collection::vec, option, prelude::*};
use tokio::time::Instant;
use withstand::{CallOptions, Idempotency, RetryBudget, RetryStop, Verdict, VerdictKind};

use super::{pipeline, plain, stops};
use crate::support::{Log, Script, Step, ms};

const RATIO: f64 = 0.25;

#[derive(Clone, Copy, Debug)]
struct Settings {
    max_attempts: u32,
    delay: u64,
    rejected: bool,
    idempotency: Idempotency,
    /// None for no budget.
    tokens: Option<u32>,
    deadline: Option<u64>,
    min_time_left: u64,
}

/// What an attempt gave, or no error where the deadline ended it; and the verdict on it.
type Given = (Result<u32, Option<Verdict>>, Verdict);

/// How a series ends.
#[derive(Debug, PartialEq)]
struct End {
    given: Given,
    spent: bool,
    stop: Option<RetryStop>,
    at: u64,
    attempts: usize,
    tokens: Option<f64>,
}

/// The series as one would explain it.
fn simulate(steps: &[Step], settings: Settings) -> End {
    let deadline = settings.deadline.unwrap_or(u64::MAX);
    let mut tokens = settings.tokens;
    let (mut now, mut attempts) = (0, 0);
    // The last outcome that was no refusal.
    let mut real: Option<Given> = None;
    for number in 1.. {
        let given = if now >= deadline {
            (Err(None), Verdict::rejected())
        } else {
            let step = steps[attempts.min(steps.len() - 1)];
            let ends = now + u64::try_from(step.takes.as_millis()).unwrap();
            attempts += 1;
            if ends > deadline {
                let given = (Err(None), Verdict::transient());
                let tokens = tokens.map(f64::from);
                return End { given, spent: false, stop: None, at: deadline, attempts, tokens };
            }
            now = ends;
            (step.gives.map_err(Some), step.gives.err().unwrap_or(Verdict::success()))
        };
        let kind = given.1.kind();
        let refused = kind == VerdictKind::Rejected;
        if refused && number > 1 {
            tokens = tokens.map(|tokens| tokens + 1);
        }
        let ends = |given: Given, spent, stop| {
            let deposit = if kind == VerdictKind::Success { RATIO } else { 0.0 };
            let tokens = tokens.map(|tokens| f64::from(tokens) + deposit);
            End { given, spent, stop, at: now, attempts, tokens }
        };
        // What is returned where the retrying ends here: for a refusal the outcome before it, with the refusal's hint.
        let last = match real {
            Some((result, verdict)) if refused => (result, verdict.retry_after(given.1.hint().or(verdict.hint()))),
            _ => given,
        };
        let repeatable = match kind {
            VerdictKind::Transient | VerdictKind::Unreached | VerdictKind::Throttled => true,
            VerdictKind::Rejected => settings.rejected,
            _ => false,
        };
        if !repeatable {
            let stopped = refused && real.is_some();
            return ends(last, stopped, stopped.then_some(RetryStop::Rejected));
        }
        let next = now + settings.delay;
        let stop = if kind == VerdictKind::Transient && settings.idempotency == Idempotency::Unsafe {
            RetryStop::NotIdempotent
        } else if number == settings.max_attempts {
            RetryStop::Attempts
        } else if next.saturating_add(settings.min_time_left) > deadline {
            RetryStop::Deadline
        } else if tokens == Some(0) {
            RetryStop::Budget
        } else {
            tokens = tokens.map(|tokens| tokens - 1);
            if !refused {
                real = Some(given);
            }
            now = next;
            continue;
        };
        return ends(last, true, Some(stop));
    }
    unreachable!("a series ends")
}

/// The series as it is.
async fn play(steps: &[Step], settings: Settings) -> End {
    let budget = settings.tokens.map(|tokens| RetryBudget::builder().ratio(RATIO).initial(tokens).cap(100).build());
    let budget = budget.map(|budget| Arc::new(budget.unwrap()));
    // Hints are passed on and not obeyed: their spread is random.
    let mut retry = plain(settings.max_attempts, ms(settings.delay)).max_hint(ms(0));
    retry = retry.min_time_left(ms(settings.min_time_left));
    if let Some(budget) = &budget {
        retry = retry.budget(budget.clone());
    }
    if settings.rejected {
        retry = retry.retry_rejected();
    }
    let (script, log, started) = (Script::new(steps.iter().copied()), Log::new(), Instant::now());
    let mut options = CallOptions::new().idempotency(settings.idempotency);
    if let Some(left) = settings.deadline {
        options = options.deadline(started + ms(left));
    }
    let outcome = pipeline(retry, &log).outcome_with(options, |_| script.attempt()).await;
    let verdict = outcome.verdict();
    let given_up = outcome.is_spent();
    let result = outcome.result.map_err(|error| {
        assert!(error.is_timeout() || error.is_operation(), "{error:?}");
        error.into_operation()
    });
    let reasons = stops(&log);
    assert!(reasons.len() <= 1, "{reasons:?}");
    End {
        given: (result, verdict),
        spent: given_up,
        stop: reasons.first().copied(),
        at: u64::try_from(started.elapsed().as_millis()).unwrap(),
        attempts: script.attempts(),
        tokens: budget.map(|budget| budget.balance()),
    }
}

fn paused<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn settings() -> impl Strategy<Value = Settings> {
    let idempotency = prop_oneof![3 => Just(Idempotency::Safe), 1 => Just(Idempotency::Unsafe)];
    let times = (1..30_u64, option::of(1..150_u64), prop_oneof![Just(0), 1..30_u64]);
    (1..7_u32, any::<bool>(), idempotency, option::of(0..4_u32), times).prop_map(
        |(max_attempts, rejected, idempotency, tokens, (delay, deadline, min_time_left))| Settings {
            max_attempts,
            delay,
            rejected,
            idempotency,
            tokens,
            deadline,
            min_time_left,
        },
    )
}

/// Steps that can be told from each other by what they give.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        5 => Just(Verdict::transient()),
        2 => Just(Verdict::unreached()),
        2 => Just(Verdict::throttled()),
        4 => Just(Verdict::rejected()),
        1 => Just(Verdict::failure()),
        1 => Just(Verdict::ignored()),
        2 => Just(Verdict::success()),
    ];
    vec((verdict, prop_oneof![Just(0), 0..40_u64], any::<bool>()), 1..7).prop_map(|steps| {
        let numbered = steps.into_iter().zip(0_u32..);
        numbered
            .map(|((verdict, takes, hinted), number)| {
                let hint = hinted.then(|| ms(1_000 + u64::from(number)));
                let gives = if verdict.is_success() { Ok(number) } else { Err(verdict.retry_after(hint)) };
                Step { takes: ms(takes), gives }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(crate::support::trials::cases(4096))]

    #[test]
    fn a_series_of_attempts_goes_as_the_simulation_says(steps in steps(), settings in settings()) {
        prop_assert_eq!(paused(play(&steps, settings)), simulate(&steps, settings));
    }
}
