//! From layers that are named one after the other to a pipeline.

use std::{fmt, marker::PhantomData, sync::Arc};

use super::Pipeline;
#[cfg(feature = "chaos")]
use crate::policies::chaos::Chaos;
use crate::{
    build::IntoLayer,
    error::ConfigError,
    event::{Kind, Observer, Telemetry},
    explain,
    handle::{Managed, Registry},
    layer::{LayerInfo, default_name},
    name::Name,
    outcome::{Classification, ClassifyErrors, ClassifyResults, DefaultClassifier},
    policies::{
        bulkhead::Bulkhead, circuit_breaker::CircuitBreaker, fallback::Fallback, hedge::Hedge, retry::Retry,
        timeout::Timeout,
    },
    policy::{Describe, PassThrough, Site, Stack, layers_of},
};
#[cfg(feature = "serde")]
use crate::{
    config::LayerConfig,
    configured::{Configured, ConfiguredLayers},
    layer,
};

/// Adds layers to a pipeline, the outermost first.
#[must_use = "a builder does nothing until it is built"]
pub struct PipelineBuilder<L, C = DefaultClassifier> {
    name: Name,
    layers: L,
    /// The kinds of the layers so far, for the names of those that are given none.
    kinds: Vec<Kind>,
    classifier: C,
    classified: bool,
    observer: Option<Arc<dyn Observer>>,
}

impl<L: fmt::Debug, C> fmt::Debug for PipelineBuilder<L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder")
            .field("name", &self.name)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}

impl PipelineBuilder<PassThrough> {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            layers: PassThrough,
            kinds: Vec::new(),
            classifier: DefaultClassifier,
            classified: false,
            observer: None,
        }
    }
}

impl<L, C> PipelineBuilder<L, C> {
    /// Adds a timeout: of the whole call outside of a retry or hedge, of each attempt inside of it.
    pub fn timeout<X: IntoLayer<Timeout>>(self, timeout: X) -> PipelineBuilder<Stack<L, Unbuilt<X, Timeout>>, C> {
        self.unbuilt(Kind::Timeout, timeout)
    }

    /// Adds a retry.
    pub fn retry<X: IntoLayer<Retry>>(self, retry: X) -> PipelineBuilder<Stack<L, Unbuilt<X, Retry>>, C> {
        self.unbuilt(Kind::Retry, retry)
    }

    /// Adds a circuit breaker.
    pub fn circuit_breaker<X: IntoLayer<CircuitBreaker>>(
        self,
        breaker: X,
    ) -> PipelineBuilder<Stack<L, Unbuilt<X, CircuitBreaker>>, C> {
        self.unbuilt(Kind::CircuitBreaker, breaker)
    }

    /// Adds a bulkhead.
    pub fn bulkhead<X: IntoLayer<Bulkhead>>(self, bulkhead: X) -> PipelineBuilder<Stack<L, Unbuilt<X, Bulkhead>>, C> {
        self.unbuilt(Kind::Bulkhead, bulkhead)
    }

    /// Adds a hedge.
    pub fn hedge<X: IntoLayer<Hedge>>(self, hedge: X) -> PipelineBuilder<Stack<L, Unbuilt<X, Hedge>>, C> {
        self.unbuilt(Kind::Hedge, hedge)
    }

    /// Adds a fallback.
    pub fn fallback<S, X: IntoLayer<Fallback<S>>>(
        self,
        fallback: X,
    ) -> PipelineBuilder<Stack<L, Unbuilt<X, Fallback<S>>>, C> {
        self.unbuilt(Kind::Fallback, fallback)
    }

    /// Adds faults on purpose, to see what the layers outside of it make of them.
    #[cfg(feature = "chaos")]
    #[expect(clippy::type_complexity, reason = "as that of the other layers, and inferred by who calls it")]
    pub fn chaos<A, B, X: IntoLayer<Chaos<A, B>>>(
        self,
        chaos: X,
    ) -> PipelineBuilder<Stack<L, Unbuilt<X, Chaos<A, B>>>, C> {
        self.unbuilt(Kind::Chaos, chaos)
    }

