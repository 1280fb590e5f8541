//! A future that is polled by hand.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
    time::Duration,
};

use tokio::time::{sleep, timeout};

use crate::rows::{LIMIT, ms};

/// How the polls come, and the drop after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// One poll for each wake-up, and the drop right after the last.
    Promptly,
    /// The drop long after the last poll, when every timer has fired and nobody has looked.
    Late,
    /// Two polls for each wake-up: a future may be polled for no reason.
    Twice,
}

pub(crate) const MANNERS: [Manner; 3] = [Manner::Promptly, Manner::Late, Manner::Twice];

/// What has become of a future.
#[derive(Debug)]
pub(crate) enum End<T> {
    Dropped,
    /// It would never have been woken again.
    Asleep,
    Done(T),
    Panicked(Box<dyn Any + Send>),
}

/// Polls a future so many times, or until it ends, and drops it.
pub(crate) async fn polled<F: Future>(times: u32, manner: Manner, future: F) -> End<F::Output> {
    let mut future = Box::pin(future);
    let mut polls = 0;
    let driven = poll_fn(|task| {
        loop {
            if polls == times {
                return Poll::Ready(End::Dropped);
            }
            polls += 1;
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(task))) {
                Err(payload) => return Poll::Ready(End::Panicked(payload)),
                Ok(Poll::Ready(output)) => return Poll::Ready(End::Done(output)),
                Ok(Poll::Pending) if polls == times => return Poll::Ready(End::Dropped),
                Ok(Poll::Pending) if manner == Manner::Twice && polls % 2 == 1 => {}
                Ok(Poll::Pending) => return Poll::Pending,
            }
        }
    });
    let end = timeout(Duration::from_secs(3600), driven).await.unwrap_or(End::Asleep);
    if let (End::Dropped, Manner::Late) = (&end, manner) {
        sleep(LIMIT + ms(5)).await;
    }
    end
}
