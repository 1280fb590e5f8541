//! What a call can end with when it does not succeed, and what a builder says of nonsense.

use std::{borrow::Cow, convert::Infallible, error::Error as StdError, fmt, time::Duration};

use crate::{
    engine::{moment::Hint, refused::Refused},
    name::Name,
};

/// Why a call did not succeed: one flat type, however many layers and pipelines it went through.
///
/// ```
/// use withstand::Error;
///
/// fn answer(error: Error<std::io::Error>) -> u16 {
///     match error {
///         Error::Operation(_) => 502,                  // the dependency's own error, untouched
///         Error::Timeout(timed_out) => {
///             eprintln!("{timed_out}");                // limit, scope, phase
///             504
///         }
///         Error::Rejected(rejection) => {              // never reached the dependency
///             eprintln!("{rejection}");                // which policy, why, when to come back
///             503
///         }
///         _ => 500,
///     }
/// }
/// ```
///
/// `{}` prints one line without the source, as error reporters expect; `{:#}` prints the operation's error too.
///
/// It is a [`std::error::Error`] if `E` is one. [`split`](Self::split) turns it into an error of your own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<E> {
    /// The operation's own error, untouched. It is the [`source`](StdError::source) of the whole.
    Operation(E),
    /// A timeout or a deadline ended the call.
    Timeout(TimedOut),
    /// A policy refused the call; what was refused did not reach the dependency.
    Rejected(Rejection),
}

impl<E> Error<E> {
    /// The operation's own error, if it is one.
    #[must_use]
    pub fn operation(&self) -> Option<&E> {
        match self {
            Self::Operation(error) => Some(error),
            _ => None,
        }
    }

    /// The operation's own error by value, if it is one.
    #[must_use]
    pub fn into_operation(self) -> Option<E> {
        match self {
            Self::Operation(error) => Some(error),
            _ => None,
        }
    }

    /// The timeout, if it is one.
    #[must_use]
    pub fn timed_out(&self) -> Option<&TimedOut> {
        match self {
            Self::Timeout(timed_out) => Some(timed_out),
            _ => None,
        }
    }

    /// The rejection, if it is one.
    #[must_use]
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }

    /// Whether it is the operation's own error.
    #[must_use]
    pub fn is_operation(&self) -> bool {
        matches!(self, Self::Operation(_))
    }

    /// Whether it is a timeout.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    /// Whether it is a rejection: refused in this process, without calling the dependency.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// When to come back, where the policy that refused knows it.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.rejection().and_then(Rejection::retry_after)
    }

    /// The operation's own error, or else what the pipeline says in its place, which then needs no `E`.
    ///
    /// It folds this type into one of yours, or into one that is no [`std::error::Error`] itself (`anyhow::Error`,
    /// `Box<dyn Error>`) and from which `?` therefore cannot take it:
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use withstand::Error;
    ///
    /// #[derive(Debug)]
    /// enum ApiError {
    ///     Status(u16),
    ///     /// Timed out or rejected: there is no answer.
    ///     Unavailable(Error<Infallible>),
    /// }
    ///
    /// // `Ok(users.call(|| client.get(id)).await?)` in a function that gives `Result<User, ApiError>`.
    /// impl From<Error<ApiError>> for ApiError {
    ///     fn from(error: Error<ApiError>) -> Self {
    ///         error.split().unwrap_or_else(Self::Unavailable)
    ///     }
    /// }
    ///
    /// type Boxed = Box<dyn std::error::Error + Send + Sync>;
    /// fn boxed(error: Error<Boxed>) -> Boxed {
    ///     error.split().unwrap_or_else(Boxed::from) // the same with `anyhow::Error::from`
    /// }
    /// assert_eq!(boxed(Error::Operation("no route".into())).to_string(), "no route");
    /// ```
    ///
    /// # Errors
    ///
    /// A timeout or a rejection.
    pub fn split(self) -> Result<E, Error<Infallible>> {
        match self {
            Self::Operation(error) => Ok(error),
            Self::Timeout(timed_out) => Err(Error::Timeout(timed_out)),
            Self::Rejected(rejection) => Err(Error::Rejected(rejection)),
        }
    }

    /// Any error in a box: the operation's own, or what the pipeline says in its place, as an `Error<Infallible>`.
    ///
    /// For those who go on with boxes, such as layers of tower, and for operations whose error is one: then this type is
    /// no [`std::error::Error`], and `?` cannot box it.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use withstand::{Error, Reason, Rejection};
    ///
    /// type Boxed = Box<dyn std::error::Error + Send + Sync>;
    /// let own = Error::Operation(Boxed::from("no route")).boxed();
    /// assert_eq!(own.to_string(), "no route");
    ///
    /// let refused = Error::<Boxed>::from(Rejection::new("breaker", Reason::CircuitOpen)).boxed();
    /// assert!(refused.downcast_ref::<Error<Infallible>>().is_some_and(Error::is_rejected));
    /// ```
    #[must_use]
    pub fn boxed(self) -> Box<dyn StdError + Send + Sync>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.split().map_or_else(Into::into, Into::into)
    }

    /// The same error with the operation's own error mapped.
    pub fn map<F>(self, op: impl FnOnce(E) -> F) -> Error<F> {
        match self {
            Self::Operation(error) => Error::Operation(op(error)),
            Self::Timeout(timed_out) => Error::Timeout(timed_out),
            Self::Rejected(rejection) => Error::Rejected(rejection),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation(error) if f.alternate() => write!(f, "the operation failed: {error:#}"),
            Self::Operation(_) => f.write_str("the operation failed"),
            Self::Timeout(timed_out) => timed_out.fmt(f),
            Self::Rejected(rejection) => rejection.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Operation(error) => Some(error),
            Self::Timeout(_) | Self::Rejected(_) => None,
        }
    }
}

