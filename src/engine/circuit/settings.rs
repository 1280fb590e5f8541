//! The numbers a circuit is built with.

use std::time::Duration;

use crate::engine::window::MAX_COUNT_WINDOW;

/// The most probes a half-open phase can have; their leases are kept in a list of this length at most.
pub(crate) const MAX_PROBES: u32 = 1_000;

/// How a circuit decides. The builder one floor up refuses nonsense by name; here it is only made harmless.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Look at the last n calls, 1..=[`MAX_COUNT_WINDOW`].
    pub(crate) count_window: Option<u32>,
    /// Look at the calls of the last stretch of time.
    pub(crate) time_window: Option<Duration>,
    /// Open after n failures in a row whose first and last are at least this far apart.
    pub(crate) consecutive: Option<(u32, Duration)>,
    /// Open when the share of failures is this or more, in (0, 1].
    pub(crate) failure_rate: f64,
    /// Open when the share of slow calls is this or more. If set, a slow success is a failed probe.
    pub(crate) slow_rate: Option<f64>,
    /// Rates mean nothing below this many calls.
    pub(crate) min_calls: u32,
    /// The first break; each reopening multiplies it by `growth` (1 or more), up to `max_open`.
    pub(crate) open_for: Duration,
    pub(crate) growth: f64,
    pub(crate) max_open: Duration,
    /// In [0, 1]: a break is made longer by up to this share, after the cap, and never shorter.
    pub(crate) jitter: f64,
    /// At most this many counted probes in a half-open phase, and at once; 1..=[`MAX_PROBES`].
    pub(crate) probes: u32,
    /// This many successful probes close it, 1..=probes.
    pub(crate) close_after: u32,
    /// How long a probe may be out, until `Circuit::set_lease` says otherwise.
    pub(crate) lease: Duration,
}

impl Settings {
    /// Brings into range what would otherwise make a state impossible to leave.
    pub(super) fn within_limits(mut self) -> Self {
        self.count_window = self.count_window.map(|size| size.clamp(1, MAX_COUNT_WINDOW));
        self.probes = self.probes.clamp(1, MAX_PROBES);
        self.close_after = self.close_after.clamp(1, self.probes);
        self
    }

    /// The length of the break after so many reopenings; `draw` in [0, 1) is the jitter's random number.
    pub(super) fn break_length(&self, reopenings: u32, draw: f64) -> Duration {
        let reopenings = i32::try_from(reopenings).unwrap_or(i32::MAX);
        let grown = scaled(self.open_for, self.growth.powi(reopenings));
        scaled(grown.min(self.max_open), self.jitter.mul_add(draw, 1.0))
    }
}

/// `duration * factor`, [`Duration::MAX`] where that does not fit. A factor up to 1 changes nothing, to the nanosecond.
fn scaled(duration: Duration, factor: f64) -> Duration {
    if factor <= 1.0 || duration.is_zero() {
        return duration;
    }
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}
