//! Against a model that is written to be obvious: who has which instance, whatever is done with them.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*};
use tokio::time::{Instant, sleep};
use withstand::{EventKind, Instance, Isolation, Keyed};

use super::{BREAK, Numbered, numbered, paused};
use crate::support::{Log, ms, secs, trials::cases};

const CAPACITY: usize = 3;
const KEYS: u32 = 6;
const IDLE_AFTER: Duration = secs(12);

#[derive(Clone, Copy, Debug)]
enum Command {
    /// One call, which succeeds or fails if it is admitted.
    Call(u32, bool),
    Hold(u32),
    LetGo(usize),
    Isolate(u32),
    Release(usize),
    Reset(u32),
    Remove(u32),
    Sweep,
    Wait(u64),
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let key = || 0..KEYS;
    let command = prop_oneof![
        6 => (key(), any::<bool>()).prop_map(|(key, succeeds)| Command::Call(key, succeeds)),
        4 => key().prop_map(Command::Hold),
        4 => any::<usize>().prop_map(Command::LetGo),
        1 => key().prop_map(Command::Isolate),
        1 => any::<usize>().prop_map(Command::Release),
        1 => key().prop_map(Command::Reset),
        1 => key().prop_map(Command::Remove),
        1 => Just(Command::Sweep),
        // Up to a break, up to longer than anybody may be idle.
        3 => (0..1_500_u64).prop_map(Command::Wait),
        2 => (0..15_000_u64).prop_map(Command::Wait),
    ];
    vec(command, 1..120)
}

/// When an instance may go: these first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Closed,
    BreakOver,
    Stays,
}

/// What is known of an instance.
#[derive(Debug)]
struct Known {
    number: u32,
    held: u32,
    last_used: Instant,
    open_until: Option<Instant>,
    isolated: u32,
    /// Grows with each reset, which voids the handles before it.
    resets: u32,
}

impl Known {
    fn new(number: u32) -> Self {
        Self { number, held: 0, last_used: Instant::now(), open_until: None, isolated: 0, resets: 0 }
    }

    fn class(&self) -> Class {
        match self.open_until {
            _ if self.isolated > 0 => Class::Stays,
            None => Class::Closed,
            Some(end) if Instant::now() < end => Class::Stays,
            Some(_) => Class::BreakOver,
        }
    }

    fn may_go(&self) -> bool {
        self.held == 0 && self.class() < Class::Stays
    }

    fn is_idle(&self) -> bool {
        self.may_go() && self.last_used.elapsed() >= IDLE_AFTER
    }

    /// Whether a call is admitted, and what it does to the circuit.
    fn call(&mut self, succeeds: bool) -> bool {
        let admitted = self.class() < Class::Stays;
        if admitted {
            self.open_until = (!succeeds).then(|| Instant::now() + BREAK);
        }
        admitted
    }
}

struct Model {
    own: BTreeMap<u32, Known>,
    shared: Known,
    made: u32,
    overflowed: Option<Instant>,
    told: usize,
}

impl Model {
    fn get(&mut self, key: u32) -> &mut Known {
        if !self.own.contains_key(&key) {
            self.own.retain(|_, known| !known.is_idle());
            if self.own.len() == CAPACITY {
                let may_go = self.own.iter().filter(|(_, known)| known.may_go());
                match may_go.min_by_key(|(_, known)| (known.class(), known.last_used)).map(|(&key, _)| key) {
                    Some(goes) => drop(self.own.remove(&goes)),
                    None => return self.overflow(),
                }
            }
            self.made += 1;
            self.own.insert(key, Known::new(self.made));
        }
        self.own.get_mut(&key).unwrap()
    }

    fn overflow(&mut self) -> &mut Known {
        if self.overflowed.is_none_or(|last| last.elapsed() >= secs(1)) {
            self.told += 1;
        }
        self.overflowed = Some(Instant::now());
        &mut self.shared
    }

    fn numbered(&mut self, number: u32) -> Option<&mut Known> {
        let own = self.own.values_mut().find(|known| known.number == number);
        own.or(Some(&mut self.shared).filter(|shared| shared.number == number))
    }
}

