//! A future with a time limit: the one place where a timer ends something.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{self, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use crate::{
    alarm::Alarm,
    clock,
    context::{CallState, Context, Frame},
    engine::moment::{Moment, nanos},
    error::TimedOut,
    event::{EventKind, PolicyId},
    outcome::{Outcome, Verdict},
};

/// A timer that fires later than this means that the process stood still.
pub(crate) const STALL: Duration = Duration::from_millis(100);
/// After so long, what has been left to somebody else to end is looked at again.
const AGAIN: Duration = Duration::from_millis(50);

pin_project! {
    /// Ends with what `inner` gives, or with [`Late`] once the time is up.
    ///
    /// The inner future is always polled first, and asked for its alarm when it is first pending. An alarm that comes
    /// so late that the process must have stood still gives the rest of the process one turn to deliver what has
    /// arrived.
    pub(crate) struct Timed<'a, F, D = Moment> {
        #[pin]
        inner: F,
        call: &'a CallState,
        alarm: Alarm,
        due: D,
        // The timer was so late that the rest of the process got a turn.
        stalled: bool,
    }
}

/// The time was up, by so many nanoseconds.
//
// Not a `Duration`, whose twelve bytes would have the outcome beside it copied in odd pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Late(u64);

/// When the time is up: asked when the inner future is first pending, and of no interest before.
pub(crate) trait Due {
    /// [`Moment::NEVER`] makes no timer at all.
    fn at(&self) -> Moment;
}

impl Due for Moment {
    fn at(&self) -> Moment {
        *self
    }
}

/// At the frame's own deadline. Where an outer one is as near, the outer one ends this, and no timer is needed here.
impl Due for &Frame<'_> {
    fn at(&self) -> Moment {
        self.own_deadline()
    }
}

impl<'a, F, D> Timed<'a, F, D> {
    #[inline(always)]
    pub(crate) fn new(cx: Context<'a>, due: D, inner: F) -> Self {
        Self { inner, call: cx.state(), alarm: Alarm::default(), due, stalled: false }
    }
}

impl<F: Future, D: Due> Future for Timed<'_, F, D> {
    type Output = Result<F::Output, Late>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.inner.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let (call, alarm) = (this.call, this.alarm);
        let ring = |at, task: &mut task::Context<'_>| alarm.poll(&call.alarms, &call.reading, at, task);
        time_is_up(call, this.due.at(), this.stalled, cx, ring).map(Err)
    }
}

/// Asked each time that what is limited is pending. `ring` is ready once a moment has come.
#[inline(always)]
pub(crate) fn time_is_up(
    call: &CallState,
    at: Moment,
    stalled: &mut bool,
    task: &mut task::Context<'_>,
    mut ring: impl FnMut(Moment, &mut task::Context<'_>) -> Poll<Moment>,
) -> Poll<Late> {
    if *stalled {
        return Poll::Ready(Late::after(at));
    }
    if at == Moment::NEVER {
        return Poll::Pending;
    }
    let Poll::Ready(now) = ring(at, task) else { return Poll::Pending };
    if call.is_left_to_the_outer(at, STALL) {
        // If this call is taken elsewhere before that comes to it, it ends itself there.
        return ring(now.after(AGAIN), task).map(|_| Late::after(at));
    }
    let late = Late::by(now.since(at));
    if late.is_stall() {
        *stalled = true;
        task.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(late)
}

/// Waits until that moment has come.
pub(crate) async fn wait_until(cx: Context<'_>, moment: Moment) {
    let (call, mut alarm) = (cx.state(), Alarm::default());
    poll_fn(|task| alarm.poll(&call.alarms, &call.reading, moment, task).map(drop)).await;
}

impl Late {
    pub(crate) fn by(late: Duration) -> Self {
        Self(nanos(late))
    }

    pub(crate) fn after(at: Moment) -> Self {
        Self::by(clock::now().since(at))
    }

    fn late_by(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    pub(crate) fn is_stall(self) -> bool {
        self.late_by() > STALL
    }

    /// What the part of the call that took too long ends with, told by nobody yet: see [`announce`](Self::announce).
    #[cold]
    pub(crate) fn as_outcome<T, E>(self, frame: &Frame<'_>) -> Outcome<T, E> {
        let timed_out = frame.timed_out();
        // Transient, unless no attempt reached the operation: then the dependency was not called.
        let verdict = if timed_out.attempts == 0 { Verdict::rejected() } else { Verdict::transient() };
        let outcome = Outcome::new(Err(timed_out.into()), verdict.label("timeout"));
        if self.is_stall() { outcome.stalled() } else { outcome }
    }

    /// Tells the observer. What was inside must be gone.
    #[cold]
    pub(crate) fn announce(self, cx: Context<'_>, frame: &Frame<'_>, policy: Option<&PolicyId>) {
        self.tell(&frame.timed_out(), cx, policy);
        if self.is_stall() {
            self.report(cx, policy);
        }
    }

    fn tell(self, timed_out: &TimedOut, cx: Context<'_>, policy: Option<&PolicyId>) {
        cx.telemetry().emit(policy, || EventKind::TimedOut {
            scope: timed_out.scope,
            phase: timed_out.phase,
            limit: timed_out.limit,
            elapsed: timed_out.limit.saturating_add(self.late_by()),
            late_by: self.late_by(),
        });
    }

    /// At most once a second in this process, for every timer that is pending then is late.
    pub(crate) fn report(self, cx: Context<'_>, policy: Option<&PolicyId>) {
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        const PAUSE: u64 = 1_000_000_000;
        let now = clock::now().nanos();
        let last = REPORTED.load(Relaxed);
        // Paused clocks of several tests share the process: one that is behind another reports as well.
        let due = last == 0 || now.abs_diff(last) >= PAUSE;
        // Relaxed: nothing but the number itself is shared, and of several at once only one wins.
        if due && REPORTED.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            cx.telemetry().emit(policy, || EventKind::RuntimeStalled { late_by: self.late_by() });
        }
    }
}

impl<T, E> Outcome<T, E> {
    /// What would begin after the nearest deadline and is not begun, whoever noticed it before a timer did.
    #[cold]
    pub(crate) fn refused_as_late(cx: Context<'_>, policy: Option<&PolicyId>) -> Self {
        let timed_out = cx.frame().timed_out();
        Late::after(cx.deadline_moment()).tell(&timed_out, cx, policy);
        Self::new(Err(timed_out.into()), Verdict::rejected().label("timeout"))
    }
}
