//! An update of many nodes, as plain data: no clock, no socket, no lock.
//!
//! ```text
//! plan: selected nodes ─▶ skipped (why) | waves, in an order of their own for each update
//! wave: pending ─▶ ordered ─▶ what the node says of itself ─▶ done | failed | rolled back
//!       every node of the wave has ended, is away or gets no further  ─▶ soak ─▶ next wave
//!       failures reach the limit ─▶ stopped: nothing new is ordered, what has not begun is recalled
//! ```
//!
//! [`step`] takes the time and what is known of the fleet, and gives back what to send. Nothing depends on a message
//! having arrived: an order is sent again until the node's own retained word shows its id.

mod events;
mod plan;
mod step;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use headwater_protocol::update::{Bundle, UpdateState, Window};
use headwater_protocol::{Millis, NodeId, UpdateId};
use serde::{Deserialize, Serialize};

pub use events::NotNow;
pub use plan::{BadPlan, Candidate, Unfit, check, enlist, is_older, suits};
pub use step::{ABSENT, Action, BATCH, FETCHING, Fleet, RESEND, SILENT, Seen, Step, Time, step};

/// A part of the nodes: `5%`, or a count, `3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Share {
    Percent(u32),
    Count(u32),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no part of the nodes; write a count above 0, or 1% to 100%")]
pub struct BadShare(String);

impl Share {
    /// Of so many nodes; at least one.
    pub fn of(self, total: usize) -> usize {
        match self {
            Share::Percent(percent) => (total * percent as usize).div_ceil(100).max(1),
            Share::Count(count) => count as usize,
        }
    }
}

impl FromStr for Share {
    type Err = BadShare;

    fn from_str(text: &str) -> Result<Self, BadShare> {
        let bad = || BadShare(text.to_owned());
        let share = match text.trim().strip_suffix('%') {
            Some(percent) => Share::Percent(percent.trim().parse().map_err(|_| bad())?),
            None => Share::Count(text.trim().parse().map_err(|_| bad())?),
        };
        match share {
            Share::Percent(1..=100) | Share::Count(1..) => Ok(share),
            Share::Percent(_) | Share::Count(_) => Err(bad()),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = BadShare;
    fn try_from(text: String) -> Result<Self, BadShare> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Percent(percent) => write!(f, "{percent}%"),
            Share::Count(count) => write!(f, "{count}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// With this wave so many of all nodes have had their turn.
    pub upto: Share,
    /// From the end of its last node until the next wave.
    pub soak: Millis,
}

/// How an update goes, whatever the nodes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub waves: Vec<Wave>,
    /// So many failures stop it.
    pub stop_after: Share,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Nodes may get an older version than they run.
    #[serde(default)]
    pub allow_downgrade: bool,
    /// Time for a node with the new version to prove itself.
    pub health: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum State {
    Running,
    /// By the operator: nothing new is ordered.
    Paused,
    /// By its failures: nothing new is ordered, and what has not begun is recalled. It may be resumed.
    Stopped {
        reason: String,
    },
    Done,
    Cancelled,
}

impl State {
    /// It orders nothing any more, whatever happens.
    pub fn is_final(&self) -> bool {
        match self {
            State::Done | State::Cancelled => true,
            State::Running | State::Paused | State::Stopped { .. } => false,
        }
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped { .. } => "stopped",
            State::Done => "done",
            State::Cancelled => "cancelled",
        }
    }
}

/// Where a node is with it, as far as this gateway knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Progress {
    /// It cannot take the bundle, or need not.
    Skipped { reason: String },
    /// Its wave's turn has not come, or it is away.
    Pending,
    /// Told, and not heard of since.
    Ordered,
    /// Its own word.
    Node { state: UpdateState },
    /// It began to install and was not heard of since. Counts as a failure until it speaks.
    Silent,
    /// Told to give it up before it began.
    Recalled,
}

impl Progress {
    /// Nothing is expected of it any more.
    pub fn is_over(&self) -> bool {
        match self {
            Progress::Skipped { .. } | Progress::Silent => true,
            Progress::Node { state } => state.is_terminal(),
            Progress::Pending | Progress::Ordered | Progress::Recalled => false,
        }
    }

    pub fn is_failure(&self) -> bool {
        match self {
            Progress::Silent => true,
            Progress::Node { state } => state.is_terminal() && *state != UpdateState::Done,
            Progress::Skipped { .. } | Progress::Pending | Progress::Ordered | Progress::Recalled => false,
        }
    }

    pub fn is_done(&self) -> bool {
        *self == Progress::Node { state: UpdateState::Done }
    }

    /// Told, and what it runs is not touched yet: it can still be recalled.
    pub fn has_not_begun(&self) -> bool {
        match self {
            Progress::Ordered => true,
            Progress::Node { state } => {
                matches!(state, UpdateState::Fetching { .. } | UpdateState::Waiting)
            }
            Progress::Skipped { .. } | Progress::Pending | Progress::Silent | Progress::Recalled => false,
        }
    }

    /// What it runs is being changed.
    pub fn is_changing(&self) -> bool {
        matches!(
            self,
            Progress::Node {
                state: UpdateState::Installing { .. } | UpdateState::Restarting | UpdateState::Verifying
            }
        )
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Progress::Skipped { .. } => "skipped",
            Progress::Pending => "pending",
            Progress::Ordered => "ordered",
            Progress::Silent => "silent",
            Progress::Recalled => "recalled",
            Progress::Node { state } => state.as_str(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Counts from 0. Without meaning where it is skipped.
    pub wave: usize,
    pub progress: Progress,
    /// The id its order has: the update's, or one of its own after a recall.
    pub order: UpdateId,
    /// The last change of its progress, since 1970.
    pub since: Millis,
    /// When the order or its recall was sent last. Not stored: a new life sends again.
    #[serde(skip)]
    pub sent: Option<Millis>,
    /// Since when it is away in its wave's turn, or back and not ready. Not stored: a new life knows of nobody at first.
    #[serde(skip)]
    pub away: Option<Millis>,
    /// What was sent may not have arrived, or may be forgotten there: sent again until the node has a word on it.
    #[serde(skip)]
    pub unsure: bool,
}

/// What of an update changes as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub state: State,
    /// The wave whose turn it is, from 0.
    pub wave: usize,
    /// Since when the wave's nodes are through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soaking: Option<Millis>,
    /// Failures that were seen and resumed from.
    pub forgiven: usize,
    /// Resumes after a recall; each needs ids of its own.
    pub round: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    pub id: UpdateId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub selector: String,
    pub bundle: Bundle,
    pub plan: Plan,
    pub created: Millis,
    pub head: Head,
    /// Stored row by row, beside the rest.
    #[serde(skip)]
    pub members: BTreeMap<NodeId, Member>,
}

impl Campaign {
    /// All but its nodes.
    pub fn without_members(&self) -> Self {
        Self {
            id: self.id.clone(),
            name: self.name.clone(),
            selector: self.selector.clone(),
            bundle: self.bundle.clone(),
            plan: self.plan.clone(),
            created: self.created,
            head: self.head.clone(),
            members: BTreeMap::new(),
        }
    }

    pub fn failures(&self) -> usize {
        self.members.values().filter(|member| member.progress.is_failure()).count()
    }

    /// Nodes that can take it.
    pub fn candidates(&self) -> usize {
        self.members.values().filter(|m| !matches!(m.progress, Progress::Skipped { .. })).count()
    }
}
