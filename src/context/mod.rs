//! What a call carries inward: its options, its deadline, its place among the attempts.

mod options;

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed},
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

pub use options::{Attempt, CallOptions, Idempotency, Priority};

use crate::{
    alarm::AlarmClock,
    ambient::{Ambient, Outer},
    clock::{Reading, instant_of, moment_of},
    engine::moment::{Moment, nanos},
    error::{Phase, Scope, TimedOut},
    event::{EventKind, PolicyId, Telemetry},
    name::Name,
};

const NOBODY: u16 = 0;
/// Nobody any more: the call has ended at its deadline.
const OVERDUE: u16 = 1;
const LAYERS: u16 = 2;
const OPERATION: u16 = 3;

/// What all attempts of one public call share.
pub(crate) struct CallState {
    pub(crate) reading: Reading,
    pub(crate) alarms: AlarmClock,
    /// The deadline of a call around this one, which ends this one as well.
    outer: Outer,
    /// Who runs: [`NOBODY`], [`OVERDUE`], [`LAYERS`], or from [`OPERATION`] on the operation of the hedge of that index. While a panic
    /// unwinds it tells whose that is.
    runs: AtomicU16,
    attempts: AtomicU32,
    hedges: AtomicU32,
    winner: AtomicU32,
    idempotency: Idempotency,
    priority: Priority,
    /// An attempt has taken away what a further one would take.
    #[cfg(feature = "tower")]
    used_up: AtomicBool,
}

// Relaxed throughout this file: one task polls a call at a time, and whatever hands the task to another thread orders
// these accesses. The atomics are there for `Sync`; plain loads and stores do.
#[inline]
fn bump(counter: &AtomicU32) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

impl CallState {
    #[inline(always)]
    pub(crate) fn new(options: CallOptions) -> Self {
        Self {
            reading: Reading::default(),
            alarms: AlarmClock::new(),
            outer: Outer::none(),
            // Whoever begins a call goes on to poll it: until then only a panic ends it.
            runs: AtomicU16::new(LAYERS),
            attempts: AtomicU32::new(0),
            hedges: AtomicU32::new(0),
            winner: AtomicU32::new(0),
            idempotency: options.idempotency,
            priority: options.priority,
            #[cfg(feature = "tower")]
            used_up: AtomicBool::new(false),
        }
    }

    /// What the call knew about the present is void: a poll begins.
    #[inline(always)]
    pub(crate) fn poll_begins(&self, waker: &Waker, rang: bool) {
        self.reading.clear();
        self.alarms.poll_begins(waker, rang, &self.reading);
        self.runs.store(LAYERS, Relaxed);
    }

    #[inline(always)]
    pub(crate) fn poll_ends(&self) {
        self.runs.store(NOBODY, Relaxed);
    }

    /// Whether an operation panicked, asked in a `Drop` that runs because something inside unwinds.
    pub(crate) fn operation_panicked(&self) -> bool {
        self.runs.load(Relaxed) >= OPERATION
    }

    /// Whether anything inside the call panicked, asked in a `Drop`: otherwise its caller drops it.
    pub(crate) fn panicked(&self) -> bool {
        self.runs.load(Relaxed) > OVERDUE
    }

    /// The call ends at its deadline, which is told when what runs inside is gone.
    pub(crate) fn ends_late(&self) {
        self.runs.store(OVERDUE, Relaxed);
    }

    pub(crate) fn ended_late(&self) -> bool {
        self.runs.load(Relaxed) == OVERDUE
    }

    /// Whether what is due then is ended by whoever set the deadline around this poll: the outer one of equal deadlines is
    /// reported. That one's time may have begun a little later, in the same poll, which may have taken so long.
    pub(crate) fn is_left_to_the_outer(&self, due: Moment, slack: Duration) -> bool {
        if due < self.outer.get() {
            return false;
        }
        // Not so if this call has left the operation in which it began.
        let around = Ambient::current();
        around.ends_inside() && around.nearest(|| Moment::NEVER).since(due) <= slack
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.load(Relaxed)
    }

    pub(crate) fn hedges(&self) -> u32 {
        self.hedges.load(Relaxed)
    }

    pub(crate) fn winner(&self) -> u32 {
        self.winner.load(Relaxed)
    }

    pub(crate) fn won(&self, hedge: u32) {
        self.winner.store(hedge, Relaxed);
    }
}