struct Real {
    keyed: Keyed<u32, Numbered>,
    log: Log,
    held: Vec<Instance<u32, Numbered>>,
    isolations: Vec<(u32, u32, Isolation)>,
}

/// Does it to both, and compares what they say of it.
fn step(real: &mut Real, model: &mut Model, command: Command) -> Result<(), TestCaseError> {
    match command {
        Command::Call(key, succeeds) => {
            let (instance, known) = (real.keyed.get(&key), model.get(key));
            prop_assert_eq!(instance.number, known.number);
            let admission = instance.breaker.admit();
            prop_assert_eq!(admission.is_ok(), known.call(succeeds));
            if let Ok(ticket) = admission {
                _ = if succeeds { ticket.success() } else { ticket.failure("down") };
            }
            known.last_used = Instant::now();
        }
        Command::Hold(key) => {
            let (instance, known) = (real.keyed.get(&key), model.get(key));
            prop_assert_eq!(instance.number, known.number);
            known.held += 1;
            real.held.push(instance);
        }
        Command::LetGo(any) if !real.held.is_empty() => {
            let instance = real.held.remove(any % real.held.len());
            let known = model.numbered(instance.number).unwrap();
            known.held -= 1;
            known.last_used = Instant::now();
        }
        Command::Isolate(key) => {
            if let Some(instance) = real.keyed.peek(&key) {
                let known = model.numbered(instance.number).unwrap();
                known.isolated += 1;
                real.isolations.push((instance.number, known.resets, instance.breaker.isolate()));
            }
        }
        Command::Release(any) if !real.isolations.is_empty() => {
            let (number, resets, isolation) = real.isolations.remove(any % real.isolations.len());
            isolation.release();
            if let Some(known) = model.numbered(number).filter(|known| known.resets == resets) {
                known.isolated -= 1;
                known.open_until = known.open_until.filter(|_| known.isolated > 0);
            }
        }
        Command::Reset(key) => {
            if let Some(instance) = real.keyed.peek(&key) {
                instance.breaker.reset();
                let known = model.numbered(instance.number).unwrap();
                (known.open_until, known.isolated, known.resets) = (None, 0, known.resets + 1);
            }
        }
        Command::Remove(key) => {
            let removed = real.keyed.remove(&key).map(|instance| instance.number);
            let goes = model.own.get(&key).filter(|known| known.held == 0).map(|known| known.number);
            prop_assert_eq!(removed, goes);
            model.own.retain(|_, known| Some(known.number) != goes);
        }
        Command::Sweep => {
            let before = model.own.len();
            model.own.retain(|_, known| !known.is_idle());
            prop_assert_eq!(real.keyed.sweep(), before - model.own.len());
        }
        Command::LetGo(_) | Command::Release(_) | Command::Wait(_) => {}
    }
    for key in 0..KEYS {
        let number = real.keyed.peek(&key).map(|instance| instance.number);
        prop_assert_eq!(number, model.own.get(&key).map(|known| known.number), "{}", key);
    }
    prop_assert_eq!(real.keyed.len(), model.own.len());
    prop_assert_eq!(real.log.count(|kind| matches!(kind, EventKind::Overflowed { .. })), model.told);
    Ok(())
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn instances_come_stay_and_go_as_the_model_says(commands in commands()) {
        paused(async {
            let log = Log::new();
            let keyed = numbered().capacity(CAPACITY).idle_after(IDLE_AFTER).observer(log.clone()).build().unwrap();
            let mut real = Real { keyed, log, held: Vec::new(), isolations: Vec::new() };
            let shared = Known::new(0);
            let mut model = Model { own: BTreeMap::new(), shared, made: 0, overflowed: None, told: 0 };
            for command in commands {
                step(&mut real, &mut model, command)?;
                // No two things happen at the same time, so that it is clear which came last.
                sleep(ms(if let Command::Wait(millis) = command { millis } else { 1 })).await;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}
