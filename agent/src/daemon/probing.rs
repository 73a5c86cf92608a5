//! Finding out what the board can do, at the start and when asked.

use std::time::{Duration, Instant};

use headwater_protocol::{Code, Fault, ProbeReport};
use tokio::task::JoinError;

use super::Daemon;
use crate::node::Event;
use crate::probe;
use crate::update::Able;

impl Daemon {
    pub(super) fn start_probe(&mut self, anew: bool, boot_id: &str) {
        self.probe_due = None;
        let key = probe::Key::of(&self.worker, boot_id);
        if !anew
            && let Ok(key) = &key
            && let Some(report) = probe::recall(&self.config.state_dir, key)
        {
            self.probed(report);
            return;
        }
        let worker = self.worker.clone();
        let state_dir = self.config.state_dir.clone();
        let deadline = Duration::from_secs(self.config.deadlines.probe_seconds);
        self.probing = Some(tokio::spawn(async move {
            let report = probe::run(&worker, deadline).await?;
            if let Ok(key) = key {
                let report = report.clone();
                // A panic in there has been reported by the runtime.
                let _ = tokio::task::spawn_blocking(move || probe::remember(&state_dir, key, report)).await;
            }
            Ok(report)
        }));
    }

    pub(super) fn probe_ended(
        &mut self,
        result: Result<Result<ProbeReport, probe::ProbeError>, JoinError>,
    ) -> Event {
        self.probing = None;
        let fault = match result {
            Ok(Ok(report)) => {
                if self.report.is_some() {
                    // It knows the elements that were there when it was started.
                    self.shop.spare.renew();
                }
                self.probed(report);
                None
            }
            Ok(Err(error)) => Some(Fault::new(Code::WorkerStart, error.to_string())),
            Err(error) => Some(Fault::new(Code::WorkerStart, format!("the probe was lost: {error}"))),
        };
        if let Some(fault) = &fault {
            let can_something = self.report.as_ref().is_some_and(|report| !report.capabilities.is_empty());
            if can_something {
                tracing::error!(
                    reason = fault.text,
                    "the probe failed; what an earlier one proved still holds"
                );
            } else {
                tracing::error!(
                    reason = fault.text,
                    "cannot find out what this board can do; until it is known all work is refused"
                );
                // A board that was busy with its start must not stay useless until its next one.
                self.probe_due =
                    Some(Instant::now() + Duration::from_secs(self.config.deadlines.probe_seconds));
            }
        }
        if self.report.is_none() {
            // Said, rather than silent: a birth without capabilities.
            self.probed(ProbeReport {
                worker_version: String::new(),
                gstreamer_version: String::new(),
                profile: String::new(),
                capabilities: Vec::new(),
                unproved: Vec::new(),
            });
        }
        for id in std::mem::take(&mut self.probe_replies) {
            self.reply(&id, fault.clone());
        }
        self.prepare_spare();
        Event::Tick
    }

    /// Not before the node is connected, so that it is soon, and not beside a probe, which measures.
    pub(super) fn prepare_spare(&self) {
        if self.publisher.is_some() && self.probing.is_none() {
            self.shop.spare.prepare();
        }
    }

    fn probed(&mut self, report: ProbeReport) {
        tracing::info!(capabilities = report.capabilities.len(), profile = report.profile, "probed");
        if self.updating.lacks(Able::of(self.usable(&report))) {
            // A driver may be late after a boot; the earlier version comes back where it stays away.
            tracing::error!("proved less than the version before; tried again before that one comes back");
            self.probe_due = Some(Instant::now() + Duration::from_secs(self.config.deadlines.probe_seconds));
        }
        // Has no actions.
        let event = self.capable(&report);
        self.node.handle(Instant::now(), event);
        self.report = Some(report);
        self.publish_birth();
    }
}
