//! What goes wrong in circuit breakers.

use std::collections::HashMap;

use tokio::time::{Duration, Instant, sleep};
use withstand::{CircuitBreaker, CircuitState, Ticket};

use crate::support::{ms, secs};

const OPEN_FOR: Duration = secs(5);
const WINDOW: u32 = 100;

/// A circuit breaker by hand: ours, or a naive one.
trait Breaker {
    /// Admits a call, and gives it a number.
    fn admit(&mut self) -> Option<u32>;
    fn end(&mut self, call: u32, ok: bool);
    fn abandon(&mut self, call: u32);
    fn is_closed(&self) -> bool;

    fn call(&mut self, ok: bool) -> bool {
        let call = self.admit();
        call.inspect(|call| self.end(*call, ok)).is_some()
    }

    fn calls(&mut self, number: u32, ok: bool) {
        for _ in 0..number {
            self.call(ok);
        }
    }
}

struct Ours<'a> {
    breaker: &'a CircuitBreaker,
    out: HashMap<u32, Ticket<'a>>,
    begun: u32,
}

fn ours() -> CircuitBreaker {
    let builder = CircuitBreaker::builder().count_window(WINDOW).min_calls(20).open_for(OPEN_FOR).growth(1.0);
    builder.probes(1).build().unwrap()
}

impl<'a> Ours<'a> {
    fn new(breaker: &'a CircuitBreaker) -> Self {
        Self { breaker, out: HashMap::new(), begun: 0 }
    }
}

impl Breaker for Ours<'_> {
    fn admit(&mut self) -> Option<u32> {
        self.begun += 1;
        self.out.insert(self.begun, self.breaker.admit().ok()?);
        Some(self.begun)
    }

    fn end(&mut self, call: u32, ok: bool) {
        let ticket = self.out.remove(&call).unwrap();
        if ok {
            ticket.success()
        } else {
            ticket.failure("down")
        };
    }

    fn abandon(&mut self, call: u32) {
        drop(self.out.remove(&call).unwrap());
    }

    fn is_closed(&self) -> bool {
        self.breaker.state() == CircuitState::Closed
    }
}

/// As it is often written: counts since it was closed, and a state that every result changes.
struct Naive {
    successes: u32,
    failures: u32,
    open_since: Option<Instant>,
    /// None for as many probes as there are calls.
    probe_out: Option<bool>,
}

impl Naive {
    const WITH_ONE_PROBE: Self = Self { successes: 0, failures: 0, open_since: None, probe_out: Some(false) };
    const WITH_ANY_PROBES: Self = Self { probe_out: None, ..Self::WITH_ONE_PROBE };
}

impl Breaker for Naive {
    fn admit(&mut self) -> Option<u32> {
        let is_open = self.open_since.is_some_and(|since| since.elapsed() < OPEN_FOR);
        if is_open || self.open_since.is_some() && self.probe_out == Some(true) {
            return None;
        }
        self.probe_out = self.probe_out.map(|_| self.open_since.is_some());
        Some(0)
    }

    fn end(&mut self, _: u32, ok: bool) {
        self.probe_out = self.probe_out.map(|_| false);
        if ok {
            self.successes += 1;
            self.open_since = None;
        } else {
            self.failures += 1;
            let calls = self.successes + self.failures;
            if self.open_since.is_some() || calls >= 20 && self.failures * 2 >= calls {
                self.open_since = Some(Instant::now());
                (self.successes, self.failures) = (0, 0);
            }
        }
    }

    fn abandon(&mut self, _: u32) {}

    fn is_closed(&self) -> bool {
        self.open_since.is_none()
    }
}

/// Opens it, and waits until its break is over.
async fn half_open(breaker: &mut impl Breaker) {
    breaker.calls(WINDOW, false);
    assert!(!breaker.is_closed());
    sleep(OPEN_FOR).await;
}

fn outage_is_seen(mut breaker: impl Breaker) -> bool {
    breaker.calls(100_000, true);
    breaker.calls(WINDOW, false);
    !breaker.is_closed()
}

#[tokio::test(start_paused = true)]
async fn a_count_window_slides_so_that_old_successes_hide_no_outage() {
    assert!(outage_is_seen(Ours::new(&ours())));
    assert!(!outage_is_seen(Naive::WITH_ONE_PROBE));
}

async fn probes_at_half_opening(mut breaker: impl Breaker) -> usize {
    half_open(&mut breaker).await;
    (0..1_000).filter(|_| breaker.admit().is_some()).count()
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_callers_at_half_opening_one_probe_gets_through() {
    assert_eq!(probes_at_half_opening(Ours::new(&ours())).await, 1);
    assert_eq!(probes_at_half_opening(Naive::WITH_ANY_PROBES).await, 1_000);
}

async fn stale_success_closes(mut breaker: impl Breaker) -> bool {
    let stale = breaker.admit().unwrap();
    half_open(&mut breaker).await;
    breaker.end(stale, true);
    breaker.is_closed()
}

#[tokio::test(start_paused = true)]
async fn a_stale_success_does_not_close() {
    assert!(!stale_success_closes(Ours::new(&ours())).await);
    assert!(stale_success_closes(Naive::WITH_ONE_PROBE).await);
}

async fn stale_failure_reopens(mut breaker: impl Breaker) -> bool {
    let stale = breaker.admit().unwrap();
    half_open(&mut breaker).await;
    breaker.end(stale, false);
    breaker.admit().is_none()
}

#[tokio::test(start_paused = true)]
async fn a_stale_failure_does_not_reopen() {
    assert!(!stale_failure_reopens(Ours::new(&ours())).await);
    assert!(stale_failure_reopens(Naive::WITH_ONE_PROBE).await);
}

async fn cancelled_probe_sticks(mut breaker: impl Breaker) -> bool {
    half_open(&mut breaker).await;
    let probe = breaker.admit().unwrap();
    breaker.abandon(probe);
    breaker.admit().is_none()
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_does_not_stick() {
    assert!(!cancelled_probe_sticks(Ours::new(&ours())).await);
    assert!(cancelled_probe_sticks(Naive::WITH_ONE_PROBE).await);
}

async fn hung_probe_sticks(mut breaker: impl Breaker) -> bool {
    half_open(&mut breaker).await;
    let _hangs = breaker.admit().unwrap();
    sleep(secs(3600)).await;
    !breaker.call(true) || !breaker.is_closed()
}

#[tokio::test(start_paused = true)]
async fn a_hung_probe_does_not_stick() {
    assert!(!hung_probe_sticks(Ours::new(&ours())).await);
    assert!(hung_probe_sticks(Naive::WITH_ONE_PROBE).await);
}

/// A window that does not care when results came.
#[tokio::test(start_paused = true)]
async fn a_time_window_slides_too() {
    let breaker = CircuitBreaker::builder().time_window(secs(1)).min_calls(20).build().unwrap();
    let mut breaker = Ours::new(&breaker);
    breaker.calls(100_000, true);
    sleep(secs(1) + ms(100)).await;
    breaker.calls(20, false);
    assert!(!breaker.is_closed());
}
