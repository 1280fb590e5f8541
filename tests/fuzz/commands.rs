//! Any order of commands to a pipeline and to its parts: what must hold does after each of them, and nothing is left over.

use std::{
    collections::HashSet,
    future::Future,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    runtime,
    sync::oneshot,
    task::{JoinHandle, yield_now},
    time::{Instant, advance, sleep},
};
use withstand::{
    Backoff, Bulkhead, CallOptions, CircuitBreaker, CircuitState, ClassifyErrors, Error, Event, EventKind, Fallback,
    Hedge, HedgeDelay, Idempotency, Isolation, Permit, Pipeline, Retry, RetryBudget, Ticket, Timeout, Value, Verdict,
    VerdictKind, layers,
};

use crate::bytes::Bytes;

const ANSWER: u32 = 1;
const SUBSTITUTE: u32 = 2;
const MOST_COMMANDS: u32 = 200;
const MOST_CALLS: usize = 12;

pub(crate) fn run(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let parts = Parts::new(&mut bytes);
        let mut world = World::new(&parts);
        for _ in 0..MOST_COMMANDS {
            if bytes.is_empty() {
                break;
            }
            world.step(&mut bytes).await;
        }
        world.end(bytes.flag()).await;
    });
}

type Verdicts = ClassifyErrors<fn(&Verdict) -> Verdict>;
type Layers =
    layers![Fallback<Value<u32>>, Option<Timeout>, Retry, Hedge, Arc<Bulkhead>, Arc<CircuitBreaker>, Option<Timeout>];

/// The pipeline, and what of it can be held.
struct Parts {
    pipeline: Arc<Pipeline<Layers, Verdicts>>,
    bulkhead: Arc<Bulkhead>,
    breaker: Arc<CircuitBreaker>,
    budget: Arc<RetryBudget>,
    heard: Arc<Heard>,
    stage: Arc<Stage>,
    queue: usize,
    probes: u32,
    hedges: u32,
    attempts: u32,
}

impl Parts {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let millis = |bytes: &mut Bytes<'_>, most| Duration::from_millis(1 + bytes.below(most) as u64);
        let (limit, queue) = (bytes.below(4), bytes.below(4));
        let mut bulkhead = Bulkhead::builder().limit(limit).queue(queue);
        if queue > 0 {
            bulkhead = bulkhead.max_wait(millis(bytes, 50));
        }
        let window = 1 + u32::from(bytes.byte() % 8);
        let mut breaker = CircuitBreaker::builder().min_calls(window).failure_rate(bytes.one_of(&[0.5, 0.1, 1.0]));
        breaker = match bytes.below(3) {
            0 => breaker.count_window(window),
            1 => breaker.time_window(millis(bytes, 200)),
            _ => breaker.consecutive_failures(window).consecutive_span(Duration::ZERO).count_window(window),
        };
        if bytes.flag() {
            breaker = breaker.slow_call(millis(bytes, 50));
        }
        let probes = 1 + u32::from(bytes.byte() % 4);
        breaker = breaker.probes(probes).close_after(1 + u32::from(bytes.byte()) % probes);
        breaker = breaker.open_for(millis(bytes, 100)).growth(bytes.one_of(&[1.0, 2.0])).seed(1);
        let attempt = bytes.maybe(|bytes| millis(bytes, 60));
        breaker = breaker.probe_lease(attempt.unwrap_or_default() + millis(bytes, 100));

