//! `Send`, `Sync` and `Unpin` of every public type, and `Send` of every future.
#![cfg(test)]

use std::{cell::Cell, future::Future, io, rc::Rc, time::Duration};

use withstand::{
    Amplification, Attempt, AttemptEnd, Backoff, BackoffStep, Bound, BoxPolicy, BudgetSnapshot, Built, Bulkhead,
    BulkheadBuilder, BulkheadSnapshot, CallOptions, CallOutcome, CircuitBreaker, CircuitBreakerBuilder,
    CircuitSnapshot, CircuitState, Classification, ClassifyErrors, ClassifyResults, ClosedBy, ConfigError, Context,
    DefaultClassifier, Error, Event, EventKind, Fallback, FallbackBuilder, FallbackEnd, Frame, FromError, FromFuture,
    FromOutcome, Hedge, HedgeBuilder, HedgeDelay, HedgeSnapshot, HedgeSuppression, HedgeTrigger, Idempotency,
    Isolation, Jitter, Kind, LatencySnapshot, LayerInfo, LayerSnapshot, LayerState, Level, Name, Observers, Opening,
    Outcome, PassThrough, Permit, Phase, Pipeline, PipelineBuilder, PipelineHandle, PipelineSnapshot, Plan, PolicyId,
    Priority, Reason, Recorded, Registry, Rejection, Retry, RetryBudget, RetryBudgetBuilder, RetryBuilder,
    RetrySnapshot, RetryStop, Scope, Site, Stack, StandardBuilder, StandardHedgedBuilder, StandardHedgedLayers,
    StandardLayers, StateChanges, Ticket, TimedOut, Timeout, TimeoutBuilder, Transition, Trigger, Unbuilt, Value,
    Verdict, VerdictKind, WaitEnd, Warning, WarningKind,
};

macro_rules! is {
    ($($type:ty),+ $(,)?; $bounds:path $(, $more:path)*) => {
        const _: fn() = || {
            fn is<T: ?Sized + $bounds $(+ $more)*>() {}
            $(is::<$type>();)+
        };
    };
}

/// Compiles only if the type lacks the trait: otherwise both implementations apply, and `Marker` cannot be inferred.
macro_rules! is_not {
    ($type:ty; $bound:path) => {
        const _: fn() = || {
            struct Has;
            trait Lacks<Marker> {
                fn lacks() {}
            }
            impl<T: ?Sized> Lacks<()> for T {}
            impl<T: ?Sized + $bound> Lacks<Has> for T {}
            <$type as Lacks<_>>::lacks();
        };
    };
}

type F = fn(&io::Error) -> Verdict;

// All that a service keeps in a struct, or hands from thread to thread.
is!(
    Amplification, Attempt, AttemptEnd, Backoff, BackoffStep, Bound<u64>, BoxPolicy<u32, io::Error>, Built<Retry>,
    Bulkhead, BulkheadBuilder, CallOptions, CallOutcome, CircuitBreaker, CircuitBreakerBuilder, CircuitSnapshot,
    CircuitState, Classification, ClassifyErrors<F>, ClassifyResults<F>, ClosedBy, ConfigError, DefaultClassifier,
    Error<io::Error>, Event<'static>, EventKind, Fallback<Value<u32>>, FallbackBuilder<Value<u32>>, FallbackEnd,
    FromError<F>, FromFuture<F>, FromOutcome<F>, Hedge, HedgeBuilder, HedgeDelay, HedgeSuppression, HedgeTrigger,
    Idempotency, Isolation, Jitter, Kind, LayerInfo, Level, Name, Observers, Opening, Outcome<u32, io::Error>, PassThrough,
    Permit<'static>, Phase, Pipeline<StandardLayers>, Pipeline<StandardHedgedLayers, ClassifyErrors<F>>,
    PipelineBuilder<PassThrough>, StandardBuilder, StandardHedgedBuilder, Plan, PolicyId, Priority, Reason, Recorded,
    Rejection, Retry, RetryBudget,
    RetryBudgetBuilder, RetryBuilder, RetryStop, Scope, Site<'static>, Stack<Timeout, Retry>, StateChanges,
    Ticket<'static>, TimedOut, Timeout, TimeoutBuilder, Trigger, Unbuilt<Duration, Timeout>, Value<u32>, Verdict,
    VerdictKind, WaitEnd, Warning, WarningKind, BudgetSnapshot, BulkheadSnapshot, HedgeSnapshot, LatencySnapshot,
    LayerSnapshot, LayerState, PipelineHandle, PipelineSnapshot, Registry, RetrySnapshot, Transition;
    Send, Sync, Unpin
);

