//! A service as strict as tower's contract allows, and a count of all that it holds.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tower::Service;
use withstand::{
    Backoff, Bulkhead, CircuitBreaker, ClassifyErrors, Hedge, HedgeDelay, Jitter, Pipeline, Retry, Timeout, Verdict,
    layers,
};

use crate::support::{Log, as_it_says, ms};

/// What an instance of the service does when it is asked whether it is ready, and when it is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) ready_after: Duration,
    pub(crate) ready: Result<(), Verdict>,
    pub(crate) takes: Duration,
    pub(crate) gives: Result<u32, Verdict>,
}

pub(crate) const ANSWERS: Step =
    Step { ready_after: Duration::ZERO, ready: Ok(()), takes: Duration::ZERO, gives: Ok(7) };
pub(crate) const FAILS: Step = Step { gives: Err(Verdict::transient()), ..ANSWERS };
pub(crate) const NEVER_READY: Step = Step { ready_after: Duration::from_secs(1_000_000), ..ANSWERS };
pub(crate) const HANGS: Step = Step { takes: Duration::from_secs(1_000_000), ..ANSWERS };

/// What all instances of a service share, and what is seen of them.
#[derive(Debug)]
pub(crate) struct World {
    steps: Vec<Step>,
    /// What being ready reserves, up to the end of the response.
    permits: Arc<Semaphore>,
    limit: usize,
    /// How many instances were asked whether they are ready.
    pub(crate) asked: AtomicUsize,
    pub(crate) instances: AtomicUsize,
    pub(crate) clones: AtomicUsize,
    /// The requests that were sent: the number of each.
    pub(crate) sent: Mutex<Vec<u32>>,
}

impl World {
    /// The n-th instance that is asked follows the n-th step, all after the last that one.
    pub(crate) fn new(limit: usize, steps: impl Into<Vec<Step>>) -> Arc<Self> {
        Arc::new(Self {
            steps: steps.into(),
            permits: Arc::new(Semaphore::new(limit)),
            limit,
            asked: AtomicUsize::new(0),
            instances: AtomicUsize::new(0),
            clones: AtomicUsize::new(0),
            sent: Mutex::default(),
        })
    }

    pub(crate) fn service(self: &Arc<Self>) -> Strict {
        self.instances.fetch_add(1, SeqCst);
        Strict { world: self.clone(), state: State::Idle }
    }

    pub(crate) fn sent(&self) -> Vec<u32> {
        self.sent.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    pub(crate) fn reserved(&self) -> usize {
        self.limit - self.permits.available_permits()
    }

    /// Nothing is reserved, and there are so many instances, which are idle.
    pub(crate) fn holds_nothing_but(&self, instances: usize) {
        assert_eq!(self.reserved(), 0, "something is still reserved");
        assert_eq!(self.instances.load(SeqCst), instances, "instances are left over");
    }
}

type Readying = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, Verdict>> + Send>>;
type Responding = Pin<Box<dyn Future<Output = Result<u32, Verdict>> + Send>>;

enum State {
    Idle,
    Readying { step: Step, readying: Readying },
    Ready { step: Step, permit: OwnedSemaphorePermit },
    Failed,
}

/// Panics if it is called while it is not ready, or asked again after it has failed. Its clones are not ready.
//
// Not `Sync`, as many services are not.
pub(crate) struct Strict {
    world: Arc<World>,
    state: State,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        self.world.clones.fetch_add(1, SeqCst);
        self.world.service()
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        self.world.instances.fetch_sub(1, SeqCst);
    }
}

impl<Req: Numbered> Service<Req> for Strict {
    type Response = u32;
    type Error = Verdict;
    type Future = Responding;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Verdict>> {
        loop {
            match &mut self.state {
                State::Idle => {
                    let index = self.world.asked.fetch_add(1, SeqCst).min(self.world.steps.len() - 1);
                    let step = self.world.steps[index];
                    let permits = self.world.permits.clone();
                    let readying = Box::pin(async move {
                        wait(step.ready_after).await;
                        step.ready?;
                        Ok(permits.acquire_owned().await.unwrap())
                    });
                    self.state = State::Readying { step, readying };
                }
                State::Readying { step, readying } => match ready!(readying.as_mut().poll(cx)) {
                    Ok(permit) => self.state = State::Ready { step: *step, permit },
                    Err(error) => {
                        self.state = State::Failed;
                        return Poll::Ready(Err(error));
                    }
                },
                State::Ready { .. } => return Poll::Ready(Ok(())),
                State::Failed => panic!("a service that has failed was asked again"),
            }
        }
    }

    fn call(&mut self, request: Req) -> Responding {
        let State::Ready { step, permit } = std::mem::replace(&mut self.state, State::Idle) else {
            panic!("a service was called that is not ready");
        };
        self.world.sent.lock().unwrap().push(request.number());
        Box::pin(async move {
            let _held = (permit, request);
            wait(step.takes).await;
            step.gives
        })
    }
}

pub(crate) async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// A request that tells which one it is.
pub(crate) trait Numbered: Send + 'static {
    fn number(&self) -> u32;
}

impl Numbered for u32 {
    fn number(&self) -> u32 {
        *self
    }
}

/// A request that cannot be cloned.
#[derive(Debug)]
pub(crate) struct Once(pub(crate) u32);

impl Numbered for Once {
    fn number(&self) -> u32 {
        self.0
    }
}

pub(crate) type Layers =
    layers![Option<Timeout>, Option<Retry>, Option<Hedge>, Option<Bulkhead>, Option<CircuitBreaker>, Option<Timeout>];

type AsItSays = ClassifyErrors<fn(&Verdict) -> Verdict>;

/// Which layers there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Which {
    pub(crate) total: Option<u64>,
    pub(crate) retry: bool,
    pub(crate) hedge: Option<u64>,
    pub(crate) bulkhead: bool,
    pub(crate) breaker: bool,
    pub(crate) each: Option<u64>,
}

impl Which {
    /// A pipeline without anything random, whose classifier does as the error says.
    pub(crate) fn pipeline(self, log: &Log) -> Pipeline<Layers, AsItSays> {
        let backoff = Backoff::constant(ms(10)).jitter(Jitter::None);
        let retry = || Retry::builder().backoff(backoff).without_budget().seed(7).build().unwrap();
        let hedge = |delay| {
            let delay = if delay == 0 { HedgeDelay::parallel() } else { HedgeDelay::fixed(ms(delay)) };
            Hedge::builder().delay(delay).without_budget().build().unwrap()
        };
        let breaker = || CircuitBreaker::builder().count_window(4).min_calls(2).open_for(ms(20)).build().unwrap();
        let classify: fn(&Verdict) -> Verdict = as_it_says;
        Pipeline::builder("world")
            .layer(self.total.map(|limit| Timeout::builder(ms(limit)).name("total").build().unwrap()))
            .layer(self.retry.then(retry))
            .layer(self.hedge.map(hedge))
            .layer(self.bulkhead.then(|| Bulkhead::builder().limit(2).queue(1).max_wait(ms(15)).build().unwrap()))
            .layer(self.breaker.then(breaker))
            .layer(self.each.map(|limit| Timeout::builder(ms(limit)).name("each").build().unwrap()))
            .classify_errors(classify)
            .observer(log.clone())
            .build()
            .unwrap()
    }
}
