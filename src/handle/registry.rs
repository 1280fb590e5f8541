//! Every live pipeline of the process.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{Managed, PipelineHandle};
use crate::{error::ConfigError, snapshot::PipelineSnapshot};

/// Every live pipeline of the process, by name.
///
/// [`PipelineBuilder::build`](crate::PipelineBuilder::build) enters each one, and it is gone as soon as the pipeline is
/// dropped. Several may have the same name: one for each tenant, say. What is done by name is done to all of them.
///
/// ```
/// use withstand::{Pipeline, Registry};
///
/// let users = Pipeline::standard("users-api").build()?;
/// for pipeline in Registry::global().snapshot() {
///     println!("{}: {} layers", pipeline.pipeline, pipeline.layers.len());
/// }
/// // An operator, from an admin page:
/// Registry::global().isolate("users-api")?;
/// Registry::global().release("users-api")?;
/// Registry::global().reset("users-api")?;
/// assert!(Registry::global().reset("user-api").is_err(), "there is no such pipeline");
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// It is looked at by people and by scrapers, and taken by no call: entering a pipeline takes a lock for a moment.
#[derive(Default)]
pub struct Registry {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    pipelines: Vec<Weak<Managed>>,
    /// Those that are gone are put out when there are this many: then entering one takes constant time on average.
    sweep_at: usize,
}

static GLOBAL: Registry = Registry { entries: Mutex::new(Entries { pipelines: Vec::new(), sweep_at: 0 }) };

impl Registry {
    /// The registry of this process.
    #[must_use]
    pub fn global() -> &'static Self {
        &GLOBAL
    }

    pub(crate) fn enter(&self, managed: &Arc<Managed>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.pipelines.len() >= entries.sweep_at {
            entries.pipelines.retain(|pipeline| pipeline.strong_count() > 0);
            entries.sweep_at = entries.pipelines.len().saturating_mul(2).max(16);
        }
        entries.pipelines.push(Arc::downgrade(managed));
    }

    /// Handles on all pipelines that are live, in the order in which they were built.
    #[must_use]
    pub fn pipelines(&self) -> Vec<PipelineHandle> {
        self.live().into_iter().map(PipelineHandle::new).collect()
    }

    pub(super) fn live(&self) -> Vec<Arc<Managed>> {
        let mut pipelines: Vec<_> = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.pipelines.iter().filter_map(Weak::upgrade).collect()
        };
        // Without the lock: the last one to let go of a pipeline releases its circuits, and observers may come back here.
        pipelines.retain(|managed| managed.is_live());
        pipelines
    }

    /// What all of them are doing now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<PipelineSnapshot> {
        self.pipelines().iter().map(PipelineHandle::snapshot).collect()
    }

    /// The pipelines of this name.
    ///
    /// # Errors
    ///
    /// If there is none; the error names those that there are.
    pub fn named(&self, name: &str) -> Result<Vec<PipelineHandle>, ConfigError> {
        let all = self.pipelines();
        let (found, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|pipeline| *pipeline.name() == name);
        if found.is_empty() {
            return Err(unknown(name, &others));
        }
        Ok(found)
    }

    /// Isolates the circuits of all pipelines of this name: see [`PipelineHandle::isolate`].
    ///
    /// # Errors
    ///
    /// If there is none of this name, or one without a circuit breaker; then none is isolated.
    pub fn isolate(&self, name: &str) -> Result<(), ConfigError> {
        let found = self.named(name)?;
        found.iter().try_for_each(PipelineHandle::check_isolates)?;
        found.iter().try_for_each(PipelineHandle::isolate)
    }

    /// Releases what [`isolate`](Self::isolate) has isolated.
    ///
    /// # Errors
    ///
    /// If there is no pipeline of this name.
    pub fn release(&self, name: &str) -> Result<(), ConfigError> {
        self.named(name)?.iter().for_each(PipelineHandle::release);
        Ok(())
    }

    /// Closes the circuits of all pipelines of this name, with empty windows.
    ///
    /// # Errors
    ///
    /// If there is no pipeline of this name.
    pub fn reset(&self, name: &str) -> Result<(), ConfigError> {
        self.named(name)?.iter().for_each(PipelineHandle::reset);
        Ok(())
    }
}

fn unknown(name: &str, others: &[PipelineHandle]) -> ConfigError {
    /// As many names as fit a line.
    const SHOWN: usize = 8;
    let mut names: Vec<&str> = others.iter().map(|pipeline| pipeline.name().as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let more = if names.len() > SHOWN { ", .." } else { "" };
    names.truncate(SHOWN);
    let accepted = match names.as_slice() {
        [] => "the name of a live pipeline; there are none".to_owned(),
        names => format!("the name of a live pipeline: {}{more}", names.join(", ")),
    };
    ConfigError::new("name", format_args!("{name:?}"), accepted)
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pipelines().iter().map(|pipeline| pipeline.name().clone())).finish()
    }
}
