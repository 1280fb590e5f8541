//! The breaker against a slow and obvious model of it, over random histories: whatever is called, dropped, hung and done
//! by hand, everything that can be seen of it is what the model says.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, prop_oneof},
    proptest,
    sample::select,
};
use tokio::{runtime::Builder, time::Instant};
use withstand::{
    CallOptions, CircuitBreaker, CircuitState, Classification, Context, Describe, Error, Isolation, Operation, Outcome,
    Pipeline, Policy, Recorded, Rejection, Ticket, Verdict, VerdictKind,
};

use crate::{
    model::{Admission, End, Model, Numbers, UNIT},
    users::{Answer, ByItself, Heard, Signal, Users, ms, poll, reply, sleep},
};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Through one of the pipelines; perhaps with a deadline.
    Call {
        through: usize,
        deadline: Option<u64>,
    },
    Admit,
    /// With a reply, by a panic (`P`), or dropped (`D`).
    Finish {
        which: usize,
        how: char,
    },
    Wait {
        units: u64,
    },
    Isolate,
    Release {
        which: usize,
    },
    Reset,
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let how = select("SSSSSFFFFFFFUXTIRPDD".chars().collect::<Vec<_>>());
    prop_oneof![
        12 => (0_usize..3, option::weighted(0.2, 1_u64..6)).prop_map(|(through, deadline)| Step::Call { through, deadline }),
        3 => Just(Step::Admit),
        12 => (0_usize..4, how).prop_map(|(which, how)| Step::Finish { which, how }),
        7 => prop_oneof![4 => 1_u64..4, 1 => 1_u64..25].prop_map(|units| Step::Wait { units }),
        1 => Just(Step::Isolate),
        2 => (0_usize..3).prop_map(|which| Step::Release { which }),
        1 => Just(Step::Reset),
        2 => Just(Step::Look),
    ]
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let rate = || select(vec![25_u32, 50, 70, 100]);
    let windows =
        (option::of(1_usize..6), option::of(select(vec![1_u64, 2, 5, 10])), option::of((1_usize..4, 0_u64..4)));
    let limits = (rate(), option::of((1_u64..4, rate())), 1_usize..6);
    let breaks = (1_u64..6, 1_u32..3, 0_u64..20);
    let probes = (1_usize..5, 1_usize..5, 1_u64..8);
    let some_window = |(windows, ..): &((Option<usize>, Option<u64>, Option<_>), _, _, _)| {
        windows.0.is_some() || windows.1.is_some() || windows.2.is_some()
    };
    let all = (windows, limits, breaks, probes).prop_filter("the default window is not on the grid", some_window);
    all.prop_map(|(windows, limits, breaks, probes)| Numbers {
        count_window: windows.0,
        time_window: windows.1,
        run: windows.2,
        failure_rate: limits.0,
        slow: limits.1,
        min_calls: limits.2,
        open_for: breaks.0,
        growth: breaks.1,
        max_open_for: breaks.0 + breaks.2,
        probes: probes.0,
        close_after: probes.1.min(probes.0),
        lease: probes.2,
    })
}

/// The place of the pipeline in which every call is a hedge.
const HEDGES: usize = 2;

/// Makes every call a hedge.
struct AsHedge;

impl Describe for AsHedge {}

impl<T: Send, E: Send> Policy<T, E> for AsHedge {
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        op.attempt(cx.with_hedge(1))
    }
}

type Call<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// A call that ends as the signal says; none if it was refused at once.
fn begin<'a, P: Policy<(), Classification>>(
    pipeline: &'a Pipeline<P, ByItself>,
    deadline: Option<u64>,
    signal: &Signal<char>,
) -> Result<Call<'a>, Rejection> {
    let waiting = signal.clone();
    let operation = move |_| {
        let waiting = waiting.clone();
        async move {
            match waiting.wait().await {
                'P' => panic!("boom"),
                letter => reply(letter),
            }
        }
    };
    let within = |units| CallOptions::new().deadline(Instant::now() + ms(units * UNIT));
    let mut call = Box::pin(pipeline.call_with(deadline.map_or_else(CallOptions::new, within), operation));
    match poll(&mut call) {
        Poll::Pending => Ok(call),
        Poll::Ready(Err(Error::Rejected(rejection))) => Err(rejection),
        Poll::Ready(answer) => panic!("the signal was not given, and yet: {answer:?}"),
    }
}

