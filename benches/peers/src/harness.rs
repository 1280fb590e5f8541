//! Contestants, rows, and the taking of samples in turns.

use std::time::Duration;

use crate::{operation::Operation, who::Who};

/// How long one sample takes: short enough that most are not interrupted, long enough that reading the clock is nothing.
const SAMPLE: Duration = Duration::from_micros(250);

/// Runs so many calls and says how long they took.
pub type Sampler = Box<dyn FnMut(u32) -> Duration>;

/// One way to do the work of a row.
pub struct Contestant {
    /// Whose way it is.
    pub who: Who,
    /// Of what a call handles; none where nothing is called.
    pub sizes: Option<Sizes>,
    /// Nanoseconds for each call, by round.
    pub nanos: Vec<f64>,
    sampler: Sampler,
    calls: u32,
}

/// Sizes in bytes, on the stack or wherever the caller puts the future; what it boxes counts as an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of a call's future.
    pub future: usize,
    /// Of its error.
    pub error: usize,
}

impl Sizes {
    /// Of a call that was made and is not run.
    pub fn of<F: Future<Output: Fallible>>(future: &F) -> Self {
        Self { future: size_of_val(future), error: F::Output::ERROR }
    }
}

/// What a call gives.
pub trait Fallible {
    /// The size of its error.
    const ERROR: usize;
}

impl<T, E> Fallible for Result<T, E> {
    const ERROR: usize = size_of::<E>();
}

/// A fallback that cannot fail.
impl Fallible for u64 {
    const ERROR: usize = 0;
}

impl Contestant {
    /// A contestant that has not been measured.
    pub fn new(who: Who, sizes: Option<Sizes>, sampler: impl FnMut(u32) -> Duration + 'static) -> Self {
        Self { who, sizes, nanos: Vec::new(), sampler: Box::new(sampler), calls: 1 }
    }

    /// Runs so many calls.
    pub fn sample(&mut self, calls: u32) -> Duration {
        (self.sampler)(calls)
    }

    /// Finds how many calls make a sample, warming up on the way.
    fn calibrate(&mut self) {
        let mut calls = 16;
        let took = loop {
            // The shortest of three: an interruption makes none of them shorter.
            let took = (0..3).map(|_| self.sample(calls)).min().expect("three samples");
            if took >= SAMPLE / 4 || calls >= 1 << 20 {
                break took;
            }
            calls *= 4;
        };
        let scale = SAMPLE.as_secs_f64() / took.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of calls")]
        let calls = (f64::from(calls) * scale) as u32;
        self.calls = calls.max(1);
    }

    fn take(&mut self) {
        let took = self.sample(self.calls);
        self.nanos.push(took.as_secs_f64() * 1e9 / f64::from(self.calls));
    }
}

/// One line of the table: the same work, done by each contestant.
pub struct Row {
    /// What is measured.
    pub name: String,
    /// Around which operation; none where it is not called.
    pub operation: Option<Operation>,
    /// Who can do it.
    pub contestants: Vec<Contestant>,
}

impl Row {
    /// A row.
    pub fn new(name: impl Into<String>, operation: Option<Operation>, contestants: Vec<Contestant>) -> Self {
        Self { name: name.into(), operation, contestants }
    }

    /// What tells it from all others.
    pub fn key(&self) -> String {
        key(&self.name, self.operation)
    }
}

/// What tells a row from all others.
pub fn key(name: &str, operation: Option<Operation>) -> String {
    operation.map_or_else(|| name.to_owned(), |operation| format!("{name}, {}", operation.label()))
}

/// Samples everything once in each round. The contestants of a row follow each other at once, and take turns at being
/// first, so that whatever slows the machine down for a while slows all of them down.
pub fn measure(rows: &mut [Row], rounds: u32) {
    for contestant in rows.iter_mut().flat_map(|row| &mut row.contestants) {
        contestant.calibrate();
    }
    for round in 0..rounds as usize {
        for row in rows.iter_mut() {
            let count = row.contestants.len();
            for turn in 0..count {
                row.contestants[(turn + round) % count].take();
            }
        }
    }
}

/// A contestant whose calls are polled by hand. `state` is made once; each call borrows it; its output is checked.
///
/// ```text
/// by_hand!(Who::Failsafe, Ok(1), breaker = new_breaker() => breaker.call(operation.start()))
/// ```
#[macro_export]
macro_rules! by_hand {
    ($who:expr, $expected:pat, $state:ident = $new:expr => $call:expr) => {{
        #[allow(unused_mut, reason = "some are called through a shared reference, some are not")]
        let mut $state = $new;
        let sizes = $crate::harness::Sizes::of(&$call);
        $crate::harness::Contestant::new($who, Some(sizes), move |calls| {
            let start = ::tokio::time::Instant::now();
            for _ in 0..calls {
                let output = $crate::operation::finish(::std::pin::pin!($call));
                let $expected = ::std::hint::black_box(&output) else { panic!("not what the row is about") };
            }
            start.elapsed()
        })
    }};
}

/// A contestant whose calls run in a task of a [`Driven`](crate::driven::Driven) runtime. The state is made within it,
/// and cloned for each sample.
#[macro_export]
macro_rules! on_runtime {
    ($runtime:expr, $who:expr, $expected:pat, $state:ident = $new:expr => $call:expr) => {{
        let runtime = ::std::sync::Arc::clone($runtime);
        let made = runtime.within(|| $new);
        let sizes = {
            #[allow(unused_mut, reason = "some are called through a shared reference, some are not")]
            let mut $state = made.clone();
            $crate::harness::Sizes::of(&$call)
        };
        $crate::harness::Contestant::new($who, Some(sizes), move |calls| {
            #[allow(unused_mut, reason = "some are called through a shared reference, some are not")]
            let mut $state = made.clone();
            runtime.run(async move {
                let start = ::tokio::time::Instant::now();
                for _ in 0..calls {
                    let output = $call.await;
                    let $expected = ::std::hint::black_box(&output) else { panic!("not what the row is about") };
                }
                start.elapsed()
            })
        })
    }};
}
