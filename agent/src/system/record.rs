//! Root's journal: the newest update, on disk before each step, and what it means after whatever happened since.
//!
//! ```text
//!              ┌── packages: the guard goes on ──┐
//!  Installing ─┴─▶ Installed ── new boot or start ── commit ─▶ Committed
//!       │              └── no commit in time, or the bootloader went back ─▶ RolledBack
//!       └──▶ Failed
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_protocol::update::{BundleKind, UpdateOrder};
use headwater_protocol::{Code, Fault, UpdateId};
use serde::{Deserialize, Serialize};

use super::wire::Standing;
use crate::{board, files};

/// One version's place: the slot where there are slots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slot: Option<String>,
    pub(crate) version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Installing,
    Installed,
    Committed,
    RolledBack { fault: Fault },
    Failed { fault: Fault },
}

/// A moment: seconds since a boot of the kernel. A board without a battery knows no other that never jumps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) boot_id: String,
    pub(crate) uptime_s: u64,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { boot_id: board::boot_id(), uptime_s: board::uptime().as_secs() }
    }

    /// How long ago `earlier` was, where it was an earlier boot: how long ago this boot was.
    pub(crate) fn since(&self, earlier: &Moment) -> Duration {
        let begin = if self.boot_id == earlier.boot_id { earlier.uptime_s } else { 0 };
        Duration::from_secs(self.uptime_s.saturating_sub(begin))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) order: UpdateId,
    pub(crate) kind: BundleKind,
    /// Of the bundle.
    pub(crate) sha256: String,
    pub(crate) from: Place,
    pub(crate) to: Place,
    /// From the start of the new version to its commit.
    pub(crate) health_s: u64,
    /// How often RAUC or the package manager was started for it.
    pub(crate) tries: u8,
    /// Packages: whether those of the earlier version are kept.
    pub(crate) way_back: bool,
    /// When the phase began.
    pub(crate) at: Moment,
    pub(crate) phase: Phase,
    /// Packages: boots since they were installed, and the last one that was counted.
    #[serde(default)]
    pub(crate) boots: u8,
    #[serde(default)]
    pub(crate) counted: String,
}

impl Record {
    pub(crate) fn new(order: &UpdateOrder, from: Place, at: Moment) -> Self {
        Self {
            order: order.id.clone(),
            kind: order.bundle.kind,
            sha256: order.bundle.sha256.clone(),
            from,
            to: Place { slot: None, version: order.bundle.version.clone() },
            health_s: order.health.0.div_ceil(1000),
            tries: 0,
            way_back: order.bundle.kind == BundleKind::Rauc,
            at,
            phase: Phase::Installing,
            boots: 0,
            counted: String::new(),
        }
    }

    /// What it means now. `slot`: the booted one; `busy`: somebody works on an update at this moment. None: nobody can
    /// tell without knowing the slot.
    pub(crate) fn standing(&self, boot_id: &str, slot: Option<&str>, busy: bool) -> Option<Standing> {
        let over = matches!(self.phase, Phase::Committed | Phase::RolledBack { .. } | Phase::Failed { .. });
        let known = over || self.kind == BundleKind::Deb || slot.is_some();
        known.then(|| self.standing_of(boot_id, slot, busy))
    }

    fn standing_of(&self, boot_id: &str, slot: Option<&str>, busy: bool) -> Standing {
        let rebooted = self.at.boot_id != boot_id;
        let elsewhere = rebooted && slot != self.from.slot.as_deref();
        match (&self.phase, self.kind) {
            (Phase::Committed, _) => Standing::Committed,
            (Phase::RolledBack { fault }, _) => Standing::RolledBack { fault: fault.clone() },
            (Phase::Failed { fault }, _) => Standing::Failed { fault: fault.clone() },
            // The guard begins again after a power cut.
            (Phase::Installing, BundleKind::Deb) => Standing::Installing,
            (Phase::Installed, BundleKind::Deb) => Standing::Trial,
            // RAUC had finished when the power went, or after we had given up to wait, and nobody could write it down.
            (Phase::Installing | Phase::Installed, BundleKind::Rauc) if elsewhere => Standing::Trial,
            (Phase::Installing, BundleKind::Rauc) if busy => Standing::Installing,
            (Phase::Installing, BundleKind::Rauc) => Standing::Interrupted,
            (Phase::Installed, BundleKind::Rauc) if !rebooted => Standing::AwaitsBoot,
            (Phase::Installed, BundleKind::Rauc) => Standing::RolledBack { fault: self.came_back() },
        }
    }

