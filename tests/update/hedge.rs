//! Number and delays of hedges.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use withstand::{
    BudgetConfig, CallOptions, Hedge, HedgeBuilder, HedgeConfig, HedgeDelay, HedgeDelayConfig, LayerState, Pipeline,
    PipelineHandle, QuantileConfig, RetryBudget, TimeoutConfig, layers,
};

use super::{Tune, settings};
use crate::support::{ms, secs};

type Users = Pipeline<layers![Hedge]>;

fn users(hedge: HedgeBuilder) -> Users {
    Pipeline::builder("users").hedge(hedge).build().unwrap()
}

/// When the attempts of a call begin that answers after a second.
async fn begins(users: &Users) -> Vec<Duration> {
    let begin = Instant::now();
    let begins = std::sync::Mutex::new(Vec::new());
    let answer = users.call(|| async {
        begins.lock().unwrap().push(begin.elapsed());
        sleep(secs(1)).await;
        Ok::<_, ()>(())
    });
    answer.await.unwrap();
    begins.into_inner().unwrap()
}

fn delay(handle: &PipelineHandle, delay: HedgeDelayConfig) -> Vec<String> {
    handle.tuned(settings!(HedgeConfig { delay: delay }))
}

fn current(handle: &PipelineHandle) -> Option<Duration> {
    let found = handle.snapshot().layers.into_iter().find_map(|layer| match layer.state {
        LayerState::Hedge(hedge) => Some(hedge.current_delay),
        _ => None,
    });
    found.unwrap()
}

#[tokio::test(start_paused = true)]
async fn number_and_delay() {
    let users = users(Hedge::builder().delay(ms(400)).without_budget());
    assert_eq!(begins(&users).await, [0, 400].map(ms));
    assert_eq!(users.handle().tuned(settings!(HedgeConfig { max_hedges: 3 })), ["hedge: max_hedges 1 -> 3"]);
    assert_eq!(begins(&users).await, [0, 400, 800].map(ms));
    assert_eq!(delay(&users.handle(), HedgeDelayConfig::Fixed(ms(100))), ["hedge: delay 400ms -> 100ms"]);
    assert_eq!(begins(&users).await, [0, 100, 200, 300].map(ms));
    delay(&users.handle(), HedgeDelayConfig::Fixed(Duration::ZERO));
    assert_eq!(begins(&users).await, [0; 4].map(ms));
    users.handle().tuned(settings!(HedgeConfig { max_hedges: 1 }));
    assert_eq!(begins(&users).await, [0; 2].map(ms));
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_starts_no_more_hedges_than_are_allowed_by_then() {
    let users = users(Hedge::builder().delay(ms(100)).max_hedges(9).without_budget());
    let (begins, ()) = tokio::join!(begins(&users), async {
        sleep(ms(350)).await;
        users.handle().tuned(settings!(HedgeConfig { max_hedges: 1 }));
    });
    assert_eq!(begins, [0, 100, 200, 300].map(ms));
}

#[tokio::test(start_paused = true)]
async fn the_bounds_of_a_quantile_and_what_it_has_measured_is_kept() {
    let by_quantile = HedgeDelay::quantile(0.9).min_samples(10).starting(ms(900));
    let users = users(Hedge::builder().delay(by_quantile));
    let handle = users.handle();
    assert_eq!(current(&handle), Some(ms(900)));
    let quantile = |quantile| delay(&handle, HedgeDelayConfig::Quantile(quantile));
    assert_eq!(quantile(settings!(QuantileConfig { starting: ms(300) })), ["hedge: starting 900ms -> 300ms"]);
    assert_eq!(current(&handle), Some(ms(300)));
    for _ in 0..20 {
        let answer = users.call(|| async {
            sleep(ms(100)).await;
            Ok::<_, ()>(())
        });
        answer.await.unwrap();
    }
    sleep(secs(10)).await; // the window is full
    let answer = users.call(|| async { Ok::<_, ()>(()) });
    answer.await.unwrap();
    let measured = current(&handle).unwrap();
    assert!((ms(100)..ms(104)).contains(&measured), "{measured:?}");
    assert_eq!(quantile(settings!(QuantileConfig { ceiling: ms(50) })), ["hedge: ceiling none -> 50ms"]);
    assert_eq!(current(&handle), Some(ms(50)));
    quantile(settings!(QuantileConfig { floor: ms(200), ceiling: ms(500) }));
    assert_eq!(current(&handle), Some(ms(200)));
    quantile(settings!(QuantileConfig { floor: ms(1) }));
    assert_eq!(current(&handle), Some(measured), "as it was measured before");
}

#[tokio::test(start_paused = true)]
async fn a_ceiling_that_was_not_given_follows_what_is_inside() {
    let by_quantile = HedgeDelay::quantile(0.9).starting(secs(50));
    let users = Pipeline::builder("users").hedge(Hedge::builder().delay(by_quantile)).timeout(secs(4)).build().unwrap();
    let handle = users.handle();
    assert_eq!(current(&handle), Some(secs(2)));
    handle.tuned(TimeoutConfig::new(secs(10)));
    assert_eq!(current(&handle), Some(secs(5)), "up");
    handle.tuned(TimeoutConfig::new(secs(1)));
    assert_eq!(current(&handle), Some(ms(500)), "and down");
    assert!(handle.explain().to_string().contains("to 500ms"));
    let ceiling = settings!(QuantileConfig { ceiling: ms(500) });
    delay(&handle, HedgeDelayConfig::Quantile(ceiling));
    handle.tuned(TimeoutConfig::new(secs(10)));
    assert_eq!(current(&handle), Some(ms(500)), "one that was given does not");
}

#[tokio::test(start_paused = true)]
async fn its_budget() {
    let budget = Arc::new(RetryBudget::builder().ratio(0.5).initial(1).cap(10).build().unwrap());
    let users = users(Hedge::builder().delay(ms(100)).budget(budget.clone()));
    let tuned = users.handle().tuned(settings!(HedgeConfig { budget: settings!(BudgetConfig { ratio: 1.0, cap: 5 }) }));
    assert_eq!(tuned, ["hedge: ratio 0.5 -> 1", "hedge: cap 10 -> 5"]);
    let answer = users.call_with(CallOptions::new(), |_| async { Ok::<_, ()>(()) });
    answer.await.unwrap();
    assert_eq!(budget.balance().to_string(), "2");
}