    /// Adds any policy: one of your own, another pipeline, an `Option` of one, a [`BoxPolicy`](crate::BoxPolicy).
    pub fn layer<P: Describe>(self, policy: P) -> PipelineBuilder<Stack<L, Built<P>>, C> {
        self.stacked(Built(policy))
    }

    /// Adds layers from settings as data, in their order: see [`PipelineConfig`](crate::PipelineConfig).
    ///
    /// ```
    /// use std::time::Duration;
    /// use withstand::{CircuitBreakerConfig, Fallback, Pipeline, PipelineConfig, TimeoutConfig};
    ///
    /// # let from_a_file = PipelineConfig::new("users-api")
    /// #     .layer(CircuitBreakerConfig::default())
    /// #     .layer(TimeoutConfig::new(Duration::from_secs(1)));
    /// let users = Pipeline::builder(from_a_file.name)
    ///     .fallback(Fallback::value("anonymous")) // an answer is code
    ///     .configured(from_a_file.layers)
    ///     .classify_errors(|_: &String| withstand::Verdict::transient())
    ///     .build()?;
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    ///
    /// They go by the names that they have by themselves, so that the same settings
    /// [update](crate::PipelineHandle::update) them later: a layer of the same kind that is added before them is given a
    /// name of its own.
    ///
    /// A policy that is built from a file alone does not know its layers before it runs: it allocates once for each run of
    /// a layer and once for each attempt of the operation. Where that matters, write the layers in code and take their
    /// numbers from the file: each configuration is taken where its policy is, `.retry(config)`.
    #[cfg(feature = "serde")]
    pub fn configured(
        mut self,
        layers: impl IntoIterator<Item = LayerConfig>,
    ) -> PipelineBuilder<Stack<L, Unbuilt<ConfiguredLayers, Configured>>, C> {
        let layers: Vec<LayerConfig> = layers.into_iter().collect();
        self.kinds.extend(layers.iter().map(LayerConfig::kind));
        let named = layer::named(&layers).map(|(name, layer)| (name, layer.clone()));
        let layer = ConfiguredLayers(named.collect());
        self.stacked(Unbuilt { default_name: Kind::Custom.into(), layer, becomes: PhantomData })
    }

    fn unbuilt<X, P>(self, kind: Kind, layer: X) -> PipelineBuilder<Stack<L, Unbuilt<X, P>>, C> {
        let before = self.kinds.iter().filter(|seen| **seen == kind).count();
        let mut builder =
            self.stacked(Unbuilt { default_name: default_name(kind, before), layer, becomes: PhantomData });
        builder.kinds.push(kind);
        builder
    }

    fn stacked<X>(self, inner: X) -> PipelineBuilder<Stack<L, X>, C> {
        let Self { name, layers, kinds, classifier, classified, observer } = self;
        PipelineBuilder { name, layers: Stack::new(layers, inner), kinds, classifier, classified, observer }
    }

    /// Gives the verdict on each error with a function; every `Ok` is a success.
    ///
    /// The function gives a [`Verdict`](crate::Verdict), or one with a label for telemetry:
    /// `Verdict::transient().label("http_503")`.
    pub fn classify_errors<E, R, F>(self, classify: F) -> PipelineBuilder<L, ClassifyErrors<F>>
    where
        F: Fn(&E) -> R,
        R: Into<Classification>,
    {
        self.classifier(ClassifyErrors(classify))
    }

    /// Gives the verdict on each result with a function: an `Ok` may be a failure, such as an HTTP 503.
    pub fn classify<T, E, R, F>(self, classify: F) -> PipelineBuilder<L, ClassifyResults<F>>
    where
        F: Fn(Result<&T, &E>) -> R,
        R: Into<Classification>,
    {
        self.classifier(ClassifyResults(classify))
    }

    /// Gives the verdict with a [`Classify`](crate::Classify) type, which can be named in a struct's field.
    pub fn classifier<D>(self, classifier: D) -> PipelineBuilder<L, D> {
        let Self { name, layers, kinds, observer, .. } = self;
        PipelineBuilder { name, layers, kinds, classifier, classified: true, observer }
    }

