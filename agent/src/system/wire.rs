//! What agent and helper say to each other: one request in a line of JSON, then answers in lines until the last one.

use headwater_protocol::Fault;
use headwater_protocol::UpdateId;
use headwater_protocol::update::{BundleKind, UpdateOrder};
use serde::{Deserialize, Serialize};

pub(crate) const SOCKET: &str = "/run/headwater/system.sock";
/// A request or an answer, bytes; a fault with its evidence fits.
pub(crate) const MAX_LINE: u64 = 16 * 1024;

/// All that root does for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Status,
    /// The bundle lies in the agent's folder for bundles, under its SHA-256.
    Install {
        order: Box<UpdateOrder>,
    },
    /// What runs has proved itself: it stays.
    Commit {
        order: UpdateId,
    },
    Reboot,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Progress {
        percent: u8,
    },
    // The others are the last of their request.
    Status(Box<Status>),
    /// It begins to run by a new boot, or by a new start of the agent.
    Installed {
        boot: bool,
    },
    Done,
    Fault(Fault),
}

/// What the system is made of, and how far its newest update is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) updates_by: Option<BundleKind>,
    #[serde(default)]
    pub(crate) compatible: String,
    #[serde(default)]
    pub(crate) version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slot: Option<String>,
    /// Without `updates_by`: why, and what to do instead.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) explanation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Pending>,
}

/// The newest update, as root sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) order: UpdateId,
    pub(crate) standing: Standing,
}

/// Read from root's journal and from what booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// Somebody is at it.
    Installing,
    /// Somebody was at it, and is gone; the earlier version runs. It may be asked for again.
    Interrupted,
    /// Installed; the earlier version still runs, until the next boot.
    AwaitsBoot,
    /// The new version runs and is not committed.
    Trial,
    Committed,
    RolledBack {
        fault: Fault,
    },
    /// Nothing was changed.
    Failed {
        fault: Fault,
    },
}