/// An admitted call, and what the model knows of it.
struct UnderWay<'a> {
    way: Way<'a>,
    admission: Admission,
    since: u64,
}

enum Way<'a> {
    Called { call: Call<'a>, signal: Signal<char>, through: usize, deadline: Option<u64> },
    Admitted(Ticket<'a>),
}

/// The breaker, its model, and all that is under way.
struct History<'a> {
    places: &'a Places,
    model: Model,
    under_way: Vec<UnderWay<'a>>,
    handles: Vec<(u64, Isolation)>,
}

/// Three pipelines that share the breaker. What goes through the last one is a hedge.
struct Places {
    breaker: Arc<CircuitBreaker>,
    users: [Users; 2],
    hedges: Pipeline<withstand::layers![AsHedge, Arc<CircuitBreaker>], ByItself>,
    heard: [Heard; 3],
}

impl Places {
    fn new(numbers: &Numbers) -> Self {
        let breaker = Arc::new(numbers.builder().build().unwrap());
        let users = ["a", "b"].map(|name| Users::around(&breaker, name));
        let heard = [users[0].heard.clone(), users[1].heard.clone(), Heard::default()];
        let builder = Pipeline::builder("hedges").layer(AsHedge).circuit_breaker(Arc::clone(&breaker));
        let hedges = builder.classifier(ByItself).observer(heard[2].observer()).build().unwrap();
        Self { breaker, users, hedges, heard }
    }
}

impl<'a> History<'a> {
    async fn follow(&mut self, step: Step) {
        match step {
            Step::Call { through, deadline } => self.call(through, deadline),
            Step::Admit => self.begun(self.places.breaker.admit().map(Way::Admitted), None),
            Step::Finish { which, how } if which < self.under_way.len() => self.finish(which, how),
            Step::Wait { units } => self.wait(units).await,
            Step::Isolate => {
                let era = self.model.isolate();
                self.handles.push((era, self.places.breaker.isolate()));
                self.compare_told(None);
            }
            Step::Release { which } if which < self.handles.len() => {
                let (era, isolation) = self.handles.remove(which);
                self.model.release(era);
                drop(isolation);
                self.compare_told(None);
            }
            Step::Reset => {
                self.model.reset();
                self.places.breaker.reset();
                self.compare_told(None);
            }
            Step::Look => self.look(),
            Step::Finish { .. } | Step::Release { .. } => {}
        }
        self.compare_states();
    }

    fn call(&mut self, through: usize, within: Option<u64>) {
        let signal = Signal::default();
        let call = match self.places.users.get(through) {
            Some(users) => begin(&users.pipeline, within, &signal),
            None => begin(&self.places.hedges, within, &signal),
        };
        let deadline = within.map(|units| self.model.now + units);
        self.begun(call.map(|call| Way::Called { call, signal, through, deadline }), Some(through));
    }

    fn begun(&mut self, way: Result<Way<'a>, Rejection>, through: Option<usize>) {
        let expected = self.model.admit(through != Some(HEDGES));
        match (way, expected) {
            (Ok(way), Ok(admission)) => {
                if let Way::Admitted(ticket) = &way {
                    assert_eq!(ticket.is_probe(), admission.is_probe());
                }
                self.under_way.push(UnderWay { way, admission, since: self.model.now });
            }
            (Err(rejection), Err((reason, wait))) => {
                assert_eq!((rejection.reason(), rejection.retry_after()), (reason, wait.map(|wait| ms(wait * UNIT))));
                if through.is_some() {
                    self.model.told.push(format!("rejected: {reason:?}"));
                }
            }
            (way, expected) => panic!("admitted: {}, expected: {expected:?}", way.is_ok()),
        }
        self.compare_told(through);
    }

