//! The script: what goes wrong with the service, when, and for which of its replicas.
//!
//! Nothing in it is left to the clock or to chance: who fails is drawn from the id of the call, so both runs meet the
//! same faults. It packs a bad day into ten seconds; every time in this example is some ten times shorter than in life.

use std::time::Duration;

/// The replicas of the service, each on a socket of its own.
pub(crate) const REPLICAS: u32 = 10;

/// How long the script runs.
pub(crate) const LENGTH: Duration = Duration::from_secs(10);

/// A time in which something is wrong.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) label: &'static str,
    pub(crate) announcement: &'static str,
    trouble: Trouble,
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Slow,
    Errors,
    Throttling,
    Hang,
    Outage,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It is answered, after the time it takes.
    Answered(Duration),
    /// 503 Service Unavailable.
    Unavailable,
    /// 429 Too Many Requests, with a `Retry-After` of so many seconds.
    TooMany(u64),
    /// Its connection stays open and no answer ever comes.
    Hangs,
}

// They begin and end when a call is due, so that the timeline can announce them.
const PHASES: [Phase; 5] = [
    Phase {
        from: Duration::from_millis(500),
        until: Duration::from_millis(1300),
        label: "slow",
        announcement: "replicas 3 and 4 take 400 ms",
        trouble: Trouble::Slow,
    },
    Phase {
        from: Duration::from_millis(1400),
        until: Duration::from_millis(3700),
        label: "503s",
        announcement: "30 % of the requests are answered 503",
        trouble: Trouble::Errors,
    },
    Phase {
        from: Duration::from_millis(3800),
        until: Duration::from_millis(4100),
        label: "429",
        announcement: "replica 5 answers 429, Retry-After: 1",
        trouble: Trouble::Throttling,
    },
    Phase {
        from: Duration::from_millis(4200),
        until: Duration::from_millis(5200),
        label: "hang",
        announcement: "replicas 7 and 8 accept requests and never answer",
        trouble: Trouble::Hang,
    },
    Phase {
        from: Duration::from_millis(5400),
        until: Duration::from_millis(8400),
        label: "outage",
        announcement: "OUTAGE: no replica answers anything",
        trouble: Trouble::Outage,
    },
];

/// The phases in order. There is calm before, between and after them.
pub(crate) const fn phases() -> &'static [Phase] {
    &PHASES
}

/// The last phase.
pub(crate) const fn outage() -> &'static Phase {
    let [.., outage] = &PHASES;
    outage
}

impl Phase {
    /// How long it lasts.
    pub(crate) fn length(&self) -> Duration {
        self.until.saturating_sub(self.from)
    }

    /// Whether it is on at that time.
    pub(crate) fn contains(&self, at: Duration) -> bool {
        (self.from..self.until).contains(&at)
    }
}

/// What becomes of a request for that user that reaches that replica at that time.
pub(crate) fn fate(at: Duration, replica: u32, id: u32) -> Fate {
    let dice = dice(u64::from(id) * u64::from(REPLICAS) + u64::from(replica));
    let usual = Fate::Answered(Duration::from_micros(5_000 + dice % 5_000));
    let trouble = PHASES.iter().find(|phase| phase.contains(at)).map(|phase| phase.trouble);
    match (trouble, replica) {
        (Some(Trouble::Slow), 3 | 4) => Fate::Answered(Duration::from_millis(400)),
        (Some(Trouble::Errors), _) if dice % 100 < 30 => Fate::Unavailable,
        (Some(Trouble::Throttling), 5) => Fate::TooMany(1),
        (Some(Trouble::Hang), 7 | 8) | (Some(Trouble::Outage), _) => Fate::Hangs,
        _ => usual,
    }
}

/// A number that looks random and is the same in every run (`SplitMix64`).
fn dice(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
