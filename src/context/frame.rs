//! A part of a call with something of its own.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{CallOptions, CallState, Context};
use crate::{
    ambient::Ambient,
    clock::{instant_of, moment_of},
    engine::moment::{Moment, nanos},
    error::{Phase, Scope, TimedOut},
    event::Telemetry,
};

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
    pub(super) state: &'a CallState,
    parent: Option<&'a Frame<'a>>,
    pub(super) telemetry: &'a Telemetry,
    /// The nearest deadline. [`UNKNOWN`] until somebody needs it: that is when the limit begins.
    deadline: AtomicU64,
    /// This frame's own limit, [`NO_LIMIT`] if it has none.
    limit_nanos: u64,
    scope: Scope,
    pub(super) phase: AtomicU8,
    pub(super) superseded: AtomicBool,
    pub(super) watched: AtomicBool,
    pub(super) started: AtomicU32,
    pub(super) last_start: AtomicU64,
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
    pub(super) fn limits_so_far(&self) -> (Moment, u64) {
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
    #[inline(always)]
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

    /// The frame of the whole call.
    #[cfg(feature = "tonic")]
    pub(super) fn outermost(&'a self) -> &'a Self {
        self.around().last().unwrap_or(self)
    }

    pub(super) fn around(&'a self) -> impl Iterator<Item = &'a Frame<'a>> {
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
