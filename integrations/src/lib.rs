//! Nothing: the tests and the examples are what this package is for.

/// The examples of the guide's page on moving from other libraries, theirs and ours.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/moving.md")]
struct Moving;