    /// Reports all events to this observer. The last one given is the one; [`Observers`](crate::Observers) makes one of
    /// several.
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// The same with an observer that is shared.
    #[cfg(feature = "reqwest")]
    pub(crate) fn observed_by(mut self, observer: Option<Arc<dyn Observer>>) -> Self {
        self.observer = observer;
        self
    }

    /// Builds the pipeline.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or the layers cannot work together as they stand: the error names the pipeline,
    /// the policy, the field, the value and what would be accepted.
    pub fn build(self) -> Result<Pipeline<L::Around<PassThrough>, C>, ConfigError>
    where
        L: BuildLayers<Around<PassThrough>: Describe>,
    {
        let Self { name, layers, classifier, classified, observer, .. } = self;
        let (policy, described) = built(&name, layers).map_err(|error| error.in_pipeline(&name))?;
        let telemetry = Arc::new(Telemetry::new(Some(name.clone()), observer));
        let managed = Managed::new(name, classified, described, &telemetry);
        // First: who changes a policy that this pipeline shares counts with it from here on.
        Registry::global().enter(&managed);
        policy.attach(&Site { telemetry: &telemetry, inside: &[] });
        Ok(Pipeline { policy, classifier, classified, managed, telemetry })
    }
}

fn built<L>(name: &Name, layers: L) -> Result<(L::Around<PassThrough>, Vec<LayerInfo>), ConfigError>
where
    L: BuildLayers<Around<PassThrough>: Describe>,
{
    if name.as_str().trim().is_empty() {
        return Err(ConfigError::new("name", format_args!("{name:?}"), "a name that is not blank"));
    }
    let policy = layers.build(Ok(PassThrough))?;
    let described = layers_of(&policy);
    explain::validate(&described)?;
    Ok((policy, described))
}

/// A layer that a [`PipelineBuilder`] has yet to build.
pub struct Unbuilt<X, P> {
    default_name: Name,
    layer: X,
    becomes: PhantomData<fn() -> P>,
}

impl<X: fmt::Debug, P> fmt::Debug for Unbuilt<X, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layer.fmt(f)
    }
}

/// A layer that was built before it was given to a [`PipelineBuilder`].
#[derive(Debug)]
pub struct Built<P>(P);

/// The layers of a [`PipelineBuilder`], which become those of a [`Pipeline`].
pub trait BuildLayers {
    /// What they become around what is inside.
    type Around<Inside>;

    /// Builds them around what is inside, or passes on the outermost error.
    ///
    /// # Errors
    ///
    /// What a layer's builder says of its settings.
    fn build<Inside>(self, inside: Result<Inside, ConfigError>) -> Result<Self::Around<Inside>, ConfigError>;
}

impl BuildLayers for PassThrough {
    type Around<Inside> = Inside;

    fn build<Inside>(self, inside: Result<Inside, ConfigError>) -> Result<Inside, ConfigError> {
        inside
    }
}

// The builder adds at the inner end, so its stack leans outward. The pipeline's leans inward: then each layer carries no
// more than a reference to all that is inside it.
impl<Outer: BuildLayers, Layer: BuildLayer> BuildLayers for Stack<Outer, Layer> {
    type Around<Inside> = Outer::Around<Stack<Layer::Layer, Inside>>;

    fn build<Inside>(self, inside: Result<Inside, ConfigError>) -> Result<Self::Around<Inside>, ConfigError> {
        let layer = self.inner.build();
        self.outer.build(layer.and_then(|layer| Ok(Stack::new(layer, inside?))))
    }
}

/// One layer of a [`PipelineBuilder`].
pub trait BuildLayer {
    /// What it becomes.
    type Layer;

    /// Builds it.
    ///
    /// # Errors
    ///
    /// What the layer's builder says of its settings.
    fn build(self) -> Result<Self::Layer, ConfigError>;
}

impl<X: IntoLayer<P>, P> BuildLayer for Unbuilt<X, P> {
    type Layer = X::Layer;

    fn build(self) -> Result<X::Layer, ConfigError> {
        self.layer.into_layer(self.default_name)
    }
}

impl<P> BuildLayer for Built<P> {
    type Layer = P;

    fn build(self) -> Result<P, ConfigError> {
        Ok(self.0)
    }
}
