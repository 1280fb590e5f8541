//! Fallback: an answer of our own where the dependency gave none.

mod run;
mod substitute;

use std::{fmt, future::Future, time::Duration};

pub use substitute::{FromError, FromFuture, FromOutcome, Substitute, Value};

use crate::{
    build::IntoLayer,
    call::standalone_guard,
    error::{ConfigError, Error},
    event::{Kind, PolicyId},
    layer::{LayerInfo, Role},
    name::Name,
    outcome::{Outcome, VerdictKind},
    policy::Describe,
};

/// An answer of our own where the dependency gave none: a default, a stale copy, another source.
///
/// **When to use it.** Where a worse answer is better than none: an anonymous user, yesterday's prices, an empty list of
/// recommendations. **When not.** Where a wrong answer does harm, or where the fallback needs what has just failed.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use withstand::Fallback;
///
/// let fallback = Fallback::value("anonymous").build()?;
/// let name = fallback.call(|| async { Err::<&str, _>("connection refused") }).await;
/// assert_eq!(name, Ok("anonymous"));
/// # Ok::<(), withstand::ConfigError>(()) }).unwrap();
/// ```
///
/// # Four kinds
///
/// | made by | gets | gives |
/// |---|---|---|
/// | [`value`](Fallback::value) | | a clone of the value |
/// | [`from_error`](Fallback::from_error) | the error | a value |
/// | [`from_outcome`](Fallback::from_outcome) | the whole outcome | a value, an error, or `None`: it declines |
/// | [`from_future`](Fallback::from_future) | the whole outcome | a future of the same; it has a limit of its own |
///
/// ```
/// use withstand::{Error, Fallback, Outcome, Reason};
///
/// # #[derive(Clone)] struct Prices;
/// # #[derive(Debug)] struct PriceError;
/// # async fn stale_prices() -> Option<Prices> { None }
/// // Only where the circuit is open; everything else passes.
/// let only_open = Fallback::from_outcome(|outcome: &Outcome<Prices, PriceError>| match &outcome.result {
///     Err(Error::Rejected(rejection)) if rejection.reason() == Reason::CircuitOpen => Some(Ok(Prices)),
///     _ => None,
/// });
///
/// // From a cache: an async block, and a `None` of it declines.
/// let stale = Fallback::from_future(|_: &Outcome<Prices, PriceError>| async { stale_prices().await.map(Ok) });
/// ```
///
/// # What comes of it
///
/// | the fallback | result | verdict |
/// |---|---|---|
/// | gives a value | the value | `Ignored`: it says nothing about the dependency |
/// | gives an error | that error | the original one |
/// | declines, or takes too long | the original one | the original one |
///
/// A call that it answered is reported as `fallback`, never as a success.
///
/// # Options
///
/// | option | unit, range | default | why |
/// |---|---|---|---|
/// | [`handles`](FallbackBuilder::handles) | verdicts | `Transient`, `Unreached`, `Throttled`, `Failure`, `Rejected` | a success needs none, and `Ignored` is the caller's own mistake |
/// | [`limit`](FallbackBuilder::limit) | time, more than 0 | 100 ms | it comes after all the time that has passed already; only asynchronous ones have it |
///
/// # Cancellation
///
/// The failed attempt, with its connection and permits, is gone before a fallback begins. A call that is dropped drops
/// an asynchronous fallback.
///
/// # Panics
///
/// A panic in a fallback unwinds to the caller and is never held against the dependency.
///
/// # Events
///
/// `FellBack`.
///
/// # Order among layers
///
/// Outermost. [`Pipeline::build`](crate::PipelineBuilder::build) refuses one inside a retry, a hedge or a circuit breaker
/// from which it would hide every failure.
#[derive(Clone)]
pub struct Fallback<S> {
    id: PolicyId,
    substitute: S,
    handles: Verdicts,
    limit: Duration,
    /// Whether it may decline.
    declines: bool,
    /// Whether the answer is a future, and so may need the limit.
    waits: bool,
}

impl<V> Fallback<Value<V>> {
    /// Always this value. It is cloned for each call that falls back.
    pub fn value(value: V) -> FallbackBuilder<Value<V>> {
        FallbackBuilder::new(Value(value))
    }
}

impl<F> Fallback<FromError<F>> {
    /// A value made from the error. A failure that is an `Ok`, such as an HTTP 503, passes on unchanged.
    pub fn from_error<T, E>(make: F) -> FallbackBuilder<FromError<F>>
    where
        F: Fn(&Error<E>) -> T,
    {
        FallbackBuilder::new(FromError(make))
    }
}

impl<F> Fallback<FromOutcome<F>> {
    /// A result made from the whole outcome, or `None` to decline.
    pub fn from_outcome<T, E>(make: F) -> FallbackBuilder<FromOutcome<F>>
    where
        F: Fn(&Outcome<T, E>) -> Option<Result<T, E>>,
    {
        FallbackBuilder { declines: true, ..FallbackBuilder::new(FromOutcome(make)) }
    }
}

