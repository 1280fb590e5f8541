//! What can be had for no less.

use std::{
    hint::black_box,
    num::NonZeroU32,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Waker},
    time::Duration,
};

use governor::{Quota, RateLimiter};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::{
    by_hand,
    harness::{Contestant, Row},
    operation::Operation,
    who::Who,
};

/// One clock read: the row that [`targets`](crate::targets) refer to.
pub(crate) const CLOCK: &str = "floor: one clock read";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![];
    for operation in [Operation::READY, Operation::PENDING_ONCE] {
        let bare = by_hand!(Who::Floor, Ok(1), operation = operation => operation.start());
        rows.push(Row::new("floor: bare operation", Some(operation), vec![bare]));
        let boxed = by_hand!(Who::Floor, Ok(1), operation = operation => Box::pin(operation.start()));
        rows.push(Row::new("floor: boxed operation", Some(operation), vec![boxed]));
    }
    let counter = AtomicU64::new(0);
    rows.push(single("floor: one atomic add", move || counter.fetch_add(1, Relaxed)));
    rows.push(single(CLOCK, Instant::now));
    let semaphore = Semaphore::new(1);
    rows.push(single("floor: one semaphore try-acquire", move || drop(semaphore.try_acquire())));
    rows.push(single("floor: one registered sleep", || {
        let timer = pin!(sleep(Duration::from_secs(1)));
        timer.poll(&mut Context::from_waker(Waker::noop()))
    }));
    let limiter = RateLimiter::direct(Quota::per_second(NonZeroU32::MAX));
    rows.push(single("floor: one check of a rate limit (governor)", move || limiter.check().is_ok()));
    rows
}

fn single<T>(name: &str, mut action: impl FnMut() -> T + 'static) -> Row {
    let contestant = Contestant::new(Who::Floor, None, move |calls| {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(action());
        }
        start.elapsed()
    });
    Row::new(name, None, vec![contestant])
}
