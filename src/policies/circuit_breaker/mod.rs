//! Circuit breaker: stops calling what does not answer, and finds out when it does again.

mod builder;
#[cfg(feature = "serde")]
mod config;
mod control;
mod run;

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

pub use builder::CircuitBreakerBuilder;
use builder::DEFAULT_LEASE;
pub use control::{Isolation, StateChanges, Ticket};

#[cfg(feature = "serde")]
use crate::{amendment::Amendment, config::LayerConfig, error::ConfigError};
use crate::{
    call::standalone_guard,
    clock,
    engine::{
        circuit::{self, Change, Circuit, Opening, State},
        moment::{Moment, nanos},
        tuned::Tuned,
    },
    event::{EventKind, Listeners, PolicyId},
    layer::{Hold, LayerInfo, Live, Role},
    snapshot::{CircuitSnapshot, CircuitState, LayerState, Transition},
};

/// Stops calling a dependency that keeps failing, and finds out with a few probes when it works again.
///
/// **When to use it.** Around each dependency of its own: where waiting for what will fail costs more than being told at
/// once, and where a dependency that is down needs room to come back. **When not.** One for several independent hosts:
/// one bad host would close the way to the good ones.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// use std::time::Duration;
/// use withstand::{CircuitBreaker, CircuitState, Reason};
///
/// let breaker = CircuitBreaker::builder().count_window(10).min_calls(4).open_for(Duration::from_secs(5)).build()?;
/// for _ in 0..4 {
///     breaker.call(|| async { Err::<(), _>("connection refused") }).await.unwrap_err();
/// }
/// let error = breaker.call(|| async { Ok::<_, &str>(()) }).await.unwrap_err();
/// assert_eq!(error.rejection().map(|rejection| rejection.reason()), Some(Reason::CircuitOpen));
/// assert_eq!(error.retry_after(), Some(Duration::from_secs(5)));
///
/// tokio::time::sleep(Duration::from_secs(5)).await;
/// assert_eq!(breaker.state(), CircuitState::HalfOpen);
/// for _ in 0..3 {
///     breaker.call(|| async { Ok::<_, &str>(()) }).await.unwrap();
/// }
/// assert_eq!(breaker.state(), CircuitState::Closed);
/// # Ok::<(), withstand::ConfigError>(()) }).unwrap();
/// ```
///
/// # States
///
/// ```text
///              a rate, or failures in a row, reach their threshold
///   +--------+ ----------------------------------------------> +------+
///   | closed |                                                 | open | <--+
///   +--------+ <--- close_after probes succeed --- +-----------+ +--+---+  |
///       ^                                          | half-open | <--+      |
///       |                                          +-----+-----+ the break |
///       |                                                |       is over   |
///       |                                                +-----------------+
///       |                                 more than probes - close_after fail
///       +---- the last release, or reset() ---- isolated <---- isolate(), from any state
/// ```
///
/// [`state()`](Self::state) is computed from the time: a break that is over reads half-open, though no call has come.
///
/// - **Closed**: every call is admitted. The circuit opens after any completion that brings a rate to its threshold
///   (`>=`) in a window that holds at least `min_calls`, or that completes a run of failures.
/// - **Open**: every call is rejected with `CircuitOpen` and the rest of the break as `retry_after`.
/// - **Half-open**: at most `probes` results are counted and at most so many probes are out at once; the rest is rejected
///   with `CircuitHalfOpen` and, as `retry_after`, the time until the first lease ends, at most `open_for`. A probe has
///   a lease: one that does not end in time is a failed probe, its slot is free, and its late result is void. Abandoned,
///   throttled, ignored and rejected probes use nothing up. With slow calls watched, a slow success is a failed probe.
///   A hedge is never a probe.
/// - **Isolated**: every call is rejected with `Isolated` until the last handle is released, or the circuit reset.
///
/// A result counts only in the state in which its call was admitted; a late one is returned to its caller and changes
/// nothing.
///
/// # What counts
///
/// | verdict | counts as |
/// |---|---|
/// | `Success` | success |
/// | `Transient`, `Unreached`, `Failure` | failure |
/// | `Throttled`, `Ignored`, `Rejected` | neither |
/// | a panic of the operation | failure |
/// | dropped before it completed | neither, with two exceptions that keep a hang visible: a call that is dropped at its deadline is a failure, one that had run for the slow-call duration is a slow call, and no end of failures in a row |
/// | timed out because this process stood still | neither |
///
/// # Options
///
/// | option | unit, range | default | why |
/// |---|---|---|---|
/// | [`time_window`](CircuitBreakerBuilder::time_window) | time, from 1 ms | 30 s, in 10 slots | Polly's; a count remembers yesterday on a quiet service |
/// | [`count_window`](CircuitBreakerBuilder::count_window) | calls, 1 to 16 384 | off | |
/// | [`consecutive_failures`](CircuitBreakerBuilder::consecutive_failures) | failures, 1 to 16 383 | off | for low traffic: 10 |
/// | [`consecutive_span`](CircuitBreakerBuilder::consecutive_span) | time | 1 s | many streams of one connection die together in a millisecond |
/// | [`failure_rate`](CircuitBreakerBuilder::failure_rate) | share, more than 0, at most 1 | 0.5 | |
/// | [`min_calls`](CircuitBreakerBuilder::min_calls) | calls, from 1; at most a count window's size counts | 20 | false trips at a true rate of 0.2: 0.26 % of windows of 20, 3.3 % of 10 |
/// | [`slow_call`](CircuitBreakerBuilder::slow_call) | time, more than 0 | off | no natural threshold |
/// | [`slow_rate`](CircuitBreakerBuilder::slow_rate) | share, more than 0, at most 1 | 0.8, with `slow_call` | |
/// | [`open_for`](CircuitBreakerBuilder::open_for) | time, more than 0 | 5 s | a short first break |
/// | [`growth`](CircuitBreakerBuilder::growth) | factor, from 1 | 2 | long outages back off; 1 keeps every break the same |
/// | [`max_open_for`](CircuitBreakerBuilder::max_open_for) | time, at least `open_for` | 60 s | |
/// | [`jitter`](CircuitBreakerBuilder::jitter) | share, 0 to 1 | 0 | a break gets longer by up to this, never shorter, so that a fleet does not probe together |
/// | [`probes`](CircuitBreakerBuilder::probes) | calls, 1 to 1000 | 3 | one probe closes half the time at a true rate of 0.5, three 12.5 % |
/// | [`close_after`](CircuitBreakerBuilder::close_after) | calls, 1 to `probes` | `probes` | |
/// | [`probe_lease`](CircuitBreakerBuilder::probe_lease) | time, longer than any timeout inside | 10 s, or twice the time that the layers inside can take; 60 s if they have no limit | shorter than the call would void its verdict |
///
/// Naming any of the three kinds of window replaces the default one; several together open the circuit by whichever
/// trips first.
///
/// # By hand
///
/// [`isolate`](Self::isolate), [`reset`](Self::reset), [`admit`](Self::admit) without wrapping anything,
/// [`snapshot`](Self::snapshot), [`subscribe`](Self::subscribe).
///
/// # Cancellation
///
/// See "What counts": a dropped call gives a probe's slot back at once.
///
/// # Events
///
/// `Rejected`, `Opened`, `HalfOpened`, `ProbeFinished`, `ProbeExpired`, `Closed`, `Isolated`, `Released`. Those that no
/// call caused are told to the observers of all pipelines that the breaker is part of.
///
/// # Order among layers
///
/// Inside the retry and the bulkhead, outside the attempt timeout: each attempt is admitted and judged, a timeout is
/// seen as the failure that it is, and a call that waited for a permit is admitted by the state of then.
///
/// # Source
///
/// Michael Nygard, *Release It!*; windows and slow calls as in resilience4j; generations as in sony/gobreaker. Leases
/// and the exact number of probes are ours.
pub struct CircuitBreaker {
    shared: Arc<Shared>,
}

