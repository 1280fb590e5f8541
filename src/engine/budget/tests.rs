//! What the budget for extra load does, on one thread.

use std::{cell::Cell, thread};

use proptest::{collection::vec, prelude::any, prop_assert_eq, proptest, sample};

use super::*;
use crate::engine::{rng::Rng, sync::counted::accesses};

fn budget(ratio: f64, initial: u32, cap: u32) -> Budget {
    Budget::new(ratio, initial, cap).unwrap()
}

fn refused(ratio: f64, initial: u32, cap: u32) -> &'static str {
    Budget::new(ratio, initial, cap).unwrap_err().field
}

/// The same with so many shards as on another machine.
fn sharded(shards: usize, budget: Budget) -> Budget {
    Budget { shards: Shards::of(shards), ..budget }
}

/// The balance in millionths.
fn balance(budget: &Budget) -> u64 {
    held(budget.state.load(Ordering::Relaxed), budget.shards.total(), micros(budget.cap())).balance
}

/// Every other deposit comes from another thread.
fn anywhere() -> Slot {
    thread_local! {
        static NEXT: Cell<usize> = const { Cell::new(0) };
    }
    NEXT.set(NEXT.get() + 1);
    Slot::numbered(NEXT.get())
}

const EMPTIES: Withdrawal = Withdrawal::Refused { edges: [Some(Edge::Emptied), None] };
const REFUSED: Withdrawal = Withdrawal::Refused { edges: [None, None] };

#[test]
fn the_initial_tokens_can_be_spent_and_no_more() {
    let budget = budget(0.2, 3, 10);
    for _ in 0..3 {
        assert_eq!(budget.withdraw(), Withdrawal::Granted);
    }
    assert_eq!(budget.withdraw(), EMPTIES);
    assert_eq!(budget.withdraw(), REFUSED);
    assert_eq!(balance(&budget), 0);
}

#[test]
fn a_ratio_of_35_percent_is_35_percent() {
    let budget = budget(0.35, 0, 1_000_000);
    for _ in 0..10_000 {
        assert_eq!(budget.deposit(anywhere()), None);
    }
    let granted = (0..10_000).filter(|_| budget.withdraw() == Withdrawal::Granted).count();
    assert_eq!(granted, 3500);
}

#[test]
fn the_smallest_ratio_still_pays() {
    let tiny = budget(f64::MIN_POSITIVE, 0, 1);
    assert_eq!(tiny.deposit(anywhere()), None);
    assert_eq!(balance(&tiny), 1);
    let nothing = budget(0.0, 0, 1);
    assert_eq!(nothing.deposit(anywhere()), None);
    assert_eq!(balance(&nothing), 0);
}

#[test]
fn emptied_and_refilled_are_each_reported_once() {
    let budget = budget(0.5, 1, 10);
    assert_eq!(budget.withdraw(), Withdrawal::Granted);
    assert_eq!(budget.withdraw(), EMPTIES);
    assert_eq!(budget.withdraw(), REFUSED);
    for _ in 0..9 {
        assert_eq!(budget.deposit(anywhere()), None);
    }
    assert_eq!(budget.deposit(anywhere()), Some(Edge::Refilled), "5 of 10");
    assert_eq!(budget.deposit(anywhere()), None);
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
        assert_eq!(budget.deposit(anywhere()), None);
        assert_eq!(budget.withdraw(), Withdrawal::Granted);
        assert_eq!(budget.withdraw(), REFUSED);
    }
}

#[test]
fn a_deposit_finds_that_a_lower_cap_has_refilled_it() {
    for ratio in [0.0, 0.2] {
        let budget = budget(ratio, 10, 100);
        for _ in 0..5 {
            assert_eq!(budget.withdraw(), Withdrawal::Granted);
        }
        budget.set(ratio, 5);
        assert_eq!((budget.deposit(anywhere()), balance(&budget)), (None, 5 * TOKEN), "it was never emptied");

        for _ in 0..5 {
            assert_eq!(budget.withdraw(), Withdrawal::Granted);
        }
        assert_eq!(budget.withdraw(), EMPTIES);
        budget.set(1.0, 100);
        for _ in 0..5 {
            assert_eq!(budget.deposit(anywhere()), None, "far from the cap");
        }
        budget.set(ratio, 5);
        budget.refund(anywhere());
        assert_eq!((budget.deposit(anywhere()), balance(&budget)), (Some(Edge::Refilled), 5 * TOKEN));
        assert_eq!(budget.deposit(anywhere()), None);
        assert!(budget.is_full());
    }
}

#[test]
fn a_refund_gives_one_token_back_up_to_the_cap_and_the_next_deposit_says_what_it_refilled() {
    for ratio in [0.0, 0.2] {
        let budget = budget(ratio, 1, 2);
        assert_eq!(budget.withdraw(), Withdrawal::Granted);
        assert_eq!(budget.withdraw(), EMPTIES);
        for expected in [1, 2, 2] {
            budget.refund(anywhere());
            assert_eq!(balance(&budget), expected * TOKEN);
            assert!(!budget.is_full(), "a call would make no deposit");
        }
        assert_eq!(budget.deposit(anywhere()), Some(Edge::Refilled));
        assert_eq!(budget.deposit(anywhere()), None);
        assert_eq!(balance(&budget), 2 * TOKEN);
    }
}

#[test]
fn a_cap_of_zero_refuses_for_ever_and_says_so_once() {
    let budget = budget(1.0, 0, 0);
    assert_eq!(budget.withdraw(), EMPTIES);
    assert_eq!(budget.deposit(anywhere()), None);
    budget.refund(anywhere());
    assert_eq!(budget.withdraw(), REFUSED);
}

