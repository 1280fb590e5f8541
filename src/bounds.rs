//! What a stack of layers can cost at worst.

use std::time::Duration;

use crate::layer::LayerInfo;

/// Bound
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound<T> {
    /// At most
    AtMost(T),
    /// Unbounded
    Unbounded,
    /// Unknown
    Unknown,
}
impl<T> Bound<T> {
    /// x
    pub fn at_most(self) -> Option<T> {
        match self {
            Self::AtMost(v) => Some(v),
            _ => None,
        }
    }
}
pub(crate) struct Bounds {
    pub(crate) time: Bound<Duration>,
}
pub(crate) fn of(layers: &[LayerInfo]) -> Bounds {
    let _ = layers;
    Bounds { time: Bound::Unbounded }
}