/// What outlives the breaker in the handles and subscriptions that it gave.
struct Shared {
    id: PolicyId,
    circuit: Circuit,
    slow_call: Tuned<Option<Duration>>,
    /// The longest lease that a pipeline around it has asked for, in nanoseconds; 0 for none yet.
    lease_inside: AtomicU64,
    /// The settings as they were asked for. Taken by no call.
    asked: Mutex<CircuitBreakerBuilder>,
    /// The last transitions, the oldest first.
    transitions: Mutex<VecDeque<Transition>>,
    listeners: Listeners,
    /// Wakes subscribers; they read the state itself.
    changed: watch::Sender<()>,
}

impl CircuitBreaker {
    /// Starts from the defaults.
    pub fn builder() -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::default()
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.shared.state()
    }

    /// The state and all numbers behind it, taken at once.
    #[must_use]
    pub fn snapshot(&self) -> CircuitSnapshot {
        self.shared.snapshot()
    }
}

standalone_guard!([] CircuitBreaker);

impl Shared {
    fn state(&self) -> CircuitState {
        self.circuit.state(clock::now()).into()
    }

    fn snapshot(&self) -> CircuitSnapshot {
        let mut changes = Vec::new();
        let now = clock::now();
        self.circuit.settle(now, &mut changes);
        self.tell(&changes);
        let transitions = self.transitions.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        CircuitSnapshot::new(self.circuit.snapshot(now), transitions)
    }