#[test]
fn the_largest_budget_works() {
    let budget = budget(1.0, u32::MAX, u32::MAX);
    assert_eq!(budget.deposit(anywhere()), None);
    assert_eq!(budget.withdraw(), Withdrawal::Granted);
    assert!((budget.balance() - f64::from(u32::MAX - 1)).abs() < 1e-9);
    budget.refund(anywhere());
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
                let _edge = budget.deposit(anywhere());
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

/// One balance in one word: what shards are to come to.
struct Reference {
    balance: u64,
    cap: u64,
    emptied: bool,
}

impl Reference {
    fn add(&mut self, amount: u64) {
        self.balance = (self.balance + amount).min(self.cap);
    }

    fn deposit(&mut self, amount: u64) -> Option<Edge> {
        self.add(amount);
        let refilled = self.emptied && self.balance >= (self.cap / 2).max(TOKEN);
        self.emptied &= !refilled;
        refilled.then_some(Edge::Refilled)
    }

    fn withdraw(&mut self) -> Withdrawal {
        if self.balance >= TOKEN {
            self.balance -= TOKEN;
            return Withdrawal::Granted;
        }
        let emptied = !std::mem::replace(&mut self.emptied, true);
        if emptied { EMPTIES } else { REFUSED }
    }
}

proptest! {
    #[test]
    fn tokens_are_neither_made_nor_lost(
        ratio in 0.0..=1.0_f64,
        initial in 0..5_u32,
        more in 0..40_u32,
        shards in sample::select(vec![0, 1, 2, 4, 8]),
        operations in vec((any::<u8>(), 0..9_usize, 0..40_u32), 0..300),
    ) {
        let cap = initial + more;
        let budget = sharded(shards, budget(ratio, initial, cap));
        let mut expected = Reference { balance: micros(initial), cap: micros(cap), emptied: false };
        let mut outstanding = 0;
        for (operation, slot, cap) in operations {
            match operation % 32 {
                0 => {
                    budget.set(ratio, cap);
                    expected.cap = micros(cap);
                    expected.balance = expected.balance.min(expected.cap);
                }
                1..=7 => {
                    let answer = budget.withdraw();
                    prop_assert_eq!(answer, expected.withdraw());
                    outstanding += u32::from(answer == Withdrawal::Granted);
                }
                8..=10 if outstanding > 0 => {
                    outstanding -= 1;
                    budget.refund(Slot::numbered(slot));
                    expected.add(TOKEN);
                }
                _ => {
                    // As a call does it.
                    let edge = if budget.is_full() { None } else { budget.deposit(Slot::numbered(slot)) };
                    prop_assert_eq!(edge, expected.deposit(budget.deposit.get()));
                }
            }
            prop_assert_eq!(balance(&budget), expected.balance);
        }
    }
}

#[test]
fn deposits_of_two_threads_meet_nowhere_until_one_looks() {
    // Far from the cap: who adds to a shard writes nothing else.
    let budget = sharded(2, budget(0.2, 0, u32::MAX));
    let before = budget.state.load(Ordering::Relaxed);
    for slot in 0..100 {
        let cost = accesses(|| budget.deposit(Slot::numbered(slot)));
        assert!(cost <= 3, "{cost} accesses");
    }
    assert_eq!(budget.state.load(Ordering::Relaxed), before);
    assert_eq!(balance(&budget), 20 * TOKEN);
}

#[test]
fn few_deposits_look_whether_it_is_full_however_much_there_was_before() {
    // A sixty-fourth is 15.6 tokens, and the digit is that of 8.4: 42 deposits.
    let budget = sharded(2, budget(0.2, 0, 1000));
    let looks = (0..4200).filter(|_| accesses(|| budget.deposit(Slot::numbered(0))) > 3).count();
    assert!((99..=101).contains(&looks), "{looks}");
    assert_eq!(balance(&budget), 840 * TOKEN);
}

#[test]
fn a_budget_that_has_filled_up_is_soon_seen_to_be_full() {
    for shards in [0, 1, 2, 8] {
        let budget = sharded(shards, budget(0.2, 100, 100));
        for slot in 0..8 {
            assert_eq!(budget.withdraw(), Withdrawal::Granted);
            assert!(!budget.is_full());
            // A token, and then until the highest binary digit of a sixty-fourth of the cap changes: a little more than one.
            let deposits = (0..99).take_while(|_| !budget.is_full() && budget.deposit(Slot::numbered(slot)).is_none());
            let deposits = deposits.count();
            assert!((5..=11).contains(&deposits), "{deposits} deposits with {shards} shards");
            assert_eq!(accesses(|| budget.is_full()), 1);
            assert_eq!(balance(&budget), 100 * TOKEN);
        }
    }
}

#[test]
fn threads_take_slots_in_turns() {
    let here = Slot::of_this_thread();
    assert_eq!(Slot::of_this_thread(), here, "for life");
    let there = thread::spawn(Slot::of_this_thread).join().unwrap();
    assert_ne!(there, here);
}

#[test]
fn there_are_shards_for_all_threads_that_can_run_at_once_up_to_a_limit() {
    let number = Shards::new().number();
    match thread::available_parallelism().map_or(1, usize::from) {
        1 => assert_eq!(number, 0),
        threads => assert!(number.is_power_of_two() && number <= 8 && number >= threads.min(8) && number < 2 * threads),
    }
}
