//! The settings of a [`Client`].

use std::{fmt, sync::Arc, time::Duration};

use ::http::HeaderName;

use super::{Client, Covers, Host, ReqwestClassifier, Shared, Terms};
use crate::{
    adapters::http::IdempotencyKeys,
    error::ConfigError,
    event::Observer,
    keyed::Keyed,
    name::Name,
    pipeline::{Pipeline, PipelineBuilder, StandardLayers},
    policy::{Describe, PassThrough},
};

/// What [`each_host`](ClientBuilder::each_host) begins with.
type Begun = PipelineBuilder<PassThrough, ReqwestClassifier>;
type Factory<P, C> = dyn Fn(Begun, Option<&Host>) -> Result<Pipeline<P, C>, ConfigError> + Send + Sync;

/// Builds a [`Client`].
///
/// ```
/// use std::time::Duration;
/// use withstand::{Bulkhead, CircuitBreaker, Retry, Timeout, layers, reqwest::{Client, Covers}};
///
/// // The type for a struct's field, where it is not that of the standard pipeline, which is just `Client`.
/// type Outbound = Client<layers![Timeout, Retry, Bulkhead, CircuitBreaker, Timeout]>;
///
/// let client: Outbound = Client::builder("outbound", reqwest::Client::new())
///     .each_host(|pipeline, _host| {
///         pipeline
///             .timeout(Duration::from_secs(2))
///             .retry(Retry::builder())
///             .bulkhead(Bulkhead::builder().limit(20))
///             .circuit_breaker(CircuitBreaker::builder())
///             .timeout(Duration::from_millis(500))
///             .build()
///     })
///     .capacity(200)
///     .covers(Covers::BufferedBody { up_to: 64 * 1024 })
///     .deadline_header("x-request-timeout-ms")
///     .build()?;
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// | option | range | default | why |
/// |---|---|---|---|
/// | [`each_host`](Self::each_host) | | [`Pipeline::standard`] | what most calls to most services want |
/// | [`capacity`](Self::capacity) | 1 to 100 000 | 1000 | as [`Keyed`] |
/// | [`idle_after`](Self::idle_after) | more than 0 | 10 min | as [`Keyed`] |
/// | [`covers`](Self::covers) | | [`Covers::Head`] | as reqwest's `send`; a stream may never end |
/// | [`makes_idempotency_keys`](Self::makes_idempotency_keys) | | no | whether the services heed them only you know |
/// | [`deadline_header`](Self::deadline_header) | a header's name | none | there is no standard one |
/// | [`observer`](Self::observer) | | none | |
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder<P = StandardLayers, C = ReqwestClassifier> {
    name: Name,
    inner: ::reqwest::Client,
    factory: Box<Factory<P, C>>,
    capacity: Option<usize>,
    idle_after: Option<Duration>,
    terms: Terms,
    deadline_header: Option<String>,
    observer: Option<Arc<dyn Observer>>,
}

impl ClientBuilder {
    pub(super) fn new(name: Name, inner: ::reqwest::Client) -> Self {
        Self {
            name,
            inner,
            factory: Box::new(|begun, _| begun.standard_layers().build()),
            capacity: None,
            idle_after: None,
            terms: Terms::default(),
            deadline_header: None,
            observer: None,
        }
    }
}

impl<P, C> ClientBuilder<P, C> {
    /// What each host's pipeline is made of. The function is given one to add layers to, which has the name, the
    /// observer and a [`ReqwestClassifier`]; another [`classifier`](PipelineBuilder::classifier) can take its place.
    /// Without a host it is asked for the pipeline that hosts share which find no room: see [`Keyed`].
    pub fn each_host<F, Q, D>(self, factory: F) -> ClientBuilder<Q, D>
    where
        F: Fn(PipelineBuilder<PassThrough, ReqwestClassifier>, Option<&Host>) -> Result<Pipeline<Q, D>, ConfigError>
            + Send
            + Sync
            + 'static,
    {
        let Self { name, inner, factory: _, capacity, idle_after, terms, deadline_header, observer } = self;
        let factory = Box::new(factory);
        ClientBuilder { name, inner, factory, capacity, idle_after, terms, deadline_header, observer }
    }

    /// How many hosts can have a pipeline of their own: 1 to 100 000. Default: 1000.
    pub const fn capacity(mut self, hosts: usize) -> Self {
        self.capacity = Some(hosts);
        self
    }

    /// How long a host's pipeline may be unused before it goes: more than zero. Default: 10 minutes.
    pub const fn idle_after(mut self, unused: Duration) -> Self {
        self.idle_after = Some(unused);
        self
    }

    /// How much of an answer a call is about. Default: [`Covers::Head`].
    pub const fn covers(mut self, covers: Covers) -> Self {
        self.terms.covers = covers;
        self
    }

    /// Gives each request that is not idempotent by its method, and has none, an
    /// [`Idempotency-Key`](crate::http::IDEMPOTENCY_KEY), so that it may be repeated. Only where all services that this
    /// client calls heed it: others would carry a POST out twice.
    pub const fn makes_idempotency_keys(mut self) -> Self {
        self.terms.makes_keys = true;
        self
    }

    /// Tells the server, in this header, how many milliseconds are left to each attempt. Default: no header.
    pub fn deadline_header(mut self, name: impl Into<String>) -> Self {
        self.deadline_header = Some(name.into());
        self
    }

    /// Reports all that happens to this observer, and when there is no room for a host. The last one given is the one.
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }
}

impl<P: Describe + 'static, C: 'static> ClientBuilder<P, C> {
    /// Builds it.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, with its name; or what is wrong with the pipeline of a host.
    pub fn build(self) -> Result<Client<P, C>, ConfigError> {
        let Self { name, inner, factory, capacity, idle_after, terms, deadline_header, observer } = self;
        let deadline_header =
            deadline_header.as_deref().map(header).transpose().map_err(|error| error.in_pipeline(&name))?;
        let (begun, told) = (name.clone(), observer.clone());
        let mut hosts = Keyed::builder(move |host: Option<&Host>| {
            let begun = Pipeline::builder(begun.clone()).classifier(ReqwestClassifier::new()).observed_by(told.clone());
            factory(begun, host)
        });
        if let Some(capacity) = capacity {
            hosts = hosts.capacity(capacity);
        }
        if let Some(idle_after) = idle_after {
            hosts = hosts.idle_after(idle_after);
        }
        let hosts = hosts.observed_by(observer).build().map_err(|error| error.in_pipeline(&name))?;
        let shared = Shared { name, hosts, keys: IdempotencyKeys::new(), defaults: terms, deadline_header };
        Ok(Client { inner, shared: Arc::new(shared) })
    }
}

fn header(name: &str) -> Result<HeaderName, ConfigError> {
    let parsed = HeaderName::try_from(name);
    parsed.map_err(|_| ConfigError::new("deadline_header", format!("{name:?}"), "the name of an HTTP header"))
}

impl<P, C> fmt::Debug for ClientBuilder<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("idle_after", &self.idle_after)
            .field("covers", &self.terms.covers)
            .finish_non_exhaustive()
    }
}
