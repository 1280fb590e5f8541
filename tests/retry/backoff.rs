//! How long it waits.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use withstand::{Backoff, CallOptions, Error, EventKind, Jitter, RetryStop, Verdict};

use super::{delays, pipeline, plain, stops};
use crate::support::{Log, Script, ms, secs};

/// The delays of a call that fails until the end, as they are reported and as they are waited for.
async fn waits(backoff: Backoff, attempts: u32) -> Vec<Duration> {
    let script = Script::always(Err(Verdict::transient()));
    let log = Log::new();
    let answer = pipeline(plain(attempts, ms(0)).backoff(backoff).seed(7), &log).call(|| script.attempt()).await;
    assert!(answer.is_err());
    let reported = delays(&log);
    for (reported, waited) in reported.iter().zip(script.gaps()) {
        // The granularity of a timer is a millisecond.
        assert!((*reported..=*reported + ms(1)).contains(&waited), "waited {waited:?} of {reported:?}");
    }
    reported
}

#[tokio::test(start_paused = true)]
async fn constant_linear_and_exponential_delays_begin_with_their_base() {
    let base = secs(1);
    let exact = |backoff: Backoff| backoff.cap(secs(60)).jitter(Jitter::None);
    assert_eq!(waits(exact(Backoff::constant(base)), 4).await, [secs(1); 3]);
    assert_eq!(waits(exact(Backoff::linear(base)), 4).await, [secs(1), secs(2), secs(3)]);
    assert_eq!(waits(exact(Backoff::exponential(base)), 4).await, [secs(1), secs(2), secs(4)]);
    assert_eq!(waits(exact(Backoff::exponential(base).factor(1.5)), 4).await, [secs(1), ms(1500), ms(2250)]);
}

#[tokio::test(start_paused = true)]
async fn delays_grow_to_the_cap_and_stay_there() {
    let capped = |base, cap| Backoff::exponential(base).cap(cap).jitter(Jitter::None);
    assert_eq!(waits(capped(ms(1), ms(10)), 7).await, [1, 2, 4, 8, 10, 10].map(ms));
    assert_eq!(waits(capped(secs(2), secs(30)), 6).await, [2, 4, 8, 16, 30].map(secs));
    assert_eq!(waits(Backoff::linear(ms(4)).cap(ms(10)).jitter(Jitter::None), 5).await, [4, 8, 10, 10].map(ms));
}

#[tokio::test(start_paused = true)]
async fn a_base_of_zero_is_a_delay_of_zero_with_every_kind_and_jitter() {
    let zero = Duration::ZERO;
    for jitter in [Jitter::None, Jitter::Full, Jitter::Equal] {
        for backoff in [Backoff::constant(zero), Backoff::linear(zero), Backoff::exponential(zero)] {
            assert_eq!(waits(backoff.jitter(jitter), 5).await, [zero; 4]);
        }
    }
    assert_eq!(waits(Backoff::decorrelated(zero), 5).await, [zero; 4]);
}

#[tokio::test(start_paused = true)]
async fn jitter_shortens_a_delay_and_never_lengthens_it() {
    let v = [10, 20, 40, 50, 50, 50].map(ms);
    let exponential = || Backoff::exponential(ms(10)).cap(ms(50));
    let (full, equal) = (waits(exponential(), 7).await, waits(exponential().jitter(Jitter::Equal), 7).await);
    assert!(full.iter().zip(v).all(|(delay, v)| *delay <= v), "{full:?}");
    assert!(equal.iter().zip(v).all(|(delay, v)| (v / 2..=v).contains(delay)), "{equal:?}");
    assert!(full.windows(2).any(|pair| pair[1] < pair[0]), "full jitter is not a growing sequence: {full:?}");
    let decorrelated = waits(Backoff::decorrelated(ms(10)).cap(ms(50)), 7).await;
    assert!(decorrelated.iter().all(|delay| (ms(10)..=ms(50)).contains(delay)), "{decorrelated:?}");
}

#[tokio::test(start_paused = true)]
async fn a_seed_gives_the_same_delays_again_and_another_seed_others() {
    let of_seed = async |seed| {
        let log = Log::new();
        let retry = plain(6, ms(0)).backoff(Backoff::default()).seed(seed);
        let script = Script::always(Err(Verdict::transient()));
        assert!(pipeline(retry, &log).call(|| script.attempt()).await.is_err());
        delays(&log)
    };
    assert_eq!(of_seed(1).await, of_seed(1).await);
    assert_ne!(of_seed(1).await, of_seed(2).await);
}

