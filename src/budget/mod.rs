//! The budget for extra load, as its users see it.

#[cfg(feature = "serde")]
mod config;

use std::{fmt, num::NonZeroU32, sync::Arc};

use crate::{
    context::{Context, Frame},
    engine::budget::{Budget, Edge, Slot, Withdrawal},
    error::ConfigError,
    event::{EventKind, PolicyId},
    layer::BudgetInfo,
    outcome::{Outcome, VerdictKind},
    snapshot::BudgetSnapshot,
};

/// Bounds the extra load that retries and hedges put on a dependency: successes fund it, repeats spend it.
///
/// Each successful attempt deposits `ratio` of a token; each retry and each hedge takes a whole one. While the
/// dependency works there is always something to spend; in an outage nothing is deposited, and after the balance is
/// used up each call makes exactly one attempt. A first attempt is never refused.
///
/// Every [`Retry`](crate::Retry) and every [`Hedge`](crate::Hedge) has one of its own unless it is given one. Give the
/// same one, in an [`Arc`], to all pipelines that call the same dependency: then they share what it can bear.
///
/// ```
/// use std::sync::Arc;
/// use withstand::{Hedge, Pipeline, Retry, RetryBudget};
///
/// let budget = Arc::new(RetryBudget::builder().ratio(0.1).initial(5).cap(50).build()?);
/// let reads = Pipeline::builder("users-reads")
///     .retry(Retry::builder().budget(budget.clone()))
///     .hedge(Hedge::builder().budget(budget.clone()))
///     .build()?;
/// let writes = Pipeline::builder("users-writes").retry(Retry::builder().budget(budget.clone())).build()?;
/// assert_eq!(budget.balance(), 5.0);
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// # Options
///
/// | option | unit | range | default | why |
/// |---|---|---|---|---|
/// | [`ratio`](RetryBudgetBuilder::ratio) | tokens for each success | 0 to 1 | 0.2 | a rolling deploy with 20 % failing succeeds to 95 % (with 0.1: 87 %) |
/// | [`initial`](RetryBudgetBuilder::initial) | tokens | at most the cap | 10 | a crash loop refills it, so it is small |
/// | [`cap`](RetryBudgetBuilder::cap) | tokens | any | 100 | what is saved in good times is all that a total outage can cost |
///
/// A hedge's own budget has a ratio of 0.1, 1 token at first and a cap of 10: hedging at the 95th percentile costs 5 %.
///
/// # What it does to the load
///
/// With a share `f` of failing attempts the load settles at `1 / (1 - ratio * (1 - f))` times the calls: for a ratio of
/// 0.2 at `f = 0.5` it is 1.11, at `f = 1` it is 1.0.
///
/// A token is given back where the repeat was refused before it reached the dependency. Where several layers hold the
/// same budget, a success is deposited once, by the innermost.
///
/// # Source
///
/// The success-funded kind, as in gRPC's retry throttling (proposal A6) and the AWS SDKs' standard retry mode; not the
/// share-of-requests kind of Finagle and linkerd, which goes on repeating for as long as an outage lasts.
pub struct RetryBudget {
    engine: Budget,
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("balance", &self.balance())
            .field("cap", &self.cap())
            .field("ratio", &self.ratio())
            .finish_non_exhaustive()
    }
}

impl RetryBudget {
    /// Starts from the defaults.
    pub const fn builder() -> RetryBudgetBuilder {
        RetryBudgetBuilder { ratio: 0.2, initial: None, cap: 100 }
    }

    /// The tokens in it now; while other threads pay in and take out, about as many.
    #[must_use]
    pub fn balance(&self) -> f64 {
        self.engine.balance()
    }

    /// The tokens that it held at first.
    #[must_use]
    pub fn initial(&self) -> u32 {
        self.engine.initial()
    }

    /// The most tokens that it holds.
    #[must_use]
    pub fn cap(&self) -> u32 {
        self.engine.cap()
    }

