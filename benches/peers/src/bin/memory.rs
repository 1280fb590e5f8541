//! Measures the memory of stacks at rest and of a million calls in flight, for the main executable. One contestant for
//! each process, so that what the allocator keeps of one is not there for the next.

use std::{
    alloc::System,
    env, fs, io,
    process::Command,
    task::{Context, Waker},
};

use layered::Service as _;
use peers::{
    memory::{CALLS_EACH, Memory, STACKS},
    operation::{self, Operation},
    stacks::{hand_made, seatbelt, throttle, tower as towers, withstand as ours},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::ServiceExt as _;
use withstand::Pipeline;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that were allocated since then and are still in use.
fn in_use(since: &Region<'_, System>) -> usize {
    let change = since.change();
    let grown = usize::try_from(change.bytes_reallocated.max(0)).expect("not negative");
    change.bytes_allocated + grown - change.bytes_deallocated
}

/// Bytes of memory that the process has; 0 where the system does not say.
fn resident() -> usize {
    let said = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = said.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

/// Makes stacks, lets each have its calls polled once, and drops all of it.
macro_rules! measure {
    ($who:expr, $nth:pat => $stack:expr, $one:ident => $call:expr) => {{
        let region = Region::new(COUNTING);
        let mut stacks = Vec::with_capacity(STACKS);
        for $nth in 0..STACKS {
            stacks.push($stack);
        }
        let stack = in_use(&region) / STACKS;
        let count = STACKS * CALLS_EACH;
        let mut calls = Vec::with_capacity(count);
        let (region, before) = (Region::new(COUNTING), resident());
        for $one in &stacks {
            for _ in 0..CALLS_EACH {
                let mut call = Box::pin($call);
                assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                calls.push(call);
            }
        }
        let (call, resident) = (in_use(&region) / count, (resident() - before) / count);
        println!("{}", Memory { who: $who.to_owned(), stack, call, resident }.line());
    }};
}

const PENDING: Operation = Operation::PENDING_ONCE;

/// A name, and what measures it.
type Contestant = (&'static str, fn(&str));

const ALL: &[Contestant] = &[
    ("withstand, standard", |who| {
        measure!(who, nth => Pipeline::standard(format!("users-{nth}")).build().unwrap(), stack =>
            stack.call(|| PENDING.start()));
    }),
    ("withstand, standard with a hedge", |who| {
        measure!(who, nth => Pipeline::standard_hedged(format!("users-{nth}")).build().unwrap(), stack =>
            stack.call(|| PENDING.start()));
    }),
    ("withstand, with a count window", |who| {
        measure!(who, _ => ours::full(), stack => stack.call(|| PENDING.start()));
    }),
    ("hand-made", |who| measure!(who, _ => hand_made::with_failsafe(), stack => stack.call(PENDING))),
    ("hand-made, recloser", |who| measure!(who, _ => hand_made::with_recloser(), stack => stack.call(PENDING))),
    ("throttle-net", |who| measure!(who, _ => throttle::full(), stack => stack.call(PENDING))),
    ("seatbelt", |who| measure!(who, _ => seatbelt::full(PENDING), stack => stack.execute(()))),
    ("tower-resilience", |who| {
        measure!(who, _ => towers::full(PENDING), stack => stack.clone().oneshot(()));
    }),
];

fn main() -> io::Result<()> {
    let Some(chosen) = env::args().nth(1) else {
        for (who, _) in ALL {
            assert!(Command::new(env::current_exe()?).arg(who).status()?.success(), "{who} failed");
        }
        return Ok(());
    };
    let runtime = operation::runtime();
    let _entered = runtime.enter();
    let (who, measure) = ALL.iter().find(|(who, _)| *who == chosen).expect("a contestant of that name");
    measure(who);
    Ok(())
}
