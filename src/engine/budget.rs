//! The budget for extra load: successes fund it, retries and hedges spend it.

use std::num::NonZeroU32;

use super::{
    refused::Refused,
    sync::{AtomicU64, Ordering},
    tuned::Tuned,
};

/// A balance of tokens in one word.
///
/// Each success deposits `ratio` of a token, each repeat withdraws a whole one. So while a dependency works there is
/// `ratio` to spend for every success; while it is down nothing is deposited, and the repeats end with the balance. With
/// a share `f` of failing attempts the load settles at `1 / (1 - ratio * (1 - f))` times the requests.
///
/// Under any interleaving `0 <= balance <= cap` and `withdrawn - refunded <= initial + deposited`. Nothing waits: each
/// operation is a short compare-and-swap loop, and a deposit into a full budget, the usual case, is one load.
///
/// # Memory ordering
///
/// Everything that is ever decided upon is in the one word, and nothing else is published through it. Every change is a
/// read-modify-write, which sees the latest value of its word, so `Relaxed` is enough throughout. An answer without a
/// change (a deposit into a full budget, a further refusal) may rest on a slightly older value: it is as if it had come
/// a moment earlier.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The balance in micro-tokens, and [`EMPTIED`].
    state: AtomicU64,
    /// What a success deposits, in micro-tokens.
    deposit: Tuned<u64>,
    initial: u32,
    cap: Tuned<u32>,
    id: NonZeroU32,
}

/// One token. A millionth is the smallest deposit: tokens do not quantise, a ratio of 0.35 is 35 %.
const TOKEN: u64 = 1_000_000;

/// The bit that is set from the first refusal until the budget has [refilled](Edge::Refilled), so that each change is
/// reported once. The balance stays far below it: 2^32 tokens are less than 2^52 millionths.
const EMPTIED: u64 = 1 << 63;

/// A change that is worth an event. The two alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an edge is reported once"]
pub(crate) enum Edge {
    /// A withdrawal was refused, the first one since the budget was created or refilled.
    Emptied,
    /// After having been emptied the balance is at least half of the cap again, and at least a token. The distance
    /// between the two keeps a budget that lives from hand to mouth from reporting every token.
    Refilled,
}

/// The answer to [`Budget::withdraw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a withdrawal may be refused"]
pub(crate) enum Withdrawal {
    /// A token was taken.
    Granted,
    /// There was less than a token; the budget is unchanged.
    Refused { edge: Option<Edge> },
}

impl Budget {
    /// `ratio` in `[0, 1]` is rounded to a millionth, but a positive one never to zero. `initial` and `cap` are whole tokens.
    pub(crate) fn new(ratio: f64, initial: u32, cap: u32) -> Result<Self, Refused> {
        check_ratio(ratio)?;
        if initial > cap {
            return Err(Refused {
                field: "initial",
                value: format!("{initial} with a cap of {cap}"),
                accepted: "at most the cap",
            });
        }
        Ok(Self {
            state: AtomicU64::new(micros(initial)),
            deposit: Tuned::new(millionths(ratio)),
            initial,
            cap: Tuned::new(cap),
            id: next_id(),
        })
    }

