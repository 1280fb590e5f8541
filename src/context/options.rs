//! What a caller says about a call, and what its operation is told about an attempt.

use std::time::Duration;

use tokio::time::Instant;

use crate::{clock::instant_of, engine::moment::Moment};

/// Whether an operation may be carried out more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Idempotency {
    /// It may: repeating it does no harm. The default for closures.
    #[default]
    Safe,
    /// It may not: it is repeated only where it surely was not carried out (`Unreached`, `Throttled`, `Rejected`), and
    /// never hedged.
    Unsafe,
}

impl Idempotency {
    /// The word in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Unsafe => "unsafe",
        }
    }
}

/// How much a call matters. Policies that shed load refuse the lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Work that nobody waits for: prefetching, batch jobs.
    Background,
    /// Ordinary calls.
    #[default]
    Normal,
    /// Calls without which the service is down: health, payment, sign-in.
    Critical,
}

impl Priority {
    /// The word in snake case, as telemetry has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Normal => "normal",
            Self::Critical => "critical",
        }
    }
}

/// What a caller says about one call. See [`Pipeline::call_with`](crate::Pipeline::call_with).
///
/// ```
/// use std::time::Duration;
/// use withstand::{CallOptions, Idempotency, Priority};
///
/// let options = CallOptions::new()
///     .idempotency(Idempotency::Unsafe)
///     .priority(Priority::Critical)
///     .deadline(tokio::time::Instant::now() + Duration::from_millis(300));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    pub(crate) deadline: Option<Instant>,
    pub(crate) idempotency: Idempotency,
    pub(crate) priority: Priority,
    pub(crate) ignores_outer_deadline: bool,
}

impl CallOptions {
    /// No deadline but the one around the call, safe to repeat, of normal priority.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            deadline: None,
            idempotency: Idempotency::Safe,
            priority: Priority::Normal,
            ignores_outer_deadline: false,
        }
    }

    /// The instant after which the answer is of no use. No attempt begins after it, and the call ends at it with
    /// [`Error::Timeout`](crate::Error::Timeout). One in the past calls nothing.
    ///
    /// With the feature `deadlines` a call that is made inside another call's operation, or in a `Deadline::scope`, has the
    /// deadline around it without being told: the nearer one of both counts. A task that is spawned there has not: tell it
    /// the [`Attempt`]'s.
    #[must_use]
    pub const fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Whether the operation may be carried out more than once. Default: [`Idempotency::Safe`].
    #[must_use]
    pub const fn idempotency(mut self, idempotency: Idempotency) -> Self {
        self.idempotency = idempotency;
        self
    }

    /// The call does not end at the [`Deadline`](crate::Deadline) around it, nor is it refused because that has passed. For
    /// what must be done all the same once the time is up: releasing a lock, reporting a failure.
    ///
    /// Dropping is dropping: inside another call's operation it goes when that is dropped. What has to outlive that
    /// belongs into a task of its own.
    #[cfg(feature = "deadlines")]
    #[must_use]
    pub const fn ignoring_outer_deadline(mut self) -> Self {
        self.ignores_outer_deadline = true;
        self
    }

    /// How much the call matters. Default: [`Priority::Normal`].
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

/// What an operation is told about the attempt it makes: owned, so that an `async` block can take it along.
///
/// A client can send [`remaining`](Self::remaining) downstream, or choose another host for each hedge:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use withstand::{CallOptions, Hedge};
///
/// const HOSTS: [&str; 2] = ["users-a", "users-b"];
/// let hedge = Hedge::builder().build()?;
/// let host = hedge
///     .call_with(CallOptions::new(), |attempt| async move {
///         Ok::<_, std::io::Error>(HOSTS[attempt.hedge() as usize % HOSTS.len()])
///     })
///     .await;
/// assert_eq!(host.unwrap(), "users-a");
/// # Ok::<(), withstand::ConfigError>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub(super) number: u32,
    // As narrow as in the context, which leaves room for what follows.
    pub(super) hedge: u16,
    /// How many attempts of the call have begun, this one included: with its hedges, and those of other layers.
    #[cfg(feature = "tonic")]
    pub(super) begun: u16,
    pub(super) deadline: Moment,
}

impl Attempt {
    /// The number of the attempt; the first is 1.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The index of the hedge; the primary is 0.
    #[must_use]
    pub const fn hedge(&self) -> u32 {
        // `u32::from` is not const.
        let [low, high] = self.hedge.to_le_bytes();
        u32::from_le_bytes([low, high, 0, 0])
    }

    /// How many attempts of the call have begun before this one. From 65534 on it says that.
    #[cfg(feature = "tonic")]
    pub(crate) const fn previous(&self) -> u16 {
        self.begun.saturating_sub(1)
    }

    /// The nearest deadline of all that limits this attempt.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        instant_of(self.deadline)
    }

    /// The time until that deadline; zero if it has passed. Reads the clock.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}
