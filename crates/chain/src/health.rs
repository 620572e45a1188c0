//! How the endpoints of a network are doing, for logs, metrics and people; never with a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_rules::block::BlockRef;

/// How an endpoint is doing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EndpointHealth {
    /// Scheme and host only: a path or a query may hold a provider key. A second endpoint of the
    /// same name has its rank behind it.
    pub name: String,
    /// False while it is being rested after failures or for its budget.
    pub available: bool,
    /// The same in more detail.
    pub state: EndpointState,
    /// From 0 to 100: failures, latency and lag taken together. For choosing, not for believing.
    pub score: u8,
    /// The newest block that it has shown. Its time may be compared with the clock.
    pub head: Option<BlockRef>,
    /// How long ago it showed that; zero when it never did.
    pub head_age: Duration,
    /// How many blocks it was behind the best head known, when the two were last compared.
    pub behind: u64,
    /// How long it has been behind by more than is borne while another was ahead; it is set aside
    /// meanwhile.
    pub lagging_for: Option<Duration>,
    /// Calls made since the start.
    pub calls: u64,
    /// Operations (one or more calls) that failed since the start.
    pub failures: u64,
    /// How many of them since the last success; those that failed together are one.
    pub failures_in_row: u32,
    /// How long a request takes on average, the newer ones weighing more; `None` when there was
    /// none lately.
    pub latency_mean_ms: Option<u64>,
    /// Nine of ten of the newest requests took no longer; `None` while there are too few.
    pub latency_bound_ms: Option<u64>,
    /// What is left of the daily budget of requests; `None` without a budget.
    pub requests_left: Option<u64>,
    /// Operations begun here because another endpoint was slow.
    pub hedges: u64,
    /// Those of them that were done sooner here.
    pub hedges_won: u64,
    /// The last failure in words, without secrets.
    pub last_error: Option<String>,
}

/// Whether an endpoint may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EndpointState {
    /// It may.
    #[default]
    Available,
    /// By one operation at a time: its rest is over, and it has not been heard since.
    HalfOpen,
    /// It rests after failures.
    Resting {
        /// For how long yet.
        left: Duration,
    },
    /// Its daily budget is used up.
    OverBudget {
        /// For how long yet.
        left: Duration,
    },
}

impl EndpointState {
    /// The word of every state.
    pub const NAMES: [&str; 4] = ["available", "half_open", "resting", "over_budget"];

    /// In one word: one of [`EndpointState::NAMES`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::HalfOpen => "half_open",
            Self::Resting { .. } => "resting",
            Self::OverBudget { .. } => "over_budget",
        }
    }
}

/// Which endpoint of a network is in use, and how it came to that.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PoolHealth {
    /// The place of the endpoint in use in the list of all.
    pub current: usize,
    /// The newest changes of it, the newest first, up to
    /// [`SWITCHES_KEPT`](crate::endpoints::SWITCHES_KEPT).
    pub switches: Vec<Switch>,
    /// How many there were since the start.
    pub switches_total: u64,
    /// The same by their cause.
    pub switches_by_cause: BTreeMap<SwitchCause, u64>,
}

/// The kind of reason for which another endpoint is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SwitchCause {
    /// It failed, or rests after failures.
    Failing,
    /// Its budget is used up.
    Budget,
    /// It is behind another by more than is borne.
    Lagging,
    /// It does not have a block that another has.
    Overdue,
    /// Its score stayed clearly below another's.
    Score,
    /// The other is named earlier, and well again.
    Return,
}

impl SwitchCause {
    /// In one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Budget => "budget",
            Self::Lagging => "lagging",
            Self::Overdue => "overdue",
            Self::Score => "score",
            Self::Return => "return",
        }
    }
}

/// A change of the endpoint in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The name of the one that was left.
    pub from: String,
    /// The name of the one that is used since.
    pub to: String,
    /// The kind of reason.
    pub cause: SwitchCause,
    /// Why in words, without secrets.
    pub reason: String,
    /// How long ago.
    pub age: Duration,
}

/// What independent endpoints (of different hosts) show at the height of a block, by their names.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Witnesses {
    /// They show that very block.
    pub same: Vec<String>,
    /// They show another block.
    pub other: Vec<String>,
    /// They do not have that height, rest, or did not answer.
    pub silent: Vec<String>,
}
