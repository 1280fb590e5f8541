//! One tenant and not the others, by whoever operates the process.

use std::{collections::HashMap, sync::Arc};

use proptest::prelude::*;
use withstand::{Chaos, EventKind, Fault, Pipeline};

use crate::{
    Plain, fates, ours, plain,
    support::{Log, trials::cases},
};

/// Whether an attempt through it fails.
async fn fails(chaos: &Chaos<impl withstand::Inject<u32, withstand::Verdict>>) -> bool {
    fates(chaos, 1).await[0] == [Fault::Error]
}

#[tokio::test(start_paused = true)]
async fn it_is_on_for_one_tenant_and_off_for_all_others() {
    let chaos = Chaos::builder().error(1.0, ours).build().unwrap();
    let switch = chaos.switch();
    let (six, seven) = (chaos.for_key("tenant-6"), chaos.for_key("tenant-7"));
    switch.key("tenant-7").enable().unwrap();
    assert_eq!((fails(&chaos).await, fails(&six).await, fails(&seven).await), (false, false, true));
    // A layer that comes later goes by what was set before.
    assert!(fails(&chaos.for_key("tenant-7")).await);
    drop(seven);
    assert!(fails(&six.for_key("tenant-7")).await, "whatever layer it comes from");
    // On for all but one.
    switch.enable();
    switch.key("tenant-7").disable().unwrap();
    let seven = chaos.for_key("tenant-7");
    assert_eq!((fails(&chaos).await, fails(&six).await, fails(&seven).await), (true, true, false));
    switch.key("tenant-7").follow();
    assert!(fails(&seven).await);
    // The red button is for all.
    switch.key("tenant-6").enable().unwrap();
    switch.disable_everywhere();
    assert_eq!((fails(&chaos).await, fails(&six).await, fails(&seven).await), (false, false, false));
}

#[tokio::test(start_paused = true)]
async fn a_key_has_faults_of_its_own_whatever_the_others_do() {
    let seeded = || -> Plain { plain(0.2, 0.3, 0.1, 0.0).seed(7).enabled().build().unwrap() };
    let alone = seeded();
    let expected = fates(alone.for_key("a"), 100).await;
    let busy = seeded();
    let b = fates(busy.for_key("b"), 100).await;
    drop(fates(&busy, 33).await);
    let a = busy.for_key("a");
    assert_eq!(fates(&a, 100).await, expected);
    assert_ne!(b, expected);
    assert_ne!(fates(seeded(), 100).await, expected);
    // Another layer of the same key goes on where that one is; once all are gone, it begins anew.
    assert_ne!(fates(busy.for_key("a"), 100).await, expected);
    drop(a);
    assert_eq!(fates(busy.for_key("a"), 100).await, expected);
}

#[tokio::test(start_paused = true)]
async fn observers_hear_what_was_switched_and_only_if_it_was() {
    let chaos = Chaos::builder().error(0.0, ours).build().unwrap();
    let switch = chaos.switch();
    let (all, one) = (Log::new(), Log::new());
    let build = |chaos: Chaos<_>, log: &Log| Pipeline::builder("p").chaos(chaos).observer(log.clone()).build().unwrap();
    let _one = build(chaos.for_key("a"), &one);
    let _all = build(chaos, &all);
    let heard = |log: &Log| {
        let heard = log.all();
        assert!(heard.iter().all(|event| event.policy.as_deref() == Some("chaos")));
        let on = log.pick(|kind| match kind {
            EventKind::ChaosSwitched { on, .. } => Some(on),
            _ => None,
        });
        log.clear();
        on
    };
    switch.enable();
    assert_eq!((heard(&all), heard(&one)), (vec![], vec![]), "at no rate nothing is injected");
    switch.set_rate(Fault::Error, 0.5).unwrap();
    switch.set_rate(Fault::Error, 0.6).unwrap();
    switch.enable();
    assert_eq!((heard(&all), heard(&one)), (vec![true], vec![true]));
    switch.key("a").disable().unwrap();
    assert_eq!((heard(&all), heard(&one)), (vec![], vec![false]));
    switch.disable();
    switch.key("a").follow();
    assert_eq!((heard(&all), heard(&one)), (vec![false], vec![]));
    switch.key("a").enable().unwrap();
    switch.disable_everywhere();
    assert_eq!((heard(&all), heard(&one)), (vec![], vec![true, false]));
}

