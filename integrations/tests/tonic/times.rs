//! What the server is told about the time that is left, and what becomes of a call when it is up.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use withstand::{Backoff, CallOptions, Pipeline, Retry, Verdict, tonic::TonicClassifier};

use crate::{
    ms,
    world::{Answer, Script, channel, retrying, say},
};

fn told(timeout: Option<&String>) -> Duration {
    ms(timeout.unwrap().strip_suffix('m').unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_server_that_hangs_is_told_no_more_time_than_is_left_and_ends_its_handler_at_it() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    let pipeline = Pipeline::builder("echo")
        .timeout(ms(500))
        .retry(Retry::builder().max_attempts(2).backoff(Backoff::constant(ms(1))))
        .timeout(ms(300))
        .classifier(TonicClassifier::new())
        .build()
        .unwrap();
    script.is([Answer::Hangs, Answer::Hangs]);
    let began = Instant::now();
    let outcome = say(&pipeline, &channel(address), CallOptions::new()).await;
    let took = began.elapsed();
    assert!((ms(490)..ms(1500)).contains(&took), "{took:?}");
    // Whichever timer was first: that of the pipeline, or that of tonic's channel, which reads the header, too.
    assert_eq!(outcome.verdict(), Verdict::transient());
    assert_eq!(Status::from(outcome.result.unwrap_err()).code(), Code::DeadlineExceeded);

    let seen = script.seen();
    assert_eq!(seen.len(), 2);
    let times: Vec<_> = seen.iter().map(|seen| told(seen.timeout.as_ref())).collect();
    assert!((ms(200)..=ms(300)).contains(&times[0]), "{times:?}");
    // Of half a second the first attempt has had most.
    assert!(times[1] > ms(50) && times[1] <= ms(500) - times[0], "{times:?}");
    for _ in 0..100 {
        if script.running.load(SeqCst) == 0 {
            return;
        }
        sleep(ms(10)).await;
    }
    panic!("a handler goes on though nobody waits for it");
}

#[tokio::test]
async fn a_deadline_of_the_call_is_told() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    let deadline = CallOptions::new().deadline(Instant::now() + ms(2000));
    assert_eq!(say(&retrying(1), &channel(address), deadline).await.result.unwrap(), "hello");
    assert_eq!(say(&retrying(1), &channel(address), CallOptions::new()).await.result.unwrap(), "hello");
    let seen = script.seen();
    assert!((ms(1000)..=ms(2000)).contains(&told(seen[0].timeout.as_ref())), "{seen:?}");
    assert_eq!(seen[1].timeout, None);
}

#[tokio::test]
async fn a_server_of_tonics_that_takes_too_long_by_its_own_limit_is_transient() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(Some(ms(50))).await;
    script.is([Answer::Hangs]);
    let outcome = say(&retrying(1), &channel(address), CallOptions::new()).await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::transient(), "grpc_cancelled"), "{outcome:?}");
    script.is([Answer::Hangs]);
    assert_eq!(say(&retrying(2), &channel(address), CallOptions::new()).await.result.unwrap(), "hello");
}
