//! From tokio's clock to [`Moment`]s and back, and one reading shared by all that happens at the same edge of a call.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::time::Instant;

use crate::engine::moment::{Moment, nanos};

/// The moment of the epoch: 146 years after zero, so that instants before it have a moment too (a test's paused clock may
/// be far ahead of another's, and whichever is read first sets the epoch).
const EPOCH_NANOS: u64 = 1 << 62;

#[inline]
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

#[inline]
pub(crate) fn moment_of(instant: Instant) -> Moment {
    let epoch = epoch();
    let nanos = match instant.checked_duration_since(epoch) {
        Some(after) => EPOCH_NANOS.saturating_add(nanos(after)),
        None => EPOCH_NANOS.saturating_sub(nanos(epoch.duration_since(instant))),
    };
    Moment::from_nanos(nanos)
}

/// None where the moment is further away than the platform's clock can say: it never comes.
pub(crate) fn instant_of(moment: Moment) -> Option<Instant> {
    if moment == Moment::NEVER {
        return None;
    }
    let epoch_moment = Moment::from_nanos(EPOCH_NANOS);
    if moment >= epoch_moment {
        epoch().checked_add(moment.since(epoch_moment))
    } else {
        epoch().checked_sub(epoch_moment.since(moment))
    }
}

#[inline]
pub(crate) fn now() -> Moment {
    moment_of(Instant::now())
}

/// A reading of the clock that everything at the same edge of a call shares.
///
/// Void after a `Pending` and after user code ran: the call's future clears it at the start of each poll, the innermost
/// operation when it completes.
#[derive(Debug, Default)]
pub(crate) struct Reading(AtomicU64);

impl Reading {
    /// The shared reading; reads the clock if there is none.
    //
    // Relaxed here and below: one task polls a call at a time, and whatever hands the task to another thread orders these
    // accesses. The atomic is there for `Sync`.
    #[inline]
    pub(crate) fn get(&self) -> Moment {
        match self.0.load(Relaxed) {
            0 => {
                let now = now();
                self.0.store(now.nanos(), Relaxed);
                now
            }
            nanos => Moment::from_nanos(nanos),
        }
    }

    #[inline]
    pub(crate) fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The clock of one test may be far ahead of another's, and whichever is read first sets the epoch.
    #[test]
    fn instants_before_the_epoch_have_moments_of_their_own() {
        let hour = Duration::from_secs(3_600);
        let epoch = epoch();
        // Unless the platform's clock began less than an hour ago and cannot say what was before.
        for instant in [epoch.checked_sub(hour), Some(epoch), epoch.checked_add(hour)].into_iter().flatten() {
            assert_eq!(instant_of(moment_of(instant)), Some(instant));
        }
        if let Some(before) = epoch.checked_sub(hour) {
            assert_eq!(moment_of(epoch).since(moment_of(before)), hour);
        }
        assert_eq!(instant_of(Moment::NEVER), None);
    }
}
