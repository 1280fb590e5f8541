//! What `explain` says of it.

use withstand::{Bound, Bulkhead, Chaos, CircuitBreaker, Pipeline, Plan, Retry, Timeout, Verdict, WarningKind};

use crate::{
    ours, plain,
    support::{ms, secs},
};

fn warnings(plan: &Plan) -> Vec<WarningKind> {
    plan.warnings().iter().map(withstand::Warning::kind).collect()
}

#[test]
fn innermost_and_off_a_standard_pipeline_with_it_has_the_same_bounds_and_no_warnings() {
    let standard = || Pipeline::standard("users").classify_errors(|_: &Verdict| Verdict::transient());
    let bare = standard().build().unwrap().explain();
    let plan = standard().chaos(plain(0.3, 0.3, 0.3, 0.1)).build().unwrap().explain();
    assert_eq!(warnings(&plan), []);
    assert_eq!((plan.attempts(), plan.time()), (bare.attempts(), bare.time()));
    assert_eq!(plan.time_without_hints(), bare.time_without_hints());
    assert_eq!(plan.amplification(), bare.amplification());
    let chaos = plan.layers().last().unwrap();
    assert_eq!((chaos.name().as_str(), chaos.kind().as_str()), ("chaos", "chaos"));
    let settings: Vec<_> = chaos.settings().iter().map(|(field, value)| format!("{field} {value}")).collect();
    assert_eq!(settings, ["enabled false", "latency 0.3 of 50ms", "error 0.3", "hang 0.3", "panic 0.1"]);
}

#[test]
fn one_that_is_on_is_warned_of_for_as_long_as_it_is() {
    let chaos = Chaos::builder().error(0.5, ours).latency_between(0.1, ms(1)..=ms(2)).build().unwrap();
    let switch = chaos.switch();
    let users = Pipeline::builder("users").timeout(secs(1)).chaos(chaos).build().unwrap();
    assert_eq!(warnings(&users.explain()), []);
    switch.enable();
    let plan = users.explain();
    assert_eq!(warnings(&plan), [WarningKind::ChaosEnabled]);
    // So does who looks after the pipeline.
    assert_eq!(warnings(&users.handle().explain()), [WarningKind::ChaosEnabled]);
    assert_eq!(users.handle().snapshot().layers[1].settings[0], ("enabled", "true".to_owned()));
    assert_eq!(plan.warnings()[0].policies(), ["chaos"]);
    assert_eq!(
        plan.warnings()[0].to_string(),
        "the chaos `chaos` is on: calls fail on purpose; switch it off unless that is meant"
    );
    let settings = plan.layers().last().unwrap().settings().to_vec();
    assert_eq!(settings[1], ("latency", "0.1 of 1ms to 2ms".to_owned()));
    switch.disable();
    assert_eq!(warnings(&users.explain()), []);
}

#[test]
fn one_outside_of_what_is_to_withstand_it_is_warned_of() {
    let chaos = || Chaos::builder().error(0.5, ours);
    let plan =
        |build: fn(withstand::PipelineBuilder<withstand::PassThrough>) -> Plan| build(Pipeline::builder("users"));
    let of = |plan: &Plan| {
        assert_eq!(warnings(plan).last(), Some(&WarningKind::ChaosNotInnermost), "{plan}");
        plan.warnings().last().unwrap().policies().to_vec()
    };
    let outside =
        Pipeline::builder("users").timeout(secs(2)).chaos(chaos()).timeout(ms(900)).build().unwrap().explain();
    assert_eq!(of(&outside), ["chaos", "timeout-2"]);
    assert_eq!(
        outside.warnings()[0].to_string(),
        "the chaos `chaos` is outside of the timeout `timeout-2`, which sees none of its faults; put it innermost"
    );
    let retry = Retry::builder().max_attempts(2);
    let outside = Pipeline::builder("users").timeout(secs(4)).chaos(chaos()).retry(retry).timeout(secs(1));
    let outside = outside.classify_errors(|_: &Verdict| Verdict::transient()).build().unwrap().explain();
    assert_eq!(of(&outside), ["chaos", "retry"]);
    let outside = Pipeline::builder("users").chaos(chaos()).circuit_breaker(CircuitBreaker::builder()).timeout(secs(1));
    assert_eq!(of(&outside.build().unwrap().explain()), ["chaos", "circuit_breaker"]);
    let outside = Pipeline::builder("users").chaos(chaos()).bulkhead(Bulkhead::builder().limit(1)).timeout(secs(1));
    assert_eq!(of(&outside.build().unwrap().explain()), ["chaos", "bulkhead"]);
    // Two of them, or a policy that is not known here, are nobody's mistake.
    let two = plan(|users| {
        let one = |name| Chaos::builder().name(name).hang(0.1);
        users.timeout(secs(1)).chaos(one("a")).chaos(one("b")).build().unwrap().explain()
    });
    assert_eq!(warnings(&two), []);
}

#[test]
fn outside_of_the_timeout_it_adds_its_latency_and_a_hang_has_no_bound() {
    let inside = || Timeout::new(secs(1)).unwrap();
    let latency = Chaos::builder().latency_between(0.0, ms(1)..=ms(250));
    let plan = Pipeline::builder("users").chaos(latency).timeout(inside()).build().unwrap().explain();
    assert_eq!((plan.attempts(), plan.time()), (Bound::AtMost(1), Bound::AtMost(ms(1_250))));
    // It can be turned up by the switch.
    let hang = Chaos::builder().hang(0.0);
    let plan = Pipeline::builder("users").chaos(hang).timeout(inside()).build().unwrap().explain();
    assert_eq!(plan.time(), Bound::Unbounded);
    let error = Chaos::builder().error(0.1, ours);
    let plan = Pipeline::builder("users").chaos(error).timeout(inside()).build().unwrap().explain();
    assert_eq!(plan.time(), Bound::AtMost(secs(1)));
}
