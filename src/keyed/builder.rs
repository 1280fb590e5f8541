//! The settings of a [`Keyed`].

use std::{
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use super::{Factory, Keyed, instance::Entry, map::Map, room::Room};
use crate::{
    build::more_than_zero,
    clock,
    error::ConfigError,
    event::{Kind, Observer, PolicyId, Telemetry},
    name::Name,
    policy::Describe,
};

/// Builds a [`Keyed`].
#[must_use = "a builder does nothing until it is built"]
pub struct KeyedBuilder<K, P> {
    factory: Box<Factory<K, P>>,
    name: Option<Name>,
    capacity: usize,
    idle_after: Duration,
    observer: Option<Arc<dyn Observer>>,
}

impl<K, P> fmt::Debug for KeyedBuilder<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBuilder")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("idle_after", &self.idle_after)
            .finish_non_exhaustive()
    }
}

const MAX_CAPACITY: usize = 100_000;

impl<K, P> KeyedBuilder<K, P> {
    pub(super) fn new(factory: Box<Factory<K, P>>) -> Self {
        Self { factory, name: None, capacity: 1000, idle_after: Duration::from_secs(10 * 60), observer: None }
    }

    /// The name in its own events. Default: `keyed`. The instances have the names that the factory gives them.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many keys can have an instance of their own: 1 to 100 000. Default: 1000. Leave room for all keys that are at
    /// work at once.
    pub const fn capacity(mut self, instances: usize) -> Self {
        self.capacity = instances;
        self
    }

    /// How long an instance may be unused before it goes: more than zero. Default: 10 minutes.
    pub const fn idle_after(mut self, unused: Duration) -> Self {
        self.idle_after = unused;
        self
    }

    /// Reports `Overflowed` and `InstanceFailed` to this observer. The last one given is the one. What happens in the
    /// instances is told to the observers that the factory gives them.
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }
}

#[cfg(feature = "reqwest")]
impl<K, P> KeyedBuilder<K, P> {
    /// The same with an observer that is shared.
    pub(crate) fn observed_by(mut self, observer: Option<Arc<dyn Observer>>) -> Self {
        self.observer = observer;
        self
    }
}

impl<K: Hash + Eq, P: Describe> KeyedBuilder<K, P> {
    /// Builds it, and asks the factory for the overflow instance.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, with its name; or what the factory says.
    pub fn build(self) -> Result<Keyed<K, P>, ConfigError> {
        let id = PolicyId::new(Kind::Keyed, self.name, Kind::Keyed.into())?;
        check(self.capacity, self.idle_after).map_err(|error| error.in_policy(&id.name))?;
        let overflow = (self.factory)(None)?;
        Ok(Keyed {
            map: Map::new(),
            room: Mutex::new(Room::new(clock::now())),
            inside: AtomicUsize::new(0),
            overflow: Arc::new(Entry::new(None, usize::MAX, overflow, clock::now())),
            factory: self.factory,
            capacity: self.capacity,
            idle_after: self.idle_after,
            id,
            telemetry: Telemetry::new(None, self.observer),
        })
    }
}

fn check(capacity: usize, idle_after: Duration) -> Result<(), ConfigError> {
    if !(1..=MAX_CAPACITY).contains(&capacity) {
        return Err(ConfigError::new("capacity", capacity, format!("1 to {MAX_CAPACITY}")));
    }
    more_than_zero("idle_after", idle_after)
}
