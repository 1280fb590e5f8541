//! withstand
#![forbid(unsafe_code)]

#[macro_use]
mod layers;

mod bounds;
mod budget;
mod build;
mod call;
mod clock;
mod context;
mod engine;
mod error;
mod event;
mod explain;
mod layer;
mod name;
mod outcome;
mod pipeline;
mod policies;
mod policy;
mod timed;

pub use bounds::{Amplification, Bound};
pub use budget::{RetryBudget, RetryBudgetBuilder};
pub use build::IntoLayer;
pub use context::{Attempt, CallOptions, Context, Frame, Idempotency, Priority};
pub use engine::backoff::{Backoff, BackoffStep, Jitter};
pub use engine::circuit::Recorded;
pub use error::{ConfigError, Error, Phase, Reason, Rejection, Scope, TimedOut};
pub use event::{
    AttemptEnd, CallOutcome, ClosedBy, Event, EventKind, FallbackEnd, HedgeSuppression, HedgeTrigger, Kind, Observer,
    Observers, PolicyId, RetryStop, Trigger, WaitEnd,
};
pub use explain::{Plan, Warning, WarningKind};
pub use layer::LayerInfo;
pub use name::Name;
pub use outcome::{
    Classification, Classify, ClassifyErrors, ClassifyResults, DefaultClassifier, Outcome, Verdict, VerdictKind,
};
pub use pipeline::{
    BuildLayer, BuildLayers, Built, Pipeline, PipelineBuilder, StandardHedgedLayers, StandardLayers, Unbuilt,
};
pub use policies::{
    bulkhead::{Bulkhead, BulkheadBuilder, Permit},
    circuit_breaker::{
        CircuitBreaker, CircuitBreakerBuilder, CircuitSnapshot, CircuitState, Isolation, StateChanges, Ticket,
    },
    fallback::{Fallback, FallbackBuilder, FromError, FromFuture, FromOutcome, Substitute, Value},
    hedge::{Hedge, HedgeBuilder, HedgeDelay},
    retry::{Retry, RetryBuilder},
    timeout::{Timeout, TimeoutBuilder},
};
pub use policy::{BoxPolicy, Describe, Operation, PassThrough, Policy, SingleAttempt, Site, Stack};
