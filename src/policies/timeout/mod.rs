//! Timeout: ends what takes too long.

#[cfg(feature = "serde")]
mod config;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

#[cfg(feature = "serde")]
use crate::{amendment::Amendment, config::LayerConfig};
use crate::{
    build::{FOREVER, IntoLayer},
    call::standalone_guard,
    context::{Context, Frame},
    engine::tuned::Tuned,
    error::ConfigError,
    event::{Kind, PolicyId},
    layer::{LayerInfo, Live, Role},
    name::Name,
    outcome::Outcome,
    policy::{Describe, Operation, Policy},
    timed::{Late, Timed},
};

/// Ends what takes too long: the whole call, or one attempt.
///
/// **When to use it.** Around every call that leaves the process, and twice: the outermost layer limits the whole call,
/// the innermost one each attempt. **When not.** Around work that must not be stopped half way: dropping is how it is
/// stopped.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// use std::time::Duration;
/// use withstand::{Error, Timeout};
///
/// let timeout = Timeout::new(Duration::from_millis(50))?;
/// let error = timeout.call(|| std::future::pending::<Result<(), std::io::Error>>()).await.unwrap_err();
/// assert!(error.is_timeout());
/// assert_eq!(
///     error.to_string(),
///     "timed out: the total limit of 50ms passed during an attempt (1 attempt made)",
/// );
/// # Ok::<(), withstand::ConfigError>(()) }).unwrap();
/// ```
///
/// # What it limits
///
/// Its place tells: inside a [`Retry`](crate::Retry) or a [`Hedge`](crate::Hedge) it limits each attempt, outside of
/// them all attempts with the waits between them. [`TimedOut::scope`](crate::TimedOut::scope) says which it was, and
/// [`TimedOut::phase`](crate::TimedOut::phase) what the call was doing.
///
/// Its time begins when the operation is first pending, or sooner if anyone asks for the deadline: what a call does
/// without waiting is the work of this process, not of the dependency. It begins for all timeouts around an operation
/// at the same moment.
///
/// It publishes its deadline inward: everything inside sees the nearest one in the [`Context`] and in the
/// [`Attempt`](crate::Attempt), no attempt begins after it, and a retry does not sleep towards it. Of equal nested
/// deadlines the outer one is reported. With the feature `deadlines` so does every call that the operation makes, without
/// being told: see `Deadline`.
///
/// # Options
///
/// | option | default | why |
/// |---|---|---|
/// | limit | none, required | there is no safe guess |
/// | [`name`](TimeoutBuilder::name) | `timeout`; a second one in a pipeline is `timeout-2` | |
///
/// A limit of zero, or one beyond thirty years, is refused: leave the layer out instead.
///
/// # The outcome of a timeout
///
/// [`Transient`](crate::Verdict::Transient), so that a retry repeats it and a circuit breaker counts it. If no attempt
/// inside had reached the operation it is [`Rejected`](crate::Verdict::Rejected): the dependency was not called.
///
/// The operation is always polled before the timer. A timer that fires more than 100 ms late means that this process
/// stood still: the tasks that deliver what has arrived meanwhile get one turn, the operation is polled once more, and
/// if it must time out all the same no circuit breaker counts that.
///
/// # Cancellation
///
/// When the time is up the operation is dropped, at its current await point, before anything else happens. Dropping the
/// call drops the timer.
///
/// # Cost
///
/// A timer is made, and the clock read, when the operation is first pending. One that is ready at once costs neither.
/// All that waits within a call has one timer between them: timeouts, the pause of a retry, the delay of a hedge, the
/// wait in a queue. Only what is polled apart from the rest, such as a hedge, has timers of its own.
///
/// # Events
///
/// `TimedOut`, and `RuntimeStalled` (at most once a second in the process).
///
/// # Order among layers
///
/// Outermost for the whole call, innermost for the attempt: inside the circuit breaker, so that it sees a timeout as the
/// failure that it is. [`Pipeline::build`](crate::PipelineBuilder::build) refuses an attempt timeout that is not shorter
/// than the total one.
pub struct Timeout {
    shared: Arc<Shared>,
}

/// What a handle on the pipeline sees as well.
struct Shared {
    id: PolicyId,
    limit: Tuned<Duration>,
}

