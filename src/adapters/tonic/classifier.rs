//! What a status means.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName};
use ::tonic::{Code, Status, metadata::MetadataMap};

use super::cause::classify_error;
use crate::outcome::{Classification, Classify, Verdict};

/// The verdict about the call of a method: for the [`classifier`](crate::PipelineBuilder::classifier) of a pipeline whose
/// operation gives a `Result<T, Status>`, with any `T`.
///
/// What is `Ok` is a success. A status goes by [`classify_status`].
///
/// ```
/// use withstand::{Pipeline, StandardLayers, tonic::TonicClassifier};
///
/// struct Users {
///     pipeline: Pipeline<StandardLayers, TonicClassifier>, // .. and the client
/// }
/// let users = Users { pipeline: Pipeline::standard("users").classifier(TonicClassifier::new()).build()? };
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TonicClassifier;

impl TonicClassifier {
    /// The classifier. It has no options: for other verdicts see [`classify_status`].
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl<T> Classify<T, Status> for TonicClassifier {
    fn classify(&self, result: Result<&T, &Status>) -> Classification {
        result.map_or_else(classify_status, |_| Verdict::success().label(label(Code::Ok)))
    }
}

/// The verdict about a status.
///
/// | code | verdict | since |
/// |---|---|---|
/// | `OK` | `Success` | |
/// | `UNAVAILABLE` | `Transient` | it may be better the next time |
/// | `RESOURCE_EXHAUSTED` | `Throttled` | the service is up and asks for less |
/// | `DEADLINE_EXCEEDED` | `Transient` | it was too slow, this time. Where the time was that of the whole call, no retry has time left for another attempt, and it is the call's outcome |
/// | `INTERNAL`, `UNKNOWN`, `DATA_LOSS`, `UNIMPLEMENTED`, `ABORTED` | `Failure` | it will fail again, or what has to be repeated is more than this call |
/// | `CANCELLED`, by this process | `Ignored` | it says nothing about the service |
/// | `CANCELLED`, by the server | `Failure` | nobody here has asked for that: something behind it has gone wrong, and repeating it is not known to help |
/// | `CANCELLED` with the message "Timeout expired" | `Transient` | so servers of tonic say that the time in `grpc-timeout` was up |
/// | `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`, `UNAUTHENTICATED` | `Success` | the service works, and has answered as it should |
///
/// The label is that of the code: `grpc_unavailable`.
///
/// A status came from the server if there is metadata in it, such as the `content-type` that every response has. One that
/// this process has made has none: `Err(Status::cancelled(..))` where it gives a call up. (That of an interceptor has: it
/// looks like the server's. That of a stream, in its trailers, may have none: then it looks like one of this process.)
///
/// # Pushback
///
/// The server may say in `grpc-retry-pushback-ms` when to come back (gRFC A6): see [`with_pushback`], which is heeded here.
///
/// # Without an answer of the server
///
/// tonic makes a status of that, too, and which code depends on its features. The errors behind it, its
/// [`source`](std::error::Error::source)s, say more, and count instead of the code:
///
/// | behind the status | verdict | label |
/// |---|---|---|
/// | no connection: refused, unreachable, DNS, TLS, the endpoint's connect timeout | `Unreached` | `grpc_connect` |
/// | a connection that was gone before the request was on it | `Unreached` | `grpc_connection` |
/// | a stream that the server refused, or has not begun before it goes away (`REFUSED_STREAM`, `GOAWAY`) | `Unreached` | `grpc_refused` |
/// | `ENHANCE_YOUR_CALM` | `Throttled` | `grpc_refused` |
/// | a connection that broke, a keep-alive without an answer | `Transient` | `grpc_connection` |
/// | the time in `grpc-timeout`, or the endpoint's timeout, was up in tonic's channel | `Transient` | `grpc_timeout` |
/// | a stream that the server reset with another code | `Failure` | `grpc_protocol` |
/// | a request that this process has cancelled, could not encode, or may not send for its size | `Ignored` | `grpc_request` |
/// | a timeout or a rejection of a pipeline around the channel | as that pipeline has it | `timeout`, or the [`Reason`](crate::Reason) |
///
/// # Other verdicts
///
/// ```
/// use tonic::{Code, Status};
/// use withstand::{Classification, Pipeline, Verdict, tonic::{classify_status, with_pushback}};
///
/// // This service says ABORTED if two transactions met, and then the whole call may be made again.
/// fn classify(status: &Status) -> Classification {
///     match status.code() {
///         Code::Aborted => with_pushback(Verdict::transient(), status.metadata()).label("grpc_aborted"),
///         _ => classify_status(status),
///     }
/// }
/// let ledger = Pipeline::standard("ledger").classify_errors(classify).build()?;
/// # let _ = async || ledger.call(|| async { Err::<(), _>(Status::aborted("")) }).await;
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[must_use]
pub fn classify_status(status: &Status) -> Classification {
    if let Some(classification) = std::error::Error::source(status).and_then(classify_error) {
        return classification;
    }
    let code = status.code();
    let verdict = match code {
        Code::Cancelled if is_timeout_of_server(status) => Verdict::transient(),
        Code::Cancelled if status.metadata().is_empty() => Verdict::ignored(),
        code => verdict(code),
    };
    with_pushback(verdict, status.metadata()).label(label(code))
}

/// What tonic's servers say when the time in `grpc-timeout` is up.
pub(super) fn is_timeout_of_server(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == "Timeout expired"
}

/// The verdict about a code that a server gives.
pub(super) const fn verdict(code: Code) -> Verdict {
    match code {
        Code::Unavailable | Code::DeadlineExceeded => Verdict::transient(),
        Code::ResourceExhausted => Verdict::throttled(),
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Unimplemented | Code::Aborted | Code::Cancelled => {
            Verdict::failure()
        }
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unauthenticated => Verdict::success(),
    }
}

pub(super) const fn label(code: Code) -> &'static str {
    match code {
        Code::Ok => "grpc_ok",
        Code::Cancelled => "grpc_cancelled",
        Code::Unknown => "grpc_unknown",
        Code::InvalidArgument => "grpc_invalid_argument",
        Code::DeadlineExceeded => "grpc_deadline_exceeded",
        Code::NotFound => "grpc_not_found",
        Code::AlreadyExists => "grpc_already_exists",
        Code::PermissionDenied => "grpc_permission_denied",
        Code::ResourceExhausted => "grpc_resource_exhausted",
        Code::FailedPrecondition => "grpc_failed_precondition",
        Code::Aborted => "grpc_aborted",
        Code::OutOfRange => "grpc_out_of_range",
        Code::Unimplemented => "grpc_unimplemented",
        Code::Internal => "grpc_internal",
        Code::Unavailable => "grpc_unavailable",
        Code::DataLoss => "grpc_data_loss",
        Code::Unauthenticated => "grpc_unauthenticated",
    }
}

