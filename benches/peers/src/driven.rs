//! Runtimes that drive calls, with other timers pending.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, Sleep, sleep_until},
};

/// The other timers of an idle runtime, and of a busy one.
const OTHERS: [u32; 2] = [1, 10_000];
/// The other timers are due within so long, evenly spread: there is one that is nearer than a call's timeouts if there
/// are many, and none if there is one.
const NEAREST: Duration = Duration::from_millis(250);
const SPREAD: Duration = Duration::from_millis(9_750);
const CURRENT: &str = "current-thread";
const MULTI: &str = "multi-thread";

/// A runtime with so many other timers pending. Calls run in a task of it, as a service's calls do.
pub struct Driven {
    /// As the tables say it.
    pub name: String,
    runtime: Runtime,
    others: Mutex<Vec<Pin<Box<Sleep>>>>,
}

impl Driven {
    /// Each kind of runtime, idle and busy.
    pub fn all() -> Vec<Arc<Self>> {
        let both = OTHERS.map(|others| {
            let current = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let multi = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
            [Self::new(CURRENT, current, others), Self::new(MULTI, multi, others)]
        });
        both.into_iter().flatten().map(Arc::new).collect()
    }

    /// The names of [`all`](Self::all).
    pub fn names() -> impl Iterator<Item = String> {
        OTHERS.into_iter().flat_map(|others| [full_name(CURRENT, others), full_name(MULTI, others)])
    }

    fn new(name: &str, runtime: Runtime, others: u32) -> Self {
        let timers = {
            let _entered = runtime.enter();
            (0..others).map(|_| Box::pin(sleep_until(Instant::now()))).collect()
        };
        Self { name: full_name(name, others), runtime, others: Mutex::new(timers) }
    }

    /// Runs that with the runtime entered.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.runtime.enter();
        work()
    }

    /// Runs a task to its end.
    pub fn run(&self, task: impl Future<Output = Duration> + Send + 'static) -> Duration {
        self.arm_others();
        self.runtime.block_on(self.runtime.spawn(task)).expect("no contestant panics")
    }

    /// Puts the other timers where they are to be, however long ago they were there.
    fn arm_others(&self) {
        let _entered = self.runtime.enter();
        let mut others = self.others.lock().expect("nothing panics here");
        let count = u32::try_from(others.len()).expect("a few thousand");
        let now = Instant::now();
        for (timer, nth) in others.iter_mut().zip(0..) {
            timer.as_mut().reset(now + NEAREST + SPREAD / count * (count - nth));
            assert!(timer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }
}

fn full_name(name: &str, others: u32) -> String {
    let plural = if others == 1 { "" } else { "s" };
    format!("{name}, {others} other timer{plural}")
}
