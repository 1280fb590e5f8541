//! The verdict about a result, and who gives it.

use std::{fmt, time::Duration};

/// What an attempt's result says about the dependency, given once, where the attempt ends, and read by every policy.
///
/// No policy has predicates of its own: a classifier turns each result into one of these seven words, and the table
/// says what each policy makes of it.
///
/// | verdict | means | retry | hedge | circuit breaker | repeated though not idempotent | fallback |
/// |---|---|---|---|---|---|---|
/// | [`Success`](Verdict::Success) | it worked, or the dependency answered as it should (a 404 may be an `Err` and a `Success`) | no | wins | success | | no |
/// | [`Transient`](Verdict::Transient) | it failed and may recover | yes | the next one now | failure | no | yes |
/// | [`Unreached`](Verdict::Unreached) | the request never got there: connection refused, DNS, handshake | yes | the next one now | failure | yes | yes |
/// | [`Throttled`](Verdict::Throttled) | it is up and asks for less: 429, `RESOURCE_EXHAUSTED` | after the hint | no further hedge | neither | yes | yes |
/// | [`Failure`](Verdict::Failure) | it failed; repeating is pointless or unsafe | no | wins | failure | no | yes |
/// | [`Ignored`](Verdict::Ignored) | says nothing about the dependency: the caller's own mistake before sending, a fallback's substitute | no | wins | neither | no | no |
/// | [`Rejected`](Verdict::Rejected) | refused in this process; the dependency was not called | only if asked | removes itself | neither | yes | yes |
///
/// # HTTP and gRPC
///
/// A place to start; your API may mean something else. The features `http`, `reqwest` and `tonic` have it ready-made.
///
/// | answer | verdict | since |
/// |---|---|---|
/// | 2xx, 3xx; `OK` | `Success` | |
/// | 400, 401, 403, 404, 409, 422; `INVALID_ARGUMENT`, `NOT_FOUND`, `PERMISSION_DENIED` | `Success` | the service works; as a `Failure` one client that sends nonsense would open the circuit for all |
/// | 408, 425, 500, 502, 503, 504; `UNAVAILABLE`, `DEADLINE_EXCEEDED` | `Transient` | |
/// | 429; `RESOURCE_EXHAUSTED` | `Throttled`, with `Retry-After` | |
/// | 501, 505; `UNIMPLEMENTED`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS`, `ABORTED` | `Failure` | it will fail again |
/// | no connection: refused, DNS, TLS handshake | `Unreached` | |
/// | a connection that breaks later, a body that ends too early | `Transient` | it may have been carried out |
/// | a request that could not be built | `Ignored` | nothing was sent |
///
/// # Hints
///
/// Four of them carry a hint, `retry_after`: how long the dependency, or the policy that refused, asks to be left alone.
///
/// ```
/// use std::time::Duration;
/// use withstand::Verdict;
///
/// let verdict = Verdict::throttled().retry_after(Duration::from_secs(2));
/// assert_eq!(verdict.hint(), Some(Duration::from_secs(2)));
/// assert_eq!(Verdict::success().hint(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It worked, or the dependency answered as it should.
    Success,
    /// It failed and may recover.
    #[non_exhaustive]
    Transient {
        /// How long the dependency asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The request never got there.
    #[non_exhaustive]
    Unreached {
        /// How long the dependency asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The dependency is up and asks for less.
    #[non_exhaustive]
    Throttled {
        /// How long the dependency asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It failed; repeating is pointless or unsafe.
    Failure,
    /// It says nothing about the dependency.
    Ignored,
    /// Refused in this process; the dependency was not called.
    #[non_exhaustive]
    Rejected {
        /// How long the policy that refused asks to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Verdict {
    /// It worked, or the dependency answered as it should.
    #[must_use]
    pub const fn success() -> Self {
        Self::Success
    }

    /// It failed and may recover: repeat it, and count it against the dependency.
    #[must_use]
    pub const fn transient() -> Self {
        Self::Transient { retry_after: None }
    }

    /// The request never got there: repeating it is safe even where it is not idempotent.
    #[must_use]
    pub const fn unreached() -> Self {
        Self::Unreached { retry_after: None }
    }

    /// The dependency is up and asks for less: repeat it later, and do not count it against the dependency.
    #[must_use]
    pub const fn throttled() -> Self {
        Self::Throttled { retry_after: None }
    }

    /// It failed; repeating is pointless or unsafe.
    #[must_use]
    pub const fn failure() -> Self {
        Self::Failure
    }

    /// It says nothing about the dependency.
    #[must_use]
    pub const fn ignored() -> Self {
        Self::Ignored
    }

    /// Refused in this process, for example by an empty connection pool; the dependency was not called.
    #[must_use]
    pub const fn rejected() -> Self {
        Self::Rejected { retry_after: None }
    }

    /// The same verdict with a hint, or with none: a [`Duration`], or an [`Option`] of one as a `Retry-After` header
    /// gives it. [`Success`](Self::Success), [`Failure`](Self::Failure) and [`Ignored`](Self::Ignored) carry none and
    /// stay as they are: nothing repeats them.
    #[must_use]
    pub fn retry_after(self, after: impl Into<Option<Duration>>) -> Self {
        self.with_hint(after.into())
    }

    pub(crate) const fn with_hint(self, retry_after: Option<Duration>) -> Self {
        match self {
            Self::Transient { .. } => Self::Transient { retry_after },
            Self::Unreached { .. } => Self::Unreached { retry_after },
            Self::Throttled { .. } => Self::Throttled { retry_after },
            Self::Rejected { .. } => Self::Rejected { retry_after },
            Self::Success | Self::Failure | Self::Ignored => self,
        }
    }

    /// The hint, if there is one.
    #[must_use]
    pub const fn hint(&self) -> Option<Duration> {
        match *self {
            Self::Transient { retry_after }
            | Self::Unreached { retry_after }
            | Self::Throttled { retry_after }
            | Self::Rejected { retry_after } => retry_after,
            Self::Success | Self::Failure | Self::Ignored => None,
        }
    }

    /// The verdict without its hint.
    #[must_use]
    pub const fn kind(&self) -> VerdictKind {
        match self {
            Self::Success => VerdictKind::Success,
            Self::Transient { .. } => VerdictKind::Transient,
            Self::Unreached { .. } => VerdictKind::Unreached,
            Self::Throttled { .. } => VerdictKind::Throttled,
            Self::Failure => VerdictKind::Failure,
            Self::Ignored => VerdictKind::Ignored,
            Self::Rejected { .. } => VerdictKind::Rejected,
        }
    }

    /// Whether the verdict is [`Success`](Self::Success).
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }

    /// Whether the verdict is [`Rejected`](Self::Rejected).
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected { .. })
    }

    /// The verdict together with a label for telemetry, such as `"http_503"`.
    ///
    /// The label becomes an attribute of metrics: keep the set of labels small and free of ids.
    #[must_use]
    pub const fn label(self, label: &'static str) -> Classification {
        Classification { verdict: self, label }
    }
}

