//! How many instructions a call takes, row by row, against what it took when `instructions.txt` was written.
//!
//! ```text
//! cargo bench --bench instructions               # compares, and fails if a row has grown by more than 5 %
//! cargo bench --bench instructions -- renew      # writes what is so now
//! CARGO_PROFILE_BENCH_DEBUG=line-tables-only cargo bench --bench instructions -- parts
//! ```
//!
//! Unlike times, counts do not depend on what else the machine does. They are taken by valgrind's callgrind, where it is
//! installed, and compared only on the version of Rust and the kind of machine that the file names.

mod count;
mod parts;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    future::{Future, poll_fn},
    hint::black_box,
    pin::pin,
    process::{Command, ExitCode},
    task::{Context, Poll, Waker},
    time::Duration,
};

use count::of_one_call;
use tokio::runtime::Builder;
use withstand::{Backoff, Bulkhead, CircuitBreaker, Fallback, Hedge, Jitter, Pipeline, Retry, Timeout};

/// Growth of a row, in percent, that is no news.
const TOLERANCE: u64 = 5;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn ready() -> Result<u64, u64> {
    black_box(Ok(1))
}

async fn failing() -> Result<u64, u64> {
    black_box(Err(1))
}

/// What every real call does: it waits once.
async fn pending_once() -> Result<u64, u64> {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    black_box(Ok(1))
}

/// Polls a call to its end, where it stands, so many times.
macro_rules! calls {
    ($number:expr, $call:expr) => {
        for _ in 0..$number {
            let mut call = pin!($call);
            let mut task = Context::from_waker(Waker::noop());
            while black_box(call.as_mut()).poll(&mut task).is_pending() {}
        }
    };
}

type Row = (&'static str, fn(u32));

macro_rules! rows {
    ($($name:literal: $policy:expr, $operation:expr;)*) => {
        &[$(($name, |number| {
            let policy = $policy;
            calls!(number, policy.call($operation));
        })),*]
    };
}

const ROWS: &[Row] = rows! {
    "pipeline without layers": Pipeline::builder("empty").build().unwrap(), ready;
    "timeout": Timeout::new(seconds(1)).unwrap(), ready;
    "timeout, pending once": Timeout::new(seconds(1)).unwrap(), pending_once;
    "four timeouts": timeouts(), ready;
    "four timeouts, pending once": timeouts(), pending_once;
    "retry": Retry::builder().build().unwrap(), ready;
    "retry, two attempts": at_once(2), failing;
    "retry, four attempts": at_once(4), failing;
    "bulkhead": Bulkhead::builder().limit(100).build().unwrap(), ready;
    "bulkhead with a queue": Bulkhead::builder().limit(100).queue(10).build().unwrap(), ready;
    "bulkhead, full": Bulkhead::builder().limit(0).build().unwrap(), ready;
    "breaker, consecutive": CircuitBreaker::builder().consecutive_failures(5).build().unwrap(), ready;
    "breaker, count window": CircuitBreaker::builder().count_window(100).build().unwrap(), ready;
    "breaker, time window": CircuitBreaker::builder().build().unwrap(), ready;
    "breaker, open": open(), ready;
    "hedge, fixed delay": Hedge::builder().delay(Duration::from_millis(50)).build().unwrap(), ready;
    "hedge, pending once": Hedge::builder().delay(Duration::from_millis(50)).build().unwrap(), pending_once;
    "hedge, quantile": Hedge::builder().build().unwrap(), ready;
    "fallback": Fallback::value(0_u64).build().unwrap(), ready;
    "full stack": full(), ready;
    "full stack, pending once": full(), pending_once;
    "standard": Pipeline::standard("standard").build().unwrap(), ready;
    "standard, pending once": Pipeline::standard("standard").build().unwrap(), pending_once;
    "standard, hedged": Pipeline::standard_hedged("hedged").build().unwrap(), ready;
};

/// Those of optional features: `cargo bench --bench instructions --all-features` counts them too.
const OPTIONAL: &[Row] = &[
    #[cfg(feature = "keyed")]
    ("timeout of a key", |number| {
        let tenants = withstand::Keyed::<String, Timeout>::builder(|_| Timeout::new(seconds(1))).build().unwrap();
        let keys: Vec<_> = (0..100).map(|key| format!("tenant {key}")).collect();
        for key in &keys {
            drop(tenants.get(key));
        }
        // All of them in turn: where one lies in the map is a matter of chance.
        let mut next = keys.iter().cycle();
        // Another operation than that of the other rows, whose code stays what it is without this one.
        calls!(number, async {
            let tenant = tenants.get(next.next().unwrap());
            tenant.call(|| async { black_box(Ok::<u64, u64>(1)) }).await
        });
    }),
];

fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(OPTIONAL)
}