#[cfg(feature = "chaos")]
use withstand::{Chaos, ChaosBuilder, ChaosKey, ChaosSwitch, InjectError, InjectOutcome};
#[cfg(feature = "chaos")]
is!(
    Chaos, Chaos<InjectError<F>, InjectOutcome<F>>, ChaosBuilder<InjectError<F>, InjectOutcome<F>>, ChaosKey, ChaosSwitch,
    withstand::Fault, InjectError<F>, InjectOutcome<F>;
    Send, Sync, Unpin
);

#[cfg(feature = "keyed")]
use withstand::{Instance, Keyed, KeyedBuilder};

#[cfg(feature = "keyed")]
is!(
    Keyed<String, Pipeline<StandardLayers>>, KeyedBuilder<String, Bulkhead>, Instance<String, CircuitBreaker>;
    Send, Sync, Unpin
);
// A thread that is told of an instance may be the one that drops it, and its key.
#[cfg(feature = "keyed")]
is_not!(Instance<String, Cell<u32>>; Send);
#[cfg(feature = "keyed")]
is_not!(Instance<Rc<u32>, Bulkhead>; Send);
#[cfg(feature = "metrics")]
is!(withstand::MetricsObserver; Send, Sync, Unpin);

#[cfg(feature = "tracing")]
is!(withstand::Spans, withstand::TracingObserver; Send, Sync, Unpin);
#[cfg(feature = "tower")]
use withstand::tower::{CloneRequests, PipelineFuture, PipelineLayer, PipelineService, SingleRequest, WithCallOptions};
#[cfg(feature = "tower")]
is!(
    CloneRequests<Cell<u32>>, SingleRequest, WithCallOptions<SingleRequest, F>, PipelineLayer<StandardLayers>,
    PipelineLayer<StandardLayers, ClassifyErrors<F>, CloneRequests<Rc<u32>>>, PipelineService<u32, StandardLayers>;
    Send, Sync, Unpin
);
// As a boxed future is: tower asks no `Sync` of those.
#[cfg(feature = "tower")]
is!(PipelineFuture<Cell<u32>, Cell<u32>>; Send, Unpin);

#[cfg(feature = "http")]
is!(withstand::http::HttpClassifier<ClassifyErrors<F>>, withstand::http::IdempotencyKeys; Send, Sync, Unpin);

#[cfg(feature = "reqwest")]
is!(
    withstand::reqwest::Client, withstand::reqwest::ClientBuilder, withstand::reqwest::RequestBuilder,
    withstand::reqwest::Host, withstand::reqwest::ReqwestClassifier;
    Send, Sync
);

// What a policy of one's own holds across an await.
is!(Context<'static>, Frame<'static>; Send, Sync, Unpin);

#[cfg(feature = "serde")]
is!(
    withstand::FieldChange, withstand::BackoffConfig, withstand::BackoffKind, withstand::BudgetConfig,
    withstand::BulkheadConfig, withstand::CircuitBreakerConfig, withstand::HedgeConfig, withstand::HedgeDelayConfig,
    withstand::LayerConfig, withstand::PipelineConfig, withstand::QuantileConfig, withstand::RetryConfig,
    withstand::TimeoutConfig, withstand::Configured, withstand::ConfiguredLayers;
    Send, Sync, Unpin
);

#[cfg(feature = "deadlines")]
is!(withstand::Deadline, withstand::DeadlineScope<std::future::Ready<()>>; Send, Sync, Unpin);

#[cfg(feature = "axum")]
is!(
    withstand::DeadlineLayer, withstand::DeadlineLayerBuilder, withstand::DeadlineService<()>,
    withstand::RequestDeadline; Send, Sync, Unpin
);
// Its timer is not `Unpin`.
#[cfg(feature = "axum")]
is!(withstand::DeadlineResponse<std::future::Ready<()>>; Send, Sync);

