//! The two requests that change the system. Each step is in the journal before it is done.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use headwater_protocol::update::{BundleKind, UpdateOrder};
use headwater_protocol::{Code, Fault, Millis, UpdateId};

use super::record::{Moment, Phase, Record};
use super::wire::{Answer, Standing, Status};
use super::{Lock, System, packages, rauc, stage, tool, wire};
use crate::board;

/// Between two looks at what the guard does.
const LOOK: Duration = Duration::from_secs(1);
/// RAUC is asked so often to install one order's bundle: a board must live through 20 power cuts in an update, and a service
/// that still works on what took too long is asked every 10 s.
const TRIES: u8 = 50;

pub(super) fn storage(error: io::Error) -> Fault {
    Fault::new(Code::Storage, format!("the helper's journal cannot be written: {error}"))
}

/// An order cannot keep a version that proves nothing for longer than root allows.
fn granted(health: Millis, most_s: u64) -> Result<(), Fault> {
    if health.0.div_ceil(1000) <= most_s {
        return Ok(());
    }
    let text = format!(
        "the order gives the version {} s to prove itself, and this board's system.toml {most_s} s at most",
        health.0.div_ceil(1000)
    );
    Err(Fault::new(Code::Unsupported, text))
}

impl System {
    pub(super) fn work(&self) -> Result<Lock, Fault> {
        let busy = || Fault::new(Code::Busy, "another request works on an update");
        self.lock().map_err(storage)?.ok_or_else(busy)
    }

    pub(super) fn install(&self, order: &UpdateOrder, progress: &mut dyn FnMut(u8)) -> Result<Answer, Fault> {
        let lock = self.work()?;
        let status = self.installation();
        wire::fits(&status, order, self.config.allow_downgrade)?;
        let mut tries = 0;
        if let Some(record) = self.journal.load() {
            let standing = self.standing(&record, &status)?;
            let mine = record.order == order.id;
            match standing {
                Standing::AwaitsBoot if mine => return Ok(Answer::Installed { boot: true }),
                Standing::Trial | Standing::Committed if mine => {
                    return Ok(Answer::Installed { boot: false });
                }
                Standing::Installing if mine && record.kind == BundleKind::Deb => {
                    drop(lock);
                    return self.packages(progress);
                }
                Standing::Installing | Standing::Trial => {
                    let text = format!("update {} is not committed yet", record.order);
                    return Err(Fault::new(Code::Busy, text));
                }
                Standing::Interrupted if mine => tries = record.tries,
                Standing::Interrupted
                | Standing::AwaitsBoot
                | Standing::Committed
                | Standing::RolledBack { .. }
                | Standing::Failed { .. } => {}
            }
        }
        granted(order.health, self.config.max_health_seconds)?;
        let bundle = stage::take(&self.config, &order.bundle)?;
        let record = Record { tries, ..Record::new(order, status.place(), Moment::now()) };
        match order.bundle.kind {
            BundleKind::Rauc => {
                let result = self.rauc(order, record, &bundle, progress);
                // Neither is wanted a second time.
                let busy = matches!(&result, Err(fault) if fault.code == Code::Busy);
                if !busy && let Err(error) = fs::remove_file(&bundle) {
                    tracing::warn!(%error, "the bundle cannot be removed");
                }
                result
            }
            BundleKind::Deb => {
                let stored = packages::unpack(&self.config, &bundle, order).and_then(|()| {
                    let way_back = packages::way_back(&self.config);
                    self.journal.store(&Record { way_back, ..record }).map_err(storage)
                });
                // After the journal: without both, an order that was cut off here would find nothing.
                let _ = fs::remove_file(&bundle);
                stored?;
                drop(lock);
                self.packages(progress)
            }
        }
    }

    /// While nobody else works on it.
    fn standing(&self, record: &Record, status: &Status) -> Result<Standing, Fault> {
        let standing = record.standing(&board::boot_id(), status.slot.as_deref(), false);
        standing.ok_or_else(|| Fault::new(Code::InstallFailed, &*status.explanation))
    }

