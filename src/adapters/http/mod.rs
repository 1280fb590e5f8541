//! HTTP (feature `http`): what an answer means, what a request may be repeated, and the headers that go with it.
//!
//! All of it is made for the types of the `http` crate, which hyper, axum, tonic and reqwest share.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use http::{Method, Request, Response};
//! use withstand::{Pipeline, http::{HttpClassifier, IdempotencyKeys, call_options}};
//!
//! # struct Client;
//! # impl Client {
//! #     async fn send(&self, _: Request<&'static str>) -> Result<Response<&'static str>, std::io::Error> {
//! #         Ok(Response::new("paid"))
//! #     }
//! # }
//! # let client = Client;
//! let payments = Pipeline::standard("payments").classifier(HttpClassifier::new()).build()?;
//! let keys = IdempotencyKeys::new();
//!
//! let mut request = Request::post("http://payments.internal/").body("7 EUR")?;
//! // A POST may be repeated only if the service sees that it is the same one: the key is made once, for all attempts.
//! keys.ensure(request.headers_mut());
//! let options = call_options(request.method(), request.headers());
//! let answer = payments.call_with(options, |_attempt| client.send(request.clone())).await?;
//! assert_eq!(answer.into_body(), "paid");
//! # Ok(())
//! # }
//! ```

mod request;
mod retry_after;

use ::http::{HeaderMap, Response, StatusCode};

pub use request::{IDEMPOTENCY_KEY, IdempotencyKeys, call_options, idempotency, remaining_millis};
pub use retry_after::{LONGEST_RETRY_AFTER, retry_after, retry_after_at};

use crate::outcome::{Classification, Classify, ClassifyErrors, DefaultClassifier, Verdict};

/// The verdict about a response: for the [`classifier`](crate::PipelineBuilder::classifier) of a pipeline whose operation
/// gives a `Result<http::Response<B>, E>`, with any body.
///
/// Responses go by [`classify_status`]. What an error means the `http` crate cannot know: every one is
/// [`Transient`](Verdict::Transient) unless you say otherwise with [`errors`](Self::errors). Say which errors are
/// [`Unreached`](Verdict::Unreached), that is no connection at all, or a POST will not be repeated after them:
///
/// ```
/// use withstand::{Pipeline, StandardLayers, ClassifyErrors, Verdict, http::HttpClassifier};
/// # enum ClientError { Connect, Reset }
///
/// fn verdict(error: &ClientError) -> Verdict { // of hyper-util's client: `error.is_connect()`
///     match error {
///         ClientError::Connect => Verdict::unreached(),
///         ClientError::Reset => Verdict::transient(),
///     }
/// }
/// let users = Pipeline::standard("users-api").classifier(HttpClassifier::new().errors(verdict)).build()?;
/// # let _ = async || users.call(|| async { Err::<http::Response<()>, _>(ClientError::Connect) }).await;
///
/// // A function pointer makes a type that a struct's field can have.
/// type Users = Pipeline<StandardLayers, HttpClassifier<ClassifyErrors<fn(&ClientError) -> Verdict>>>;
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpClassifier<C = DefaultClassifier> {
    errors: C,
}

impl HttpClassifier {
    /// Responses by their status; every error is transient.
    #[must_use]
    pub const fn new() -> Self {
        Self { errors: DefaultClassifier }
    }
}

impl<C> HttpClassifier<C> {
    /// The same, with the verdict about each error given by a function.
    pub fn errors<E, R, F>(self, classify: F) -> HttpClassifier<ClassifyErrors<F>>
    where
        F: Fn(&E) -> R,
        R: Into<Classification>,
    {
        self.errors_by(ClassifyErrors(classify))
    }

    /// The same, with the verdict about each error given by a classifier, which is never asked about a response.
    pub fn errors_by<D>(self, classifier: D) -> HttpClassifier<D> {
        HttpClassifier { errors: classifier }
    }
}

impl<B, E, C: Classify<Response<B>, E>> Classify<Response<B>, E> for HttpClassifier<C> {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Classification {
        match result {
            Ok(response) => classify_status(response.status(), response.headers()),
            Err(_) => self.errors.classify(result),
        }
    }
}

/// The verdict about a status and the headers that came with it, for classifiers of your own.
///
/// | status | verdict | since |
/// |---|---|---|
/// | 1xx, 2xx, 3xx | `Success` | |
/// | 408, 425, 500, 502, 503, 504 | `Transient`, with `Retry-After` | it may be better the next time |
/// | 429 | `Throttled`, with `Retry-After` | the service is up and asks for less |
/// | the other 4xx | `Success` | the service works, and has answered as it should |
/// | 501 and the other 5xx | `Failure` | it will fail again |
/// | 600 to 999, which HTTP does not have | `Failure` | RFC 9110 has them treated as 5xx |
///
/// The label is that of the status, `http_503`, for each status that is registered at IANA; others share `http_1xx` to
/// `http_5xx` and `http_other`. So it is fit to be an attribute of metrics, whatever a server sends.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use withstand::{Classification, Verdict, http::classify_status};
///
/// // This API answers 409 while another request of the same user is at work, and 500 for what it will never do.
/// fn classify(status: StatusCode, headers: &HeaderMap) -> Classification {
///     match status.as_u16() {
///         409 => Verdict::transient().label("http_409"),
///         500 => Verdict::failure().label("http_500"),
///         _ => classify_status(status, headers),
///     }
/// }
/// assert_eq!(classify_status(StatusCode::BAD_GATEWAY, &HeaderMap::new()), Verdict::transient().label("http_502"));
/// ```
#[must_use]
pub fn classify_status(status: StatusCode, headers: &HeaderMap) -> Classification {
    let code = status.as_u16();
    let verdict = match code {
        408 | 425 | 500 | 502 | 503 | 504 => Verdict::transient().retry_after(retry_after(headers)),
        429 => Verdict::throttled().retry_after(retry_after(headers)),
        ..500 => Verdict::success(),
        500.. => Verdict::failure(),
    };
    verdict.label(label(code))
}

macro_rules! label {
    ($code:expr; $($registered:literal)+) => {
        match $code {
            $($registered => concat!("http_", $registered),)+
            ..200 => "http_1xx",
            200..300 => "http_2xx",
            300..400 => "http_3xx",
            400..500 => "http_4xx",
            500..600 => "http_5xx",
            600.. => "http_other",
        }
    };
}

/// The label of a status: one for each that is registered, so that there are few whatever a server sends.
const fn label(code: u16) -> &'static str {
    label!(code;
        100 101 102 103
        200 201 202 203 204 205 206 207 208 226
        300 301 302 303 304 305 307 308
        400 401 402 403 404 405 406 407 408 409 410 411 412 413 414 415 416 417 418 421 422 423 424 425 426 428 429 431
        451
        500 501 502 503 504 505 506 507 508 510 511
    )
}
