//! What a server answers: codes, pushback, and how many attempts it was asked for.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tonic::{Code, Response, Status, metadata::MetadataMap};
use tower::ServiceBuilder;
use withstand::{
    Attempt, CallOptions, CircuitBreaker, CircuitState, Error, Hedge, HedgeDelay, Idempotency, Pipeline, Verdict,
    tonic::{ChannelClassifier, ChannelRequests, TonicClassifier, request},
    tower::PipelineLayer,
};

use crate::{
    echo::EchoClient,
    ms,
    world::{Answer, Script, channel, retrying, say},
};

fn pushing_back(code: Code, pushback: &str) -> Answer {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    Answer::Fails(Status::with_metadata(code, "not now", metadata))
}

fn failing(code: Code) -> Answer {
    Answer::Fails(Status::new(code, "said the server"))
}

const ONCE: CallOptions = CallOptions::new().idempotency(Idempotency::Unsafe);

#[tokio::test]
async fn every_code_of_a_server_has_its_verdict_around_the_method_and_around_the_channel() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    let once = retrying(1);
    let around = Pipeline::builder("channel").classifier(ChannelClassifier::new()).build().unwrap();
    let layer = PipelineLayer::with_requests(around, ChannelRequests::new());
    let layered = ServiceBuilder::new().map_err(Status::from).layer(layer).service(channel(address));
    for code in (1..=16).map(Code::from_i32) {
        script.is([failing(code), failing(code)]);
        let outcome = say(&once, &channel(address), ONCE).await;
        let verdict = match code {
            Code::Unavailable | Code::DeadlineExceeded => Verdict::transient(),
            Code::ResourceExhausted => Verdict::throttled(),
            Code::Internal | Code::Unknown | Code::DataLoss | Code::Unimplemented | Code::Aborted => Verdict::failure(),
            // Nobody here has cancelled it.
            Code::Cancelled => Verdict::failure(),
            _ => Verdict::success(),
        };
        assert_eq!(outcome.verdict(), verdict, "{code:?}");
        assert_eq!(outcome.result.unwrap_err().operation().map(Status::code), Some(code));

        // The same status from a stub whose channel has a pipeline around it.
        let mut stub = EchoClient::new(layered.clone());
        let status = stub.say(Bytes::new()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, "said the server"));
    }
}

#[tokio::test]
async fn pushback_is_waited_for() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    for code in [Code::ResourceExhausted, Code::Unavailable] {
        script.is([pushing_back(code, "300")]);
        let outcome = say(&retrying(3), &channel(address), CallOptions::new()).await;
        assert_eq!(outcome.result.unwrap(), "hello");
        let seen = script.seen();
        let waited = seen[1].at - seen[0].at;
        // Up to a tenth longer; the rest is the machine's.
        assert!((ms(300)..ms(1500)).contains(&waited), "{waited:?}");
        assert_eq!(seen.len(), 2);
    }
}

#[tokio::test]
async fn a_pushback_that_says_no_or_cannot_be_read_is_not_retried() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    for pushback in ["-1", "soon", "99999999999999999999"] {
        script.is([pushing_back(Code::Unavailable, pushback)]);
        let outcome = say(&retrying(3), &channel(address), CallOptions::new()).await;
        assert_eq!(outcome.verdict(), Verdict::failure());
        assert_eq!(script.seen().len(), 1, "{pushback}");
    }
}

#[tokio::test]
async fn the_server_sees_how_many_attempts_were_before() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    script.is([failing(Code::Unavailable), failing(Code::Unavailable)]);
    let outcome = say(&retrying(3), &channel(address), CallOptions::new()).await;
    assert_eq!(outcome.result.unwrap(), "hello");
    let previous: Vec<_> = script.seen().into_iter().map(|seen| seen.previous).collect();
    assert_eq!(previous, [None, Some("1".to_owned()), Some("2".to_owned())]);
}

