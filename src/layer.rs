//! What a layer tells about itself as data.

use std::{any::Any, fmt, num::NonZeroU32, sync::Arc, time::Duration};

#[cfg(feature = "serde")]
use crate::{amendment::Amendment, config::LayerConfig, error::ConfigError};
use crate::{
    engine::moment::Moment,
    event::{Kind, PolicyId},
    name::Name,
    snapshot::LayerState,
};

/// A layer of a pipeline as data: its name, its settings, and the bounds it keeps.
///
/// A policy of one's own that describes itself keeps [`explain()`](crate::Pipeline::explain) exact:
///
/// ```
/// use std::time::Duration;
/// use withstand::{Describe, LayerInfo};
///
/// struct RateLimit { per_second: u32, max_wait: Duration }
/// impl Describe for RateLimit {
///     fn describe(&self, out: &mut Vec<LayerInfo>) {
///         out.push(
///             LayerInfo::custom("rate_limit")
///                 .setting("per_second", self.per_second)
///                 .setting("max_wait", format_args!("{:?}", self.max_wait))
///                 .attempts(1)
///                 .added_time(self.max_wait),
///         );
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct LayerInfo {
    pub(crate) id: PolicyId,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) role: Role,
    pub(crate) live: Option<LiveLayer>,
}

impl LayerInfo {
    /// A policy of one's own. Its bounds are unknown until [`attempts`](Self::attempts) and
    /// [`added_time`](Self::added_time) tell them.
    #[must_use]
    pub fn custom(name: impl Into<Name>) -> Self {
        Self::new(PolicyId::custom(name), Role::Custom { named: true, attempts: None, added_time: None })
    }

    /// A policy that tells nothing: shown by the last part of its type's name.
    pub(crate) fn undescribed(type_name: &'static str) -> Self {
        let path = type_name.split('<').next().unwrap_or(type_name);
        let name = path.rsplit("::").next().unwrap_or(path);
        Self::new(PolicyId::custom(name), Role::Custom { named: false, attempts: None, added_time: None })
    }

    pub(crate) fn new(id: PolicyId, role: Role) -> Self {
        Self { id, settings: Vec::new(), role, live: None }
    }

    /// With the policy itself, for who looks after pipelines that run.
    pub(crate) fn live(mut self, policy: Arc<dyn Live>) -> Self {
        self.live = Some(LiveLayer(policy));
        self
    }

    /// The same as part of a pipeline that is itself a layer.
    pub(crate) fn in_pipeline(mut self, pipeline: &Name) -> Self {
        self.id.name = format!("{pipeline}/{}", self.id.name).into();
        self
    }

    /// A setting, for people to read.
    #[must_use]
    pub fn setting(mut self, field: &'static str, value: impl fmt::Display) -> Self {
        self.settings.push((field, value.to_string()));
        self
    }

    /// The most attempts that a custom layer makes of what is inside it.
    #[must_use]
    pub fn attempts(mut self, most: u32) -> Self {
        if let Role::Custom { attempts, .. } = &mut self.role {
            *attempts = Some(most);
        }
        self
    }

    /// The most time that a custom layer takes besides what is inside it.
    #[must_use]
    pub fn added_time(mut self, most: Duration) -> Self {
        if let Role::Custom { added_time, .. } = &mut self.role {
            *added_time = Some(most);
        }
        self
    }

    /// The kind of policy.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.id.kind
    }

    /// The policy's name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.id.name
    }

    /// The settings, as the builder's methods are called, with their values.
    #[must_use]
    pub fn settings(&self) -> &[(&'static str, String)] {
        &self.settings
    }
}

/// A policy behind its description: what can be asked of it and done to it while calls run.
pub(crate) trait Live: Send + Sync {
    /// Its description as it is now.
    fn info(&self) -> LayerInfo;

    /// What it keeps.
    fn state(&self) -> LayerState {
        LayerState::None
    }

    /// When it may be forgotten without loss, as of `now`: before all time if it says nothing that matters, later than
    /// `now` if it must be kept.
    #[cfg_attr(not(feature = "keyed"), allow(dead_code, reason = "asked by what keeps many instances"))]
    fn keep_until(&self, now: Moment) -> Moment {
        let _ = now;
        Moment::from_nanos(0)
    }

