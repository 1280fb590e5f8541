//! Where other crates meet this one: one file, one foreign crate, one feature of the same name.

#[cfg(feature = "axum")]
pub(crate) mod axum;
