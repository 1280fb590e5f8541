//! What is around a channel, as a layer of tower.

use std::error::Error;

use ::http::{Response, StatusCode};
use ::tonic::{Code, Status};

use super::{
    cause::classify_error,
    classifier::{label, verdict, with_pushback_of},
};
use crate::outcome::{Classification, Classify, Verdict};
#[cfg(feature = "tower")]
use crate::{adapters::tower::PrepareRequest, context::Attempt};

/// The verdict about what a channel gives: for the pipeline of a [layer around one](crate::tonic#around-a-channel), or
/// around any other `tower::Service` of gRPC.
///
/// Of a response only the head is there when the service is done with it. In it is
///
/// | | verdict |
/// |---|---|
/// | a status, since the call has failed before there was a message | as [`classify_status`](super::classify_status) says, pushback included |
/// | no status, and the HTTP status 200: messages follow | `Success` |
/// | no status, and another HTTP status, from a proxy | as the code that [gRPC has for it](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md): 429, 502, 503, 504 are `UNAVAILABLE` |
///
/// A status that comes after messages, or after the head of a response without any, is not seen: to the pipeline that
/// call was a success. [`TonicClassifier`](super::TonicClassifier), around the method, sees both.
///
/// An error goes by what is behind it, as with [`classify_status`](super::classify_status); one that is nothing known there
/// is a `Failure`.
///
/// ```
/// use http::Response;
/// use withstand::{Classify, Verdict, tonic::ChannelClassifier};
///
/// let response = Response::builder().header("grpc-status", "14").body(())?;
/// let classification = ChannelClassifier::new().classify(Ok::<_, &std::io::Error>(&response));
/// assert_eq!(classification, Verdict::transient().label("grpc_unavailable"));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ChannelClassifier;

impl ChannelClassifier {
    /// The classifier. It has no options.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl<B, E: Error + 'static> Classify<Response<B>, E> for ChannelClassifier {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Classification {
        match result {
            Ok(response) => classify_head(response),
            Err(error) => classify_error(error).unwrap_or(Verdict::failure().label("grpc_error")),
        }
    }
}

fn classify_head<B>(response: &Response<B>) -> Classification {
    // Not by `Status::from_header_map`, which panics if the details are not base64.
    let code = match response.headers().get(Status::GRPC_STATUS) {
        Some(status) => Code::from_bytes(status.as_bytes()),
        None => code_of(response.status()),
    };
    with_pushback_of(verdict(code), response.headers()).label(label(code))
}

/// What a response means that is none of gRPC.
const fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        200 => Code::Ok,
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The requests of a channel, for [`PipelineLayer::with_requests`](crate::tower::PipelineLayer::with_requests): each is told
/// the time that is left, as [`request`](super::request) does, and is sent once.
///
/// A body of tonic's cannot be copied. So a [`Retry`](crate::Retry) or a [`Hedge`](crate::Hedge) in the pipeline does
/// nothing for an attempt that was sent; they belong around the method. See [the module](crate::tonic#around-a-channel) for
/// an example.
#[cfg(feature = "tower")]
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ChannelRequests;

#[cfg(feature = "tower")]
impl ChannelRequests {
    /// Requests that are told the time that is left.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

#[cfg(feature = "tower")]
impl<B> PrepareRequest<::http::Request<B>> for ChannelRequests {
    fn clone_request(&self, _: &::http::Request<B>) -> Option<::http::Request<B>> {
        None
    }

    fn prepare(&self, request: &mut ::http::Request<B>, attempt: Attempt) {
        super::request::tell_time(request.headers_mut(), &attempt);
    }
}
