//! One timer for a whole call: whoever waits within it says until when, and the call sets its timer to the earliest.

use std::{
    pin::Pin,
    ptr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    task::{self, Poll, Waker},
};

use tokio::time::{Sleep, sleep_until};

use crate::{
    clock::{Reading, instant_of},
    engine::moment::Moment,
};

/// The alarm clock of a call. Its timer is kept and polled by the future of the call, which polls all that waits inside
/// when it goes off.
//
// Relaxed throughout: one task polls a call at a time, and whatever hands the task to another thread orders these
// accesses. The atomics are there for `Sync`.
pub(crate) struct AlarmClock {
    /// What the waker is made of with which the call is polled.
    waker: [AtomicUsize; 2],
    /// The earliest moment that was asked for in this poll.
    earliest: AtomicU64,
    /// The latest moment that the timer is known to have gone off by. Kept from poll to poll: who is not polled in the
    /// one that the timer brings about finds out in its next.
    rang: AtomicU64,
}

impl AlarmClock {
    pub(crate) fn new() -> Self {
        Self {
            waker: [AtomicUsize::new(0), AtomicUsize::new(0)],
            earliest: AtomicU64::new(Moment::NEVER.nanos()),
            rang: AtomicU64::new(0),
        }
    }

    /// A poll begins, and the timer may have gone off. What waits will ask again.
    #[inline(always)]
    pub(crate) fn poll_begins(&self, waker: &Waker, rang: bool, reading: &Reading) {
        for (kept, part) in self.waker.iter().zip(parts(waker)) {
            kept.store(part, Relaxed);
        }
        self.earliest.store(Moment::NEVER.nanos(), Relaxed);
        if rang {
            self.rang.store(reading.get().nanos(), Relaxed);
        }
    }

    /// The earliest moment that was asked for in this poll.
    pub(crate) fn earliest(&self) -> Moment {
        Moment::from_nanos(self.earliest.load(Relaxed))
    }

    /// Ready, with the present, once the timer has gone off for this moment. For who is polled whenever the call is.
    #[inline]
    pub(crate) fn poll(&self, reading: &Reading, at: Moment) -> Poll<Moment> {
        if at.nanos() <= self.rang.load(Relaxed) {
            return Poll::Ready(reading.get());
        }
        self.ask_for(at);
        Poll::Pending
    }

    fn ask_for(&self, at: Moment) {
        if at < self.earliest() {
            self.earliest.store(at.nanos(), Relaxed);
        }
    }

    /// Whether who is polled with this waker is polled whenever the call is. Collections that poll only those of their
    /// futures that were woken give each a waker of its own.
    fn wakes(&self, waker: &Waker) -> bool {
        self.waker.iter().zip(parts(waker)).all(|(kept, part)| kept.load(Relaxed) == part)
    }
}

fn parts(waker: &Waker) -> [usize; 2] {
    [waker.data().addr(), ptr::from_ref(waker.vtable()).addr()]
}

/// A wait for a moment, within a call.
#[derive(Default)]
pub(crate) struct Alarm {
    asked: bool,
    /// For who is polled apart from the rest of the call.
    own: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready, with the present, once the moment has come. To be asked again in each poll; the first time it is taken to
    /// lie ahead, and the clock is not read.
    pub(crate) fn poll(
        &mut self,
        clock: &AlarmClock,
        reading: &Reading,
        at: Moment,
        task: &mut task::Context<'_>,
    ) -> Poll<Moment> {
        let asked = std::mem::replace(&mut self.asked, true);
        if self.own.is_none() && clock.wakes(task.waker()) {
            if asked && at.nanos() <= clock.rang.load(Relaxed) {
                return Poll::Ready(reading.get());
            }
            clock.ask_for(at);
            return Poll::Pending;
        }
        self.poll_own(reading, at, task)
    }

    #[cold]
    fn poll_own(&mut self, reading: &Reading, at: Moment, task: &mut task::Context<'_>) -> Poll<Moment> {
        let Some(instant) = instant_of(at) else { return Poll::Pending };
        let timer = self.own.get_or_insert_with(|| Box::pin(sleep_until(instant)));
        if timer.deadline() != instant {
            timer.as_mut().reset(instant);
        }
        let is_ready = timer.as_mut().poll(task).is_ready();
        // A future that never runs out of work uses up tokio's cooperative budget in each poll, and with none left a
        // timer is never ready: then the clock has the last word.
        let now = reading.get();
        if is_ready || now >= at { Poll::Ready(now) } else { Poll::Pending }
    }
}
