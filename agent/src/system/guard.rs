//! Stands by after a boot or an installation until the new version has proved itself, or goes back.
//!
//! ```text
//!  nothing on trial ─▶ mark the slot good ─▶ end
//!  packages unpacked ─▶ package manager ─┬─▶ wait ─┬─ committed ─▶ end
//!  a slot on trial ──────────────────────┘         └─ time is up, or too many boots ─▶ slot bad, boot | earlier packages
//! ```
//!
//! A crash of the kernel or a hang is the bootloader's: it counts tries, and the watchdog boots the board anew.

use std::time::Duration;

use headwater_protocol::update::BundleKind;
use headwater_protocol::{Code, Fault};

use super::record::{Moment, Phase, Record};
use super::tool::{self, ToolError};
use super::wire::Standing;
use super::{System, packages, rauc};

const LOOK: Duration = Duration::from_secs(1);
/// Between two tries to mark a slot, where RAUC does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a boot that was asked for to begin.
const BOOT: Duration = Duration::from_secs(60);
/// The package manager is started so often for one bundle, also after power cuts.
const TRIES: u8 = 3;
/// Packages on trial are given up in so manieth a boot; of slots the bootloader counts. The time to prove themselves begins
/// anew with each boot, and a board that is switched off at night would never be through with it.
const BOOTS: u8 = 3;

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Nothing is on trial: what runs is good.
    Settle,
    /// As before, and the journal does not know of it yet.
    CameBack(Fault),
    Install,
    /// A boot of packages on trial, not counted yet.
    Count,
    Wait,
    GoBack(Fault),
    /// Time is up, and there is nothing to go back to.
    Stay(Fault),
}

fn verdict(record: Option<&Record>, now: &Moment, slot: Option<&str>) -> Verdict {
    let Some(record) = record else { return Verdict::Settle };
    // Only an installation by RAUC is busy beside the guard, and what runs then is the earlier version.
    let Some(standing) = record.standing(&now.boot_id, slot, true) else { return Verdict::Wait };
    let late = now.since(&record.at) >= Duration::from_secs(record.health_s);
    match standing {
        Standing::Trial
            if record.kind == BundleKind::Deb
                && record.at.boot_id != now.boot_id
                && record.counted != now.boot_id =>
        {
            Verdict::Count
        }
        Standing::Trial if late || record.boots >= BOOTS => {
            let how = match late {
                true => format!("ran for {} s", record.health_s),
                false => format!("was started by {} boots", record.boots),
            };
            let text = format!(
                "version {} {how} and was not committed: the agent was not connected, or its probe did not pass or proved no \
                 codec",
                record.to.version
            );
            if record.way_back {
                return Verdict::GoBack(Fault::new(Code::Unhealthy, text));
            }
            let text = format!("{text}; it stays, as not all packages of the earlier version are kept");
            Verdict::Stay(Fault::new(Code::Unhealthy, text))
        }
        Standing::Trial => Verdict::Wait,
        Standing::Installing if record.kind == BundleKind::Deb && record.tries < TRIES => Verdict::Install,
        Standing::Installing if record.kind == BundleKind::Deb => {
            let text = format!("the package manager was cut off {TRIES} times");
            Verdict::GoBack(Fault::new(Code::InstallFailed, text))
        }
        Standing::RolledBack { fault } if record.phase == Phase::Installed => Verdict::CameBack(fault),
        // Marked bad, and the boot that should have followed did not: never to be marked good.
        Standing::RolledBack { fault }
            if record.kind == BundleKind::Rauc
                && record.at.boot_id == now.boot_id
                && slot.is_some_and(|slot| Some(slot) != record.from.slot.as_deref()) =>
        {
            Verdict::GoBack(fault)
        }
        Standing::Installing
        | Standing::Interrupted
        | Standing::AwaitsBoot
        | Standing::Committed
        | Standing::RolledBack { .. }
        | Standing::Failed { .. } => Verdict::Settle,
    }
}

