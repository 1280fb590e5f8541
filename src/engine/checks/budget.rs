//! The budget for extra load.

use super::{
    super::budget::{Budget, Edge, Slot, Withdrawal},
    Arc, run, thread,
};

fn shared(ratio: f64, initial: u32, cap: u32) -> Arc<Budget> {
    Arc::new(Budget::new(ratio, initial, cap).expect("these settings are valid"))
}

fn assert_balance(budget: &Budget, expected: f64) {
    let balance = budget.balance();
    assert!((balance - expected).abs() < 1e-9, "{balance} and not {expected}");
}

/// A spender on a thread of its own.
fn spends(budget: &Arc<Budget>) -> thread::JoinHandle<Withdrawal> {
    let budget = Arc::clone(budget);
    thread::spawn(move || budget.withdraw())
}

/// A success on a thread of its own.
fn deposits(budget: &Arc<Budget>, slot: usize) -> thread::JoinHandle<Option<Edge>> {
    let budget = Arc::clone(budget);
    thread::spawn(move || budget.deposit(Slot::numbered(slot)))
}

/// A token that comes back on a thread of its own.
fn refunds(budget: &Arc<Budget>) -> thread::JoinHandle<()> {
    let budget = Arc::clone(budget);
    thread::spawn(move || budget.refund(Slot::numbered(1)))
}

fn end<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("nobody panics")
}

/// What withdrawals and deposits on several threads came to.
struct Seen {
    granted: u32,
    emptied: u32,
    refilled: u32,
}

impl Seen {
    fn of(answers: impl IntoIterator<Item = Withdrawal>, deposits: impl IntoIterator<Item = Option<Edge>>) -> Self {
        let mut seen = Self { granted: 0, emptied: 0, refilled: 0 };
        for answer in answers {
            match answer {
                Withdrawal::Granted => seen.granted += 1,
                Withdrawal::Refused { edges } => seen.tell(edges),
            }
        }
        seen.tell(deposits);
        seen
    }

    fn tell(&mut self, edges: impl IntoIterator<Item = Option<Edge>>) {
        for edge in edges.into_iter().flatten() {
            match edge {
                Edge::Emptied => self.emptied += 1,
                Edge::Refilled => self.refilled += 1,
            }
        }
    }

    /// Everything is over, and the budget holds this. It counts as emptied only while that is less than the mark.
    fn assert_left(&self, budget: &Budget, expected: f64, mark: f64) {
        assert_balance(budget, expected);
        assert!(self.emptied == self.refilled || self.emptied == self.refilled + 1 && expected < mark);
        let left = (0..9).take_while(|_| budget.withdraw() == Withdrawal::Granted).count();
        assert_eq!(left, (0..9_u32).filter(|&tokens| f64::from(tokens + 1) <= expected).count());
    }
}

#[test]
fn two_withdrawals_and_a_deposit_neither_make_nor_lose_tokens() {
    run(|| {
        let budget = shared(1.0, 1, 2);
        let spenders = [spends(&budget), spends(&budget)];
        let refilled = budget.deposit(Slot::numbered(0));
        let seen = Seen::of(spenders.map(end), [refilled]);

        match seen.granted {
            1 => assert_balance(&budget, 1.0),
            2 => assert_balance(&budget, 0.0),
            other => panic!("{other} of 1 or 2 possible withdrawals were granted"),
        }
        // One token is half of the cap: a deposit that comes after a refusal refills.
        assert_eq!(seen.emptied, seen.refilled);
        assert_eq!(seen.emptied, 2 - seen.granted);
    });
}

#[test]
fn a_deposit_is_spent_once() {
    run(|| {
        let budget = shared(1.0, 0, 2);
        let spenders = [spends(&budget), spends(&budget)];
        let refilled = budget.deposit(Slot::numbered(1));
        let seen = Seen::of(spenders.map(end), [refilled]);

        assert!(seen.granted <= 1 && seen.emptied >= 1);
        seen.assert_left(&budget, 1.0 - f64::from(seen.granted), 1.0);
    });
}

#[test]
fn deposits_into_different_shards_race_a_withdrawal() {
    run(|| {
        // Neither is worth a look at whether it is full now, and both together make a token.
        let budget = shared(0.5, 0, 100);
        let others = [deposits(&budget, 0), deposits(&budget, 1)];
        let answer = budget.withdraw();
        let seen = Seen::of([answer], others.map(end));

        seen.assert_left(&budget, 1.0 - f64::from(seen.granted), 50.0);
    });
}

#[test]
fn deposits_around_a_refusal_that_refill_together_say_so() {
    run(|| {
        let budget = shared(0.5, 0, 2);
        let others = [deposits(&budget, 0), deposits(&budget, 1)];
        let answer = budget.withdraw();
        let seen = Seen::of([answer], others.map(end));

        assert_eq!((seen.emptied, seen.refilled), (1 - seen.granted, 1 - seen.granted));
        seen.assert_left(&budget, 1.0 - f64::from(seen.granted), 1.0);
    });
}

#[test]
fn whoever_is_the_last_to_fill_it_up_again_says_so() {
    run(|| {
        let budget = shared(0.75, 0, 3);
        let emptied = budget.withdraw();
        let others = [deposits(&budget, 0), deposits(&budget, 1)];
        let seen = Seen::of([emptied], others.map(end));

        // Half of the cap, by both.
        assert_eq!((seen.emptied, seen.refilled), (1, 1));
        seen.assert_left(&budget, 1.5, 1.5);
    });
}

