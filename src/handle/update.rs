//! Changes of the settings of live pipelines: all or nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{Managed, PipelineHandle, Registry};
use crate::{
    amendment::{Amendment, FieldChange, Telling},
    bounds,
    config::PipelineConfig,
    error::ConfigError,
    event::{EventKind, Kind},
    explain,
    layer::{self, LayerInfo, Live},
    name::Name,
};

impl PipelineHandle {
    /// Changes the settings of the live pipeline to what the configuration says: limits, rates, delays, attempts. What it
    /// does not mention stays as it is. Tells what has changed; observers hear of each change
    /// ([`EventKind::Reconfigured`](crate::EventKind::Reconfigured)).
    ///
    /// All or nothing: what [`build`](crate::PipelineBuilder::build) would refuse is refused here, layers against each
    /// other included, and then nothing has changed. Permits, waiters, counts and states are kept, and no call waits:
    /// one that is under way may see some settings as before and some as after. Breaks and half-open phases that have
    /// begun go on as they began; a permit beyond a lowered limit is taken back when it comes free; a budget above a
    /// lowered cap comes down to it.
    ///
    /// Layers go by their names: the one that they were given, or else their kind, numbered from the second of a kind on.
    /// They may be left out, but not added, renamed or put into another order. Windows and their kinds and sizes, whether
    /// there is a queue or a budget at all, and the quantile of a hedge stay as they were built. What was once set cannot
    /// be unset, as what is not mentioned stays: to watch slow calls no more, give a `slow_call` that none takes.
    ///
    /// A policy that other pipelines share changes for them as well: each must bear it, and the observers of all hear of
    /// it. Those of a pipeline inside this one go by its name and theirs, `users-api/retry`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use withstand::{BulkheadConfig, Pipeline, PipelineConfig, TimeoutConfig};
    ///
    /// let users = Pipeline::standard("users-api").build()?;
    /// let mut bulkhead = BulkheadConfig::default();
    /// bulkhead.limit = Some(20);
    /// let config = PipelineConfig::new("users-api").layer(TimeoutConfig::new(Duration::from_secs(3))).layer(bulkhead);
    /// let changes: Vec<String> = users.handle().update(&config)?.iter().map(ToString::to_string).collect();
    /// assert_eq!(changes, ["timeout: limit 4s -> 3s", "bulkhead: limit 100 -> 20"]);
    ///
    /// // The limit of an attempt is 1 s: a total one of half a second is refused.
    /// let config = PipelineConfig::new("users-api").layer(TimeoutConfig::new(Duration::from_millis(500)));
    /// assert!(users.handle().update(&config).is_err());
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or is one that a live pipeline keeps: the error names it.
    pub fn update(&self, config: &PipelineConfig) -> Result<Vec<FieldChange>, ConfigError> {
        update(std::slice::from_ref(self), config)
    }
}

impl Registry {
    /// Changes the settings of all pipelines of the configuration's name, all or none: see
    /// [`PipelineHandle::update`]. Tells the changes pipeline by pipeline; those of a policy that they share once.
    ///
    /// # Errors
    ///
    /// If there is none of this name, or one of them refuses.
    pub fn update(&self, config: &PipelineConfig) -> Result<Vec<FieldChange>, ConfigError> {
        update(&self.named(&config.name)?, config)
    }
}

/// Changes several pipelines, all or none.
fn update(pipelines: &[PipelineHandle], config: &PipelineConfig) -> Result<Vec<FieldChange>, ConfigError> {
    /// One after the other in the whole process: pipelines may share policies.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let (changes, tellings) = {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plan = Plan::default();
        for pipeline in pipelines {
            plan.add(&pipeline.managed, config).map_err(|error| error.in_pipeline(pipeline.name()))?;
        }
        let concerned = plan.concerned(pipelines);
        concerned.iter().try_for_each(|pipeline| plan.check(pipeline))?;
        plan.carry_out(&concerned)
    };
    // Told without the lock: observers may come back here.
    for tell in tellings {
        tell();
    }
    Ok(changes)
}

/// What is to change, policy by policy.
#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
    /// The steps by the policy that they are about.
    places: HashMap<usize, usize>,
}

struct Step {
    policy: Arc<dyn Live>,
    name: Name,
    /// Which layer of the configuration it is.
    nth: usize,
    amendment: Amendment,
}