    /// The settings as they were asked for.
    fn asked(&self) -> CircuitBreakerBuilder {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A lease that was not asked for is longer than a call through any of the pipelines so far can take.
    fn follow(&self, longest_inside: Option<Duration>) {
        if self.asked().lease().is_none() {
            let lease = nanos(lease_around(longest_inside));
            // Relaxed: a number that orders nothing else.
            let longest = self.lease_inside.fetch_max(lease, Relaxed).max(lease);
            self.circuit.set_lease(Duration::from_nanos(longest));
        }
    }

    /// The same, now that these are all the pipelines that there are.
    #[cfg(feature = "serde")]
    fn follow_anew(&self, longest_inside: &[Option<Duration>]) {
        self.lease_inside.store(0, Relaxed);
        for longest in longest_inside {
            self.follow(*longest);
        }
    }

    /// Tells of changes that no call caused.
    fn tell(&self, changes: &[Change]) {
        self.announce(changes, |event| self.listeners.tell(&self.id, &event));
    }

    /// A probe changes no state, but its lease is a moment at which time alone may change it.
    #[inline]
    fn sent(&self, ticket: &circuit::Ticket<'_>) {
        if ticket.is_probe() {
            self.changed.send_replace(());
        }
    }

    #[inline]
    fn announce(&self, changes: &[Change], emit: impl FnMut(EventKind)) {
        if !changes.is_empty() {
            self.announce_all(changes, emit);
        }
    }

    #[cold]
    fn announce_all(&self, changes: &[Change], emit: impl FnMut(EventKind)) {
        self.keep(changes);
        self.changed.send_replace(());
        changes.iter().copied().map(EventKind::from).for_each(emit);
    }
}

impl Shared {
    /// Keeps the transitions among the changes for whoever looks later.
    fn keep(&self, changes: &[Change]) {
        let now = Instant::now();
        let made = changes.iter().filter_map(|change| transition(*change, now));
        let mut kept = self.transitions.lock().unwrap_or_else(PoisonError::into_inner);
        for transition in made {
            if kept.len() >= TRANSITIONS {
                kept.pop_front();
            }
            kept.push_back(transition);
        }
    }
}

/// The lease of a probe that takes so long at most, if anything bounds it.
fn lease_around(longest_inside: Option<Duration>) -> Duration {
    longest_inside.map_or(DEFAULT_LEASE, |inside| inside.saturating_mul(2).max(SHORTEST_LEASE))
}

/// However short the calls are.
const SHORTEST_LEASE: Duration = Duration::from_secs(10);

/// How many transitions are kept.
const TRANSITIONS: usize = 8;

/// The transition that a change is, if it is one.
fn transition(change: Change, at: Instant) -> Option<Transition> {
    Some(match change {
        Change::Opened { trigger, failure_rate, slow_rate, calls, open_for, label, .. } => {
            let calls = u32::try_from(calls).unwrap_or(u32::MAX);
            let opening = Some(Opening { trigger, failure_rate, slow_rate, calls, label });
            Transition { opening, ..Transition::new(CircuitState::Open { retry_after: open_for }, at) }
        }
        Change::HalfOpened { .. } => Transition::new(CircuitState::HalfOpen, at),
        Change::Closed { by, .. } => Transition { closed_by: Some(by), ..Transition::new(CircuitState::Closed, at) },
        Change::Isolated { handles: 1 } => Transition::new(CircuitState::Isolated, at),
        Change::Isolated { .. }
        | Change::Released { .. }
        | Change::ProbeFinished { .. }
        | Change::ProbeExpired { .. } => return None,
    })
}

/// For who looks after it while it runs.
impl Live for Shared {
    fn info(&self) -> LayerInfo {
        let asked = self.asked();
        let role = Role::CircuitBreaker { lease: asked.lease(), slow_call: self.slow_call.get() };
        let info = LayerInfo::new(self.id.clone(), role);
        asked.shown().into_iter().fold(info, |info, (field, value)| info.setting(field, value))
    }