    fn came_back(&self) -> Fault {
        let text = format!(
            "version {} did not start well enough to be committed; the bootloader went back to {}",
            self.to.version, self.from.version
        );
        Fault::new(Code::Unhealthy, text)
    }
}

/// The journal's file.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    path: PathBuf,
}

impl Journal {
    pub(crate) fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("pending.json") }
    }

    /// None where there was no update yet. One that cannot be read is as none, and said: it was written whole or not
    /// at all, so only a broken disk damages it, and root must still be able to mark the slot good and to install.
    pub(crate) fn load(&self) -> Option<Record> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(path = %self.path.display(), %error, "the journal cannot be read");
                }
                return None;
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the journal is damaged and passed over");
                None
            }
        }
    }

    pub(crate) fn store(&self, record: &Record) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        files::write_atomically(&self.path, &bytes, 0o600)
    }

    /// The next phase, beginning now.
    pub(crate) fn enter(&self, record: &mut Record, phase: Phase) -> io::Result<()> {
        tracing::info!(order = %record.order, version = record.to.version, ?phase, "update");
        (record.phase, record.at) = (phase, Moment::now());
        self.store(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::Millis;
    use headwater_protocol::update::Bundle;

    pub(crate) fn order(kind: BundleKind) -> UpdateOrder {
        let bundle = Bundle {
            kind,
            compatible: "board".into(),
            version: "2".into(),
            bytes: 1,
            sha256: "0".repeat(64),
            path: "/b".into(),
        };
        UpdateOrder {
            id: UpdateId::new("u1").unwrap(),
            bundle,
            window: None,
            allow_downgrade: false,
            health: Millis(600_000),
        }
    }

    fn record(kind: BundleKind, phase: Phase) -> Record {
        let from = Place { slot: (kind == BundleKind::Rauc).then(|| "A".into()), version: "1".into() };
        let at = Moment { boot_id: "one".into(), uptime_s: 100 };
        Record { phase, ..Record::new(&order(kind), from, at) }
    }

    #[test]
    fn the_booted_slot_tells_what_became_of_an_installed_bundle() {
        let installed = record(BundleKind::Rauc, Phase::Installed);
        assert_eq!(installed.standing("one", Some("A"), false), Some(Standing::AwaitsBoot));
        assert_eq!(installed.standing("two", Some("B"), false), Some(Standing::Trial));
        assert!(matches!(installed.standing("two", Some("A"), false), Some(Standing::RolledBack { .. })));
        assert_eq!(installed.standing("two", None, false), None, "RAUC is broken: nothing is concluded");
    }

    #[test]
    fn a_power_cut_while_installing_is_told_from_somebody_at_work() {
        let installing = record(BundleKind::Rauc, Phase::Installing);
        assert_eq!(installing.standing("one", Some("A"), true), Some(Standing::Installing));
        assert_eq!(
            installing.standing("one", Some("A"), false),
            Some(Standing::Interrupted),
            "the helper is gone"
        );
        assert_eq!(installing.standing("two", Some("A"), false), Some(Standing::Interrupted));
        assert_eq!(
            installing.standing("two", Some("B"), false),
            Some(Standing::Trial),
            "RAUC was done before the cut"
        );
        let packages = record(BundleKind::Deb, Phase::Installing);
        assert_eq!(
            packages.standing("two", None, false),
            Some(Standing::Installing),
            "the guard goes on with it"
        );
    }

    #[test]
    fn time_counts_from_the_phase_or_from_this_boot() {
        let now = Moment { boot_id: "one".into(), uptime_s: 130 };
        assert_eq!(now.since(&Moment { boot_id: "one".into(), uptime_s: 100 }).as_secs(), 30);
        assert_eq!(now.since(&Moment { boot_id: "zero".into(), uptime_s: 100 }).as_secs(), 130);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::of(home.path());
        assert_eq!(journal.load(), None);
        let fault = Fault::new(Code::Unhealthy, "no");
        for phase in [Phase::Installing, Phase::Installed, Phase::Committed, Phase::RolledBack { fault }] {
            let record = record(BundleKind::Deb, phase);
            journal.store(&record).unwrap();
            assert_eq!(journal.load(), Some(record));
        }
    }
}
