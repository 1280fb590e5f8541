//! The numbers of a plan: attempts, time and load.

use super::*;

mod attempts {
    use super::*;

    /// How often the operation is called when it fails each time, or is rejected by something of the user's own.
    async fn real<P: Policy<(), ()>>(policy: &P, verdict: Verdict) -> u64 {
        let calls = AtomicU64::new(0);
        let pipeline =
            Pipeline::builder("users-api").layer(policy).classify_errors(move |(): &()| verdict).build().unwrap();
        pipeline
            .call(|| async {
                calls.fetch_add(1, Relaxed);
                tokio::time::sleep(ms(20)).await;
                Err::<(), ()>(())
            })
            .await
            .unwrap_err();
        calls.load(Relaxed)
    }

    fn told<P: Policy<(), ()>>(policy: &P) -> Bound<u64> {
        Pipeline::builder("users-api").layer(policy).build().unwrap().explain().attempts()
    }

    macro_rules! stack {
        ($only:expr) => { $only };
        ($outer:expr, $($inner:expr),+) => { withstand::Stack::new($outer, stack!($($inner),+)) };
    }

    #[tokio::test(start_paused = true)]
    async fn no_layer_makes_more_than_one() {
        let plan = Pipeline::builder("users-api").build().unwrap().explain();
        assert_eq!(plan.attempts(), Bound::AtMost(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_inside_a_retry_does_not_multiply() {
        let nested = stack!(retry(3).name("outer").build().unwrap(), retry(3).build().unwrap());
        assert_eq!(told(&nested), Bound::AtMost(3));
        assert_eq!(real(&nested, Verdict::transient()).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_that_repeats_what_is_spent_multiplies() {
        let nested = stack!(retry(3).name("outer").repeat_spent().build().unwrap(), retry(3).build().unwrap());
        assert_eq!(told(&nested), Bound::AtMost(9));
        assert_eq!(real(&nested, Verdict::transient()).await, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_between_two_retries_makes_them_multiply() {
        // It ends the inner retry at its third attempt, and what it says of that is new to the outer one.
        let nested = stack!(
            retry(3).name("outer").build().unwrap(),
            Timeout::new(ms(50)).unwrap(),
            retry(3).min_time_left(Duration::ZERO).build().unwrap()
        );
        assert_eq!(told(&nested), Bound::AtMost(9));
        assert_eq!(real(&nested, Verdict::transient()).await, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hedge_between_two_retries_does_not_make_them_multiply() {
        let nested = stack!(
            retry(3).name("outer").build().unwrap(),
            Hedge::builder().delay(HedgeDelay::parallel()).without_budget().build().unwrap(),
            retry(3).build().unwrap()
        );
        assert_eq!(told(&nested), Bound::AtMost(6));
        assert_eq!(real(&nested, Verdict::transient()).await, 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_of_rejections_repeats_only_the_first_attempt_of_one_inside() {
        let nested = stack!(retry(3).name("outer").retry_rejected().build().unwrap(), retry(3).build().unwrap());
        assert_eq!(told(&nested), Bound::AtMost(5));
        assert_eq!(real(&nested, Verdict::rejected()).await, 3);
        assert_eq!(real(&nested, Verdict::transient()).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_of_rejections_repeats_what_the_hedges_of_a_rejected_attempt_have_done() {
        let nested = stack!(
            retry(3).name("outer").retry_rejected().build().unwrap(),
            Hedge::builder().delay(HedgeDelay::parallel()).without_budget().build().unwrap(),
            retry(3).build().unwrap()
        );
        // Twice 1 + 3, if the primary is rejected at its first attempt, and then 3 + 3.
        assert_eq!(told(&nested), Bound::AtMost(14));

        let calls = AtomicU64::new(0);
        let pipeline = Pipeline::builder("users-api").layer(&nested).classify_errors(|verdict: &Verdict| *verdict);
        let call = |attempt: withstand::Attempt| {
            calls.fetch_add(1, Relaxed);
            async move {
                if attempt.hedge() > 0 {
                    return Err::<(), _>(Verdict::transient());
                }
                tokio::time::sleep(ms(20)).await;
                Err(Verdict::rejected())
            }
        };
        pipeline.build().unwrap().call_with(withstand::CallOptions::new(), call).await.unwrap_err();
        assert_eq!(calls.into_inner(), 12);
    }

    #[test]
    fn an_error_in_the_place_of_a_rejection_can_be_repeated() {
        // A retry never repeats the rejection of an isolated circuit, but the error that a fallback makes of it.
        let nested = stack!(
            retry(3).name("outer").retry_rejected().build().unwrap(),
            Fallback::from_outcome(|_: &Outcome<(), ()>| Some(Err(())))
                .handles([VerdictKind::Rejected])
                .build()
                .unwrap(),
            retry(3).retry_rejected().build().unwrap()
        );
        assert_eq!(told(&nested), Bound::AtMost(9));
    }

    #[tokio::test(start_paused = true)]
    async fn each_hedge_is_an_attempt() {
        let hedge = || Hedge::builder().max_hedges(2).delay(HedgeDelay::parallel()).without_budget();
        let hedged = stack!(retry(3).build().unwrap(), hedge().build().unwrap());
        assert_eq!(told(&hedged), Bound::AtMost(9));
        assert_eq!(real(&hedged, Verdict::transient()).await, 9);

        let nested = stack!(hedge().name("outer").build().unwrap(), hedge().build().unwrap());
        assert_eq!(told(&nested), Bound::AtMost(9));
        assert_eq!(real(&nested, Verdict::transient()).await, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_custom_layer_makes_them_unknown_unless_it_tells() {
        assert_eq!(told(&stack!(retry(3).build().unwrap(), Silent)), Bound::Unknown);
        assert_eq!(told(&stack!(retry(3).build().unwrap(), Own(Some(LayerInfo::custom("own"))))), Bound::Unknown);
        let own = Own(Some(LayerInfo::custom("own").attempts(2)));
        assert_eq!(told(&stack!(retry(3).build().unwrap(), own)), Bound::AtMost(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_custom_layer_between_two_retries_may_make_them_multiply() {
        let own = Own(Some(LayerInfo::custom("own").attempts(1)));
        let nested = stack!(retry(3).name("outer").build().unwrap(), own, retry(3).build().unwrap());
        assert_eq!(told(&nested), Bound::AtMost(9));
    }

    #[tokio::test(start_paused = true)]
    async fn layers_that_make_one_attempt_change_nothing() {
        let nested = stack!(
            Fallback::from_outcome(|_: &Outcome<(), ()>| None).build().unwrap(),
            retry(3).name("outer").build().unwrap(),
            Bulkhead::builder().limit(1).queue(1).build().unwrap(),
            CircuitBreaker::builder().build().unwrap(),
            retry(3).build().unwrap()
        );
        assert_eq!(told(&nested), Bound::AtMost(3));
        assert_eq!(real(&nested, Verdict::transient()).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_can_be_counted_is_unbounded() {
        let all = |name: &'static str| retry(u32::MAX).name(name).repeat_spent().without_budget().build().unwrap();
        assert_eq!(told(&stack!(all("a"), all("b"))), Bound::AtMost(u64::from(u32::MAX) * u64::from(u32::MAX)));
        assert_eq!(told(&stack!(all("a"), all("b"), all("c"))), Bound::Unbounded);
    }
}

mod time {
    use super::*;

    #[test]
    fn without_a_timeout_it_is_unbounded() {
        assert_eq!(plan![].time(), Bound::Unbounded);
        assert_eq!(plan![retry(retry(3))].time(), Bound::Unbounded);
    }

    #[test]
    fn a_timeout_bounds_whatever_is_inside() {
        assert_eq!(plan![timeout(secs(4)), layer(Silent)].time(), Bound::AtMost(secs(4)));
        assert_eq!(plan![timeout(secs(4)), timeout(secs(1))].time(), Bound::AtMost(secs(1)));
    }

    #[test]
    fn a_retry_takes_its_attempts_and_its_waits() {
        let steady = Retry::builder().backoff(Backoff::constant(secs(2))).max_hint(Duration::ZERO);
        assert_eq!(plan![retry(steady), timeout(secs(1))].time(), Bound::AtMost(secs(3 + 4)));
    }

    #[test]
    fn a_hint_can_make_each_wait_longer() {
        let plan = plan![retry(Retry::builder()), timeout(secs(1))];
        // 3 attempts, 50 ms and 100 ms, and twice a hint of 30 s with a tenth of it as jitter.
        assert_eq!(plan.time(), Bound::AtMost(ms(3_000 + 150 + 2 * 33_000)));
        assert_eq!(plan.time_without_hints(), Bound::AtMost(ms(3_150)));
    }

    #[test]
    fn max_elapsed_bounds_when_the_last_attempt_begins() {
        let short = || Retry::builder().max_elapsed(secs(2));
        assert_eq!(plan![retry(short()), timeout(secs(1))].time(), Bound::AtMost(secs(3)));
        let custom = Backoff::custom(|_| Some(secs(5)));
        assert_eq!(plan![retry(short().backoff(custom)), timeout(secs(1))].time(), Bound::AtMost(secs(3)));
        assert_eq!(plan![retry(short().max_attempts(1)), timeout(secs(1))].time(), Bound::AtMost(secs(1)));
    }

    #[test]
    fn a_custom_backoff_makes_it_unknown() {
        let custom = || retry(2).backoff(Backoff::custom(|_| Some(secs(5))));
        assert_eq!(plan![retry(custom()), timeout(secs(1))].time(), Bound::Unknown);
        assert_eq!(plan![timeout(secs(9)), retry(custom()), timeout(secs(1))].time(), Bound::AtMost(secs(9)));
        // Nothing limits the operation, whatever the waits are.
        assert_eq!(plan![retry(custom())].time(), Bound::Unbounded);
    }

    #[test]
    fn a_retry_around_a_retry_takes_no_longer_than_that_one() {
        assert_eq!(plan![retry(retry(3)), retry(retry(3)), timeout(secs(1))].time(), Bound::AtMost(secs(3)));
    }

    #[test]
    fn a_hedge_begins_after_its_delay_or_when_all_have_failed() {
        let hedge = |delay: Duration| Hedge::builder().max_hedges(2).delay(delay);
        let after = plan![hedge(hedge(ms(100))), timeout(secs(1))];
        assert_eq!(after.time_without_hints(), Bound::AtMost(ms(1_200)));
        let on_failure = plan![hedge(Hedge::builder().delay(HedgeDelay::on_failure())), timeout(secs(1))];
        assert_eq!(on_failure.time_without_hints(), Bound::AtMost(secs(2)));
        let custom = plan![hedge(Hedge::builder().delay(HedgeDelay::custom(|_| None))), timeout(secs(1))];
        assert_eq!(custom.time_without_hints(), Bound::AtMost(secs(2)));
        // Three attempts one after the other, and twice the longest hint that a hedge obeys.
        assert_eq!(after.time(), Bound::AtMost(secs(3 + 2 * 30)));
    }

    #[test]
    fn a_hedge_begins_later_where_the_first_attempt_waits_in_a_queue() {
        let queue = Bulkhead::builder().limit(1).queue(1).max_wait(ms(500));
        let plan = plan![hedge(Hedge::builder().delay(ms(100))), timeout(secs(1)), bulkhead(queue)];
        assert_eq!(plan.time_without_hints(), Bound::AtMost(ms(500 + 100 + 1_000)));
    }

    #[test]
    fn a_hedge_begins_later_where_the_first_attempt_is_rejected_and_repeated() {
        let patient = retry(2).retry_rejected().backoff(Backoff::constant(secs(1)));
        let plan = plan![hedge(Hedge::builder().delay(ms(100))), retry(patient), timeout(secs(1))];
        assert_eq!(plan.time_without_hints(), Bound::AtMost(secs(3 + 3)));
    }

    #[test]
    fn a_queue_and_an_asynchronous_fallback_add_to_it() {
        let queue = || Bulkhead::builder().limit(1).queue(1).max_wait(ms(200));
        assert_eq!(plan![bulkhead(queue()), timeout(secs(1))].time(), Bound::AtMost(ms(1_200)));
        assert_eq!(plan![bulkhead(Bulkhead::builder().limit(1)), timeout(secs(1))].time(), Bound::AtMost(secs(1)));
        let cache = Fallback::from_future(|_: &Outcome<(), io::Error>| async { None }).limit(ms(30));
        assert_eq!(plan![fallback(cache), bulkhead(queue()), timeout(secs(1))].time(), Bound::AtMost(ms(1_230)));
        assert_eq!(plan![fallback(Fallback::value(())), timeout(secs(1))].time(), Bound::AtMost(secs(1)));
        assert_eq!(plan![circuit_breaker(CircuitBreaker::builder()), timeout(secs(1))].time(), Bound::AtMost(secs(1)));
    }

    #[test]
    fn a_custom_layer_makes_it_unknown_unless_it_tells() {
        let own = |info: LayerInfo| Own(Some(info));
        assert_eq!(plan![layer(Silent), timeout(secs(1))].time(), Bound::Unknown);
        let repeated = plan![retry(retry(3).max_elapsed(secs(1))), layer(Silent)];
        assert_eq!((repeated.time(), repeated.time_without_hints()), (Bound::Unknown, Bound::Unknown));
        let half = LayerInfo::custom("own").added_time(secs(1));
        assert_eq!(plan![layer(own(half.clone())), timeout(secs(1))].time(), Bound::Unknown);
        assert_eq!(plan![layer(own(half.attempts(2))), timeout(secs(1))].time(), Bound::AtMost(secs(3)));
        // One that answers by itself takes its own time, whatever is inside.
        let answers = LayerInfo::custom("own").added_time(secs(1)).attempts(0);
        assert_eq!(plan![layer(own(answers))].time(), Bound::AtMost(secs(1)));
    }

    #[test]
    fn more_than_can_be_counted_is_unbounded() {
        let forever = Retry::builder().max_attempts(u32::MAX).backoff(Backoff::constant(Duration::MAX));
        assert_eq!(plan![retry(forever), timeout(secs(1))].time(), Bound::Unbounded);
    }
}

mod load {
    use super::*;

    #[test]
    fn budgets_bound_it_in_the_long_run() {
        let load = plan![retry(retry(3)), hedge(Hedge::builder())].amplification();
        assert_eq!(load.without_budgets(), Bound::AtMost(6));
        assert_eq!(load.long_run(), Bound::AtMost(1));
        assert_eq!(load.saved_up(), Bound::AtMost(110));
    }

    #[test]
    fn a_layer_without_a_budget_goes_on_multiplying() {
        let load = plan![retry(retry(3).without_budget()), hedge(Hedge::builder())].amplification();
        assert_eq!(load.long_run(), Bound::AtMost(3));
        assert_eq!(load.saved_up(), Bound::AtMost(10));
        assert_eq!(load.to_string(), "6x without budgets; 3x with them, plus at most 10 attempts saved up");
    }

    #[test]
    fn a_token_of_a_retry_buys_the_hedges_of_its_attempt_as_well() {
        let load = plan![retry(retry(3)), hedge(Hedge::builder().without_budget())].amplification();
        assert_eq!(load.long_run(), Bound::AtMost(2));
        assert_eq!(load.saved_up(), Bound::AtMost(200));
    }

    #[test]
    fn a_shared_budget_counts_once() {
        let shared = Arc::new(RetryBudget::builder().initial(5).cap(50).build().unwrap());
        let hedge = Hedge::builder().budget(shared.clone());
        assert_eq!(plan![retry(retry(3).budget(shared)), hedge(hedge)].amplification().saved_up(), Bound::AtMost(50));
    }

    #[test]
    fn more_than_can_be_counted_is_unbounded() {
        // Four thousand million, to the third power.
        let forever = |name| retry(u32::MAX).without_budget().repeat_spent().name(name);
        let shared = Arc::new(RetryBudget::builder().build().unwrap());
        let paid = |name| retry(2).repeat_spent().budget(shared.clone()).name(name);
        let load = plan![
            retry(paid("outer")),
            retry(forever("a")),
            retry(forever("b")),
            retry(forever("c")),
            retry(paid("inner"))
        ];
        assert_eq!(load.amplification().saved_up(), Bound::Unbounded, "the dearest of what one token buys");
    }

    #[test]
    fn what_can_spend_nothing_saves_nothing() {
        assert_eq!(plan![retry(retry(1))].amplification().saved_up(), Bound::AtMost(0));
        // The outer retry never repeats what the inner one has given up on.
        assert_eq!(plan![retry(retry(3)), retry(retry(3))].amplification().saved_up(), Bound::AtMost(100));
    }

    #[test]
    fn it_says_so_in_words() {
        assert_eq!(plan![].amplification().to_string(), "1x");
        assert_eq!(plan![retry(retry(3).without_budget())].amplification().to_string(), "3x; no budget limits it");
        assert_eq!(plan![layer(Silent)].amplification().to_string(), "unknown");
        // A budget that holds nothing limits, and saves nothing up.
        let empty = retry(3).own_budget(RetryBudget::builder().initial(0).cap(0));
        let load = plan![retry(empty), hedge(Hedge::builder().without_budget())].amplification();
        assert_eq!(load.to_string(), "6x without budgets; 2x with them, plus at most 0 attempts saved up");
        assert_eq!(plan![retry(retry(3)), layer(Silent)].amplification().to_string(), "unknown");
    }
}
