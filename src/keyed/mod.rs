//! Keyed policies: an instance for each tenant, host or key.

mod builder;
mod instance;
mod kept;
mod lock;
mod map;
mod room;

use std::{
    borrow::Borrow,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, Weak, atomic::AtomicUsize},
    time::Duration,
};

pub use builder::KeyedBuilder;
pub use instance::Instance;

use crate::{
    clock,
    error::ConfigError,
    event::{EventKind, PolicyId, Telemetry},
    policy::Describe,
};
use instance::Entry;
use map::{Map, Wanted};
use room::Room;

/// A policy for each key: one instance for every tenant, host or whatever else fails on its own.
///
/// **When to use it.** Where one circuit breaker or bulkhead for all would let one bad host close the way to the good
/// ones, or one loud tenant use up what belongs to all. **When not.** For a handful of services that are known when the
/// program is written: give each a pipeline of its own, with a name of its own.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), withstand::ConfigError> {
/// use std::time::Duration;
/// use withstand::{CircuitBreaker, Keyed, Pipeline, Timeout, layers};
///
/// // Each host gets a pipeline of its own when it is first asked for.
/// let hosts: Keyed<String, Pipeline<layers![CircuitBreaker, Timeout]>> = Keyed::builder(|_host| {
///     Pipeline::builder("search")
///         .circuit_breaker(CircuitBreaker::builder().min_calls(5))
///         .timeout(Duration::from_secs(1))
///         .build()
/// })
/// .capacity(100)
/// .build()?;
///
/// for _ in 0..5 {
///     hosts.get("a.example").call(|| async { Err::<(), _>("connection refused") }).await.unwrap_err();
/// }
/// // The circuit of one host is open. That of the other is its own.
/// assert!(hosts.get("a.example").call(|| async { Ok::<_, &str>("hello") }).await.unwrap_err().is_rejected());
/// assert_eq!(hosts.get("b.example").call(|| async { Ok::<_, &str>("hello") }).await, Ok("hello"));
/// # Ok(())
/// # }
/// ```
///
/// It holds any policy: a [`Pipeline`](crate::Pipeline), a [`CircuitBreaker`](crate::CircuitBreaker), a
/// [`Bulkhead`](crate::Bulkhead), one of your own. [`get`](Self::get) gives the key's [`Instance`], through which it is
/// used as it always is. A key is looked up in any form that it can be borrowed as, a `String` as a `&str`; a `K` must
/// be `Hash` and `Eq`. In an [`Arc`] it is shared by tasks; an instance borrows nothing from it and can be held across
/// awaits.
///
/// # Many hosts, one retry
///
/// Each attempt asks for the host that it goes to. Verdicts and marks pass from the inner pipeline to the outer one, so a
/// refusal by one host's open circuit is repeated with the next host, if the retry is told to. It is also told not to
/// wait for as long as the refusal says: that is how long the first host's break lasts, and the next host is another.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), withstand::ConfigError> {
/// use std::time::Duration;
/// use withstand::{CallOptions, CircuitBreaker, Keyed, Pipeline, Retry, Timeout, layers};
///
/// async fn search(host: &str) -> Result<String, &'static str> {
///     if host == "a.example" { Err("connection refused") } else { Ok(format!("found by {host}")) }
/// }
///
/// let service = Pipeline::builder("search")
///     .timeout(Duration::from_secs(4))
///     .retry(Retry::builder().retry_rejected().max_hint(Duration::ZERO))
///     .build()?;
/// let hosts: Keyed<String, Pipeline<layers![CircuitBreaker, Timeout]>> = Keyed::builder(|_| {
///     Pipeline::builder("search-host")
///         .circuit_breaker(CircuitBreaker::builder())
///         .timeout(Duration::from_secs(1))
///         .build()
/// })
/// .build()?;
///
/// let hosts = &hosts;
/// let answer = service
///     .forward_with(CallOptions::new(), |attempt| async move {
///         let host = if attempt.number() % 2 == 1 { "a.example" } else { "b.example" };
///         hosts.get(host).outcome(|| search(host)).await
///     })
///     .await;
/// assert_eq!(answer.as_deref(), Ok("found by b.example"));
/// # Ok(())
/// # }
/// ```
///
/// The `async` block is needed, since the instance lives in it: `|| hosts.get(host).outcome(..)` would drop the instance
/// while its future is still to run, and does not compile.
///
/// # Options
///
/// | option | unit, range | default | why |
/// |---|---|---|---|
/// | [`capacity`](KeyedBuilder::capacity) | instances, 1 to 100 000 | 1000 | more than most services have tenants at work at once; a standard pipeline takes 8 KB |
/// | [`idle_after`](KeyedBuilder::idle_after) | time, more than 0 | 10 min | longer than any window and any break of the defaults: what goes then has nothing to tell |
/// | [`name`](KeyedBuilder::name) | | `keyed` | for its own events |
/// | [`observer`](KeyedBuilder::observer) | | none | hears its own events; those of the instances go to the observers that the factory gives them |
///
/// # Which instances go
///
/// An instance is state: a circuit that is open, permits that are out. There is never more than one for a key, and it is
/// not lost while it says anything:
///
/// - With calls in flight, or an [`Instance`] held for whatever reason, it stays.
/// - With a circuit breaker that is open, it stays until the break is over; isolated by hand, for as long as it is.
///   So a flood of new keys cannot make anyone forget that a host is down.
/// - When there is no room for a new key, the one that was used least recently goes: first one whose circuits are all
///   closed, then one whose break is over.
/// - Those that have not been used for [`idle_after`](KeyedBuilder::idle_after) go as new keys come, a few at a time, or
///   with [`sweep`](Self::sweep). Nothing runs in the background.
/// - If none can go, all keys without an instance share one more, the *overflow* instance, made when all this was built.
///   There they see each other's failures and take each other's permits. Known keys keep what is theirs. The observer is
///   told with an [`Overflowed`](EventKind::Overflowed) event.
///
/// A closed circuit that goes takes with it what is in its window: leave room for all keys that are at work at once. What
/// a breaker of your own says about itself is not known here: its instance counts as closed.
///
/// Among more than 64 instances not every new key looks at them all. If there was nobody to let go a moment ago, some
/// calls of new keys, at most one for every 64 instances, and for at most a microsecond for each, may share the overflow
/// instance although another one has just come free.
///
/// # Keys and telemetry
///
/// Give the instances of all keys the same name: names become attributes of metrics, of which there must be few. Keys
/// never appear in events, errors or metrics of this crate. What there is to know about one key is asked for:
/// [`peek`](Self::peek), [`instances`](Self::instances). What the [`Registry`](crate::Registry) does by that name, it does
/// to the pipelines of all keys that are there.
///
/// # Errors
///
/// The factory is asked for the overflow instance by [`build`](KeyedBuilder::build), so what is wrong with the settings
/// shows there. Should it fail for a key later, that key shares the overflow instance, the next call tries again, and
/// the observer is told with an [`InstanceFailed`](EventKind::InstanceFailed) event.
///
/// # Cancellation
///
/// Dropping an [`Instance`] gives it back. The future of a call through it holds it until then.
///
/// # Events
///
/// `Overflowed` and `InstanceFailed`, each for the first of a run: it is told again after a second without one.
///
/// # Cost
///
/// A key that has an instance is looked up without a lock, an allocation or a copy of the key. That, and the reading of
/// the clock when it is let go, is some 480 instructions or 100 ns, a third of a call through the standard pipeline. The
/// first call of a key takes a lock, under which the factory runs: it should be quick, since the first calls of other
/// keys wait for it. A factory that asks the `Keyed` that it is the factory of for an instance that is not there gets the
/// overflow instance.
///
/// # Source
///
/// Guava's and Caffeine's caches, which evict by use and by time; neither knows of calls in flight or of open circuits.
pub struct Keyed<K, P> {
    /// Finds those that are there. The strong references are in `room`.
    map: Map<K, P>,
    room: Mutex<Room<K, P>>,
    /// The thread that holds `room`: who asks again from inside, as a factory may, must not wait for itself.
    inside: AtomicUsize,
    overflow: Arc<Entry<K, P>>,
    factory: Box<Factory<K, P>>,
    capacity: usize,
    idle_after: Duration,
    id: PolicyId,
    telemetry: Telemetry,
}

