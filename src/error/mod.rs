//! What a call can end with when it does not succeed, and what a builder says of nonsense.

mod config;
mod rejection;
mod timed_out;

use std::{convert::Infallible, error::Error as StdError, fmt, time::Duration};

pub use config::ConfigError;
pub use rejection::{Reason, Rejection};
pub use timed_out::{Phase, Scope, TimedOut};

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
