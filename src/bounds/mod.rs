//! What a stack of layers can cost at worst: attempts, time, and load on a dependency that is down.
//!
//! The layers are folded from the innermost one outward. The fold starts with the operation itself: one attempt, and no
//! limit on its time.

mod arithmetic;
mod worst;

use std::{fmt, time::Duration};

use crate::layer::LayerInfo;
use worst::Worst;

/// A worst case: a number, no limit, or one that a layer keeps to itself.
///
/// ```
/// use std::time::Duration;
/// use withstand::{Bound, Pipeline};
///
/// let plan = Pipeline::builder("users-api").timeout(Duration::from_secs(4)).build()?.explain();
/// assert_eq!(plan.time(), Bound::AtMost(Duration::from_secs(4)));
/// assert_eq!(plan.time().at_most(), Some(Duration::from_secs(4)));
/// assert_eq!(plan.time().to_string(), "4s");
///
/// let plan = Pipeline::builder("users-api").build()?.explain();
/// assert_eq!(plan.time().to_string(), "unbounded");
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bound<T> {
    /// Never more than this.
    AtMost(T),
    /// Nothing limits it.
    Unbounded,
    /// It depends on a policy that does not tell: one of the user's own that does not describe itself.
    Unknown,
}

impl<T> Bound<T> {
    /// The number, if there is one.
    #[must_use]
    pub fn at_most(self) -> Option<T> {
        match self {
            Self::AtMost(most) => Some(most),
            Self::Unbounded | Self::Unknown => None,
        }
    }

    /// Whether nothing limits it.
    #[must_use]
    pub const fn is_unbounded(&self) -> bool {
        matches!(self, Self::Unbounded)
    }
}

impl fmt::Display for Bound<u64> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => most.fmt(f),
            Self::Unbounded => f.pad("unbounded"),
            Self::Unknown => f.pad("unknown"),
        }
    }
}

impl fmt::Display for Bound<Duration> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => fmt::Debug::fmt(most, f),
            Self::Unbounded => f.pad("unbounded"),
            Self::Unknown => f.pad("unknown"),
        }
    }
}

/// How many times the load of first attempts a dependency gets while every attempt fails, and every call still makes
/// as many as it may.
///
/// Budgets are funded by successes, so in a total outage they run dry: then each layer that has one adds nothing, and
/// what they have cost is a fixed number of attempts, however long the outage lasts and however many calls are made.
///
/// ```
/// use withstand::{Bound, Hedge, Pipeline, Retry};
///
/// // Each has a budget of its own: the retry's holds 100 tokens, the hedge's 10.
/// let plan = Pipeline::builder("users-api").retry(Retry::builder()).hedge(Hedge::builder()).build()?.explain();
/// let load = plan.amplification();
/// assert_eq!(load.without_budgets(), Bound::AtMost(6)); // 3 attempts, each hedged once
/// assert_eq!(load.long_run(), Bound::AtMost(1));
/// assert_eq!(load.saved_up(), Bound::AtMost(110));
/// assert_eq!(load.to_string(), "6x without budgets; 1x with them, plus at most 110 attempts saved up");
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amplification {
    without_budgets: Bound<u64>,
    long_run: Bound<u64>,
    saved_up: Bound<u64>,
}

impl Amplification {
    /// Attempts for each call if there were no budgets: the [attempts for one call](crate::Plan::attempts).
    #[must_use]
    pub const fn without_budgets(&self) -> Bound<u64> {
        self.without_budgets
    }

    /// Attempts for each call once the budgets are empty: 1 if all that repeats has a budget.
    #[must_use]
    pub const fn long_run(&self) -> Bound<u64> {
        self.long_run
    }

    /// Attempts over that, in all, while full budgets are used up: a number for the whole outage and not for each call.
    /// A budget that several layers share counts once.
    #[must_use]
    pub const fn saved_up(&self) -> Bound<u64> {
        self.saved_up
    }
}

impl fmt::Display for Amplification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |bound: Bound<u64>| match bound {
            Bound::AtMost(most) => format!("{most}x"),
            none => none.to_string(),
        };
        let (without, with) = (times(self.without_budgets), times(self.long_run));
        match (self.long_run, self.saved_up) {
            (Bound::Unknown, _) => self.long_run.fmt(f),
            (Bound::AtMost(0 | 1), Bound::AtMost(0)) => f.write_str(&with),
            (_, Bound::AtMost(0)) if without == with => write!(f, "{without}; no budget limits it"),
            (_, Bound::AtMost(most)) => {
                write!(f, "{without} without budgets; {with} with them, plus at most {most} attempts saved up")
            }
            (_, unlimited) => {
                write!(f, "{without} without budgets; {with} with them, plus attempts saved up: {unlimited}")
            }
        }
    }
}

/// The worst cases of a stack of layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Attempts for one call.
    pub(crate) attempts: Bound<u64>,
    /// Time for one call.
    pub(crate) time: Bound<Duration>,
    /// The same if no server ever hints when to come back.
    pub(crate) time_without_hints: Bound<Duration>,
    pub(crate) amplification: Amplification,
}

/// The worst cases of these layers, given from the outside in.
pub(crate) fn of(layers: &[LayerInfo]) -> Bounds {
    let mut worst = Worst::of_operation();
    for layer in layers.iter().rev() {
        worst.wrap(&layer.role);
    }
    worst.bounds()
}
