//! What is going to change in a live policy: worked out and checked first, carried out once all of it is known to hold.

use std::{fmt, sync::Arc};

use crate::{
    engine::tuned::{Tunable, Tuned},
    error::ConfigError,
    layer::{BudgetInfo, LayerInfo},
    name::Name,
};

/// A setting that changed, and from what to what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldChange {
    /// The policy, by its name in the pipeline.
    pub policy: Name,
    /// The setting, as the builder's method is called.
    pub field: &'static str,
    /// The value before.
    pub old: String,
    /// The value now.
    pub new: String,
}

/// One line for a log: `timeout: limit 4s -> 3s`.
impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, field, old, new } = self;
        write!(f, "{policy}: {field} {old} -> {new}")
    }
}

/// What becomes of a policy.
pub(crate) struct Amendment {
    /// Its description then.
    pub(crate) info: LayerInfo,
    /// The budget that is changed, as it will be. Other policies may draw on it too.
    pub(crate) budget: Option<BudgetInfo>,
    changes: Vec<FieldChange>,
    acts: Vec<Act>,
}

type Act = Box<dyn FnOnce() -> Option<Telling> + Send>;

/// What is told of an act. Observers may come back to what they are told of, so it is told when all is done.
pub(crate) type Telling = Box<dyn FnOnce() + Send>;

impl Amendment {
    /// What is not in the description of then does not change.
    pub(crate) fn new(info: LayerInfo) -> Self {
        Self { info, budget: None, changes: Vec::new(), acts: Vec::new() }
    }

    /// A word of a policy takes this value, if it has another one.
    pub(crate) fn tune<S, T>(&mut self, field: &'static str, policy: &Arc<S>, word: fn(&S) -> &Tuned<T>, new: T)
    where
        S: Send + Sync + 'static,
        T: Tunable + PartialEq + fmt::Debug + Send + 'static,
    {
        let (policy, old) = (policy.clone(), word(policy).get());
        if old != new {
            self.changes(field, shown(&old), shown(&new));
            self.act(move || word(&policy).set(new));
        }
    }

    /// A setting changes, if it is shown as another value then. To change it is another matter.
    pub(crate) fn changes(&mut self, field: &'static str, old: String, new: String) {
        if old != new {
            self.changes.push(FieldChange { policy: self.info.name().clone(), field, old, new });
        }
    }

    /// Something is done.
    pub(crate) fn act(&mut self, act: impl FnOnce() + Send + 'static) {
        self.acts.push(Box::new(|| {
            act();
            None
        }));
    }

    /// Something is done, and told when all else is done too.
    pub(crate) fn act_and_tell(&mut self, act: impl FnOnce() -> Telling + Send + 'static) {
        self.acts.push(Box::new(|| Some(act())));
    }

    /// Carries it out: what has changed in the policy, which goes by this name, and what is to be told besides.
    pub(crate) fn carry_out(self, name: &Name) -> (Vec<FieldChange>, Vec<Telling>) {
        let tellings = self.acts.into_iter().filter_map(|act| act()).collect();
        let changes = self.changes.into_iter().map(|change| FieldChange { policy: name.clone(), ..change });
        (changes.collect(), tellings)
    }
}

/// A value as an event has it: an option as what is in it.
pub(crate) fn shown(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.strip_prefix("Some(").and_then(|text| text.strip_suffix(')')) {
        Some(inner) => inner.to_owned(),
        None if text == "None" => "none".to_owned(),
        None => text,
    }
}

/// Refuses to change what is fixed once a policy is built.
pub(crate) fn fixed<T: PartialEq + fmt::Debug>(field: &'static str, built: &T, asked: &T) -> Result<(), ConfigError> {
    if built == asked {
        return Ok(());
    }
    let accepted = match shown(built).as_str() {
        "none" => "nothing: a live one that was built without gets none".to_owned(),
        built => format!("{built} as it was built, or nothing: a live one keeps it"),
    };
    Err(ConfigError::new(field, shown(asked), accepted))
}