    fn finish(&mut self, which: usize, how: char) {
        let UnderWay { way, admission, since } = self.under_way.remove(which);
        let slow = self.model.is_slow(since);
        let verdict = match how {
            'P' | 'D' => Verdict::ignored(),
            letter => reply(letter).map_or_else(|error| error.verdict(), |()| Verdict::success()),
        };
        let mut end = match verdict.kind() {
            VerdictKind::Success => End::Success { slow },
            kind @ (VerdictKind::Transient | VerdictKind::Unreached | VerdictKind::Failure) => {
                End::Failure { slow, label: kind.as_str() }
            }
            _ => End::Nothing,
        };
        let mut told_to = None;
        match way {
            Way::Admitted(ticket) => {
                let recorded = ticket.record(verdict);
                let counted = self.model.finish(admission, end);
                assert_eq!(recorded == Some(Recorded::Counted), counted);
            }
            Way::Called { mut call, signal, through, .. } => {
                told_to = Some(through);
                if how == 'D' {
                    drop(call);
                    // That it was slow is known though it did not end.
                    end = if slow { End::GivenUpSlow } else { End::Nothing };
                } else {
                    signal.give(how);
                    match catch_unwind(AssertUnwindSafe(|| poll(&mut call))) {
                        Ok(Poll::Ready(answer)) => assert_eq!(answer, reply(how).map_err(Error::Operation)),
                        Ok(Poll::Pending) => panic!("it does not end"),
                        Err(_boom) => {
                            drop(call);
                            end = End::Failure { slow: false, label: "panic" };
                        }
                    }
                }
                self.model.finish(admission, end);
            }
        }
        self.compare_told(told_to);
    }

    async fn wait(&mut self, units: u64) {
        for _ in 0..units {
            sleep(UNIT).await;
            self.model.now += 1;
            for index in (0..self.under_way.len()).rev() {
                self.end_if_late(index);
            }
            self.compare_states();
        }
    }

    fn end_if_late(&mut self, index: usize) {
        let Way::Called { call, through, deadline, .. } = &mut self.under_way[index].way else { return };
        if deadline.is_none_or(|deadline| self.model.now < deadline) {
            return;
        }
        let (through, answer) = (*through, poll(call));
        assert!(matches!(answer, Poll::Ready(Err(Error::Timeout(_)))), "{answer:?}");
        let UnderWay { admission, since, .. } = self.under_way.remove(index);
        let slow = self.model.is_slow(since);
        self.model.finish(admission, End::Failure { slow, label: "timeout" });
        self.compare_told(Some(through));
    }

    /// The whole snapshot. To take one notices what time has done, and tells everyone.
    fn look(&mut self) {
        let seen = self.places.breaker.snapshot();
        self.model.settle();
        self.compare_told(None);
        let three = |(a, b, c): (u32, u32, u32)| (a as usize, b as usize, c as usize);
        assert_eq!(three((seen.calls, seen.failures, seen.slow_calls)), self.model.window());
        let probes = (seen.probes_in_flight, seen.probe_successes, seen.probe_failures);
        assert_eq!(three(probes), self.model.probes());
        assert_eq!(seen.consecutive_failures as usize, self.model.run());
        assert_eq!(seen.reopenings, self.model.reopenings);
        assert_eq!(seen.state, self.places.breaker.state());
        let rest = seen.open_until.map(|until| until.saturating_duration_since(Instant::now()));
        if let ("open", left) = self.model.state() {
            assert_eq!(rest, Some(ms(left * UNIT)));
        }
    }

    fn compare_states(&self) {
        let state = self.places.breaker.state();
        let left = match state {
            CircuitState::Open { retry_after, .. } => retry_after,
            _ => ms(0),
        };
        let (expected, expected_left) = self.model.state();
        assert_eq!((state.as_str(), left), (expected, ms(expected_left * UNIT)));
    }

    /// What a call has caused is told where it was made; all else to everyone.
    fn compare_told(&mut self, through: Option<usize>) {
        let expected = std::mem::take(&mut self.model.told);
        for (place, heard) in self.places.heard.iter().enumerate() {
            let to_here = through.is_none_or(|through| through == place);
            assert_eq!(heard.words(), if to_here { expected.as_slice() } else { &[] }, "told to pipeline {place}");
        }
    }
}

async fn follow(numbers: &Numbers, steps: &[Step]) {
    let places = Places::new(numbers);
    let model = Model::new(numbers.clone());
    let mut history = History { places: &places, model, under_way: Vec::new(), handles: Vec::new() };
    for step in steps {
        history.follow(*step).await;
    }
    history.look();
}

proptest! {
    #![proptest_config(crate::support::trials::cases(1_024))]

    #[test]
    fn the_breaker_does_what_the_model_does(numbers in numbers(), steps in vec(step(), 1..120)) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(follow(&numbers, &steps));
    }
}
