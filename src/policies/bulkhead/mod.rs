//! Bulkhead: bounds how many calls run at once.

#[cfg(test)]
mod checks;
#[cfg(feature = "serde")]
mod config;
mod permits;
mod queue;
mod run;

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

#[cfg(feature = "serde")]
use crate::{amendment::Amendment, config::LayerConfig};
use crate::{
    build::IntoLayer,
    call::standalone_guard,
    context::Context,
    engine::{
        sync::{AtomicUsize, Ordering},
        tuned::Tuned,
    },
    error::{ConfigError, Reason, Rejection},
    event::{EventKind, Kind, Listeners, PolicyId},
    layer::{LayerInfo, Live, Role},
    name::Name,
    outcome::Outcome,
    policy::{Describe, Site},
    snapshot::{BulkheadSnapshot, LayerState},
};
use permits::Permits;

/// Bounds how many calls run at once, so that one slow dependency cannot take all the tasks, connections and memory.
///
/// **When to use it.** Around each dependency of its own, sized below what it can bear: capacity in calls a second times
/// the attempt timeout in seconds. Below that a metastable overload heals by itself. **When not.** To limit a rate: a
/// bulkhead counts calls in flight, not calls a second.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use withstand::{Bulkhead, Error, Reason};
///
/// let bulkhead = Bulkhead::builder().limit(1).build()?;
/// let held = bulkhead.acquire().await.unwrap();
/// assert_eq!((bulkhead.in_use(), bulkhead.queued()), (1, 0));
///
/// let error = bulkhead.call(|| async { Ok::<_, std::io::Error>(()) }).await.unwrap_err();
/// assert_eq!(error.rejection().map(|rejection| rejection.reason()), Some(Reason::BulkheadFull));
///
/// drop(held);
/// bulkhead.call(|| async { Ok::<_, std::io::Error>(()) }).await.unwrap();
/// # Ok::<(), withstand::ConfigError>(()) }).unwrap();
/// ```
///
/// # What happens to a call
///
/// | permits | queue | a call | a hedge |
/// |---|---|---|---|
/// | one is free, nobody waits | | runs | runs |
/// | none is free | has room | waits, first in first out, at most `max_wait` | is rejected: `BulkheadFull` |
/// | none is free | is full, or 0 | is rejected: `BulkheadFull` | is rejected: `BulkheadFull` |
/// | limit 0 | | is rejected: `BulkheadFull` | is rejected: `BulkheadFull` |
///
/// A newcomer never overtakes one that waits. Whoever waited longer than `max_wait` is rejected with `QueueTimeout`. Past
/// the deadline nothing is called: the outcome is a timeout.
///
/// # Options
///
/// | option | unit, range | default | why |
/// |---|---|---|---|
/// | [`limit`](BulkheadBuilder::limit) | calls, 0 to [`MAX_LIMIT`](Bulkhead::MAX_LIMIT) | none, required | there is no safe guess |
/// | [`queue`](BulkheadBuilder::queue) | calls, any | 0 | what waits is old when it runs |
/// | [`max_wait`](BulkheadBuilder::max_wait) | time, more than 0 | 100 ms, if there is a queue | a tenth of the standard attempt timeout |
///
/// # Run time
///
/// [`set_limit`](Self::set_limit) changes the limit while calls run: growing admits those who wait at once, in their
/// order; shrinking takes permits back as they come free, and interrupts nobody.
/// [`in_use`](Self::in_use) and [`queued`](Self::queued) tell the occupancy. [`acquire`](Self::acquire) gives a permit
/// without wrapping anything.
///
/// # Cancellation
///
/// A call that is dropped gives its permit back once its future is dropped, and leaves the queue if it waited.
///
/// # Events
///
/// `Rejected`, `Waited` (only for calls that waited), `LimitChanged`.
///
/// # Order among layers
///
/// Inside the retry, so that a wait between attempts holds no permit; outside the circuit breaker, so that a call which
/// waited is admitted by the state of then.
///
/// # Source
///
/// Michael Nygard, *Release It!*. The queue is tokio's fair semaphore; without one, the permits are a number.
pub struct Bulkhead {
    shared: Arc<Shared>,
}

