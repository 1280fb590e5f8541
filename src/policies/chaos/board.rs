//! What was set by whoever operates the process, and what a call looks at of it.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    engine::rng::Rng,
    error::ConfigError,
    event::{EventKind, Fault, Listeners, PolicyId},
    name::Name,
};

/// The most keys with settings of their own.
const MOST_KEYS: usize = 1_024;

/// Something for each fault.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PerFault<V> {
    pub(super) latency: V,
    pub(super) error: V,
    pub(super) outcome: V,
    pub(super) hang: V,
    pub(super) panic: V,
}

/// All faults, in the order in which they are told.
pub(super) const FAULTS: [Fault; 5] = [Fault::Latency, Fault::Error, Fault::Outcome, Fault::Hang, Fault::Panic];

impl<V> PerFault<V> {
    #[inline]
    pub(super) const fn get(&self, fault: Fault) -> &V {
        match fault {
            Fault::Latency => &self.latency,
            Fault::Error => &self.error,
            Fault::Outcome => &self.outcome,
            Fault::Hang => &self.hang,
            Fault::Panic => &self.panic,
        }
    }

    pub(super) const fn get_mut(&mut self, fault: Fault) -> &mut V {
        match fault {
            Fault::Latency => &mut self.latency,
            Fault::Error => &mut self.error,
            Fault::Outcome => &mut self.outcome,
            Fault::Hang => &mut self.hang,
            Fault::Panic => &mut self.panic,
        }
    }
}

/// What a call looks at: what holds for its layer, whatever it follows from.
//
// Relaxed throughout: each number stands for itself, and nothing else is published with it.
#[derive(Debug)]
pub(super) struct Dial {
    on: AtomicBool,
    /// The bits of the rates.
    rates: PerFault<AtomicU64>,
    rng: Rng,
    listeners: Listeners,
}

impl Dial {
    fn new(rng: Rng) -> Self {
        Self { on: AtomicBool::new(false), rates: PerFault::default(), rng, listeners: Listeners::default() }
    }

    /// Whether anything is injected at all.
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    pub(super) fn rate(&self, fault: Fault) -> f64 {
        f64::from_bits(self.rates.get(fault).load(Relaxed))
    }

    /// The chances of an attempt: how it ends, whether it is late, and how late.
    pub(super) fn draw(&self) -> [f64; 3] {
        self.rng.uniforms()
    }

    pub(super) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// What holds from now on. Whether that switches it on or off, if it does either.
    fn set(&self, setting: &Setting) -> Option<bool> {
        for fault in FAULTS {
            self.rates.get(fault).store(setting.rates.get(fault).to_bits(), Relaxed);
        }
        let on = setting.injects();
        (self.on.swap(on, Relaxed) != on).then_some(on)
    }
}

/// Whether and how much.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Setting {
    pub(super) enabled: bool,
    pub(super) rates: PerFault<f64>,
}

impl Setting {
    fn injects(&self) -> bool {
        self.enabled && FAULTS.into_iter().any(|fault| *self.rates.get(fault) > 0.0)
    }

    /// An attempt ends in one fault at most.
    pub(super) fn check(&self, key: Option<&Name>) -> Result<(), ConfigError> {
        /// What sums of decimal fractions may be off by.
        const ROUNDING: f64 = 1e-9;
        let PerFault { error, outcome, hang, panic, latency: _ } = self.rates;
        let sum = error + outcome + hang + panic;
        if sum <= 1.0 + ROUNDING {
            return Ok(());
        }
        let shown = (sum * 1e6).round() / 1e6;
        let of_key = key.map_or_else(String::new, |key| format!(" for the key {key:?}"));
        let accepted = "at most 1, as each attempt ends in one of them at most";
        Err(ConfigError::new("error + outcome + hang + panic", format_args!("{shown}{of_key}"), accepted))
    }
}

pub(super) fn check_share(fault: Fault, rate: f64) -> Result<(), ConfigError> {
    if (0.0..=1.0).contains(&rate) {
        return Ok(());
    }
    Err(ConfigError::new(fault.as_str(), rate, "a rate from 0 to 1"))
}

