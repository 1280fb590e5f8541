//! Hedge: a second attempt where the first is slow.

#[cfg(feature = "serde")]
mod config;
mod delay;
mod race;
mod run;

use std::{fmt, future::Future, sync::Arc, time::Duration};

pub use delay::HedgeDelay;

#[cfg(feature = "serde")]
use crate::{amendment::Amendment, config::LayerConfig};
use crate::{
    budget::{BudgetChoice, RetryBudget, RetryBudgetBuilder},
    build::IntoLayer,
    call::standalone,
    engine::tuned::Tuned,
    error::ConfigError,
    event::{Kind, PolicyId},
    layer::{LayerInfo, Live, Role},
    name::Name,
    policy::{Describe, Site},
    snapshot::{HedgeSnapshot, LayerState},
};
use delay::Delay;

/// Makes a second attempt where the first is slow, and takes whichever answers first.
///
/// **When to use it.** Around reads from replicated services, whose slowest answers are much slower than the others: a
/// hedge at the 95th percentile costs 5 % more load and can take most of the tail away. **When not.** Around what is not
/// idempotent, where there is only one host and it is slow because it is overloaded, and where the tail is the work
/// itself.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// use std::time::Duration;
/// use withstand::{CallOptions, Hedge};
///
/// let hedge = Hedge::builder().delay(Duration::from_millis(20)).build()?;
/// let answer = hedge
///     .call_with(CallOptions::new(), |attempt| async move {
///         if attempt.hedge() == 0 {
///             tokio::time::sleep(Duration::from_secs(1)).await; // a slow replica
///         }
///         Ok::<_, std::io::Error>(attempt.hedge())
///     })
///     .await;
/// assert_eq!(answer.unwrap(), 1);
/// # Ok::<(), withstand::ConfigError>(()) }).unwrap();
/// ```
///
/// # The race
///
/// ```text
///   primary  |------------------------------ slow ----------------X  superseded: dropped
///   hedge 1  .      delay       |--------- answers ---->  the outcome
/// ```
///
/// | an attempt ends with | what happens |
/// |---|---|
/// | `Success`, `Failure`, `Ignored` | it wins; the others are dropped before the call returns |
/// | `Transient`, `Unreached` | the next hedge begins at once; with a hint, not before it, and of several hints not before the latest; a hint of more than 30 s counts as 30 s |
/// | `Throttled` | no further hedge begins |
/// | `Rejected`, of a hedge | it is out of the race, its token goes back to the budget |
/// | `Rejected`, of the primary | no hedge begins; it is the outcome, unless a hedge that runs already wins |
///
/// Where no attempt wins, the outcome is the primary's, with the largest hint seen. Nothing waits for a hint while no
/// attempt runs if the budget is empty or the deadline is nearer: that is the outcome then, at once.
///
/// A hedge begins so long after the attempt before it has reached the operation: the time that one waited in a queue does
/// not count. Inside, a hedge never waits in a queue of a [`Bulkhead`](crate::Bulkhead) and is never a probe of a
/// [`CircuitBreaker`](crate::CircuitBreaker). The closure sees which it is by
/// [`Attempt::hedge`](crate::Attempt::hedge), and can choose another host.
///
/// # Options
///
/// | option | unit, range | default | why |
/// |---|---|---|---|
/// | [`max_hedges`](HedgeBuilder::max_hedges) | attempts besides the primary, 1 to 32 | 1 | |
/// | [`delay`](HedgeBuilder::delay) | see [`HedgeDelay`] | the 95th percentile, 5 ms at least, half the attempt timeout at most | costs at most 5 % load |
/// | [`budget`](HedgeBuilder::budget) | see [`RetryBudget`] | one of its own: 0.1, 1, 10 | without one, hedging collapses by itself at 60 % load |
///
/// A process that has just begun can hedge once, then once for ten successes: where a hedge that you wait for does not
/// come, in a test above all, `HedgeSuppressed` says why, and [`without_budget`](HedgeBuilder::without_budget) or a
/// larger [`initial`](crate::RetryBudgetBuilder::initial) lets it.
///
/// # Cancellation
///
/// A call that is dropped drops all its attempts. None runs on after the call has returned.
///
/// # Cost
///
/// No allocation while no hedge begins; one for each hedge.
///
/// # Events
///
/// `Hedged`, `HedgeSuppressed`, `BudgetEmptied`, `BudgetRefilled`, `RuntimeStalled`.
///
/// # Order among layers
///
/// Inside the retry, outside of bulkhead, circuit breaker and attempt timeout: each attempt is admitted by itself. The
/// default ceiling is half of what the layers inside can take; for a hedge that is built outside of a pipeline, or with
/// nothing inside that bounds the time, there is none.
///
/// # Source
///
/// Jeffrey Dean and Luiz André Barroso, "The Tail at Scale"; what a failure does as in gRPC's proposal A6; a budget over
/// the extra load and a quantile over rotating windows as in Finagle.
pub struct Hedge {
    shared: Arc<Shared>,
}

/// What a handle on the pipeline sees as well.
struct Shared {
    id: PolicyId,
    max_hedges: Tuned<u32>,
    delay: Delay,
    budget: Option<Arc<RetryBudget>>,
}

