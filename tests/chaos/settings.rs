//! What cannot be set, word for word.

use std::time::Duration;

use withstand::{Chaos, ChaosBuilder, ConfigError, Fault, Inject, Pipeline, Verdict};

use crate::{
    ours, plain,
    support::{ms, secs},
};

#[track_caller]
fn refused<A: Inject<u32, Verdict>, B: Inject<u32, Verdict>>(builder: ChaosBuilder<A, B>, expected: &str) {
    assert_eq!(builder.build().unwrap_err().to_string(), expected);
}

#[track_caller]
fn said(result: Result<(), ConfigError>, expected: &str) {
    assert_eq!(result.unwrap_err().to_string(), expected);
}

#[test]
fn the_builder_refuses_nonsense() {
    let new = Chaos::builder;
    refused(
        new(),
        "policy `chaos`: faults is empty; accepted: at least one of latency, error, outcome, hang and panic; leave the layer out for none",
    );
    refused(new().error(1.5, ours), "policy `chaos`: error is 1.5; accepted: a rate from 0 to 1");
    refused(new().hang(-0.1), "policy `chaos`: hang is -0.1; accepted: a rate from 0 to 1");
    refused(new().panic(f64::NAN), "policy `chaos`: panic is NaN; accepted: a rate from 0 to 1");
    refused(new().latency(2.0, ms(1)), "policy `chaos`: latency is 2; accepted: a rate from 0 to 1");
    refused(new().latency(0.1, Duration::ZERO), "policy `chaos`: latency is 0s; accepted: more than 0s");
    refused(
        new().latency_between(0.1, secs(2)..=secs(1)),
        "policy `chaos`: latency is 2s to 1s; accepted: a range from the shorter to the longer time",
    );
    refused(
        new().latency(0.1, Duration::MAX),
        "policy `chaos`: latency is 18446744073709551615.999999999s; accepted: at most 30 years; hang is for ever",
    );
    refused(
        plain(1.0, 0.5, 0.4, 0.3).name("game"),
        "policy `game`: error + outcome + hang + panic is 1.2; accepted: at most 1, as each attempt ends in one of them at most",
    );
    refused(new().hang(0.1).name(" "), "policy `chaos`: name is \" \"; accepted: a name that is not blank");
    let error = Pipeline::builder("users").chaos(new().hang(7.0)).build().unwrap_err();
    assert_eq!(error.to_string(), "pipeline `users`, policy `chaos`: hang is 7; accepted: a rate from 0 to 1");
    // All that an attempt can end in may be one of them.
    plain(1.0, 0.3, 0.6, 0.1).build().unwrap();
}

#[test]
fn the_switch_refuses_what_the_builder_was_not_given() {
    let chaos = Chaos::builder().error(0.1, ours).hang(0.0).build().unwrap();
    let switch = chaos.switch();
    said(switch.set_rate(Fault::Error, 1.01), "policy `chaos`: error is 1.01; accepted: a rate from 0 to 1");
    let ungiven = "policy `chaos`: panic is no fault of this layer; accepted: a fault that the builder was given, if only at a rate of 0";
    said(switch.set_rate(Fault::Panic, 0.1), ungiven);
    said(switch.key("a").set_rate(Fault::Panic, 0.1), ungiven);
    said(
        switch.set_rate(Fault::Hang, 0.95),
        "policy `chaos`: error + outcome + hang + panic is 1.05; accepted: at most 1, as each attempt ends in one of them at most",
    );
    switch.key("a").set_rate(Fault::Hang, 0.9).unwrap();
    said(
        switch.set_rate(Fault::Error, 0.2),
        "policy `chaos`: error + outcome + hang + panic is 1.1 for the key \"a\"; accepted: at most 1, as each attempt ends in one of them at most",
    );
    said(
        switch.key("b").set_rate(Fault::Hang, 1.0),
        "policy `chaos`: error + outcome + hang + panic is 1.1 for the key \"b\"; accepted: at most 1, as each attempt ends in one of them at most",
    );
    // Nothing of that has changed anything.
    let rates = [Fault::Error, Fault::Hang, Fault::Panic].map(|fault| switch.rate(fault).to_string());
    assert_eq!(rates, ["0.1", "0", "0"]);
    assert_eq!(switch.keys(), ["a"]);
    assert_eq!(switch.key("b").rate(Fault::Hang).to_string(), "0");
}

#[test]
fn so_many_keys_can_have_settings_and_no_more() {
    let chaos = Chaos::builder().hang(0.1).build().unwrap();
    let switch = chaos.switch();
    for key in 0..1_024 {
        switch.key(key.to_string()).enable().unwrap();
    }
    said(
        switch.key("one more").disable(),
        "policy `chaos`: key is \"one more\"; accepted: one of the 1024 keys that have settings of their own; follow() ends them",
    );
    switch.key("7").disable().unwrap();
    switch.key("7").follow();
    switch.key("one more").disable().unwrap();
    assert_eq!(switch.keys().len(), 1_024);
    switch.disable_everywhere();
    assert_eq!(switch.keys().len(), 0);
}

#[cfg(feature = "serde")]
#[test]
fn no_configuration_of_another_policy_fits() {
    use withstand::{PipelineConfig, TimeoutConfig};
    let users = Pipeline::builder("users").timeout(secs(2)).chaos(Chaos::builder().hang(0.1)).build().unwrap();
    let mut named = TimeoutConfig::new(secs(1));
    named.name = Some("chaos".to_owned());
    let error = users.handle().update(&PipelineConfig::new("users").layer(named)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pipeline `users`, policy `chaos`: kind is timeout; accepted: chaos, the kind of the live layer"
    );
    // What it does not mention stays.
    users.handle().update(&PipelineConfig::new("users").layer(TimeoutConfig::new(secs(1)))).unwrap();
}