/// What was set for a key alone.
#[derive(Clone, Copy, Debug, Default)]
struct Rule {
    enabled: Option<bool>,
    rates: PerFault<Option<f64>>,
}

impl Rule {
    fn is_own(&self) -> bool {
        self.enabled.is_some() || self.rates != PerFault::default()
    }

    fn over(&self, common: &Setting) -> Setting {
        let mut setting = *common;
        setting.enabled = self.enabled.unwrap_or(common.enabled);
        for fault in FAULTS {
            if let Some(rate) = *self.rates.get(fault) {
                *setting.rates.get_mut(fault) = rate;
            }
        }
        setting
    }
}

#[derive(Debug, Default)]
struct Entry {
    rule: Rule,
    /// Of the layers of the key, for as long as there are any.
    dial: Weak<Dial>,
}

impl Entry {
    fn is_of_use(&self) -> bool {
        self.rule.is_own() || self.dial.strong_count() > 0
    }
}

/// What was set, by hand or by the builder.
#[derive(Debug, Default)]
struct Desk {
    common: Setting,
    /// Of each key that has layers or settings of its own.
    keys: HashMap<Name, Entry>,
    /// With so many keys it is time to look which are of no use any more.
    many: usize,
}

impl Desk {
    fn of_key(&self, key: &Name) -> Setting {
        self.keys.get(key).map_or(self.common, |entry| entry.rule.over(&self.common))
    }

    fn prune(&mut self) {
        const FEW: usize = 64;
        self.keys.retain(|_, entry| entry.is_of_use());
        self.many = self.keys.len().saturating_mul(2).max(FEW);
    }
}

/// What all layers and switches of one chaos share.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) id: PolicyId,
    /// The faults that the builder was given: no other can be turned up.
    armed: PerFault<bool>,
    pub(super) latency: Option<RangeInclusive<Duration>>,
    /// Of the layers without a key.
    pub(super) dial: Arc<Dial>,
    desk: Mutex<Desk>,
}

