//! The deadline of a request, from its header to the calls that its handler makes.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use axum_core::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, Request, StatusCode, request::Parts};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    ambient::{Ambient, Within},
    build::FOREVER,
    clock::moment_of,
    deadline::Deadline,
    error::ConfigError,
};

/// Ends a handler when the time is up that its client has left, and lets all calls in it know that time: for
/// `axum::Router::layer`, and for every other tower service of HTTP requests.
///
/// ```
/// # fn main() -> Result<(), withstand::ConfigError> {
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use withstand::{DeadlineLayer, RequestDeadline};
///
/// let deadlines = DeadlineLayer::from_header("x-request-timeout-ms")
///     .at_most(Duration::from_secs(10))
///     .default_timeout(Duration::from_secs(2))
///     .build()?;
/// let app: Router = Router::new()
///     .route("/", get(async |deadline: RequestDeadline| format!("{:?} left", deadline.remaining())))
///     .layer(deadlines);
/// # Ok(())
/// # }
/// ```
///
/// # The header
///
/// | value | the time that is left |
/// |---|---|
/// | `250`, `250m`, `2S`: see [`Deadline::parse_timeout`] | so long from the arrival of the request, but no longer than [`at_most`](DeadlineLayerBuilder::at_most) |
/// | zero or negative | none: answered by 504, and the handler is not called |
/// | missing, or none of these | the [`default_timeout`](DeadlineLayerBuilder::default_timeout); without one the request has no deadline |
/// | several | the shortest of those that can be read |
///
/// # When the time is up
///
/// The handler is dropped at its current await point, with all calls that it has under way, and the client is answered by
/// 504 Gateway Timeout. A handler that is ready by then is heard. The body of a response that has begun is not limited.
///
/// Calls in the handler see the deadline without being told: see [`Deadline`], also for what they pass on to the next
/// service. So does what runs inside this layer, and not what is spawned: that can be given [`RequestDeadline`].
///
/// # Options
///
/// | option | range | default | why |
/// |---|---|---|---|
/// | header | a header's name | required | there is no standard one; `grpc-timeout` is that of gRPC |
/// | [`at_most`](DeadlineLayerBuilder::at_most) | more than 0, up to thirty years | 60 s | a client must not hold a handler for a day; load balancers cut at this by default |
/// | [`default_timeout`](DeadlineLayerBuilder::default_timeout) | more than 0, up to `at_most` | none | whether clients that say nothing are in a hurry only you know |
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    settings: Arc<Settings>,
}

#[derive(Debug)]
struct Settings {
    header: HeaderName,
    at_most: Duration,
    default_timeout: Option<Duration>,
}

impl DeadlineLayer {
    /// A layer that takes the time from this header. Upper and lower case are the same.
    pub fn from_header(name: impl Into<String>) -> DeadlineLayerBuilder {
        DeadlineLayerBuilder { header: name.into(), at_most: Duration::from_secs(60), default_timeout: None }
    }
}

/// Builds a [`DeadlineLayer`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct DeadlineLayerBuilder {
    header: String,
    at_most: Duration,
    default_timeout: Option<Duration>,
}

impl DeadlineLayerBuilder {
    /// The longest time that a client can ask for; more is taken for this. Default: 60 s.
    pub const fn at_most(mut self, time: Duration) -> Self {
        self.at_most = time;
        self
    }

