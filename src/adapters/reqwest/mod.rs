//! reqwest (feature `reqwest`): a client with a pipeline for each host, and what reqwest's results mean.
//!
//! For reqwest 0.13, which is built without TLS and compression unless you ask for them: features of `reqwest` that your
//! own `Cargo.toml` turns on hold here too.

mod body;
mod builder;
mod classifier;
mod held;
mod host;
mod request;

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use ::http::{HeaderName, Method};
use ::reqwest::{Error as ReqwestError, IntoUrl, Request, Response};

pub use builder::ClientBuilder;
pub use classifier::{ReqwestClassifier, classify_error};
pub use host::Host;
pub use request::RequestBuilder;

use crate::{
    adapters::http::{IdempotencyKeys, call_options, remaining_millis},
    context::{Attempt, CallOptions, Idempotency},
    error::{ConfigError, Error},
    keyed::Keyed,
    name::Name,
    outcome::{Classify, Outcome},
    pipeline::{Pipeline, StandardLayers},
    policy::{Describe, Policy},
};
use held::Handover;

/// A [`reqwest::Client`](::reqwest::Client) whose every request goes through a pipeline, one for each host.
///
/// The line that makes the client changes; those that use it stay as they are, but for the error:
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = withstand::reqwest::Client::new("outbound", reqwest::Client::new())?;
///
/// let name = client.get("http://users.internal/7/name").send().await?.text().await?;
/// # Ok(())
/// # }
/// ```
///
/// It is cheap to clone, and clones are one and the same.
///
/// # What happens to a request
///
/// - It goes through the pipeline of its host: that of the scheme, the host and the port of its URL. Without
///   [`each_host`](ClientBuilder::each_host) that is the [standard](Pipeline::standard) one. So circuits, permits, retry
///   budgets and what a hedge has learnt belong to one host each, and a bad one does no harm to the others.
/// - Answers and errors are judged by [`ReqwestClassifier`]. `Retry-After` is heeded. An answer that is left when all
///   attempts are made comes as it is: a 503 is an `Ok`, as it is in reqwest.
/// - It is repeated and hedged only if that is [safe](crate::http::idempotency): by its method, or by an `Idempotency-Key`,
///   which is then the same each time. [`RequestBuilder::idempotency`] says otherwise. A POST is repeated all the same
///   after a connection that was refused, a 429, or a refusal by the pipeline, since then nothing was done.
/// - A body that cannot be sent twice, a stream, is sent once: it is neither repeated nor hedged, whatever the answer.
/// - Redirects are followed by reqwest within an attempt, and held against the host that was asked first.
///
/// # Timeouts
///
/// Those of the pipeline are the ones to use: the whole call, each attempt. reqwest's own limit each attempt too, and
/// come out as errors of reqwest.
///
/// # How much of the answer a call is about
///
/// [`Covers`] says until when permits are held, timeouts run, and what the circuit breaker is told. By default, as with
/// reqwest, that is the head: the body is read by the caller, outside of the call.
///
/// # Hosts
///
/// There are at most [`capacity`](ClientBuilder::capacity) pipelines, made when a host is first asked, and let go when
/// they are idle; see [`Keyed`] for which go, and for what happens if none can. All have the same name, so hosts are no
/// attribute of metrics. [`hosts`](Self::hosts) gives those that are there.
///
/// # Cancellation
///
/// Dropping the future of a call, or a response whose call covers the body, cancels the request and gives back what it
/// holds.
///
/// # Errors
///
/// reqwest's own error as it is, a timeout, or a rejection: [`Error<reqwest::Error>`](Error).
pub struct Client<P = StandardLayers, C = ReqwestClassifier> {
    inner: ::reqwest::Client,
    shared: Arc<Shared<P, C>>,
}

struct Shared<P, C> {
    name: Name,
    hosts: Keyed<Host, Pipeline<P, C>>,
    keys: IdempotencyKeys,
    defaults: Terms,
    deadline_header: Option<HeaderName>,
}