    /// Refuses every call for as long as what this gives is held; none if it is nothing that can be held open.
    fn isolate(self: Arc<Self>) -> Option<Hold> {
        None
    }

    /// Begins anew.
    fn reset(&self) {}

    /// What is to change so that it is as these settings say. Nothing is, before the amendment is carried out.
    #[cfg(feature = "serde")]
    fn amend(self: Arc<Self>, config: &LayerConfig) -> Result<Amendment, ConfigError>;

    /// What is inside it has changed: an attempt through it takes so long at most, if anything bounds it, in each of the
    /// pipelines that it is part of.
    #[cfg(feature = "serde")]
    fn inside_is(&self, _longest: &[Option<Duration>]) {}
}

/// Holds a circuit open.
pub(crate) type Hold = Box<dyn Any + Send + Sync>;

/// A [`Live`] policy, which shows nothing of itself.
#[derive(Clone)]
pub(crate) struct LiveLayer(pub(crate) Arc<dyn Live>);

impl fmt::Debug for LiveLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveLayer")
    }
}

/// What a layer does to the attempts and the time of what is inside it.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    Timeout {
        limit: Duration,
    },
    Retry {
        attempts: u32,
        /// The longest that all its delays together can be without hints; none where a user's own function gives them.
        waits: Option<Duration>,
        /// The longest delay that a hint can cause.
        longest_hint: Duration,
        max_elapsed: Option<Duration>,
        budget: Option<BudgetInfo>,
        repeats_spent: bool,
        repeats_rejected: bool,
    },
    Hedge {
        hedges: u32,
        wait: HedgeWait,
        /// The longest wait that a hint can cause.
        longest_hint: Duration,
        budget: Option<BudgetInfo>,
    },
    CircuitBreaker {
        /// The lease that was asked for; none where it follows from what is inside.
        lease: Option<Duration>,
        slow_call: Option<Duration>,
    },
    Bulkhead {
        limit: usize,
        queue: usize,
        max_wait: Duration,
    },
    Fallback {
        /// Whether it answers for every failure: what is outside sees none.
        hides_failures: bool,
        /// The limit of an asynchronous one.
        limit: Option<Duration>,
    },
    #[cfg(feature = "chaos")]
    Chaos {
        /// The longest latency that it may inject; none where it may hang.
        longest: Option<Duration>,
        /// Whether it injects faults now.
        on: bool,
    },
    Custom {
        /// Whether it was given a name, which must then be unique.
        named: bool,
        attempts: Option<u32>,
        added_time: Option<Duration>,
    },
}

/// How long a hedge waits for the attempt before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HedgeWait {
    /// Always so long.
    Fixed(Duration),
    /// At most so long.
    UpTo(Duration),
    /// Until that one has failed.
    OnFailure,
    /// Only a function of the user's knows.
    Unknown,
}

impl HedgeWait {
    /// The longest that it waits while nothing has failed; none where that may be for ever.
    pub(crate) const fn longest(self) -> Option<Duration> {
        match self {
            Self::Fixed(delay) | Self::UpTo(delay) => Some(delay),
            Self::OnFailure | Self::Unknown => None,
        }
    }
}

/// A budget that a layer draws on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BudgetInfo {
    /// Tells shared budgets from separate ones.
    pub(crate) id: NonZeroU32,
    pub(crate) ratio: f64,
    pub(crate) cap: u32,
}

/// The name of a layer that was given none: its kind, numbered from the second of a kind on.
pub(crate) fn default_name(kind: Kind, before: usize) -> Name {
    match before.saturating_add(1) {
        1 => kind.into(),
        n => format!("{kind}-{n}").into(),
    }
}

/// The layers with the names that they go by.
#[cfg(feature = "serde")]
pub(crate) fn named(layers: &[LayerConfig]) -> impl Iterator<Item = (Name, &LayerConfig)> {
    layers.iter().enumerate().map(move |(place, layer)| {
        let before = layers.iter().take(place).filter(|other| other.kind() == layer.kind()).count();
        let name = layer.name().map_or_else(|| default_name(layer.kind(), before), |name| name.to_owned().into());
        (name, layer)
    })
}