#[test]
fn what_a_refund_refills_is_told_once_by_a_deposit_at_the_same_time_or_after() {
    run(|| {
        let budget = shared(0.5, 0, 3);
        let emptied = budget.withdraw();
        let deposit = deposits(&budget, 0);
        let refund = refunds(&budget);
        let refilled = end(deposit);
        end(refund);
        let seen = Seen::of([emptied], [refilled, budget.deposit(Slot::numbered(0))]);

        assert_eq!((seen.emptied, seen.refilled), (1, 1));
        seen.assert_left(&budget, 2.0, 1.5);
    });
}

#[test]
fn a_withdrawal_races_those_who_see_that_it_is_full() {
    run(|| {
        let budget = shared(1.0, 1, 2);
        let others = [deposits(&budget, 0), deposits(&budget, 1)];
        let answer = budget.withdraw();
        let seen = Seen::of([answer], others.map(end));

        assert_eq!((seen.granted, seen.emptied), (1, 0));
        // The second deposit was beyond the cap, or it came after the withdrawal.
        let both_before = budget.balance() < 1.5;
        assert!(!(both_before && budget.is_full()));
        seen.assert_left(&budget, if both_before { 1.0 } else { 2.0 }, 1.0);
    });
}

#[test]
fn a_cap_that_is_raised_while_a_deposit_fills_it_up_is_the_cap() {
    run(|| {
        let budget = shared(1.0, 1, 2);
        let deposit = deposits(&budget, 0);
        budget.set(1.0, 4);
        assert_eq!(end(deposit), None);

        assert_balance(&budget, 2.0);
        for slot in 0..4 {
            assert_eq!(budget.is_full(), slot >= 2);
            assert_eq!(budget.deposit(Slot::numbered(slot)), None);
        }
        Seen::of([], []).assert_left(&budget, 4.0, 2.0);
    });
}

#[test]
fn what_comes_after_a_raise_of_the_cap_counts_though_one_who_knew_the_old_cap_fills_it_up() {
    run(|| {
        let budget = shared(1.0, 1, 2);
        let deposit = deposits(&budget, 0);
        let raise = thread::spawn({
            let budget = Arc::clone(&budget);
            move || budget.set(1.0, 4)
        });
        end(raise);
        // As a call does it.
        if !budget.is_full() {
            assert_eq!(budget.deposit(Slot::numbered(1)), None);
        }
        budget.refund(Slot::numbered(1));
        assert_eq!(end(deposit), None);

        Seen::of([], []).assert_left(&budget, 4.0, 2.0);
    });
}

#[test]
fn whoever_asks_for_the_balance_meanwhile_hears_of_one_that_there_was() {
    run(|| {
        let budget = shared(1.0, 0, 9);
        let asks = thread::spawn({
            let budget = Arc::clone(&budget);
            move || budget.balance()
        });
        assert_eq!(budget.deposit(Slot::numbered(0)), None);
        assert_eq!(budget.withdraw(), Withdrawal::Granted);
        let balance = end(asks);
        assert!(matches!(balance, 0.0 | 1.0), "{balance}");
        assert_balance(&budget, 0.0);
    });
}

#[test]
fn two_spenders_of_one_token_see_one_grant_and_one_edge() {
    run(|| {
        let budget = shared(0.0, 1, 1);
        let spender = thread::spawn({
            let budget = Arc::clone(&budget);
            move || [budget.withdraw(), budget.withdraw()]
        });
        let mut answers = vec![budget.withdraw()];
        answers.extend(end(spender));

        let seen = Seen::of(answers, []);
        assert_eq!((seen.granted, seen.emptied, seen.refilled), (1, 1, 0));
        assert_balance(&budget, 0.0);
    });
}

#[test]
fn a_refund_and_a_withdrawal_at_the_cap_keep_within_the_cap() {
    run(|| {
        let budget = shared(0.0, 1, 1);
        let refund = refunds(&budget);
        let answer = budget.withdraw();
        end(refund);

        assert_eq!(answer, Withdrawal::Granted);
        // The refund found a full budget and was void, or it came after the withdrawal.
        assert!(matches!(budget.balance(), 0.0 | 1.0));
    });
}

#[test]
fn a_refund_races_a_withdrawal_for_its_token() {
    run(|| {
        let budget = shared(0.0, 1, 1);
        assert_eq!(budget.withdraw(), Withdrawal::Granted);
        let refund = refunds(&budget);
        let answer = budget.withdraw();
        end(refund);

        // Who is refused says that it was emptied, and the same, or the next success, that it is refilled.
        let seen = Seen::of([answer], [budget.deposit(Slot::numbered(0))]);
        assert_eq!((seen.emptied, seen.refilled), (1 - seen.granted, 1 - seen.granted));
        seen.assert_left(&budget, 1.0 - f64::from(seen.granted), 1.0);
    });
}

#[test]
fn a_deposit_after_a_refund_tells_what_that_refilled_though_a_refusal_races_both() {
    run(|| {
        // Not its cap: who looks at a full one would write that down, and so see what there is.
        let budget = shared(0.0, 1, 2);
        assert_eq!(budget.withdraw(), Withdrawal::Granted);
        let others = thread::spawn({
            let budget = Arc::clone(&budget);
            move || {
                budget.refund(Slot::numbered(1));
                budget.deposit(Slot::numbered(0))
            }
        });
        let answer = budget.withdraw();
        let seen = Seen::of([answer], [end(others)]);

        assert_eq!((seen.emptied, seen.refilled), (1 - seen.granted, 1 - seen.granted));
        seen.assert_left(&budget, 1.0 - f64::from(seen.granted), 1.0);
    });
}
