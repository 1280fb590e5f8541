//! Permits are conserved: random commands against a simple model.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use proptest::{collection::vec, prelude::*};
use tokio::time::{Instant, advance};
use withstand::{Bulkhead, Error, Reason, Rejection};

use crate::{all_permits, support::ms};

const MAX_WAIT: u64 = 50;

#[derive(Clone, Copy, Debug)]
enum Command {
    /// A call begins.
    Call,
    /// The same without wrapping.
    Acquire,
    /// One of those that run ends.
    End(usize, End),
    /// One of all is dropped: it waits, or runs, or has been given a permit that it does not know of yet.
    Drop(usize),
    SetLimit(usize),
    /// Milliseconds go by.
    Pass(u64),
    /// Whoever was woken is polled. Not polled otherwise: a waiter that nobody wakes waits for ever.
    RunWoken,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Answer,
    Fail,
    Panic,
}

fn command() -> impl Strategy<Value = Command> {
    let end = prop_oneof![Just(End::Answer), Just(End::Fail), Just(End::Panic)];
    let limit = prop_oneof![6 => 0..5_usize, 1 => Just(Bulkhead::MAX_LIMIT), 1 => Just(usize::MAX)];
    prop_oneof![
        6 => Just(Command::Call),
        2 => Just(Command::Acquire),
        5 => (any::<usize>(), end).prop_map(|(which, end)| Command::End(which, end)),
        3 => any::<usize>().prop_map(Command::Drop),
        2 => limit.prop_map(Command::SetLimit),
        2 => (1..4_u64).prop_map(|tens| Command::Pass(10 * tens)),
        6 => Just(Command::RunWoken),
    ]
}

/// What an operation does next, and whether it runs.
#[derive(Default)]
struct Control {
    runs: AtomicBool,
    end: Mutex<Option<End>>,
}

async fn operation(control: &Control) -> Result<(), &'static str> {
    control.runs.store(true, Ordering::Relaxed);
    poll_fn(|_| match *control.end.lock().unwrap() {
        None => Poll::Pending,
        Some(End::Answer) => Poll::Ready(Ok(())),
        Some(End::Fail) => Poll::Ready(Err("failed")),
        Some(End::Panic) => panic!("in the operation"),
    })
    .await
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the model knows of a task.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waits {
        since: Instant,
    },
    /// It has a permit and does not know yet.
    Given,
    Runs,
}

type Call<'a> = Pin<Box<dyn Future<Output = Result<(), Error<&'static str>>> + Send + 'a>>;

struct Task<'a> {
    future: Call<'a>,
    control: Arc<Control>,
    woken: Arc<Flag>,
    state: State,
}

impl Task<'_> {
    fn poll(&mut self) -> Poll<Result<(), Error<&'static str>>> {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.woken.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

/// The bulkhead, and what it should be like.
struct Model<'a> {
    bulkhead: &'a Bulkhead,
    limit: usize,
    queue: usize,
    /// In the order in which they came.
    tasks: Vec<Task<'a>>,
}

impl<'a> Model<'a> {
    fn in_use(&self) -> usize {
        self.tasks.iter().filter(|task| matches!(task.state, State::Given | State::Runs)).count()
    }

    fn queued(&self) -> usize {
        self.tasks.iter().filter(|task| task.state != State::Runs).count()
    }

    /// Permits that are free go to those who wait, the first first.
    fn give(&mut self) {
        while self.in_use() < self.limit {
            let Some(first) = self.tasks.iter_mut().find(|task| matches!(task.state, State::Waits { .. })) else {
                return;
            };
            first.state = State::Given;
        }
    }

