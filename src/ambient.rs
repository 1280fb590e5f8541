//! The deadline around what is being polled: what a call limits itself to that is made inside another one's operation.

#[cfg(feature = "deadlines")]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use crate::{clock, engine::moment::Moment};

/// Whether calls see the deadline around them: a few instructions of each.
pub(crate) const SEEN: bool = cfg!(feature = "deadlines");

thread_local! {
    /// Set only while what it is around is being polled, and restored after that: so it belongs to a part of a task, and
    /// neither to the tasks that this spawns nor to the others on its thread.
    static AMBIENT: Cell<Ambient> = const { Cell::new(Ambient::NONE) };
}

/// What limits all that is polled inside. A number, not the frames that it comes from: those live on somebody's stack.
//
// One word, because every operation sets it and puts it back:
//
// | below 2^61 | a limit in nanoseconds whose time has not begun; such limits end at thirty years |
// | from there to 2^63 | the moment of a deadline at which whoever set it ends what is inside |
// | from there on | 2^63 and the moment of a deadline at which nobody does |
// | `u64::MAX` | nothing |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ambient(u64);

const FIRST_MOMENT: u64 = 1 << 61;
const ENDS_NOTHING: u64 = 1 << 63;

impl Ambient {
    pub(crate) const NONE: Self = Self(u64::MAX);

    #[inline(always)]
    pub(crate) fn current() -> Self {
        if SEEN { AMBIENT.get() } else { Self::NONE }
    }

    /// A limit in nanoseconds that begins when somebody waits for it; none if it is `u64::MAX`.
    #[inline(always)]
    pub(crate) const fn limit(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A deadline at which whoever sets it ends what is inside.
    #[inline]
    pub(crate) fn deadline(deadline: Moment) -> Self {
        match deadline.nanos() {
            // Centuries away.
            ENDS_NOTHING.. => Self::NONE,
            nanos => Self(nanos.max(FIRST_MOMENT)),
        }
    }

    /// A deadline at which nobody ends anything.
    #[cfg(feature = "deadlines")]
    pub(crate) fn mere_deadline(deadline: Moment) -> Self {
        match Self::deadline(deadline) {
            Self::NONE => Self::NONE,
            Self(nanos) => Self(nanos | ENDS_NOTHING),
        }
    }

    /// The nearest deadline. A limit that has not begun begins now.
    pub(crate) fn nearest(self, now: impl FnOnce() -> Moment) -> Moment {
        match self.0 {
            u64::MAX => Moment::NEVER,
            nanos @ ..FIRST_MOMENT => now().after(Duration::from_nanos(nanos)),
            nanos => Moment::from_nanos(nanos & !ENDS_NOTHING),
        }
    }

    /// Whether who set the deadline ends what is inside, at that time.
    pub(crate) const fn ends_inside(self) -> bool {
        self.0 < ENDS_NOTHING
    }

    /// The nearer one of a limit and a deadline, at which whoever sets it ends what is inside.
    #[cold]
    pub(crate) fn narrowed_to(self, deadline: Moment, now: Moment) -> Self {
        Self::deadline(self.nearest(|| now).min(deadline))
    }

    /// The nearer one.
    pub(crate) fn narrowed(self, to: Self) -> Self {
        if to.nearest(clock::now) < self.nearest(clock::now) { to } else { self }
    }

    /// Polls with this around it.
    #[inline(always)]
    pub(crate) fn around<R>(self, poll: impl FnOnce() -> R) -> R {
        if !SEEN {
            return poll();
        }
        let _restored = Restored(AMBIENT.replace(self));
        poll()
    }
}

/// The deadline of a call around a call, which ends that one as well. Takes no room where none is seen.
//
// Relaxed: one task polls a call at a time, and whatever hands the task to another thread orders these accesses.
pub(crate) struct Outer(#[cfg(feature = "deadlines")] AtomicU64);

impl Outer {
    #[inline(always)]
    pub(crate) const fn none() -> Self {
        Self(
            #[cfg(feature = "deadlines")]
            AtomicU64::new(Moment::NEVER.nanos()),
        )
    }

    /// [`Moment::NEVER`] if there is none.
    pub(crate) fn get(&self) -> Moment {
        #[cfg(feature = "deadlines")]
        return Moment::from_nanos(self.0.load(Relaxed));
        #[cfg(not(feature = "deadlines"))]
        let Self() = self;
        #[cfg(not(feature = "deadlines"))]
        Moment::NEVER
    }

    pub(crate) fn set(&self, deadline: Moment) {
        #[cfg(feature = "deadlines")]
        self.0.store(deadline.nanos(), Relaxed);
        #[cfg(not(feature = "deadlines"))]
        let (Self(), _) = (self, deadline);
    }
}

/// Puts back what was around before, also when what was polled panics.
struct Restored(Ambient);

impl Drop for Restored {
    #[inline(always)]
    fn drop(&mut self) {
        AMBIENT.set(self.0);
    }
}

pin_project! {
    /// A future that is limited by this, or by what is nearer around it.
    pub(crate) struct Within<F> {
        pub(crate) ambient: Ambient,
        #[pin]
        pub(crate) future: F,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        Ambient::current().narrowed(*this.ambient).around(|| this.future.poll(task))
    }
}
