//! What this example promises, checked. A promise that is not kept makes it exit with an error.

use std::time::Duration;

use crate::{
    load::{Answer, RATE},
    report::{Run, as_f64},
    script,
};

/// The numbers of the pipeline that limit what a service in trouble gets to see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The breaker's: its window, the share of failures and the calls at which it opens.
    pub(crate) window: Duration,
    pub(crate) failure_rate: f64,
    pub(crate) min_calls: u32,
    /// Its first break, its longest, and the probes after each.
    pub(crate) open_for: Duration,
    pub(crate) max_open_for: Duration,
    pub(crate) probes: u32,
    /// The attempts that the bulkhead admits at a time.
    pub(crate) in_flight: usize,
    /// The most that the budgets hold.
    pub(crate) retry_budget: u32,
    pub(crate) hedge_budget: u32,
}

/// The most requests that may reach the service during the outage.
struct Bound {
    failures: f64,
    in_flight: f64,
    breaks: u32,
    probes: f64,
    repeats: f64,
}

/// Compares both runs with what is promised, and says in a sentence what was broken.
pub(crate) fn promises(bare: &Run, pipeline: &Run, limits: &Limits) -> Result<(), String> {
    let bound = limits.during_outage(pipeline.load.latest);
    let Bound { failures, in_flight, breaks, probes, repeats } = bound;
    let all = failures + in_flight + probes;
    println!("Requests that may reach the service during the outage, through the pipeline:");
    println!("  {failures:>4.0}  that fail until the circuit opens: then they outweigh the successes in its window");
    println!("  {in_flight:>4.0}  under way at that moment: as many as the bulkhead admits");
    println!("  {probes:>4.0}  probes: {} after each of {breaks} breaks", limits.probes);
    println!("  {all:>4.0}  at most; {repeats:.0} of them retries and hedges, which is what the budgets hold");

    let reached = pipeline.during_outage().count();
    let repeated = pipeline.during_outage().filter(|arrival| arrival.repeated).count();
    println!("{reached} did, {repeated} of them retries and hedges; bare it was {}.", bare.during_outage().count());

    let [with, without] = [pipeline, bare].map(|run| run.calls(Answer::Service).count());
    let broken = if as_f64(reached) > all {
        format!("{reached} requests reached the service during the outage, and at most {all:.0} may")
    } else if as_f64(repeated) > repeats {
        format!("{repeated} retries and hedges reached the service during the outage, and at most {repeats:.0} may")
    } else if with < without {
        format!("the service answered {with} calls through the pipeline and {without} without it")
    } else {
        return Ok(());
    };
    let latest = pipeline.load.latest.max(bare.load.latest);
    if latest > Duration::from_millis(500) {
        return Err(format!(
            "{broken}; but calls were made up to {latest:.1?} late, so this machine was too busy to tell"
        ));
    }
    Err(broken)
}

impl Limits {
    /// Every request of the pipeline passes its breaker, be it a first one, a retry or a hedge, and in the outage each
    /// of them fails. So there are three kinds:
    ///
    /// 1. Until the circuit opens. Its window holds at most `s` successes, from before the outage: the calls of one
    ///    window, plus those that a busy machine made late and all at once (`latest`), plus a tenth for calls that
    ///    began earlier and were retried. With a threshold of `t` it opens at `s * t / (1 - t)` failures, or at
    ///    `min_calls` if that is more.
    /// 2. Those that have not failed yet when it opens: at most as many as the bulkhead admits.
    /// 3. Probes. How often there are some follows from the length of the breaks: each is twice as long as the one
    ///    before, up to the longest.
    ///
    /// The retries and hedges among them come out of two budgets. These hold at most their caps when the outage begins,
    /// and only a success adds to them: those of requests under way at that moment, with less than a token for each.
    fn during_outage(&self, latest: Duration) -> Bound {
        let successes = f64::from(RATE) * (self.window.mul_f64(1.1) + latest).as_secs_f64();
        let failures = successes * self.failure_rate / (1.0 - self.failure_rate);
        let in_flight = as_f64(self.in_flight);
        let breaks = self.breaks(script::outage().length());
        Bound {
            failures: failures.max(f64::from(self.min_calls)),
            in_flight,
            breaks,
            probes: f64::from(self.probes) * f64::from(breaks),
            repeats: f64::from(self.retry_budget) + f64::from(self.hedge_budget) + in_flight,
        }
    }

    /// How many breaks can end within that time.
    fn breaks(&self, time: Duration) -> u32 {
        let mut next = self.open_for;
        let mut end = next;
        let mut breaks = 0;
        while end <= time {
            breaks += 1;
            next = (next * 2).min(self.max_open_for);
            end += next;
        }
        breaks
    }
}
