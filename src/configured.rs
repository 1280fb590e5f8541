//! Layers that are known only when a file is read.

use std::{fmt, future::Future};

use crate::{
    build::IntoLayer,
    config::LayerConfig,
    context::Context,
    error::ConfigError,
    layer::LayerInfo,
    name::Name,
    outcome::Outcome,
    policies::{bulkhead::Bulkhead, circuit_breaker::CircuitBreaker, hedge::Hedge, retry::Retry, timeout::Timeout},
    policy::{Describe, Erased, ErasedOperation, Operation, Policy, Site, layers_of},
};

/// Layers from settings as data, for any types of results and errors. See
/// [`Pipeline::from_config`](crate::Pipeline::from_config).
///
/// It allocates once for each run of a layer and once for each attempt of the operation.
pub struct Configured {
    /// From the outside in.
    layers: Vec<AnyLayer>,
}

enum AnyLayer {
    Timeout(Timeout),
    Retry(Retry),
    CircuitBreaker(CircuitBreaker),
    Bulkhead(Bulkhead),
    Hedge(Hedge),
}

impl AnyLayer {
    fn new(name: Name, config: LayerConfig) -> Result<Self, ConfigError> {
        Ok(match config {
            LayerConfig::Timeout(config) => Self::Timeout(IntoLayer::<Timeout>::into_layer(config, name)?),
            LayerConfig::Retry(config) => Self::Retry(IntoLayer::<Retry>::into_layer(config, name)?),
            LayerConfig::CircuitBreaker(config) => {
                Self::CircuitBreaker(IntoLayer::<CircuitBreaker>::into_layer(config, name)?)
            }
            LayerConfig::Bulkhead(config) => Self::Bulkhead(IntoLayer::<Bulkhead>::into_layer(config, name)?),
            LayerConfig::Hedge(config) => Self::Hedge(IntoLayer::<Hedge>::into_layer(config, name)?),
        })
    }

    fn as_describe(&self) -> &dyn Describe {
        match self {
            Self::Timeout(layer) => layer,
            Self::Retry(layer) => layer,
            Self::CircuitBreaker(layer) => layer,
            Self::Bulkhead(layer) => layer,
            Self::Hedge(layer) => layer,
        }
    }
}

/// Settings that become the layers of a pipeline. See [`PipelineBuilder::configured`](crate::PipelineBuilder::configured).
#[derive(Clone, Debug)]
pub struct ConfiguredLayers(pub(crate) Vec<(Name, LayerConfig)>);

impl IntoLayer<Configured> for ConfiguredLayers {
    type Layer = Configured;

    fn into_layer(self, _: Name) -> Result<Configured, ConfigError> {
        let layers = self.0.into_iter().map(|(name, config)| AnyLayer::new(name, config));
        Ok(Configured { layers: layers.collect::<Result<_, _>>()? })
    }
}

impl fmt::Debug for Configured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(layers_of(self).iter().map(LayerInfo::name)).finish()
    }
}

impl Describe for Configured {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        self.layers.iter().for_each(|layer| layer.as_describe().describe(out));
    }

    fn attach(&self, site: &Site<'_>) {
        let mut inside = site.inside.to_vec();
        for layer in self.layers.iter().rev() {
            layer.as_describe().attach(&Site { telemetry: site.telemetry, inside: &inside });
            let mut around = layers_of(layer.as_describe());
            around.append(&mut inside);
            inside = around;
        }
    }
}

impl<T: Send, E: Send> Policy<T, E> for Configured {
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        async move { run(&self.layers, &op, cx).await }
    }
}

/// Runs the operation in the layers, the first of which is the outermost.
fn run<'a, T, E>(layers: &'a [AnyLayer], op: &'a dyn ErasedOperation<T, E>, cx: Context<'a>) -> Erased<'a, T, E>
where
    T: Send + 'a,
    E: Send + 'a,
{
    let Some((outermost, layers)) = layers.split_first() else { return op.attempt_erased(cx) };
    let inside = Inside { layers, op };
    match outermost {
        AnyLayer::Timeout(layer) => Box::pin(layer.run(inside, cx)),
        AnyLayer::Retry(layer) => Box::pin(layer.run(inside, cx)),
        AnyLayer::CircuitBreaker(layer) => Box::pin(layer.run(inside, cx)),
        AnyLayer::Bulkhead(layer) => Box::pin(layer.run(inside, cx)),
        AnyLayer::Hedge(layer) => Box::pin(layer.run(inside, cx)),
    }
}

/// The layers that are inside another one, and the operation at their core, erased.
#[derive(Clone, Copy)]
struct Inside<'a, Op> {
    layers: &'a [AnyLayer],
    op: Op,
}

impl<T: Send, E: Send> Operation<T, E> for Inside<'_, &dyn ErasedOperation<T, E>> {
    async fn attempt(self, cx: Context<'_>) -> Outcome<T, E> {
        run(self.layers, self.op, cx).await
    }
}
