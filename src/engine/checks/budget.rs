//! The budget for extra load.

use super::{
    super::budget::{Budget, Edge, Withdrawal},
    Arc, run, thread,
};

fn shared(ratio: f64, initial: u32, cap: u32) -> Arc<Budget> {
    Arc::new(Budget::new(ratio, initial, cap).expect("these settings are valid"))
}

fn assert_balance(budget: &Budget, expected: f64) {
    let balance = budget.balance();
    assert!((balance - expected).abs() < 1e-9, "{balance} and not {expected}");
}

#[test]
fn two_withdrawals_and_a_deposit_neither_make_nor_lose_tokens() {
    run(|| {
        let budget = shared(1.0, 1, 2);
        let spenders: Vec<_> = (0..2)
            .map(|_| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || budget.withdraw())
            })
            .collect();
        let refilled = budget.deposit();
        let answers: Vec<_> =
            spenders.into_iter().map(|spender| spender.join().expect("a spender does not panic")).collect();

        let emptied = Withdrawal::Refused { edge: Some(Edge::Emptied) };
        let count = |answer| answers.iter().filter(|&&a| a == answer).count();
        match count(Withdrawal::Granted) {
            1 => assert_balance(&budget, 1.0),
            2 => assert_balance(&budget, 0.0),
            other => panic!("{other} of 1 or 2 possible withdrawals were granted"),
        }
        // One token is half of the cap: a deposit that comes after a refusal refills.
        assert_eq!(count(emptied), usize::from(refilled.is_some()));
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
        answers.extend(spender.join().expect("a spender does not panic"));

        let count = |answer| answers.iter().filter(|&&a| a == answer).count();
        let edge = Some(Edge::Emptied);
        assert_eq!(count(Withdrawal::Granted), 1);
        assert_eq!(count(Withdrawal::Refused { edge }), 1);
        assert_balance(&budget, 0.0);
    });
}

#[test]
fn a_refund_and_a_withdrawal_at_the_cap_keep_within_the_cap() {
    run(|| {
        let budget = shared(0.0, 1, 1);
        let refund = thread::spawn({
            let budget = Arc::clone(&budget);
            move || budget.refund()
        });
        let answer = budget.withdraw();
        assert_eq!(refund.join().expect("a refund does not panic"), None);

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
        let refund = thread::spawn({
            let budget = Arc::clone(&budget);
            move || budget.refund()
        });
        let answer = budget.withdraw();
        let refilled = refund.join().expect("a refund does not panic");

        if answer == Withdrawal::Granted {
            assert_eq!(refilled, None);
            assert_balance(&budget, 0.0);
        } else {
            assert_eq!(refilled, Some(Edge::Refilled));
            assert_balance(&budget, 1.0);
        }
    });
}