impl<F> Fallback<FromFuture<F>> {
    /// A future made from the whole outcome. What the future needs of the outcome is taken out of it before the future
    /// is made; a future of `None` declines.
    pub fn from_future<T, E, Fut>(make: F) -> FallbackBuilder<FromFuture<F>>
    where
        F: Fn(&Outcome<T, E>) -> Fut,
        Fut: Future<Output = Option<Result<T, E>>>,
    {
        FallbackBuilder { declines: true, waits: true, ..FallbackBuilder::new(FromFuture(make)) }
    }
}

standalone_guard!([S] Fallback<S>);

impl<S> fmt::Debug for Fallback<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("name", &self.id.name).field("handles", &self.handles).finish_non_exhaustive()
    }
}

/// Builds a [`Fallback`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct FallbackBuilder<S> {
    name: Option<Name>,
    substitute: S,
    handles: Vec<VerdictKind>,
    limit: Duration,
    /// Whether it may decline.
    declines: bool,
    /// Whether the answer is a future, and so may need the limit.
    waits: bool,
}

impl<S> FallbackBuilder<S> {
    fn new(substitute: S) -> Self {
        Self {
            name: None,
            substitute,
            handles: FAILURES.to_vec(),
            limit: Duration::from_millis(100),
            declines: false,
            waits: false,
        }
    }

    /// The name in events. Default: `fallback`.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The verdicts that it answers for, instead of the default ones: `Transient`, `Unreached`, `Throttled`, `Failure`
    /// and `Rejected`. At least one.
    pub fn handles(mut self, verdicts: impl IntoIterator<Item = VerdictKind>) -> Self {
        self.handles = verdicts.into_iter().collect();
        self
    }

    /// The longest that an asynchronous fallback may take: more than zero. Default: 100 ms.
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range; the error names it.
    pub fn build(self) -> Result<Fallback<S>, ConfigError> {
        IntoLayer::<Fallback<S>>::into_layer(self, Kind::Fallback.into())
    }
}

/// A set of verdicts: looked at in every call, so a bit for each.
#[derive(Clone, Copy)]
struct Verdicts(u8);

impl Verdicts {
    const ALL: [VerdictKind; 7] = [
        VerdictKind::Success,
        VerdictKind::Transient,
        VerdictKind::Unreached,
        VerdictKind::Throttled,
        VerdictKind::Failure,
        VerdictKind::Ignored,
        VerdictKind::Rejected,
    ];

    #[inline(always)]
    const fn of(kind: VerdictKind) -> Self {
        Self(match kind {
            VerdictKind::Success => 1,
            VerdictKind::Transient => 2,
            VerdictKind::Unreached => 4,
            VerdictKind::Throttled => 8,
            VerdictKind::Failure => 16,
            VerdictKind::Ignored => 32,
            VerdictKind::Rejected => 64,
        })
    }

    #[inline(always)]
    const fn contains(self, kind: VerdictKind) -> bool {
        self.0 & Self::of(kind).0 != 0
    }

    fn iter(self) -> impl Iterator<Item = VerdictKind> {
        Self::ALL.into_iter().filter(move |&kind| self.contains(kind))
    }
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<VerdictKind> for Verdicts {
    fn from_iter<I: IntoIterator<Item = VerdictKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | Self::of(kind).0))
    }
}

/// What a fallback answers for unless it is told.
const FAILURES: [VerdictKind; 5] = [
    VerdictKind::Transient,
    VerdictKind::Unreached,
    VerdictKind::Throttled,
    VerdictKind::Failure,
    VerdictKind::Rejected,
];

impl<S> IntoLayer<Fallback<S>> for FallbackBuilder<S> {
    type Layer = Fallback<S>;

    fn into_layer(self, default_name: Name) -> Result<Fallback<S>, ConfigError> {
        let id = PolicyId::new(Kind::Fallback, self.name.clone(), default_name)?;
        let refused = if self.handles.is_empty() {
            Some(ConfigError::new("handles", "empty", "at least one verdict"))
        } else if self.limit.is_zero() {
            Some(ConfigError::new("limit", "0s", "more than 0s"))
        } else {
            None
        };
        if let Some(error) = refused {
            return Err(error.in_policy(&id.name));
        }
        let Self { substitute, handles, limit, declines, waits, .. } = self;
        Ok(Fallback { id, substitute, handles: handles.into_iter().collect(), limit, declines, waits })
    }
}

impl<S> Describe for Fallback<S> {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        let hides_failures = !self.declines && FAILURES.iter().all(|&kind| self.handles.contains(kind));
        let handles: Vec<_> = self.handles.iter().map(VerdictKind::as_str).collect();
        let limit = self.waits.then_some(self.limit);
        let info = LayerInfo::new(self.id.clone(), Role::Fallback { hides_failures, limit })
            .setting("handles", handles.join("|"));
        out.push(match limit {
            Some(limit) => info.setting("limit", format_args!("{limit:?}")),
            None => info,
        });
    }
}
