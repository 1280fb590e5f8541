//! Keeps an async Rust service standing while the services it calls are slow, overloaded or down.
//!
//! Each outbound call goes through a [`Pipeline`] of policies: [`Timeout`], [`Retry`], [`CircuitBreaker`], [`Bulkhead`],
//! [`Hedge`], [`Fallback`]. They share one notion of how a call went, the [`Verdict`], one error, [`Error`], and one hook
//! for telemetry, [`Observer`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), withstand::ConfigError> {
//! use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use withstand::{CircuitBreaker, Pipeline, Retry, Verdict};
//!
//! #[derive(Debug, PartialEq)]
//! enum ApiError { Busy, NotFound }
//!
//! let users = Pipeline::builder("users-api")           // outermost first
//!     .timeout(Duration::from_secs(4))                 // the whole call
//!     .retry(Retry::builder().max_attempts(3))
//!     .circuit_breaker(CircuitBreaker::builder())
//!     .timeout(Duration::from_secs(1))                 // each attempt
//!     .classify_errors(|error: &ApiError| match error {
//!         ApiError::Busy => Verdict::transient(),      // may recover: repeated, and held against the service
//!         ApiError::NotFound => Verdict::success(),    // it answered as it should, though it is an `Err` here
//!     })
//!     .build()?;
//!
//! // The closure makes each attempt. The first one fails, the retry waits and makes a second one.
//! let requests = AtomicU32::new(0);
//! let name = users
//!     .call(|| async {
//!         match requests.fetch_add(1, Ordering::Relaxed) {
//!             0 => Err(ApiError::Busy),
//!             _ => Ok("Ada"),
//!         }
//!     })
//!     .await;
//! assert_eq!(name, Ok("Ada"));
//! assert_eq!(requests.into_inner(), 2);
//!
//! // Errors of the operation come out as they went in.
//! let error = users.call(|| async { Err::<(), _>(ApiError::NotFound) }).await.unwrap_err();
//! assert_eq!(error.operation(), Some(&ApiError::NotFound));
//! # Ok(())
//! # }
//! ```
//!
//! By default an operation may be repeated freely; one that may not says so by
//! [`CallOptions::idempotency`].
//!
//! # Where to find what
//!
//! | question | page |
//! |---|---|
//! | Which layers do I want, with which numbers? | [`Pipeline::standard`], [`Pipeline::standard_hedged`]; from a latency histogram: `docs/guide/choosing.md` |
//! | In which order, and why? | [`Pipeline`]; what goes wrong otherwise: `docs/guide/order.md` |
//! | What does a policy do, and what are its options? | [`Timeout`], [`Retry`] with [`Backoff`] and [`RetryBudget`], [`CircuitBreaker`], [`Bulkhead`], [`Hedge`] with [`HedgeDelay`], [`Fallback`] |
//! | What is an error, and whose fault? | [`Verdict`], [`PipelineBuilder::classify_errors`], [`PipelineBuilder::classify`], [`Classify`]; what not to retry: `docs/guide/retrying.md` |
//! | What do I get when it fails? | [`Error`], [`TimedOut`], [`Rejection`] |
//! | How do I call? | [`Pipeline::call`]; with a deadline, a priority or a number for each attempt [`Pipeline::call_with`]; a single future [`Pipeline::guard`] |
//! | What have I built, and what can it cost? | [`Pipeline::explain`] |
//! | How do I see what happens? | `MetricsObserver`, with the feature `metrics`; `TracingObserver`, with the feature `tracing`; [`Observer`], [`Event`], [`EventKind`] |
//! | How do I look after it while it runs? | [`PipelineHandle`], [`Registry`]; what to do in an incident: `docs/guide/operating.md` |
//! | How do I test mine? | under tokio's paused clock: `docs/guide/testing.md` |
//! | I come from Polly, resilience4j, tower, backon or failsafe | `docs/guide/moving.md` |
//! | My client, or my server, is a `tower::Service` | `tower::PipelineLayer`, with the feature `tower` |
//! | How do I put a pipeline into a struct? | [`layers!`], [`BoxPolicy`] |
//! | How do I share a breaker, a bulkhead or a budget? | in an [`Arc`](std::sync::Arc): [`IntoLayer`] |
//! | How do I keep tenants or hosts apart? | `Keyed`, with the feature `keyed` |
//! | What does an HTTP answer mean, and may its request be repeated? | `http`, with the feature `http` |
//! | How do I keep my reqwest client? | `reqwest::Client`, with the feature `reqwest` |
//! | What does a gRPC status mean, and how does the server learn how much time is left? | `tonic`, with the feature `tonic` |
//! | How do I use a pipeline inside another? | as a [`layer`](PipelineBuilder::layer), or [`Pipeline::outcome`] inside [`Pipeline::forward`] |
//! | Does it withstand? Faults on purpose | `Chaos`, with the feature `chaos` |
//! | How does a call know how much time its caller has left? | `Deadline` (feature `deadlines`), `DeadlineLayer` (feature `axum`) |
//! | How do I write a policy of my own? | [`Policy`], [`Describe`], [`Context`], [`Outcome`] |
//!
//! # Rules that hold everywhere
//!
//! - **Cancellation is dropping.** A future of this crate may be dropped at any await point: permits and probe slots come
//!   back, queues are left, hedges stop. A timeout drops the operation at its current await point.
//! - **Time** is tokio's clock and nothing else: under `#[tokio::test(start_paused = true)]` hours pass in no time.
//! - **Nothing is allocated** for a call, except for a hedge that starts, by [`BoxPolicy`] and layers from settings, for
//!   spans, and once by a layer of tower.
//! - **Nonsense is refused** by `build()`, with the name of the policy and of the field: [`ConfigError`].
//! - **Nothing of this process is held against the dependency**: rejections, timeouts while the process stood still, a
//!   panic in a classifier or an observer.
//!
//! # What it does not do
//!
//! It limits no rates, sheds no load, caches nothing, balances over no hosts and shares no state between processes. It
//! spawns no tasks, and it makes `Send` futures only.
#![forbid(unsafe_code)]
// Stricter than elsewhere: this code runs inside other people's services, which it must neither bring down nor surprise.
#![cfg_attr(
    not(test),
    warn(
        // Nothing that a user configures or does makes it panic, and no number loses a part of itself unseen.
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used,
        // What is not dropped is not dropped on purpose; what goes wrong is not thrown away.
        clippy::mem_forget,
        clippy::unused_result_ok,
        // Futures go to any thread, and are small.
        clippy::future_not_send,
        clippy::large_futures,
        // Room to grow without breaking anyone.
        clippy::exhaustive_enums,
        clippy::exhaustive_structs,
        // Nothing is said but through the observer.
        clippy::print_stderr,
        clippy::print_stdout,
    )
)]