#[tokio::test(start_paused = true)]
async fn a_backoff_of_ones_own_sees_each_step_and_ends_the_retrying_with_none() {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = steps.clone();
    let backoff = Backoff::custom(move |step| {
        seen.lock().unwrap().push((step.retry(), step.previous(), step.hint()));
        (step.retry() < 3).then(|| ms(100) * step.retry())
    });
    let hinted = Verdict::transient().retry_after(ms(40));
    let script = Script::ready([Err(hinted), Err(Verdict::transient())]);
    let log = Log::new();
    let outcome = pipeline(plain(9, ms(0)).backoff(backoff), &log).outcome(|| script.attempt()).await;
    assert!(outcome.is_spent());
    assert_eq!(outcome.result, Err(Error::Operation(Verdict::transient())));
    assert_eq!((script.attempts(), stops(&log)), (3, vec![RetryStop::Backoff]));
    let steps = steps.lock().unwrap().clone();
    assert_eq!(steps, [(1, None, Some(ms(40))), (2, Some(ms(100)), None), (3, Some(ms(200)), None)]);
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_never_undercut_and_clients_with_the_same_hint_are_spread_over_a_tenth_of_it() {
    let hint = secs(2);
    let mut seen = Vec::new();
    for seed in 0..20 {
        let script = Script::ready([Err(Verdict::throttled().retry_after(hint)), Ok(0)]);
        let log = Log::new();
        assert!(pipeline(plain(2, ms(10)).seed(seed), &log).call(|| script.attempt()).await.is_ok());
        seen.extend(script.gaps());
        assert_eq!(
            log.pick(|kind| match kind {
                EventKind::Retried { next_attempt, hint, clamped, .. } => Some((next_attempt, hint, clamped)),
                _ => None,
            }),
            [(2, Some(hint), false)]
        );
    }
    assert!(seen.iter().all(|gap| (hint..=hint + hint / 10 + ms(1)).contains(gap)), "{seen:?}");
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 10, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hint_shorter_than_the_backoff_does_not_shorten_it() {
    let script = Script::ready([Err(Verdict::transient().retry_after(ms(100))), Ok(0)]);
    let log = Log::new();
    assert!(pipeline(plain(2, secs(1)), &log).call(|| script.attempt()).await.is_ok());
    assert!((secs(1)..=ms(1010)).contains(&delays(&log)[0]), "{:?}", delays(&log));
}

#[tokio::test(start_paused = true)]
async fn a_server_cannot_park_a_client_for_longer_than_max_hint() {
    for (max_hint, longest) in [(None, secs(33)), (Some(secs(3)), ms(3300)), (Some(ms(0)), ms(10))] {
        let script = Script::ready([Err(Verdict::throttled().retry_after(secs(24 * 60 * 60))), Ok(0)]);
        let log = Log::new();
        let retry = plain(2, ms(10));
        let retry = match max_hint {
            Some(max) => retry.max_hint(max),
            None => retry,
        };
        assert!(pipeline(retry, &log).call(|| script.attempt()).await.is_ok());
        assert!(delays(&log)[0] <= longest, "{:?} of at most {longest:?}", delays(&log));
        assert_eq!(log.count(|kind| matches!(kind, EventKind::Retried { clamped: true, .. })), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_not_carried_over_into_the_growth_of_a_decorrelated_backoff() {
    let steps = [Err(Verdict::throttled().retry_after(secs(20))), Err(Verdict::transient()), Ok(0)];
    let script = Script::ready(steps);
    let log = Log::new();
    let backoff = Backoff::decorrelated(ms(10)).cap(secs(20));
    assert!(pipeline(plain(3, ms(0)).backoff(backoff), &log).call(|| script.attempt()).await.is_ok());
    assert!(delays(&log)[1] <= ms(90), "three times the computed delay before it: {:?}", delays(&log));
}

#[tokio::test(start_paused = true)]
async fn endless_zero_delays_leave_room_for_everything_else() {
    let (done, attempts) = (AtomicBool::new(false), AtomicU32::new(0));
    let retry = plain(u32::MAX, Duration::ZERO).build().unwrap();
    let call = retry.call(|| async {
        assert!(attempts.fetch_add(1, Relaxed) < 10_000, "nothing else gets a turn");
        if done.load(Relaxed) { Ok(()) } else { Err("not yet") }
    });
    let mut others = tokio::task::JoinSet::new();
    others.spawn(tokio::task::yield_now());
    let other = async {
        others.join_next().await.unwrap().unwrap();
        done.store(true, Relaxed);
    };
    let (answer, ()) = tokio::join!(call, other);
    assert_eq!(answer, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn endless_zero_delays_still_end_with_the_deadline() {
    let script = Script::always(Err(Verdict::transient()));
    let deadline = Instant::now() + ms(50);
    let retry = plain(u32::MAX, Duration::ZERO).min_time_left(ms(0)).build().unwrap();
    let call = retry.call_with(CallOptions::new().deadline(deadline), |_| {
        assert!(script.attempts() < 10_000, "nothing else gets a turn");
        script.attempt()
    });
    // The clock of the test stands still for as long as a task is ready: another one moves it on.
    let clock = async {
        for _ in 0..50 {
            tokio::task::yield_now().await;
            tokio::time::advance(ms(1)).await;
        }
    };
    let (answer, ()) = tokio::join!(call, clock);
    assert_eq!(answer, Err(Error::Operation(Verdict::transient())), "the last real outcome");
    assert!(script.attempts() > 10);
    assert!(script.starts().iter().all(|start| *start < deadline));
}

#[tokio::test(start_paused = true)]
async fn the_longest_durations_of_all_saturate() {
    let longest = Duration::MAX;
    let far = Instant::now() + secs(30 * 365 * 24 * 60 * 60);
    for backoff in [
        Backoff::constant(longest),
        Backoff::linear(longest),
        Backoff::exponential(longest).factor(f64::MAX).cap(longest),
        Backoff::decorrelated(longest).cap(longest),
        Backoff::custom(move |_| Some(longest)),
    ] {
        let retry = plain(u32::MAX, ms(0)).backoff(backoff).max_hint(longest).max_elapsed(longest).seed(1);
        let script = Script::always(Err(Verdict::throttled().retry_after(longest)));
        let pipeline = pipeline(retry, &Log::new());
        let endless = pipeline.call(|| script.attempt());
        assert!(tokio::time::timeout(secs(1000), endless).await.is_err(), "it waits for ever");
        assert_eq!(script.attempts(), 1);

        let options = CallOptions::new().deadline(far);
        let answer = pipeline.call_with(options, |_| script.attempt()).await;
        assert!(matches!(answer, Err(Error::Operation(_))), "no wait of that length towards a deadline: {answer:?}");
    }
    let (script, log) = (Script::always(Err(Verdict::transient())), Log::new());
    let pipeline = pipeline(plain(3, ms(1)).min_time_left(longest), &log);
    assert!(pipeline.call(|| script.attempt()).await.is_err());
    assert_eq!(script.attempts(), 3, "there is no deadline to be near to");
    assert!(pipeline.call_with(CallOptions::new().deadline(far), |_| script.attempt()).await.is_err());
    assert_eq!((script.attempts(), stops(&log)), (4, vec![RetryStop::Attempts, RetryStop::Deadline]));
}

#[tokio::test(start_paused = true)]
async fn a_backoff_of_ones_own_undercuts_no_hint_and_keeps_to_a_cap_of_its_own() {
    let delay_of = async |backoff: Backoff, verdict: Verdict| {
        let script = Script::ready([Err(verdict), Ok(0)]);
        let log = Log::new();
        assert!(pipeline(plain(2, ms(0)).backoff(backoff), &log).call(|| script.attempt()).await.is_ok());
        delays(&log)[0]
    };
    let own = |delay| Backoff::custom(move |_| Some(delay));
    let hinted = Verdict::throttled().retry_after(secs(2));
    assert!((secs(2)..=ms(2_200)).contains(&delay_of(own(ms(5)), hinted).await));
    assert!((secs(5)..=ms(5_200)).contains(&delay_of(own(secs(5)), hinted).await));
    assert_eq!(delay_of(own(secs(5)), Verdict::transient()).await, secs(5), "no jitter unless asked for");
    assert_eq!(delay_of(own(secs(5)).cap(secs(1)), Verdict::transient()).await, secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_just_max_hint_is_obeyed_and_not_clamped() {
    for (hint, clamped) in [(secs(30), false), (secs(30) + Duration::from_nanos(1), true)] {
        let script = Script::ready([Err(Verdict::throttled().retry_after(hint)), Ok(0)]);
        let log = Log::new();
        assert!(pipeline(plain(2, ms(10)), &log).call(|| script.attempt()).await.is_ok());
        let told = log.pick(|kind| match kind {
            EventKind::Retried { hint, clamped, delay, .. } => Some((hint, clamped, delay >= secs(30))),
            _ => None,
        });
        assert_eq!(told, [(Some(hint), clamped, true)]);
    }
}