    /// The time of requests that say none. Default: they have no deadline.
    pub const fn default_timeout(mut self, time: Duration) -> Self {
        self.default_timeout = Some(time);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If the header has no valid name, or a time is out of its range; the error names it.
    pub fn build(self) -> Result<DeadlineLayer, ConfigError> {
        let Self { header, at_most, default_timeout } = self;
        let name = HeaderName::try_from(header.as_str());
        let header =
            name.map_err(|_| ConfigError::new("header", format!("{header:?}"), "the name of an HTTP header"))?;
        if at_most.is_zero() || at_most > FOREVER {
            let accepted = "more than 0s and at most 30 years";
            return Err(ConfigError::new("at_most", format!("{at_most:?}"), accepted));
        }
        if let Some(time) = default_timeout.filter(|time| time.is_zero() || *time > at_most) {
            let accepted = "more than 0s and no more than at_most";
            return Err(ConfigError::new("default_timeout", format!("{time:?}"), accepted));
        }
        Ok(DeadlineLayer { settings: Arc::new(Settings { header, at_most, default_timeout }) })
    }
}

impl Settings {
    /// The time that a request has.
    fn time(&self, headers: &HeaderMap) -> Option<Duration> {
        let values = headers.get_all(&self.header).iter();
        let asked = values.filter_map(|value| Deadline::parse_timeout(value.to_str().ok()?)).min();
        asked.or(self.default_timeout).map(|time| time.min(self.at_most))
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService { settings: Arc::clone(&self.settings), inner }
    }
}

/// A service with a deadline for each request: see [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    settings: Arc<Settings>,
    inner: S,
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>>,
    S::Response: IntoResponse,
{
    type Response = Response;
    type Error = S::Error;
    type Future = DeadlineResponse<S::Future>;

    fn poll_ready(&mut self, task: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(time) = self.settings.time(request.headers()) else {
            return DeadlineResponse {
                timer: None,
                deadline: None,
                handler: Some(self.handler(Ambient::NONE, request)),
            };
        };
        let deadline = Deadline::after(time);
        request.extensions_mut().insert(RequestDeadline(Some(deadline)));
        let handler =
            (!time.is_zero()).then(|| self.handler(Ambient::deadline(moment_of(deadline.instant())), request));
        DeadlineResponse { timer: None, deadline: Some(deadline), handler }
    }
}

impl<S> DeadlineService<S> {
    fn handler<B>(&mut self, ambient: Ambient, request: Request<B>) -> Within<S::Future>
    where
        S: Service<Request<B>>,
    {
        let future = Ambient::current().narrowed(ambient).around(|| self.inner.call(request));
        Within { ambient, future }
    }
}

pin_project! {
    /// The response to come of a [`DeadlineService`].
    #[must_use = "a future does nothing unless it is polled"]
    pub struct DeadlineResponse<F> {
        // Made when the handler is first pending.
        #[pin]
        timer: Option<Sleep>,
        deadline: Option<Deadline>,
        // None once the time is up.
        #[pin]
        handler: Option<Within<F>>,
    }
}

impl<F, R, E> Future for DeadlineResponse<F>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(handler) = this.handler.as_mut().as_pin_mut() else { return Poll::Ready(Ok(too_late())) };
        if let Poll::Ready(response) = handler.poll(task) {
            return Poll::Ready(response.map(IntoResponse::into_response));
        }
        let Some(deadline) = this.deadline else { return Poll::Pending };
        if this.timer.is_none() {
            this.timer.set(Some(sleep_until(deadline.instant())));
        }
        let is_up = this.timer.as_pin_mut().is_some_and(|timer| timer.poll(task).is_ready());
        if !is_up {
            return Poll::Pending;
        }
        this.handler.set(None);
        Poll::Ready(Ok(too_late()))
    }
}

impl<F> std::fmt::Debug for DeadlineResponse<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadlineResponse").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

fn too_late() -> Response {
    (StatusCode::GATEWAY_TIMEOUT, "the deadline of the request has passed").into_response()
}

/// The deadline that a [`DeadlineLayer`] has given a request: an extractor for handlers that want to know it, or to pass
/// it on to a task of their own. Calls in the handler need not be told.
///
/// ```
/// use withstand::RequestDeadline;
///
/// async fn handler(deadline: RequestDeadline) -> String {
///     match deadline.deadline() {
///         // Calls in a task that is spawned see it only if it is taken along.
///         Some(at) => tokio::spawn(at.scope(async { "done".to_owned() })).await.unwrap_or_default(),
///         None => "no hurry".to_owned(),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDeadline(Option<Deadline>);

impl RequestDeadline {
    /// The deadline; none if the request said none, no default is set, or there is no such layer.
    #[must_use]
    pub const fn deadline(self) -> Option<Deadline> {
        self.0
    }

    /// The time that is left; zero if none is. Reads the clock.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(Deadline::remaining)
    }
}

impl<S: Sync> FromRequestParts<S> for RequestDeadline {
    type Rejection = Infallible;

    fn from_request_parts(parts: &mut Parts, _: &S) -> impl Future<Output = Result<Self, Infallible>> + Send {
        std::future::ready(Ok(parts.extensions.get().copied().unwrap_or_default()))
    }
}