impl<E> From<TimedOut> for Error<E> {
    fn from(timed_out: TimedOut) -> Self {
        Self::Timeout(timed_out)
    }
}

impl<E> From<Rejection> for Error<E> {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// A timeout or a deadline that ended a call: which, and what the call was doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedOut {
    pub(crate) limit: Duration,
    pub(crate) scope: Scope,
    pub(crate) phase: Phase,
    pub(crate) attempts: u32,
}

impl StdError for TimedOut {}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, scope, phase, attempts } = self;
        write!(f, "timed out: the {scope} limit of {limit:?} passed during {phase}{}", Made(*scope, *attempts))
    }
}

struct Made(Scope, u32);

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What one attempt's own limit has seen is one attempt, however many there were before.
            Self(Scope::Attempt, _) => Ok(()),
            Self(_, 0) => f.write_str(" (no attempt made)"),
            Self(_, 1) => f.write_str(" (1 attempt made)"),
            Self(_, n) => write!(f, " ({n} attempts made)"),
        }
    }
}

impl TimedOut {
    /// How long it was allowed to take. For a deadline given by the caller: the time that was left when the call began.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// What was limited: the whole call, one attempt, or the caller's own deadline.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// What the call was doing when the time was up.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// How many attempts had reached the operation within this limit: for that of the whole call or of the caller's
    /// deadline all that were made, for that of one attempt at most the one that it ended, whichever it was.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// What a timeout limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// The whole call: a timeout that is inside no retry and no hedge.
    Total,
    /// One attempt: a timeout inside a retry or a hedge.
    Attempt,
    /// The caller's own deadline, from [`CallOptions::deadline`](crate::CallOptions::deadline), or that of what the call
    /// was made in: an operation of another call, a `Deadline::scope` (feature `deadlines`).
    Deadline,
}

impl Scope {
    /// The word in lower case: `"total"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Attempt => "attempt",
            Self::Deadline => "deadline",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a call was doing when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing yet: the deadline had passed at entry, or a policy of the user's own held the call.
    Entry,
    /// Waiting in a queue.
    Queue,
    /// Waiting between two attempts.
    Backoff,
    /// The operation was running.
    Attempt,
    /// An asynchronous fallback was running.
    Fallback,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Entry, Self::Queue, Self::Backoff, Self::Attempt, Self::Fallback];

    /// The phase as a number that fits an atomic.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Entry => 0,
            Self::Queue => 1,
            Self::Backoff => 2,
            Self::Attempt => 3,
            Self::Fallback => 4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|phase| phase.code() == code).unwrap_or(Self::Entry)
    }

    /// The word in lower case: `"queue"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Queue => "queue",
            Self::Backoff => "backoff",
            Self::Attempt => "attempt",
            Self::Fallback => "fallback",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "entry",
            Self::Queue => "the wait in a queue",
            Self::Backoff => "the backoff between attempts",
            Self::Attempt => "an attempt",
            Self::Fallback => "the fallback",
        })
    }
}

/// A refusal: which policy, why, and when to come back.
///
/// Policies that are given no name go by their kind, the same in all pipelines: log the pipeline's
/// [`name`](crate::Pipeline::name) beside the error, or name the policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    policy: Name,
    reason: Reason,
    retry_after: Hint,
}

impl Rejection {
    /// A refusal by the policy of that name. For policies of one's own; ours make theirs.
    #[must_use]
    #[inline(always)]
    pub fn new(policy: impl Into<Name>, reason: Reason) -> Self {
        Self { policy: policy.into(), reason, retry_after: Hint::NONE }
    }

    /// The same refusal with a time after which to come back.
    #[must_use]
    #[inline(always)]
    pub fn with_retry_after(self, after: impl Into<Option<Duration>>) -> Self {
        self.with_hint(after.into().into())
    }

    #[inline(always)]
    pub(crate) fn with_hint(mut self, hint: Hint) -> Self {
        self.retry_after = hint;
        self
    }

    /// The name of the policy that refused.
    #[must_use]
    pub fn policy(&self) -> &Name {
        &self.policy
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// When to come back, where it is known.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after.get()
    }

    pub(crate) const fn hint(&self) -> Hint {
        self.retry_after
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected by {}: {}", self.policy, self.reason)?;
        match self.retry_after() {
            Some(after) => write!(f, ", retry after {after:?}"),
            None => Ok(()),
        }
    }
}

