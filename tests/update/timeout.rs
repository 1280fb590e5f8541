//! The limit of a timeout.

use tokio::time::{Instant, sleep};
use withstand::{Pipeline, TimeoutConfig};

use super::{Tune, settings};
use crate::support::{ms, secs};

#[tokio::test(start_paused = true)]
async fn calls_that_begin_later_have_the_new_limit_and_those_under_way_the_old_one() {
    let users = Pipeline::builder("users").timeout(secs(2)).build().unwrap();
    let call = || {
        users.call(|| async {
            sleep(secs(3)).await;
            Ok::<_, ()>(())
        })
    };
    let begin = Instant::now();
    let (before, after) = tokio::join!(async { (call().await, begin.elapsed()) }, async {
        sleep(secs(1)).await;
        assert_eq!(users.handle().tuned(TimeoutConfig::new(secs(4))), ["timeout: limit 2s -> 4s"]);
        (call().await, begin.elapsed())
    });
    assert!(before.0.unwrap_err().is_timeout());
    assert_eq!(before.1, secs(2));
    assert_eq!(after, (Ok(()), secs(4)));

    users.handle().tuned(TimeoutConfig::new(ms(500)));
    let error = call().await.unwrap_err();
    assert_eq!(error.timed_out().unwrap().limit(), ms(500));
}

#[test]
fn a_map_without_a_limit_changes_nothing() {
    let users = Pipeline::builder("users").timeout(secs(2)).build().unwrap();
    assert_eq!(users.handle().tuned(settings!(TimeoutConfig {})), [""; 0]);
    assert_eq!(users.handle().tuned(TimeoutConfig::new(secs(2))), [""; 0]);
}
