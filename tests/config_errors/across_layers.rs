//! What cannot work across layers, with its exact words.

use withstand::{BulkheadBuilder, Describe, Error, LayerInfo, Outcome};

use super::*;

/// The error of a pipeline of these layers.
macro_rules! refused {
    ($($layer:ident($policy:expr)),* => $text:expr) => {
        assert_eq!(Pipeline::builder("p")$(.$layer($policy))*.build().unwrap_err().to_string(), $text)
    };
}

macro_rules! accepted {
    ($($layer:ident($policy:expr)),*) => {
        Pipeline::builder("p")$(.$layer($policy))*.build().unwrap()
    };
}

fn queue(wait: Duration) -> BulkheadBuilder {
    Bulkhead::builder().limit(1).queue(1).max_wait(wait)
}

fn retry() -> RetryBuilder {
    Retry::builder()
}

/// A policy that says what it is told to say.
#[derive(Debug)]
struct Says(LayerInfo);
impl Describe for Says {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.push(self.0.clone());
    }
}

/// A policy that says nothing.
#[derive(Debug)]
struct Silent;
impl Describe for Silent {}

#[test]
fn two_layers_of_one_name_are_refused() {
    refused!(
        timeout(Timeout::builder(secs(4)).name("users")), retry(retry().name("users")) =>
        "pipeline `p`, policy `users`: name is \"users\", as that of a layer around it; accepted: a name of its own: \
         give one of the two .name(\"...\")"
    );
    refused!(
        timeout(secs(4)), timeout(Timeout::new(secs(1)).unwrap()) =>
        "pipeline `p`, policy `timeout`: name is \"timeout\", as that of a layer around it; accepted: a name of its \
         own: give one of the two .name(\"...\")"
    );
    refused!(
        layer(Says(LayerInfo::custom("own"))), layer(Says(LayerInfo::custom("own"))) =>
        "pipeline `p`, policy `own`: name is \"own\", as that of a layer around it; accepted: a name of its own: give \
         one of the two .name(\"...\")"
    );
    refused!(
        layer(Says(LayerInfo::custom(" "))) =>
        "pipeline `p`, policy `custom`: name is \" \"; accepted: a name that is not blank"
    );
}

#[test]
fn layers_that_were_given_no_name_get_one_of_their_own() {
    accepted!(timeout(secs(4)), retry(retry()), timeout(secs(2)), timeout(secs(1)));
    accepted!(layer(Silent), layer(Silent), layer(Says(LayerInfo::custom("Silent"))));
}

#[test]
fn an_attempt_timeout_is_shorter_than_the_total_one() {
    for limit in [secs(4), secs(5)] {
        refused!(
            timeout(secs(4)), retry(retry()), timeout(limit) =>
            format!(
                "pipeline `p`, policy `timeout-2`: limit is {limit:?}; accepted: less than 4s, the limit of the \
                 timeout `timeout` around it"
            )
        );
    }
    refused!(
        timeout(secs(4)), timeout(secs(2)), timeout(secs(3)) =>
        "pipeline `p`, policy `timeout-3`: limit is 3s; accepted: less than 2s, the limit of the timeout `timeout-2` \
         around it"
    );
    accepted!(timeout(secs(4)), retry(retry()), timeout(ms(3_999)));
}

#[test]
fn a_fallback_is_not_inside_what_needs_to_see_failures() {
    let text = |around: &str| {
        format!(
            "pipeline `p`, policy `fallback`: position is inside the {around}; accepted: outside of the {around}: from \
             inside it would hide every failure"
        )
    };
    refused!(retry(retry().name("x")), timeout(secs(1)), fallback(Fallback::value(1)) => text("retry `x`"));
    refused!(hedge(Hedge::builder()), fallback(Fallback::value(1)) => text("hedge `hedge`"));
    refused!(
        circuit_breaker(CircuitBreaker::builder()), fallback(Fallback::value(1)) =>
        text("circuit breaker `circuit_breaker`")
    );
    // Moved out of the inner one alone it would still be inside the other.
    refused!(
        circuit_breaker(CircuitBreaker::builder().name("b")), retry(retry()), fallback(Fallback::value(1)) =>
        text("circuit breaker `b`")
    );
    accepted!(fallback(Fallback::value(1)), retry(retry()));
    accepted!(timeout(secs(1)), bulkhead(queue(ms(1))), fallback(Fallback::value(1)));
    accepted!(retry(retry()), fallback(Fallback::value(1).handles([VerdictKind::Rejected])));
}