impl StdError for Rejection {}

/// Why a policy refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The circuit is open: the dependency failed too often of late.
    CircuitOpen,
    /// The circuit is half-open and its probes are all taken; or this was a hedge, which is never a probe.
    CircuitHalfOpen,
    /// An operator holds the circuit open.
    Isolated,
    /// No permit is free, and no place in the queue.
    BulkheadFull,
    /// A place in the queue, but no permit within the longest wait.
    QueueTimeout,
    /// A rate limit is used up.
    RateLimited,
    /// Shed to protect this process from overload.
    Shed,
    /// What can be attempted only once, such as a single future, was asked for a second attempt.
    AlreadyAttempted,
    /// A reason of a user's own policy.
    Custom(&'static str),
}

impl Reason {
    /// The reason in snake case, as telemetry has it: `"circuit_open"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit_open",
            Self::CircuitHalfOpen => "circuit_half_open",
            Self::Isolated => "isolated",
            Self::BulkheadFull => "bulkhead_full",
            Self::QueueTimeout => "queue_timeout",
            Self::RateLimited => "rate_limited",
            Self::Shed => "shed",
            Self::AlreadyAttempted => "already_attempted",
            Self::Custom(reason) => reason,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CircuitOpen => "the circuit is open",
            Self::CircuitHalfOpen => "the circuit is half-open and its probes are taken",
            Self::Isolated => "the circuit is isolated by hand",
            Self::BulkheadFull => "no permit is free",
            Self::QueueTimeout => "no permit came free within the longest wait",
            Self::RateLimited => "the rate limit is used up",
            Self::Shed => "shed to protect this process",
            Self::AlreadyAttempted => "what can be attempted once was attempted already",
            Self::Custom(reason) => reason,
        })
    }
}

/// Nonsense in a configuration, found by `build()` before the first call.
///
/// It names the pipeline and the policy (where they are known), the field, the value, and what would be accepted:
///
/// ```
/// use withstand::{CircuitBreaker, Pipeline};
///
/// let error = Pipeline::builder("users-api")
///     .circuit_breaker(CircuitBreaker::builder().failure_rate(f64::NAN))
///     .build()
///     .unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "pipeline `users-api`, policy `circuit_breaker`: failure_rate is NaN; accepted: more than 0 and at most 1",
/// );
/// ```
///
/// `{:?}`, which `unwrap()`, `expect(..)` and a `main` that returns it print, says the same.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError(Box<Nonsense>);

#[derive(Clone, PartialEq, Eq)]
struct Nonsense {
    pipeline: Option<Name>,
    policy: Option<Name>,
    field: &'static str,
    value: String,
    accepted: Cow<'static, str>,
}

impl ConfigError {
    /// An error about a field, its value, and what would be accepted.
    #[must_use]
    pub fn new(field: &'static str, value: impl fmt::Display, accepted: impl Into<Cow<'static, str>>) -> Self {
        let (value, accepted) = (value.to_string(), accepted.into());
        Self(Box::new(Nonsense { pipeline: None, policy: None, field, value, accepted }))
    }

    /// The same error about a policy of that name, unless it names one already.
    #[must_use]
    pub fn in_policy(mut self, policy: &Name) -> Self {
        self.0.policy.get_or_insert_with(|| policy.clone());
        self
    }

    /// The same error about a policy of that name, whichever it names.
    #[cfg(feature = "serde")]
    pub(crate) fn of_policy(mut self, policy: &Name) -> Self {
        self.0.policy = Some(policy.clone());
        self
    }

    /// The same error about a pipeline of that name, unless it names one already.
    #[must_use]
    pub fn in_pipeline(mut self, pipeline: &Name) -> Self {
        self.0.pipeline.get_or_insert_with(|| pipeline.clone());
        self
    }

    /// The pipeline's name, if one was being built.
    #[must_use]
    pub fn pipeline(&self) -> Option<&Name> {
        self.0.pipeline.as_ref()
    }

    /// The policy's name, if the error is about one.
    #[must_use]
    pub fn policy(&self) -> Option<&Name> {
        self.0.policy.as_ref()
    }

    /// The field, as the builder's method is called.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.0.field
    }

    /// The value that was given.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.0.value
    }

    /// What would be accepted.
    #[must_use]
    pub fn accepted(&self) -> &str {
        &self.0.accepted
    }
}

impl From<Refused> for ConfigError {
    fn from(refused: Refused) -> Self {
        Self::new(refused.field, refused.value, refused.accepted)
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigError({self})")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Nonsense { pipeline, policy, field, value, accepted } = &*self.0;
        match (pipeline, policy) {
            (Some(pipeline), Some(policy)) => write!(f, "pipeline `{pipeline}`, policy `{policy}`: ")?,
            (Some(pipeline), None) => write!(f, "pipeline `{pipeline}`: ")?,
            (None, Some(policy)) => write!(f, "policy `{policy}`: ")?,
            (None, None) => {}
        }
        write!(f, "{field} is {value}; accepted: {accepted}")
    }
}

impl StdError for ConfigError {}
