//! Where other crates meet this one: one file, one foreign crate, one feature of the same name.

#[cfg(feature = "axum")]
pub(crate) mod axum;
#[cfg(any(feature = "reqwest", feature = "tonic"))]
mod causes;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "tracing")]
pub(crate) mod tracing;