/// A part of a call with something of its own: a deadline, or attempts that run beside others.
///
/// A policy keeps one on its own stack for as long as the attempt inside it runs, and hands
/// [`cx.within(&frame)`](Context::within) inward. Policies that make one attempt after the other need none.
///
/// ```
/// use tokio::time::timeout;
/// use withstand::{Context, Describe, Frame, Operation, Outcome, Policy, Verdict};
///
/// /// Reserves a tenth of the time for what comes after.
/// struct Reserve;
/// impl Describe for Reserve {}
/// impl<T: Send, E: Send> Policy<T, E> for Reserve {
///     async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
///         match cx.remaining() {
///             None => op.attempt(cx).await,
///             Some(left) => {
///                 let most = left.mul_f64(0.9);
///                 let frame = Frame::with_limit(cx, most);
///                 match timeout(most, op.attempt(cx.within(&frame))).await {
///                     Ok(outcome) => outcome,
///                     Err(_elapsed) => Outcome::new(Err(frame.timed_out().into()), Verdict::transient()),
///                 }
///             }
///         }
///     }
/// }
/// ```
//
// In this order: a frame takes two pointers over from the one around it. Side by side they would be copied in one wide
// load, right after they were written one by one, which the processor cannot forward.
#[repr(C)]
pub struct Frame<'a> {
    state: &'a CallState,
    parent: Option<&'a Frame<'a>>,
    telemetry: &'a Telemetry,
    /// The nearest deadline. [`UNKNOWN`] until somebody needs it: that is when the limit begins.
    deadline: AtomicU64,
    /// This frame's own limit, [`NO_LIMIT`] if it has none.
    limit_nanos: u64,
    scope: Scope,
    phase: AtomicU8,
    superseded: AtomicBool,
    watched: AtomicBool,
    started: AtomicU32,
    last_start: AtomicU64,
}

/// No moment is zero: see the epoch of the clock.
const UNKNOWN: u64 = 0;
const NO_LIMIT: u64 = u64::MAX;

impl<'a> Frame<'a> {
    /// The frame of a whole call, whose caller may have a deadline of his own, or be an operation that has one.
    #[inline(always)]
    pub(crate) fn root(state: &'a CallState, telemetry: &'a Telemetry, options: CallOptions) -> Self {
        let mut root = Self::of(state, None, telemetry, Moment::NEVER.nanos(), 0, Scope::Deadline);
        let around = if options.ignores_outer_deadline { Ambient::NONE } else { Ambient::current() };
        if around != Ambient::NONE || options.deadline.is_some() {
            root.limit_from_outside(around, options.deadline);
        }
        root
    }

    #[cold]
    fn limit_from_outside(&mut self, around: Ambient, own: Option<Instant>) {
        let now = self.state.reading.get();
        let (outer, own) = (around.nearest(|| now), own.map_or(Moment::NEVER, moment_of));
        let deadline = outer.min(own);
        self.deadline = AtomicU64::new(deadline.nanos());
        self.limit_nanos = nanos(deadline.since(now));
        // Of equal deadlines the outer one is reported.
        if deadline == outer && around.ends_inside() {
            self.state.outer.set(outer);
        }
    }

    #[inline(always)]
    fn of(
        state: &'a CallState,
        parent: Option<&'a Frame<'a>>,
        telemetry: &'a Telemetry,
        deadline: u64,
        limit_nanos: u64,
        scope: Scope,
    ) -> Self {
        Self {
            state,
            parent,
            telemetry,
            deadline: AtomicU64::new(deadline),
            limit_nanos,
            scope,
            phase: AtomicU8::new(Phase::Entry.code()),
            superseded: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            started: AtomicU32::new(0),
            last_start: AtomicU64::new(0),
        }
    }

    #[inline(always)]
    fn inside(parent: &'a Frame<'a>, telemetry: &'a Telemetry, limit_nanos: u64, scope: Scope) -> Self {
        Self::of(parent.state, Some(parent), telemetry, UNKNOWN, limit_nanos, scope)
    }

    /// A part of the call with attempts of its own: for a policy that runs several at once, one for each.
    #[must_use]
    #[inline]
    pub fn new(cx: Context<'a>) -> Self {
        Self::inside(cx.frame, cx.frame.telemetry, NO_LIMIT, Scope::Total)
    }

    /// A part of the call that may take so long from now. The nearest deadline is published to all that is inside: no
    /// attempt begins after it. Whoever publishes one ends the attempt at it: a timeout inside that would end later
    /// relies on that, and sets no timer.
    #[must_use]
    pub fn with_limit(cx: Context<'a>, limit: Duration) -> Self {
        let frame = Self::with_limit_once_pending(cx, nanos(limit));
        frame.deadline();
        frame
    }

