//! A service with a pipeline around it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{self, Poll},
};

use tower_service::Service;

use super::{PipelineLayer, PrepareRequest, SingleRequest, attempt::Requested};
use crate::{
    error::Error,
    outcome::{Classify, DefaultClassifier},
    policy::Policy,
};

/// A service with a pipeline around it, made by a [`PipelineLayer`]. See the [module](super).
///
/// Its clones share the pipeline. It is always ready, and holds nothing between calls.
pub struct PipelineService<S, P, C = DefaultClassifier, R = SingleRequest> {
    /// Never asked whether it is ready, and never called: its clones are.
    inner: S,
    layer: PipelineLayer<P, C, R>,
}

impl<S, P, C, R> PipelineService<S, P, C, R> {
    pub(super) fn new(inner: S, layer: PipelineLayer<P, C, R>) -> Self {
        Self { inner, layer }
    }
}

impl<S, Req, P, C, R> Service<Req> for PipelineService<S, P, C, R>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    Req: Send + 'static,
    P: Policy<S::Response, S::Error> + 'static,
    C: Classify<S::Response, S::Error> + 'static,
    R: PrepareRequest<Req> + 'static,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = PipelineFuture<S::Response, S::Error>;

    /// Ready, always: each attempt waits for the service itself.
    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (service, PipelineLayer { pipeline, requests }) = (self.inner.clone(), self.layer.clone());
        PipelineFuture(Box::pin(async move {
            let options = requests.call_options(&request);
            let requested = Requested::new(service, request, &*requests, pipeline.classifier());
            pipeline.operate(options, requested).await
        }))
    }
}

impl<S: Clone, P, C, R> Clone for PipelineService<S, P, C, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, P, C, R> fmt::Debug for PipelineService<S, P, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineService").field("layer", &self.layer).field("inner", &self.inner).finish()
    }
}

/// The response of a [`PipelineService`], or why there is none. Dropping it cancels the call.
pub struct PipelineFuture<T, E>(Pin<Box<dyn Future<Output = Result<T, Error<E>>> + Send>>);

impl<T, E> Future for PipelineFuture<T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<T, E> fmt::Debug for PipelineFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PipelineFuture")
    }
}
