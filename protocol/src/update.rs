//! Changing what a node runs: the order, and how far the node is with it.
//!
//! An order is a [`crate::message::Command`]; it may be repeated, the id makes it one. The answer is state and not
//! events: the node's newest [`UpdateStatus`] is retained, and written again after every connection.

use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::ids::UpdateId;
use crate::message::{Extra, Header};
use crate::units::Millis;

/// What a bundle is made of, which decides who can install it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BundleKind {
    /// A RAUC bundle: a whole root file system for the other slot.
    Rauc,
    /// Our Debian packages with a signed manifest.
    Deb,
}

/// A file to install. What it says of itself is checked by whoever installs it, against its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    pub kind: BundleKind,
    /// The kind of board it is for: RAUC's `compatible`; for packages the Debian architecture.
    pub compatible: String,
    pub version: String,
    pub bytes: u64,
    /// Of the whole file, 64 digits a-f 0-9.
    pub sha256: String,
    /// Below the gateway's node address; fetched with the node's certificate, by ranges.
    pub path: String,
}

/// A daily span in which a node may be interrupted, UTC; it may pass midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Minutes since midnight, 0 to 1439.
    pub from: u16,
    pub until: u16,
}

impl Window {
    /// Whether the window is open at a time of day. Where both ends are the same it always is.
    pub fn is_open(self, minute: u16) -> bool {
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

/// Longest [`UpdateOrder::health`] that a gateway orders. Root on a board may allow less.
pub const MAX_HEALTH: Millis = Millis(24 * 3600 * 1000);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateOrder {
    pub id: UpdateId,
    pub bundle: Bundle,
    /// Fetching is done at once; installing waits for the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// The operator's word that the bundle may be older than what the node runs; else it is refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_downgrade: bool,
    /// How long the node may take, from its start with the new version, until it is connected and its probe has proved
    /// that it can do its work, if it could before. Then the earlier version comes back.
    pub health: Millis,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Where a node is with an update. Each state is on its disk before the step that it names begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum UpdateState {
    Fetching {
        bytes: u64,
    },
    /// Fetched and whole; the window is not open yet, or attempts still run.
    Waiting,
    Installing {
        percent: u8,
    },
    /// The next thing seen of the node is a new boot, or a new start of the agent.
    Restarting,
    /// The new version runs and has not proved itself yet.
    Verifying,
    Done,
    /// The earlier version runs again. The fault says what the new one lacked.
    RolledBack {
        fault: Fault,
    },
    /// Nothing was changed.
    Failed {
        fault: Fault,
    },
}

impl UpdateState {
    /// For people.
    pub fn as_str(&self) -> &'static str {
        match self {
            UpdateState::Fetching { .. } => "fetching",
            UpdateState::Waiting => "waiting",
            UpdateState::Installing { .. } => "installing",
            UpdateState::Restarting => "restarting",
            UpdateState::Verifying => "verifying",
            UpdateState::Done => "done",
            UpdateState::RolledBack { .. } => "rolled back",
            UpdateState::Failed { .. } => "failed",
        }
    }

    /// Nothing comes after it.
    pub fn is_terminal(&self) -> bool {
        match self {
            UpdateState::Done | UpdateState::RolledBack { .. } | UpdateState::Failed { .. } => true,
            UpdateState::Fetching { .. }
            | UpdateState::Waiting
            | UpdateState::Installing { .. }
            | UpdateState::Restarting
            | UpdateState::Verifying => false,
        }
    }
}

/// Retained: the newest update of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateStatus {
    #[serde(flatten)]
    pub header: Header,
    pub id: UpdateId,
    /// Of the bundle.
    pub version: String,
    pub state: UpdateState,
    #[serde(flatten)]
    pub extra: Extra,
}

/// How a node is installed, and so how it can be updated; part of its birth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// None: neither a slot nor a package is its source; whoever copied the programs there updates them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates_by: Option<BundleKind>,
    /// What a bundle's `compatible` must be. Empty without `updates_by`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub compatible: String,
    /// Of the image, or of the package.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The booted slot, where there are slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Whether commands that need rights (update, reboot) can be done here.
    pub privileged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_pass_midnight() {
        let night = Window { from: 22 * 60, until: 4 * 60 };
        assert!(night.is_open(23 * 60) && night.is_open(0) && night.is_open(239));
        assert!(!night.is_open(240) && !night.is_open(21 * 60));
        let noon = Window { from: 720, until: 780 };
        assert!(noon.is_open(720) && !noon.is_open(780) && !noon.is_open(719));
        let always = Window { from: 0, until: 0 };
        assert!(always.is_open(0) && always.is_open(1439));
    }
}
