//! What became of a request that has no status of the server's: told by the errors behind tonic's.

use std::{
    error::Error,
    io::{self, ErrorKind},
    iter,
};

use ::tonic::{ConnectError, Status, TimeoutExpired};
use h2::Reason;

use crate::{
    adapters::causes::causes,
    error::{Rejection, TimedOut},
    outcome::{Classification, Verdict},
};

/// By what an error is, or what is behind it; none if that is nothing known.
pub(super) fn classify_error(error: &(dyn Error + 'static)) -> Option<Classification> {
    let all = || iter::once(error).chain(causes(error));
    // Behind hyper's error there may be one that says more.
    let is_of_connection = || all().any(<dyn Error>::is::<hyper::Error>);
    all().find_map(classify_cause).or_else(|| is_of_connection().then_some(BROKEN))
}

/// Whether tonic's channel ended it because the time in `grpc-timeout`, or that of the endpoint, was up.
pub(super) fn is_timeout(status: &Status) -> bool {
    causes(status).any(<dyn Error>::is::<TimeoutExpired>)
}

/// The connection broke, or the stream: what the server has done by then nobody knows.
const BROKEN: Classification = Verdict::transient().label("grpc_connection");

fn classify_cause(cause: &(dyn Error + 'static)) -> Option<Classification> {
    if cause.is::<ConnectError>() {
        return Some(Verdict::unreached().label("grpc_connect"));
    }
    if cause.is::<TimeoutExpired>() {
        return Some(Verdict::transient().label("grpc_timeout"));
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        // The connection was gone before the request was on it.
        return error.is_canceled().then_some(Verdict::unreached().label("grpc_connection"));
    }
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        return Some(classify_h2(error));
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        // Of another client than tonic's channel. Only a connection that is being made is refused.
        let is_refused = error.kind() == ErrorKind::ConnectionRefused;
        return is_refused.then_some(Verdict::unreached().label("grpc_connect"));
    }
    // A pipeline inside, around the channel.
    if let Some(rejection) = cause.downcast_ref::<Rejection>() {
        let verdict = Verdict::rejected().retry_after(rejection.retry_after());
        return Some(verdict.label(rejection.reason().as_str()));
    }
    let timed_out = cause.downcast_ref::<TimedOut>()?;
    let verdict = if timed_out.attempts() == 0 { Verdict::rejected() } else { Verdict::transient() };
    Some(verdict.label("timeout"))
}

/// [What the error codes of HTTP/2 mean](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors), whatever
/// status tonic makes of them: that depends on its features.
fn classify_h2(error: &h2::Error) -> Classification {
    if error.is_io() {
        return BROKEN;
    }
    if error.is_reset() && !error.is_remote() && !error.is_library() {
        // Whoever called has ended it; or its request could not be encoded, or is larger than the client may send.
        return Verdict::ignored().label("grpc_request");
    }
    match error.reason() {
        // The server says that it has not begun, of this stream or of all that came after another one.
        Some(Reason::REFUSED_STREAM) if error.is_remote() => Verdict::unreached().label("grpc_refused"),
        _ if error.is_go_away() && error.is_remote() => Verdict::unreached().label("grpc_refused"),
        Some(Reason::ENHANCE_YOUR_CALM) => Verdict::throttled().label("grpc_refused"),
        _ => Verdict::failure().label("grpc_protocol"),
    }
}
