//! Retry: repeats what may succeed the next time.

#[cfg(feature = "serde")]
mod config;
mod run;

use std::{fmt, sync::Arc, time::Duration};

#[cfg(feature = "serde")]
use crate::{amendment::Amendment, config::LayerConfig};
use crate::{
    budget::{BudgetChoice, RetryBudget, RetryBudgetBuilder},
    build::IntoLayer,
    call::standalone,
    engine::{
        backoff::{Backoff, LiveBackoff},
        rng::Rng,
        tuned::Tuned,
    },
    error::ConfigError,
    event::{Kind, PolicyId},
    layer::{LayerInfo, Live, Role},
    name::Name,
    policy::Describe,
    snapshot::{LayerState, RetrySnapshot},
};

/// Repeats what may succeed the next time: after a pause, a few times, and only as often as successes pay for.
///
/// **When to use it.** Around calls whose failures are often short: a lost connection, a restarting replica, a brief
/// overload. **When not.** Around what is not idempotent (say so with
/// [`CallOptions::idempotency`](crate::CallOptions::idempotency)), around work whose answer is of no use a second later,
/// and at more than one level of the same path.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
/// use withstand::{Backoff, Retry};
///
/// let retry = Retry::builder()
///     .max_attempts(3)
///     .backoff(Backoff::exponential(Duration::from_millis(50)).cap(Duration::from_secs(1)))
///     .build()?;
///
/// let calls = AtomicU32::new(0);
/// let answer = retry
///     .call(|| async {
///         match calls.fetch_add(1, Ordering::Relaxed) {
///             0 => Err("connection reset"),
///             _ => Ok("hello"),
///         }
///     })
///     .await;
/// assert_eq!(answer, Ok("hello"));
/// assert_eq!(calls.into_inner(), 2);
/// # Ok::<(), withstand::ConfigError>(()) }).unwrap();
/// ```
///
/// # What is repeated
///
/// | verdict | repeated | though not idempotent |
/// |---|---|---|
/// | `Transient` | yes | no |
/// | `Unreached` | yes | yes |
/// | `Throttled` | yes, after the hint | yes |
/// | `Rejected` | only with [`retry_rejected`](RetryBuilder::retry_rejected); an isolated circuit never | yes |
/// | `Success`, `Failure`, `Ignored` | no | no |
///
/// The outcome of a retry that gives up is the last one that the dependency gave, as it is: never a wrapper. It is
/// [spent](crate::Outcome::is_spent): no outer retry repeats it, so nested retries do not multiply. Where a repeat is
/// itself refused in this process, the outcome before it is returned, with the refusal's hint: for that it is kept until
/// the repeat has ended, and no longer. Where an outcome holds something that the repeat needs, such as a response with
/// its connection, let the operation read it to its end, or make an error of it.
///
/// # Options
///
/// | option | unit, range | default | why |
/// |---|---|---|---|
/// | [`max_attempts`](RetryBuilder::max_attempts) | attempts, the first included; from 1 | 3 | the SRE book's number, and resilience4j's |
/// | [`backoff`](RetryBuilder::backoff) | see [`Backoff`] | exponential from 50 ms, doubling, up to 1 s, full jitter | AWS's base; the cap fits a total of 4 s |
/// | [`max_elapsed`](RetryBuilder::max_elapsed) | time, more than 0 | none | the total timeout rules |
/// | [`min_time_left`](RetryBuilder::min_time_left) | time | 10 ms | an attempt with 1 ms left is pure load |
/// | [`max_hint`](RetryBuilder::max_hint) | time | 30 s | a server must not park a client for a day; the deadline usually cuts first |
/// | [`budget`](RetryBuilder::budget) | see [`RetryBudget`] | one of its own: 0.2, 10, 100 | without one, retries keep an overload alive |
/// | [`retry_rejected`](RetryBuilder::retry_rejected) | | off | load belongs outside |
/// | [`repeat_spent`](RetryBuilder::repeat_spent) | | off | retries at several levels multiply |
/// | [`seed`](RetryBuilder::seed) | | random | the same jitter each time, for tests |
///
/// # The wait
///
/// `max(computed, min(hint, max_hint)) + uniform(0, min(hint, max_hint) / 10)`: a hint is never undercut, and the clients
/// that were given the same one do not come back together. Where the next attempt would begin after the deadline, or
/// less than `min_time_left` before it, there is no wait: the last outcome is returned at once.
///
/// # Cancellation
///
/// A call dropped during a wait or an attempt makes no further attempt; the token of a repeat that did not reach the
/// dependency goes back to the budget.
///
/// # Events
///
/// `Retried`, `RetryStopped`, `BudgetEmptied`, `BudgetRefilled`.
///
/// # Order among layers
///
/// Inside the total timeout and outside of the bulkhead, the circuit breaker and the attempt timeout: each attempt is
/// admitted anew.
///
/// # Source
///
/// Backoff and jitter: see [`Backoff`]. Budget: see [`RetryBudget`].
pub struct Retry {
    shared: Arc<Shared>,
}

