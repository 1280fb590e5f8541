//! Two threads at once against one, on the same breaker, budget or bulkhead.

use std::{
    fmt::Write,
    fs, hint,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    stats::{Estimate, median},
    who::Who,
};

/// How long one sample takes, about.
const SAMPLE: Duration = Duration::from_micros(250);
/// The second thread looks whether it is to stop every so many calls.
const BATCH: u32 = 100;
/// A sample during which somebody else got a processor is taken again, at most so often.
const TRIES: u32 = 50;
/// Of fewer rounds nothing is said.
const FEWEST: usize = 15;
/// Both together are to do so many times what one does alone, ...
const GAIN: f64 = 1.3;
/// ... or so much of what the same two threads do on what they are compared with.
const SHARE: f64 = 0.9;

/// Makes so many calls.
pub type Work = Arc<dyn Fn(u32) + Send + Sync>;

/// One thing that two threads share.
pub struct Shared {
    /// Whose it is.
    pub who: Who,
    work: Work,
    calls: u32,
    /// Nanoseconds for each call of one thread alone, by round.
    alone: Vec<f64>,
    /// The same of both at once: the time over the calls of both.
    both: Vec<f64>,
}

impl Shared {
    /// One that has not been measured.
    pub fn new(who: Who, work: Work) -> Self {
        Self { who, work, calls: BATCH, alone: vec![], both: vec![] }
    }
}

/// What two threads share, by everyone who has it.
pub struct Row {
    /// What it is.
    pub name: &'static str,
    /// Who can do it.
    pub contestants: Vec<Shared>,
    /// Where it is to stand.
    pub target: Target,
}

/// All rows, measured.
pub struct Contention {
    rows: Vec<Row>,
    /// Samples that could not be taken, since somebody else used the processors all the time.
    disturbed: u32,
    samples: u32,
}

/// Where a row is to stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nowhere: it is there to be compared with.
    None,
    /// [`GAIN`] of one thread, or [`SHARE`] of one shared atomic add.
    Atomic,
    /// [`SHARE`] of a bare semaphore in the same row.
    Semaphore,
}

/// The row that [`Target::Atomic`] refers to.
pub const ATOMIC: &str = "floor: one shared atomic add";

/// A second thread, which sleeps until it is needed.
struct Second {
    orders: Sender<(Work, Arc<Meeting>)>,
    done: Receiver<Beside>,
}

/// Where two threads start and stop together.
#[derive(Default)]
struct Meeting {
    here: AtomicBool,
    started: AtomicBool,
    over: AtomicBool,
}

/// What the second thread did.
struct Beside {
    calls: u32,
    undisturbed: bool,
}

impl Second {
    fn start() -> Self {
        let (orders, ordered) = channel::<(Work, Arc<Meeting>)>();
        let (tell, done) = channel();
        thread::spawn(move || {
            for (work, meeting) in ordered {
                let turns = turns();
                meeting.here.store(true, Release);
                wait_for(&meeting.started);
                let mut calls = 0;
                while !meeting.over.load(Acquire) {
                    work(BATCH);
                    calls += BATCH;
                }
                tell.send(Beside { calls, undisturbed: turns == self::turns() })
                    .expect("the first thread waits for this");
            }
        });
        Self { orders, done }
    }

    /// The time for each call if the first thread makes so many, and the second as many as it can meanwhile; and whether
    /// both had a processor for themselves all the time.
    fn beside(&self, work: &Work, calls: u32) -> (f64, bool) {
        let meeting = Arc::<Meeting>::default();
        self.orders.send((work.clone(), meeting.clone())).expect("the second thread lives as long as this");
        wait_for(&meeting.here);
        let turns = turns();
        meeting.started.store(true, Release);
        let took = time(work, calls);
        let undisturbed = turns == self::turns();
        meeting.over.store(true, Release);
        let beside = self.done.recv().expect("the second thread answers");
        (nanos(took, calls + beside.calls), undisturbed && beside.undisturbed)
    }
}

/// One thread alone.
fn alone(work: &Work, calls: u32) -> (f64, bool) {
    let turns = turns();
    let took = time(work, calls);
    (nanos(took, calls), turns == self::turns())
}

/// How often this thread has been given a processor, and how long it has waited for one: unchanged if nobody took it
/// away. Nothing where the system does not say.
fn turns() -> Option<String> {
    let said = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(said.split_once(' ')?.1.to_owned())
}

/// Samples until nobody takes a processor away meanwhile, but not for ever: then there is no sample in this round.
fn sample(samples: &mut Vec<f64>, disturbed: &mut u32, take: impl Fn() -> (f64, bool)) {
    for _ in 0..TRIES {
        let (nanos, undisturbed) = take();
        if undisturbed {
            return samples.push(nanos);
        }
        thread::sleep(SAMPLE);
    }
    *disturbed += 1;
    samples.push(f64::NAN);
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Acquire) {
        hint::spin_loop();
    }
}