    fn begin(&mut self, wrapped: bool) {
        let control = Arc::new(Control::default());
        let (bulkhead, of_task) = (self.bulkhead, control.clone());
        let future: Call<'a> = if wrapped {
            Box::pin(async move { bulkhead.call(|| operation(&of_task)).await })
        } else {
            Box::pin(async move {
                let _permit = bulkhead.acquire().await?;
                operation(&of_task).await.map_err(Error::Operation)
            })
        };
        let expected = if self.in_use() < self.limit {
            Some(State::Runs)
        } else if self.limit > 0 && self.queued() < self.queue {
            Some(State::Waits { since: Instant::now() })
        } else {
            None
        };
        let state = expected.unwrap_or(State::Runs);
        let mut task = Task { future, control, woken: Arc::default(), state };
        match task.poll() {
            Poll::Ready(result) => {
                assert_eq!(expected, None, "refused");
                assert_eq!(result.unwrap_err().rejection().map(Rejection::reason), Some(Reason::BulkheadFull));
            }
            Poll::Pending => {
                assert!(expected.is_some(), "not refused");
                self.tasks.push(task);
            }
        }
    }

    fn end(&mut self, which: usize, end: End) {
        let running: Vec<usize> = (0..self.tasks.len()).filter(|&i| self.tasks[i].state == State::Runs).collect();
        if running.is_empty() {
            return;
        }
        let mut task = self.tasks.remove(running[which % running.len()]);
        *task.control.end.lock().unwrap() = Some(end);
        match (catch_unwind(AssertUnwindSafe(|| task.poll())), end) {
            (Ok(Poll::Ready(Ok(()))), End::Answer)
            | (Ok(Poll::Ready(Err(Error::Operation("failed")))), End::Fail)
            | (Err(_), End::Panic) => {}
            (other, _) => panic!("{end:?} gave {other:?}"),
        }
        drop(task);
        self.give();
    }

    fn run_woken(&mut self) {
        let mut index = 0;
        while let Some(task) = self.tasks.get_mut(index) {
            let is_late =
                matches!(task.state, State::Waits { since } if Instant::now().duration_since(since) >= ms(MAX_WAIT));
            let is_woken = task.woken.0.load(Ordering::Relaxed);
            let poll = if is_woken { task.poll() } else { Poll::Pending };
            match poll {
                Poll::Ready(result) => {
                    assert!(is_late, "{:?}", task.state);
                    assert_eq!(result.unwrap_err().rejection().map(Rejection::reason), Some(Reason::QueueTimeout));
                    drop(self.tasks.remove(index));
                }
                Poll::Pending => {
                    assert!(!is_late, "nobody has told it that its time is up");
                    if task.state == State::Given {
                        task.state = State::Runs;
                    }
                    index += 1;
                }
            }
        }
    }

    async fn apply(&mut self, command: Command) {
        match command {
            Command::Call => self.begin(true),
            Command::Acquire => self.begin(false),
            Command::End(which, end) => self.end(which, end),
            Command::Drop(_) if self.tasks.is_empty() => {}
            Command::Drop(which) => {
                drop(self.tasks.remove(which % self.tasks.len()));
                self.give();
            }
            Command::SetLimit(usize::MAX) => assert!(self.bulkhead.set_limit(usize::MAX).is_err()),
            Command::SetLimit(limit) => {
                self.bulkhead.set_limit(limit).unwrap();
                self.limit = limit;
                self.give();
            }
            Command::Pass(millis) => advance(ms(millis)).await,
            Command::RunWoken => self.run_woken(),
        }
    }

    fn check(&self) {
        assert_eq!(self.bulkhead.limit(), self.limit, "limit");
        assert_eq!(self.bulkhead.in_use(), self.in_use(), "in use");
        assert_eq!(self.bulkhead.queued(), self.queued(), "queued");
        for task in &self.tasks {
            assert_eq!(task.control.runs.load(Ordering::Relaxed), task.state == State::Runs, "{:?}", task.state);
        }
    }
}

proptest! {
    #![proptest_config(crate::support::trials::cases(1024))]

    #[test]
    fn permits_are_conserved_whatever_happens(
        limit in 0..5_usize,
        queue in 0..5_usize,
        commands in vec(command(), 1..100),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let builder = Bulkhead::builder().limit(limit).queue(queue);
            let builder = if queue > 0 { builder.max_wait(ms(MAX_WAIT)) } else { builder };
            let bulkhead = builder.build().unwrap();
            let mut model = Model { bulkhead: &bulkhead, limit, queue, tasks: Vec::new() };
            for command in commands {
                model.apply(command).await;
                model.check();
            }
            model.tasks.clear();
            assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 0));
            let few = model.limit.min(10);
            bulkhead.set_limit(few).unwrap();
            assert_eq!(all_permits(&bulkhead).len(), few);
        });
    }
}
