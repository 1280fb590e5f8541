//! Floor 0: state machines and arithmetic. No tokio, no clock, no events: time is an argument.

pub(crate) mod apart;
pub(crate) mod backoff;
pub(crate) mod budget;
#[cfg(test)]
pub(crate) mod checks;
pub(crate) mod circuit;
pub(crate) mod moment;
pub(crate) mod quantile;
pub(crate) mod refused;
pub(crate) mod rng;
pub(crate) mod sync;
pub(crate) mod tuned;
pub(crate) mod window;
