//! Who stays and who goes.

use tokio::time::sleep;
use withstand::{CircuitBreaker, CircuitState, Describe, Instance, Keyed, LayerInfo, Pipeline, Timeout, layers};

use super::{BREAK, Counter, brittle, fail, keys, number, numbered, of, touch};
use crate::support::{ms, secs};

#[tokio::test(start_paused = true)]
async fn the_one_that_was_used_least_recently_goes_first() {
    let keyed = of(3);
    touch(&keyed, [1, 2, 3, 1, 4]).await;
    assert_eq!(keys(&keyed), [1, 3, 4]);
    touch(&keyed, [3, 5]).await;
    assert_eq!(keys(&keyed), [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn the_use_of_an_instance_ends_when_it_is_let_go() {
    let keyed = of(2);
    let first = keyed.get(&1);
    let last = first.clone();
    drop(first);
    touch(&keyed, [2]).await;
    drop(last);
    sleep(ms(1)).await;
    touch(&keyed, [3]).await;
    assert_eq!(keys(&keyed), [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn none_goes_that_is_held() {
    let keyed = of(3);
    let held = (keyed.get(&1), keyed.get(&1));
    let looked_at = keyed.peek(&1);
    touch(&keyed, 100..200).await;
    assert_eq!(number(&keyed, 1), Some(1));
    drop(held.0);
    touch(&keyed, 200..300).await;
    assert_eq!(number(&keyed, 1), Some(1));
    drop(held.1);
    touch(&keyed, 300..400).await;
    assert_eq!(number(&keyed, 1), Some(1), "somebody looks at it");
    drop(looked_at);
    touch(&keyed, 400..403).await;
    assert_eq!(number(&keyed, 1), None);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_survives_any_number_of_new_keys_until_its_break_is_over() {
    let keyed = of(4);
    fail(&keyed, 1).await;
    let end = tokio::time::Instant::now() - ms(1) + BREAK;
    for key in 100..2_100 {
        drop(keyed.get(&key));
        sleep(ms(1)).await;
    }
    assert_eq!(number(&keyed, 1), Some(1));
    assert!(keyed.get(&1).breaker.admit().is_err());
    // Others keep what room there is.
    touch(&keyed, [10, 11, 12]).await;
    tokio::time::sleep_until(end - ms(1)).await;
    fail(&keyed, 10).await;
    fail(&keyed, 11).await;
    fail(&keyed, 12).await;
    // All four were open a moment ago, and now the break of the first is over.
    assert_eq!(keys(&keyed), [1, 10, 11, 12]);
    drop(keyed.get(&13));
    assert_eq!(keys(&keyed), [10, 11, 12, 13]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_one_goes_before_one_whose_break_is_over_however_recently_it_was_used() {
    let keyed = of(3);
    fail(&keyed, 1).await;
    sleep(BREAK).await;
    assert_eq!(keyed.peek(&1).unwrap().breaker.state(), CircuitState::HalfOpen);
    touch(&keyed, [2, 3]).await;
    touch(&keyed, [4, 5]).await;
    assert_eq!(keys(&keyed), [1, 4, 5]);
    let held = [keyed.get(&4), keyed.get(&5)];
    touch(&keyed, [6]).await;
    assert_eq!(keys(&keyed), [4, 5, 6], "now it has to go");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn an_isolated_one_stays_for_as_long_as_it_is_isolated() {
    let keyed = of(2);
    let isolation = keyed.get(&1).breaker.isolate();
    sleep(secs(3_600)).await;
    touch(&keyed, 10..20).await;
    assert_eq!(keyed.sweep(), 0);
    sleep(secs(3_600)).await;
    assert_eq!(keyed.sweep(), 1);
    assert_eq!(keys(&keyed), [1]);
    drop(isolation);
    assert_eq!(keyed.sweep(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_is_seen_wherever_it_is_among_the_layers() {
    type Layers = layers![Timeout, CircuitBreaker, Timeout];
    let keyed: Keyed<u32, Pipeline<layers![Pipeline<Layers>]>> = Keyed::builder(|_| {
        let inner = Pipeline::builder("inner").timeout(secs(9)).circuit_breaker(brittle()?).timeout(secs(1)).build()?;
        Pipeline::builder("outer").layer(inner).build()
    })
    .capacity(2)
    .build()
    .unwrap();
    keyed.get(&1).call(|| async { Err::<(), _>("down") }).await.unwrap_err();
    for key in 10..20 {
        drop(keyed.get(&key));
        sleep(ms(1)).await;
    }
    assert_eq!(keys(&keyed), [1, 19]);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_been_used_for_long_is_swept_away_by_hand() {
    let keyed = numbered().idle_after(secs(60)).build().unwrap();
    touch(&keyed, [1, 2]).await;
    fail(&keyed, 3).await;
    let held = keyed.get(&4);
    sleep(ms(60_000 - 3)).await;
    // The first was let go 60 s ago to the moment, the second a millisecond later.
    assert_eq!(keyed.sweep(), 1);
    assert_eq!(keys(&keyed), [2, 3, 4]);
    sleep(ms(1)).await;
    assert_eq!(keyed.sweep(), 1);
    sleep(secs(600)).await;
    assert_eq!(keyed.sweep(), 1, "its break is over");
    assert_eq!(keys(&keyed), [4]);
    drop(held);
    assert_eq!(keyed.sweep(), 0, "it has been in use until now");
}

#[tokio::test(start_paused = true)]
async fn what_has_not_been_used_for_long_goes_as_new_keys_come() {
    let keyed = numbered().capacity(1_000).idle_after(secs(60)).build().unwrap();
    touch(&keyed, 0..400).await;
    sleep(secs(60)).await;
    // Four for each that comes, so a hundred do.
    touch(&keyed, 1_000..1_110).await;
    assert_eq!(keys(&keyed), (1_000..1_110).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_goes_is_dropped_at_once_and_there_are_never_more_than_there_is_room_for() {
    struct Counted(Counter);
    impl Describe for Counted {
        fn describe(&self, _: &mut Vec<LayerInfo>) {}
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.add();
        }
    }
    let (made, dropped) = (Counter::default(), Counter::default());
    let keyed: Keyed<u32, Counted> = Keyed::builder({
        let (made, dropped) = (made.clone(), dropped.clone());
        move |_| {
            made.add();
            Ok(Counted(dropped.clone()))
        }
    })
    .capacity(100)
    .build()
    .unwrap();
    for key in 0..100_000 {
        drop(keyed.get(&key));
        assert!(made.get() - dropped.get() <= 101, "and the one that is shared");
    }
    assert_eq!(made.get(), 100_001);
    drop(keyed);
    assert_eq!(dropped.get(), 100_001);
}

#[tokio::test(start_paused = true)]
async fn among_many_it_is_still_the_least_recently_used_that_goes() {
    let keyed = of(1_000);
    touch(&keyed, 0..1_000).await;
    touch(&keyed, (0..1_000).step_by(2)).await;
    touch(&keyed, 10_000..10_500).await;
    assert_eq!(keys(&keyed), (0..1_000).step_by(2).chain(10_000..10_500).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn among_many_one_that_comes_free_is_soon_found() {
    let keyed = of(640);
    let mut held: Vec<_> = (0..640).map(|key| keyed.get(&key)).collect();
    let own = |key: u32| Instance::key(&keyed.get(&key)).is_some();
    // In the same moment, by the number of those who ask.
    assert!(!own(1_000));
    held.truncate(639);
    let found = (1_001..1_011).find(|&key| own(key)).unwrap();
    // Or by the time.
    held.push(keyed.get(&found));
    assert!(!(3_000..3_010).any(own));
    held.truncate(638);
    sleep(ms(1)).await;
    assert!(own(4_000));
}

#[tokio::test(start_paused = true)]
async fn among_many_what_happened_after_the_last_look_at_all_counts() {
    let keyed = of(100);
    touch(&keyed, 0..100).await;
    touch(&keyed, [1_000]).await;
    // Used, and isolated without being used.
    touch(&keyed, 1..50).await;
    let _isolation = keyed.peek(&60).unwrap().breaker.isolate();
    touch(&keyed, 1_001..1_050).await;
    assert_eq!(keys(&keyed), (1..50).chain([60]).chain(1_000..1_050).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn among_many_closed_ones_that_came_after_the_last_look_at_all_go_before_those_whose_break_is_over() {
    let keyed = of(100);
    for key in 0..50 {
        fail(&keyed, key).await;
    }
    sleep(BREAK).await;
    touch(&keyed, 100..400).await;
    assert_eq!(keys(&keyed), (0..50).chain(350..400).collect::<Vec<_>>());
}