/// A [`Verdict`] without its hint: for sets, matches and telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerdictKind {
    /// See [`Verdict::Success`].
    Success,
    /// See [`Verdict::Transient`].
    Transient,
    /// See [`Verdict::Unreached`].
    Unreached,
    /// See [`Verdict::Throttled`].
    Throttled,
    /// See [`Verdict::Failure`].
    Failure,
    /// See [`Verdict::Ignored`].
    Ignored,
    /// See [`Verdict::Rejected`].
    Rejected,
}

impl VerdictKind {
    pub(super) const fn with_hint(self, retry_after: Option<Duration>) -> Verdict {
        match self {
            Self::Success => Verdict::Success,
            Self::Transient => Verdict::Transient { retry_after },
            Self::Unreached => Verdict::Unreached { retry_after },
            Self::Throttled => Verdict::Throttled { retry_after },
            Self::Failure => Verdict::Failure,
            Self::Ignored => Verdict::Ignored,
            Self::Rejected => Verdict::Rejected { retry_after },
        }
    }

    /// The word in lower case: `"transient"`. It is the label of an outcome whose classifier gives none.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Transient => "transient",
            Self::Unreached => "unreached",
            Self::Throttled => "throttled",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a classifier gives: a verdict and a label for telemetry. Made from a bare [`Verdict`], whose word is then the
/// label, or by [`Verdict::label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    pub(super) verdict: Verdict,
    pub(super) label: &'static str,
}