impl Timeout {
    /// A timeout of this length.
    ///
    /// # Errors
    ///
    /// If the limit is zero or longer than thirty years.
    pub fn new(limit: Duration) -> Result<Self, ConfigError> {
        Self::builder(limit).build()
    }

    /// A timeout of this length, to be given a name.
    pub fn builder(limit: Duration) -> TimeoutBuilder {
        TimeoutBuilder { name: None, limit }
    }

    fn of(id: PolicyId, limit: Duration) -> Self {
        Self { shared: Arc::new(Shared { id, limit: Tuned::new(limit) }) }
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.shared.limit.get()
    }
}

impl Live for Shared {
    fn info(&self) -> LayerInfo {
        let limit = self.limit.get();
        LayerInfo::new(self.id.clone(), Role::Timeout { limit }).setting("limit", format_args!("{limit:?}"))
    }

    #[cfg(feature = "serde")]
    fn amend(self: Arc<Self>, config: &LayerConfig) -> Result<Amendment, ConfigError> {
        match config {
            LayerConfig::Timeout(config) => self.amended(config),
            other => Err(other.misplaced(self.id.kind())),
        }
    }
}

/// Another timeout of the same name and limit: what changes one of them does not change the other.
impl Clone for Timeout {
    fn clone(&self) -> Self {
        Self::of(self.shared.id.clone(), self.limit())
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("id", &self.shared.id).field("limit", &self.shared.limit).finish()
    }
}

standalone_guard!([] Timeout);

/// Builds a [`Timeout`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TimeoutBuilder {
    name: Option<Name>,
    limit: Duration,
}

impl TimeoutBuilder {
    /// The name in events. Default: `timeout`.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If the limit is zero or longer than thirty years, or the name is blank.
    pub fn build(self) -> Result<Timeout, ConfigError> {
        IntoLayer::<Timeout>::into_layer(self, Kind::Timeout.into())
    }
}

impl IntoLayer<Timeout> for TimeoutBuilder {
    type Layer = Timeout;

    fn into_layer(self, default_name: Name) -> Result<Timeout, ConfigError> {
        let id = PolicyId::new(Kind::Timeout, self.name, default_name)?;
        if self.limit.is_zero() || self.limit > FOREVER {
            let value = format!("{:?}", self.limit);
            let accepted = "more than 0s and at most 30 years; leave the layer out for no timeout";
            return Err(ConfigError::new("limit", value, accepted).in_policy(&id.name));
        }
        Ok(Timeout::of(id, self.limit))
    }
}

impl IntoLayer<Timeout> for Duration {
    type Layer = Timeout;

    fn into_layer(self, default_name: Name) -> Result<Timeout, ConfigError> {
        IntoLayer::<Timeout>::into_layer(Timeout::builder(self), default_name)
    }
}

impl Describe for Timeout {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.push(self.shared.info().live(self.shared.clone()));
    }
}

impl<T: Send, E: Send> Policy<T, E> for Timeout {
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        async move {
            let frame = Frame::with_limit_once_pending(cx, self.shared.limit.word());
            let timed = Timed::new(cx, &frame, op.attempt(cx.within(&frame)));
            Limited { timed, notice: Notice { frame: &frame, id: &self.shared.id, late: None } }.await
        }
    }
}

pin_project! {
    /// The attempt inside, or what is to be said when its time is up.
    struct Limited<'a, F> {
        #[pin]
        timed: Timed<'a, F, &'a Frame<'a>>,
        notice: Notice<'a>,
    }
}

impl<T, E, F: Future<Output = Outcome<T, E>>> Future for Limited<'_, F> {
    type Output = Outcome<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Outcome<T, E>> {
        let this = self.project();
        match this.timed.poll(task) {
            Poll::Ready(Ok(outcome)) => Poll::Ready(outcome),
            Poll::Ready(Err(late)) => {
                this.notice.late = Some(late);
                Poll::Ready(late.as_outcome(this.notice.frame))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Tells that the time was up as soon as what took too long is gone: it is dropped after that.
struct Notice<'a> {
    frame: &'a Frame<'a>,
    id: &'a PolicyId,
    late: Option<Late>,
}

impl Drop for Notice<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(late) = self.late {
            late.announce(Context::new(self.frame), self.frame, Some(self.id));
        }
    }
}