/// Runs until nothing is on trial.
pub(super) fn guard(system: &System) -> anyhow::Result<()> {
    let mut status = system.installation();
    loop {
        let record = system.journal.load();
        match verdict(record.as_ref(), &Moment::now(), status.slot.as_deref()) {
            Verdict::Wait => {}
            Verdict::Settle => {
                if !system.config.rauc_config.exists() {
                    return Ok(());
                }
                // Early: the bootloader has counted this boot as a try.
                match rauc::mark(rauc::Mark::Good) {
                    Ok(()) => return Ok(()),
                    // Not the end: a service that is late must not cost this slot.
                    Err(error) => {
                        tracing::error!(%error, said = error.text(), "the booted slot cannot be marked good");
                        std::thread::sleep(PATIENCE);
                    }
                }
            }
            verdict @ (Verdict::CameBack(_)
            | Verdict::Install
            | Verdict::Count
            | Verdict::GoBack(_)
            | Verdict::Stay(_)) => {
                // Held by a request that ends soon; what it did is read anew below.
                if let Some(_lock) = system.lock()?
                    && let Some(mut record) = system.journal.load().filter(|now| Some(now) == record.as_ref())
                {
                    system.carry_out(verdict, &mut record)?;
                    continue;
                }
            }
        }
        std::thread::sleep(LOOK);
        if status.slot.is_none() && system.config.rauc_config.exists() {
            status = system.installation();
        }
    }
}