impl Board {
    pub(super) fn new(
        id: PolicyId,
        armed: PerFault<bool>,
        latency: Option<RangeInclusive<Duration>>,
        setting: Setting,
        rng: Rng,
    ) -> Self {
        let dial = Arc::new(Dial::new(rng));
        _ = dial.set(&setting);
        Self { id, armed, latency, dial, desk: Mutex::new(Desk { common: setting, ..Desk::default() }) }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn armed(&self) -> impl Iterator<Item = Fault> {
        FAULTS.into_iter().filter(|fault| *self.armed.get(*fault))
    }

    /// What the layers of a key look at: one and the same for all that there are at a time.
    pub(super) fn dial_of(&self, key: Name) -> Arc<Dial> {
        let mut desk = self.desk();
        if desk.keys.len() >= desk.many {
            desk.prune();
        }
        let setting = desk.of_key(&key);
        // Hashed alike in each process, so that a seed gives a key the same faults whatever the others do.
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let entry = desk.keys.entry(key).or_default();
        if let Some(dial) = entry.dial.upgrade() {
            return dial;
        }
        let dial = Arc::new(Dial::new(self.dial.rng.derived(hasher.finish())));
        _ = dial.set(&setting);
        entry.dial = Arc::downgrade(&dial);
        dial
    }

    pub(super) fn common(&self) -> Setting {
        self.desk().common
    }

    pub(super) fn of_key(&self, key: &Name) -> Setting {
        self.desk().of_key(key)
    }

    pub(super) fn known_keys(&self) -> usize {
        self.desk().keys.len()
    }

    pub(super) fn keys_with_rules(&self) -> Vec<Name> {
        let desk = self.desk();
        desk.keys.iter().filter(|(_, entry)| entry.rule.is_own()).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn switch(&self, enabled: bool) {
        self.change(|desk| desk.common.enabled = enabled);
    }

    pub(super) fn disable_everywhere(&self) {
        self.change(|desk| {
            desk.common.enabled = false;
            desk.keys.values_mut().for_each(|entry| entry.rule = Rule::default());
            desk.prune();
        });
    }

    pub(super) fn follow(&self, key: &Name) {
        self.change(|desk| {
            if let Some(entry) = desk.keys.get_mut(key) {
                entry.rule = Rule::default();
            }
            desk.prune();
        });
    }

    pub(super) fn switch_of(&self, key: &Name, enabled: bool) -> Result<(), ConfigError> {
        self.rule(key, |rule| rule.enabled = Some(enabled))
    }

    pub(super) fn set_rate_of(&self, key: &Name, fault: Fault, rate: f64) -> Result<(), ConfigError> {
        self.check_rate(fault, rate)?;
        self.rule(key, |rule| *rule.rates.get_mut(fault) = Some(rate))
    }

    fn check_rate(&self, fault: Fault, rate: f64) -> Result<(), ConfigError> {
        let checked = if *self.armed.get(fault) {
            check_share(fault, rate)
        } else {
            let accepted = "a fault that the builder was given, if only at a rate of 0";
            Err(ConfigError::new(fault.as_str(), "no fault of this layer", accepted))
        };
        checked.map_err(|error| error.in_policy(&self.id.name))
    }

    pub(super) fn set_rate(&self, fault: Fault, rate: f64) -> Result<(), ConfigError> {
        self.check_rate(fault, rate)?;
        self.try_change(|desk| {
            let mut common = desk.common;
            *common.rates.get_mut(fault) = rate;
            common.check(None)?;
            for (key, entry) in &desk.keys {
                entry.rule.over(&common).check(Some(key))?;
            }
            desk.common = common;
            Ok(())
        })
    }

    /// Changes what is set for a key alone.
    fn rule(&self, key: &Name, set: impl FnOnce(&mut Rule)) -> Result<(), ConfigError> {
        self.try_change(|desk| {
            let mut rule = desk.keys.get(key).map_or_else(Rule::default, |entry| entry.rule);
            let own = || desk.keys.values().filter(|entry| entry.rule.is_own());
            if !rule.is_own() && own().count() >= MOST_KEYS {
                let accepted =
                    format!("one of the {MOST_KEYS} keys that have settings of their own; follow() ends them");
                return Err(ConfigError::new("key", format_args!("{key:?}"), accepted));
            }
            set(&mut rule);
            rule.over(&desk.common).check(Some(key))?;
            desk.keys.entry(key.clone()).or_default().rule = rule;
            Ok(())
        })
    }

    fn change(&self, change: impl FnOnce(&mut Desk)) {
        let switched = {
            let mut desk = self.desk();
            change(&mut desk);
            self.apply(&desk)
        };
        self.tell(switched);
    }

    /// Changes what is set, or nothing.
    fn try_change(&self, change: impl FnOnce(&mut Desk) -> Result<(), ConfigError>) -> Result<(), ConfigError> {
        let switched = {
            let mut desk = self.desk();
            change(&mut desk).map_err(|error| error.in_policy(&self.id.name))?;
            self.apply(&desk)
        };
        self.tell(switched);
        Ok(())
    }

    /// Has all layers go by what is set, and gives those that this switches on or off.
    fn apply(&self, desk: &Desk) -> Vec<(Arc<Dial>, bool)> {
        let keyed = desk.keys.values().filter_map(|entry| Some((entry.dial.upgrade()?, entry.rule.over(&desk.common))));
        let all = std::iter::once((Arc::clone(&self.dial), desk.common)).chain(keyed);
        all.filter_map(|(dial, setting)| dial.set(&setting).map(|on| (dial, on))).collect()
    }

    /// Tells the observers. No lock is held: they may use the switch.
    fn tell(&self, switched: Vec<(Arc<Dial>, bool)>) {
        for (dial, on) in switched {
            dial.listeners.tell(&self.id, &EventKind::ChaosSwitched { on });
        }
    }
}