// What a caller gives decides: nothing of ours makes it thread-safe, and nothing of ours takes that away.
is!(Outcome<Cell<u32>, Cell<u32>>, Error<Cell<u32>>, BoxPolicy<Cell<u32>, Cell<u32>>; Send);
is_not!(Outcome<Rc<u32>, io::Error>; Send);
is_not!(Error<Rc<u32>>; Send);
is_not!(Outcome<Cell<u32>, io::Error>; Sync);
is_not!(Fallback<Value<Cell<u32>>>; Sync);
is_not!(ClassifyErrors<Rc<u32>>; Send);

#[test]
fn no_public_type_is_forgotten() {
    let traits = [
        "BuildLayer",
        "BuildLayers",
        "Classify",
        "Describe",
        "Inject",
        "IntoLayer",
        "Observer",
        "Operation",
        "Policy",
        "SingleAttempt",
        "Substitute",
    ];
    let types = |list: &'static str| list.split(';').next().unwrap();
    let checked = include_str!("auto_traits.rs").split("\nis!(").skip(1).map(types).collect::<Vec<_>>().join(",");
    let exported = include_str!("../src/lib.rs").split("pub use ").skip(1).map(|rest| rest.split(';').next().unwrap());
    let mut seen = 0;
    for name in exported.flat_map(|list| list.split(|letter: char| !letter.is_alphanumeric())) {
        if name.starts_with(char::is_uppercase) && !traits.contains(&name) {
            seen += 1;
            let is_word = |(at, _): (usize, &str)| {
                let end = checked[at + name.len()..].chars().next();
                let start = checked[..at].chars().next_back();
                ![start, end].into_iter().flatten().any(char::is_alphanumeric)
            };
            assert!(checked.match_indices(name).any(is_word), "{name} is missing above");
        }
    }
    assert!(seen > 60, "only {seen} types were found in lib.rs");
}

fn is_send<Fut: Future + Send>(future: Fut) -> Fut {
    future
}

/// An operation whose results are `Send` and no more, as those of many drivers are.
async fn answer() -> Result<Cell<u32>, Cell<u32>> {
    tokio::task::yield_now().await;
    Ok(Cell::new(7))
}

#[tokio::test(start_paused = true)]
async fn every_future_is_send_though_results_are_not_sync() {
    let users = Pipeline::standard_hedged("users").build().unwrap();
    assert_eq!(is_send(users.call(answer)).await.unwrap().get(), 7);
    assert_eq!(is_send(users.call_with(CallOptions::new(), |_| answer())).await.unwrap().get(), 7);
    assert_eq!(is_send(users.forward(|| users.outcome(answer))).await.unwrap().get(), 7);
    assert_eq!(is_send(users.outcome(answer)).await.result.unwrap().get(), 7);

    let retry = Retry::builder().build().unwrap();
    assert_eq!(is_send(retry.call(answer)).await.unwrap().get(), 7);
    assert_eq!(is_send(retry.call_with(CallOptions::new(), |_| answer())).await.unwrap().get(), 7);

    let single = Pipeline::builder("single").timeout(Duration::from_secs(1)).build().unwrap();
    assert_eq!(is_send(single.guard(answer())).await.unwrap().get(), 7);
    let timeout = Timeout::new(Duration::from_secs(1)).unwrap();
    assert_eq!(is_send(timeout.guard(answer())).await.unwrap().get(), 7);

    let boxed = BoxPolicy::<Cell<u32>, Cell<u32>>::new(retry);
    let erased = Pipeline::builder("erased").layer(boxed).build().unwrap();
    assert_eq!(is_send(erased.call(answer)).await.unwrap().get(), 7);

    let bulkhead = Bulkhead::builder().limit(1).build().unwrap();
    drop(is_send(bulkhead.acquire()).await.unwrap());

    let breaker = CircuitBreaker::builder().build().unwrap();
    let mut changes = breaker.subscribe();
    let _isolation = breaker.isolate();
    assert_eq!(is_send(changes.changed()).await, CircuitState::Isolated);
}