impl Plan {
    /// Adds what the configuration asks of a pipeline.
    fn add(&mut self, pipeline: &Managed, config: &PipelineConfig) -> Result<(), ConfigError> {
        if pipeline.name != *config.name.as_str() {
            let accepted = format!("{:?}: a live pipeline keeps its name", pipeline.name.as_str());
            return Err(ConfigError::new("name", format_args!("{:?}", config.name), accepted));
        }
        let mut next = 0;
        for (nth, (name, layer)) in layer::named(&config.layers).enumerate() {
            let (place, policy) = find(pipeline, &name)?;
            if place < next {
                let accepted = "each layer once, in the order of the live ones";
                return Err(ConfigError::new("layers", format_args!("`{name}` out of its place"), accepted));
            }
            next = place.saturating_add(1);
            match self.step(policy) {
                // Another pipeline of this name has it too.
                Some(step) if step.nth == nth => continue,
                Some(step) => {
                    let value = format!("`{}` and `{name}`, which are one policy", step.name);
                    return Err(ConfigError::new("layers", value, "each policy once"));
                }
                None => {}
            }
            let amendment = Arc::clone(policy).amend(layer).map_err(|error| error.of_policy(&name))?;
            self.check_budget(&amendment).map_err(|error| error.in_policy(&name))?;
            self.places.insert(address(policy), self.steps.len());
            self.steps.push(Step { policy: policy.clone(), name, nth, amendment });
        }
        Ok(())
    }

    fn step(&self, policy: &Arc<dyn Live>) -> Option<&Step> {
        self.steps.get(*self.places.get(&address(policy))?)
    }

    /// A budget that two layers share cannot be what both of them say, unless they say the same.
    fn check_budget(&self, amendment: &Amendment) -> Result<(), ConfigError> {
        let Some(asked) = amendment.budget else { return Ok(()) };
        let planned =
            |step: &Step| Some((step.amendment.budget.filter(|other| other.id == asked.id)?, step.name.clone()));
        match self.steps.iter().find_map(planned) {
            Some((other, name)) if other != asked => {
                let value = format!("{} up to {}", asked.ratio, asked.cap);
                let accepted = format!("{} up to {}, as `{name}` says: they share it", other.ratio, other.cap);
                Err(ConfigError::new("budget", value, accepted))
            }
            _ => Ok(()),
        }
    }

    /// All pipelines that one of the policies is part of, and those that were asked for.
    fn concerned(&self, asked: &[PipelineHandle]) -> Vec<Arc<Managed>> {
        let asked: Vec<_> = asked.iter().map(|pipeline| pipeline.managed.clone()).collect();
        let known: HashSet<_> = asked.iter().map(Arc::as_ptr).collect();
        let mut all = Registry::global().live();
        all.retain(|pipeline| {
            !known.contains(&Arc::as_ptr(pipeline))
                && pipeline.policies().any(|policy| self.places.contains_key(&address(policy)))
        });
        asked.into_iter().chain(all).collect()
    }

    /// Refuses what `build` would refuse of the pipeline as it is going to be.
    fn check(&self, pipeline: &Managed) -> Result<(), ConfigError> {
        let then = |(layer, policy): (&LayerInfo, Option<&Arc<dyn Live>>)| {
            let info = policy.map(|policy| match self.step(policy) {
                Some(step) => step.amendment.info.clone(),
                None => policy.info(),
            });
            info.map_or_else(|| layer.clone(), |info| LayerInfo { id: layer.id.clone(), ..info })
        };
        let layers: Vec<_> = pipeline.layers().map(then).collect();
        explain::validate(&layers).map_err(|error| error.in_pipeline(&pipeline.name))
    }

    /// Carries it out: what has changed, and what is to be told.
    fn carry_out(self, concerned: &[Arc<Managed>]) -> (Vec<FieldChange>, Vec<Telling>) {
        let (mut all, mut tellings) = (Vec::new(), Vec::new());
        for Step { policy, name, amendment, .. } in self.steps {
            let (changes, told) = amendment.carry_out(&name);
            tellings.extend(told);
            if !changes.is_empty() {
                let observers = concerned.iter().filter_map(|pipeline| observer(pipeline, &policy, &changes));
                tellings.extend(observers);
            }
            all.extend(changes);
        }
        follow(concerned);
        (all, tellings)
    }
}

