//! All or nothing.

use withstand::{
    Bulkhead, BulkheadConfig, CircuitBreakerConfig, LayerConfig, Pipeline, PipelineConfig, Registry, RetryConfig,
    TimeoutConfig,
};

use super::{Tune, settings};
use crate::support::{Log, ms, secs};

fn inner_timeout(limit: std::time::Duration) -> LayerConfig {
    settings!(TimeoutConfig { name: "timeout-2".to_owned(), limit: limit }).into()
}

#[test]
fn an_error_anywhere_leaves_everything_as_it_was() {
    let log = Log::new();
    let users = Pipeline::standard("users").observer(log.clone()).build().unwrap();
    let handle = users.handle();
    let good: [LayerConfig; 4] = [
        TimeoutConfig::new(secs(3)).into(),
        settings!(RetryConfig { max_attempts: 2 }).into(),
        settings!(BulkheadConfig { limit: 7 }).into(),
        settings!(CircuitBreakerConfig { open_for: secs(1) }).into(),
    ];
    let seen = || (format!("{:?}", handle.snapshot()), handle.explain().to_string(), users.explain().to_string());
    let before = seen();
    for bad in [
        inner_timeout(secs(0)),                               // by itself, in the last layer
        inner_timeout(secs(3)),                               // only beside the first one
        settings!(RetryConfig { max_attempts: 1 }).into(),    // out of its place
        settings!(TimeoutConfig { name: "x".into() }).into(), // of no layer
    ] {
        assert!(handle.tune(good.iter().cloned().chain([bad.clone()])).is_err(), "{bad:?}");
        assert_eq!(seen(), before, "{bad:?}");
    }
    assert!(log.all().is_empty());
    assert_eq!(handle.tune(good.into_iter().chain([inner_timeout(ms(900))])).unwrap().len(), 5);
    assert_ne!(seen(), before);
}

#[test]
fn of_several_pipelines_of_one_name_all_change_or_none() {
    let build =
        |limit| Pipeline::builder("fleet").timeout(secs(limit)).bulkhead(Bulkhead::builder().limit(9)).timeout(ms(800));
    let fleet = [4, 3, 1].map(|limit| build(limit).build().unwrap());
    let seen = || fleet.each_ref().map(|pipeline| pipeline.explain().to_string());
    let before = seen();
    let bulkhead = || settings!(BulkheadConfig { limit: 5 });
    let config = PipelineConfig::new("fleet").layer(bulkhead()).layer(inner_timeout(secs(2)));
    let error = Registry::global().update(&config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pipeline `fleet`, policy `timeout-2`: limit is 2s; accepted: less than 1s, the limit of the timeout `timeout` \
         around it"
    );
    assert_eq!(seen(), before);
    let changes = Registry::global().update(&PipelineConfig::new("fleet").layer(bulkhead())).unwrap();
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["bulkhead: limit 9 -> 5"; 3]);
}

#[test]
fn limits_that_hold_only_together_are_changed_together() {
    let users = Pipeline::standard("users").build().unwrap();
    let both = [TimeoutConfig::new(secs(40)).into(), inner_timeout(secs(10))];
    assert_eq!(users.handle().tune(both).unwrap().len(), 2);
    let back = [TimeoutConfig::new(secs(4)).into(), inner_timeout(secs(1))];
    assert_eq!(users.handle().tune(back).unwrap().len(), 2);
    assert_eq!(users.explain().to_string(), Pipeline::standard("users").build().unwrap().explain().to_string());
}

#[test]
fn settings_from_a_file_change_the_layers_that_were_built_from_it() {
    let file = |limit| {
        PipelineConfig::new("users").layer(settings!(RetryConfig { max_attempts: 2 })).layer(TimeoutConfig::new(limit))
    };
    let around = withstand::Timeout::builder(secs(9)).name("total");
    let users =
        Pipeline::builder("users").timeout(around).configured(file(secs(1)).layers).timeout(ms(10)).build().unwrap();
    let changes = users.handle().update(&file(secs(2))).unwrap();
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["timeout: limit 1s -> 2s"]);
    assert_eq!(users.handle().update(&file(secs(2))).unwrap(), []);
    let names: Vec<_> = users.explain().layers().iter().map(|layer| layer.name().to_string()).collect();
    assert_eq!(names, ["total", "retry", "timeout", "timeout-3"]);

    // One outside that goes by the same name would be the one that the file changes: it is refused.
    let error = Pipeline::builder("users").timeout(secs(9)).configured(file(secs(1)).layers).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "pipeline `users`, policy `timeout`: name is \"timeout\", as that of a layer around it; accepted: a name of its \
         own: give one of the two .name(\"...\")"
    );
}
