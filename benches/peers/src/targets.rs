//! Where this crate is to stand. A target is met if the lower end of the ratio's interval meets it.

use std::fmt::Write;

use crate::{
    driven::Driven,
    harness::key,
    operation::Operation,
    results::Results,
    rows::{CLOCK, FULL},
    stats::Estimate,
    who::Who,
};

/// A row of this crate against what it may cost at most: so many times the cheapest of these peers' medians, and so many
/// clock reads, and so many nanoseconds.
struct Target {
    row: String,
    /// Where the peers are measured: in the same row, but for what no peer has.
    peers_row: String,
    factor: f64,
    peers: &'static [Who],
    clocks: f64,
    nanos: f64,
}

impl Target {
    fn new(row: String, factor: f64, peers: &'static [Who]) -> Self {
        Self { peers_row: row.clone(), row, factor, peers, clocks: 0.0, nanos: 0.0 }
    }

    fn plus(self, clocks: f64, nanos: f64) -> Self {
        Self { clocks, nanos, ..self }
    }

    fn against(self, peers_row: String) -> Self {
        Self { peers_row, ..self }
    }

    /// This crate's time over what is allowed, within each round; and the allowance in words.
    fn judge(&self, results: &Results) -> (Estimate, String) {
        let ours = results.row(&self.row).nanos(Who::Withstand).expect("this crate is in every row");
        let (row, clock) = (results.row(&self.peers_row), results.row(CLOCK).nanos(Who::Floor).expect("the floor"));
        let best = self.peers.iter().filter(|peer| row.contestant(**peer).is_some());
        let best = best.min_by(|one, other| row.median(**one).unwrap().total_cmp(&row.median(**other).unwrap()));
        let theirs = best.map_or_else(|| vec![0.0; ours.len()], |peer| row.nanos(*peer).unwrap());
        let rounds = ours.iter().zip(theirs).zip(clock);
        let ratios =
            rounds.map(|((ours, theirs), clock)| ours / (self.factor * theirs + self.clocks * clock + self.nanos));
        let mut words = vec![];
        words.extend(best.map(|peer| format!("{:.2} x {}", self.factor, peer.name())));
        words.extend((self.clocks > 0.0).then(|| format!("{} x a clock read", self.clocks)));
        words.extend((self.nanos > 0.0).then(|| format!("{} ns", self.nanos)));
        (Estimate::of(ratios), words.join(" + "))
    }
}

fn all() -> Vec<Target> {
    let ready = |name: &str| key(name, Some(Operation::READY));
    let pending = |name: &str| key(name, Some(Operation::PENDING_ONCE));
    let mut targets = vec![
        Target::new(ready("breaker closed, consecutive failures"), 1.0, &[Who::Failsafe]),
        Target::new(ready("breaker closed, count window"), 1.0, &[Who::Recloser]),
        Target::new(ready("breaker closed, time window"), 0.0, &[]).plus(2.0, 15.0),
        Target::new(key("breaker open", None), 0.0, &[]).plus(1.0, 5.0),
        Target::new(ready("bulkhead free"), 1.0, &[Who::ThrottleNet, Who::Tower]),
        Target::new(key("bulkhead full", None), 1.0, &[Who::ThrottleNet, Who::Tower]),
        Target::new(ready("retry, first try succeeds"), 1.0, &[Who::Backon]),
        Target::new(ready("retry, first try succeeds, no budget"), 1.0, &[Who::Backon]),
        Target::new(ready("timeout"), 0.7, &[Who::Seatbelt]),
        Target::new(ready("hedge, fixed delay"), 1.5, &[Who::ThrottleNet]),
        Target::new(ready("hedge, quantile"), 1.5, &[Who::ThrottleNet])
            .against(ready("hedge, fixed delay"))
            .plus(2.0, 0.0),
        Target::new(ready(FULL), 0.9, &[Who::HandMade]),
        Target::new(ready(FULL), 0.1, &[Who::TowerResilience]),
        Target::new(pending(FULL), 0.75, &[Who::HandMade]),
    ];
    targets
        .extend(Driven::names().map(|name| Target::new(pending(&format!("{FULL}, {name}")), 0.75, &[Who::HandMade])));
    targets
}

/// All targets, and how this run stands to them.
pub fn markdown(results: &Results) -> String {
    let mut text = "| row | withstand, ns | at most | over that | |\n|---|--:|---|--:|---|\n".to_owned();
    for target in all() {
        let (over, allowed) = target.judge(results);
        let ours = results.row(&target.row).median(Who::Withstand).expect("this crate is in every row");
        let verdict = if over.low <= 1.0 { "met" } else { "**missed**" };
        let _ = writeln!(text, "| {} | {ours:.1} | {allowed} | {over} | {verdict} |", target.row);
    }
    text
}
