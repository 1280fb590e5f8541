//! A pipeline: policies around an operation, with a name, a classifier and an observer.

mod builder;
mod standard;

use std::{fmt, future::Future, sync::Arc};

pub use builder::{BuildLayer, BuildLayers, Built, PipelineBuilder, Unbuilt};
pub use standard::{StandardBuilder, StandardHedgedBuilder, StandardHedgedLayers, StandardLayers};

use crate::{
    call::{self, Classified, Forwarded, Unspecified},
    context::{Attempt, CallOptions, Context, Frame},
    error::Error,
    event::Telemetry,
    explain::Plan,
    handle::{Managed, PipelineHandle},
    layer::LayerInfo,
    name::Name,
    outcome::{Classify, DefaultClassifier, Outcome},
    policy::{Describe, Operation, PassThrough, Policy, SingleAttempt, Site, layers_of},
};
#[cfg(feature = "serde")]
use crate::{
    config::PipelineConfig,
    configured::{Configured, ConfiguredLayers},
    policy::Stack,
};

/// Policies around every call to one dependency, with a name, a classifier and an observer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), withstand::ConfigError> {
/// use std::time::Duration;
/// use withstand::{Bulkhead, CircuitBreaker, Fallback, Pipeline, Retry, Verdict};
///
/// let users = Pipeline::builder("users-api")
///     .fallback(Fallback::value("anonymous"))
///     .timeout(Duration::from_secs(4))
///     .retry(Retry::builder())
///     .bulkhead(Bulkhead::builder().limit(100))
///     .circuit_breaker(CircuitBreaker::builder())
///     .timeout(Duration::from_secs(1))
///     .classify_errors(|error: &String| if error == "no such user" { Verdict::success() } else { Verdict::transient() })
///     .build()?;
///
/// let user = users.call(|| async { Err::<&str, _>("connection reset".to_owned()) }).await;
/// assert_eq!(user, Ok("anonymous"));
/// # Ok(())
/// # }
/// ```
///
/// # Order
///
/// The first layer added is the outermost: a call goes through the layers in the order in which they are read, and its
/// outcome comes back the other way. The order above is the one that most pipelines want;
/// [`explain`](Pipeline::explain) warns where another looks like a mistake, and [`build`](PipelineBuilder::build) refuses
/// what cannot work.
///
/// # How to call
///
/// | method | takes | gives |
/// |---|---|---|
/// | [`call`](Self::call) | a closure that makes a future for each attempt | the result |
/// | [`call_with`](Self::call_with) | the same, told about each attempt, and [`CallOptions`] | the result |
/// | [`outcome`](Self::outcome), [`outcome_with`](Self::outcome_with) | as `call`, `call_with` | the result with its verdict |
/// | [`forward`](Self::forward), [`forward_with`](Self::forward_with) | a closure that makes a future of an [`Outcome`] | the result |
/// | [`guard`](Self::guard), [`guard_with`](Self::guard_with) | one future; only where no layer repeats | the result |
///
/// The closure is called through a shared reference, by several attempts at once where there is a hedge: it is `Fn`, and
/// what it captures is `Sync`. What it makes may borrow from it. An async closure does as well, if what it captures is
/// borrowed: `async || client.get(&id).await`.
///
/// # In a struct, in a static, in another pipeline
///
/// ```
/// # mod reqwest { #[derive(Clone)] pub struct Client; }
/// use std::sync::{Arc, LazyLock};
/// use withstand::{Classification, Classify, ClassifyErrors, ConfigError, Error, Pipeline, StandardLayers, Verdict};
///
/// # pub struct User;
/// # #[derive(Debug)] pub enum ApiError { Connect, Status(u16) }
/// struct UsersApi;
/// impl<T> Classify<T, ApiError> for UsersApi {
///     fn classify(&self, result: Result<&T, &ApiError>) -> Classification {
///         match result {
///             Ok(_) | Err(ApiError::Status(..500)) => Verdict::success().into(),
///             Err(ApiError::Status(_)) => Verdict::transient().label("http_5xx"),
///             Err(ApiError::Connect) => Verdict::unreached().label("connect"),
///         }
///     }
/// }
///
/// // A struct is shared in an `Arc`: axum's `State<Arc<Users>>`, `tokio::spawn(async move { users.get("7").await })`.
/// pub struct Users {
///     client: reqwest::Client,
///     pipeline: Pipeline<StandardLayers, UsersApi>,
/// }
///
/// impl Users {
///     pub fn new(client: reqwest::Client) -> Result<Self, ConfigError> {
///         Ok(Self { client, pipeline: Pipeline::standard("users-api").classifier(UsersApi).build()? })
///     }
///
///     pub async fn get(&self, id: &str) -> Result<User, Error<ApiError>> {
///         self.pipeline.call(|| self.fetch(id)).await
///     }
///
///     async fn fetch(&self, id: &str) -> Result<User, ApiError> {
///         // one request: self.client.get(..).send().await ..
/// #       Ok(User)
///     }
/// }
///
/// // A function pointer can be named where a closure cannot.
/// fn verdict(error: &ApiError) -> Verdict {
///     if matches!(error, ApiError::Connect) { Verdict::unreached() } else { Verdict::transient() }
/// }
/// static PRICES: LazyLock<Pipeline<StandardLayers, ClassifyErrors<fn(&ApiError) -> Verdict>>> = LazyLock::new(|| {
///     let verdict: fn(&ApiError) -> Verdict = verdict;
///     Pipeline::standard("prices").classify_errors(verdict).build().expect("settings that make sense")
/// });
/// ```
///
/// [`layers!`](crate::layers) names the type for a field. A pipeline is shared by reference or in an [`Arc`]; it is
/// `Send` and `Sync`. As a [`layer`](PipelineBuilder::layer) of another it keeps its name in events; verdicts and the
/// classifier are those of the pipeline that is called. `inner.outcome(..)` inside `outer.forward(..)` keeps both
/// classifiers' words: the inner one's verdict is what the outer one sees. Either way errors stay flat, and what an inner
/// retry has given up on is not repeated by an outer one.
///
/// With the feature `deadlines`, a call that is made inside an operation is limited by the deadline around it, and nobody
/// passes it on: see `Deadline`.
///
/// # Cancellation
///
/// Dropping a call's future cancels what is under way and gives back all that it holds, at whatever await point. A
/// future that is never polled does nothing, and is no call.
///
/// # Panics
///
/// A call that has to wait for a timer panics in a runtime that has none (`enable_time`), as tokio's own timers do.
pub struct Pipeline<P, C = DefaultClassifier> {
    policy: P,
    classifier: C,
    classified: bool,
    managed: Arc<Managed>,
    telemetry: Arc<Telemetry>,
}

