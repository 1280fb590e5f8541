//! What a layer has to know about requests: whether they can be copied, and with which options they are called.

use std::{fmt, sync::Arc};

use crate::context::{Attempt, CallOptions};

/// How a [`PipelineLayer`](super::PipelineLayer) deals with requests.
///
/// A function `Fn(&Req) -> Option<Req>` is one: it copies a request, if it can. A type of your own can do more, and can be
/// named:
///
/// ```
/// use withstand::{Attempt, CallOptions, Idempotency, tower::PrepareRequest};
///
/// #[derive(Clone)]
/// struct Request { path: &'static str, writes: bool, timeout_ms: Option<u128> }
///
/// struct Outbound;
/// impl PrepareRequest<Request> for Outbound {
///     fn call_options(&self, request: &Request) -> CallOptions {
///         let idempotency = if request.writes { Idempotency::Unsafe } else { Idempotency::Safe };
///         CallOptions::new().idempotency(idempotency)
///     }
///
///     fn clone_request(&self, request: &Request) -> Option<Request> {
///         Some(request.clone())
///     }
///
///     fn prepare(&self, request: &mut Request, attempt: Attempt) {
///         request.timeout_ms = attempt.remaining().map(|left| left.as_millis()); // the time that is left, sent downstream
///     }
/// }
/// ```
///
/// These methods run as part of the operation: if one panics, that is the operation's panic.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how to send a `{Req}` more than once",
    note = "it is a function `Fn(&{Req}) -> Option<{Req}>`, or a type with `impl PrepareRequest<{Req}> for ..`"
)]
pub trait PrepareRequest<Req>: Send + Sync {
    /// The options of the call for this request. It is asked once, when the call is first polled. Default:
    /// [`CallOptions::new`].
    fn call_options(&self, request: &Req) -> CallOptions {
        let _ = request;
        CallOptions::new()
    }

    /// Copies the request for an attempt, so that there can be another one. It is asked for each attempt that may be one
    /// of several, when the service is ready for it.
    ///
    /// With none the attempt gets the request itself, and is the last: whatever becomes of it, the call is neither retried
    /// nor hedged.
    fn clone_request(&self, request: &Req) -> Option<Req>;

    /// Changes the request of an attempt right before it is sent: the time that is left, the number of the attempt.
    /// Default: nothing.
    fn prepare(&self, request: &mut Req, attempt: Attempt) {
        let _ = (request, attempt);
    }
}

/// Requests that are `Clone`. See [`PipelineLayer::new`](super::PipelineLayer::new).
//
// With a pointer to their `clone`, so that `new` alone asks for it: there the compiler can say what is missing, which it
// does not where it looks for the `call` of a service.
pub struct CloneRequests<Req>(fn(&Req) -> Req);

/// That requests can be sent more than once: all that are `Clone`. It is there for what the compiler says of others.
#[diagnostic::on_unimplemented(
    message = "`{Req}` cannot be sent more than once: it is not `Clone`",
    label = "a layer of the pipeline may repeat it",
    note = "a pipeline without `Retry` and `Hedge` takes any request: `PipelineLayer::guard(pipeline)`",
    note = "what can be copied in another way: `PipelineLayer::with_requests(pipeline, |request: &{Req}| ..)`"
)]
pub trait Repeatable<Req> {
    /// What clones them.
    fn cloning() -> CloneRequests<Req>;
}

// Otherwise the compiler asks for `Clone` alone, and does not say what else could be done.
#[diagnostic::do_not_recommend]
impl<Req: Clone> Repeatable<Req> for CloneRequests<Req> {
    fn cloning() -> Self {
        Self(Req::clone)
    }
}

impl<Req> PrepareRequest<Req> for CloneRequests<Req> {
    fn clone_request(&self, request: &Req) -> Option<Req> {
        Some((self.0)(request))
    }
}

impl<Req> fmt::Debug for CloneRequests<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CloneRequests")
    }
}

/// Requests that are sent once. See [`PipelineLayer::guard`](super::PipelineLayer::guard).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SingleRequest;

impl<Req> PrepareRequest<Req> for SingleRequest {
    fn clone_request(&self, _: &Req) -> Option<Req> {
        None
    }
}

impl<Req, F: Fn(&Req) -> Option<Req> + Send + Sync> PrepareRequest<Req> for F {
    fn clone_request(&self, request: &Req) -> Option<Req> {
        self(request)
    }
}

/// Requests whose call options a function gives. See [`PipelineLayer::call_options`](super::PipelineLayer::call_options).
pub struct WithCallOptions<R, F> {
    pub(super) requests: Arc<R>,
    pub(super) options: F,
}

impl<Req, R: PrepareRequest<Req>, F: Fn(&Req) -> CallOptions + Send + Sync> PrepareRequest<Req>
    for WithCallOptions<R, F>
{
    fn call_options(&self, request: &Req) -> CallOptions {
        (self.options)(request)
    }

    fn clone_request(&self, request: &Req) -> Option<Req> {
        self.requests.clone_request(request)
    }

    fn prepare(&self, request: &mut Req, attempt: Attempt) {
        self.requests.prepare(request, attempt);
    }
}

impl<R, F> fmt::Debug for WithCallOptions<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WithCallOptions")
    }
}
