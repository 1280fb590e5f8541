//! A call has at most one timer of tokio registered, however many of its layers wait for a moment.
//!
//! Timers are counted from outside. Each call is polled with a waker of its own, and whoever is to wake it keeps a clone:
//! a registered timer one, a place in the queue of a semaphore one. So the clones are counted. The operations here keep
//! none.

use std::{
    future::{Future, pending, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::future::join;
use proptest::{option, prelude::*, sample::select};
use tokio::{
    runtime::Builder,
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use withstand::{
    Backoff, Bulkhead, CallOptions, CircuitBreaker, Fallback, Hedge, Jitter, Pipeline, Retry, RetryBudget, Timeout,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The answer of an operation that never comes.
async fn never() -> Result<u32, u32> {
    pending().await
}

/// The task that a call really runs in.
type Outer = Arc<Mutex<Option<Waker>>>;

fn waker_of(outer: &Outer) -> Waker {
    outer.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap()
}

/// The task that the call is told it runs in.
struct Task(Outer);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        waker_of(&self.0).wake();
    }
}

/// A future of which is known how many are to wake it.
struct Watched<F> {
    future: Pin<Box<F>>,
    task: Arc<Task>,
    /// The most at the end of any poll.
    most: usize,
}

impl<F: Future> Watched<F> {
    fn new(future: F) -> Self {
        Self::within(&Outer::default(), future)
    }

    fn within(outer: &Outer, future: F) -> Self {
        Self { future: Box::pin(future), task: Arc::new(Task(outer.clone())), most: 0 }
    }

    fn poll(&mut self, outer: &Waker) -> Poll<F::Output> {
        *self.task.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outer.clone());
        let polled = self.future.as_mut().poll(&mut Context::from_waker(&Waker::from(self.task.clone())));
        self.most = self.most.max(self.wakers());
        polled
    }

    fn wakers(&self) -> usize {
        Arc::strong_count(&self.task) - 1
    }

    async fn finish(&mut self) -> F::Output {
        poll_fn(|task| self.poll(task.waker())).await
    }
}

/// How many are to wake it once it has been polled.
fn wakers(future: impl Future) -> usize {
    let mut watched = Watched::new(future);
    assert!(watched.poll(Waker::noop()).is_pending());
    watched.wakers()
}

/// Runs it on a paused clock.
fn paused<T>(test: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

fn retry(wait: Duration) -> Retry {
    Retry::builder().backoff(Backoff::constant(wait).jitter(Jitter::None)).without_budget().build().unwrap()
}

fn queue(limit: usize, wait: Duration) -> Bulkhead {
    Bulkhead::builder().limit(limit).queue(10).max_wait(wait).build().unwrap()
}

/// One that waits for the moment and then may not begin: the attempts of one that has begun are woken apart from the rest
/// of the call, and have timers of their own.
fn hedge(delay: Duration) -> Hedge {
    let nothing = RetryBudget::builder().initial(0).cap(0).build().unwrap();
    Hedge::builder().delay(delay).budget(Arc::new(nothing)).build().unwrap()
}

/// Otherwise none of the other tests would say anything.
#[test]
fn each_timer_of_tokio_is_counted_and_so_is_each_place_in_a_queue() {
    paused(async {
        assert_eq!(wakers(never()), 0);
        assert_eq!(wakers(sleep(ms(10))), 1);
        assert_eq!(wakers(timeout(ms(40), timeout(ms(30), timeout(ms(20), never())))), 3);
        let full = Semaphore::new(0);
        assert_eq!(wakers(full.acquire()), 1);
        assert_eq!(wakers(timeout(ms(10), full.acquire())), 2);
        let mut slept = Watched::new(sleep(ms(10)));
        slept.finish().await;
        assert_eq!(slept.wakers(), 1, "a timer counts until it is dropped");
    });
}

#[test]
fn who_waits_for_no_moment_has_no_timer() {
    paused(async {
        let pipeline = Pipeline::builder("untimed")
            .fallback(Fallback::value(0))
            .retry(retry(ms(10)))
            .bulkhead(Bulkhead::builder().limit(1))
            .circuit_breaker(CircuitBreaker::builder())
            .build()
            .unwrap();
        assert_eq!(wakers(pipeline.call(never)), 0);
    });
}

#[test]
fn nested_timeouts_share_one_timer() {
    paused(async {
        let pipeline = Pipeline::builder("nested")
            .timeout(ms(1_000))
            .timeout(ms(900))
            .retry(retry(ms(10)))
            .timeout(ms(100))
            .timeout(ms(90))
            .build()
            .unwrap();
        assert_eq!(wakers(pipeline.call(never)), 1);
        for deadline in [1, 95, 950, 10_000] {
            let options = CallOptions::new().deadline(Instant::now() + ms(deadline));
            assert_eq!(wakers(pipeline.call_with(options, |_| never())), 1, "the caller's deadline: {deadline} ms");
        }
    });
}

#[test]
fn two_timeouts_a_queue_and_a_hedge_share_one_timer() {
    paused(async {
        let stack = Pipeline::builder("stack")
            .timeout(ms(1_000))
            .retry(retry(ms(10)))
            .hedge(hedge(ms(50)))
            .bulkhead(queue(1, ms(100)))
            .timeout(ms(500))
            .build()
            .unwrap();
        let mut first = Watched::new(stack.call(never));
        assert!(first.poll(Waker::noop()).is_pending());
        assert_eq!(first.wakers(), 1, "with a permit");
        let mut second = Watched::new(stack.call(never));
        assert!(second.poll(Waker::noop()).is_pending());
        assert_eq!(second.wakers(), 2, "in the queue: its place there, and one timer");
        drop((first, second));
        assert_eq!(wakers(Pipeline::standard_hedged("hedged").build().unwrap().call(never)), 1);
    });
}

#[test]
fn a_call_that_is_dropped_leaves_no_timer_behind() {
    paused(async {
        let stack = Pipeline::standard("standard").build().unwrap();
        let mut call = Watched::new(stack.call(never));
        assert!(call.poll(Waker::noop()).is_pending());
        let task = call.task.clone();
        assert_eq!(Arc::strong_count(&task), 3, "this one, that of the call, and the timer's");
        drop(call);
        assert_eq!(Arc::strong_count(&task), 1);
    });
}

/// A stack of which each layer is there or not, and how long its operation takes in each attempt before it fails or not.
#[derive(Clone, Debug)]
struct Stack {
    outer: Option<u64>,
    deadline: Option<u64>,
    backoff: Option<u64>,
    hedge: Option<u64>,
    queue: Option<u64>,
    /// How long the only permit of the bulkhead is taken.
    taken: u64,
    inner: Option<u64>,
    attempts: Vec<(u64, bool)>,
}

fn stacks() -> impl Strategy<Value = Stack> {
    let moment = |millis: &[u64]| option::of(select(millis.to_vec()));
    let attempts = prop::collection::vec((select(vec![0, 1, 3, 30]), any::<bool>()), 3);
    let (outer, deadline, inner) = (moment(&[20, 50, 200]), moment(&[1, 5, 30, 100]), moment(&[2, 5, 10]));
    let (backoff, queue, taken) = (moment(&[1, 5, 15]), moment(&[2, 5, 15]), select(vec![0, 3, 40]));
    (outer, deadline, backoff, moment(&[1, 15]), queue, taken, inner, attempts).prop_map(
        |(outer, deadline, backoff, hedge, queue, taken, inner, attempts)| Stack {
            outer,
            deadline,
            backoff,
            hedge,
            queue,
            taken,
            inner,
            attempts,
        },
    )
}

impl Stack {
    /// The most timers at the end of any poll of a call, from its start to its end.
    async fn most_timers(self) -> usize {
        let limit = |name, millis: Option<u64>| Some(Timeout::builder(ms(millis?)).name(name).build().unwrap());
        let bulkhead = self.queue.map(|wait| Arc::new(queue(1, ms(wait))));
        let pipeline = Pipeline::builder("stack")
            .layer(limit("outer", self.outer))
            .layer(self.backoff.map(|wait| retry(ms(wait))))
            .layer(self.hedge.map(|delay| hedge(ms(delay))))
            .layer(bulkhead.clone())
            .layer(limit("inner", self.inner))
            .build()
            .unwrap();
        let options = match self.deadline {
            Some(millis) => CallOptions::new().deadline(Instant::now() + ms(millis)),
            None => CallOptions::new(),
        };
        let outer = Outer::default();
        let nth = AtomicUsize::new(0);
        let operation = |_| {
            let (takes, succeeds) = self.attempts[nth.fetch_add(1, Relaxed) % self.attempts.len()];
            // It wakes the outer task, so that this one knows only of the call's own timers.
            let (mut timer, outer) = (Box::pin(sleep(ms(takes))), outer.clone());
            poll_fn(move |_| {
                let polled = timer.as_mut().poll(&mut Context::from_waker(&waker_of(&outer)));
                polled.map(|()| if succeeds { Ok(7_u32) } else { Err(7_u32) })
            })
        };
        let permit = bulkhead.as_ref().filter(|_| self.taken > 0).and_then(|bulkhead| bulkhead.try_acquire().ok());
        let queued = usize::from(permit.is_some());
        let mut call = Watched::within(&outer, pipeline.call_with(options, operation));
        let others = async {
            sleep(ms(self.taken)).await;
            drop(permit);
        };
        drop(join(call.finish(), others).await);
        call.most.saturating_sub(queued)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_call_ever_has_more_than_one_timer(stack in stacks()) {
        let most = paused(stack.clone().most_timers());
        prop_assert!(most <= 1, "{most} timers");
    }
}