#[tokio::test]
async fn a_hedge_overtakes_a_request_that_hangs_and_is_counted() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    let pipeline = Pipeline::builder("echo")
        .hedge(Hedge::builder().delay(HedgeDelay::fixed(ms(30))))
        .classifier(TonicClassifier::new())
        .build()
        .unwrap();
    script.is([Answer::Hangs]);
    let outcome = say(&pipeline, &channel(address), CallOptions::new()).await;
    assert_eq!(outcome.result.unwrap(), "hello");
    let previous: Vec<_> = script.seen().into_iter().map(|seen| seen.previous).collect();
    assert_eq!(previous, [None, Some("1".to_owned())]);

    // One that may not be repeated is not hedged.
    script.is([Answer::Hangs]);
    let channel = channel(address);
    let hanging = say(&pipeline, &channel, ONCE);
    assert!(tokio::time::timeout(ms(200), hanging).await.is_err());
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn what_may_not_be_repeated_is_repeated_if_it_was_turned_away_and_not_if_it_may_have_been_done() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    for (code, attempts) in [(Code::ResourceExhausted, 2), (Code::Unavailable, 1), (Code::DeadlineExceeded, 1)] {
        script.is([failing(code)]);
        let _ = say(&retrying(3), &channel(address), ONCE).await;
        assert_eq!(script.seen().len(), attempts, "{code:?}");
    }
}

#[tokio::test]
async fn a_circuit_opens_for_unavailable_and_not_for_not_found() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    for (code, opens) in [(Code::NotFound, false), (Code::Unavailable, true)] {
        let breaker = Arc::new(CircuitBreaker::builder().min_calls(10).build().unwrap());
        let pipeline = Pipeline::builder("echo")
            .circuit_breaker(breaker.clone())
            .classifier(TonicClassifier::new())
            .build()
            .unwrap();
        for _ in 0..20 {
            script.is([failing(code)]);
            assert!(say(&pipeline, &channel(address), CallOptions::new()).await.result.is_err());
        }
        assert_eq!(matches!(breaker.state(), CircuitState::Open { .. }), opens, "{code:?}");
        // What the circuit has refused never reached the server.
        assert_eq!(script.seen().len(), if opens { 10 } else { 20 });
    }
}

/// Circuit breaker around the channel, retry around the method.
#[tokio::test]
async fn what_a_layer_around_the_channel_refuses_is_a_rejection_to_a_pipeline_around_the_method() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    let breaker = CircuitBreaker::builder().consecutive_failures(2).consecutive_span(Duration::ZERO);
    let inner =
        Pipeline::builder("channel").circuit_breaker(breaker).classifier(ChannelClassifier::new()).build().unwrap();
    let layer = PipelineLayer::with_requests(inner, ChannelRequests::new());
    let client = EchoClient::new(ServiceBuilder::new().map_err(Status::from).layer(layer).service(channel(address)));
    script.is((0..10).map(|_| failing(Code::Unavailable)));
    let attempt = |attempt: Attempt| {
        let (mut client, request) = (client.clone(), request(Bytes::from("hello"), attempt));
        async move { client.say(request).await.map(Response::into_inner) }
    };
    let outcome = retrying(5).outcome_with(CallOptions::new(), attempt).await;
    // Two attempts open the circuit, and the third is no attempt: the outcome is the last real one.
    assert_eq!(script.seen().len(), 2);
    assert!(matches!(outcome.verdict(), Verdict::Transient { .. }), "{outcome:?}");
    let outcome = retrying(5).outcome_with(CallOptions::new(), attempt).await;
    assert!(outcome.verdict().is_rejected() && outcome.verdict().hint().is_some(), "{outcome:?}");
    assert_eq!(outcome.label(), "circuit_open");
    assert!(matches!(outcome.result, Err(Error::Operation(status)) if status.code() == Code::Unavailable));
    assert_eq!(script.seen().len(), 0);
}
