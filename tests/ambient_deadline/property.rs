//! Whatever is nested in whatever way, the inner never outlives the outer.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use withstand::{
    Backoff, BoxPolicy, Bulkhead, CallOptions, CircuitBreaker, Deadline, Error, Fallback, Hedge, Jitter, Pipeline,
    Retry, Timeout,
};

use crate::support::ms;

/// One of the pipelines around one another.
#[derive(Clone, Debug)]
enum Level {
    Timeout(u64),
    Scope(u64),
    Deadline(u64),
    Retry(u64),
    Hedge(u64),
    Queue,
    Breaker,
    Fallback,
}

fn level() -> impl Strategy<Value = Level> {
    prop_oneof![
        (1_u64..100).prop_map(Level::Timeout),
        (1_u64..100).prop_map(Level::Scope),
        (1_u64..100).prop_map(Level::Deadline),
        (1_u64..50).prop_map(Level::Retry),
        (1_u64..50).prop_map(Level::Hedge),
        Just(Level::Queue),
        Just(Level::Breaker),
        Just(Level::Fallback),
    ]
}

/// What an operation found when it began, and when it was gone.
#[derive(Debug)]
struct Seen {
    begun: Instant,
    deadline: Option<Instant>,
}

type Record = Arc<Mutex<Vec<(Seen, Instant)>>>;

/// An operation under way: recorded when it is gone.
struct Running(Option<Seen>, Record);

impl Drop for Running {
    fn drop(&mut self) {
        self.1.lock().unwrap().push((self.0.take().unwrap(), Instant::now()));
    }
}

type Call = Pin<Box<dyn Future<Output = Result<(), Error<()>>> + Send>>;

fn flat(result: Result<(), Error<Error<()>>>) -> Result<(), Error<()>> {
    result.map_err(|error| match error {
        Error::Operation(inner) => inner,
        Error::Timeout(timed_out) => Error::Timeout(timed_out),
        Error::Rejected(rejection) => Error::Rejected(rejection),
        other => panic!("{other:?}"),
    })
}

fn policy(level: &Level) -> BoxPolicy<(), Error<()>> {
    match *level {
        Level::Timeout(limit) => BoxPolicy::new(Timeout::new(ms(limit)).unwrap()),
        Level::Retry(delay) => {
            let backoff = Backoff::constant(ms(delay)).jitter(Jitter::None);
            BoxPolicy::new(Retry::builder().backoff(backoff).without_budget().build().unwrap())
        }
        Level::Hedge(delay) => BoxPolicy::new(Hedge::builder().delay(ms(delay)).without_budget().build().unwrap()),
        Level::Queue => BoxPolicy::new(Bulkhead::builder().limit(1).queue(2).max_wait(ms(30)).build().unwrap()),
        Level::Breaker => BoxPolicy::new(CircuitBreaker::builder().build().unwrap()),
        Level::Fallback => BoxPolicy::new(Fallback::from_error(|_: &Error<Error<()>>| ()).build().unwrap()),
        Level::Scope(_) | Level::Deadline(_) => BoxPolicy::new(None::<Timeout>),
    }
}

fn nested(levels: Arc<Vec<Level>>, at: usize, steps: Arc<Vec<u64>>, fails: bool, record: Record) -> Call {
    Box::pin(async move {
        let Some(level) = levels.get(at).cloned() else {
            let seen = Seen { begun: Instant::now(), deadline: Deadline::current().map(Deadline::instant) };
            let _running = Running(Some(seen), record);
            for step in steps.iter() {
                sleep(ms(*step)).await;
            }
            return if fails { Err(Error::Operation(())) } else { Ok(()) };
        };
        let pipeline = Pipeline::builder("level").layer(policy(&level)).build().unwrap();
        let inner = || nested(levels.clone(), at + 1, steps.clone(), fails, record.clone());
        match level {
            Level::Scope(limit) => Deadline::after(ms(limit)).scope(inner()).await,
            Level::Deadline(limit) => {
                let options = CallOptions::new().deadline(Instant::now() + ms(limit));
                flat(pipeline.call_with(options, |_| inner()).await)
            }
            _ => flat(pipeline.call(inner).await),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_inner_never_outlives_the_outer(
        levels in prop::collection::vec(level(), 1..6),
        steps in prop::collection::vec(0_u64..60, 0..4),
        fails in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let record = Record::default();
            let began = Instant::now();
            // A scope ends calls, and the operation itself is none.
            let only_scopes = matches!(levels.last(), Some(Level::Scope(_)));
            let call = nested(Arc::new(levels.clone()), 0, Arc::new(steps), fails, record.clone());
            let _result = call.await;
            let ended = Instant::now();
            let limits = |level: &Level| match level {
                Level::Timeout(limit) | Level::Scope(limit) | Level::Deadline(limit) => Some(ms(*limit)),
                _ => None,
            };
            // Only what limits the whole from the outside: inside a retry or a hedge a limit begins anew.
            let whole = levels.iter().take_while(|level| !matches!(level, Level::Retry(_) | Level::Hedge(_)));
            let nearest: Option<Duration> = whole.filter_map(limits).min();
            for (seen, gone) in record.lock().unwrap().iter() {
                if let Some(nearest) = nearest {
                    let deadline = seen.deadline.expect("a limit around it is seen");
                    prop_assert!(deadline <= began + nearest, "{:?} of {:?}", deadline - began, nearest);
                }
                if let Some(deadline) = seen.deadline {
                    prop_assert!(seen.begun < deadline, "an attempt began at its deadline or later");
                    prop_assert!(only_scopes || *gone <= deadline, "gone {:?} after", *gone - deadline);
                }
                prop_assert!(*gone <= ended);
            }
            prop_assert_eq!(Deadline::current(), None);
            Ok(())
        })?;
    }
}
