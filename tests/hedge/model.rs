//! Random races against a slow and obvious simulation of one, millisecond by millisecond.

use proptest::{collection::vec, option, prelude::*};
use tokio::runtime::Builder;
use withstand::{Error, Hedge, HedgeBuilder, HedgeDelay, Outcome, RetryBudget, Verdict, VerdictKind};

use crate::{
    stage::{Fault, Part, Stage, finished, gives, hedged},
    support::{Log, ms},
};

#[derive(Clone, Copy, Debug)]
struct Settings {
    /// None for hedges on failure only.
    delay: Option<u64>,
    max_hedges: u32,
    /// None for no budget.
    tokens: Option<u32>,
}

impl Settings {
    fn hedge(self) -> HedgeBuilder {
        let delay = self.delay.map_or(HedgeDelay::on_failure(), |delay| ms(delay).into());
        let hedge = Hedge::builder().delay(delay).max_hedges(self.max_hedges);
        match self.tokens {
            None => hedge.without_budget(),
            Some(tokens) => hedge.own_budget(RetryBudget::builder().ratio(0.0).initial(tokens).cap(tokens.max(1))),
        }
    }
}

/// How a race ends.
#[derive(Debug, Default)]
struct End {
    at: u64,
    starts: Vec<(u32, u64)>,
    /// Those that may have won; of several hedges that end in the same millisecond either. Empty if none is acceptable.
    winners: Vec<u32>,
    /// If none won: the largest hint.
    hint: Option<u64>,
}

/// The race as one would explain it.
fn simulate(parts: &[Part], settings: Settings) -> End {
    let part = |index: u32| parts[usize::try_from(index).unwrap().min(parts.len() - 1)];
    let mut end = End { starts: vec![(0, 0)], ..End::default() };
    // Who runs, and until when.
    let mut running = vec![(0, part(0).takes)];
    let mut tokens = settings.tokens;
    let mut hedges_over = false;
    // No hedge before this, because of failures; and one at this moment, whatever the delay.
    let mut after_failures = None;
    for now in 0.. {
        end.at = now;
        loop {
            let done: Vec<u32> = running.iter().filter(|(_, until)| *until == now).map(|(index, _)| *index).collect();
            running.retain(|(_, until)| *until != now);
            for &index in &done {
                let verdict = part(index).verdict;
                match verdict.kind() {
                    VerdictKind::Success | VerdictKind::Failure | VerdictKind::Ignored => end.winners.push(index),
                    VerdictKind::Rejected if index > 0 => {
                        tokens = tokens.map(|tokens| tokens + 1);
                        continue;
                    }
                    VerdictKind::Rejected | VerdictKind::Throttled => hedges_over = true,
                    _ => {
                        let hint = verdict.hint().map_or(0, |hint| u64::try_from(hint.as_millis()).unwrap());
                        after_failures = after_failures.max(Some(now + hint));
                    }
                }
                let hint = verdict.hint().map(|hint| u64::try_from(hint.as_millis()).unwrap());
                end.hint = end.hint.max(hint);
            }
            if end.winners.contains(&0) {
                end.winners = vec![0];
            }
            if !end.winners.is_empty() {
                return end;
            }
            let begun = u32::try_from(end.starts.len()).unwrap();
            hedges_over |= begun > settings.max_hedges;
            let latest = end.starts.last().unwrap().1;
            let due = match after_failures {
                Some(due) => Some(due),
                None if running.is_empty() => None,
                None => settings.delay.map(|delay| latest + delay),
            };
            // With nothing under way, nobody waits for a hedge that cannot be paid.
            hedges_over |= running.is_empty() && tokens == Some(0);
            if hedges_over || due.is_none_or(|due| now < due) {
                if running.is_empty() && (hedges_over || due.is_none()) {
                    return end;
                }
                break;
            }
            if tokens == Some(0) {
                hedges_over = true;
                continue;
            }
            tokens = tokens.map(|tokens| tokens - 1);
            after_failures = None;
            end.starts.push((begun, now));
            running.push((begun, now + part(begun).takes));
        }
    }
    unreachable!("a race ends")
}

fn check(parts: &[Part], settings: Settings) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let expected = simulate(parts, settings);
        let log = Log::new();
        let pipeline = hedged(settings.hedge(), &log);
        let stage = Stage::new(parts);
        let outcome: Outcome<u32, Fault> = pipeline.outcome(|| stage.next()).await;
        assert_eq!(stage.running(), 0, "none runs on");
        assert_eq!(stage.starts(), expected.starts);
        assert_eq!(stage.now(), expected.at);
        assert!(stage.peak() <= usize::try_from(settings.max_hedges).unwrap() + 1);

        let verdict = outcome.verdict();
        let by = match outcome.result {
            Ok(by) | Err(Error::Operation(Fault { by, .. })) => by,
            Err(error) => panic!("no attempt gave {error:?}"),
        };
        let of_part = parts[usize::try_from(by).unwrap().min(parts.len() - 1)].verdict;
        if expected.winners.is_empty() {
            assert_eq!(by, 0);
            let hinted = expected.hint.map_or(of_part, |hint| of_part.retry_after(ms(hint)));
            assert_eq!(verdict, hinted);
        } else {
            assert!(expected.winners.contains(&by), "{by} instead of {:?}", expected.winners);
            assert_eq!(verdict, of_part);
        }
        let attempts = u32::try_from(expected.starts.len()).unwrap();
        assert_eq!(finished(&log), [(attempts, attempts - 1, by)]);
    });
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let kind = prop_oneof![
        3 => Just(Verdict::success()),
        1 => Just(Verdict::failure()),
        1 => Just(Verdict::ignored()),
        5 => Just(Verdict::transient()),
        2 => Just(Verdict::unreached()),
        1 => Just(Verdict::throttled()),
        1 => Just(Verdict::rejected()),
    ];
    (kind, option::of(0..60_u64)).prop_map(|(kind, hint)| hint.map_or(kind, |hint| kind.retry_after(ms(hint))))
}

fn settings() -> impl Strategy<Value = Settings> {
    let delay = prop_oneof![1 => Just(None), 1 => Just(Some(0)), 4 => (1..30_u64).prop_map(Some)];
    (delay, 1..6_u32, option::of(0..4_u32)).prop_map(|(delay, max_hedges, tokens)| Settings {
        delay,
        max_hedges,
        tokens,
    })
}

proptest! {
    #![proptest_config(crate::support::trials::cases(2048))]

    #[test]
    fn a_race_goes_as_the_simulation_says(
        parts in vec((0..60_u64, verdict()).prop_map(|(takes, verdict)| gives(takes, verdict)), 1..7),
        settings in settings(),
    ) {
        check(&parts, settings);
    }
}