/// What a handle on the pipeline sees as well.
#[derive(Debug)]
struct Shared {
    id: PolicyId,
    max_attempts: Tuned<u32>,
    backoff: LiveBackoff,
    max_elapsed: Tuned<Option<Duration>>,
    min_time_left: Tuned<Duration>,
    max_hint: Tuned<Duration>,
    budget: Option<Arc<RetryBudget>>,
    repeat_rejected: bool,
    repeat_spent: bool,
    rng: Rng,
}

impl Retry {
    /// Starts from the defaults.
    pub fn builder() -> RetryBuilder {
        RetryBuilder {
            name: None,
            max_attempts: 3,
            backoff: Backoff::default(),
            max_elapsed: None,
            min_time_left: Duration::from_millis(10),
            max_hint: Duration::from_secs(30),
            budget: BudgetChoice::Own(RetryBudget::builder()),
            repeat_rejected: false,
            repeat_spent: false,
            seed: None,
        }
    }

    /// The budget, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<&Arc<RetryBudget>> {
        self.shared.budget.as_ref()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Retry").field(&self.shared).finish()
    }
}

standalone!([] Retry);

/// Builds a [`Retry`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RetryBuilder {
    name: Option<Name>,
    max_attempts: u32,
    backoff: Backoff,
    max_elapsed: Option<Duration>,
    min_time_left: Duration,
    max_hint: Duration,
    budget: BudgetChoice,
    repeat_rejected: bool,
    repeat_spent: bool,
    seed: Option<u64>,
}

impl RetryBuilder {
    /// The name in events. Default: `retry`.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The most attempts, the first included: 1 or more. Default: 3.
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The waits between attempts. Default: exponential from 50 ms, doubling, up to 1 s, with full jitter.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// No attempt begins later than this after the first: more than zero. Default: none, the total timeout rules.
    pub const fn max_elapsed(mut self, elapsed: Duration) -> Self {
        self.max_elapsed = Some(elapsed);
        self
    }

    /// No repeat begins with less time than this to the deadline; the first attempt always may. Default: 10 ms.
    pub const fn min_time_left(mut self, left: Duration) -> Self {
        self.min_time_left = left;
        self
    }

    /// The longest hint that is obeyed; a longer one counts as this. Zero obeys none. Default: 30 s.
    pub const fn max_hint(mut self, hint: Duration) -> Self {
        self.max_hint = hint;
        self
    }

    /// Draws on a budget that others draw on as well.
    pub fn budget(mut self, budget: Arc<RetryBudget>) -> Self {
        self.budget = BudgetChoice::Shared(budget);
        self
    }

    /// Draws on a budget of its own with these settings. Default: ratio 0.2, initial 10, cap 100.
    pub fn own_budget(mut self, budget: RetryBudgetBuilder) -> Self {
        self.budget = BudgetChoice::Own(budget);
        self
    }

    /// Repeats whatever it costs the dependency. For callers that are themselves the bound, such as a batch job.
    pub fn without_budget(mut self) -> Self {
        self.budget = BudgetChoice::Unlimited;
        self
    }