    /// The same, except that the time begins when somebody first asks for the deadline. Whoever ends the attempt at it
    /// asks when the attempt is first pending; what is ready at once costs no reading of the clock.
    #[inline(always)]
    pub(crate) fn with_limit_once_pending(cx: Context<'a>, limit_nanos: u64) -> Self {
        Self::inside(cx.frame, cx.frame.telemetry, limit_nanos, cx.scope())
    }

    pub(crate) fn with_telemetry(cx: Context<'a>, telemetry: &'a Telemetry) -> Self {
        Self::inside(cx.frame, telemetry, NO_LIMIT, Scope::Total)
    }

    pub(crate) fn telemetry(&self) -> &'a Telemetry {
        self.telemetry
    }

    /// How many attempts inside this part have reached the operation.
    #[must_use]
    #[inline]
    pub fn attempts_started(&self) -> u32 {
        self.started.load(Relaxed)
    }

    /// The nearest deadline. The limits that have not begun yet begin now.
    #[inline]
    pub(crate) fn deadline(&self) -> Moment {
        match self.deadline.load(Relaxed) {
            UNKNOWN => self.begin(),
            nanos => Moment::from_nanos(nanos),
        }
    }

    #[inline(never)]
    fn begin(&self) -> Moment {
        let outer = self.parent.map_or(Moment::NEVER, Self::deadline);
        let nearest = match self.limit_nanos {
            NO_LIMIT => outer,
            limit => self.state.reading.get().after(Duration::from_nanos(limit)).min(outer),
        };
        self.deadline.store(nearest.nanos(), Relaxed);
        nearest
    }

    /// The nearest deadline of those that are set: nobody has waited yet for what has none.
    #[inline]
    pub(crate) fn deadline_so_far(&self) -> Moment {
        self.limits_so_far().0
    }

    /// The same, and the shortest limit of those that have not begun.
    #[inline(always)]
    fn limits_so_far(&self) -> (Moment, u64) {
        let (mut frame, mut limit) = (self, NO_LIMIT);
        loop {
            match (frame.deadline.load(Relaxed), frame.parent) {
                (UNKNOWN, Some(parent)) => {
                    limit = limit.min(frame.limit_nanos);
                    frame = parent;
                }
                (nanos, _) => return (Moment::from_nanos(nanos), limit),
            }
        }
    }

    /// What limits all that is inside.
    #[inline(always)]
    pub(crate) fn ambient(&self) -> Ambient {
        match self.limits_so_far() {
            (Moment::NEVER, limit) => Ambient::limit(limit),
            (deadline, NO_LIMIT) => Ambient::deadline(deadline),
            (deadline, limit) => Ambient::limit(limit).narrowed_to(deadline, self.state.reading.get()),
        }
    }

    /// The nearest deadline, if it is this frame's own and not one of those around it.
    pub(crate) fn own_deadline(&self) -> Moment {
        let deadline = self.deadline();
        match self.parent {
            Some(parent) if parent.deadline() <= deadline => Moment::NEVER,
            _ => deadline,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::from_code(self.phase.load(Relaxed))
    }

    /// What to tell once the nearest deadline has passed: on behalf of the outermost frame that has it, which counts all
    /// attempts within it. A policy that publishes a deadline ends its attempt with this.
    #[must_use]
    pub fn timed_out(&'a self) -> TimedOut {
        let deadline = self.deadline();
        let owner = self.around().take_while(|frame| frame.deadline() == deadline).last().unwrap_or(self);
        TimedOut {
            limit: Duration::from_nanos(owner.limit_nanos),
            scope: owner.scope,
            phase: self.phase(),
            attempts: owner.attempts_started(),
        }
    }

    /// Another attempt won the race; what still runs in this frame is about to be dropped.
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Relaxed);
    }

    /// When the latest attempt in this frame reached the operation. Only kept after [`Context::watch_starts`].
    pub(crate) fn last_start(&self) -> Option<Moment> {
        match self.last_start.load(Relaxed) {
            0 => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    fn around(&'a self) -> impl Iterator<Item = &'a Frame<'a>> {
        std::iter::successors(Some(self), |frame| frame.parent)
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("deadline", &instant_of(self.deadline_so_far()))
            .field("phase", &self.phase())
            .field("attempts_started", &self.attempts_started())
            .finish_non_exhaustive()
    }
}

/// What a call carries inward: its options, the nearest deadline, its place among the attempts, and the way to report.
///
/// It is passed by value from layer to layer; a layer that changes something hands a changed copy inward.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    frame: &'a Frame<'a>,
    place: Place,
}

