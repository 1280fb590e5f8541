//! What OpenTelemetry gets, through the bridge of `tracing-opentelemetry`.

use std::time::Duration;

use opentelemetry::{
    Value,
    trace::{SpanId, Status, TracerProvider},
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing_subscriber::{Registry, layer::SubscriberExt};
use withstand::{Backoff, CallOptions, Jitter, Pipeline, Retry, TracingObserver, Verdict};

fn attribute(span: &SpanData, key: &str) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.clone())
}

#[tokio::test(start_paused = true)]
async fn a_trace_shows_a_call_with_its_attempts() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let bridge = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(Registry::default().with(bridge));
    let backoff = Backoff::constant(Duration::from_millis(5)).jitter(Jitter::None);
    let users = Pipeline::builder("users-api")
        .retry(Retry::builder().backoff(backoff))
        .classify_errors(|_: &()| Verdict::transient().label("http_503"))
        .observer(TracingObserver::new().attempt_spans())
        .build()
        .unwrap();
    let call = users.call_with(CallOptions::new(), |attempt| async move {
        tracing::info_span!("GET /users").in_scope(|| if attempt.number() < 3 { Err(()) } else { Ok(7) })
    });
    assert_eq!(call.await, Ok(7));

    let spans = exporter.get_finished_spans().unwrap();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let [call] = named("withstand.call")[..] else { panic!("{spans:#?}") };
    assert_eq!(call.parent_span_id, SpanId::INVALID);
    assert_eq!(attribute(call, "pipeline"), Some("users-api".into()));
    assert_eq!(attribute(call, "outcome"), Some("success".into()));
    assert_eq!(attribute(call, "attempts"), Some(3.into()));
    assert_eq!(call.status, Status::Unset, "it went well in the end");
    let events: Vec<_> = call.events.iter().map(|event| event.name.as_ref()).collect();
    assert_eq!(events.iter().filter(|name| **name == "retried").count(), 2, "{events:?}");

    let attempts = named("withstand.attempt");
    assert_eq!(attempts.len(), 3);
    for (attempt, (number, failed)) in attempts.iter().zip([(1, true), (2, true), (3, false)]) {
        assert_eq!(attempt.parent_span_id, call.span_context.span_id());
        assert_eq!(attribute(attempt, "attempt"), Some(number.into()));
        assert_eq!(attribute(attempt, "label"), Some(if failed { "http_503" } else { "success" }.into()));
        assert_eq!(matches!(attempt.status, Status::Error { .. }), failed);
    }
    let requests: Vec<_> = named("GET /users").iter().map(|span| span.parent_span_id).collect();
    assert_eq!(requests, attempts.iter().map(|attempt| attempt.span_context.span_id()).collect::<Vec<_>>());
}
