//! Spans and events, as a subscriber of `tracing` gets them, and as OpenTelemetry does.
#![cfg(test)]

mod opentelemetry;
mod recorded;
mod spans;
