//! A request to be sent by a [`Client`].

use std::{fmt, future::Future};

use ::http::{HeaderMap, HeaderName, HeaderValue, Version};
use ::reqwest::{Body, Error as ReqwestError, Request, Response};
use serde::Serialize;
use tokio::time::Instant;

use super::{Client, Covers, ReqwestClassifier, Terms};
use crate::{
    context::{Idempotency, Priority},
    error::Error,
    outcome::Classify,
    pipeline::StandardLayers,
    policy::{Describe, Policy},
};

/// A request, and how it is to be called: [reqwest's own builder](::reqwest::RequestBuilder) with a few words more.
///
/// What is missing of reqwest's is reached by [`map`](Self::map):
///
/// ```no_run
/// # async fn example(client: withstand::reqwest::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use withstand::{Priority, reqwest::Covers};
///
/// let report = client
///     .post("http://reports.internal/")
///     .query(&[("year", "2026")])
///     .idempotency_key()
///     .priority(Priority::Background)
///     .covers(Covers::BufferedBody { up_to: 1 << 20 })
///     .map(|request| request.timeout(Duration::from_secs(30))) // of each attempt; or `multipart(form)`
///     .send()
///     .await?
///     .text()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder<P = StandardLayers, C = ReqwestClassifier> {
    client: Client<P, C>,
    inner: ::reqwest::RequestBuilder,
    terms: Terms,
    idempotency: Option<Idempotency>,
    deadline: Option<Instant>,
    priority: Priority,
}

impl<P, C> RequestBuilder<P, C> {
    pub(super) fn new(client: Client<P, C>, inner: ::reqwest::RequestBuilder) -> Self {
        let terms = client.shared.defaults;
        Self { client, inner, terms, idempotency: None, deadline: None, priority: Priority::Normal }
    }

    /// Does to the request what reqwest's builder can.
    pub fn map(mut self, build: impl FnOnce(::reqwest::RequestBuilder) -> ::reqwest::RequestBuilder) -> Self {
        self.inner = build(self.inner);
        self
    }

    /// Adds a header.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        HeaderName: TryFrom<K, Error: Into<::http::Error>>,
        HeaderValue: TryFrom<V, Error: Into<::http::Error>>,
    {
        self.map(|request| request.header(name, value))
    }

    /// Adds headers; each takes the place of those of its name.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.map(|request| request.headers(headers))
    }

    /// Adds a name and a password.
    pub fn basic_auth<U: fmt::Display, W: fmt::Display>(self, name: U, password: Option<W>) -> Self {
        self.map(|request| request.basic_auth(name, password))
    }

    /// Adds a token.
    pub fn bearer_auth<T: fmt::Display>(self, token: T) -> Self {
        self.map(|request| request.bearer_auth(token))
    }

    /// The body. A stream can be sent only once: then the request is neither repeated nor hedged.
    pub fn body<T: Into<Body>>(self, body: T) -> Self {
        self.map(|request| request.body(body))
    }

    /// Adds parameters to the URL.
    pub fn query<T: Serialize + ?Sized>(self, query: &T) -> Self {
        self.map(|request| request.query(query))
    }

    /// A body of form fields, with its content type.
    pub fn form<T: Serialize + ?Sized>(self, form: &T) -> Self {
        self.map(|request| request.form(form))
    }

    /// A body of JSON, with its content type.
    pub fn json<T: Serialize + ?Sized>(self, json: &T) -> Self {
        self.map(|request| request.json(json))
    }

    /// The version of HTTP.
    pub fn version(self, version: Version) -> Self {
        self.map(|request| request.version(version))
    }

    /// Whether the request may be carried out more than once. Default: as its method and its `Idempotency-Key`
    /// [say](crate::http::idempotency).
    pub const fn idempotency(mut self, idempotency: Idempotency) -> Self {
        self.idempotency = Some(idempotency);
        self
    }

    /// Gives the request an [`Idempotency-Key`](crate::http::IDEMPOTENCY_KEY), if its method is not idempotent and it has
    /// none: one for all its attempts and hedges. Only for a service that heeds it.
    pub const fn idempotency_key(mut self) -> Self {
        self.terms.makes_keys = true;
        self
    }

    /// The instant after which the answer is of no use: see [`CallOptions::deadline`](crate::CallOptions::deadline).
    pub const fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How much the call matters. Default: [`Priority::Normal`].
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// How much of the answer the call is about. Default: as the client's builder says, or [`Covers::Head`].
    pub const fn covers(mut self, covers: Covers) -> Self {
        self.terms.covers = covers;
        self
    }

    /// The request as reqwest has it, not sent.
    ///
    /// # Errors
    ///
    /// If its URL, a header or its body is none.
    pub fn build(self) -> Result<Request, ReqwestError> {
        self.inner.build()
    }
}

impl<P, C> RequestBuilder<P, C>
where
    P: Policy<Response, ReqwestError> + Describe + 'static,
    C: Classify<Response, ReqwestError> + 'static,
{
    /// Sends it through the pipeline of its host: see [`Client`].
    ///
    /// # Errors
    ///
    /// reqwest's own error, a timeout, or a rejection. An answer of whatever status is none, as in reqwest.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request and gives back all that it holds.
    pub fn send(self) -> impl Future<Output = Result<Response, Error<ReqwestError>>> + Send {
        async move {
            let Self { client, inner, terms, idempotency, deadline, priority } = self;
            let request = inner.build().map_err(Error::Operation)?;
            let adjust = |mut options: crate::context::CallOptions| {
                options = options.priority(priority);
                options = deadline.map_or(options, |deadline| options.deadline(deadline));
                idempotency.map_or(options, |idempotency| options.idempotency(idempotency))
            };
            client.send(request, terms, adjust).await
        }
    }
}

impl<P, C> fmt::Debug for RequestBuilder<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder").field("request", &self.inner).finish_non_exhaustive()
    }
}