#[test]
fn a_probe_lease_is_longer_than_a_call_inside_can_take() {
    let breaker = |lease| CircuitBreaker::builder().probe_lease(lease);
    refused!(
        circuit_breaker(breaker(secs(1))), timeout(secs(1)) =>
        "pipeline `p`, policy `circuit_breaker`: probe_lease is 1s; accepted: more than 1s, the longest that a call \
         inside can take"
    );
    refused!(
        circuit_breaker(breaker(secs(2))), bulkhead(queue(ms(1_500))), timeout(secs(1)) =>
        "pipeline `p`, policy `circuit_breaker`: probe_lease is 2s; accepted: more than 2.5s, the longest that a call \
         inside can take"
    );
    refused!(
        timeout(secs(4)), circuit_breaker(breaker(secs(4))), retry(retry()), timeout(secs(1)) =>
        "pipeline `p`, policy `circuit_breaker`: probe_lease is 4s; accepted: more than 4s, the longest that a call \
         inside can take"
    );
    accepted!(circuit_breaker(breaker(secs(1) + TICK)), timeout(secs(1)));
    accepted!(timeout(secs(4)), circuit_breaker(breaker(secs(5))), retry(retry()), timeout(secs(1)));
    // Nobody knows how long a call takes.
    accepted!(circuit_breaker(breaker(TICK)));
    accepted!(circuit_breaker(breaker(TICK)), layer(Silent));
}

#[test]
fn a_queue_wait_is_shorter_than_the_total_timeout() {
    refused!(
        timeout(secs(4)), retry(retry()), bulkhead(queue(secs(4))) =>
        "pipeline `p`, policy `bulkhead`: max_wait is 4s; accepted: less than 4s, the limit of the timeout `timeout` \
         around it"
    );
    accepted!(timeout(secs(4)), bulkhead(queue(ms(3_999))));
    accepted!(timeout(ms(50)), bulkhead(Bulkhead::builder().limit(1)));
    accepted!(timeout(secs(4)), retry(retry()), timeout(secs(1)), bulkhead(queue(secs(2))));
}

#[test]
fn a_hedge_begins_before_the_timeout_around_it_ends() {
    refused!(
        timeout(secs(4)), hedge(Hedge::builder().delay(secs(4))) =>
        "pipeline `p`, policy `hedge`: delay is 4s; accepted: less than 4s, the limit of the timeout `timeout` around \
         it"
    );
    accepted!(timeout(secs(4)), hedge(Hedge::builder().delay(ms(3_999))));
    accepted!(timeout(secs(4)), hedge(Hedge::builder().delay(HedgeDelay::quantile(0.5).ceiling(secs(5)))));
    accepted!(timeout(secs(4)), hedge(Hedge::builder().delay(HedgeDelay::parallel())));
}

#[test]
fn layers_of_pipelines_inside_are_checked_with_the_others() {
    let inner = || Pipeline::builder("inner").timeout(Timeout::builder(secs(5)).name("inner")).build().unwrap();
    refused!(
        timeout(secs(4)), layer(inner()) =>
        "pipeline `p`, policy `inner/inner`: limit is 5s; accepted: less than 4s, the limit of the timeout `timeout` around \
         it"
    );
    accepted!(timeout(secs(6)), layer(Some(inner())));
}

#[test]
fn layers_of_a_pipeline_inside_go_by_its_name_and_so_do_not_collide() {
    let inner = Pipeline::builder("inner").timeout(Duration::from_secs(1)).build().unwrap();
    let outer = Pipeline::builder("outer").timeout(Duration::from_secs(2)).layer(inner).build().unwrap();
    let names: Vec<_> = outer.explain().layers().iter().map(|layer| layer.name().to_string()).collect();
    assert_eq!(names, ["timeout", "inner/timeout"]);
}

#[test]
fn a_fallback_that_may_decline_is_accepted_inside_a_retry() {
    let declining = Fallback::from_outcome(|_: &Outcome<(), ()>| None);
    Pipeline::builder("p").retry(Retry::builder()).fallback(declining).build().unwrap();
    let asking = Fallback::from_future(|_: &Outcome<(), ()>| std::future::ready(None));
    Pipeline::builder("p").retry(Retry::builder()).fallback(asking).build().unwrap();
    let answering = Fallback::from_error(|_: &Error<()>| ());
    Pipeline::builder("p").retry(Retry::builder()).fallback(answering).build().unwrap_err();
}
