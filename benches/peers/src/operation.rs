//! The work that every contestant does, and how a call is driven by hand.

use std::{
    fmt,
    future::{self, Future},
    hint::black_box,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::runtime::{Builder, Runtime};

/// What the operation gives.
pub type Answer = Result<u64, Down>;

/// The operation's own error, as small as an error with something to say is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down(pub u64);

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "down: {}", self.0)
    }
}

impl std::error::Error for Down {}

/// An operation: how often it is pending before it is ready. One type, so that the compiler cannot tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pending: u8,
}

impl Operation {
    /// Ready at once: what is measured is what is around it.
    pub const READY: Self = Self { pending: 0 };
    /// Pending once, then ready: what every real call does at least.
    pub const PENDING_ONCE: Self = Self { pending: 1 };

    /// Starts it.
    #[inline]
    pub fn start(self) -> Reply {
        Reply { pending: black_box(self.pending) }
    }

    /// As the tables say it.
    pub const fn label(self) -> &'static str {
        match self.pending {
            0 => "ready",
            _ => "pending once",
        }
    }
}

/// The future of an [`Operation`].
#[derive(Debug)]
pub struct Reply {
    pending: u8,
}

impl Future for Reply {
    type Output = Answer;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        if self.pending == 0 {
            // Of a number that fits a register: a whole result behind the optimiser's back would be written and read again
            // in pieces of another size, which stalls some contestants and not others.
            let value = black_box(1);
            return Poll::Ready(if value == 0 { Err(Down(value)) } else { Ok(value) });
        }
        self.pending -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// An operation that fails: it opens circuits.
pub fn failing() -> future::Ready<Answer> {
    future::ready(Err(Down(1)))
}

/// What is not ready by then never will be.
const MOST_POLLS: u32 = 16;

/// Polls a future to its end where it stands, behind the optimiser's back.
#[inline(always)]
#[expect(clippy::inline_always, reason = "what is measured is the future, not a call of this")]
pub fn finish<F: Future>(future: Pin<&mut F>) -> F::Output {
    let mut future = black_box(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..MOST_POLLS {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
    panic!("still pending: it waits for a timer, which nobody drives here");
}

/// The runtime to enter before rows are made: timers register with it, and nothing runs on it.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}