/// Until when a call lasts that a response is the answer to: until then permits are held and timeouts run, and what has
/// happened until then is its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Covers {
    /// Until the head is there, as reqwest's own `send` does. For streams that may go on for ever, and where a body that
    /// breaks is nobody's business but the caller's. The default.
    #[default]
    Head,
    /// Until the body is read, within each attempt: for answers that are small and wanted whole. A body that breaks is a
    /// failed attempt, which is repeated like any other. `send` gives a response that needs no more of the network.
    ///
    /// Of a body of more than `up_to` bytes the rest is left to the caller, as with `Head`. So is the body of an answer
    /// whose status is a failure already.
    BufferedBody {
        /// How many bytes are read and kept.
        up_to: usize,
    },
    /// Until the caller has read the body to its end: for large bodies that are processed as they come. `send` gives the
    /// response when its head is there, and the call goes on while the body is read. A body that breaks is its outcome: the
    /// circuit breaker counts it, and the reader gets the error. It is not repeated, since a part of it was seen already.
    ///
    /// All timeouts of the pipeline limit the body, those of an attempt too. The call makes progress only while the body is
    /// read: whoever holds on to a response holds its permit. A response that is dropped halfway is a cancelled call.
    ///
    /// Where a [`Hedge`](crate::Hedge) has sent a second request before the head was there, the call ends when both are
    /// answered.
    StreamedBody,
}

/// What a call is made with, unless its request says otherwise.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    covers: Covers,
    makes_keys: bool,
}

impl Client {
    /// A client whose hosts have the [standard](Pipeline::standard) pipeline each, under this name.
    ///
    /// # Errors
    ///
    /// If the name is blank.
    pub fn new(name: impl Into<Name>, inner: ::reqwest::Client) -> Result<Self, ConfigError> {
        Self::builder(name, inner).build()
    }

    /// Starts from the defaults: a standard pipeline for each host.
    pub fn builder(name: impl Into<Name>, inner: ::reqwest::Client) -> ClientBuilder {
        ClientBuilder::new(name.into(), inner)
    }
}

/// The ways to begin a request. They take what those of reqwest take.
macro_rules! methods {
    ($($method:ident $name:literal $constant:ident)+) => {
        $(
            #[doc = concat!("Begins a ", $name, " request.")]
            pub fn $method<U: IntoUrl>(&self, url: U) -> RequestBuilder<P, C> {
                self.request(Method::$constant, url)
            }
        )+
    };
}

impl<P, C> Client<P, C> {
    methods! {
        get "GET" GET
        post "POST" POST
        put "PUT" PUT
        patch "PATCH" PATCH
        delete "DELETE" DELETE
        head "HEAD" HEAD
    }

    /// Begins a request.
    pub fn request<U: IntoUrl>(&self, method: Method, url: U) -> RequestBuilder<P, C> {
        RequestBuilder::new(self.clone(), self.inner.request(method, url))
    }

    /// The client inside, for what is not to go through a pipeline.
    #[must_use]
    pub const fn inner(&self) -> &::reqwest::Client {
        &self.inner
    }

    /// The pipelines of the hosts: for an operator's page, to isolate or to reset one.
    ///
    /// ```no_run
    /// # fn example(client: withstand::reqwest::Client) {
    /// use withstand::Instance;
    ///
    /// for host in client.hosts().instances() {
    ///     if let Some(name) = Instance::key(&host) {
    ///         println!("{name}: {:?}", host.handle().snapshot());
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn hosts(&self) -> &Keyed<Host, Pipeline<P, C>> {
        &self.shared.hosts
    }
}

