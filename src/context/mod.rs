//! What a call carries inward: its options, its deadline, its place among the attempts.

mod frame;
mod options;
mod state;

use std::{fmt, ptr, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

pub use frame::Frame;
pub use options::{Attempt, CallOptions, Idempotency, Priority};
pub(crate) use state::CallState;

use crate::{
    ambient::Ambient,
    clock::instant_of,
    engine::moment::Moment,
    error::{Phase, Scope},
    event::{EventKind, PolicyId, Telemetry},
    name::Name,
};
use state::{LAYERS, bump};

/// What a call carries inward: its options, the nearest deadline, its place among the attempts, and the way to report.
///
/// It is passed by value from layer to layer; a layer that changes something hands a changed copy inward.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    frame: &'a Frame<'a>,
    place: Place,
}

const _: () = assert!(size_of::<Context<'_>>() <= 16, "a context is passed by value through every layer");
const _: () =
    assert!(align_of::<Frame<'_>>() >= 8, "who runs is known by the address of a frame and the index of a hedge");

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
    /// never a probe. Each of those that run at once is to have a [`Frame`] of its own.
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
        Attempt {
            number: self.attempt(),
            hedge: self.place.hedge(),
            #[cfg(feature = "tonic")]
            begun: u16::try_from(self.frame.outermost().attempts_started()).unwrap_or(u16::MAX),
            deadline: self.frame.deadline(),
        }
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
        state.runs.store(self.as_runner(), Relaxed);
        let result = ambient.around(poll);
        state.runs.store(LAYERS, Relaxed);
        state.reading.clear();
        result
    }

    /// The operation of this attempt, as the call's state names who runs.
    #[inline(always)]
    fn as_runner(&self) -> usize {
        // The low bits of an address are free: a policy of one's own may run a few hedges in one frame.
        ptr::from_ref(self.frame).addr() | usize::from(self.place.hedge() & 7)
    }

    /// Whether the operation of this very attempt panicked, and not one beside it.
    pub(crate) fn has_panicked(&self) -> bool {
        self.frame.state.runs.load(Relaxed) == self.as_runner()
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

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use proptest::{collection::vec, prelude::any, prop_assert_eq, prop_oneof, proptest, strategy::Strategy};

    use super::*;
    use crate::event::Telemetry;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Attempt(u32),
        Hedge(u32),
        Probe,
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = prop_oneof![0..=2_u32, 65_533..=65_537_u32, any::<u32>()];
        let number = prop_oneof![0..=2_u32, u32::MAX - 1..=u32::MAX, any::<u32>()];
        let probe = any::<bool>().prop_map(|_| Step::Probe);
        prop_oneof![number.prop_map(Step::Attempt), index.prop_map(Step::Hedge), probe]
    }

    proptest! {
        /// Layers around layers: what the innermost says holds, and leaves the rest as it was.
        #[test]
        fn what_a_layer_says_of_the_attempt_changes_nothing_else(steps in vec(step(), 0..8)) {
            let state = CallState::new(CallOptions::new());
            let frame = Frame::root(&state, Telemetry::SILENT, CallOptions::new());
            let mut cx = Context::new(&frame);
            let (mut number, mut index, mut repeated, mut probe) = (1, 0, false, false);
            for step in steps {
                match step {
                    Step::Attempt(attempt) => (cx, number, repeated) = (cx.with_attempt(attempt), attempt, true),
                    // A hedge beyond the last index has that one.
                    Step::Hedge(hedge) => (cx, index, repeated) = (cx.with_hedge(hedge), hedge.min(65_535), true),
                    Step::Probe => (cx, probe) = (cx.as_probe(), true),
                }
                prop_assert_eq!((cx.attempt(), cx.hedge()), (number, index));
                prop_assert_eq!((cx.is_repeated(), cx.is_probe()), (repeated, probe));
                prop_assert_eq!((cx.to_attempt().number(), cx.to_attempt().hedge()), (number, index));
            }
        }
    }
}
