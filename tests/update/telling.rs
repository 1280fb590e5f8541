//! Who hears of a change: each of them once, and only of what has changed.

use std::sync::{Arc, OnceLock};

use withstand::{
    Bulkhead, BulkheadConfig, Event, EventKind, Observer, Pipeline, PipelineConfig, PipelineHandle, Retry, RetryConfig,
    TimeoutConfig,
};

use super::{Tune, settings};
use crate::support::{Log, secs};

fn lines(log: &Log) -> Vec<String> {
    let line = |heard: crate::support::Heard| {
        format!("{}/{} {:?}", heard.pipeline.unwrap(), heard.policy.unwrap(), heard.kind)
    };
    log.all().into_iter().map(line).collect()
}

#[test]
fn each_change_is_told_once_and_the_new_limit_of_a_bulkhead_as_a_number_too() {
    let log = Log::new();
    let users = Pipeline::standard("users").observer(log.clone()).build().unwrap();
    let config = || -> [withstand::LayerConfig; 3] {
        [
            TimeoutConfig::new(secs(3)).into(),
            settings!(RetryConfig { max_attempts: 3, max_hint: secs(1) }).into(), // 3 as before
            settings!(BulkheadConfig { limit: 7 }).into(),
        ]
    };
    let changes = users.handle().tune(config()).unwrap();
    assert_eq!(
        changes.iter().map(|c| (c.policy.as_str(), c.field, c.old.as_str(), c.new.as_str())).collect::<Vec<_>>(),
        [("timeout", "limit", "4s", "3s"), ("retry", "max_hint", "30s", "1s"), ("bulkhead", "limit", "100", "7")]
    );
    assert_eq!(
        lines(&log),
        [
            r#"users/timeout Reconfigured { field: "limit", old: "4s", new: "3s" }"#,
            r#"users/retry Reconfigured { field: "max_hint", old: "30s", new: "1s" }"#,
            "users/bulkhead LimitChanged { old: 100, new: 7 }",
            r#"users/bulkhead Reconfigured { field: "limit", old: "100", new: "7" }"#,
        ]
    );
    log.clear();
    assert_eq!(users.handle().tune(config()).unwrap(), []);
    assert_eq!(users.handle().tune([]).unwrap(), []);
    assert!(log.all().is_empty(), "{:?}", lines(&log));
}

#[test]
fn a_change_by_hand_is_told_as_a_limit_alone() {
    let log = Log::new();
    let bulkhead = Arc::new(Bulkhead::builder().limit(2).build().unwrap());
    let _users = Pipeline::builder("users").bulkhead(bulkhead.clone()).observer(log.clone()).build().unwrap();
    bulkhead.set_limit(3).unwrap();
    assert_eq!(lines(&log), ["users/bulkhead LimitChanged { old: 2, new: 3 }"]);
}

#[test]
fn whoever_is_told_sees_all_of_it_done_and_may_change_it_again() {
    let handle: Arc<OnceLock<PipelineHandle>> = Arc::default();
    let (log, inside) = (Log::new(), handle.clone());
    let heard = log.clone();
    let observer = move |event: &Event<'_>| {
        Observer::on_event(&heard, event);
        let handle = inside.get().unwrap();
        match &event.kind {
            // The first that is told, when the last has been done.
            EventKind::Reconfigured { field: "limit", new, .. } if new == "3s" => {
                assert!(handle.explain().to_string().contains("limit 7"));
                handle.tuned(settings!(RetryConfig { max_attempts: 1 }));
            }
            EventKind::LimitChanged { new: 7, .. } => drop(handle.tuned(settings!(BulkheadConfig { limit: 8 }))),
            _ => {}
        }
    };
    let users = Pipeline::standard("users").observer(observer).build().unwrap();
    handle.set(users.handle()).unwrap();
    let both = [TimeoutConfig::new(secs(3)).into(), settings!(BulkheadConfig { limit: 7 }).into()];
    users.handle().tune(both).unwrap();
    let told = users.explain().to_string();
    assert!(told.contains("max_attempts 1") && told.contains("limit 8"), "{told}");
    assert_eq!(log.count(|kind| matches!(kind, EventKind::Reconfigured { .. })), 4);
}

#[test]
fn an_observer_that_panics_keeps_nobody_from_anything() {
    let log = Log::new();
    let shared = Arc::new(Bulkhead::builder().limit(2).build().unwrap());
    let broken = |_: &Event<'_>| panic!("on purpose");
    let one = Pipeline::builder("one").timeout(secs(1)).bulkhead(shared.clone()).observer(broken).build().unwrap();
    let _other = Pipeline::builder("other").bulkhead(shared.clone()).observer(log.clone()).build().unwrap();
    let both = [TimeoutConfig::new(secs(2)).into(), settings!(BulkheadConfig { limit: 3 }).into()];
    assert_eq!(one.handle().tune(both).unwrap().len(), 2);
    assert_eq!(shared.limit(), 3);
    assert_eq!(log.all().len(), 2);
}

#[test]
fn a_handle_outlives_its_pipeline_and_changes_what_others_still_share() {
    let log = Log::new();
    let shared = Arc::new(Bulkhead::builder().limit(2).build().unwrap());
    let gone = Pipeline::builder("gone").retry(Retry::builder()).bulkhead(shared.clone()).build().unwrap();
    let _other = Pipeline::builder("other").bulkhead(shared.clone()).observer(log.clone()).build().unwrap();
    let handle = gone.handle();
    drop(gone);
    assert!(!handle.is_live());
    assert_eq!(handle.tuned(settings!(RetryConfig { max_attempts: 9 })), ["retry: max_attempts 3 -> 9"]);
    handle.tuned(settings!(BulkheadConfig { limit: 9 }));
    assert_eq!(shared.limit(), 9);
    assert_eq!(lines(&log).len(), 2);
    drop(shared);
    assert!(handle.refusal(settings!(BulkheadConfig { queue: 9 })).starts_with("pipeline `gone`"));
    let error = withstand::Registry::global().update(&PipelineConfig::new("gone")).unwrap_err();
    assert_eq!((error.field(), error.value()), ("name", "\"gone\""), "by name there is none any more");
}
