//! Pipelines as layers of tower: around any [`Service`](tower_service::Service), a client or a server. With the feature
//! `tower`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{io, time::Duration};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use withstand::{CircuitBreaker, Pipeline, Retry, tower::PipelineLayer};
//!
//! let users = Pipeline::builder("users-api")
//!     .timeout(Duration::from_secs(4))
//!     .retry(Retry::builder())
//!     .circuit_breaker(CircuitBreaker::builder())
//!     .timeout(Duration::from_secs(1))
//!     .build()?;
//!
//! let client = ServiceBuilder::new()
//!     .layer(PipelineLayer::new(users))
//!     .service(service_fn(|id: u32| async move { Ok::<_, io::Error>(format!("user {id}")) }));
//!
//! assert_eq!(client.oneshot(7).await?, "user 7"); // or a `withstand::Error<io::Error>`
//! # Ok(())
//! # }
//! ```
//!
//! The pipeline's classifier judges each `Result<&Response, &Error>` of the service. All services that one layer makes,
//! and all their clones, share the pipeline: its circuit breaker, its bulkhead, its budget.
//!
//! # Requests
//!
//! A service takes its request by value, so whoever may send it again has to keep one.
//!
//! | layer | for | requests | copies |
//! |---|---|---|---|
//! | [`PipelineLayer::new`] | any pipeline | of one type that is `Clone` | one for each attempt that is sent, if a retry or a hedge is around it; otherwise none |
//! | [`PipelineLayer::guard`] | pipelines in which no layer repeats, which the compiler checks | any | none |
//! | [`PipelineLayer::with_requests`] | any pipeline | any | as you say; what cannot be copied is neither retried nor hedged |
//!
//! A copy is made as late as can be, when the service is ready for it. A call that the circuit breaker refuses, or that
//! waits for a permit in vain, makes none.
//!
//! # Readiness
//!
//! A service tells in `poll_ready` whether it can take a request, and may reserve what that takes.
//!
//! - The layer's own `poll_ready` is always ready. It asks nothing of the service inside and holds nothing, so an idle
//!   clone hoards no permit, no probe slot and no connection.
//! - Each attempt takes a clone of the service, waits until that clone is ready, and calls it: attempts run one after
//!   the other, or beside each other, and no service is called that is not ready. So the service is `Clone`; around one
//!   that is not, put a `tower::buffer::Buffer`.
//! - The wait is part of the attempt. Its timeout counts it, a circuit breaker sees it as slowness, and whatever was
//!   reserved goes back when the attempt is dropped.
//! - A service that fails in `poll_ready` has failed the attempt with that error, which goes to the classifier. The next
//!   attempt takes a new clone.
//!
//! What this gives up is backpressure by readiness: a caller is not told to wait before it has a request, it is told so
//! by the outcome. The [`Bulkhead`](crate::Bulkhead) says how many run and how many wait, and refuses the rest at once.
//! Among the layers of tower:
//!
//! | layer | outside of the pipeline | inside |
//! |---|---|---|
//! | `ConcurrencyLimit` | bounds the calls, waits and retries included | its queue is time of the attempt: a `Bulkhead` tells a full house from a slow service |
//! | `LoadShed` | never sheds, as the pipeline is always ready: a `Bulkhead` does | sheds what the service is not ready for; its `Overloaded` deserves `Verdict::rejected()` |
//! | `Buffer`, `RateLimit` in one | as usual | an attempt waits for its place |
//! | `Timeout` | ends the call from outside, which is no failure to a circuit breaker: use the pipeline's | as usual |
//! | `Retry`, `Hedge` | repeat whole calls, rejections too: use the pipeline's | as usual |
//!
//! # Errors
//!
//! The service's error `E` becomes [`Error<E>`](crate::Error), which is a `std::error::Error` if `E` is one. Layers of
//! tower whose error is a `BoxError` go on with [`Error::boxed`](crate::Error::boxed):
//! `ServiceBuilder::new().map_err(withstand::Error::boxed).layer(PipelineLayer::new(users))`. In axum, where no error may
//! be left over, a `HandleErrorLayer` goes outside of this one and makes a response of it.
//!
//! # Cost
//!
//! Each call allocates its future, once, since no service can name it. It clones the service once, and once more for
//! each attempt if a layer may repeat.
//!
//! # Cancellation
//!
//! Dropping the response's future cancels what is under way and gives back all that it holds. A future that is never
//! polled does nothing, and is no call. The call ends with the response: what is streamed after it, such as a body, is
//! outside of it.

mod attempt;
mod requests;
mod service;

use std::{fmt, sync::Arc};

use tower_layer::Layer;

pub use requests::{CloneRequests, PrepareRequest, Repeatable, SingleRequest, WithCallOptions};
pub use service::{PipelineFuture, PipelineService};

use crate::{context::CallOptions, outcome::DefaultClassifier, pipeline::Pipeline, policy::SingleAttempt};

/// Puts a pipeline around services. See the [module](self).
///
/// Its clones, and the services that it makes, share the pipeline. `R` says how it deals with requests; most have no need
/// to name it.
pub struct PipelineLayer<P, C = DefaultClassifier, R = SingleRequest> {
    pipeline: Arc<Pipeline<P, C>>,
    requests: Arc<R>,
}

