//! The two requests that change the system. Each step is in the journal before it is done.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use headwater_protocol::update::{BundleKind, UpdateOrder};
use headwater_protocol::{Code, Fault, UpdateId};

use super::record::{Moment, Phase, Record};
use super::wire::{Answer, Standing, Status};
use super::{Lock, System, packages, rauc, stage, tool, wire};
use crate::board;

/// Between two looks at what the guard does.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn storage(error: io::Error) -> Fault {
    Fault::new(Code::Storage, format!("the helper's journal cannot be written: {error}"))
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
                Standing::Interrupted
                | Standing::AwaitsBoot
                | Standing::Committed
                | Standing::RolledBack { .. }
                | Standing::Failed { .. } => {}
            }
        }
        let bundle = stage::take(&self.config, &order.bundle)?;
        let record = Record::new(order, status.place(), self.config.max_health_seconds, Moment::now());
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
                let unpacked = packages::unpack(&self.config, &bundle, order);
                let _ = fs::remove_file(&bundle);
                unpacked?;
                let way_back = packages::way_back(&self.config, &record.from.version);
                let record = Record { way_back, ..record };
                self.journal.store(&record).map_err(storage)?;
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
        self.journal.store(&record).map_err(storage)?;
        let limit = Duration::from_secs(self.config.install_seconds);
        match rauc::install(bundle, limit, progress) {
            Ok(()) => {
                self.journal.enter(&mut record, Phase::Installed).map_err(storage)?;
                Ok(Answer::Installed { boot: true })
            }
            // Of a helper that is gone; to be asked for again.
            Err(fault) if fault.code == Code::Busy => Err(fault),
            Err(fault) => {
                let phase = Phase::Failed { fault: fault.clone() };
                self.journal.enter(&mut record, phase).map_err(storage)?;
                Err(fault)
            }
        }
    }

    /// The guard installs packages, in a unit of its own: the packages' own scripts may restart this helper.
    fn packages(&self, progress: &mut dyn FnMut(u8)) -> Result<Answer, Fault> {
        let start = ["start", "--no-block", "headwater-update-guard.service"];
        if let Err(error) = tool::ask("systemctl", &start) {
            let fault = Fault::new(Code::InstallFailed, format!("the guard cannot be started: {error}"));
            let fault = fault.with_detail(error.text());
            if let Some(mut record) = self.journal.load() {
                self.journal.enter(&mut record, Phase::Failed { fault: fault.clone() }).map_err(storage)?;
            }
            return Err(fault);
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