/// The layer of this name, which must be one of ours.
fn find<'a>(pipeline: &'a Managed, name: &Name) -> Result<(usize, &'a Arc<dyn Live>), ConfigError> {
    match pipeline.layers().enumerate().find(|(_, (layer, _))| layer.id.name == *name) {
        Some((place, (_, Some(policy)))) => Ok((place, policy)),
        Some(_) => Err(ConfigError::new("layers", format_args!("`{name}`"), "a layer that has settings")),
        None => {
            let names =
                pipeline.layers().filter(|(_, policy)| policy.is_some()).map(|(layer, _)| layer.name().as_str());
            let accepted = match names.collect::<Vec<_>>().as_slice() {
                [] => "no layers: the live pipeline has none with settings".to_owned(),
                names => format!("the name of a live layer: {}", names.join(", ")),
            };
            Err(ConfigError::new("layers", format_args!("`{name}`"), accepted))
        }
    }
}

/// Tells the observer of a pipeline, if it has one, what has changed in a policy, if it is part of that pipeline.
fn observer(pipeline: &Managed, policy: &Arc<dyn Live>, changes: &[FieldChange]) -> Option<Telling> {
    let is_it = |(_, other): &(&LayerInfo, Option<&Arc<dyn Live>>)| other.is_some_and(|other| same(other, policy));
    let (layer, _) = pipeline.layers().find(is_it)?;
    let telemetry = pipeline.telemetry.upgrade().filter(|telemetry| telemetry.observer.is_some())?;
    let (id, changes) = (layer.id.clone(), changes.to_vec());
    Some(Box::new(move || {
        for FieldChange { field, old, new, .. } in changes {
            telemetry.emit(Some(&id), || EventKind::Reconfigured { field, old, new });
        }
    }))
}

/// Some settings follow from how long the layers inside can take, in all pipelines that the policy is part of.
fn follow(concerned: &[Arc<Managed>]) {
    let mut before = None;
    // Once more if a pipeline came in between that shares one of them: it may have asked for more than was just set.
    loop {
        let times = times_inside(concerned);
        if before.as_ref() == Some(&times) {
            return;
        }
        for policy in concerned.iter().flat_map(|pipeline| pipeline.policies()) {
            if let Some(longest) = times.get(&address(policy)) {
                policy.inside_is(longest);
            }
        }
        before = Some(times);
    }
}

/// Of each policy in these pipelines that follows what is inside: how long that can take, pipeline by pipeline.
fn times_inside(concerned: &[Arc<Managed>]) -> HashMap<usize, Vec<Option<Duration>>> {
    fn followers(pipeline: &Managed) -> impl Iterator<Item = (usize, usize)> + '_ {
        pipeline.layers().enumerate().filter_map(|(place, (layer, policy))| {
            let follows = matches!(layer.kind(), Kind::CircuitBreaker | Kind::Hedge);
            Some((place, address(policy.filter(|_| follows)?)))
        })
    }
    let of_interest = concerned.iter().flat_map(|pipeline| followers(pipeline).map(|(_, policy)| policy));
    let mut times: HashMap<usize, Vec<Option<Duration>>> = of_interest.map(|policy| (policy, Vec::new())).collect();
    let known: HashSet<_> = concerned.iter().map(Arc::as_ptr).collect();
    let others = Registry::global().live().into_iter().filter(|pipeline| !known.contains(&Arc::as_ptr(pipeline)));
    for pipeline in concerned.iter().cloned().chain(others) {
        // Described once, and only if it is of interest.
        let mut layers = None;
        for (place, policy) in followers(&pipeline) {
            if let Some(longest) = times.get_mut(&policy) {
                let inside = layers.get_or_insert_with(|| pipeline.infos()).get(place.saturating_add(1)..);
                longest.push(bounds::of(inside.unwrap_or_default()).time.at_most());
            }
        }
    }
    times
}

fn same(one: &Arc<dyn Live>, other: &Arc<dyn Live>) -> bool {
    address(one) == address(other)
}

/// Tells a policy from all others.
fn address(policy: &Arc<dyn Live>) -> usize {
    Arc::as_ptr(policy).cast::<()>().addr()
}
