//! A breaker in a pipeline whose operations end as the test says, and what its observer hears.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use withstand::{
    CircuitBreaker, CircuitBreakerBuilder, CircuitState, Classification, Classify, Error, EventKind, Pipeline, Reason,
    Rejection, Verdict, layers,
};

use crate::support::Log;
pub(crate) use crate::support::ms;

pub(crate) async fn sleep(millis: u64) {
    tokio::time::sleep(ms(millis)).await;
}

/// The errors of these tests are what the classifier says of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByItself;

impl<T> Classify<T, Classification> for ByItself {
    fn classify(&self, result: Result<&T, &Classification>) -> Classification {
        result.map_or_else(|error| *error, |_| Verdict::success().into())
    }
}

pub(crate) type Reply = Result<(), Classification>;
pub(crate) type Answer = Result<(), Error<Classification>>;

/// The reply that a letter stands for.
pub(crate) fn reply(letter: char) -> Reply {
    Err(match letter {
        'S' => return Ok(()),
        'F' => Verdict::transient().into(),
        'U' => Verdict::unreached().into(),
        'X' => Verdict::failure().into(),
        'T' => Verdict::throttled().into(),
        'I' => Verdict::ignored().into(),
        'R' => Verdict::rejected().into(),
        other => panic!("no reply is called {other}"),
    })
}

/// A breaker, the pipeline around it, and what was heard of it.
pub(crate) struct Users {
    pub(crate) breaker: Arc<CircuitBreaker>,
    pub(crate) pipeline: Pipeline<layers![Arc<CircuitBreaker>], ByItself>,
    pub(crate) heard: Heard,
}

impl Users {
    pub(crate) fn new(builder: CircuitBreakerBuilder) -> Self {
        Self::around(&Arc::new(builder.build().unwrap()), "users")
    }

    pub(crate) fn around(breaker: &Arc<CircuitBreaker>, name: &'static str) -> Self {
        let heard = Heard::default();
        let builder = Pipeline::builder(name).circuit_breaker(Arc::clone(breaker)).classifier(ByItself);
        let pipeline = builder.observer(heard.observer()).build().unwrap();
        Self { breaker: Arc::clone(breaker), pipeline, heard }
    }

    /// One that is open: it has seen a failure, and one is enough.
    pub(crate) async fn opened(builder: CircuitBreakerBuilder) -> Self {
        let users = Self::new(builder.count_window(1).min_calls(1));
        users.play("F").await;
        assert!(users.state().is_open());
        users.heard.take();
        users
    }

    /// One whose break of a second is over.
    pub(crate) async fn half_open(builder: CircuitBreakerBuilder) -> Self {
        let users = Self::opened(builder.open_for(ms(1_000))).await;
        sleep(1_000).await;
        assert_eq!(users.state(), CircuitState::HalfOpen);
        users
    }

    /// One call for each letter. All of them are admitted.
    pub(crate) async fn play(&self, letters: &str) {
        for (place, letter) in letters.chars().enumerate() {
            let answer = self.call(letter).await;
            let expected = reply(letter).map_err(Error::Operation);
            assert_eq!(answer, expected, "call {place} of {letters}");
        }
    }

    pub(crate) async fn call(&self, letter: char) -> Answer {
        self.pipeline.call(|| async move { reply(letter) }).await
    }

    /// A call that takes so long and ends as the letter says.
    pub(crate) async fn take(&self, millis: u64, letter: char) -> Answer {
        let operation = || async move {
            sleep(millis).await;
            reply(letter)
        };
        self.pipeline.call(operation).await
    }

    /// A call that is under way until the signal gives its reply.
    pub(crate) fn begin(&self) -> (Pin<Box<dyn Future<Output = Answer> + Send + '_>>, Signal<Reply>) {
        let signal = Signal::default();
        let waiting = signal.clone();
        let mut call = Box::pin(self.pipeline.guard(async move { waiting.wait().await }));
        assert!(poll(&mut call).is_pending(), "the call was not admitted");
        (call, signal)
    }

    /// How a call is refused.
    pub(crate) async fn refusal(&self) -> Rejection {
        let answer: Answer = self.pipeline.call(|| async { panic!("the call was admitted") }).await;
        answer.unwrap_err().rejection().expect("refused").clone()
    }

    /// Why a call is refused, and after how many milliseconds it is to come back.
    pub(crate) async fn refused(&self) -> (Reason, Option<u128>) {
        let rejection = self.refusal().await;
        (rejection.reason(), rejection.retry_after().map(|after| after.as_millis()))
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.breaker.state()
    }

    /// Calls, failures and slow calls in the window.
    pub(crate) fn window(&self) -> (u32, u32, u32) {
        let seen = self.breaker.snapshot();
        (seen.calls, seen.failures, seen.slow_calls)
    }

    /// Probes that are out, have succeeded, have failed.
    pub(crate) fn probes(&self) -> (u32, u32, u32) {
        let seen = self.breaker.snapshot();
        (seen.probes_in_flight, seen.probe_successes, seen.probe_failures)
    }
}

/// A breaker that opens on half of at least two of the last ten calls, for a second.
pub(crate) fn eager() -> CircuitBreakerBuilder {
    CircuitBreaker::builder().count_window(10).min_calls(2).open_for(ms(1_000)).growth(1.0)
}

/// Polls once, where nobody waits to be woken.
pub(crate) fn poll<F: Future + Unpin + ?Sized>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Gives a value to one who waits for it.
pub(crate) struct Signal<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Signal<T> {
    pub(crate) fn give(&self, value: T) {
        let mut place = self.0.lock().unwrap();
        place.0 = Some(value);
        if let Some(waker) = place.1.take() {
            waker.wake();
        }
    }

    pub(crate) async fn wait(&self) -> T {
        poll_fn(|cx| {
            let mut place = self.0.lock().unwrap();
            place.1 = Some(cx.waker().clone());
            place.0.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl<T> Default for Signal<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((None, None))))
    }
}

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What the policies of a pipeline have reported.
#[derive(Clone, Default)]
pub(crate) struct Heard(Log);

impl Heard {
    pub(crate) fn observer(&self) -> Log {
        self.0.clone()
    }

    /// What was heard since the last time.
    pub(crate) fn take(&self) -> Vec<EventKind> {
        let heard = self.0.all();
        self.0.clear();
        heard.into_iter().filter(|heard| heard.policy.is_some()).map(|heard| heard.kind).collect()
    }

    /// The same in words, those of [`in_words`].
    pub(crate) fn words(&self) -> Vec<String> {
        self.take().iter().map(in_words).collect()
    }
}

/// An event of a breaker in a few words: `opened by Probe, "transient"`.
pub(crate) fn in_words(event: &EventKind) -> String {
    match event {
        EventKind::Opened { trigger, label, .. } => format!("opened by {trigger:?}, {label:?}"),
        EventKind::HalfOpened { .. } => "half-opened".to_owned(),
        EventKind::ProbeFinished { passed, successes, needed, .. } => {
            format!("probe {}, {successes}/{needed}", if *passed { "passed" } else { "failed" })
        }
        EventKind::ProbeExpired { lease, .. } => format!("probe expired after {lease:?}"),
        EventKind::Closed { by, .. } => format!("closed by {by:?}"),
        EventKind::Isolated { handles, .. } => format!("isolated, {handles}"),
        EventKind::Released { handles, .. } => format!("released, {handles}"),
        EventKind::Rejected { reason, .. } => format!("rejected: {reason:?}"),
        other => format!("{other:?}"),
    }
}