    /// Changes ratio and cap. What the balance holds above the new cap is gone.
    #[cfg(feature = "serde")]
    pub(crate) fn set(&self, ratio: f64, cap: u32) {
        self.deposit.set(millionths(ratio));
        self.cap.set(cap);
        // What is above the new cap comes down to it, here or with the next deposit of whoever still knew the old one.
        // Without news: whether it is refilled is for a deposit to find.
        let cap = micros(cap);
        let lowered = |state| (balance(state) > cap).then_some(cap | (state & EMPTIED));
        let _was_lower = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lowered);
    }

    /// Whether a deposit would change nothing. The usual case: asked first, since a look is no write, and the successes of
    /// many cores share the word's cache line.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        // With its flag: one that counts as empty, and that a lower cap has filled, has yet to be told as refilled.
        self.state.load(Ordering::Relaxed) == micros(self.cap.get())
    }

    /// A success: adds the ratio, up to the cap.
    pub(crate) fn deposit(&self) -> Option<Edge> {
        self.add(self.deposit.get())
    }

    /// A repeat that never reached the dependency: gives its token back, up to the cap.
    pub(crate) fn refund(&self) -> Option<Edge> {
        if balance(self.state.load(Ordering::Relaxed)) == micros(self.cap.get()) {
            // Filled by a lower cap meanwhile: that is for a deposit to tell.
            return None;
        }
        self.add(TOKEN)
    }

    /// Takes a token for one repeat, if there is one.
    pub(crate) fn withdraw(&self) -> Withdrawal {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            // The balance is in the low bits, so a subtraction that does not borrow leaves the flag alone.
            let (next, answer) = match balance(state).checked_sub(TOKEN) {
                Some(rest) => (rest | (state & EMPTIED), Withdrawal::Granted),
                None if state & EMPTIED != 0 => return Withdrawal::Refused { edge: None },
                None => {
                    let edge = Some(Edge::Emptied);
                    (state | EMPTIED, Withdrawal::Refused { edge })
                }
            };
            match self.replace(state, next) {
                Ok(()) => return answer,
                Err(current) => state = current,
            }
        }
    }

    /// The tokens that are left.
    pub(crate) fn balance(&self) -> f64 {
        tokens(balance(self.state.load(Ordering::Relaxed)))
    }

    /// The most tokens that the budget holds.
    pub(crate) fn cap(&self) -> u32 {
        self.cap.get()
    }

    /// The tokens that the budget began with.
    pub(crate) fn initial(&self) -> u32 {
        self.initial
    }

    /// What a success deposits, as a share of a token.
    pub(crate) fn ratio(&self) -> f64 {
        tokens(self.deposit.get())
    }

    /// Tells this budget from every other one in the process.
    #[inline]
    pub(crate) fn id(&self) -> NonZeroU32 {
        self.id
    }

    fn add(&self, amount: u64) -> Option<Edge> {
        let cap = micros(self.cap.get());
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let before = balance(state);
            let after = before.saturating_add(amount).min(cap);
            let refilled = state & EMPTIED != 0 && after >= self.refill_mark();
            if after == before && !refilled {
                // Full, or nothing to add.
                return None;
            }
            let flag = if refilled { 0 } else { state & EMPTIED };
            match self.replace(state, after | flag) {
                Ok(()) => return refilled.then_some(Edge::Refilled),
                Err(current) => state = current,
            }
        }
    }

    /// The balance from which an emptied budget counts as refilled. With a cap of zero it is never reached.
    fn refill_mark(&self) -> u64 {
        (micros(self.cap.get()) / 2).max(TOKEN)
    }

    /// Weak, as it is always called in a loop; gives the current state where it is not `from`.
    fn replace(&self, from: u64, to: u64) -> Result<(), u64> {
        self.state.compare_exchange_weak(from, to, Ordering::Relaxed, Ordering::Relaxed).map(|_| ())
    }
}

pub(crate) fn check_ratio(ratio: f64) -> Result<(), Refused> {
    if (0.0..=1.0).contains(&ratio) {
        return Ok(());
    }
    Err(Refused { field: "ratio", value: ratio.to_string(), accepted: "a number from 0 to 1" })
}

/// A state without its flag.
#[inline]
fn balance(state: u64) -> u64 {
    state & !EMPTIED
}

#[inline]
fn micros(tokens: u32) -> u64 {
    u64::from(tokens).saturating_mul(TOKEN)
}

/// Micro-tokens in tokens, exactly: no balance has more than 52 bits.
fn tokens(micros: u64) -> f64 {
    let part = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    part(micros / TOKEN) + part(micros % TOKEN) / 1e6
}

/// The ratio in micro-tokens; 0 only if it is 0.
fn millionths(ratio: f64) -> u64 {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the standard library has no other conversion; rounded, and from [0, 1] by the check in `new`"
    )]
    let rounded = (ratio * 1e6).round() as u64;
    if ratio > 0.0 { rounded.max(1) } else { 0 }
}