#[macro_use]
mod layers;

mod adapters;
mod alarm;
mod ambient;
#[cfg(feature = "serde")]
mod amendment;
mod bounds;
mod budget;
mod build;
mod call;
mod clock;
#[cfg(feature = "serde")]
mod config;
#[cfg(feature = "serde")]
mod configured;
mod context;
#[cfg(feature = "deadlines")]
mod deadline;
mod engine;
mod error;
mod event;
mod explain;
mod handle;
#[cfg(feature = "keyed")]
mod keyed;
mod layer;
mod name;
mod outcome;
mod pipeline;
mod policies;
mod policy;
mod snapshot;
mod timed;
#[cfg(any(feature = "deadlines", feature = "tonic"))]
mod timeout_header;

#[cfg(feature = "axum")]
pub use adapters::axum::{DeadlineLayer, DeadlineLayerBuilder, DeadlineResponse, DeadlineService, RequestDeadline};
#[cfg(feature = "http")]
pub use adapters::http;
#[cfg(feature = "metrics")]
pub use adapters::metrics::MetricsObserver;
#[cfg(feature = "reqwest")]
pub use adapters::reqwest;
#[cfg(feature = "tonic")]
pub use adapters::tonic;
#[cfg(feature = "tower")]
pub use adapters::tower;
#[cfg(feature = "tracing")]
pub use adapters::tracing::TracingObserver;
#[cfg(feature = "serde")]
pub use amendment::FieldChange;
pub use bounds::{Amplification, Bound};
pub use budget::{RetryBudget, RetryBudgetBuilder};
pub use build::IntoLayer;
#[cfg(feature = "serde")]
pub use config::{
    BackoffConfig, BackoffKind, BudgetConfig, BulkheadConfig, CircuitBreakerConfig, HedgeConfig, HedgeDelayConfig,
    LayerConfig, PipelineConfig, QuantileConfig, RetryConfig, TimeoutConfig,
};
#[cfg(feature = "serde")]
pub use configured::{Configured, ConfiguredLayers};
pub use context::{Attempt, CallOptions, Context, Frame, Idempotency, Priority};
#[cfg(feature = "deadlines")]
pub use deadline::{Deadline, DeadlineScope};
pub use engine::backoff::{Backoff, BackoffStep, Jitter};
pub use engine::circuit::{Opening, Recorded};
pub use error::{ConfigError, Error, Phase, Reason, Rejection, Scope, TimedOut};
#[cfg(feature = "chaos")]
pub use event::Fault;
#[cfg(feature = "tracing")]
pub use event::Spans;
pub use event::{
    AttemptEnd, CallOutcome, ClosedBy, Event, EventKind, FallbackEnd, HedgeSuppression, HedgeTrigger, Kind, Level,
    Observer, Observers, PolicyId, RetryStop, Trigger, WaitEnd,
};
pub use explain::{Plan, Warning, WarningKind};
pub use handle::{PipelineHandle, Registry};
#[cfg(feature = "keyed")]
pub use keyed::{Instance, Keyed, KeyedBuilder};
pub use layer::LayerInfo;
pub use name::Name;
pub use outcome::{
    Classification, Classify, ClassifyErrors, ClassifyResults, DefaultClassifier, Outcome, Verdict, VerdictKind,
};
pub use pipeline::{
    BuildLayer, BuildLayers, Built, Pipeline, PipelineBuilder, StandardBuilder, StandardHedgedBuilder,
    StandardHedgedLayers, StandardLayers, Unbuilt,
};
#[cfg(feature = "chaos")]
pub use policies::chaos::{Chaos, ChaosBuilder, ChaosKey, ChaosSwitch, Inject, InjectError, InjectOutcome};
pub use policies::{
    bulkhead::{Bulkhead, BulkheadBuilder, Permit},
    circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder, Isolation, StateChanges, Ticket},
    fallback::{Fallback, FallbackBuilder, FromError, FromFuture, FromOutcome, Substitute, Value},
    hedge::{Hedge, HedgeBuilder, HedgeDelay},
    retry::{Retry, RetryBuilder},
    timeout::{Timeout, TimeoutBuilder},
};
pub use policy::{BoxPolicy, Describe, Operation, PassThrough, Policy, SingleAttempt, Site, Stack};
pub use snapshot::{
    BudgetSnapshot, BulkheadSnapshot, CircuitSnapshot, CircuitState, HedgeSnapshot, LatencySnapshot, LayerSnapshot,
    LayerState, PipelineSnapshot, RetrySnapshot, Transition,
};

/// The examples of the README, so that they compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples of the guide. Those of `moving.md` run where the other libraries are: in `/integrations`.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../docs/guide/choosing.md")]
    struct Choosing;

    #[doc = include_str!("../docs/guide/order.md")]
    struct Order;

    #[doc = include_str!("../docs/guide/retrying.md")]
    struct Retrying;

    #[doc = include_str!("../docs/guide/testing.md")]
    struct Testing;

    #[cfg(feature = "chaos")]
    #[doc = include_str!("../docs/guide/chaos.md")]
    struct Chaos;

    #[doc = include_str!("../docs/guide/operating.md")]
    struct Operating;

    #[cfg(feature = "serde")]
    #[doc = include_str!("../docs/guide/settings.md")]
    struct Settings;
}
