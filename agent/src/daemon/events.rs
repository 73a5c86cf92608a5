//! Attempts' events: into the outbox, onto the disk, out to the broker.

use std::time::Instant;

use headwater_protocol::message::{Event as EventMessage, EventKind};
use headwater_protocol::topic::Channel;
use tokio::task::JoinError;

use super::{DISK_PAUSE, Daemon, DaemonError, Written};
use crate::exit::Exit;
use crate::mqtt::Extras;
use crate::node::AttemptId;

impl Daemon {
    pub(super) fn event(&self, attempt: &AttemptId, event: EventKind) -> EventMessage {
        EventMessage {
            header: self.stamp.header(),
            number: None,
            task: attempt.task.clone(),
            epoch: attempt.epoch,
            event,
            extra: serde_json::Map::new(),
        }
    }

    pub(super) fn record(&mut self, attempt: &AttemptId, kind: EventKind) -> Result<(), DaemonError> {
        let span = self.running.get(attempt).map_or_else(tracing::Span::none, |running| running.span.clone());
        span.in_scope(|| match &kind {
            EventKind::Accepted => tracing::info!("accepted"),
            EventKind::Refused { fault } => {
                tracing::info!(code = %fault.code, reason = fault.text, "refused")
            }
            EventKind::Done { report } => {
                tracing::info!(worker_ms = report.wall_us / 1000, warm = report.warm, "done");
            }
            EventKind::Failed { fault } => {
                tracing::warn!(code = %fault.code, reason = fault.text, detail = fault.detail, "failed");
            }
            EventKind::Progress { .. } => {}
        });
        let refusal = matches!(kind, EventKind::Refused { .. });
        let message = self.event(attempt, kind);
        if refusal && self.outbox.is_full() {
            // It can be said, but not kept.
            self.send(Channel::Event, &message, Extras::default());
        } else {
            self.outbox.push(message.clone())?;
        }
        // After its end nothing is left to log or to stop; `Action::Stop` follows a failure and needs it once more.
        if matches!(message.event, EventKind::Refused { .. } | EventKind::Done { .. }) {
            self.running.remove(attempt);
        }
        Ok(())
    }

    /// Starts the next write, and publishes what is stored.
    pub(super) fn flush(&mut self) -> Result<(), DaemonError> {
        let node = &self.node;
        // A lane may be done with an attempt whose report still waits to be read.
        self.running.retain(|attempt, running| running.stop.receiver_count() > 0 || node.is_open(attempt));
        if self.disk_pause.is_none()
            && let Some(mut store) = self.store.take()
        {
            match self.outbox.take_work(false)? {
                Some(work) => {
                    self.writing = Some(tokio::task::spawn_blocking(move || {
                        let result = store.write(&work);
                        (store, result)
                    }));
                }
                None => self.store = Some(store),
            }
        }
        self.publish_events();
        Ok(())
    }

    fn publish_events(&mut self) {
        let Some(publisher) = &self.publisher else { return };
        while let Some((n, json)) = self.outbox.next_unsent() {
            // Full: goes on when the broker has acknowledged some.
            if publisher.publish(Channel::Event, json, Extras::default()).is_err() {
                break;
            }
            self.outbox.sent(n);
        }
    }

    pub(super) fn written(&mut self, result: Result<Written, JoinError>) -> Result<(), DaemonError> {
        self.writing = None;
        match result {
            Ok((store, result)) => {
                self.store = Some(store);
                // Said once for each way down and up, not at every try.
                match &result {
                    Err(error) if !self.outbox.is_broken() => {
                        tracing::error!(%error, "the outbox cannot be written; no work is taken until it can");
                    }
                    Ok(_) if self.outbox.is_broken() => tracing::info!("the outbox can be written again"),
                    Ok(_) | Err(_) => {}
                }
                self.disk_pause = result.is_err().then(|| Instant::now() + DISK_PAUSE);
                self.outbox.written(result.map_err(|_| ()))?;
            }
            Err(error) => {
                // The store went with the thread. Nothing can be promised any more: end, and be started anew.
                tracing::error!(%error, "the outbox's writer is gone");
                self.exit = Some(Exit::Internal);
            }
        }
        Ok(())
    }
}