/// What a handle on the pipeline sees as well.
struct Shared {
    id: PolicyId,
    permits: Permits,
    waiting: AtomicUsize,
    /// Zero for ever, or never.
    queue: Tuned<usize>,
    max_wait: Tuned<Duration>,
    observers: Listeners,
}

impl Bulkhead {
    /// The highest limit there is.
    pub const MAX_LIMIT: usize = Semaphore::MAX_PERMITS;

    /// Starts from the defaults. The limit must be given.
    pub const fn builder() -> BulkheadBuilder {
        BulkheadBuilder { name: None, limit: None, queue: 0, max_wait: None }
    }

    /// A permit, without wrapping anything: waits in the queue if there is one.
    ///
    /// # Errors
    ///
    /// If no permit is free and none comes free in time, or the queue is full.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue; a permit that was just given goes to the next who waits.
    pub fn acquire(&self) -> impl Future<Output = Result<Permit<'_>, Rejection>> + Send {
        async {
            match self.try_permit() {
                Some(permit) => Ok(permit),
                None => self.wait_outside_of_calls().await.map_err(|refusal| self.rejection(refusal.reason())),
            }
        }
    }

    /// A permit, if one is free now and nobody waits.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        self.try_permit().ok_or_else(|| self.rejection(Reason::BulkheadFull))
    }

    /// Changes the limit, at once and while calls run.
    ///
    /// # Errors
    ///
    /// If it is more than [`MAX_LIMIT`](Self::MAX_LIMIT).
    pub fn set_limit(&self, limit: usize) -> Result<(), ConfigError> {
        check_limit(limit).map_err(|error| error.in_policy(&self.shared.id.name))?;
        self.shared.tell_of_limit(self.shared.permits.set_limit(limit), limit);
        Ok(())
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.shared.permits.limit()
    }

    /// How many permits are in use. More than the limit for a while after it was lowered.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.shared.permits.in_use()
    }

    /// How many calls wait in the queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn rejection(&self, reason: Reason) -> Rejection {
        Rejection::new(self.shared.id.name.clone(), reason)
    }

    #[inline(always)]
    fn refuse<T, E>(&self, reason: Reason, cx: Context<'_>) -> Outcome<T, E> {
        cx.emit(&self.shared.id, || EventKind::rejected(&self.rejection(reason), cx));
        Outcome::rejected(self.rejection(reason))
    }

    #[inline(always)]
    fn try_permit(&self) -> Option<Permit<'_>> {
        self.shared.permits.try_take().then(|| Permit { bulkhead: self })
    }
}

impl Shared {
    fn tell_of_limit(&self, old: usize, new: usize) {
        if old != new {
            self.observers.tell(&self.id, &EventKind::LimitChanged { old, new });
        }
    }
}

/// For who looks after it while it runs.
impl Live for Shared {
    fn info(&self) -> LayerInfo {
        let (limit, queue, max_wait) = (self.permits.limit(), self.queue.get(), self.max_wait.get());
        let role = Role::Bulkhead { limit, queue, max_wait };
        let info = LayerInfo::new(self.id.clone(), role).setting("limit", limit).setting("queue", queue);
        if queue == 0 { info } else { info.setting("max_wait", format_args!("{max_wait:?}")) }
    }

    fn state(&self) -> LayerState {
        LayerState::Bulkhead(BulkheadSnapshot {
            limit: self.permits.limit(),
            in_use: self.permits.in_use(),
            queue: self.queue.get(),
            queued: self.waiting.load(Ordering::Relaxed),
        })
    }

    #[cfg(feature = "serde")]
    fn amend(self: Arc<Self>, config: &LayerConfig) -> Result<Amendment, ConfigError> {
        match config {
            LayerConfig::Bulkhead(config) => self.amended(config),
            other => Err(other.misplaced(self.id.kind())),
        }
    }
}

standalone_guard!([] Bulkhead);

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.shared.id.name)
            .field("limit", &self.limit())
            .field("in_use", &self.in_use())
            .field("queue", &self.shared.queue)
            .field("queued", &self.queued())
            .field("max_wait", &self.shared.max_wait)
            .finish_non_exhaustive()
    }
}

/// Leave to run, given back when it is dropped.
#[must_use = "a permit that is dropped is given back at once"]
pub struct Permit<'a> {
    bulkhead: &'a Bulkhead,
}

