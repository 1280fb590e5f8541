//! Tenants do not notice each other.

use proptest::{collection::vec, prelude::*};
use tokio::time::{Instant, sleep_until};
use withstand::{Bulkhead, CircuitBreaker, ConfigError, Keyed, Pipeline, RetryBudget, Timeout, Verdict, layers};

use super::paused;
use crate::support::{Log, as_it_says, ms, trials::cases};

const TENANTS: u32 = 4;

/// A call: so long after the one before, by whom, how long it takes and how it ends.
#[derive(Clone, Copy, Debug)]
struct Call {
    at: u64,
    tenant: u32,
    takes: u64,
    ends: Result<u32, Verdict>,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let ends = prop_oneof![
        4 => Just(Err(Verdict::transient())),
        3 => Just(Ok(7)),
        1 => Just(Err(Verdict::throttled())),
    ];
    vec((0..120_u64, 0..TENANTS, 0..150_u64, ends), 1..80).prop_map(|calls| {
        let mut at = 0;
        let call = |(after, tenant, takes, ends)| {
            at += after;
            Call { at, tenant, takes, ends }
        };
        calls.into_iter().map(call).collect()
    })
}

type Tenant = Pipeline<layers![Bulkhead, CircuitBreaker, Timeout], withstand::ClassifyErrors<fn(&Verdict) -> Verdict>>;

fn tenant(log: &Log) -> Result<Tenant, ConfigError> {
    Pipeline::builder("tenant")
        .bulkhead(Bulkhead::builder().limit(2).queue(1).max_wait(ms(30)))
        .circuit_breaker(CircuitBreaker::builder().count_window(6).min_calls(3).open_for(ms(200)).probes(2))
        .timeout(ms(100))
        .classify_errors(as_it_says as fn(&Verdict) -> Verdict)
        .observer(log.clone())
        .build()
}

/// Makes the calls of some tenants, all at their times, and gives what each of them got, with the time.
async fn told(calls: &[Call], of: impl Fn(u32) -> bool, keyed: &Keyed<u32, Tenant>) -> Vec<Vec<String>> {
    let start = Instant::now();
    let call = |call: Call| async move {
        sleep_until(start + ms(call.at)).await;
        let work = || async move {
            tokio::time::sleep(ms(call.takes)).await;
            call.ends
        };
        let result = keyed.get(&call.tenant).call(work).await;
        format!("{:?} at {:?}", result, start.elapsed())
    };
    let all = futures::future::join_all(calls.iter().copied().filter(|call| of(call.tenant)).map(call)).await;
    let mut by_tenant = vec![Vec::new(); TENANTS as usize];
    for (call, told) in calls.iter().filter(|call| of(call.tenant)).zip(all) {
        by_tenant[call.tenant as usize].push(told);
    }
    by_tenant
}

fn of_their_own() -> (Keyed<u32, Tenant>, Log) {
    let log = Log::new();
    let heard = log.clone();
    (Keyed::builder(move |_| tenant(&heard)).capacity(TENANTS as usize).build().unwrap(), log)
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn each_tenant_gets_what_it_would_get_if_it_were_alone(calls in calls()) {
        paused(async {
            let (together, log) = of_their_own();
            let told_together = told(&calls, |_| true, &together).await;
            let mut events = 0;
            for tenant in 0..TENANTS {
                let (alone, log) = of_their_own();
                let told_alone = told(&calls, |other| other == tenant, &alone).await;
                let tenant = tenant as usize;
                prop_assert_eq!(&told_together[tenant], &told_alone[tenant]);
                events += log.all().len();
            }
            prop_assert_eq!(log.all().len(), events);
            Ok(())
        })?;
    }
}

/// What is shared on purpose is shared: the factory may give all of them the same budget.
#[test]
fn a_factory_may_give_its_instances_something_in_common() {
    let budget = std::sync::Arc::new(RetryBudget::builder().build().unwrap());
    let shared = budget.clone();
    let keyed: Keyed<u32, withstand::Retry> =
        Keyed::builder(move |_| withstand::Retry::builder().budget(shared.clone()).build()).build().unwrap();
    for key in 0..3 {
        assert!(keyed.get(&key).budget().is_some_and(|own| std::sync::Arc::ptr_eq(own, &budget)));
    }
}
