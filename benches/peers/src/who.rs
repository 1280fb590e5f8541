//! The contestants, and what each lacks.

/// Whose way of doing the work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Nobody's: what can be had for no less.
    Floor,
    /// This crate.
    Withstand,
    /// What one writes with tokio and small crates: failsafe, backon.
    HandMade,
    /// The same with recloser for failsafe.
    HandMadeCount,
    /// failsafe
    Failsafe,
    /// recloser
    Recloser,
    /// backon
    Backon,
    /// tokio-retry
    TokioRetry,
    /// throttle-net
    ThrottleNet,
    /// seatbelt
    Seatbelt,
    /// tower
    Tower,
    /// tower-resilience
    TowerResilience,
}

impl Who {
    /// All that are compared with this crate, as the columns follow each other.
    pub const PEERS: [Self; 10] = [
        Self::HandMade,
        Self::HandMadeCount,
        Self::Failsafe,
        Self::Recloser,
        Self::Backon,
        Self::TokioRetry,
        Self::ThrottleNet,
        Self::Seatbelt,
        Self::Tower,
        Self::TowerResilience,
    ];

    /// As the tables say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Withstand => "withstand",
            Self::HandMade => "hand-made",
            Self::HandMadeCount => "hand-made, recloser",
            Self::Failsafe => "failsafe",
            Self::Recloser => "recloser",
            Self::Backon => "backon",
            Self::TokioRetry => "tokio-retry",
            Self::ThrottleNet => "throttle-net",
            Self::Seatbelt => "seatbelt",
            Self::Tower => "tower",
            Self::TowerResilience => "tower-resilience",
        }
    }
}

/// What to know when comparing.
pub const NOTES: &str = "\
- **withstand** is as its builders make it: a retry and a hedge with their budgets, verdicts, and the hook for events (with no
  observer). The rows that say `no budget` are without.
- **hand-made**: tokio's `timeout` and `Semaphore`; the full stack is a tokio timeout around backon around a semaphore
  around failsafe (consecutive failures: it has no count window) around a tokio timeout. **hand-made, recloser** has
  recloser in place of failsafe, which counts the last 100 calls. Neither has a budget, hints, events, or a deadline
  that the layers share.
- **failsafe**: no count window. Its time window is a moving average. Half-open, it lets every call through, and the first
  success closes it. It takes a lock.
- **recloser**: a count window only. Half-open, it lets every call through until enough have answered.
- **backon**, **tokio-retry**: no budget.
- **throttle-net**: its breaker wraps a rate limiter; here one that grants everything. Its time window counts failures,
  not calls. Its hedge has no budget and no quantile. Its full stack is composed by hand, without its budget for
  retries.
- **seatbelt**: no bulkhead, so its full stack does less than the others'. Its breaker has a time window only. No budgets.
  Its timers are those of its own clock, which a task on tokio drives where the row names a runtime.
- **tower**: no breaker, no fallback, so no full stack. Its bulkhead is `LoadShed<ConcurrencyLimit>`; its hedge has a
  quantile and no fixed delay. Its budget is for retries.
- **tower-resilience**: boxes a future in each layer. Its count window holds all calls since the circuit last
  changed, and does not slide. Its time window keeps every call and goes through all of them at each, so that its time
  grows with the traffic: the number here is that of this run. No hedge budget, no quantile. Its bulkhead refuses a call by a
  timer of no length, so at the next tick of the clock, about a millisecond later: not measured.
- **governor** limits rates, which none of the rows does: its check is shown beside the floor.
- Services of tower and tower-resilience are called through a clone that is kept: `ready().await?.call(())`.
";
