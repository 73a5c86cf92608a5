//! What agent and helper say to each other: one request in a line of JSON, then answers in lines until the last one.

use headwater_protocol::update::{BundleKind, UpdateOrder};
use headwater_protocol::{Code, Fault, UpdateId, version};
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

/// What speaks against an order, from what is known of the system: for the agent before it fetches anything, and for root,
/// who does not believe the agent. `downgrades`: whether an order may ask for an older version at all.
pub(crate) fn fits(status: &Status, order: &UpdateOrder, downgrades: bool) -> Result<(), Fault> {
    let bundle = &order.bundle;
    let Some(kind) = status.updates_by else {
        return Err(Fault::new(Code::Unsupported, &*status.explanation));
    };
    let name = |kind| match kind {
        BundleKind::Rauc => "RAUC bundles",
        BundleKind::Deb => "bundles of packages",
    };
    if kind != bundle.kind {
        let text = format!("this node is updated by {}, not by {}", name(kind), name(bundle.kind));
        return Err(Fault::new(Code::Unsupported, text));
    }
    if status.compatible != bundle.compatible {
        let text = format!("the bundle is for {:?}, this is {:?}", bundle.compatible, status.compatible);
        return Err(Fault::new(Code::BadBundle, text));
    }
    if version::takes_back(&bundle.version, &status.version) {
        let older = format!("{} is older than {}, which runs", bundle.version, status.version);
        if !order.allow_downgrade {
            return Err(Fault::new(Code::BadBundle, format!("{older}; order it with --allow-downgrade")));
        }
        if !downgrades {
            let text = format!("{older}, and this board's system.toml does not allow downgrades");
            return Err(Fault::new(Code::BadBundle, text));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::Millis;
    use headwater_protocol::update::Bundle;

    /// What is said of a bundle of version 2, where this version runs.
    fn said(runs: &str, allow_downgrade: bool, downgrades: bool) -> Result<(), String> {
        let status = Status {
            updates_by: Some(BundleKind::Rauc),
            compatible: "board".into(),
            version: runs.into(),
            ..Status::default()
        };
        let bundle = Bundle {
            kind: BundleKind::Rauc,
            compatible: "board".into(),
            version: "2".into(),
            bytes: 1,
            sha256: String::new(),
            path: String::new(),
        };
        let id = UpdateId::new("u1").unwrap();
        let order = UpdateOrder { id, bundle, window: None, allow_downgrade, health: Millis(1) };
        fits(&status, &order, downgrades).map_err(|fault| fault.text)
    }

    #[test]
    fn an_older_version_comes_only_where_the_order_and_root_allow_it() {
        for runs in ["1.9", "2~rc1", "2", ""] {
            assert_eq!(said(runs, false, false), Ok(()), "{runs}");
        }
        assert!(
            said("2.0.1", false, true)
                .unwrap_err()
                .contains("2 is older than 2.0.1, which runs; order it with")
        );
        assert!(said("10", true, false).unwrap_err().contains("system.toml does not allow downgrades"));
        assert_eq!(said("10", true, true), Ok(()));
    }
}
