//! How it went: the result of an attempt, and what layers tell each other about it.

mod verdict;

use std::{fmt, num::NonZeroU32, time::Duration};

pub use verdict::{Classification, Classify, ClassifyErrors, ClassifyResults, DefaultClassifier, Verdict, VerdictKind};

use crate::{
    engine::moment::Hint,
    error::{Error, Rejection},
};

/// How an attempt, or a whole call, went: the result, the [`Verdict`] about it, and a label for telemetry.
///
/// Policies pass outcomes outward. A custom policy usually returns the one it got; one that makes its own uses
/// [`Outcome::new`] or [`Outcome::rejected`](Self::rejected).
#[derive(Debug)]
#[must_use = "an outcome holds the result of the call"]
pub struct Outcome<T, E> {
    /// The result as the caller will see it.
    pub result: Result<T, Error<E>>,
    label: &'static str,
    // The verdict, but for its kind: an outcome is moved through every layer.
    hint: Hint,
    marks: Marks,
    funded: Funded,
}

/// The kind of a verdict, and what layers tell layers further out about an outcome. One word, and not four bytes: those
/// would be moved one by one through every layer.
#[derive(Clone, Copy)]
struct Marks(u64);

/// A retry gave up on it: no outer retry repeats it unless built to.
const SPENT: u64 = 1 << 8;
/// It timed out because this process stood still: says nothing about the dependency.
const STALLED: u64 = 1 << 9;
/// A fallback gave it.
const SUBSTITUTE: u64 = 1 << 10;
const KIND: u64 = 0xFF;

impl Marks {
    #[inline(always)]
    const fn none(kind: VerdictKind) -> Self {
        Self(match kind {
            VerdictKind::Success => 0,
            VerdictKind::Transient => 1,
            VerdictKind::Unreached => 2,
            VerdictKind::Throttled => 3,
            VerdictKind::Failure => 4,
            VerdictKind::Ignored => 5,
            VerdictKind::Rejected => 6,
        })
    }

    #[inline(always)]
    const fn kind(self) -> VerdictKind {
        match self.0 & KIND {
            0 => VerdictKind::Success,
            1 => VerdictKind::Transient,
            2 => VerdictKind::Unreached,
            3 => VerdictKind::Throttled,
            4 => VerdictKind::Failure,
            5 => VerdictKind::Ignored,
            _ => VerdictKind::Rejected,
        }
    }

    const fn with_kind(self, kind: VerdictKind) -> Self {
        Self(self.0 & !KIND | Self::none(kind).0)
    }

    const fn with(self, mark: u64) -> Self {
        Self(self.0 | mark)
    }

    const fn has(self, mark: u64) -> bool {
        self.0 & mark != 0
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marks = [("spent", SPENT), ("stalled", STALLED), ("substitute", SUBSTITUTE)];
        let has = marks.into_iter().filter(|&(_, mark)| self.has(mark)).map(|(name, _)| name);
        f.debug_list().entry(&self.kind()).entries(has).finish()
    }
}

/// The budgets that a success was deposited in already, the latest in the low half; 0 is none. Two, because more than two
/// budgets interleaved in one stack is no arrangement that anyone has a use for.
#[derive(Clone, Copy, Debug)]
struct Funded(u64);

impl<T, E> Outcome<T, E> {
    /// An outcome of a result and what a classifier says of it.
    #[inline]
    pub fn new(result: Result<T, Error<E>>, classification: impl Into<Classification>) -> Self {
        let Classification { verdict, label } = classification.into();
        Self { result, label, hint: verdict.hint().into(), marks: Marks::none(verdict.kind()), funded: Funded(0) }
    }

