//! Who sees the deadline, and who does not.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};
use withstand::{Deadline, Pipeline, Timeout};

use crate::support::{ms, secs};

/// What an operation sees that waits first, so that all time has begun.
async fn seen(inner: &Timeout) -> Option<Instant> {
    inner
        .call(|| async {
            sleep(ms(1)).await;
            Ok::<_, ()>(Deadline::current().map(Deadline::instant))
        })
        .await
        .unwrap()
}

fn long() -> Timeout {
    Timeout::new(secs(60)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn two_calls_in_one_task_do_not_see_each_others_deadlines() {
    let began = Instant::now();
    let waits = async |limit: Duration| {
        let outer = Timeout::new(limit).unwrap();
        outer
            .call(|| async {
                for _ in 0..5 {
                    assert_eq!(seen(&long()).await, Some(began + limit));
                }
                Ok::<_, ()>(())
            })
            .await
            .unwrap();
    };
    tokio::join!(waits(ms(100)), waits(ms(200)), async {
        for _ in 0..5 {
            assert_eq!(Deadline::current(), None);
            sleep(ms(1)).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn what_is_polled_inside_an_operation_by_whatever_means_sees_its_deadline() {
    let outer = Timeout::new(ms(100)).unwrap();
    let began = Instant::now();
    let all = outer
        .call(|| async {
            let inner = long();
            let one = tokio::select! {
                one = seen(&inner) => one,
                () = sleep(secs(1)) => None,
            };
            let many: FuturesUnordered<_> = (0..3).map(|_| seen(&inner)).collect();
            let mut all: Vec<_> = many.collect().await;
            all.push(one);
            Ok::<_, ()>(all)
        })
        .await
        .unwrap();
    assert_eq!(all, [Some(began + ms(100)); 4]);
}

#[expect(clippy::disallowed_methods, reason = "what is spawned is the subject")]
#[tokio::test(start_paused = true)]
async fn a_task_that_is_spawned_does_not_inherit_and_can_be_told() {
    let outer = Timeout::new(ms(100)).unwrap();
    let began = Instant::now();
    let (spawned, told) = outer
        .call(|| async {
            let deadline = Deadline::current().unwrap();
            let spawned = tokio::spawn(async { Deadline::current() });
            let told = tokio::spawn(deadline.scope(async { seen(&long()).await }));
            Ok::<_, ()>((spawned.await.unwrap(), told.await.unwrap()))
        })
        .await
        .unwrap();
    assert_eq!((spawned, told), (None, Some(began + ms(100))));
}

#[tokio::test(start_paused = true)]
async fn all_ways_to_call_see_it() {
    let inner = Pipeline::builder("inner").build().unwrap();
    let now = Instant::now();
    let at = Deadline::at(now + ms(50));
    let look = || async { Ok::<_, ()>(Deadline::current()) };
    let seen = at.scope(async {
        vec![
            inner.call(look).await,
            inner.guard(look()).await,
            inner.forward(|| inner.outcome(look)).await,
            inner.forward_with(withstand::CallOptions::new(), |_| inner.outcome(look)).await,
            inner.guard_with(withstand::CallOptions::new(), look()).await,
        ]
    });
    assert_eq!(seen.await, vec![Ok(Some(at)); 5]);
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_anywhere_an_operation_sees_none() {
    let inner = Pipeline::builder("inner").build().unwrap();
    assert_eq!(inner.call(|| async { Ok::<_, ()>(Deadline::current()) }).await, Ok(None));
}
