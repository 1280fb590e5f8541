//! The load: 200 calls a second on a fixed schedule, whether or not earlier ones have been answered.

use std::time::Duration;

use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, interval_at},
};

use crate::{script, timeline::Timeline};

/// Calls per second.
pub(crate) const RATE: u32 = 200;

/// Who answered a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Service,
    Fallback,
    Nobody,
}

/// One call, as the application saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// When it was due, since the start of the script.
    pub(crate) due: Duration,
    /// From its beginning.
    pub(crate) took: Duration,
    pub(crate) answer: Answer,
}

/// All calls of a run.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) calls: Vec<Call>,
    /// How late the latest call was made: what a busy machine did to the schedule.
    pub(crate) latest: Duration,
}

/// Makes calls for as long as the script runs, and waits for the last answer. The calls are numbered from 0.
pub(crate) async fn drive<F>(timeline: &Timeline, call: impl Fn(u32) -> F) -> Result<Load, JoinError>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let started = timeline.started();
    let pause = Duration::from_secs(1) / RATE;
    let mut schedule = interval_at(started, pause);
    let mut latest = Duration::ZERO;
    let mut running = JoinSet::new();
    for (number, due) in (0..).map(|number| (number, pause * number)).take_while(|(_, due)| *due < script::LENGTH) {
        schedule.tick().await;
        timeline.reached(due);
        latest = latest.max(started.elapsed().saturating_sub(due));
        let answer = call(number);
        let timeline = timeline.clone();
        running.spawn(async move {
            let begun = Instant::now();
            let answer = answer.await;
            timeline.answered(answer);
            Call { due, took: begun.elapsed(), answer }
        });
    }

    let mut calls = Vec::new();
    while let Some(call) = running.join_next().await {
        calls.push(call?);
    }
    timeline.reached(script::LENGTH);
    Ok(Load { calls, latest })
}
