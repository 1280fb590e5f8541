//! What a subscriber gets.

use std::{
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tracing::{Level, info};
use tracing_subscriber::filter::LevelFilter;
use withstand::{
    Backoff, Bulkhead, CallOptions, CircuitBreaker, Event, Fallback, Hedge, HedgeDelay, Jitter, Observers, Pipeline,
    Retry, RetryBudget, RetryBuilder, TracingObserver, Verdict,
};

use crate::recorded::{Fields, Recorded};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn retry(attempts: u32) -> RetryBuilder {
    let backoff = Backoff::constant(ms(31)).jitter(Jitter::None);
    Retry::builder().max_attempts(attempts).backoff(backoff)
}

fn fields<const N: usize>(fields: [(&'static str, &str); N]) -> Fields {
    fields.map(|(key, value)| (key, value.to_owned())).into()
}

/// An operation with a word to `tracing`.
async fn mine<E>(result: Result<(), E>) -> Result<(), E> {
    info!("mine");
    result
}

/// Drops something with a word to `tracing`.
struct Parting;

impl Drop for Parting {
    fn drop(&mut self) {
        info!("parting");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_has_a_span_and_events_with_fields_in_it() {
    let (recorded, _guard) = Recorded::install(LevelFilter::TRACE);
    let users = Pipeline::builder("users-api")
        .retry(retry(2))
        .classify_errors(|_: &()| Verdict::transient().label("http_503"))
        .observer(TracingObserver::new())
        .build()
        .unwrap();
    assert!(users.call(|| mine(Err(()))).await.is_err());

    let [call] = &recorded.spans("withstand.call")[..] else { panic!("{:#?}", recorded.spans("withstand.call")) };
    assert_eq!((call.target.as_str(), call.level), ("withstand", Level::INFO));
    let ended = [("pipeline", "users-api"), ("outcome", "transient"), ("label", "http_503"), ("attempts", "2")];
    let mut expected = fields(ended);
    expected.extend(fields([("hedges", "0"), ("otel.status_code", "ERROR")]));
    assert_eq!(call.fields, expected);
    assert!(recorded.spans("withstand.attempt").is_empty(), "nobody asked for them");

    let messages = recorded.messages();
    let attempt = ["attempt started", "mine", "attempt finished"];
    let expected =
        [&["call started"], &attempt[..], &["retried"], &attempt, &["retry stopped", "call finished"]].concat();
    assert_eq!(messages, expected);
    for event in recorded.events() {
        assert_eq!(event.inside, ["withstand.call"], "{event:?}");
    }
    let retried = &recorded.events()[messages.iter().position(|message| message == "retried").unwrap()];
    assert_eq!((retried.target.as_str(), retried.level), ("withstand", Level::WARN));
    let mut expected =
        fields([("pipeline", "users-api"), ("policy", "retry"), ("kind", "retry"), ("next_attempt", "2")]);
    expected.extend(fields([("delay", "0.031"), ("clamped", "false")]));
    assert_eq!(retried.fields, expected);
}

#[tokio::test(start_paused = true)]
async fn the_span_and_the_event_of_a_rejected_call_say_why_and_by_whom() {
    let (recorded, _guard) = Recorded::install(LevelFilter::DEBUG);
    let breaker = Arc::new(CircuitBreaker::builder().name("users-db").build().unwrap());
    let builder =
        Pipeline::builder("users-api").bulkhead(Bulkhead::builder().limit(1)).circuit_breaker(breaker.clone());
    let users = builder.observer(TracingObserver::new()).build().unwrap();
    let _isolation = breaker.isolate();
    users.call(|| async { Ok::<_, ()>(()) }).await.unwrap_err();

    let [call] = &recorded.spans("withstand.call")[..] else { panic!("{:#?}", recorded.spans("withstand.call")) };
    let messages = recorded.messages();
    let finished = &recorded.events()[messages.iter().position(|message| message == "call finished").unwrap()];
    for told in [&call.fields, &finished.fields] {
        assert_eq!((told["reason"].as_str(), told["rejected_by"].as_str()), ("isolated", "users-db"));
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_have_spans_where_they_are_asked_for() {
    let (recorded, _guard) = Recorded::install(LevelFilter::INFO);
    let users = Pipeline::builder("users-api")
        .hedge(Hedge::builder().delay(ms(10)))
        .timeout(ms(40))
        .observer(Observers::new().with(|_: &Event<'_>| ()).with(TracingObserver::new().attempt_spans()))
        .build()
        .unwrap();
    let call = users.call_with(CallOptions::new(), |attempt| async move {
        let _parting = Parting;
        sleep(ms(30)).await;
        info!("mine");
        if attempt.hedge() == 0 { pending().await } else { Ok::<_, ()>(1) }
    });
    assert_eq!(call.await, Ok(1));
    let common = [("pipeline", "users-api"), ("attempt", "1"), ("probe", "false")];
    let mut first = fields(common);
    let mut hedge = first.clone();
    // The timeout would end the first at the very moment at which the hedge answers: the hedge is polled after.
    first.extend(fields([("hedge", "0"), ("end", "timed_out"), ("label", "timed_out"), ("otel.status_code", "ERROR")]));
    hedge.extend(fields([("hedge", "1"), ("verdict", "success"), ("end", "completed"), ("label", "success")]));
    let spans = recorded.spans("withstand.attempt");
    let ended: Vec<_> = spans.iter().map(|span| span.fields.clone()).collect();
    assert_eq!(ended, [first, hedge]);
    assert!(spans.iter().all(|span| span.inside == ["withstand.call"] && span.level == Level::INFO));
    let mine: Vec<_> = recorded.events().into_iter().filter(|event| event.target != "withstand").collect();
    assert_eq!(mine.len(), 4);
    assert!(mine.iter().all(|event| event.inside == ["withstand.call", "withstand.attempt"]), "{mine:#?}");
    assert_eq!(recorded.depth(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_with_a_call_is_dropped_in_its_spans() {
    let (recorded, _guard) = Recorded::install(LevelFilter::TRACE);
    let users = Pipeline::builder("users-api").observer(TracingObserver::new().attempt_spans()).build().unwrap();
    let call = users.call(|| async {
        let _parting = Parting;
        pending::<Result<(), ()>>().await
    });
    assert!(timeout(ms(5), call).await.is_err());
    let events = recorded.events();
    let inside = |message: &str| &events.iter().find(|event| event.name == message).unwrap().inside;
    assert_eq!(*inside("parting"), ["withstand.call", "withstand.attempt"]);
    assert_eq!(*inside("attempt finished"), ["withstand.call", "withstand.attempt"]);
    assert_eq!(*inside("call finished"), ["withstand.call"]);
    let ends = ["withstand.attempt", "withstand.call"].map(|span| recorded.spans(span)[0].fields.clone());
    assert_eq!((ends[0]["end"].as_str(), ends[1]["outcome"].as_str()), ("cancelled", "cancelled"));
    assert!(ends.iter().all(|fields| !fields.contains_key("otel.status_code")), "nobody failed");
    assert_eq!(recorded.depth(), 0);
}

#[tokio::test(start_paused = true)]
async fn spans_are_left_when_the_operation_panics() {
    let (recorded, _guard) = Recorded::install(LevelFilter::TRACE);
    let users = Pipeline::builder("users-api").observer(TracingObserver::new().attempt_spans()).build().unwrap();
    let mut call: Pin<Box<_>> = Box::pin(users.call(|| async { panic!("of the operation") as Result<(), ()> }));
    let mut task = Context::from_waker(Waker::noop());
    assert!(catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut task))).is_err());
    assert_eq!(recorded.depth(), 0, "left by the panic, though the future is still there");
    info!("outside");
    assert_eq!(recorded.events().last().unwrap().inside, [""; 0]);
    drop(call);
    assert_eq!(recorded.depth(), 0);
    assert_eq!(recorded.spans("withstand.attempt")[0].fields["end"], "panicked");
    let call = &recorded.spans("withstand.call")[0].fields;
    assert_eq!((call["outcome"].as_str(), call["otel.status_code"].as_str()), ("panicked", "ERROR"));
}

#[tokio::test(start_paused = true)]
async fn spans_end_with_the_call_though_its_future_stays() {
    let (recorded, _guard) = Recorded::install(LevelFilter::INFO);
    let users = Pipeline::builder("users-api").observer(TracingObserver::new().attempt_spans()).build().unwrap();
    let mut call = pin!(users.call(|| async { Ok::<_, ()>(7) }));
    assert_eq!(call.as_mut().await, Ok(7));
    assert_eq!((recorded.spans("withstand.call").len(), recorded.spans("withstand.attempt").len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_span_that_is_filtered_out_leaves_those_around_it_alone() {
    let (recorded, _guard) = Recorded::install(LevelFilter::WARN);
    let mine = tracing::warn_span!("mine", outcome = "my own");
    let users = Pipeline::builder("users-api").retry(retry(2)).observer(TracingObserver::new().attempt_spans());
    let users = users.build().unwrap();
    let _entered = mine.enter();
    assert!(users.call(|| async { Err::<(), _>("down") }).await.is_err());
    drop(_entered);
    drop(mine);
    assert_eq!(recorded.messages(), ["retried", "retry stopped"]);
    assert_eq!(recorded.events()[0].inside, ["mine"]);
    assert_eq!(recorded.spans("mine")[0].fields, fields([("outcome", "my own")]));
    assert!(recorded.spans("withstand.call").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_inside_another_has_a_span_inside_that_of_the_attempt() {
    let (recorded, _guard) = Recorded::install(LevelFilter::INFO);
    let observer = || TracingObserver::new().attempt_spans();
    let inner = Pipeline::builder("inner").observer(observer()).build().unwrap();
    let outer = Pipeline::builder("outer").observer(observer()).build().unwrap();
    let call = outer.forward(|| inner.outcome(|| mine(Ok::<_, ()>(()))));
    assert!(call.await.is_ok());
    let both = ["withstand.call", "withstand.attempt"];
    assert_eq!(recorded.events()[0].inside, both.repeat(2));
    let pipelines: Vec<_> =
        recorded.spans("withstand.call").iter().map(|span| span.fields["pipeline"].clone()).collect();
    assert_eq!(pipelines, ["inner", "outer"]);
}

/// Makes nearly all kinds of events happen.
#[tokio::test(start_paused = true)]
async fn each_event_has_the_level_and_the_fields_of_its_kind() {
    let (recorded, _guard) = Recorded::install(LevelFilter::TRACE);
    let heard: Arc<Mutex<Vec<(withstand::Level, String)>>> = Arc::default();
    let notes = heard.clone();
    let log = move |event: &Event<'_>| notes.lock().unwrap().push((event.level(), format!("{:?}", event.kind)));
    let breaker = CircuitBreaker::builder().min_calls(1).open_for(ms(1)).probe_lease(ms(400));
    let breaker = Arc::new(breaker.close_after(1).build().unwrap());
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).queue(1).max_wait(ms(30)).build().unwrap());
    let budget = || RetryBudget::builder().initial(2).cap(2).ratio(1.0);
    let users = Pipeline::builder("users-api")
        .fallback(Fallback::value(0))
        .timeout(ms(900))
        .retry(retry(3).own_budget(budget()))
        .hedge(Hedge::builder().delay(HedgeDelay::on_failure()))
        .bulkhead(bulkhead.clone())
        .circuit_breaker(breaker.clone())
        .timeout(ms(100))
        .observer(Observers::new().with(log).with(TracingObserver::new()))
        .build()
        .unwrap();
    for failing in [true, true, false, false, true, false] {
        let call = users.call_with(CallOptions::new(), |_| async move {
            sleep(ms(1)).await;
            if failing { Err("down") } else { Ok(1) }
        });
        assert!(call.await.is_ok());
        sleep(ms(70)).await;
    }
    assert!(users.call(pending::<Result<i32, &str>>).await.is_ok());
    let held = bulkhead.acquire().await.unwrap();
    assert!(users.call(|| async { Ok::<_, &str>(1) }).await.is_ok());
    drop(held);
    bulkhead.set_limit(2).unwrap();
    drop(breaker.isolate());
    breaker.reset();

    let heard = heard.lock().unwrap().clone();
    let told = recorded.events();
    assert_eq!(heard.len(), told.len());
    let mut kinds = std::collections::BTreeSet::new();
    for ((level, kind), event) in heard.into_iter().zip(told) {
        assert_eq!(format!("{level:?}").to_uppercase(), event.level.to_string(), "{kind}");
        // `Retried { next_attempt: 2, hint: None }` and a message and fields of the same names, without those that are none.
        let name: String = kind.chars().take_while(|letter| letter.is_alphanumeric()).collect();
        assert_eq!(event.name.replace([' ', '-'], ""), name.to_lowercase());
        for field in kind.split(['{', ',']).skip(1).filter_map(|field| field.split_once(": ")) {
            let (field, value) = (field.0.trim(), field.1.trim_end_matches([' ', '}']));
            assert_eq!(event.fields.contains_key(field), value != "None", "{field} of {kind} in {:?}", event.fields);
        }
        assert_eq!(event.fields["pipeline"], "users-api");
        kinds.insert(name);
    }
    assert!(kinds.len() >= 18, "only {}: {kinds:#?}", kinds.len());
}