    fn state(&self) -> LayerState {
        LayerState::CircuitBreaker(self.snapshot())
    }

    /// The end of its break: until then its state keeps calls from a dependency that is down.
    fn keep_until(&self, now: Moment) -> Moment {
        match self.circuit.state(now) {
            State::Closed => Moment::from_nanos(0),
            State::HalfOpen => now,
            State::Open { retry_after } => now.after(retry_after),
            State::Isolated => Moment::NEVER,
        }
    }

    fn isolate(self: Arc<Self>) -> Option<Hold> {
        Some(Box::new(Isolation::of(&self)))
    }

    fn reset(&self) {
        let mut changes = Vec::new();
        self.circuit.reset(clock::now(), &mut changes);
        self.tell(&changes);
    }

    #[cfg(feature = "serde")]
    fn amend(self: Arc<Self>, config: &LayerConfig) -> Result<Amendment, ConfigError> {
        match config {
            LayerConfig::CircuitBreaker(config) => self.amended(config),
            other => Err(other.misplaced(self.id.kind())),
        }
    }

    #[cfg(feature = "serde")]
    fn inside_is(&self, longest: &[Option<Duration>]) {
        self.follow_anew(longest);
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.shared.id.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl From<Change> for EventKind {
    fn from(change: Change) -> Self {
        match change {
            Change::Opened { trigger, failure_rate, slow_rate, calls, open_for, reopenings, label } => {
                Self::Opened { trigger, failure_rate, slow_rate, calls, open_for, reopenings, label }
            }
            Change::HalfOpened { open_for_real } => Self::HalfOpened { open_time: open_for_real },
            Change::ProbeFinished { success, successes, needed } => {
                Self::ProbeFinished { passed: success, successes, needed }
            }
            Change::ProbeExpired { lease } => Self::ProbeExpired { lease },
            Change::Closed { by, open_time } => Self::Closed { by, open_time },
            Change::Isolated { handles } => Self::Isolated { handles },
            Change::Released { handles } => Self::Released { handles },
        }
    }
}
