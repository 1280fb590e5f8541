//! What reqwest's results mean.

use std::{
    error::Error as StdError,
    io::{self, ErrorKind},
};

use ::reqwest::{Error, Response};

use crate::{
    adapters::{causes::causes, http::classify_status},
    outcome::{Classification, Classify, Verdict},
};

/// The verdict about what reqwest gives: responses go by [`classify_status`](crate::http::classify_status), errors by
/// [`classify_error`].
///
/// For a pipeline around your own use of reqwest; [`Client`](super::Client) has it built in.
///
/// ```
/// use withstand::{Pipeline, reqwest::ReqwestClassifier};
///
/// # let client = reqwest::Client::new();
/// let users = Pipeline::standard("users-api").classifier(ReqwestClassifier::new()).build()?;
/// let request = client.get("http://users.internal/7").build().unwrap();
/// # let _ = async {
/// let response = users.call(|| client.execute(request.try_clone().unwrap())).await;
/// # };
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ReqwestClassifier;

impl ReqwestClassifier {
    /// The classifier. It has no options.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Classify<Response, Error> for ReqwestClassifier {
    fn classify(&self, result: Result<&Response, &Error>) -> Classification {
        match result {
            Ok(response) => classify_status(response.status(), response.headers()),
            Err(error) => classify_error(error),
        }
    }
}

/// The verdict about an error of reqwest.
///
/// | error | verdict | label |
/// |---|---|---|
/// | no connection: refused, unreachable, the connect timeout, a TLS handshake, a proxy that does not let through | `Unreached` | `http_connect` |
/// | a name that cannot be resolved | `Unreached` | `http_dns` |
/// | a timeout of reqwest's own, other than that of connecting | `Transient` | `http_timeout` |
/// | a connection that broke before the answer was there | `Transient` | `http_request` |
/// | a body that ends too early, or whose connection broke | `Transient` | `http_body` |
/// | a body that is not what it should be: JSON, compression | `Failure` | `http_decode` |
/// | a status, of `error_for_status` | as [`classify_status`](crate::http::classify_status) says; without its headers there is no hint | `http_503` |
/// | too many redirects, or one that the client's policy forbids | `Failure` | `http_redirect` |
/// | a request that cannot be built or is none of HTTP; a request's body stream that fails | `Ignored` | `http_builder`, `http_request_body` |
/// | an upgrade that fails, whatever else there may be | `Failure` | `http_upgrade`, `http_error` |
///
/// A handshake has failed if the client knows so before it sends: with TLS 1.3 a server that misses the client's
/// certificate says it later, which is a connection that broke. A stream that a server of HTTP/2 refuses is sent again by
/// reqwest itself, twice unless its `retry` is set otherwise; after that it counts as a connection that broke, too, since
/// reqwest does not tell it from one.
///
/// Where the operation is more than the request, it is a function for
/// [`classify_errors`](crate::PipelineBuilder::classify_errors):
///
/// ```
/// use withstand::{Pipeline, reqwest::classify_error};
///
/// # let client = reqwest::Client::new();
/// let users = Pipeline::standard("users-api").classify_errors(classify_error).build()?;
/// # let _ = async {
/// let user = users
///     .call(|| async { client.get("http://users.internal/7").send().await?.error_for_status()?.text().await })
///     .await;
/// # };
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[must_use]
pub fn classify_error(error: &Error) -> Classification {
    if let Some(status) = error.status() {
        return classify_status(status, &::http::HeaderMap::new());
    }
    if error.is_builder() {
        return Verdict::ignored().label("http_builder");
    }
    if error.is_redirect() {
        return Verdict::failure().label("http_redirect");
    }
    if error.is_dns() {
        return Verdict::unreached().label("http_dns");
    }
    // Before the timeouts: that of connecting is both.
    if error.is_connect() {
        return Verdict::unreached().label("http_connect");
    }
    if error.is_timeout() {
        return Verdict::transient().label("http_timeout");
    }
    if causes(error).any(is_of_the_caller) {
        return Verdict::ignored().label("http_request_body");
    }
    match error {
        _ if error.is_request() => Verdict::transient().label("http_request"),
        _ if error.is_body() => Verdict::transient().label("http_body"),
        _ if error.is_decode() && causes(error).any(is_of_the_connection) => Verdict::transient().label("http_body"),
        _ if error.is_decode() => Verdict::failure().label("http_decode"),
        _ if error.is_upgrade() => Verdict::failure().label("http_upgrade"),
        _ => Verdict::failure().label("http_error"),
    }
}

/// Whether it is an answer as it should be, and no failure already by its status.
pub(super) fn is_answer(response: &Response) -> bool {
    classify_status(response.status(), response.headers()).verdict().is_success()
}

/// The stream that was to be the request's body failed.
fn is_of_the_caller(cause: &(dyn StdError + 'static)) -> bool {
    cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user)
}

/// The body could not be read, whatever is in it.
fn is_of_the_connection(cause: &(dyn StdError + 'static)) -> bool {
    cause.is::<hyper::Error>()
        || cause.downcast_ref::<Error>().is_some_and(Error::is_body)
        || cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() != ErrorKind::InvalidData)
}
