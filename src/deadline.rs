//! The deadline of a part of a task, which calls made there see without being told.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::{
    ambient::{Ambient, Within},
    clock::{self, instant_of, moment_of},
    timeout_header,
};

/// The instant after which an answer is of no use, for all that a part of a task does.
///
/// A call that is made inside another call's operation sees the nearest deadline around it, and nobody passes it on: its
/// timeouts end there, no attempt, retry or hedge begins after it, and no wait in a queue outlasts it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), withstand::ConfigError> {
/// use std::time::Duration;
/// use withstand::{Deadline, Pipeline};
///
/// let orders = Pipeline::builder("orders").timeout(Duration::from_secs(1)).build()?;
/// let users = Pipeline::builder("users").timeout(Duration::from_secs(4)).build()?;
/// let left = orders
///     .call(|| async {
///         // Not four seconds: one of `orders` limits it as well.
///         users.call(|| async { Ok::<_, String>(Deadline::current().map(Deadline::remaining)) }).await
///     })
///     .await;
/// assert_eq!(left, Ok(Some(Duration::from_secs(1))));
/// # Ok(())
/// # }
/// ```
///
/// Where there is no call around, such as in the handler of a server, [`scope`](Self::scope) sets one. With the feature
/// `axum`, `DeadlineLayer` does so for each request.
///
/// # What sees it
///
/// | what is polled in the operation or the scope | sees it |
/// |---|---|
/// | a call, at whatever depth, alone or under `join!`, `select!`, `FuturesUnordered` | yes |
/// | a hedge, and a fallback's future | its own: that of the attempt, that of the fallback |
/// | a call beside it in the same task | no |
/// | a task that is spawned there | no: take [`current`](Self::current) along, or the [`Attempt`](crate::Attempt)'s |
/// | a call with [`ignoring_outer_deadline`](crate::CallOptions::ignoring_outer_deadline) | no |
///
/// A call takes it when it is first polled. Where it is polled later makes no difference.
///
/// # How a call ends at it
///
/// At a deadline of a call around it, it is that call which ends both and reports the timeout, as with any nested
/// deadlines. A call that gives up sooner because the time would not suffice says so: a retry by its last real outcome, a
/// call that begins too late by an [`Error::Timeout`](crate::Error::Timeout) of the scope
/// [`Deadline`](crate::Scope::Deadline). At the deadline of a mere [`scope`](Self::scope) each call in it ends itself with
/// such an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// At this instant. One in the past has passed.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// So long from now. Reads the clock. What is further away than thirty years is taken for that.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(time.min(FARTHEST)).unwrap_or(now))
    }

    /// The nearest one around what is being polled right now; none outside of operations and scopes. A timeout whose time
    /// has not begun is taken to begin now.
    #[must_use]
    pub fn current() -> Option<Self> {
        instant_of(Ambient::current().nearest(clock::now)).map(Self)
    }

    /// The instant.
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// The time until then; zero if it has passed. Reads the clock.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Runs a future so that all calls in it see this deadline, or a nearer one around it.
    ///
    /// By itself it ends nothing but those calls: what else the future does goes on. To end that as well, put
    /// [`tokio::time::timeout_at`] around it. Dropping it drops the future.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), withstand::ConfigError> {
    /// use std::{future::pending, time::Duration};
    /// use withstand::{Deadline, Retry};
    ///
    /// // Without a timeout of its own it would take for ever.
    /// let retry = Retry::builder().build()?;
    /// let handler = async { retry.call(|| pending::<Result<(), String>>()).await };
    /// let error = Deadline::after(Duration::from_millis(300)).scope(handler).await.unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok(())
    /// # }
    /// ```
    pub fn scope<F: Future>(self, future: F) -> DeadlineScope<F> {
        DeadlineScope { within: Within { ambient: Ambient::mere_deadline(moment_of(self.0)), future } }
    }

    /// The time that is left, in whole milliseconds: for a header that tells a server. Never more than there is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// use std::time::Duration;
    /// use withstand::Deadline;
    ///
    /// let deadline = Deadline::after(Duration::from_millis(250));
    /// // request.header("x-request-timeout-ms", deadline.remaining_millis())
    /// assert_eq!(deadline.remaining_millis(), 250);
    /// // request.header("grpc-timeout", deadline.grpc_timeout())
    /// assert_eq!(deadline.grpc_timeout(), "250m");
    /// # }
    /// ```
    #[must_use]
    pub fn remaining_millis(self) -> u64 {
        u64::try_from(self.remaining().as_millis()).unwrap_or(u64::MAX)
    }

    /// The time that is left as the header `grpc-timeout` has it: at most eight digits and a unit. Never more than there
    /// is. Allocates.
    #[must_use]
    pub fn grpc_timeout(self) -> String {
        timeout_header::grpc_timeout(self.remaining())
    }

    /// Reads a time from the value of a header: whole milliseconds (`250`), or a number and a unit as in `grpc-timeout`
    /// (`250m`; hours `H`, minutes `M`, seconds `S`, milliseconds `m`, microseconds `u`, nanoseconds `n`).
    ///
    /// A negative time is zero: it has passed before it was sent. A number that is too large is the largest. What is none
    /// of this is none: empty, with a fraction, with another unit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use withstand::Deadline;
    ///
    /// assert_eq!(Deadline::parse_timeout("250"), Some(Duration::from_millis(250)));
    /// assert_eq!(Deadline::parse_timeout("2S"), Some(Duration::from_secs(2)));
    /// assert_eq!(Deadline::parse_timeout("-5"), Some(Duration::ZERO));
    /// assert_eq!(Deadline::parse_timeout("soon"), None);
    /// ```
    #[must_use]
    pub fn parse_timeout(value: &str) -> Option<Duration> {
        timeout_header::parse(value)
    }
}

/// Beyond this no deadline makes sense, and the arithmetic of some platforms ends.
const FARTHEST: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);

pin_project! {
    /// A future in which calls see a deadline: see [`Deadline::scope`].
    #[must_use = "a future does nothing unless it is polled"]
    pub struct DeadlineScope<F> {
        #[pin]
        within: Within<F>,
    }
}

impl<F: Future> Future for DeadlineScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<F::Output> {
        self.project().within.poll(task)
    }
}

impl<F> fmt::Debug for DeadlineScope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deadline = instant_of(self.within.ambient.nearest(clock::now));
        f.debug_struct("DeadlineScope").field("deadline", &deadline).finish_non_exhaustive()
    }
}