fn time(work: &Work, calls: u32) -> Duration {
    let start = Instant::now();
    work(calls);
    start.elapsed()
}

fn nanos(took: Duration, calls: u32) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(calls)
}

/// Samples everything once in each round: one thread alone, and both at once, in turns.
pub fn measure(rows: Vec<Row>, rounds: u32) -> Contention {
    let mut rows = rows;
    let second = Second::start();
    for one in rows.iter_mut().flat_map(|row| &mut row.contestants) {
        while time(&one.work, one.calls) < SAMPLE && one.calls < 1 << 20 {
            one.calls *= 2;
        }
    }
    let mut disturbed = 0;
    for round in 0..rounds {
        for one in rows.iter_mut().flat_map(|row| &mut row.contestants) {
            for turn in 0..2 {
                if (round + turn) % 2 == 0 {
                    sample(&mut one.alone, &mut disturbed, || alone(&one.work, one.calls));
                } else {
                    sample(&mut one.both, &mut disturbed, || second.beside(&one.work, one.calls));
                }
            }
        }
    }
    let samples =
        rounds * 2 * u32::try_from(rows.iter().map(|row| row.contestants.len()).sum::<usize>()).expect("a few");
    Contention { rows, disturbed, samples }
}

/// A table of all rows, and how many samples are missing.
pub fn markdown(Contention { rows, disturbed, samples }: &Contention) -> String {
    let add = rows.iter().find(|row| row.name == ATOMIC).map(|row| &row.contestants[0]).expect("the floor");
    let mut text =
        "| shared by two threads | whose | one thread, ns | both, ns | both over one | both over two on an atomic \
                    add | |\n|---|---|--:|--:|--:|--:|---|\n"
            .to_owned();
    for row in rows {
        for one in &row.contestants {
            let (gain, over_add) = (ratio(&one.alone, &one.both), ratio(&add.both, &one.both));
            let verdict = verdict(row, one, gain, over_add);
            let (alone, both) = (nanos_of(&one.alone), nanos_of(&one.both));
            let (gain, over_add) = (said(gain), said(over_add));
            let who = one.who.name();
            let _ = writeln!(text, "| {} | {who} | {alone} | {both} | {gain} | {over_add} | {verdict} |", row.name);
        }
    }
    let _ = writeln!(text, "\nSamples missing because the processors were never free: {disturbed} of {samples}.");
    text
}

fn verdict(row: &Row, one: &Shared, gain: Option<Estimate>, over_add: Option<Estimate>) -> String {
    let met = |met: bool| if met { "met" } else { "**missed**" };
    if one.who != Who::Withstand || row.target == Target::None {
        return String::new();
    }
    let (Some(gain), Some(over_add)) = (gain, over_add) else { return "not measured".to_owned() };
    if row.target == Target::Atomic {
        return met(gain.high >= GAIN || over_add.high >= SHARE).to_owned();
    }
    let semaphore = row.contestants.iter().find(|one| one.who == Who::HandMade).expect("a semaphore");
    let share = ratio(&semaphore.both, &one.both);
    format!("{} of the semaphore's: {}", said(share), met(share.is_some_and(|share| share.high >= SHARE)))
}

/// Of throughputs, so of times the other way round. None of too few samples.
fn ratio(theirs: &[f64], ours: &[f64]) -> Option<Estimate> {
    let ratios: Vec<f64> =
        theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).filter(|sample| !sample.is_nan()).collect();
    (ratios.len() >= FEWEST).then(|| Estimate::of(ratios))
}

fn said(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(|| "-".to_owned(), |estimate| estimate.to_string())
}

fn nanos_of(samples: &[f64]) -> String {
    let there: Vec<f64> = samples.iter().copied().filter(|sample| !sample.is_nan()).collect();
    if there.is_empty() { "-".to_owned() } else { format!("{:.1}", median(&there)) }
}

/// Something that two threads share, and what each does with it. `state` is made once; `nth` counts the calls of a
/// sample; the output is checked.
#[macro_export]
macro_rules! shared {
    ($who:expr, $expected:pat, $state:ident = $new:expr, $nth:pat => $call:expr) => {{
        let $state = $new;
        $crate::contention::Shared::new(
            $who,
            ::std::sync::Arc::new(move |calls| {
                for $nth in 0..calls {
                    let output = $call;
                    match ::std::hint::black_box(&output) {
                        $expected => {}
                        #[allow(unreachable_patterns, reason = "some expect anything")]
                        _ => panic!("not what the row is about"),
                    }
                }
            }),
        )
    }};
}
