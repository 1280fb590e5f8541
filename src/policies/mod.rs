//! Floor 3: the policies. One file each; they never import each other.

pub(crate) mod bulkhead;
#[cfg(feature = "chaos")]
pub(crate) mod chaos;
pub(crate) mod circuit_breaker;
pub(crate) mod fallback;
pub(crate) mod hedge;
pub(crate) mod retry;
pub(crate) mod timeout;
