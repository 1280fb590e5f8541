//! Bulkhead: bounds how many calls run at once.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{self, Poll, Waker},
    time::Duration,
};

use pin_project::{pin_project, pinned_drop};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use crate::{
    build::IntoLayer,
    call::standalone_guard,
    clock,
    context::Context,
    engine::moment::Moment,
    error::{ConfigError, Phase, Reason, Rejection},
    event::{EventKind, Kind, PolicyId, Telemetry, WaitEnd},
    layer::{LayerInfo, Role},
    name::Name,
    outcome::Outcome,
    policy::{Describe, Operation, Policy, Site},
    timed::Timed,
};

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
/// Michael Nygard, *Release It!*. The queue is tokio's fair semaphore.
pub struct Bulkhead {
    id: PolicyId,
    permits: Semaphore,
    limit: AtomicUsize,
    /// Permits that a lower limit has taken back and that are still in use: the next ones to come free go.
    debt: AtomicUsize,
    /// Changes of the limit follow one another.
    resizing: Mutex<()>,
    waiting: AtomicUsize,
    queue: usize,
    max_wait: Duration,
    observers: crate::event::Listeners,
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
                None => self.wait(None).await.map_err(|refusal| refusal.rejection(self)),
            }
        }
    }

    /// A permit, if one is free now and nobody waits.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        self.try_permit().ok_or_else(|| Refusal::Full.rejection(self))
    }

    /// Changes the limit, at once and while calls run.
    ///
    /// # Errors
    ///
    /// If it is more than [`MAX_LIMIT`](Self::MAX_LIMIT).
    pub fn set_limit(&self, limit: usize) -> Result<(), ConfigError> {
        check_limit(limit).map_err(|error| error.in_policy(&self.id.name))?;
        let old = {
            let _one_at_a_time = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
            let old = self.limit.swap(limit, Ordering::Relaxed);
            if limit > old {
                self.grow(limit.saturating_sub(old));
            } else {
                self.debt.fetch_add(old.saturating_sub(limit), Ordering::SeqCst);
                self.settle();
            }
            old
        };
        if old != limit {
            self.observers.tell(&self.id, &EventKind::LimitChanged { old, new: limit });
        }
        Ok(())
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many permits are in use. More than the limit for a while after it was lowered.
    #[must_use]
    pub fn in_use(&self) -> usize {
        let issued = self.limit().saturating_add(self.debt.load(Ordering::Relaxed));
        issued.saturating_sub(self.permits.available_permits())
    }

    /// How many calls wait in the queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn try_permit(&self) -> Option<Permit<'_>> {
        self.permits.try_acquire().ok().map(|permit| self.permit(permit))
    }

    /// A permit of ours, which knows of debts, for one of the semaphore's.
    #[inline(always)]
    fn permit(&self, permit: SemaphorePermit<'_>) -> Permit<'_> {
        permit.forget();
        Permit { bulkhead: self }
    }

    /// Waits in the queue. The context is that of a call, if it is one.
    #[cold]
    async fn wait(&self, cx: Option<Context<'_>>) -> Result<Permit<'_>, Refusal> {
        let place = Place::take(self).ok_or(Refusal::Full)?;
        if let Some(cx) = cx {
            cx.enter(Phase::Queue);
        }
        let telemetry = cx.map_or(Telemetry::SILENT, |cx| cx.telemetry());
        let started = clock::now();
        let mut waited = Waited { bulkhead: self, telemetry, started, depth: place.depth, end: WaitEnd::Cancelled };
        let deadline = cx.map_or(Moment::NEVER, |cx| cx.deadline_moment());
        let until = started.after(self.max_wait);
        let acquire = Queued { bulkhead: self, acquire: self.permits.acquire(), done: false };
        let result = match Timed::new(until.min(deadline), acquire).await {
            // The time may have come to both at once.
            Ok(Ok(_permit)) if cx.is_some_and(|cx| cx.is_late()) => Err(Refusal::Late),
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(Refusal::Full),
            Err(_) if deadline <= until => Err(Refusal::Late),
            Err(_) => Err(Refusal::QueueTimeout),
        };
        waited.end = match &result {
            Ok(_) => WaitEnd::Admitted,
            Err(Refusal::Late) => WaitEnd::Deadline,
            Err(_) => WaitEnd::QueueTimeout,
        };
        result
    }

    /// More permits: those that a debt is paid with are in use already.
    fn grow(&self, by: usize) {
        self.permits.add_permits(by.saturating_sub(self.pay(by)));
    }

    /// Takes at most so many permits off the debt, and gives how many.
    fn pay(&self, most: usize) -> usize {
        let less = |debt: usize| (debt > 0).then(|| debt.saturating_sub(most));
        let paid = self.debt.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        paid.map_or(0, |debt| debt.min(most))
    }

    /// Takes free permits back for as long as there are any and there is debt: as one who holds them would return them.
    //
    // SeqCst here and where debt is made: a permit that comes free while the limit shrinks is either seen by the one who
    // shrinks or sees the debt itself. With less, both could miss the other and the permit would stay.
    fn settle(&self) {
        loop {
            let taken = self.permits.forget_permits(self.debt.load(Ordering::SeqCst));
            if taken == 0 {
                return;
            }
            // Less if others have paid meanwhile. What is given back may be wanted for a debt made since: once more.
            let paid = self.pay(taken);
            self.permits.add_permits(taken.saturating_sub(paid));
        }
    }

    /// For a permit that came free other than by dropping a [`Permit`].
    #[inline]
    fn settle_if_in_debt(&self) {
        if self.debt.load(Ordering::SeqCst) > 0 {
            self.settle();
        }
    }
}

standalone_guard!([] Bulkhead);

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.id.name)
            .field("limit", &self.limit())
            .field("in_use", &self.in_use())
            .field("queue", &self.queue)
            .field("queued", &self.queued())
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}

