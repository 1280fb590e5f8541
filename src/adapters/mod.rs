//! Where other crates meet this one: one file, one foreign crate, one feature of the same name.

#[cfg(feature = "axum")]
pub(crate) mod axum;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "tracing")]
pub(crate) mod tracing;
#[cfg(feature = "http")]
pub mod http;