/// Numbers start over after four thousand million budgets.
fn next_id() -> NonZeroU32 {
    // Not through `sync`: loom's atomics cannot live in a static, and there is no interleaving to check in one counter.
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    // Relaxed: only distinctness counts.
    NonZeroU32::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use proptest::{collection::vec, prelude::any, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::engine::rng::Rng;

    fn budget(ratio: f64, initial: u32, cap: u32) -> Budget {
        Budget::new(ratio, initial, cap).unwrap()
    }

    fn refused(ratio: f64, initial: u32, cap: u32) -> &'static str {
        Budget::new(ratio, initial, cap).unwrap_err().field
    }

    /// The balance as it is kept, in millionths.
    fn held(budget: &Budget) -> u64 {
        balance(budget.state.load(Ordering::Relaxed))
    }

    const EMPTIES: Withdrawal = Withdrawal::Refused { edge: Some(Edge::Emptied) };
    const REFUSED: Withdrawal = Withdrawal::Refused { edge: None };

    #[test]
    fn the_initial_tokens_can_be_spent_and_no_more() {
        let budget = budget(0.2, 3, 10);
        for _ in 0..3 {
            assert_eq!(budget.withdraw(), Withdrawal::Granted);
        }
        assert_eq!(budget.withdraw(), EMPTIES);
        assert_eq!(budget.withdraw(), REFUSED);
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn a_ratio_of_35_percent_is_35_percent() {
        let budget = budget(0.35, 0, 1_000_000);
        for _ in 0..10_000 {
            assert_eq!(budget.deposit(), None);
        }
        let granted = (0..10_000).filter(|_| budget.withdraw() == Withdrawal::Granted).count();
        assert_eq!(granted, 3500);
    }

    #[test]
    fn the_smallest_ratio_still_pays() {
        let tiny = budget(f64::MIN_POSITIVE, 0, 1);
        assert_eq!(tiny.deposit(), None);
        assert_eq!(held(&tiny), 1);
        let nothing = budget(0.0, 0, 1);
        assert_eq!(nothing.deposit(), None);
        assert_eq!(held(&nothing), 0);
    }

    #[test]
    fn emptied_and_refilled_are_each_reported_once() {
        let budget = budget(0.5, 1, 10);
        assert_eq!(budget.withdraw(), Withdrawal::Granted);
        assert_eq!(budget.withdraw(), EMPTIES);
        assert_eq!(budget.withdraw(), REFUSED);
        for _ in 0..9 {
            assert_eq!(budget.deposit(), None);
        }
        assert_eq!(budget.deposit(), Some(Edge::Refilled), "5 of 10");
        assert_eq!(budget.deposit(), None);
        for _ in 0..5 {
            assert_eq!(budget.withdraw(), Withdrawal::Granted);
        }
        assert_eq!(budget.withdraw(), EMPTIES);
    }

    #[test]
    fn a_budget_that_lives_from_hand_to_mouth_reports_one_edge() {
        let budget = budget(1.0, 0, 10);
        assert_eq!(budget.withdraw(), EMPTIES);
        for _ in 0..100 {
            assert_eq!(budget.deposit(), None);
            assert_eq!(budget.withdraw(), Withdrawal::Granted);
            assert_eq!(budget.withdraw(), REFUSED);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_deposit_finds_that_a_lower_cap_has_refilled_it() {
        for ratio in [0.0, 0.2] {
            let budget = budget(ratio, 10, 100);
            for _ in 0..5 {
                assert_eq!(budget.withdraw(), Withdrawal::Granted);
            }
            budget.set(ratio, 5);
            assert_eq!((budget.deposit(), held(&budget)), (None, 5 * TOKEN), "it was never emptied");

            for _ in 0..5 {
                assert_eq!(budget.withdraw(), Withdrawal::Granted);
            }
            assert_eq!(budget.withdraw(), EMPTIES);
            budget.set(1.0, 100);
            for _ in 0..5 {
                assert_eq!(budget.deposit(), None, "far from the cap");
            }
            budget.set(ratio, 5);
            assert_eq!(budget.refund(), None, "who gives a token back tells nobody");
            assert_eq!((budget.deposit(), held(&budget)), (Some(Edge::Refilled), 5 * TOKEN));
            assert_eq!(budget.deposit(), None);
            assert!(budget.is_full());
        }
    }

    #[test]
    fn a_refund_gives_one_token_back_and_can_refill() {
        let budget = budget(0.0, 1, 2);
        assert_eq!(budget.withdraw(), Withdrawal::Granted);
        assert_eq!(budget.withdraw(), EMPTIES);
        assert_eq!(budget.refund(), Some(Edge::Refilled));
        assert_eq!(budget.refund(), None);
        assert_eq!(budget.refund(), None, "at the cap");
        assert_eq!(held(&budget), 2 * TOKEN);
    }

    #[test]
    fn a_cap_of_zero_refuses_for_ever_and_says_so_once() {
        let budget = budget(1.0, 0, 0);
        assert_eq!(budget.withdraw(), EMPTIES);
        assert_eq!(budget.deposit(), None);
        assert_eq!(budget.refund(), None);
        assert_eq!(budget.withdraw(), REFUSED);
    }

    #[test]
    fn the_largest_budget_works() {
        let budget = budget(1.0, u32::MAX, u32::MAX);
        assert_eq!(budget.deposit(), None);
        assert_eq!(budget.withdraw(), Withdrawal::Granted);
        assert!((budget.balance() - f64::from(u32::MAX - 1)).abs() < 1e-9);
        assert_eq!(budget.refund(), None);
        assert!((budget.balance() - f64::from(u32::MAX)).abs() < 1e-9);
    }

    #[test]
    fn settings_are_told_as_they_were_given() {
        let budget = budget(0.35, 7, 20);
        assert!((budget.ratio() - 0.35).abs() < f64::EPSILON);
        assert!((budget.balance() - 7.0).abs() < f64::EPSILON);
        assert_eq!((budget.initial(), budget.cap()), (7, 20));
    }

    #[test]
    fn nonsense_is_refused() {
        for ratio in [f64::NAN, f64::INFINITY, -0.1, 1.000_001] {
            assert_eq!(refused(ratio, 1, 10), "ratio");
        }
        assert_eq!(refused(0.2, 11, 10), "initial");
    }

    #[test]
    fn every_budget_has_a_number_of_its_own() {
        assert_ne!(budget(0.2, 1, 1).id(), budget(0.2, 1, 1).id());
    }

    /// Attempts per request where each fails with a chance of `failing` and is repeated while the budget allows.
    fn amplification(failing: f64, ratio: f64) -> f64 {
        const REQUESTS: u32 = 200_000;
        let (budget, rng) = (budget(ratio, 10, 100), Rng::seeded(5));
        let mut attempts = 0.0;
        for _ in 0..REQUESTS {
            loop {
                attempts += 1.0;
                if rng.uniform() >= failing {
                    let _edge = budget.deposit();
                    break;
                }
                if budget.withdraw() != Withdrawal::Granted {
                    break;
                }
            }
        }
        attempts / f64::from(REQUESTS)
    }

    #[test]
    fn repeats_amplify_the_load_as_much_as_the_formula_says() {
        for (failing, ratio, expected) in [(0.5, 0.1, 1.0526), (0.5, 0.2, 1.1111), (1.0, 0.2, 1.0)] {
            let seen = amplification(failing, ratio);
            assert!((seen - expected).abs() < 0.001, "{seen} for {expected}");
        }
    }

    proptest! {
        #[test]
        fn tokens_are_neither_made_nor_lost(
            ratio in 0.0..=1.0_f64,
            initial in 0..5_u32,
            more in 0..5_u32,
            operations in vec(any::<u8>(), 0..300),
        ) {
            let cap = initial + more;
            let budget = budget(ratio, initial, cap);
            let mut expected = micros(initial);
            let mut outstanding = 0;
            let mut emptied = false;
            for operation in operations {
                let edge = match operation % 5 {
                    0 | 1 => {
                        let granted = expected >= TOKEN;
                        if granted {
                            expected -= TOKEN;
                            outstanding += 1;
                        }
                        match budget.withdraw() {
                            Withdrawal::Granted => {
                                prop_assert!(granted);
                                None
                            }
                            Withdrawal::Refused { edge } => {
                                prop_assert!(!granted);
                                prop_assert!(edge.is_some() || emptied);
                                edge
                            }
                        }
                    }
                    2 if outstanding > 0 => {
                        outstanding -= 1;
                        expected = (expected + TOKEN).min(micros(cap));
                        budget.refund()
                    }
                    _ => {
                        expected = (expected + budget.deposit.get()).min(micros(cap));
                        budget.deposit()
                    }
                };
                prop_assert_eq!(held(&budget), expected);
                match edge {
                    Some(Edge::Emptied) => prop_assert!(!emptied),
                    Some(Edge::Refilled) => prop_assert!(emptied && expected >= budget.refill_mark()),
                    None => {}
                }
                emptied = edge.map_or(emptied, |edge| edge == Edge::Emptied);
            }
        }
    }
}