#[test]
fn an_observer_may_use_the_switch() {
    let chaos = Chaos::builder().error(1.0, ours).build().unwrap();
    let (switch, own) = (chaos.switch(), chaos.switch());
    let observer = move |event: &withstand::Event<'_>| {
        if let EventKind::ChaosSwitched { on: true, .. } = event.kind {
            own.disable_everywhere();
        }
    };
    let _pipeline = Pipeline::builder("p").chaos(chaos).observer(observer).build().unwrap();
    switch.enable();
    assert!(!switch.is_enabled());
}

#[test]
fn keys_without_a_layer_and_without_settings_are_forgotten() {
    let chaos = Chaos::builder().hang(0.1).build().unwrap();
    let kept: Vec<_> = (0..10).map(|key| chaos.for_key(format!("kept-{key}"))).collect();
    let key = |n: u32| format!("key-{n}");
    for n in 0..100_000 {
        drop(chaos.for_key(key(n)));
    }
    // Nothing public tells how many it knows; what it prints of itself does.
    let shown = format!("{:?}", chaos.switch());
    let known: usize = shown.split("known_keys: ").nth(1).unwrap().split([',', ' ']).next().unwrap().parse().unwrap();
    assert!((10..=64).contains(&known), "{shown}");
    drop(kept);
}

/// What a layer should do, told plainly.
#[derive(Clone, Debug, Default)]
struct Model {
    enabled: bool,
    error: f64,
    keys: HashMap<u8, (Option<bool>, Option<f64>)>,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Switch(bool),
    Rate(f64),
    SwitchKey(u8, bool),
    RateKey(u8, f64),
    Follow(u8),
    Everywhere,
    /// A layer of a key comes, or goes.
    Layer(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let (key, rate) = (0..4_u8, prop::sample::select(vec![0.0, 1.0]));
    prop_oneof![
        any::<bool>().prop_map(Act::Switch),
        rate.clone().prop_map(Act::Rate),
        (key.clone(), any::<bool>()).prop_map(|(key, on)| Act::SwitchKey(key, on)),
        (key.clone(), rate).prop_map(|(key, rate)| Act::RateKey(key, rate)),
        key.clone().prop_map(Act::Follow),
        Just(Act::Everywhere),
        key.prop_map(Act::Layer),
    ]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn every_layer_goes_by_its_key_or_else_by_all(acts in prop::collection::vec(act(), 1..30)) {
        let chaos = Chaos::builder().error(0.0, || ()).build().unwrap();
        let (switch, mut model) = (chaos.switch(), Model::default());
        let mut layers: HashMap<u8, Arc<Chaos<_>>> = HashMap::new();
        for act in acts {
            match act {
                Act::Switch(true) => (switch.enable(), model.enabled = true).1,
                Act::Switch(false) => (switch.disable(), model.enabled = false).1,
                Act::Rate(rate) => (switch.set_rate(Fault::Error, rate).unwrap(), model.error = rate).1,
                Act::SwitchKey(key, on) => {
                    let own = switch.key(key.to_string());
                    if on { own.enable() } else { own.disable() }.unwrap();
                    model.keys.entry(key).or_default().0 = Some(on);
                }
                Act::RateKey(key, rate) => {
                    switch.key(key.to_string()).set_rate(Fault::Error, rate).unwrap();
                    model.keys.entry(key).or_default().1 = Some(rate);
                }
                Act::Follow(key) => {
                    switch.key(key.to_string()).follow();
                    model.keys.remove(&key);
                }
                Act::Everywhere => {
                    switch.disable_everywhere();
                    model.enabled = false;
                    model.keys.clear();
                }
                Act::Layer(key) => {
                    if layers.remove(&key).is_none() {
                        layers.insert(key, Arc::new(chaos.for_key(key.to_string())));
                    }
                }
            }
            let fails = |chaos: &Chaos<_>| {
                futures::FutureExt::now_or_never(chaos.call(|| async { Ok(7) })).unwrap().is_err()
            };
            prop_assert_eq!(fails(&chaos), model.enabled && model.error > 0.0);
            for (key, layer) in &layers {
                let (on, rate) = model.keys.get(key).copied().unwrap_or_default();
                let (on, rate) = (on.unwrap_or(model.enabled), rate.unwrap_or(model.error));
                prop_assert_eq!(fails(layer), on && rate > 0.0, "key {}", key);
                let own = switch.key(key.to_string());
                prop_assert_eq!((own.is_enabled(), own.rate(Fault::Error)), (on, rate));
            }
            let mut told: Vec<_> = switch.keys().iter().map(ToString::to_string).collect();
            let mut own: Vec<_> = model.keys.keys().map(ToString::to_string).collect();
            told.sort();
            own.sort();
            prop_assert_eq!(told, own);
        }
    }
}