fn timeouts() -> Pipeline<impl withstand::Policy<u64, u64>, impl withstand::Classify<u64, u64>> {
    let pipeline = Pipeline::builder("timeouts").timeout(seconds(4)).timeout(seconds(3)).timeout(seconds(2));
    pipeline.timeout(seconds(1)).build().unwrap()
}

/// So many attempts, without a wait between them.
fn at_once(attempts: u32) -> Retry {
    let backoff = Backoff::constant(Duration::ZERO).jitter(Jitter::None);
    Retry::builder().max_attempts(attempts).backoff(backoff).without_budget().build().unwrap()
}

fn full() -> Pipeline<impl withstand::Policy<u64, u64>, impl withstand::Classify<u64, u64>> {
    Pipeline::builder("full")
        .timeout(seconds(4))
        .retry(Retry::builder())
        .bulkhead(Bulkhead::builder().limit(100))
        .circuit_breaker(CircuitBreaker::builder().count_window(100))
        .timeout(seconds(1))
        .build()
        .unwrap()
}

fn open() -> CircuitBreaker {
    let breaker = CircuitBreaker::builder().consecutive_failures(1).consecutive_span(Duration::ZERO);
    let breaker = breaker.open_for(seconds(3600)).max_open_for(seconds(3600)).build().unwrap();
    breaker.admit().unwrap().failure("down");
    breaker
}

/// Where the counts of the file are valid.
fn place() -> String {
    let version = Command::new(env::var("RUSTC").unwrap_or_else(|_| "rustc".into())).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("{}, {}", version.unwrap_or_default(), env::consts::ARCH)
}

fn baseline() -> (String, BTreeMap<String, u64>) {
    let file = fs::read_to_string(BASELINE).unwrap_or_default();
    let mut lines = file.lines();
    let place = lines.next().unwrap_or_default().to_owned();
    let row = |line: &str| {
        let (name, count) = line.rsplit_once(' ')?;
        Some((name.trim().to_owned(), count.parse().ok()?))
    };
    (place, lines.filter_map(row).collect())
}

fn compare(renew: bool) -> ExitCode {
    let (place_then, then) = baseline();
    let place_now = place();
    if !renew && place_now != place_then {
        println!("The counts are of {place_then}, and this is {place_now}: nothing to compare. Renew them here:");
        println!("    cargo bench --bench instructions -- renew");
        return ExitCode::SUCCESS;
    }
    let (mut file, mut grown) = (format!("{place_now}\n"), 0);
    println!("{:<28}{:>8}{:>8}", "instructions of one call", "now", "then");
    for (row, _) in rows() {
        let Some(now) = of_one_call(row) else {
            println!("valgrind is not installed here, so nothing was counted.");
            return ExitCode::SUCCESS;
        };
        let _infallible = writeln!(file, "{row:<28}{now:>8}");
        let before = then.get(*row).copied();
        let has_grown = before.is_none_or(|before| now * 100 > before * (100 + TOLERANCE));
        grown += u32::from(has_grown);
        let mark = if has_grown { "  grown" } else { "" };
        println!("{row:<28}{now:>8}{:>8}{mark}", before.map_or_else(|| "-".to_owned(), |before| before.to_string()));
    }
    if renew {
        fs::write(BASELINE, file).expect("the folder of the benches can be written to");
        println!("written to benches/instructions.txt");
        return ExitCode::SUCCESS;
    }
    if grown > 0 {
        println!("{grown} rows have grown. If that is worth it: cargo bench --bench instructions -- renew");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    if words.contains(&"parts") {
        parts::print(rows().map(|(name, _)| *name));
        return ExitCode::SUCCESS;
    }
    let ["run", row, calls] = words[..] else {
        return compare(words.contains(&"renew"));
    };
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let (_, run) = rows().find(|(name, _)| *name == row).expect("a row of that name");
    run(calls.parse().expect("a number of calls"));
    ExitCode::SUCCESS
}
