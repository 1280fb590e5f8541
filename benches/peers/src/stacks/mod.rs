//! What is set up in more than one row: each peer's policies, and everyone's full stack.

pub mod hand_made;
pub mod seatbelt;
pub mod throttle;
pub mod tower;
pub mod withstand;

use std::time::Duration;

/// The limit of an attempt.
pub const ATTEMPT: Duration = seconds(1);
/// The limit of a call.
pub const TOTAL: Duration = seconds(4);
/// The time that a window looks back.
pub const WINDOW: Duration = seconds(30);
/// The first wait of a retry.
pub const BACKOFF: Duration = Duration::from_millis(50);

/// So many.
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Calls a tower service that is kept, in the cheapest way that respects its readiness.
macro_rules! serve {
    ($service:ident) => {
        async { $service.ready().await?.call(()).await }
    };
}
pub(crate) use serve;
