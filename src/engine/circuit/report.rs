//! What a circuit tells: answers and changes, as plain data.

use std::time::Duration;

use crate::engine::moment::{Hint, Moment};

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The break has not ended.
    Open { retry_after: Hint },
    /// All probes are out, or the call may not be one. Zero if a call that may probe would be admitted now.
    HalfOpen { retry_after: Hint },
    /// Held open by hand; nobody knows for how long.
    Isolated,
}

/// Whether a result was taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recorded {
    /// It counts.
    Counted,
    /// The circuit has changed since the call was admitted, or the probe's lease had run out. Nothing was changed.
    Stale,
}

/// The state at a moment, computed from the time: an open circuit whose break has ended is half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Closed,
    Open { retry_after: Duration },
    HalfOpen,
    Isolated,
}

/// Everything there is to see, taken in one piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    /// Grows (wrapping) with every transition that was made, so that an observer can put states in order. The end of
    /// a break is no transition until a call is admitted: look at `open_until`.
    pub(crate) generation: u32,
    /// The end of the current or last break, unless the circuit is closed or isolated.
    pub(crate) open_until: Option<Moment>,
    /// Calls, failures and slow calls in the time window if there is one, else in the count window. Windows are empty
    /// unless the circuit is closed.
    pub(crate) calls: u32,
    pub(crate) failures: u32,
    pub(crate) slow: u32,
    /// Unknown below the minimum number of calls.
    pub(crate) failure_rate: Option<f64>,
    pub(crate) slow_rate: Option<f64>,
    pub(crate) consecutive_failures: u32,
    pub(crate) probes_in_flight: u32,
    pub(crate) probe_successes: u32,
    pub(crate) probe_failures: u32,
    /// How often it has opened again since it was last closed.
    pub(crate) reopenings: u32,
    /// What opened it when it was last closed.
    pub(crate) opening: Option<Opening>,
}

/// What opened a circuit, told for as long as it is not closed again.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Opening {
    /// The threshold that was reached.
    pub trigger: Trigger,
    /// The share of failures in the window then.
    pub failure_rate: f64,
    /// The share of slow calls in the window then.
    pub slow_rate: f64,
    /// The calls in the window then.
    pub calls: u32,
    /// The label of the failure that did it, or of the last one if a success did by filling the window; `slow` if slow
    /// successes did.
    pub label: &'static str,
}

/// Something that happened, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    Opened {
        trigger: Trigger,
        /// Rates and number of the calls that led to it: of the window that tripped, or of the half-open phase,
        /// where a slow success is a failure and no more.
        failure_rate: f64,
        slow_rate: f64,
        calls: u64,
        open_for: Duration,
        reopenings: u32,
        /// The label of the failure that tripped it, or of the last one if a success did; [`SLOW`] or [`LEASE`] where
        /// those did.
        label: &'static str,
    },
    HalfOpened {
        /// From the opening to the call that found the break ended.
        open_for_real: Duration,
    },
    ProbeFinished {
        success: bool,
        /// Successful probes so far, and how many close the circuit.
        successes: u32,
        needed: u32,
    },
    ProbeExpired {
        lease: Duration,
    },
    Closed {
        by: ClosedBy,
        /// Since it was last closed.
        open_time: Duration,
    },
    Isolated {
        handles: u32,
    },
    Released {
        handles: u32,
    },
}

/// The label of an opening caused by a slow success.
pub(crate) const SLOW: &str = "slow";
/// The label of an opening caused by a probe whose lease ran out.
pub(crate) const LEASE: &str = "lease";

/// What opened a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Trigger {
    /// The share of failures in the window.
    FailureRate,
    /// The share of slow calls in the window.
    SlowRate,
    /// So many failures in a row.
    Consecutive,
    /// A probe that failed.
    Probe,
    /// A probe that did not end within its lease.
    Lease,
}

impl Trigger {
    /// The trigger in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::Consecutive => "consecutive",
            Self::Probe => "probe",
            Self::Lease => "lease",
        }
    }
}

/// What closed a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ClosedBy {
    /// Enough probes succeeded.
    Probes,
    /// It was reset by hand.
    Reset,
    /// The last handle that isolated it was released.
    Release,
}

impl ClosedBy {
    /// The cause in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probes => "probes",
            Self::Reset => "reset",
            Self::Release => "release",
        }
    }
}
