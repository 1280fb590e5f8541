//! What answers in place of the dependency.

use std::{
    fmt,
    future::{Future, Ready, ready},
};

use crate::{error::Error, outcome::Outcome};

/// Where a [`Fallback`](crate::Fallback) takes its answer from: one of the four kinds.
pub trait Substitute<T, E>: Send + Sync {
    /// The answer to come.
    type Answer: Future<Output = Option<Result<T, E>>> + Send;

    /// The answer to an outcome; `None` declines.
    fn substitute(&self, outcome: &Outcome<T, E>) -> Self::Answer;
}

/// See [`Fallback::value`](crate::Fallback::value).
#[derive(Clone, Copy, Debug)]
pub struct Value<V>(pub(super) V);

impl<T: Clone + Send + Sync, E: Send> Substitute<T, E> for Value<T> {
    type Answer = Ready<Option<Result<T, E>>>;

    fn substitute(&self, _: &Outcome<T, E>) -> Self::Answer {
        ready(Some(Ok(self.0.clone())))
    }
}

/// See [`Fallback::from_error`](crate::Fallback::from_error).
#[derive(Clone, Copy)]
pub struct FromError<F>(pub(super) F);

impl<T: Send, E: Send, F: Fn(&Error<E>) -> T + Send + Sync> Substitute<T, E> for FromError<F> {
    type Answer = Ready<Option<Result<T, E>>>;

    fn substitute(&self, outcome: &Outcome<T, E>) -> Self::Answer {
        ready(outcome.result.as_ref().err().map(|error| Ok((self.0)(error))))
    }
}

/// See [`Fallback::from_outcome`](crate::Fallback::from_outcome).
#[derive(Clone, Copy)]
pub struct FromOutcome<F>(pub(super) F);

impl<T, E, F> Substitute<T, E> for FromOutcome<F>
where
    T: Send,
    E: Send,
    F: Fn(&Outcome<T, E>) -> Option<Result<T, E>> + Send + Sync,
{
    type Answer = Ready<Option<Result<T, E>>>;

    fn substitute(&self, outcome: &Outcome<T, E>) -> Self::Answer {
        ready((self.0)(outcome))
    }
}

/// See [`Fallback::from_future`](crate::Fallback::from_future).
#[derive(Clone, Copy)]
pub struct FromFuture<F>(pub(super) F);

impl<T, E, F, Fut> Substitute<T, E> for FromFuture<F>
where
    F: Fn(&Outcome<T, E>) -> Fut + Send + Sync,
    Fut: Future<Output = Option<Result<T, E>>> + Send,
{
    type Answer = Fut;

    fn substitute(&self, outcome: &Outcome<T, E>) -> Fut {
        (self.0)(outcome)
    }
}

/// A function has nothing to show but its kind.
macro_rules! opaque_debug {
    ($($kind:ident),+) => {$(
        impl<F> fmt::Debug for $kind<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($kind))
            }
        }
    )+};
}

opaque_debug!(FromError, FromOutcome, FromFuture);
