//! A backoff that is changed while calls read it.

use std::time::Duration;

use super::{Backoff, Jitter, Kind};
use crate::engine::tuned::Tuned;

/// A backoff in words of its own, so that a call reads it without a lock.
#[derive(Debug)]
pub(crate) struct LiveBackoff {
    /// The index of the kind in [`KINDS`]; beyond them, the one that was given as a function.
    kind: Tuned<u32>,
    base: Tuned<Duration>,
    factor: Tuned<Option<f64>>,
    cap: Tuned<Option<Duration>>,
    /// The index in [`JITTERS`].
    jitter: Tuned<u32>,
    /// As it was given. A function is taken from it for as long as the kind is its own.
    given: Backoff,
}

const KINDS: [fn(Duration) -> Kind; 4] = [Kind::Constant, Kind::Linear, Kind::Exponential, Kind::Decorrelated];
const JITTERS: [Option<Jitter>; 4] = [None, Some(Jitter::None), Some(Jitter::Full), Some(Jitter::Equal)];

impl LiveBackoff {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self {
            kind: Tuned::new(kind(&backoff)),
            base: Tuned::new(backoff.base().unwrap_or_default()),
            factor: Tuned::new(backoff.factor),
            cap: Tuned::new(backoff.cap),
            jitter: Tuned::new(jitter(&backoff)),
            given: backoff,
        }
    }

    /// The backoff of now.
    pub(crate) fn get(&self) -> Backoff {
        let nth = |index: &Tuned<u32>| usize::try_from(index.get()).unwrap_or(usize::MAX);
        let kind = KINDS.get(nth(&self.kind)).map_or_else(|| self.given.kind.clone(), |kind| kind(self.base.get()));
        let jitter = JITTERS.get(nth(&self.jitter)).copied().flatten();
        Backoff { kind, factor: self.factor.get(), cap: self.cap.get(), jitter }
    }

    /// Another one from now on. A function that was given when this was made can be left, and not come back to.
    #[cfg(feature = "serde")]
    pub(crate) fn set(&self, backoff: &Backoff) {
        self.base.set(backoff.base().unwrap_or_default());
        self.factor.set(backoff.factor);
        self.cap.set(backoff.cap);
        self.jitter.set(jitter(backoff));
        self.kind.set(kind(backoff));
    }
}

/// How the delays of a backoff grow.
#[cfg(feature = "serde")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackoffKind {
    /// They do not.
    Constant,
    /// By the base each time.
    Linear,
    /// By a factor each time.
    #[default]
    Exponential,
    /// At random from the base to three times the one before.
    Decorrelated,
}

#[cfg(feature = "serde")]
impl Backoff {
    /// Whether a function gives its delays.
    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.kind, Kind::Custom(_))
    }

    /// The same with another kind or base. What does not belong to the kind is left behind.
    pub(crate) fn regrown(self, kind: Option<BackoffKind>, base: Option<Duration>) -> Self {
        let base = base.or(self.base()).unwrap_or(super::DEFAULT_BASE);
        let kind = match (kind, &self.kind) {
            (Some(BackoffKind::Constant), _) | (None, Kind::Constant(_)) => Kind::Constant(base),
            (Some(BackoffKind::Linear), _) | (None, Kind::Linear(_)) => Kind::Linear(base),
            (Some(BackoffKind::Decorrelated), _) | (None, Kind::Decorrelated(_)) => Kind::Decorrelated(base),
            (Some(BackoffKind::Exponential), _) | (None, Kind::Exponential(_)) => Kind::Exponential(base),
            (None, Kind::Custom(_)) => self.kind,
        };
        let factor = self.factor.filter(|_| matches!(kind, Kind::Exponential(_)));
        let jitter = self.jitter.filter(|_| !matches!(kind, Kind::Decorrelated(_)));
        Self { kind, factor, jitter, ..self }
    }
}

fn kind(backoff: &Backoff) -> u32 {
    match backoff.kind {
        Kind::Constant(_) => 0,
        Kind::Linear(_) => 1,
        Kind::Exponential(_) => 2,
        Kind::Decorrelated(_) => 3,
        Kind::Custom(_) => 4,
    }
}

fn jitter(backoff: &Backoff) -> u32 {
    match backoff.jitter {
        None => 0,
        Some(Jitter::None) => 1,
        Some(Jitter::Full) => 2,
        Some(Jitter::Equal) => 3,
    }
}

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_what_is_read() {
        let ms = Duration::from_millis;
        for backoff in [
            Backoff::default(),
            Backoff::constant(ms(3)).jitter(Jitter::None),
            Backoff::linear(ms(3)).cap(ms(30)).jitter(Jitter::Equal),
            Backoff::exponential(ms(3)).factor(1.5).cap(ms(30)).jitter(Jitter::Full),
            Backoff::decorrelated(ms(3)).cap(ms(9)),
            Backoff::custom(|_| None).cap(ms(4)),
        ] {
            assert_eq!(LiveBackoff::new(backoff.clone()).get().describe(), backoff.describe());
        }
    }
}
