//! The numbers of a run, and the table that puts two runs side by side.

use std::time::Duration;

use crate::{
    load::{Answer, Call, Load},
    script,
    service::Arrival,
    timeline::Circuit,
};

/// All that is known of a run when it is over.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) circuit: Vec<(Duration, Circuit)>,
}

impl Run {
    /// The calls that were answered so.
    pub(crate) fn calls(&self, answer: Answer) -> impl Iterator<Item = &Call> {
        self.load.calls.iter().filter(move |call| call.answer == answer)
    }

    /// The latency that the share `q` of the calls that were answered so does not exceed.
    pub(crate) fn latency(&self, answer: Answer, q: f64) -> Option<Duration> {
        let mut took: Vec<_> = self.calls(answer).map(|call| call.took).collect();
        took.sort_unstable();
        let last = took.len().checked_sub(1)?;
        let at_least = |rank: &usize| as_f64(rank + 1) >= q * as_f64(took.len());
        took.get((0..last).find(at_least).unwrap_or(last)).copied()
    }

    /// The requests that reached the service during the outage.
    pub(crate) fn during_outage(&self) -> impl Iterator<Item = &Arrival> {
        self.arrivals.iter().filter(|arrival| script::outage().contains(arrival.at))
    }
}

/// Exact up to 4 billion, which is more calls than this example makes.
pub(crate) fn as_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Prints both runs side by side.
pub(crate) fn print(runs: [&Run; 2]) {
    row("", runs.map(|run| run.name.to_owned()));
    row("calls", runs.map(|run| run.load.calls.len().to_string()));
    for (title, answer) in [
        ("answered by the service", Answer::Service),
        ("answered by the fallback", Answer::Fallback),
        ("failed", Answer::Nobody),
    ] {
        row(title, runs.map(|run| share(run.calls(answer).count(), run.load.calls.len())));
        for (title, q) in [("    p50", 0.5), ("    p99", 0.99), ("    p99.9", 0.999)] {
            row(title, runs.map(|run| run.latency(answer, q).map_or("-".to_owned(), human)));
        }
    }
    row("attempts that reached the service", runs.map(|run| run.arrivals.len().to_string()));
    row("    of them during the outage", runs.map(|run| run.during_outage().count().to_string()));
    println!("(The pipeline's slowest answers are those that waited the second which a 429 had asked for.)");
}

fn row(title: &str, [bare, pipeline]: [String; 2]) {
    println!("{title:<36}{bare:>16}{pipeline:>16}");
}

fn share(part: usize, whole: usize) -> String {
    format!("{part} ({:.1} %)", 100.0 * as_f64(part) / as_f64(whole))
}

/// Three digits and the unit that fits.
pub(crate) fn human(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        1.0.. => format!("{seconds:.2} s"),
        0.1.. => format!("{:.0} ms", seconds * 1e3),
        0.001.. => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}
