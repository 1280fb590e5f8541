//! The registry: what is in it, and what is not any more.

use withstand::{Pipeline, Registry};

fn built(name: &'static str) -> usize {
    Registry::global().pipelines().iter().filter(|pipeline| *pipeline.name() == name).count()
}

#[test]
fn a_pipeline_is_listed_for_as_long_as_it_lives() {
    assert_eq!(built("listed"), 0);
    let first = Pipeline::standard("listed").build().unwrap();
    let second = Pipeline::standard("listed").build().unwrap();
    assert_eq!(built("listed"), 2);
    let handle = first.handle();
    drop(first);
    assert_eq!(built("listed"), 1, "though there is a handle on it");
    assert!(!handle.is_live());
    drop(second);
    assert_eq!(built("listed"), 0);
}

#[test]
fn pipelines_that_are_gone_leave_no_trace() {
    for _ in 0..10_000 {
        drop(Pipeline::builder("short-lived").build().unwrap());
    }
    assert_eq!(built("short-lived"), 0);
}

#[test]
fn what_is_done_by_name_is_done_to_all_of_that_name() {
    let all = [(); 3].map(|()| Pipeline::standard("by-name").build().unwrap());
    Registry::global().isolate("by-name").unwrap();
    let isolated = || {
        let states = all.iter().map(|pipeline| format!("{:?}", pipeline.handle().snapshot()));
        states.filter(|state| state.contains("state: Isolated")).count()
    };
    assert_eq!(isolated(), 3);
    Registry::global().release("by-name").unwrap();
    assert_eq!(isolated(), 0);
    Registry::global().isolate("by-name").unwrap();
    Registry::global().reset("by-name").unwrap();
    assert_eq!(isolated(), 0);
}

#[test]
fn isolating_by_name_is_all_or_nothing() {
    let with = Pipeline::standard("mixed").build().unwrap();
    let _without = Pipeline::builder("mixed").build().unwrap();
    assert!(Registry::global().isolate("mixed").is_err());
    assert!(!format!("{:?}", with.handle().snapshot()).contains("state: Isolated"));
}

#[test]
fn isolating_by_name_in_vain_releases_nothing_that_was_isolated_before() {
    let with = Pipeline::standard("mixed-before").build().unwrap();
    with.handle().isolate().unwrap();
    let _without = Pipeline::builder("mixed-before").build().unwrap();
    assert!(Registry::global().isolate("mixed-before").is_err());
    assert!(format!("{:?}", with.handle().snapshot()).contains("state: Isolated"));
}

#[test]
fn a_name_that_nobody_has_is_refused_with_those_there_are() {
    let _pipeline = Pipeline::standard("aaa-first-of-all").build().unwrap();
    let error = Registry::global().reset("nobody").unwrap_err().to_string();
    assert!(
        error.starts_with("name is \"nobody\"; accepted: the name of a live pipeline: aaa-first-of-all"),
        "{error}"
    );
}