/// A verdict, with what the server says in `grpc-retry-pushback-ms` about when to come back: for classifiers of your own.
/// [`classify_status`] heeds it.
///
/// | value | a verdict that may be repeated | any other |
/// |---|---|---|
/// | missing | stays | stays |
/// | `250`: milliseconds, up to 2147483647 | stays, with the hint `retry_after` | stays |
/// | negative: do not come back; anything else, or more than one: as if it were | `Failure` | stays |
///
/// So [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback) has it. A
/// [`Retry`](crate::Retry) waits at least as long as the hint says, but heeds of it no more than its
/// [`max_hint`](crate::RetryBuilder::max_hint), 30 s by default, and gives up if that is longer than there is time.
///
/// ```
/// use std::time::Duration;
/// use tonic::metadata::MetadataMap;
/// use withstand::{Verdict, tonic::with_pushback};
///
/// let mut metadata = MetadataMap::new();
/// metadata.insert("grpc-retry-pushback-ms", "250".parse()?);
/// let verdict = with_pushback(Verdict::transient(), &metadata);
/// assert_eq!(verdict, Verdict::transient().retry_after(Duration::from_millis(250)));
///
/// metadata.insert("grpc-retry-pushback-ms", "-1".parse()?);
/// assert_eq!(with_pushback(Verdict::throttled(), &metadata), Verdict::failure());
/// # Ok::<(), tonic::metadata::errors::InvalidMetadataValue>(())
/// ```
#[must_use]
pub fn with_pushback(verdict: Verdict, metadata: &MetadataMap) -> Verdict {
    with_pushback_of(verdict, metadata.as_ref())
}

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

pub(super) fn with_pushback_of(verdict: Verdict, headers: &HeaderMap) -> Verdict {
    if !matches!(verdict, Verdict::Transient { .. } | Verdict::Unreached { .. } | Verdict::Throttled { .. }) {
        return verdict;
    }
    let mut values = headers.get_all(PUSHBACK).iter();
    let Some(value) = values.next() else { return verdict };
    let millis = value.to_str().ok().filter(|value| value.bytes().all(|digit| digit.is_ascii_digit()));
    // A signed number of 32 bits on the wire.
    match (millis.and_then(|value| value.parse::<i32>().ok()), values.next()) {
        (Some(millis), None) => verdict.retry_after(Duration::from_millis(u64::try_from(millis).unwrap_or(0))),
        _ => Verdict::failure(),
    }
}