const _: () = assert!(size_of::<Context<'_>>() <= 16, "a context is passed by value through every layer");

/// Which attempt this is, and what is around it: from the low end its number, 32 bits, the index of the hedge, 16, and
/// flags. One word, and not four fields: so a context is two words, which stay in registers.
#[derive(Clone, Copy)]
struct Place(u64);

const ATTEMPT: u64 = 0xFFFF_FFFF;
const HEDGE: u64 = 0xFFFF << 32;
/// Something outside may attempt this more than once: a limit is one attempt's, not the whole call's.
const REPEATED: u64 = 1 << 48;
/// A circuit breaker outside counts this attempt as its probe.
const PROBE: u64 = 1 << 49;

impl Place {
    const FIRST: Self = Self(1);

    const fn attempt(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    const fn hedge(self) -> u16 {
        let [.., e, f, _, _] = self.0.to_le_bytes();
        u16::from_le_bytes([e, f])
    }

    const fn with_attempt(self, number: u32) -> Self {
        let [a, b, c, d] = number.to_le_bytes();
        Self(self.0 & !ATTEMPT | u64::from_le_bytes([a, b, c, d, 0, 0, 0, 0]))
    }

    fn with_hedge(self, index: u16) -> Self {
        Self(self.0 & !HEDGE | u64::from(index) << 32)
    }

    const fn with(self, flag: u64) -> Self {
        Self(self.0 | flag)
    }

    const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

impl<'a> Context<'a> {
    #[inline]
    pub(crate) fn new(frame: &'a Frame<'a>) -> Self {
        Self { frame, place: Place::FIRST }
    }

    /// The name of the pipeline, if there is one.
    #[must_use]
    pub fn pipeline(&self) -> Option<&'a Name> {
        self.frame.telemetry.pipeline.as_ref()
    }

    /// The number of the attempt; the first is 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.place.attempt()
    }

    /// The index of the hedge; the primary is 0.
    #[must_use]
    #[inline]
    pub fn hedge(&self) -> u32 {
        u32::from(self.place.hedge())
    }

    /// Whether the operation may be carried out more than once.
    #[must_use]
    pub fn idempotency(&self) -> Idempotency {
        self.frame.state.idempotency
    }

    /// Whether no further attempt can be made: an attempt has taken away what it would take.
    #[cfg(feature = "tower")]
    pub(crate) fn is_used_up(&self) -> bool {
        self.frame.state.used_up.load(Relaxed)
    }

    #[cfg(not(feature = "tower"))]
    #[expect(clippy::unused_self, reason = "as with the feature, without which nothing is ever used up")]
    pub(crate) const fn is_used_up(&self) -> bool {
        false
    }

    /// This attempt takes away what a further one would take.
    #[cfg(feature = "tower")]
    pub(crate) fn use_up(&self) {
        self.frame.state.used_up.store(true, Relaxed);
    }

    /// How much the call matters.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.frame.state.priority
    }

    /// The nearest deadline of all that limits what is inside. The time of a timeout that nobody has waited for yet begins
    /// now.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        instant_of(self.frame.deadline())
    }

    /// The time until the nearest deadline; zero if it has passed.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.frame.deadline();
        (deadline != Moment::NEVER).then(|| deadline.since(self.moment()))
    }

    /// The present, read at most once at each edge of an attempt and shared by all layers.
    ///
    /// Right when an attempt begins and when it has ended; after an `await` on something of one's own, ask
    /// [`Instant::now`] instead.
    #[must_use]
    pub fn now(&self) -> Instant {
        instant_of(self.moment()).unwrap_or_else(Instant::now)
    }

    /// Another attempt: the `number`th, from 1. What is inside knows that it may be one of several.
    #[must_use]
    pub const fn with_attempt(mut self, number: u32) -> Self {
        self.place = self.place.with_attempt(number).with(REPEATED);
        self
    }

    /// An attempt beside others: the `index`th hedge, from 1, or the primary, 0. A hedge never waits in a queue and is
    /// never a probe.
    #[must_use]
    pub fn with_hedge(mut self, index: u32) -> Self {
        self.place = self.place.with_hedge(u16::try_from(index).unwrap_or(u16::MAX)).with(REPEATED);
        self
    }

    /// The same within a frame: the frame's deadline is the nearest one, and attempts are counted in it.
    #[must_use]
    pub const fn within<'f>(self, frame: &'f Frame<'f>) -> Context<'f>
    where
        'a: 'f,
    {
        Context { frame, place: self.place }
    }

    /// Reports an event of a policy. The closure runs only if someone listens.
    #[inline]
    pub fn emit(&self, policy: &PolicyId, event: impl FnOnce() -> EventKind) {
        self.frame.telemetry.emit(Some(policy), event);
    }

    /// What the operation is told about this attempt.
    #[must_use]
    #[inline]
    pub fn to_attempt(&self) -> Attempt {
        Attempt { number: self.attempt(), hedge: self.hedge(), deadline: self.frame.deadline() }
    }

    #[inline]
    pub(crate) fn moment(&self) -> Moment {
        self.frame.state.reading.get()
    }

    #[inline]
    pub(crate) fn state(&self) -> &'a CallState {
        self.frame.state
    }

    #[inline]
    pub(crate) fn frame(&self) -> &'a Frame<'a> {
        self.frame
    }

    #[inline]
    pub(crate) fn telemetry(&self) -> &'a Telemetry {
        self.frame.telemetry
    }

    /// The nearest deadline as a moment.
    pub(crate) fn deadline_moment(&self) -> Moment {
        self.frame.deadline()
    }

    /// The nearest deadline of those that are set, to ask in a `Drop`: a limit that has not begun has not passed.
    pub(crate) fn deadline_so_far(&self) -> Moment {
        self.frame.deadline_so_far()
    }

    pub(crate) fn as_probe(mut self) -> Self {
        self.place = self.place.with(PROBE);
        self
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.place.has(PROBE)
    }

    #[inline]
    fn scope(&self) -> Scope {
        if self.is_repeated() { Scope::Attempt } else { Scope::Total }
    }

    /// Whether something outside may attempt this more than once.
    #[inline]
    pub(crate) fn is_repeated(&self) -> bool {
        self.place.has(REPEATED)
    }

    /// What this call is doing now, for the timeouts around it to tell.
    pub(crate) fn enter(&self, phase: Phase) {
        self.frame.around().for_each(|frame| frame.phase.store(phase.code(), Relaxed));
    }

    /// From now on the frame keeps when an attempt reaches the operation, which costs a reading of the clock.
    pub(crate) fn watch_starts(&self) {
        self.frame.watched.store(true, Relaxed);
    }

    /// Whether the nearest deadline has passed.
    #[inline]
    pub(crate) fn is_late(&self) -> bool {
        let deadline = self.frame.deadline_so_far();
        deadline != Moment::NEVER && self.moment() >= deadline
    }

    /// The attempt reaches the operation now, unless it is too late for that: what is around the operation.
    #[inline(always)]
    pub(crate) fn operation_starts(&self) -> Option<Ambient> {
        let state = self.frame.state;
        let (deadline, limit) = self.frame.limits_so_far();
        let mut ambient = Ambient::limit(limit);
        if deadline != Moment::NEVER {
            let now = self.moment();
            if now >= deadline {
                return None;
            }
            ambient = ambient.narrowed_to(deadline, now);
        }
        bump(&state.attempts);
        if self.place.hedge() > 0 {
            bump(&state.hedges);
        }
        for frame in self.frame.around() {
            frame.phase.store(Phase::Attempt.code(), Relaxed);
            bump(&frame.started);
            if frame.watched.load(Relaxed) {
                frame.last_start.store(self.moment().nanos(), Relaxed);
            }
        }
        Some(ambient)
    }

    /// Marks that the operation of this attempt runs: a panic that passes through here is the operation's, and calls that
    /// it makes are limited by what is around it.
    #[inline(always)]
    pub(crate) fn operation_polled<R>(&self, ambient: Ambient, poll: impl FnOnce() -> R) -> R {
        let state = self.frame.state;
        state.runs.store(OPERATION.saturating_add(self.place.hedge()), Relaxed);
        let result = ambient.around(poll);
        state.runs.store(LAYERS, Relaxed);
        state.reading.clear();
        result
    }

    /// Whether the operation of this very attempt panicked, and not one beside it.
    pub(crate) fn has_panicked(&self) -> bool {
        self.frame.state.runs.load(Relaxed) == OPERATION.saturating_add(self.place.hedge())
    }

    /// Whether an attempt that is being dropped lost a race.
    pub(crate) fn is_superseded(&self) -> bool {
        self.frame.around().any(|frame| frame.superseded.load(Relaxed))
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("pipeline", &self.pipeline())
            .field("attempt", &self.attempt())
            .field("hedge", &self.hedge())
            .field("deadline", &instant_of(self.deadline_so_far()))
            .finish_non_exhaustive()
    }
}