    /// The verdict.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.kind().with_hint(self.hint.get())
    }

    /// The verdict without its hint.
    pub(crate) const fn kind(&self) -> VerdictKind {
        self.marks.kind()
    }

    /// The label for telemetry: the classifier's, or the verdict's word.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.label
    }

    /// Whether a retry has given up on this outcome. No outer retry repeats it unless it was built with
    /// [`repeat_spent`](crate::RetryBuilder::repeat_spent), so that nested retries never multiply.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.marks.has(SPENT)
    }

    /// Whether the attempt timed out because this process stood still. It is the dependency's fault no more than a
    /// rejection is, and no circuit breaker counts it.
    #[must_use]
    pub const fn is_stalled(&self) -> bool {
        self.marks.has(STALLED)
    }

    /// The same outcome, marked as given up.
    pub fn spent(mut self) -> Self {
        self.marks = self.marks.with(SPENT);
        self
    }

    /// The same outcome, marked as caused by a stall of this process.
    pub fn stalled(mut self) -> Self {
        self.marks = self.marks.with(STALLED);
        self
    }

    /// Whether a fallback gave it.
    #[must_use]
    pub const fn is_substitute(&self) -> bool {
        self.marks.has(SUBSTITUTE)
    }

    /// The same outcome, marked as given by a fallback.
    pub(crate) fn substituted(mut self) -> Self {
        self.marks = self.marks.with(SUBSTITUTE);
        self
    }

    /// A refusal: verdict and hint are those of a rejection, the label is its reason.
    #[inline(always)]
    pub fn rejected(rejection: Rejection) -> Self {
        let (label, hint) = (rejection.reason().as_str(), rejection.hint());
        Self {
            result: Err(Error::Rejected(rejection)),
            label,
            hint,
            marks: Marks::none(VerdictKind::Rejected),
            funded: Funded(0),
        }
    }

    /// The same outcome with another verdict and label. The marks stay.
    pub fn reclassified(mut self, classification: impl Into<Classification>) -> Self {
        let Classification { verdict, label } = classification.into();
        self.hint = verdict.hint().into();
        self.marks = self.marks.with_kind(verdict.kind());
        self.label = label;
        self
    }

    /// The same outcome with another hint, where its verdict carries one.
    pub(crate) fn hinted(mut self, hint: Option<Duration>) -> Self {
        self.hint = self.verdict().with_hint(hint).hint().into();
        self
    }

    /// The same in a place of its own: for a branch that has it in memory, while others have not.
    #[inline(always)]
    pub(crate) fn aside(self) -> Self {
        self.put_aside(|| {})
    }

    /// Does something that may unwind, for which an outcome must be in memory: in a place of its own, so that where
    /// nothing is to be done it need not be.
    #[inline(always)]
    pub(crate) fn put_aside(self, during: impl FnOnce()) -> Self {
        let [outcome] = {
            let aside = [self];
            during();
            aside
        };
        outcome
    }

    /// Whether this success is deposited in that budget already.
    #[inline]
    pub(crate) fn has_funded(&self, budget: NonZeroU32) -> bool {
        let budget = u64::from(budget.get());
        self.funded.0 & 0xFFFF_FFFF == budget || self.funded.0 >> 32 == budget
    }

    /// Notes that this success is deposited in a budget.
    #[inline]
    pub(crate) fn funded(mut self, budget: NonZeroU32) -> Self {
        self.funded = Funded(self.funded.0 << 32 | u64::from(budget.get()));
        self
    }
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_two_budgets_that_a_success_was_deposited_in_last_are_known_whatever_their_numbers() {
        let numbers = [1, 2, 1 << 31, u32::MAX].map(|number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN));
        let success = || Outcome::<(), ()>::new(Ok(()), Verdict::success());
        for [first, second] in numbers.into_iter().flat_map(|first| numbers.map(|second| [first, second])) {
            let funded = success().funded(first).funded(second).spent().reclassified(Verdict::failure());
            for number in numbers {
                assert!(!success().has_funded(number));
                assert_eq!(success().funded(first).has_funded(number), number == first);
                assert_eq!(funded.has_funded(number), number == first || number == second);
            }
        }
    }
}
