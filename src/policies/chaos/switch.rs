//! The switches of a chaos, and what a call looks at of them.

use std::{fmt, sync::Arc};

use super::board::Board;
use crate::{error::ConfigError, event::Fault, name::Name};

/// Switches a [`Chaos`](crate::Chaos) on and off while calls run, for all of its layers or for one key. Its clones are
/// the same switch.
///
/// It is for whoever operates the process: keep one where an admin endpoint or a signal reaches it.
///
/// ```
/// use withstand::{Chaos, Fault};
///
/// let chaos = Chaos::builder().error(0.0, || "unavailable").build()?;
/// let switch = chaos.switch();
/// switch.set_rate(Fault::Error, 0.05)?;     // 5 % of the attempts, once it is on
/// switch.key("tenant-7").enable()?;         // on for one tenant
/// assert!(!switch.is_enabled());            // and off for all others
/// switch.disable_everywhere();
/// assert!(!switch.key("tenant-7").is_enabled());
/// # Ok::<(), withstand::ConfigError>(())
/// ```
///
/// What it changes holds from the next attempt on: one that hangs already goes on hanging. Calls take no lock for it; of
/// several rates that are changed one after the other, an attempt may see some changed and some not.
#[derive(Clone)]
pub struct ChaosSwitch(pub(super) Arc<Board>);

impl ChaosSwitch {
    /// Injects from the next attempt on, except where a key is switched off for itself.
    pub fn enable(&self) {
        self.0.switch(true);
    }

    /// Injects no more, except where a key is switched on for itself.
    pub fn disable(&self) {
        self.0.switch(false);
    }

    /// Injects no more, whatever the key, and forgets what was set for single keys. The common rates stay.
    pub fn disable_everywhere(&self) {
        self.0.disable_everywhere();
    }

    /// Whether it is on for all that is not switched for itself.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.common().enabled
    }

    /// Sets the share of attempts that get this fault, from 0 to 1, for all keys that have no rate of their own.
    ///
    /// # Errors
    ///
    /// If the rate is none, the fault is not one that the builder was given, or more than all attempts would end in a
    /// fault, be it for a single key. Then nothing has changed.
    pub fn set_rate(&self, fault: Fault, rate: f64) -> Result<(), ConfigError> {
        self.0.set_rate(fault, rate)
    }

    /// The share of attempts that get this fault while it is on.
    #[must_use]
    pub fn rate(&self, fault: Fault) -> f64 {
        *self.0.common().rates.get(fault)
    }

    /// The switch for a key alone, whether or not there is a layer for it yet.
    #[must_use]
    pub fn key(&self, key: impl Into<Name>) -> ChaosKey {
        ChaosKey { board: Arc::clone(&self.0), key: key.into() }
    }

    /// The keys that have settings of their own, in no order.
    #[must_use]
    pub fn keys(&self) -> Vec<Name> {
        self.0.keys_with_rules()
    }
}

impl fmt::Debug for ChaosSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let common = self.0.common();
        f.debug_struct("ChaosSwitch")
            .field("name", &self.0.id.name)
            .field("enabled", &common.enabled)
            .field("rates", &common.rates)
            .field("known_keys", &self.0.known_keys())
            .finish_non_exhaustive()
    }
}

/// Switches a [`Chaos`](crate::Chaos) for one key. See [`ChaosSwitch::key`].
///
/// What it sets stays set, also while there is no layer for the key, until [`follow`](Self::follow). At most 1,024 keys
/// can have settings of their own at once.
#[derive(Clone)]
pub struct ChaosKey {
    board: Arc<Board>,
    key: Name,
}

impl ChaosKey {
    /// The key.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.key
    }

    /// Injects for this key, whatever the common switch says.
    ///
    /// # Errors
    ///
    /// If too many keys have settings of their own already.
    pub fn enable(&self) -> Result<(), ConfigError> {
        self.board.switch_of(&self.key, true)
    }

    /// Injects nothing for this key, whatever the common switch says.
    ///
    /// # Errors
    ///
    /// If too many keys have settings of their own already.
    pub fn disable(&self) -> Result<(), ConfigError> {
        self.board.switch_of(&self.key, false)
    }

    /// Sets the share of this key's attempts that get this fault, from 0 to 1, whatever the common rate is.
    ///
    /// # Errors
    ///
    /// As [`ChaosSwitch::set_rate`], and if too many keys have settings of their own already.
    pub fn set_rate(&self, fault: Fault, rate: f64) -> Result<(), ConfigError> {
        self.board.set_rate_of(&self.key, fault, rate)
    }

    /// Forgets what was set for this key: it follows the common switch and the common rates again.
    pub fn follow(&self) {
        self.board.follow(&self.key);
    }

    /// Whether it is on for this key.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.board.of_key(&self.key).enabled
    }

    /// The share of this key's attempts that get this fault while it is on.
    #[must_use]
    pub fn rate(&self, fault: Fault) -> f64 {
        *self.board.of_key(&self.key).rates.get(fault)
    }
}

impl fmt::Debug for ChaosKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = self.board.of_key(&self.key);
        f.debug_struct("ChaosKey")
            .field("key", &self.key)
            .field("enabled", &setting.enabled)
            .field("rates", &setting.rates)
            .finish()
    }
}