impl Pipeline<PassThrough> {
    /// An empty pipeline to add layers to, the outermost first.
    pub fn builder(name: impl Into<Name>) -> PipelineBuilder<PassThrough> {
        PipelineBuilder::new(name.into())
    }

    /// A pipeline from settings as data. To put layers around or inside of those of the file, use
    /// [`configured`](PipelineBuilder::configured).
    ///
    /// ```
    /// use withstand::{CircuitBreakerConfig, Pipeline, PipelineConfig, RetryConfig};
    ///
    /// let config = PipelineConfig::new("users-api") // from a file, or
    ///     .layer(RetryConfig::default())
    ///     .layer(CircuitBreakerConfig::default());
    /// let users = Pipeline::from_config(config).build()?;
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    #[cfg(feature = "serde")]
    pub fn from_config(
        config: PipelineConfig,
    ) -> PipelineBuilder<Stack<PassThrough, Unbuilt<ConfiguredLayers, Configured>>> {
        Self::builder(config.name).configured(config.layers)
    }
}

impl<P: fmt::Debug, C: fmt::Debug> fmt::Debug for Pipeline<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.managed.name)
            .field("policy", &self.policy)
            .field("classifier", &self.classifier)
            .finish_non_exhaustive()
    }
}

impl<P, C> Pipeline<P, C> {
    /// Calls an operation through the layers. The closure makes a new future for each attempt.
    ///
    /// # Errors
    ///
    /// The operation's own error, a timeout, or a rejection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels what is under way and gives back all that it holds.
    pub fn call<T, E, F, Fut>(&self, operation: F) -> impl Future<Output = Result<T, Error<E>>> + Send
    where
        P: Policy<T, E>,
        C: Classify<T, E>,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: Send,
    {
        let classified = Classified { make: move |_: Context<'_>| operation(), classifier: &self.classifier };
        call::drive(&self.telemetry, Unspecified, &self.policy, classified, call::result)
    }

    /// The same with options for this call, and a closure that is told about each attempt.
    ///
    /// # Errors
    ///
    /// The operation's own error, a timeout, or a rejection.
    pub fn call_with<T, E, F, Fut>(
        &self,
        options: CallOptions,
        operation: F,
    ) -> impl Future<Output = Result<T, Error<E>>> + Send
    where
        P: Policy<T, E>,
        C: Classify<T, E>,
        F: Fn(Attempt) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: Send,
    {
        let classified =
            Classified { make: move |cx: Context<'_>| operation(cx.to_attempt()), classifier: &self.classifier };
        call::drive(&self.telemetry, options, &self.policy, classified, call::result)
    }

    /// The same as [`call`](Self::call), with the verdict about it.
    pub fn outcome<T, E, F, Fut>(&self, operation: F) -> impl Future<Output = Outcome<T, E>> + Send
    where
        P: Policy<T, E>,
        C: Classify<T, E>,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: Send,
    {
        let classified = Classified { make: move |_: Context<'_>| operation(), classifier: &self.classifier };
        call::drive(&self.telemetry, Unspecified, &self.policy, classified, |outcome| outcome)
    }

    /// The same as [`call_with`](Self::call_with), with the verdict about it.
    pub fn outcome_with<T, E, F, Fut>(
        &self,
        options: CallOptions,
        operation: F,
    ) -> impl Future<Output = Outcome<T, E>> + Send
    where
        P: Policy<T, E>,
        C: Classify<T, E>,
        F: Fn(Attempt) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: Send,
    {
        let classified =
            Classified { make: move |cx: Context<'_>| operation(cx.to_attempt()), classifier: &self.classifier };
        call::drive(&self.telemetry, options, &self.policy, classified, |outcome| outcome)
    }

    /// Calls an operation that brings its own outcome: what another pipeline's [`outcome`](Self::outcome) gives. Verdict
    /// and marks are kept, and the error stays flat.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), withstand::ConfigError> {
    /// use std::time::Duration;
    /// use withstand::{Pipeline, Retry};
    ///
    /// let host = Pipeline::builder("host-a").timeout(Duration::from_secs(1)).build()?;
    /// let service = Pipeline::builder("service").retry(Retry::builder()).build()?;
    /// let answer = service.forward(|| host.outcome(|| async { Ok::<_, String>("hello") })).await;
    /// assert_eq!(answer, Ok("hello"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The operation's own error, a timeout, or a rejection.
    pub fn forward<T, E, F, Fut>(&self, operation: F) -> impl Future<Output = Result<T, Error<E>>> + Send
    where
        P: Policy<T, E>,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Outcome<T, E>> + Send,
        C: Sync,
        T: Send,
        E: Send,
    {
        let forwarded = Forwarded { make: move |_: Context<'_>| operation() };
        call::drive(&self.telemetry, Unspecified, &self.policy, forwarded, call::result)
    }

    /// The same as [`forward`](Self::forward) with options for this call, and a closure that is told about each attempt.
    /// The options are not the inner call's: give it [`outcome_with`](Self::outcome_with) its own, such as the deadline
    /// of the [`Attempt`].
    ///
    /// # Errors
    ///
    /// The operation's own error, a timeout, or a rejection.
    pub fn forward_with<T, E, F, Fut>(
        &self,
        options: CallOptions,
        operation: F,
    ) -> impl Future<Output = Result<T, Error<E>>> + Send
    where
        P: Policy<T, E>,
        F: Fn(Attempt) -> Fut + Send + Sync,
        Fut: Future<Output = Outcome<T, E>> + Send,
        C: Sync,
        T: Send,
        E: Send,
    {
        let forwarded = Forwarded { make: move |cx: Context<'_>| operation(cx.to_attempt()) };
        call::drive(&self.telemetry, options, &self.policy, forwarded, call::result)
    }

    /// Runs a single future through the layers, of which none may repeat it: with a [`Retry`](crate::Retry) or a
    /// [`Hedge`](crate::Hedge) among them this does not compile.
    ///
    /// The future is dropped as soon as its attempt is: before a fallback begins, a timed-out call has let go of its
    /// connection. It is moved into place when it is first polled, so what this returns is twice its size.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), withstand::ConfigError> {
    /// use std::time::Duration;
    /// use withstand::{CircuitBreaker, Pipeline};
    ///
    /// let payments = Pipeline::builder("payments")
    ///     .circuit_breaker(CircuitBreaker::builder())
    ///     .timeout(Duration::from_secs(1))
    ///     .build()?;
    /// let payment = async { Ok::<_, String>("paid") }; // runs once, or not at all
    /// assert_eq!(payments.guard(payment).await, Ok("paid"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The future's own error, a timeout, or a rejection.
    pub fn guard<T, E, Fut>(&self, future: Fut) -> impl Future<Output = Result<T, Error<E>>> + Send
    where
        P: Policy<T, E> + SingleAttempt,
        C: Classify<T, E>,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: Send,
    {
        call::guard(&self.telemetry, Unspecified, &self.policy, &self.classifier, future)
    }

    /// The same with options for this call: a deadline, a priority.
    ///
    /// # Errors
    ///
    /// The future's own error, a timeout, or a rejection.
    pub fn guard_with<T, E, Fut>(
        &self,
        options: CallOptions,
        future: Fut,
    ) -> impl Future<Output = Result<T, Error<E>>> + Send
    where
        P: Policy<T, E> + SingleAttempt,
        C: Classify<T, E>,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: Send,
    {
        call::guard(&self.telemetry, options, &self.policy, &self.classifier, future)
    }

    /// Calls an operation of an adapter's, which judges its results itself.
    #[cfg(feature = "tower")]
    pub(crate) fn operate<T, E, Op>(
        &self,
        options: CallOptions,
        operation: Op,
    ) -> impl Future<Output = Result<T, Error<E>>> + Send
    where
        P: Policy<T, E>,
        Op: Send + Sync,
        for<'o> &'o Op: Operation<T, E>,
        C: Sync,
        T: Send,
        E: Send,
    {
        call::drive(&self.telemetry, options, &self.policy, operation, call::result)
    }

    /// The classifier, for who judges an answer himself.
    #[cfg(any(feature = "tower", feature = "reqwest"))]
    pub(crate) const fn classifier(&self) -> &C {
        &self.classifier
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.managed.name
    }

    /// A handle for who looks after it while it runs.
    #[must_use]
    pub fn handle(&self) -> PipelineHandle {
        PipelineHandle::new(self.managed.clone())
    }
}

impl<P: Describe, C> Pipeline<P, C> {
    /// The plan of this pipeline: its layers, its worst cases in numbers, and warnings in plain words.
    #[must_use]
    pub fn explain(&self) -> Plan {
        Plan::new(self.managed.name.clone(), layers_of(&self.policy), self.classified)
    }
}

/// As layers of another pipeline, those of this one go by its name and theirs: `users-api/retry`.
impl<P: Describe, C> Describe for Pipeline<P, C> {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.extend(layers_of(&self.policy).into_iter().map(|layer| layer.in_pipeline(&self.managed.name)));
    }

    fn attach(&self, site: &Site<'_>) {
        self.policy.attach(site);
    }
}

impl<P: SingleAttempt, C> SingleAttempt for Pipeline<P, C> {}

/// A pipeline is a policy: its layers take part in another pipeline under its own name, and report to its own observer,
/// or to the other's if it has none. The classifier of the pipeline that is called gives the verdict.
impl<T: Send, E: Send, P: Policy<T, E>, C: Send + Sync> Policy<T, E> for Pipeline<P, C> {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        let relayed = self.telemetry.relayed(cx.telemetry());
        let frame = Frame::with_telemetry(cx, relayed.as_ref().unwrap_or_else(|| self.telemetry.now()));
        self.policy.run(op, cx.within(&frame)).await
    }
}