/// Leave to run, given back when it is dropped.
#[must_use = "a permit that is dropped is given back at once"]
pub struct Permit<'a> {
    bulkhead: &'a Bulkhead,
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        let Bulkhead { debt, permits, .. } = self.bulkhead;
        if debt.load(Ordering::SeqCst) > 0 && self.bulkhead.pay(1) > 0 {
            return;
        }
        permits.add_permits(1);
        self.bulkhead.settle_if_in_debt();
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("bulkhead", &self.bulkhead.id.name).finish_non_exhaustive()
    }
}

/// A wait for a permit. One that is dropped with a permit it does not know of yet returns it as any other is returned:
/// the semaphore by itself would give it to the next who waits, whatever debt there is.
#[pin_project(PinnedDrop)]
struct Queued<'a, F: Future<Output = Result<SemaphorePermit<'a>, AcquireError>>> {
    bulkhead: &'a Bulkhead,
    #[pin]
    acquire: F,
    done: bool,
}

impl<'a, F: Future<Output = Result<SemaphorePermit<'a>, AcquireError>>> Future for Queued<'a, F> {
    type Output = Result<Permit<'a>, AcquireError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let poll = this.acquire.poll(cx);
        *this.done = poll.is_ready();
        poll.map_ok(|permit| this.bulkhead.permit(permit))
    }
}

#[pinned_drop]
impl<'a, F: Future<Output = Result<SemaphorePermit<'a>, AcquireError>>> PinnedDrop for Queued<'a, F> {
    fn drop(self: Pin<&mut Self>) {
        if !self.done {
            drop(self.poll(&mut task::Context::from_waker(Waker::noop())));
        }
    }
}

/// A place in the queue, given up when it is dropped.
struct Place<'a> {
    bulkhead: &'a Bulkhead,
    depth: usize,
}

impl<'a> Place<'a> {
    fn take(bulkhead: &'a Bulkhead) -> Option<Self> {
        if bulkhead.limit() == 0 {
            return None;
        }
        // Relaxed: the number alone matters; the semaphore orders what is done with the permit.
        let more = |waiting: usize| (waiting < bulkhead.queue).then(|| waiting.saturating_add(1));
        let before = bulkhead.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { bulkhead, depth: before.saturating_add(1) })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.bulkhead.waiting.fetch_sub(1, Ordering::Relaxed);
        // A permit that was given at the very moment of leaving went back to the semaphore, past `Permit`.
        self.bulkhead.settle_if_in_debt();
    }
}

/// Reports a wait when it is over, however it ends.
struct Waited<'a> {
    bulkhead: &'a Bulkhead,
    telemetry: &'a Telemetry,
    started: Moment,
    depth: usize,
    end: WaitEnd,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.telemetry.emit(Some(&self.bulkhead.id), || EventKind::Waited {
            waited: clock::now().since(self.started),
            depth: self.depth,
            end: self.end,
        });
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
    fn rejection(self, bulkhead: &Bulkhead) -> Rejection {
        let reason = match self {
            Self::Full => Reason::BulkheadFull,
            Self::QueueTimeout | Self::Late => Reason::QueueTimeout,
        };
        Rejection::new(bulkhead.id.name.clone(), reason)
    }

    #[cold]
    fn outcome<T, E>(self, bulkhead: &Bulkhead, cx: Context<'_>) -> Outcome<T, E> {
        if let Self::Late = self {
            return Outcome::refused_as_late(cx, Some(&bulkhead.id));
        }
        let rejection = self.rejection(bulkhead);
        let (reason, retry_after) = (rejection.reason(), rejection.retry_after());
        let (attempt, hedge) = (cx.attempt(), cx.hedge());
        cx.emit(&bulkhead.id, || EventKind::Rejected { reason, retry_after, attempt, hedge });
        Outcome::rejected(rejection)
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
            None if self.queue == 0 => Ok((limit, Duration::ZERO)),
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
        Ok(Bulkhead {
            id,
            permits: Semaphore::new(limit),
            limit: AtomicUsize::new(limit),
            debt: AtomicUsize::new(0),
            resizing: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            queue: self.queue,
            max_wait,
            observers: crate::event::Listeners::default(),
        })
    }
}

impl Describe for Bulkhead {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        let (limit, queue, max_wait) = (self.limit(), self.queue, self.max_wait);
        let role = Role::Bulkhead { limit, queue, max_wait };
        let info = LayerInfo::new(self.id.clone(), role).setting("limit", limit).setting("queue", queue);
        out.push(if queue == 0 { info } else { info.setting("max_wait", format_args!("{max_wait:?}")) });
    }

    fn attach(&self, site: &Site<'_>) {
        self.observers.add(site.telemetry);
    }
}

impl<T: Send, E: Send> Policy<T, E> for Bulkhead {
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        async move {
            // One place for the permit, whichever way it comes: a `match` over the first try would keep room for two.
            let mut permit = self.try_permit();
            if permit.is_none() {
                if cx.hedge() > 0 {
                    return Refusal::Full.outcome(self, cx);
                }
                match self.wait(Some(cx)).await {
                    Ok(waited_for) => _ = permit.insert(waited_for),
                    Err(refusal) => return refusal.outcome(self, cx),
                }
            }
            op.attempt(cx).await
        }
    }
}