impl<P, C> Client<P, C>
where
    P: Policy<Response, ReqwestError> + Describe + 'static,
    C: Classify<Response, ReqwestError> + 'static,
{
    /// Sends a request through the pipeline of its host. Whether it may be repeated is told by its method and its
    /// `Idempotency-Key`; [`request`](Self::request) lets one say more.
    ///
    /// # Errors
    ///
    /// reqwest's own error, a timeout, or a rejection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request and gives back all that it holds.
    pub fn execute(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Response, Error<ReqwestError>>> + Send + use<P, C> {
        self.clone().send(request, self.shared.defaults, |options| options)
    }

    fn send(
        self,
        mut request: Request,
        terms: Terms,
        adjust: impl FnOnce(CallOptions) -> CallOptions + Send,
    ) -> impl Future<Output = Result<Response, Error<ReqwestError>>> + Send {
        async move {
            let Some(host) = Host::of(request.url()) else {
                // reqwest says what is wrong with it.
                return self.inner.execute(request).await.map_err(Error::Operation);
            };
            if terms.makes_keys && !request.method().is_idempotent() {
                self.shared.keys.ensure(request.headers_mut());
            }
            let mut options = adjust(call_options(request.method(), request.headers()));
            let source = Source::new(request);
            if source.is_single() {
                // Not hedged either.
                options = options.idempotency(Idempotency::Unsafe);
            }
            match terms.covers {
                Covers::StreamedBody => {
                    let handover = Arc::new(Handover::default());
                    let call = self.call(host, options, source, terms.covers, Some(Arc::clone(&handover)));
                    handover.run(Box::pin(call)).await
                }
                covers => self.call(host, options, source, covers, None).await,
            }
        }
    }

    fn call(
        self,
        host: Host,
        options: CallOptions,
        source: Source,
        covers: Covers,
        handover: Option<Arc<Handover>>,
    ) -> impl Future<Output = Result<Response, Error<ReqwestError>>> + Send {
        async move {
            let pipeline = self.shared.hosts.get(&host);
            let classifier = pipeline.classifier();
            let handover = handover.as_deref();
            let (client, source) = (&self, &source);
            let attempt = |attempt| async move {
                let request = source.next().filter(|_| !handover.is_some_and(Handover::is_done));
                let Some(request) = request else { return Handover::too_late() };
                let result = client.exchange(request, &attempt, covers).await;
                let classification = classifier.classify(result.as_ref());
                let outcome = match (result, handover) {
                    (Ok(response), Some(handover)) if classification.verdict().is_success() => {
                        handover.hold(response, classification, |error| classifier.classify(Err(error))).await
                    }
                    (result, _) => Outcome::new(result.map_err(Error::Operation), classification),
                };
                if source.is_single() { outcome.spent() } else { outcome }
            };
            pipeline.forward_with(options, attempt).await
        }
    }

    /// One attempt.
    async fn exchange(
        &self,
        mut request: Request,
        attempt: &Attempt,
        covers: Covers,
    ) -> Result<Response, ReqwestError> {
        if let Some((header, left)) = self.shared.deadline_header.as_ref().zip(remaining_millis(attempt)) {
            request.headers_mut().insert(header, left);
        }
        let response = self.inner.execute(request).await?;
        match covers {
            Covers::BufferedBody { up_to } if classifier::is_answer(&response) => body::buffered(response, up_to).await,
            _ => Ok(response),
        }
    }
}

/// The request of each attempt.
enum Source {
    /// As often as is wanted.
    Many(Request),
    /// Its body can be sent once.
    One(Mutex<Option<Request>>),
}

impl Source {
    fn new(request: Request) -> Self {
        match request.try_clone() {
            Some(_) => Self::Many(request),
            None => Self::One(Mutex::new(Some(request))),
        }
    }

    const fn is_single(&self) -> bool {
        matches!(self, Self::One(_))
    }

    fn next(&self) -> Option<Request> {
        match self {
            Self::Many(request) => request.try_clone(),
            Self::One(request) => request.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

impl<P, C> Clone for Client<P, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<P, C> fmt::Debug for Client<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
