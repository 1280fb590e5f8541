//! The operation of a call to a service: a clone of it is made ready, and called with a copy of the request.

use std::{
    future::{Future, poll_fn},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tower_service::Service;

use super::PrepareRequest;
use crate::{
    call::{AttemptReport, InOperation, judged},
    context::Context,
    error::{Reason, Rejection},
    name::Name,
    outcome::{Classify, Outcome},
    policy::Operation,
};

/// One request to a service, which its attempts share.
pub(super) struct Requested<'a, S, Req, R, C> {
    // Never contended: one task polls a call at a time. It is there for services and requests that are not `Sync`.
    unsent: Mutex<Unsent<S, Req>>,
    requests: &'a R,
    classifier: &'a C,
}

/// What further attempts are made of.
struct Unsent<S, Req> {
    /// As it was cloned for this call, never asked whether it is ready.
    service: Option<S>,
    request: Option<Req>,
}

impl<'a, S, Req, R, C> Requested<'a, S, Req, R, C> {
    pub(super) fn new(service: S, request: Req, requests: &'a R, classifier: &'a C) -> Self {
        let unsent = Unsent { service: Some(service), request: Some(request) };
        Self { unsent: Mutex::new(unsent), requests, classifier }
    }

    fn unsent(&self) -> MutexGuard<'_, Unsent<S, Req>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A service for this attempt alone; none if this was to be the only attempt, and is not.
    fn service(&self, cx: Context<'_>) -> Option<S>
    where
        S: Clone,
    {
        let mut unsent = self.unsent();
        if cx.is_repeated() { unsent.service.clone() } else { unsent.service.take() }
    }

    /// The request of this attempt; none if an attempt before it had to take it away.
    fn request(&self, cx: Context<'_>) -> Option<Req>
    where
        R: PrepareRequest<Req>,
    {
        let mut unsent = self.unsent();
        let copy = if cx.is_repeated() { self.requests.clone_request(unsent.request.as_ref()?) } else { None };
        copy.or_else(|| {
            cx.use_up();
            unsent.request.take()
        })
    }

    /// The response, or the service's error; none if there is nothing left to send.
    async fn send(&self, cx: Context<'_>) -> Option<Result<S::Response, S::Error>>
    where
        S: Service<Req> + Clone + Send,
        S::Future: Send,
        Req: Send,
        R: PrepareRequest<Req>,
        C: Sync,
    {
        let mut service = self.service(cx)?;
        if let Err(error) = poll_fn(|task| service.poll_ready(task)).await {
            return Some(Err(error));
        }
        // Not earlier: an attempt that ends while the service is not ready leaves the request where it is.
        let mut request = self.request(cx)?;
        self.requests.prepare(&mut request, cx.to_attempt());
        let response = service.call(request);
        drop(service);
        Some(response.await)
    }
}

impl<S, Req, R, C> Operation<S::Response, S::Error> for &Requested<'_, S, Req, R, C>
where
    S: Service<Req> + Clone + Send,
    S::Response: Send,
    S::Error: Send,
    S::Future: Send,
    Req: Send,
    R: PrepareRequest<Req>,
    C: Classify<S::Response, S::Error>,
{
    fn attempt(self, cx: Context<'_>) -> impl Future<Output = Outcome<S::Response, S::Error>> + Send {
        let mut report = AttemptReport::new(cx);
        async move {
            if cx.is_used_up() {
                return already_sent();
            }
            if report.begin().is_none() {
                return Outcome::refused_as_late(cx, None);
            }
            if let Some(result) = InOperation::new(&report.cx, |_| self.send(cx)).await {
                return judged(self.classifier, result, &mut report);
            }
            let refused = already_sent();
            report.finish(refused.kind(), refused.label());
            refused
        }
    }
}

#[cold]
fn already_sent<T, E>() -> Outcome<T, E> {
    Outcome::rejected(Rejection::new(Name::new("request"), Reason::AlreadyAttempted))
}