    /// What a success deposits, in tokens.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.engine.ratio()
    }

    /// Deposits a success, unless an inner layer that holds this budget has.
    #[inline(always)]
    pub(crate) fn fund<T, E>(&self, outcome: Outcome<T, E>, cx: &Context<'_>, policy: &PolicyId) -> Outcome<T, E> {
        if outcome.kind() != VerdictKind::Success || outcome.has_funded(self.engine.id()) {
            return outcome;
        }
        let outcome = outcome.funded(self.engine.id());
        if self.engine.is_full() {
            return outcome;
        }
        outcome.put_aside(|| {
            if let Some(edge) = self.engine.deposit(Slot::of_this_thread()) {
                self.report(edge, *cx, policy);
            }
        })
    }

    /// A token for one repeat; none if the budget is empty.
    pub(crate) fn withdraw(&self, cx: Context<'_>, policy: &PolicyId) -> Option<Token<'_>> {
        match self.engine.withdraw() {
            Withdrawal::Granted => Some(Token { budget: self }),
            Withdrawal::Refused { edges } => {
                for edge in edges.into_iter().flatten() {
                    self.report(edge, cx, policy);
                }
                None
            }
        }
    }

    #[cold]
    fn report(&self, edge: Edge, cx: Context<'_>, policy: &PolicyId) {
        let (balance, cap) = (self.balance(), self.cap());
        cx.emit(policy, || match edge {
            Edge::Emptied => EventKind::BudgetEmptied { balance, cap },
            Edge::Refilled => EventKind::BudgetRefilled { balance, cap },
        });
    }

    pub(crate) fn snapshot(&self) -> BudgetSnapshot {
        BudgetSnapshot::new(self.balance(), self.cap(), self.ratio())
    }

    pub(crate) fn info(&self) -> BudgetInfo {
        BudgetInfo { id: self.id(), ratio: self.ratio(), cap: self.cap() }
    }

    fn id(&self) -> NonZeroU32 {
        self.engine.id()
    }
}

/// What a repeat has taken out of a budget. Given back when it is dropped before the repeat begins.
#[must_use]
pub(crate) struct Token<'a> {
    budget: &'a RetryBudget,
}

impl<'a> Token<'a> {
    /// The repeat is over: the token stays spent if the dependency has had it, and goes back if not.
    #[expect(clippy::mem_forget, reason = "dropping it gives the token back")]
    pub(crate) fn settle(self, reached: bool) {
        if reached {
            std::mem::forget(self);
        }
    }

    /// The same as a guard, for a repeat with a frame of its own.
    pub(crate) fn spend<'f>(self, frame: &'f Frame<'f>) -> SpentToken<'a, 'f> {
        SpentToken { token: Some(self), frame }
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        self.budget.engine.refund(Slot::of_this_thread());
    }
}

/// A token of a repeat that is under way: dropped, it goes back if no attempt in the frame has reached the operation.
#[must_use]
pub(crate) struct SpentToken<'a, 'f> {
    /// None once it is given back, and while it is being dropped.
    token: Option<Token<'a>>,
    frame: &'f Frame<'f>,
}

impl SpentToken<'_, '_> {
    /// The dependency was not called after all: the outcome of the repeat says so itself.
    pub(crate) fn give_back(mut self) {
        drop(self.token.take());
    }
}

impl Drop for SpentToken<'_, '_> {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            token.settle(self.frame.attempts_started() > 0);
        }
    }
}

/// Builds a [`RetryBudget`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RetryBudgetBuilder {
    ratio: f64,
    initial: Option<u32>,
    cap: u32,
}

impl RetryBudgetBuilder {
    /// What each success deposits, in tokens: 0 to 1. Default: 0.2.
    pub const fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// The tokens at first: at most the cap. Default: 10, or the cap if that is less.
    pub const fn initial(mut self, tokens: u32) -> Self {
        self.initial = Some(tokens);
        self
    }

    /// The most tokens that it holds. Default: 100.
    pub const fn cap(mut self, tokens: u32) -> Self {
        self.cap = tokens;
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If the ratio is not a number from 0 to 1, or `initial` is more than the cap.
    pub fn build(self) -> Result<RetryBudget, ConfigError> {
        Ok(RetryBudget { engine: Budget::new(self.ratio, self.initial.unwrap_or(10.min(self.cap)), self.cap)? })
    }
}

/// Which budget a layer draws on.
#[derive(Clone, Debug)]
pub(crate) enum BudgetChoice {
    Own(RetryBudgetBuilder),
    Shared(Arc<RetryBudget>),
    Unlimited,
}

impl BudgetChoice {
    pub(crate) fn build(self) -> Result<Option<Arc<RetryBudget>>, ConfigError> {
        match self {
            Self::Own(builder) => Ok(Some(Arc::new(builder.build()?))),
            Self::Shared(budget) => Ok(Some(budget)),
            Self::Unlimited => Ok(None),
        }
    }
}