    /// Repeats what was refused in this process as well, except by an isolated circuit. Default: not, since whoever
    /// refuses does so to shed load.
    pub const fn retry_rejected(mut self) -> Self {
        self.repeat_rejected = true;
        self
    }

    /// Repeats outcomes that a retry further in has given up on. Default: not, since nested retries multiply.
    pub const fn repeat_spent(mut self) -> Self {
        self.repeat_spent = true;
        self
    }

    /// Makes the jitter the same each time, for tests. Default: random.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range; the error names it.
    pub fn build(self) -> Result<Retry, ConfigError> {
        IntoLayer::<Retry>::into_layer(self, Kind::Retry.into())
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.max_attempts == 0 {
            return Err(ConfigError::new("max_attempts", 0, "1 or more; it counts the first attempt"));
        }
        if self.max_elapsed.is_some_and(|elapsed| elapsed.is_zero()) {
            return Err(ConfigError::new("max_elapsed", "0s", "more than 0s"));
        }
        Ok(self.backoff.validate()?)
    }
}

impl IntoLayer<Retry> for RetryBuilder {
    type Layer = Retry;

    fn into_layer(self, default_name: Name) -> Result<Retry, ConfigError> {
        let id = PolicyId::new(Kind::Retry, self.name.clone(), default_name)?;
        self.check().map_err(|error| error.in_policy(&id.name))?;
        let budget = self.budget.build().map_err(|error| error.in_policy(&id.name))?;
        let shared = Shared {
            id,
            max_attempts: Tuned::new(self.max_attempts),
            backoff: LiveBackoff::new(self.backoff),
            max_elapsed: Tuned::new(self.max_elapsed),
            min_time_left: Tuned::new(self.min_time_left),
            max_hint: Tuned::new(self.max_hint),
            budget,
            repeat_rejected: self.repeat_rejected,
            repeat_spent: self.repeat_spent,
            rng: self.seed.map_or_else(Rng::from_entropy, Rng::seeded),
        };
        Ok(Retry { shared: Arc::new(shared) })
    }
}

/// The clients that were given the same hint come back over this time.
#[expect(clippy::arithmetic_side_effects, reason = "ten is not zero")]
fn spread(hint: Duration) -> Duration {
    hint / 10
}

impl Describe for Retry {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.push(self.shared.info().live(self.shared.clone()));
    }
}

/// For who looks after it while it runs.
impl Live for Shared {
    fn info(&self) -> LayerInfo {
        let (attempts, backoff) = (self.max_attempts.get(), self.backoff.get());
        let (max_elapsed, max_hint) = (self.max_elapsed.get(), self.max_hint.get());
        let role = Role::Retry {
            attempts,
            waits: backoff.longest(attempts.saturating_sub(1)),
            longest_hint: max_hint.saturating_add(spread(max_hint)),
            max_elapsed,
            budget: self.budget.as_ref().map(|budget| budget.info()),
            repeats_spent: self.repeat_spent,
            repeats_rejected: self.repeat_rejected,
        };
        let info = LayerInfo::new(self.id.clone(), role)
            .setting("max_attempts", attempts)
            .setting("backoff", backoff.describe());
        let info = match max_elapsed {
            Some(elapsed) => info.setting("max_elapsed", format_args!("{elapsed:?}")),
            None => info,
        };
        match &self.budget {
            Some(budget) => info.setting("budget", format_args!("{} up to {}", budget.ratio(), budget.cap())),
            None => info.setting("budget", "none"),
        }
    }

    fn state(&self) -> LayerState {
        LayerState::Retry(RetrySnapshot { budget: self.budget.as_ref().map(|budget| budget.snapshot()) })
    }

    #[cfg(feature = "serde")]
    fn amend(self: Arc<Self>, config: &LayerConfig) -> Result<Amendment, ConfigError> {
        match config {
            LayerConfig::Retry(config) => self.amended(config),
            other => Err(other.misplaced(self.id.kind())),
        }
    }
}
