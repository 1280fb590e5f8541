//! What an observer costs that nobody hears: no recorder, no subscriber. It fails if that is more than a tenth of a call
//! without an observer.
//!
//! ```text
//! cargo bench --features metrics,tracing --bench observers
//! ```

#[path = "instructions/count.rs"]
mod count;

use std::{
    env,
    future::{Future, poll_fn},
    hint::black_box,
    pin::pin,
    process::ExitCode,
    task::{Context, Poll, Waker},
};

use count::of_one_call;
use tokio::runtime::Builder;
use withstand::{MetricsObserver, Observers, Pipeline, TracingObserver};

/// The most that an observer may add, in percent, to a call through the standard layers.
const MOST: u64 = 10;

/// What every real call does: it waits once.
async fn pending_once() -> Result<u64, u64> {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    black_box(Ok(1))
}

async fn ready() -> Result<u64, u64> {
    black_box(Ok(1))
}

/// Polls a call to its end, where it stands, so many times.
macro_rules! calls {
    ($number:expr, $pipeline:expr, $operation:expr) => {{
        let pipeline = $pipeline;
        for _ in 0..$number {
            let mut call = pin!(pipeline.call($operation));
            let mut task = Context::from_waker(Waker::noop());
            while black_box(call.as_mut()).poll(&mut task).is_pending() {}
        }
    }};
}

/// The pipeline of that name, with that observer.
fn run(pipeline: &str, observer: &str, number: u32) {
    macro_rules! observed {
        ($builder:expr) => {
            match observer {
                "none" => $builder.build().unwrap(),
                "metrics" => $builder.observer(MetricsObserver::new()).build().unwrap(),
                "tracing" => $builder.observer(TracingObserver::new().attempt_spans()).build().unwrap(),
                _ => $builder.observer(both()).build().unwrap(),
            }
        };
    }
    match pipeline {
        "no layers" => calls!(number, observed!(Pipeline::builder("empty")), ready),
        "standard" => calls!(number, observed!(Pipeline::standard("standard")), ready),
        _ => calls!(number, observed!(Pipeline::standard("standard")), pending_once),
    }
}

fn both() -> Observers {
    Observers::new().with(MetricsObserver::new()).with(TracingObserver::new())
}

fn compare() -> ExitCode {
    let mut worst = 0;
    println!("{:<24}{:>8}{:>8}{:>8}{:>8}", "instructions of one call", "none", "metrics", "tracing", "both");
    for pipeline in ["no layers", "standard", "standard, pending"] {
        print!("{pipeline:<24}");
        let counts: Vec<_> = ["none", "metrics", "tracing", "both"]
            .into_iter()
            .map_while(|observer| {
                let count = of_one_call(&format!("{pipeline}/{observer}"))?;
                print!("{count:>8}");
                Some(count)
            })
            .collect();
        println!();
        let Some((none, observed)) = counts.split_first() else {
            println!("valgrind is not installed here, so nothing was counted.");
            return ExitCode::SUCCESS;
        };
        if pipeline != "no layers" {
            worst = observed.iter().map(|count| (count.saturating_sub(*none)) * 100 / none).fold(worst, u64::max);
        }
    }
    println!("at worst {worst} % more with the standard layers; at most {MOST} % are allowed");
    if worst > MOST { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    let ["run", row, number] = words[..] else { return compare() };
    let (pipeline, observer) = row.split_once('/').expect("a pipeline and an observer");
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    run(pipeline, observer, number.parse().expect("a number of calls"));
    ExitCode::SUCCESS
}
