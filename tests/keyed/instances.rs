//! Finding, holding, looking at and removing.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use withstand::{Bulkhead, CircuitBreaker, Describe, Instance, Keyed, LayerInfo, Pipeline, StandardLayers};

use super::{BREAK, Counter, fail, keys, number, of};
use crate::support::{ms, secs};

#[tokio::test(start_paused = true)]
async fn each_key_has_one_instance_made_at_its_first_call() {
    let keyed = of(10);
    assert!(keyed.is_empty());
    assert_eq!((keyed.get(&7).number, keyed.get(&8).number), (1, 2));
    assert_eq!((keyed.get(&7).number, keyed.get(&8).number), (1, 2));
    assert_eq!((keyed.len(), keyed.capacity()), (2, 10));
}

#[tokio::test(start_paused = true)]
async fn one_tenants_failures_do_not_change_anothers_admissions() {
    let keyed = of(10);
    fail(&keyed, 1).await;
    assert!(keyed.get(&1).breaker.admit().is_err());
    assert!(keyed.get(&2).breaker.admit().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_looked_up_in_any_form_that_it_can_be_borrowed_as() {
    let breaker = || CircuitBreaker::builder().build();
    let by_name: Keyed<String, CircuitBreaker> = Keyed::builder(move |_| breaker()).build().unwrap();
    by_name.get("a.example").admit().unwrap().success();
    by_name.get(&"a.example".to_owned()).admit().unwrap().success();
    assert_eq!(by_name.len(), 1);

    let by_bytes: Keyed<Vec<u8>, CircuitBreaker> = Keyed::builder(move |_| breaker()).build().unwrap();
    by_bytes.get(&b"key"[..]).admit().unwrap().success();
    let by_pair: Keyed<(IpAddr, u16), CircuitBreaker> = Keyed::builder(move |_| breaker()).build().unwrap();
    by_pair.get(&([127, 0, 0, 1].into(), 80)).admit().unwrap().success();
    let by_static: Keyed<&'static str, CircuitBreaker> = Keyed::builder(move |_| breaker()).build().unwrap();
    by_static.get(&"a").admit().unwrap().success();
    let by_shared: Keyed<Arc<str>, CircuitBreaker> = Keyed::builder(move |_| breaker()).build().unwrap();
    by_shared.get(&Arc::from("a")).admit().unwrap().success();
}

/// A key that counts how often it is copied. Its hash is always the same, so that all keys meet in the map.
struct Dear(u32, Counter);

impl Clone for Dear {
    fn clone(&self) -> Self {
        self.1.add();
        Self(self.0, self.1.clone())
    }
}

impl PartialEq for Dear {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Dear {}

impl Hash for Dear {
    fn hash<H: Hasher>(&self, state: &mut H) {
        0_u8.hash(state);
    }
}

#[test]
fn a_key_is_copied_when_its_instance_is_made_and_never_again() {
    let copies = Counter::default();
    let keyed: Keyed<Dear, CircuitBreaker> =
        Keyed::builder(|_| CircuitBreaker::builder().build()).capacity(20).build().unwrap();
    let tenants: Vec<_> = (0..20).map(|number| Dear(number, copies.clone())).collect();
    for tenant in &tenants {
        drop(keyed.get(tenant));
    }
    assert_eq!(copies.get(), 20);
    for tenant in &tenants {
        keyed.get(tenant).admit().unwrap().success();
        drop(keyed.peek(tenant));
    }
    drop(keyed.instances());
    assert_eq!(copies.get(), 20);
    assert!(keyed.remove(&tenants[7]).is_some());
    assert!(keyed.peek(&tenants[7]).is_none());
    assert_eq!(keyed.len(), 19);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_held_outlives_its_removal_from_everywhere_else() {
    let keyed = of(1);
    let held = keyed.get(&1);
    drop(keyed);
    assert!(held.breaker.admit().is_ok());
    assert_eq!(Instance::key(&held), Some(&1));
}

#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "only the library spawns no tasks")]
async fn a_call_in_a_task_of_its_own_holds_the_instance_across_its_awaits() {
    let keyed: Arc<Keyed<String, Pipeline<StandardLayers>>> =
        Arc::new(Keyed::builder(|_| Pipeline::standard("tenant").build()).capacity(1).build().unwrap());
    let task = tokio::spawn({
        let keyed = Arc::clone(&keyed);
        async move {
            let tenant = "a".to_owned();
            keyed
                .get(&tenant)
                .call(|| async {
                    sleep(ms(100)).await;
                    Ok::<_, String>(7)
                })
                .await
        }
    });
    sleep(ms(50)).await;
    assert!(keyed.remove("a").is_none(), "it is in use");
    assert!(Instance::key(&keyed.get("b")).is_none(), "and there is no room for another");
    assert_eq!(task.await.unwrap(), Ok(7));
    assert_eq!(Instance::key(&keyed.get("b")).map(String::as_str), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_gives_its_instance_back() {
    let keyed = of(1);
    {
        let call = async { keyed.get(&1).breaker.call(std::future::pending::<Result<(), ()>>).await };
        let mut call = std::pin::pin!(call);
        tokio::time::timeout(ms(10), call.as_mut()).await.unwrap_err();
        assert!(keyed.remove(&1).is_none());
    }
    assert!(keyed.remove(&1).is_some());
}

#[tokio::test(start_paused = true)]
async fn removing_gives_the_policy_and_the_key_begins_anew() {
    let keyed = of(10);
    fail(&keyed, 1).await;
    let removed = keyed.remove(&1).unwrap();
    assert_eq!((removed.number, removed.breaker.state().is_open()), (1, true));
    assert!(keyed.remove(&1).is_none());
    assert!(keyed.get(&1).breaker.admit().is_ok());
    assert_eq!(number(&keyed, 1), Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_operator_finds_the_instances_and_resets_one() {
    let keyed = of(10);
    fail(&keyed, 1).await;
    fail(&keyed, 2).await;
    let open = |key: &u32| keyed.peek(key).unwrap().breaker.state().is_open();
    assert_eq!(keys(&keyed), [1, 2]);
    assert_eq!(keyed.instances().len(), 3, "and the one that is shared");
    keyed.peek(&1).unwrap().breaker.reset();
    assert_eq!((open(&1), open(&2)), (false, true));
    assert!(keyed.peek(&3).is_none(), "looking makes none");
}

#[tokio::test(start_paused = true)]
async fn looking_keeps_nobody_longer() {
    let keyed = of(10);
    drop(keyed.get(&1));
    for _ in 0..10 {
        sleep(secs(60)).await;
        drop((keyed.peek(&1), keyed.instances()));
    }
    assert_eq!(keyed.sweep(), 1);
    assert!(keyed.is_empty());
}

#[test]
fn the_key_decides_what_its_instance_is_like() {
    let keyed: Keyed<u32, Bulkhead> =
        Keyed::builder(|key: Option<&u32>| Bulkhead::builder().limit(key.map_or(1, |&key| key as usize)).build())
            .capacity(1)
            .build()
            .unwrap();
    let held = keyed.get(&7);
    assert_eq!(held.limit(), 7);
    assert_eq!(keyed.get(&8).limit(), 1, "shared");
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let builder = || Keyed::<u32, CircuitBreaker>::builder(|_| CircuitBreaker::builder().build());
    let message = |error: withstand::ConfigError| error.to_string();
    assert_eq!(
        builder().capacity(0).build().map_err(message).unwrap_err(),
        "policy `keyed`: capacity is 0; accepted: 1 to 100000"
    );
    assert_eq!(
        builder().name("hosts").capacity(100_001).build().map_err(message).unwrap_err(),
        "policy `hosts`: capacity is 100001; accepted: 1 to 100000"
    );
    assert_eq!(
        builder().idle_after(Duration::ZERO).build().map_err(message).unwrap_err(),
        "policy `keyed`: idle_after is 0s; accepted: more than 0s"
    );
    assert_eq!(
        builder().name(" ").build().map_err(message).unwrap_err().split(';').next(),
        Some("policy `keyed`: name is \" \"")
    );
    assert!(builder().capacity(1).build().is_ok() && builder().capacity(100_000).build().is_ok());
}

#[test]
fn a_factory_that_cannot_work_is_found_when_all_is_built() {
    let keyed = Keyed::<u32, CircuitBreaker>::builder(|_| CircuitBreaker::builder().min_calls(0).build());
    assert_eq!(keyed.build().unwrap_err().field(), "min_calls");
}

/// What `Borrow` asks for is all that is needed of a form of a key: a case-blind name.
#[test]
fn a_form_of_ones_own_does_as_well() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Host(String);
    impl Borrow<str> for Host {
        fn borrow(&self) -> &str {
            &self.0
        }
    }
    let keyed: Keyed<Host, CircuitBreaker> = Keyed::builder(|_| CircuitBreaker::builder().build()).build().unwrap();
    keyed.get(&Host("a".to_owned())).admit().unwrap().success();
    assert!(keyed.peek("a").is_some());
    assert!(keyed.remove("a").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_tells_nothing_counts_as_closed() {
    struct Mine;
    impl Describe for Mine {
        fn describe(&self, _: &mut Vec<LayerInfo>) {}
    }
    let keyed: Keyed<u32, Mine> = Keyed::builder(|_| Ok(Mine)).capacity(1).build().unwrap();
    drop(keyed.get(&1));
    sleep(BREAK).await;
    drop(keyed.get(&2));
    assert_eq!(keys(&keyed), [2]);
}