        let initial = u32::from(bytes.byte() % 6);
        let budget =
            RetryBudget::builder().initial(initial).cap(initial + 2).ratio(bytes.one_of(&[0.5, 0.0, 0.1, 1.0]));
        let budget = Arc::new(budget.build().unwrap());
        let attempts = 1 + u32::from(bytes.byte() % 4);
        let wait = Backoff::constant(Duration::from_millis(bytes.below(30) as u64));
        let mut retry = Retry::builder().max_attempts(attempts).backoff(wait).budget(Arc::clone(&budget)).seed(1);
        if bytes.flag() {
            retry = retry.retry_rejected();
        }
        let hedges = 1 + u32::from(bytes.byte() % 3);
        let delay = match bytes.below(4) {
            0 => HedgeDelay::fixed(millis(bytes, 20)),
            1 => HedgeDelay::parallel(),
            2 => HedgeDelay::on_failure(),
            _ => HedgeDelay::quantile(0.5).min_samples(2).floor(Duration::from_millis(1)),
        };
        let hedge = Hedge::builder().max_hedges(hedges).delay(delay).budget(Arc::clone(&budget));
        let total = bytes.maybe(|bytes| millis(bytes, 200) + Duration::from_millis(60));
        let timeout = |name, limit| Timeout::builder(limit).name(name).build().unwrap();

        let (bulkhead, breaker) = (Arc::new(bulkhead.build().unwrap()), Arc::new(breaker.build().unwrap()));
        let (heard, stage) = (Arc::new(Heard::default()), Arc::new(Stage::default()));
        let (ears, as_it_says): (_, fn(&Verdict) -> Verdict) = (Arc::clone(&heard), |verdict| *verdict);
        let pipeline = Pipeline::builder("commands")
            .fallback(Fallback::value(SUBSTITUTE))
            .layer(total.map(|limit| timeout("total", limit)))
            .retry(retry)
            .hedge(hedge)
            .bulkhead(Arc::clone(&bulkhead))
            .circuit_breaker(Arc::clone(&breaker))
            .layer(attempt.map(|limit| timeout("attempt", limit)))
            .classify_errors(as_it_says)
            .observer(move |event: &Event<'_>| ears.hear(event))
            .build();
        // All settings were chosen to fit, but for a queue or a hedge that outlasts the timeout around it.
        let pipeline = Arc::new(pipeline.unwrap());
        Self { pipeline, bulkhead, breaker, budget, heard, stage, queue, probes, hedges, attempts }
    }
}

/// What the observer has counted.
#[derive(Debug, Default)]
struct Heard {
    calls_started: AtomicU32,
    calls_finished: AtomicU32,
    attempts_started: AtomicU32,
    attempts_finished: AtomicU32,
    /// Attempts that were retries or hedges.
    repeats: AtomicU32,
    /// Those of them that did not reach the dependency, as the operation itself says.
    free_repeats: AtomicU32,
    successes: AtomicU32,
    panics: AtomicBool,
}

