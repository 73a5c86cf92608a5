//! Finding out what the board can do, at the start and when asked.

use std::time::{Duration, Instant};

use headwater_protocol::{Code, Fault, ProbeReport};
use tokio::task::JoinError;

use super::Daemon;
use crate::node::Event;
use crate::probe;
use crate::update::Able;

/// A version on trial does not have long to prove what the one before it could.
const ON_TRIAL: Duration = Duration::from_secs(30);

/// How long after a probe the next one comes by itself.
fn pause(deadline: Duration, lacks: bool) -> Duration {
    if lacks { deadline.min(ON_TRIAL) } else { deadline }
}

/// Who wait for the same probe; more are a mistake.
const ASKERS: usize = 16;

impl Daemon {
    /// Why a probe that is asked for now would find something wrong, or nobody could be told.
    pub(super) fn cannot_probe(&self) -> Option<Fault> {
        if self.probe_replies.len() >= ASKERS {
            return Some(Fault::new(Code::Busy, format!("{ASKERS} wait for this probe already")));
        }
        let sessions = &self.shop.sessions;
        let used = sessions.at_work().into_iter().find(|(_, count)| *count > 0);
        let works = match used {
            Some((pool, count)) => format!("{pool}: {count} in use"),
            // Its worker may not be there yet.
            None if sessions.are_counted() && !self.node.is_idle() => "a segment has just begun".to_owned(),
            None => return None,
        };
        let idle = self.config.limits.worker_idle_seconds;
        let text = format!(
            "{works}, and a probe would count too few; try again {idle} s after the last segment, drained"
        );
        Some(Fault::new(Code::Busy, text))
    }

    /// Beside work, a probe counts fewer sessions than there are; and work finds fewer beside a probe.
    pub(super) fn probe_needs_the_board(&self) -> bool {
        self.probing.is_some() && self.shop.sessions.are_counted()
    }

    pub(super) fn start_probe(&mut self, anew: bool) {
        self.probe_due = None;
        let worker = self.worker.clone();
        let deadline = Duration::from_secs(self.config.deadlines.probe_seconds);
        self.probing = Some(tokio::spawn(async move { probe::run(&worker, anew, deadline).await }));
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
            }
            let lacks = self.lacks();
            if !can_something || lacks {
                // A board that was busy with its start must not stay useless until its next one.
                self.probe_again(lacks);
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
        // Has no actions.
        let event = self.capable(&report);
        self.node.handle(Instant::now(), event);
        self.report = Some(report);
        if self.lacks() {
            // A driver may be late after a boot; the earlier version comes back where it stays away.
            tracing::error!("proved less than the version before; tried again before that one comes back");
            self.probe_again(true);
        }
        self.publish_birth();
    }

    /// The version on trial has proved too little so far.
    fn lacks(&self) -> bool {
        let usable = self.report.iter().flat_map(|report| self.usable(report));
        self.updating.lacks(Able::of(usable))
    }

    fn probe_again(&mut self, lacks: bool) {
        let deadline = Duration::from_secs(self.config.deadlines.probe_seconds);
        self.probe_due = Some(Instant::now() + pause(deadline, lacks));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_on_trial_is_probed_again_soon() {
        let (second, long) = (Duration::from_secs(1), Duration::from_secs(300));
        assert_eq!([pause(long, false), pause(long, true), pause(second, true)], [long, ON_TRIAL, second]);
    }
}