/// The longest hint that is obeyed, as with a retry's default: a server must not park a client for a day.
const MAX_HINT: Duration = Duration::from_secs(30);

/// More attempts than this at once are a load test.
const MOST_HEDGES: u32 = 32;

impl Hedge {
    /// Starts from the defaults.
    pub fn builder() -> HedgeBuilder {
        let budget = RetryBudget::builder().ratio(0.1).initial(1).cap(10);
        HedgeBuilder { name: None, max_hedges: 1, delay: HedgeDelay::default(), budget: BudgetChoice::Own(budget) }
    }

    /// The budget, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<&Arc<RetryBudget>> {
        self.shared.budget.as_ref()
    }

    /// The delay before the first hedge of a call that began now; none if it would not be hedged by time.
    #[must_use]
    pub fn current_delay(&self) -> Option<Duration> {
        self.shared.delay.before(1)
    }
}

standalone!([] Hedge);

impl fmt::Debug for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("name", &self.shared.id.name)
            .field("max_hedges", &self.shared.max_hedges)
            .field("delay", &format_args!("{}", self.shared.delay))
            .field("budget", &self.shared.budget)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Hedge`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct HedgeBuilder {
    name: Option<Name>,
    max_hedges: u32,
    delay: HedgeDelay,
    budget: BudgetChoice,
}

impl HedgeBuilder {
    /// The name in events. Default: `hedge`.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The most attempts besides the primary: 1 to 32. Default: 1.
    pub const fn max_hedges(mut self, hedges: u32) -> Self {
        self.max_hedges = hedges;
        self
    }

    /// When a hedge begins: a [`HedgeDelay`], or a [`Duration`] for a fixed one. Default: the 95th percentile.
    pub fn delay(mut self, delay: impl Into<HedgeDelay>) -> Self {
        self.delay = delay.into();
        self
    }

    /// Draws on a budget that others draw on as well.
    pub fn budget(mut self, budget: Arc<RetryBudget>) -> Self {
        self.budget = BudgetChoice::Shared(budget);
        self
    }

    /// Draws on a budget of its own with these settings. Default: ratio 0.1, initial 1, cap 10.
    pub fn own_budget(mut self, budget: RetryBudgetBuilder) -> Self {
        self.budget = BudgetChoice::Own(budget);
        self
    }

    /// Hedges whatever it costs the dependency. At more than half of its capacity that can bring it down.
    pub fn without_budget(mut self) -> Self {
        self.budget = BudgetChoice::Unlimited;
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range; the error names it.
    pub fn build(self) -> Result<Hedge, ConfigError> {
        IntoLayer::<Hedge>::into_layer(self, Kind::Hedge.into())
    }

    fn check(self) -> Result<(u32, Delay, Option<Arc<RetryBudget>>), ConfigError> {
        if !(1..=MOST_HEDGES).contains(&self.max_hedges) {
            return Err(ConfigError::new("max_hedges", self.max_hedges, format!("1 to {MOST_HEDGES}")));
        }
        Ok((self.max_hedges, Delay::new(self.delay)?, self.budget.build()?))
    }
}

impl IntoLayer<Hedge> for HedgeBuilder {
    type Layer = Hedge;

    fn into_layer(self, default_name: Name) -> Result<Hedge, ConfigError> {
        let id = PolicyId::new(Kind::Hedge, self.name.clone(), default_name)?;
        let (max_hedges, delay, budget) = self.check().map_err(|error| error.in_policy(&id.name))?;
        Ok(Hedge { shared: Arc::new(Shared { id, max_hedges: Tuned::new(max_hedges), delay, budget }) })
    }
}

impl Describe for Hedge {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.push(self.shared.info().live(self.shared.clone()));
    }

    fn attach(&self, site: &Site<'_>) {
        if let Some(inside) = site.longest_inside() {
            self.shared.delay.lower_ceiling(inside);
        }
    }
}

/// For who looks after it while it runs.
impl Live for Shared {
    fn info(&self) -> LayerInfo {
        let hedges = self.max_hedges.get();
        let role = Role::Hedge {
            hedges,
            wait: self.delay.wait(),
            longest_hint: MAX_HINT,
            budget: self.budget.as_ref().map(|budget| budget.info()),
        };
        let info = LayerInfo::new(self.id.clone(), role).setting("max_hedges", hedges).setting("delay", &self.delay);
        match &self.budget {
            Some(budget) => info.setting("budget", format_args!("{} up to {}", budget.ratio(), budget.cap())),
            None => info.setting("budget", "none"),
        }
    }

    fn state(&self) -> LayerState {
        LayerState::Hedge(HedgeSnapshot {
            current_delay: self.delay.before(1),
            latencies: self.delay.snapshot(),
            budget: self.budget.as_ref().map(|budget| budget.snapshot()),
        })
    }

    #[cfg(feature = "serde")]
    fn amend(self: Arc<Self>, config: &LayerConfig) -> Result<Amendment, ConfigError> {
        match config {
            LayerConfig::Hedge(config) => self.amended(config),
            other => Err(other.misplaced(self.id.kind())),
        }
    }

    #[cfg(feature = "serde")]
    fn inside_is(&self, longest: &[Option<Duration>]) {
        self.delay.set_ceiling(longest.iter().flatten().min().copied());
    }
}