impl System {
    fn carry_out(&self, verdict: Verdict, record: &mut Record) -> anyhow::Result<()> {
        match verdict {
            Verdict::Wait | Verdict::Settle => {}
            Verdict::CameBack(fault) => {
                tracing::error!(order = %record.order, reason = fault.text, "the earlier version is back");
                if let Err(error) = self.journal.enter(record, Phase::RolledBack { fault }) {
                    // On a full disk, say. What runs is good all the same.
                    tracing::error!(%error, "the journal cannot be written");
                    if let Err(error) = rauc::mark(rauc::Mark::Good) {
                        tracing::error!(%error, said = error.text(), "the booted slot cannot be marked good");
                    }
                    std::thread::sleep(PATIENCE);
                }
            }
            Verdict::Count => {
                record.boots = record.boots.saturating_add(1);
                record.counted = Moment::now().boot_id;
                self.journal.store(record)?;
            }
            Verdict::Stay(fault) => {
                tracing::error!(order = %record.order, reason = fault.text, "no way back");
                self.journal.enter(record, Phase::Failed { fault })?;
            }
            Verdict::Install => {
                record.tries += 1;
                self.journal.store(record)?;
                // Not once the package manager may have replaced something.
                if !record.way_back && record.tries == 1 {
                    match packages::repack(&self.config) {
                        Ok(()) => {
                            record.way_back = packages::way_back(&self.config);
                            self.journal.store(record)?;
                        }
                        Err(error) => tracing::warn!(error, "there will be no way back from these packages"),
                    }
                }
                let phase = match packages::install(&self.config) {
                    Ok(()) => Phase::Installed,
                    // Half installed is not "nothing was changed".
                    Err(fault) => self.earlier_packages(record, fault),
                };
                self.journal.enter(record, phase)?;
            }
            Verdict::GoBack(fault) => {
                tracing::error!(order = %record.order, reason = fault.text, "going back to the earlier version");
                match record.kind {
                    BundleKind::Deb => {
                        let phase = self.earlier_packages(record, fault);
                        self.journal.enter(record, phase)?;
                    }
                    BundleKind::Rauc => {
                        // First the slot: a cut between the two leaves a slot that is not booted, which says it all.
                        match rauc::mark(rauc::Mark::Bad) {
                            Ok(()) => self.journal.enter(record, Phase::RolledBack { fault })?,
                            Err(error) => {
                                tracing::error!(%error, "the slot cannot be marked bad; its tries run out")
                            }
                        }
                        // Something may hold the shutdown up, and a board that thrashes may not even take the order.
                        for more in [&[][..], &["--force"], &["--force", "--force"]] {
                            if let Err(error) = tool::ask("systemctl", &[&["reboot"], more].concat()) {
                                tracing::error!(%error, ?more, "the board cannot be booted anew");
                            }
                            std::thread::sleep(BOOT);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn earlier_packages(&self, record: &Record, mut fault: Fault) -> Phase {
        match packages::go_back(&self.config, record) {
            Ok(()) => Phase::RolledBack { fault },
            Err(error) => {
                tracing::error!(%error, "no way back");
                fault.text = format!("{}; {error}", fault.text);
                Phase::Failed { fault }
            }
        }
    }
}

pub(super) fn reboot() -> Result<(), Fault> {
    let said = tool::ask("systemctl", &["reboot"]);
    said.map(|_| ()).map_err(|error: ToolError| {
        let fault =
            Fault::new(Code::Unsupported, format!("this system cannot be booted anew from here: {error}"));
        fault.with_detail(error.text())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::record::Place;

    fn record(kind: BundleKind, phase: Phase, uptime_s: u64) -> Record {
        Record {
            order: headwater_protocol::UpdateId::new("u1").unwrap(),
            kind,
            sha256: String::new(),
            from: Place { slot: (kind == BundleKind::Rauc).then(|| "A".into()), version: "1".into() },
            to: Place { slot: None, version: "2".into() },
            health_s: 60,
            tries: 0,
            way_back: true,
            at: Moment { boot_id: "one".into(), uptime_s },
            phase,
            boots: 0,
            counted: String::new(),
        }
    }

    fn at(boot: &str, uptime_s: u64) -> Moment {
        Moment { boot_id: boot.into(), uptime_s }
    }

    #[test]
    fn a_slot_on_trial_is_waited_for_until_its_time_is_up() {
        let installed = record(BundleKind::Rauc, Phase::Installed, 5000);
        assert_eq!(verdict(Some(&installed), &at("two", 59), Some("B")), Verdict::Wait);
        assert!(matches!(verdict(Some(&installed), &at("two", 60), Some("B")), Verdict::GoBack(_)));
        let committed = record(BundleKind::Rauc, Phase::Committed, 30);
        assert_eq!(verdict(Some(&committed), &at("two", 9000), Some("B")), Verdict::Settle);
    }

    #[test]
    fn the_earlier_version_is_good_wherever_it_runs() {
        for phase in [Phase::Installing, Phase::Installed] {
            let record = record(BundleKind::Rauc, phase, 10);
            assert_eq!(verdict(Some(&record), &at("one", 9000), Some("A")), Verdict::Settle);
        }
        assert_eq!(verdict(None, &at("one", 1), Some("A")), Verdict::Settle);
        let installed = record(BundleKind::Rauc, Phase::Installed, 10);
        assert_eq!(verdict(Some(&installed), &at("two", 9000), None), Verdict::Wait, "RAUC does not answer");
        let back = verdict(Some(&installed), &at("two", 5), Some("A"));
        assert!(matches!(back, Verdict::CameBack(fault) if fault.text.contains("went back to 1")));
    }

    #[test]
    fn packages_are_installed_again_after_a_power_cut_but_not_for_ever() {
        let mut packages = record(BundleKind::Deb, Phase::Installing, 10);
        assert_eq!(verdict(Some(&packages), &at("two", 5), None), Verdict::Install);
        packages.tries = TRIES;
        assert!(matches!(verdict(Some(&packages), &at("two", 5), None), Verdict::GoBack(_)));
        let trial = record(BundleKind::Deb, Phase::Installed, 10);
        assert_eq!(verdict(Some(&trial), &at("one", 69), None), Verdict::Wait);
        assert!(matches!(verdict(Some(&trial), &at("one", 70), None), Verdict::GoBack(_)));
        let alone = Record { way_back: false, ..trial };
        let stays = verdict(Some(&alone), &at("one", 70), None);
        assert!(matches!(stays, Verdict::Stay(fault) if fault.text.contains("it stays")));
    }

    #[test]
    fn packages_are_not_on_trial_from_boot_to_boot_for_ever() {
        let mut trial = record(BundleKind::Deb, Phase::Installed, 10);
        for boot in ["two", "three", "four"] {
            assert_eq!(verdict(Some(&trial), &at(boot, 5), None), Verdict::Count);
            assert_ne!(
                verdict(Some(&trial), &at("one", 15), None),
                Verdict::Count,
                "it was installed in that one"
            );
            (trial.boots, trial.counted) = (trial.boots + 1, boot.to_owned());
            let now = verdict(Some(&trial), &at(boot, 5), None);
            match trial.boots < BOOTS {
                true => assert_eq!(now, Verdict::Wait),
                false => assert!(matches!(now, Verdict::GoBack(fault) if fault.text.contains("by 3 boots"))),
            }
        }
    }

    #[test]
    fn a_slot_that_was_marked_bad_is_not_marked_good_where_the_boot_after_it_fails() {
        let fault = Fault::new(Code::Unhealthy, "");
        let back = record(BundleKind::Rauc, Phase::RolledBack { fault }, 70);
        assert!(matches!(verdict(Some(&back), &at("one", 80), Some("B")), Verdict::GoBack(_)));
        assert_eq!(verdict(Some(&back), &at("two", 5), Some("A")), Verdict::Settle);
        assert_eq!(
            verdict(Some(&back), &at("three", 5), Some("B")),
            Verdict::Settle,
            "installed by hand since then"
        );
    }
}