impl Permit<'_> {
    /// Gives it back where that is a subtraction, which cannot unwind: nobody can be waiting. Still there if not.
    #[inline(always)]
    #[expect(clippy::mem_forget, reason = "it is given back")]
    fn count_out(self) -> Option<Self> {
        if !self.bulkhead.shared.permits.count_out() {
            return Some(self);
        }
        std::mem::forget(self);
        None
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.bulkhead.shared.permits.give_back();
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("bulkhead", &self.bulkhead.shared.id.name).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Refusal {
    Full,
    QueueTimeout,
    /// The deadline passed in the queue.
    Late,
}

impl Refusal {
    fn reason(self) -> Reason {
        match self {
            Self::Full => Reason::BulkheadFull,
            Self::QueueTimeout | Self::Late => Reason::QueueTimeout,
        }
    }

    #[cold]
    fn outcome<T, E>(self, bulkhead: &Bulkhead, cx: Context<'_>) -> Outcome<T, E> {
        match self {
            Self::Late => Outcome::refused_as_late(cx, Some(&bulkhead.shared.id)),
            Self::Full | Self::QueueTimeout => bulkhead.refuse(self.reason(), cx),
        }
    }
}

/// Builds a [`Bulkhead`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct BulkheadBuilder {
    name: Option<Name>,
    limit: Option<usize>,
    queue: usize,
    max_wait: Option<Duration>,
}

impl BulkheadBuilder {
    /// The name in errors and events. Default: `bulkhead`.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The most calls at once: 0, which rejects everything, to [`Bulkhead::MAX_LIMIT`]. Required.
    pub const fn limit(mut self, calls: usize) -> Self {
        self.limit = Some(calls);
        self
    }

    /// The most calls that wait for a permit. Default: 0, nobody waits.
    pub const fn queue(mut self, calls: usize) -> Self {
        self.queue = calls;
        self
    }

    /// The longest that a call waits in the queue: more than zero. Default: 100 ms.
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If no limit is given or a setting is out of its range; the error names it.
    pub fn build(self) -> Result<Bulkhead, ConfigError> {
        IntoLayer::<Bulkhead>::into_layer(self, Kind::Bulkhead.into())
    }

    fn check(&self) -> Result<(usize, Duration), ConfigError> {
        let limit = self
            .limit
            .ok_or_else(|| ConfigError::new("limit", "missing", "the most calls at once; there is no safe default"))?;
        check_limit(limit)?;
        match self.max_wait {
            None => Ok((limit, Duration::from_millis(100))),
            Some(wait) if wait.is_zero() => {
                Err(ConfigError::new("max_wait", "0s", "more than 0s; leave out the queue for no wait"))
            }
            Some(wait) if self.queue == 0 => {
                let value = format!("{wait:?} without a queue");
                Err(ConfigError::new("max_wait", value, "a wait together with queue(n)"))
            }
            Some(wait) => Ok((limit, wait)),
        }
    }
}

fn check_limit(limit: usize) -> Result<(), ConfigError> {
    if limit > Bulkhead::MAX_LIMIT {
        let accepted = format!("at most {}", Bulkhead::MAX_LIMIT);
        return Err(ConfigError::new("limit", limit, accepted));
    }
    Ok(())
}

impl IntoLayer<Bulkhead> for BulkheadBuilder {
    type Layer = Bulkhead;

    fn into_layer(self, default_name: Name) -> Result<Bulkhead, ConfigError> {
        let id = PolicyId::new(Kind::Bulkhead, self.name.clone(), default_name)?;
        let (limit, max_wait) = self.check().map_err(|error| error.in_policy(&id.name))?;
        let shared = Shared {
            id,
            permits: Permits::new(limit, self.queue > 0),
            waiting: AtomicUsize::new(0),
            queue: Tuned::new(self.queue),
            max_wait: Tuned::new(max_wait),
            observers: Listeners::default(),
        };
        Ok(Bulkhead { shared: Arc::new(shared) })
    }
}

impl Describe for Bulkhead {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.push(self.shared.info().live(self.shared.clone()));
    }

    fn attach(&self, site: &Site<'_>) {
        self.shared.observers.add(site.telemetry);
    }
}
