//! Pipelines that run, as those see them who look after them: what they are doing, and what can be done about it.

mod registry;
#[cfg(feature = "serde")]
mod update;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

pub use registry::Registry;

use crate::{
    error::ConfigError,
    event::{Kind, SharedTelemetry, Telemetry},
    explain::Plan,
    layer::{Hold, LayerInfo, Live, LiveLayer},
    name::Name,
    snapshot::{LayerSnapshot, LayerState, PipelineSnapshot},
};

/// A handle on a pipeline that runs: sees what it is doing, holds its circuits open, begins anew, changes its settings.
///
/// It is cheap to clone, it has no type parameters, and it can be kept for longer than the pipeline. Get it from
/// [`Pipeline::handle`](crate::Pipeline::handle), or by name from the [`Registry`]. No call waits for anything that is
/// done through it.
///
/// ```
/// use withstand::{LayerState, Pipeline};
///
/// let users = Pipeline::standard("users-api").build()?;
/// let handle = users.handle();
/// handle.isolate()?; // from now on every call is rejected, until the handle releases it
/// let isolated = |layer: &withstand::LayerSnapshot| match &layer.state {
///     LayerState::CircuitBreaker(circuit) => circuit.state.as_str() == "isolated",
///     _ => false,
/// };
/// assert!(handle.snapshot().layers.iter().any(isolated));
/// handle.release();
/// assert!(!handle.snapshot().layers.iter().any(isolated));
/// # Ok::<(), withstand::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct PipelineHandle {
    managed: Arc<Managed>,
}

/// What a pipeline and the handles on it share.
pub(crate) struct Managed {
    pub(crate) name: Name,
    classified: bool,
    layers: Vec<LayerInfo>,
    /// Alive for as long as the pipeline is.
    pub(crate) telemetry: Weak<Telemetry>,
    /// What holds the circuits open.
    holds: Mutex<Vec<Hold>>,
}

impl Managed {
    pub(crate) fn new(name: Name, classified: bool, layers: Vec<LayerInfo>, telemetry: &SharedTelemetry) -> Arc<Self> {
        let managed = Self { name, classified, layers, telemetry: Arc::downgrade(telemetry), holds: Mutex::default() };
        Arc::new(managed)
    }

    /// Whether the pipeline is still there.
    pub(crate) fn is_live(&self) -> bool {
        self.telemetry.strong_count() > 0
    }

    /// The layers with their names here and, where they are ours, the policies themselves.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (&LayerInfo, Option<&Arc<dyn Live>>)> {
        self.layers.iter().map(|layer| (layer, layer.live.as_ref().map(|LiveLayer(policy)| policy)))
    }

    /// The layers as they are now.
    pub(crate) fn infos(&self) -> Vec<LayerInfo> {
        let now = |(layer, policy): (&LayerInfo, Option<&Arc<dyn Live>>)| match policy {
            Some(policy) => LayerInfo { id: layer.id.clone(), ..policy.info() },
            None => layer.clone(),
        };
        self.layers().map(now).collect()
    }

    fn holds(&self) -> MutexGuard<'_, Vec<Hold>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn policies(&self) -> impl Iterator<Item = &Arc<dyn Live>> {
        self.layers().filter_map(|(_, policy)| policy)
    }
}

impl PipelineHandle {
    pub(crate) fn new(managed: Arc<Managed>) -> Self {
        Self { managed }
    }

    /// The pipeline's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.managed.name
    }

    /// Whether the pipeline is still there. A handle on one that is gone sees its last state, and changes nothing that
    /// matters unless its policies are shared with others.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.managed.is_live()
    }

    /// What it is doing now: each layer with its settings and its state.
    #[must_use]
    pub fn snapshot(&self) -> PipelineSnapshot {
        let snapshot = |(layer, policy): (&LayerInfo, Option<&Arc<dyn Live>>)| {
            let settings = policy.map_or_else(|| layer.settings.clone(), |policy| policy.info().settings);
            let state = policy.map_or(LayerState::None, |policy| policy.state());
            LayerSnapshot { name: layer.name().clone(), kind: layer.kind(), settings, state }
        };
        PipelineSnapshot { pipeline: self.managed.name.clone(), layers: self.managed.layers().map(snapshot).collect() }
    }

    /// Its plan with the settings of now: layers, worst cases, warnings.
    #[must_use]
    pub fn explain(&self) -> Plan {
        Plan::new(self.managed.name.clone(), self.managed.infos(), self.managed.classified)
    }

    /// Isolates its circuits: every call is rejected until [`release`](Self::release) or [`reset`](Self::reset), or
    /// until the pipeline and all handles on it are gone. Doing it twice is doing it once. A circuit breaker that other
    /// pipelines share is isolated for them as well.
    ///
    /// # Errors
    ///
    /// If it has no circuit breaker: then there is nothing that could refuse its calls.
    pub fn isolate(&self) -> Result<(), ConfigError> {
        self.check_isolates()?;
        // Isolated without the lock: observers hear of it, and may come back here.
        let new: Vec<Hold> = self.managed.policies().filter_map(|policy| Arc::clone(policy).isolate()).collect();
        let before = std::mem::replace(&mut *self.managed.holds(), new);
        drop(before);
        Ok(())
    }

    /// Whether it has anything that could refuse its calls.
    fn check_isolates(&self) -> Result<(), ConfigError> {
        if self.managed.layers().any(|(layer, policy)| layer.kind() == Kind::CircuitBreaker && policy.is_some()) {
            return Ok(());
        }
        let accepted = "one in the pipeline: without it nothing refuses calls";
        Err(ConfigError::new("circuit_breaker", "missing", accepted).in_pipeline(&self.managed.name))
    }

    /// Releases the circuits that [`isolate`](Self::isolate) has isolated, which closes them, with empty windows, unless
    /// others hold them too.
    pub fn release(&self) {
        // Released without the lock: observers hear of it, and may come back here.
        let holds = std::mem::take(&mut *self.managed.holds());
        drop(holds);
    }

    /// Closes its circuits, with empty windows, whatever their state.
    pub fn reset(&self) {
        self.managed.policies().for_each(|policy| policy.reset());
        self.release();
    }
}

impl fmt::Debug for PipelineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineHandle")
            .field("name", &self.managed.name)
            .field("is_live", &self.is_live())
            .finish_non_exhaustive()
    }
}