impl<P, C, Req> PipelineLayer<P, C, CloneRequests<Req>> {
    /// A layer for requests of one type that is `Clone`, whatever the pipeline. It takes the pipeline, or an `Arc` that
    /// others share.
    ///
    /// Each attempt that is sent takes a clone of the request, if a retry or a hedge is around it; otherwise none is
    /// made.
    pub fn new(pipeline: impl Into<Arc<Pipeline<P, C>>>) -> Self
    where
        CloneRequests<Req>: Repeatable<Req>,
    {
        Self::with_requests(pipeline, CloneRequests::cloning())
    }
}

impl<P, C> PipelineLayer<P, C, SingleRequest> {
    /// A layer for any requests, which are sent once: with a [`Retry`](crate::Retry) or a [`Hedge`](crate::Hedge) in the
    /// pipeline this does not compile.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::{io, time::Duration};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use withstand::{Bulkhead, Pipeline, tower::PipelineLayer};
    ///
    /// struct Upload(Vec<u8>); // not `Clone`
    ///
    /// let uploads = Pipeline::builder("uploads")
    ///     .timeout(Duration::from_secs(30))
    ///     .bulkhead(Bulkhead::builder().limit(8))
    ///     .build()?;
    /// let store = ServiceBuilder::new()
    ///     .layer(PipelineLayer::guard(uploads))
    ///     .service(service_fn(|upload: Upload| async move { Ok::<_, io::Error>(upload.0.len()) }));
    /// assert_eq!(store.oneshot(Upload(vec![0; 7])).await?, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn guard(pipeline: impl Into<Arc<Pipeline<P, C>>>) -> Self
    where
        P: SingleAttempt,
    {
        Self::with_requests(pipeline, SingleRequest)
    }
}

impl<P, C, R> PipelineLayer<P, C, R> {
    /// A layer that deals with requests as you say: with a function that copies one if it can, or with a
    /// [`PrepareRequest`] of your own.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::io;
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use withstand::{Pipeline, tower::PipelineLayer};
    ///
    /// enum Body { Bytes(Vec<u8>), Stream(Box<dyn io::Read + Send>) }
    /// impl Body {
    ///     fn try_clone(&self) -> Option<Self> {
    ///         match self {
    ///             Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
    ///             Self::Stream(_) => None, // sent once, and neither retried nor hedged
    ///         }
    ///     }
    /// }
    ///
    /// let service = ServiceBuilder::new()
    ///     .layer(PipelineLayer::with_requests(Pipeline::standard("store").build()?, Body::try_clone))
    ///     .service(service_fn(|_: Body| async { Ok::<_, io::Error>("stored") }));
    /// assert_eq!(service.oneshot(Body::Bytes(vec![7])).await?, "stored");
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_requests(pipeline: impl Into<Arc<Pipeline<P, C>>>, requests: R) -> Self {
        Self { pipeline: pipeline.into(), requests: Arc::new(requests) }
    }

    /// With a function that gives the options of the call for each request: deadline, priority, and whether it may be
    /// repeated. It is asked when the call is first polled. Default: [`CallOptions::new`].
    ///
    /// For HTTP there is one (feature `http`), which goes by the method and an idempotency key:
    /// `.call_options(|request: &Request<Body>| http::call_options(request.method(), request.headers()))`.
    ///
    /// ```
    /// use withstand::{CallOptions, Idempotency, Pipeline, tower::PipelineLayer};
    ///
    /// #[derive(Clone)]
    /// enum Command { Get(u32), Pay(u32) }
    ///
    /// let layer = PipelineLayer::new(Pipeline::standard("shop").build()?).call_options(|command: &Command| match command {
    ///     Command::Get(_) => CallOptions::new(),
    ///     Command::Pay(_) => CallOptions::new().idempotency(Idempotency::Unsafe),
    /// });
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    pub fn call_options<Req, F>(self, options: F) -> PipelineLayer<P, C, WithCallOptions<R, F>>
    where
        R: PrepareRequest<Req>,
        F: Fn(&Req) -> CallOptions,
    {
        let requests = Arc::new(WithCallOptions { requests: self.requests, options });
        PipelineLayer { pipeline: self.pipeline, requests }
    }

    /// The pipeline, to look after it or to share it.
    #[must_use]
    pub fn pipeline(&self) -> &Arc<Pipeline<P, C>> {
        &self.pipeline
    }
}

impl<S, P, C, R> Layer<S> for PipelineLayer<P, C, R> {
    type Service = PipelineService<S, P, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        PipelineService::new(inner, self.clone())
    }
}

impl<P, C, R> Clone for PipelineLayer<P, C, R> {
    fn clone(&self) -> Self {
        Self { pipeline: self.pipeline.clone(), requests: self.requests.clone() }
    }
}

impl<P, C, R> fmt::Debug for PipelineLayer<P, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineLayer").field("pipeline", self.pipeline.name()).finish_non_exhaustive()
    }
}
