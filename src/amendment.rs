//! What is going to change in a live policy: worked out and checked first, carried out once all of it is known to hold.

use std::{fmt, sync::Arc};

use crate::{
    engine::tuned::{Tunable, Tuned},
    error::ConfigError,
    layer::LayerInfo,
};

/// A field that changed, and from what to what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldChange {
    /// The field, as the builder's method is called.
    pub field: &'static str,
    /// The value before.
    pub old: String,
    /// The value now.
    pub new: String,
}

/// What becomes of a policy.
pub(crate) struct Amendment {
    /// Its description then.
    pub(crate) info: LayerInfo,
    changes: Vec<(FieldChange, Act)>,
    /// What is done after them, if there are any.
    last: Option<Act>,
}

type Act = Box<dyn FnOnce() + Send>;

impl Amendment {
    pub(crate) fn new(info: LayerInfo) -> Self {
        Self { info, changes: Vec::new(), last: None }
    }

    /// A word of a policy takes this value, if it has another one.
    pub(crate) fn tune<S, T>(&mut self, field: &'static str, policy: &Arc<S>, word: fn(&S) -> &Tuned<T>, new: T)
    where
        S: Send + Sync + 'static,
        T: Tunable + PartialEq + fmt::Debug + Send + 'static,
    {
        let (policy, old) = (policy.clone(), word(policy).get());
        self.act(field, shown(&old), shown(&new), move || word(&policy).set(new));
    }

    /// Something is done about a field, if it is shown as another value then.
    pub(crate) fn act(&mut self, field: &'static str, old: String, new: String, act: impl FnOnce() + Send + 'static) {
        if old != new {
            self.changes.push((FieldChange { field, old, new }, Box::new(act)));
        }
    }

    /// Something is done after all fields, if any of them changes.
    pub(crate) fn finally(&mut self, act: impl FnOnce() + Send + 'static) {
        self.last = Some(Box::new(act));
    }

    /// Carries it out, and tells what has changed.
    pub(crate) fn carry_out(self) -> Vec<FieldChange> {
        let carried_out = |(change, act): (FieldChange, Act)| {
            act();
            change
        };
        let last = self.last.filter(|_| !self.changes.is_empty());
        let changes = self.changes.into_iter().map(carried_out).collect();
        if let Some(last) = last {
            last();
        }
        changes
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
    let accepted = format!("{} as it was built, or nothing: a live one keeps it", shown(built));
    Err(ConfigError::new(field, shown(asked), accepted))
}