    fn rauc(
        &self,
        order: &UpdateOrder,
        mut record: Record,
        bundle: &std::path::Path,
        progress: &mut dyn FnMut(u8),
    ) -> Result<Answer, Fault> {
        rauc::check(bundle, &order.bundle.compatible, &order.bundle.version)?;
        if record.tries >= TRIES {
            let text = format!(
                "RAUC was asked {TRIES} times to install it, and was cut off, busy or too slow each time"
            );
            return Err(self.give_up(&mut record, Fault::new(Code::InstallFailed, text)));
        }
        record.tries += 1;
        self.journal.store(&record).map_err(storage)?;
        let limit = Duration::from_secs(self.config.install_seconds);
        match rauc::install(bundle, limit, progress) {
            Ok(()) => {}
            // Its service still works. To be asked for again; should it switch the slot, what it starts is on trial.
            Err(fault) if fault.code == Code::Busy => return Err(fault),
            // An earlier try that was too slow may have ended by itself, and switched the slot.
            Err(fault) if !rauc::facts().is_ok_and(|facts| facts.stays) => {
                return Err(self.give_up(&mut record, fault));
            }
            Err(fault) => return Err(self.failed(&mut record, fault)),
        }
        if let Err(fault) = rauc::confirm(&order.bundle.version) {
            return Err(self.give_up(&mut record, fault));
        }
        self.journal.enter(&mut record, Phase::Installed).map_err(storage)?;
        Ok(Answer::Installed { boot: true })
    }

    /// What RAUC may have written is not to be started. Where that cannot be seen to, it stays on trial.
    fn give_up(&self, record: &mut Record, mut fault: Fault) -> Fault {
        if let Err(error) = rauc::mark(rauc::Mark::OtherBad) {
            fault.text = format!("{}; the other slot cannot be marked bad: {error}", fault.text);
            return fault;
        }
        self.failed(record, fault)
    }

    fn failed(&self, record: &mut Record, fault: Fault) -> Fault {
        let phase = Phase::Failed { fault: fault.clone() };
        self.journal.enter(record, phase).map_err(storage).err().unwrap_or(fault)
    }

    /// The guard installs packages, in a unit of its own: the packages' own scripts may restart this helper.
    fn packages(&self, progress: &mut dyn FnMut(u8)) -> Result<Answer, Fault> {
        let start = ["start", "--no-block", "headwater-update-guard.service"];
        if let Err(error) = tool::ask("systemctl", &start) {
            let fault = Fault::new(Code::InstallFailed, format!("the guard cannot be started: {error}"));
            let fault = fault.with_detail(error.text());
            return Err(match self.journal.load() {
                Some(mut record) => self.failed(&mut record, fault),
                None => fault,
            });
        }
        let end = Instant::now() + Duration::from_secs(self.config.install_seconds);
        while Instant::now() < end {
            match self.journal.load().map(|record| (record.phase, record.tries)) {
                Some((Phase::Installing, tries)) => progress(if tries == 0 { 10 } else { 50 }),
                Some((Phase::Installed | Phase::Committed, _)) => {
                    return Ok(Answer::Installed { boot: false });
                }
                Some((Phase::Failed { fault } | Phase::RolledBack { fault }, _)) => return Err(fault),
                None => break,
            }
            std::thread::sleep(LOOK);
        }
        Err(Fault::new(Code::Busy, "the guard still installs the packages"))
    }

    /// Makes what runs the version to stay with.
    pub(super) fn commit(&self, order: &UpdateId) -> Result<(), Fault> {
        let _lock = self.work()?;
        let status = self.installation();
        let Some(mut record) = self.journal.load().filter(|record| record.order == *order) else {
            return Err(Fault::new(Code::Unsupported, format!("there is no update {order} to commit")));
        };
        match self.standing(&record, &status)? {
            Standing::Committed => return Ok(()),
            Standing::Trial => {}
            Standing::RolledBack { fault } | Standing::Failed { fault } => return Err(fault),
            Standing::Installing | Standing::Interrupted | Standing::AwaitsBoot => {
                let text = format!("what update {order} brings does not run yet");
                return Err(Fault::new(Code::Unsupported, text));
            }
        }
        match record.kind {
            BundleKind::Rauc => rauc::mark(rauc::Mark::Good).map_err(|error| {
                let fault =
                    Fault::new(Code::InstallFailed, format!("the slot cannot be marked good: {error}"));
                fault.with_detail(error.text())
            })?,
            // What was installed is what the next update goes back to.
            BundleKind::Deb => packages::keep(&self.config).map_err(storage)?,
        }
        self.journal.enter(&mut record, Phase::Committed).map_err(storage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_asks_for_more_time_than_root_allows_is_refused_and_told_so() {
        assert_eq!(granted(Millis(3_600_000), 3600), Ok(()));
        let fault = granted(Millis(3_600_001), 3600).unwrap_err();
        assert_eq!(fault.code, Code::Unsupported);
        assert!(fault.text.contains("3601 s") && fault.text.contains("system.toml 3600 s"), "{}", fault.text);
        assert!(granted(Millis(u64::MAX), 3600).is_err());
    }
}