type Factory<K, P> = dyn Fn(Option<&K>) -> Result<P, ConfigError> + Send + Sync;

impl<K: Hash + Eq, P: Describe> Keyed<K, P> {
    /// Starts from the defaults. The factory makes the instance of a key, or, asked for none, the overflow instance,
    /// which keys share when there is no room.
    ///
    /// ```
    /// use withstand::{Bulkhead, Keyed};
    ///
    /// // Paying tenants get more, and what is shared must do for many.
    /// let tenants: Keyed<u32, Bulkhead> = Keyed::builder(|tenant| {
    ///     let limit = match tenant {
    ///         Some(1..100) => 50,
    ///         Some(_) => 10,
    ///         None => 20,
    ///     };
    ///     Bulkhead::builder().limit(limit).build()
    /// })
    /// .build()?;
    /// assert_eq!(tenants.get(&7).limit(), 50);
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    pub fn builder<F>(factory: F) -> KeyedBuilder<K, P>
    where
        F: Fn(Option<&K>) -> Result<P, ConfigError> + Send + Sync + 'static,
    {
        KeyedBuilder::new(Box::new(factory))
    }

    /// The key's instance, made if there is none.
    ///
    /// It stays for as long as what this gives is held: for a call, until the end of the statement
    /// `hosts.get(host).call(..).await`.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Instance<K, P>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        match self.find(key) {
            Some(entry) => Instance::for_a_call(entry),
            None => self.get_new(key),
        }
    }

    /// The key's instance if there is one, to look at it or to act on it by hand. Looking is no use: it makes nobody
    /// stay longer.
    pub fn peek<Q>(&self, key: &Q) -> Option<Instance<K, P>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.find(key).map(Instance::to_look_at)
    }

    /// All instances as they are now, the overflow instance last: for an operator's page, or to reset all circuits.
    /// While these are held, none of them can go.
    ///
    /// ```
    /// use withstand::{CircuitBreaker, Instance, Keyed};
    ///
    /// let hosts: Keyed<String, CircuitBreaker> = Keyed::builder(|_| CircuitBreaker::builder().build()).build()?;
    /// hosts.get("a.example").admit().unwrap().success();
    /// for host in hosts.instances() {
    ///     match Instance::key(&host) {
    ///         Some(key) => println!("{key}: {}", host.state()),
    ///         None => println!("shared by the rest: {}", host.state()),
    ///     }
    /// }
    /// # Ok::<(), withstand::ConfigError>(())
    /// ```
    #[must_use]
    pub fn instances(&self) -> Vec<Instance<K, P>> {
        let map = self.map.pin();
        let own = map.values().filter_map(Weak::upgrade);
        own.chain([Arc::clone(&self.overflow)]).map(Instance::to_look_at).collect()
    }

    /// Takes the key's instance away, whatever the state of its circuits, and gives it. None if there is none, or if it
    /// is held, by calls in flight or otherwise: then it stays.
    pub fn remove<Q>(&self, key: &Q) -> Option<P>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut room = self.enter()?;
        let slot = self.find(key)?.slot;
        let entry = room.evict(&self.map, slot, |_| true);
        drop(room);
        entry.map(|entry| entry.policy)
    }

    /// Lets all instances go that have not been used for [`idle_after`](KeyedBuilder::idle_after), except for open ones,
    /// and gives how many those were. For whoever wants the memory back although no new keys come.
    pub fn sweep(&self) -> usize {
        let Some(mut room) = self.enter() else { return 0 };
        let gone = room.sweep(&self.map, clock::now(), self.idle_after, usize::MAX);
        // What they are made of is dropped without the lock.
        drop(room);
        gone.len()
    }

    /// How many keys have an instance of their own.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether no key has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// How many keys can have one.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline]
    fn find<Q>(&self, key: &Q) -> Option<Arc<Entry<K, P>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.map.pin().get(&Wanted(key))?.upgrade()
    }

    #[cold]
    fn get_new<Q>(&self, key: &Q) -> Instance<K, P>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        // Dropped after the lock is: what it is made of is the user's.
        let mut gone = Vec::new();
        let placed = match self.enter() {
            Some(mut room) => self.place(key, &mut room, &mut gone),
            None => Err(None),
        };
        match placed {
            Ok(entry) => Instance::for_a_call(entry),
            Err(event) => {
                if let Some(event) = event {
                    self.telemetry.now().emit(Some(&self.id), || event);
                }
                Instance::for_a_call(Arc::clone(&self.overflow))
            }
        }
    }

    /// Makes the key's instance, unless somebody else just has. If there is none to be had, there may be an event to
    /// tell.
    fn place<Q>(
        &self,
        key: &Q,
        room: &mut Room<K, P>,
        gone: &mut Vec<Entry<K, P>>,
    ) -> Result<Arc<Entry<K, P>>, Option<EventKind>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(entry) = self.find(key) {
            return Ok(entry);
        }
        let now = clock::now();
        gone.extend(room.sweep(&self.map, now, self.idle_after, SWEPT_AT_ONCE));
        let Some(slot) = room.make(&self.map, self.capacity, now, gone) else {
            let first = room.overflowed.is_first(now);
            return Err(first.then_some(EventKind::Overflowed { capacity: self.capacity }));
        };
        let key = key.to_owned();
        match (self.factory)(Some(&key)) {
            Ok(policy) => Ok(room.settle(&self.map, Entry::new(Some(Arc::new(key)), slot, policy, now))),
            Err(error) => {
                let first = room.failed.is_first(now);
                Err(first.then_some(EventKind::InstanceFailed { error }))
            }
        }
    }
}

/// The slots that are looked at for idle instances when a key gets one: more than one, so that idle ones go faster than
/// new ones come.
const SWEPT_AT_ONCE: usize = 4;

impl<K, P> fmt::Debug for Keyed<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("name", &self.id.name).field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