impl Classification {
    /// The verdict.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.label
    }
}

impl From<Verdict> for Classification {
    fn from(verdict: Verdict) -> Self {
        verdict.label(verdict.kind().as_str())
    }
}

/// Gives the verdict about a result. It is asked once for each attempt, where the operation's future ends.
///
/// Most pipelines use a closure ([`classify_errors`](crate::PipelineBuilder::classify_errors),
/// [`classify`](crate::PipelineBuilder::classify)); a type of its own can be named in a struct's field and shared:
///
/// ```
/// use withstand::{Classification, Classify, Verdict};
///
/// struct ByKind;
/// impl<T> Classify<T, std::io::Error> for ByKind {
///     fn classify(&self, result: Result<&T, &std::io::Error>) -> Classification {
///         match result.map_err(std::io::Error::kind) {
///             Ok(_) => Verdict::success().into(),
///             Err(std::io::ErrorKind::ConnectionRefused) => Verdict::unreached().label("refused"),
///             Err(_) => Verdict::transient().into(),
///         }
///     }
/// }
/// ```
///
/// A panic in a classifier unwinds to the caller and is never held against the dependency.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not classify a `Result<{T}, {E}>`",
    note = "a classifier of your own: `impl Classify<{T}, {E}> for ..`, or `impl<T> Classify<T, {E}>` for whatever is `Ok`",
    note = "in generic code add the bound `C: Classify<T, E>`, and `P: Policy<T, E>` for the layers"
)]
pub trait Classify<T, E>: Send + Sync {
    /// The verdict and its label.
    fn classify(&self, result: Result<&T, &E>) -> Classification;
}

/// The classifier of a pipeline that was given none: `Ok` is a success, `Err` is transient.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DefaultClassifier;

impl<T, E> Classify<T, E> for DefaultClassifier {
    #[inline]
    fn classify(&self, result: Result<&T, &E>) -> Classification {
        match result {
            Ok(_) => Verdict::Success.into(),
            Err(_) => Verdict::transient().into(),
        }
    }
}

/// A classifier made from a function of the error; every `Ok` is a success.
/// See [`classify_errors`](crate::PipelineBuilder::classify_errors).
#[derive(Clone, Copy)]
pub struct ClassifyErrors<F>(pub(crate) F);

impl<T, E, F, C> Classify<T, E> for ClassifyErrors<F>
where
    F: Fn(&E) -> C + Send + Sync,
    C: Into<Classification>,
{
    #[inline]
    fn classify(&self, result: Result<&T, &E>) -> Classification {
        match result {
            Ok(_) => Verdict::Success.into(),
            Err(error) => (self.0)(error).into(),
        }
    }
}

impl<F> fmt::Debug for ClassifyErrors<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClassifyErrors")
    }
}

/// A classifier made from a function of the whole result. See [`classify`](crate::PipelineBuilder::classify).
#[derive(Clone, Copy)]
pub struct ClassifyResults<F>(pub(crate) F);

impl<T, E, F, C> Classify<T, E> for ClassifyResults<F>
where
    F: Fn(Result<&T, &E>) -> C + Send + Sync,
    C: Into<Classification>,
{
    #[inline]
    fn classify(&self, result: Result<&T, &E>) -> Classification {
        (self.0)(result).into()
    }
}

impl<F> fmt::Debug for ClassifyResults<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClassifyResults")
    }
}