impl Heard {
    fn hear(&self, event: &Event<'_>) {
        let counter = match event.kind {
            EventKind::CallStarted { .. } => Some(&self.calls_started),
            EventKind::CallFinished { .. } => Some(&self.calls_finished),
            EventKind::AttemptStarted { attempt, hedge, .. } => {
                self.repeats.fetch_add(u32::from(attempt > 1 || hedge > 0), Relaxed);
                Some(&self.attempts_started)
            }
            EventKind::AttemptFinished { attempt, hedge, verdict, .. } => {
                let free = (attempt > 1 || hedge > 0) && verdict == Some(VerdictKind::Rejected);
                self.free_repeats.fetch_add(u32::from(free), Relaxed);
                self.successes.fetch_add(u32::from(verdict == Some(VerdictKind::Success)), Relaxed);
                Some(&self.attempts_finished)
            }
            _ => None,
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
        if self.panics.load(Relaxed) {
            // Without the panic hook, which would end the fuzzer.
            resume_unwind(Box::new("told to"));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Returns(Result<u32, Verdict>),
    Panics,
}

impl Ending {
    fn of(bytes: &mut Bytes<'_>) -> Self {
        let hint = bytes.maybe(Bytes::duration);
        Self::Returns(match bytes.below(10) {
            0..=2 => Ok(ANSWER),
            3 | 4 => Err(Verdict::transient().retry_after(hint)),
            5 => Err(Verdict::unreached().retry_after(hint)),
            6 => Err(Verdict::throttled().retry_after(hint)),
            7 => Err(bytes.one_of(&[Verdict::failure(), Verdict::ignored(), Verdict::success()])),
            8 => Err(Verdict::rejected().retry_after(hint)),
            _ => return Self::Panics,
        })
    }

    fn come(self) -> Result<u32, Verdict> {
        match self {
            Self::Returns(result) => result,
            Self::Panics => resume_unwind(Box::new("told to")),
        }
    }
}

/// Where attempts wait for their ends.
#[derive(Debug, Default)]
struct Stage(Mutex<Attempts>);

#[derive(Debug, Default)]
struct Attempts {
    /// How attempts end that begin now; none if they wait to be told.
    at_once: Option<Ending>,
    waiting: Vec<Waiting>,
    made: u32,
}

#[derive(Debug)]
struct Waiting {
    call: u32,
    number: u32,
    told: oneshot::Sender<Ending>,
}

impl Stage {
    fn with<R>(&self, look: impl FnOnce(&mut Attempts) -> R) -> R {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those whose future is gone are gone.
        attempts.waiting.retain(|waiting| !waiting.told.is_closed());
        look(&mut attempts)
    }

    fn attempt(&self, call: u32, number: u32) -> impl Future<Output = Result<u32, Verdict>> + Send + use<> {
        let ending = self.with(|attempts| {
            attempts.made += 1;
            attempts.at_once.ok_or_else(|| {
                let (told, ending) = oneshot::channel();
                attempts.waiting.push(Waiting { call, number, told });
                ending
            })
        });
        async move {
            match ending {
                Ok(at_once) => at_once.come(),
                Err(told) => told.await.unwrap().come(),
            }
        }
    }
}

struct Call {
    task: JoinHandle<Result<u32, Error<Verdict>>>,
    has_deadline: bool,
}

/// The parts, who holds them, and what is known of them.
struct World<'a> {
    parts: &'a Parts,
    calls: Vec<Call>,
    /// Those that were polled at all.
    polled: Arc<AtomicU32>,
    next_call: u32,
    permits: Vec<Permit<'a>>,
    tickets: Vec<Ticket<'a>>,
    /// With whether it still counts: a reset voids it.
    isolations: Vec<(Isolation, bool)>,
    in_use: usize,
    before: (CircuitState, Option<Instant>),
    made: u32,
}

impl<'a> World<'a> {
    fn new(parts: &'a Parts) -> Self {
        Self {
            parts,
            calls: Vec::new(),
            polled: Arc::default(),
            next_call: 0,
            permits: Vec::new(),
            tickets: Vec::new(),
            isolations: Vec::new(),
            in_use: 0,
            before: (CircuitState::Closed, None),
            made: 0,
        }
    }

    async fn step(&mut self, bytes: &mut Bytes<'_>) {
        let Parts { bulkhead, breaker, stage, heard, .. } = self.parts;
        let mut may_admit = false;
        match bytes.below(18) {
            0..=2 => self.call(bytes),
            3..=5 => {
                let (which, ending) = (usize::from(bytes.byte()), Ending::of(bytes));
                stage.with(|attempts| {
                    if !attempts.waiting.is_empty() {
                        let which = which % attempts.waiting.len();
                        // Told for the first and only time: it takes itself away.
                        _ = attempts.waiting.swap_remove(which).told.send(ending);
                    }
                });
            }
            6 if !self.calls.is_empty() => {
                let which = bytes.below(self.calls.len());
                self.calls.swap_remove(which).task.abort();
            }
            6 => {}
            7..=9 => {
                may_admit = true;
                sleep(Duration::from_millis(1 << bytes.below(8))).await;
            }
            10 => {
                // As if this process had stood still.
                may_admit = true;
                advance(Duration::from_millis(50 << bytes.below(5))).await;
            }
            11 => bulkhead.set_limit(bytes.below(6)).unwrap(),
            12 if self.isolations.len() < 4 => self.isolations.push((breaker.isolate(), true)),
            12 | 13 => {
                may_admit = true;
                self.isolations.pop();
            }
            14 => {
                may_admit = true;
                breaker.reset();
                for (_, counts) in &mut self.isolations {
                    *counts = false;
                }
            }
            15 => {
                let ending = bytes.maybe(Ending::of);
                stage.with(|attempts| attempts.at_once = ending);
            }
            16 => self.by_hand(bytes),
            _ => {
                heard.panics.store(bytes.flag(), Relaxed);
                assert!(!format!("{:?} {breaker:?} {}", self.parts.pipeline, self.parts.pipeline.explain()).is_empty());
            }
        }
        self.settle().await;
        self.check(may_admit);
    }

    fn call(&mut self, bytes: &mut Bytes<'_>) {
        if self.calls.len() >= MOST_CALLS {
            return;
        }
        let Parts { pipeline, stage, .. } = self.parts;
        let (pipeline, stage, polled) = (Arc::clone(pipeline), Arc::clone(stage), Arc::clone(&self.polled));
        let (choice, call) = (bytes.byte(), self.next_call);
        self.next_call += 1;
        let mut options = CallOptions::new();
        if choice & 1 == 1 {
            options = options.idempotency(Idempotency::Unsafe);
        }
        let has_deadline = choice & 6 == 6;
        if has_deadline {
            options = options.deadline(Instant::now() + Duration::from_millis(u64::from(choice)));
        }
        let dropped_unpolled = choice & 0xf0 == 0xf0;
        #[expect(clippy::disallowed_methods, reason = "only the library spawns no tasks")]
        let task = tokio::spawn(async move {
            polled.fetch_add(1, Relaxed);
            pipeline.call_with(options, |attempt| stage.attempt(call, attempt.number())).await
        });
        if dropped_unpolled {
            task.abort();
        } else {
            self.calls.push(Call { task, has_deadline });
        }
    }

    /// Uses the parts without the pipeline.
    fn by_hand(&mut self, bytes: &mut Bytes<'_>) {
        let Parts { bulkhead, breaker, .. } = self.parts;
        match bytes.below(6) {
            0 => self.permits.extend(bulkhead.try_acquire()),
            1 => drop(self.permits.pop()),
            2 | 3 if self.tickets.len() < 6 => self.tickets.extend(breaker.admit()),
            choice => {
                if let Some(ticket) = self.tickets.pop() {
                    match choice {
                        2 | 3 => drop(ticket),
                        4 => _ = ticket.success(),
                        _ => _ = ticket.failure("by hand"),
                    }
                }
            }
        }
    }

    /// Lets every task go as far as it can.
    async fn settle(&mut self) {
        for _ in 0..40 {
            yield_now().await;
        }
        let mut running = Vec::new();
        for Call { task, has_deadline } in self.calls.drain(..) {
            if !task.is_finished() {
                running.push(Call { task, has_deadline });
                continue;
            }
            match task.await {
                Ok(Ok(ANSWER | SUBSTITUTE)) => {}
                Ok(Err(Error::Operation(verdict))) => {
                    let passed_on = [VerdictKind::Success, VerdictKind::Ignored];
                    assert!(passed_on.contains(&verdict.kind()), "no fallback for {verdict:?}");
                }
                Ok(Err(Error::Timeout(_))) if has_deadline => {}
                Err(error) if error.is_panic() => {
                    let payload = error.into_panic();
                    assert_eq!(payload.downcast_ref::<&str>(), Some(&"told to"), "another panic than the operation's");
                }
                other => panic!("{other:?}"),
            }
        }
        self.calls = running;
    }

    fn check(&mut self, may_admit: bool) {
        let Parts { bulkhead, breaker, budget, heard, stage, .. } = self.parts;

        // The bulkhead: a lowered limit interrupts nobody, and whatever runs has a permit.
        let (limit, in_use, queued) = (bulkhead.limit(), bulkhead.in_use(), bulkhead.queued());
        assert!(in_use <= limit.max(self.in_use), "{in_use} permits of {limit}, {} before", self.in_use);
        self.in_use = in_use;
        assert!(queued <= self.parts.queue, "{queued} in a queue for {}", self.parts.queue);
        assert!(queued == 0 || in_use >= limit, "{queued} wait though {in_use} of {limit} permits are taken");
        let (alive, made, in_one_call) = stage.with(|attempts| {
            let mut most = 0;
            let calls: HashSet<_> = attempts.waiting.iter().map(|waiting| waiting.call).collect();
            for call in calls {
                let of_call = attempts.waiting.iter().filter(|waiting| waiting.call == call);
                most = of_call.clone().count().max(most);
                let rounds: HashSet<_> = of_call.map(|waiting| waiting.number).collect();
                assert_eq!(rounds.len(), 1, "two attempts of one retry at once");
                assert!(rounds.iter().all(|number| *number <= self.parts.attempts));
            }
            (attempts.waiting.len(), attempts.made, most)
        });
        assert_eq!(in_use, alive + self.permits.len(), "permits are not where the attempts are");
        assert!(in_one_call <= 1 + self.parts.hedges as usize, "{in_one_call} attempts of one call at once");

        // The breaker.
        let snapshot = breaker.snapshot();
        assert!(snapshot.probes_in_flight <= self.parts.probes, "{snapshot:?}");
        let isolated = self.isolations.iter().any(|(_, counts)| *counts);
        assert_eq!(snapshot.state == CircuitState::Isolated, isolated, "{snapshot:?}");
        let now = (snapshot.state, snapshot.open_until);
        let held_open = now.0.is_open() && self.before.0.is_open() && now.1 == self.before.1;
        let held = held_open || isolated && self.before.0 == CircuitState::Isolated;
        assert!(!held || may_admit || made == self.made, "admitted while {}", snapshot.state);
        (self.before, self.made) = (now, made);

        // The budget: whatever is repeated was paid for.
        let (balance, repeats) = (budget.balance(), heard.repeats.load(Relaxed) - heard.free_repeats.load(Relaxed));
        assert!((0.0..=f64::from(budget.cap())).contains(&balance), "{balance} of {}", budget.cap());
        let earned = f64::from(budget.initial()) + f64::from(heard.successes.load(Relaxed)) * budget.ratio();
        assert!(f64::from(repeats) <= earned + 1e-6, "{repeats} repeats for {earned}");

        // The reports.
        let [started, finished] = [&heard.calls_started, &heard.calls_finished].map(|count| count.load(Relaxed));
        assert_eq!(started, self.polled.load(Relaxed), "calls that have begun");
        assert_eq!((started - finished) as usize, self.calls.len(), "calls that have not ended");
        let [started, finished] = [&heard.attempts_started, &heard.attempts_finished].map(|count| count.load(Relaxed));
        assert_eq!((started, (started - finished) as usize), (made, alive), "attempts");
    }

    /// Ends all that is under way, by dropping it or by answers: then nothing is held, and a call succeeds.
    async fn end(mut self, drops: bool) {
        let Parts { pipeline, bulkhead, breaker, stage, heard, .. } = self.parts;
        self.permits.clear();
        self.tickets.clear();
        self.isolations.clear();
        if drops {
            for call in self.calls.drain(..) {
                call.task.abort();
            }
        } else {
            stage.with(|attempts| {
                attempts.at_once = Some(Ending::Returns(Ok(ANSWER)));
                for waiting in attempts.waiting.drain(..) {
                    _ = waiting.told.send(Ending::Returns(Ok(ANSWER)));
                }
            });
            // Longer than any wait, but for those that a hint asks for: 33 s, three times.
            sleep(Duration::from_secs(120)).await;
        }
        self.settle().await;
        assert!(self.calls.is_empty(), "{} calls hang", self.calls.len());
        self.check(true);
        assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 0), "held by nobody");
        assert_eq!(breaker.snapshot().probes_in_flight, 0, "held by nobody");
        bulkhead.set_limit(1).unwrap();
        breaker.reset();
        heard.panics.store(false, Relaxed);
        assert_eq!(pipeline.call(|| async { Ok::<_, Verdict>(ANSWER) }).await, Ok(ANSWER));
    }
}
