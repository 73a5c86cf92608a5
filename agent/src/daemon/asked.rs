//! Commands that take a while: logs and boots; and the configuration that the operator wants.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use headwater_protocol::message::{DesiredConfig, Logs, NodeState};
use headwater_protocol::{Code, Fault};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::updating::Told;
use super::{Daemon, DaemonError};
use crate::exit::Exit;
use crate::log_ring::{self, Ring};
use crate::node::Event;
use crate::overlay::{Overlay, Wanted};

/// Of a log that leaves the board, bytes; more is for a person on the board.
const MAX_LOG: usize = 256 * 1024;
/// The journal answers from memory or from a slow card.
const JOURNAL: Duration = Duration::from_secs(10);

/// The configuration over MQTT.
#[derive(Debug)]
pub(super) struct Configuring {
    overlay: Overlay,
    /// The node's own file.
    file: toml::Table,
    /// Checked, and not begun: attempts still run.
    wanted: Option<Wanted>,
    /// The node takes no work because of it.
    draining: bool,
    /// Until when what is on trial must have connected.
    deadline: Option<Instant>,
}

impl Configuring {
    pub(super) fn new(overlay: Overlay, file: toml::Table, limit: Duration) -> Self {
        let deadline = overlay.on_trial().then(|| Instant::now() + limit);
        Self { overlay, file, wanted: None, draining: false, deadline }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Daemon {
    pub(super) fn reboot(&self, reply: String) {
        if self.updating.is_delicate() {
            let fault = Fault::new(
                Code::Busy,
                "an update is being installed, and ends with a boot where it needs one",
            );
            return self.reply(&reply, Some(fault));
        }
        let helper = self.updating.helper.clone();
        self.aside(async move { Told::Reboot { reply, here: helper.status().await } });
    }

    pub(super) fn logs(&self, reply: String, Logs { path, max_bytes }: Logs) {
        let media = self.shop.media.clone();
        self.aside(async move {
            let most = usize::try_from(max_bytes).map_or(MAX_LOG, |most| most.min(MAX_LOG));
            let text = match journal().await {
                Some(journal) => log_ring::end(&log_ring::redact(&journal), most).to_owned(),
                None => log_ring::text(most),
            };
            Told::Logs { reply, result: media.text(&path, text).await }
        });
    }

    pub(super) fn desired(&mut self, desired: DesiredConfig) -> Result<(), DaemonError> {
        let revision = desired.revision;
        match self.configuring.overlay.read(&self.configuring.file, desired) {
            None => {}
            Some(Ok(wanted)) => {
                tracing::info!(revision, "another configuration is wanted");
                self.configuring.wanted = Some(wanted);
            }
            Some(Err(())) => {
                // What was to be tried before is not wanted any more.
                if self.configuring.wanted.take().is_some() && std::mem::take(&mut self.configuring.draining)
                {
                    self.apply(Event::Continue)?;
                }
                tracing::info!(reported = ?self.configuring.overlay.reported, "configuration");
                self.store_overlay();
                self.publish_birth();
            }
        }
        Ok(())
    }

    /// Takes the wanted configuration up when nothing is disturbed by it, and gives up one whose time is over.
    pub(super) fn configure(&mut self) -> Result<(), DaemonError> {
        if self.configuring.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.configuring.deadline = None;
            let limit = self.config.deadlines.config_seconds;
            self.configuring.overlay.roll_back(&format!("the agent did not connect within {limit} s"));
            // Where it cannot be written, the next start counts.
            self.store_overlay();
            return self.start_anew();
        }
        if self.configuring.wanted.is_none() || self.updating.is_delicate() {
            return Ok(());
        }
        if self.node.state() == NodeState::Online && !self.node.is_idle() {
            self.configuring.draining = true;
            self.apply(Event::Pause)?;
        }
        if !self.node.is_idle() {
            return Ok(());
        }
        let Some(wanted) = self.configuring.wanted.take() else { return Ok(()) };
        self.configuring.overlay.try_out(wanted);
        if self.store_overlay() {
            return self.start_anew();
        }
        // Said, and tried again when the broker hands it out to a later start.
        let fault = Fault::new(Code::Storage, "the node cannot write the configuration to its disk");
        self.configuring.overlay.refuse(fault);
        self.publish_birth();
        if std::mem::take(&mut self.configuring.draining) { self.apply(Event::Continue) } else { Ok(()) }
    }

    fn start_anew(&mut self) -> Result<(), DaemonError> {
        let grace = Duration::from_secs(self.config.deadlines.drain_seconds);
        self.apply(Event::Stop { exit: Exit::Restart, grace })
    }

    /// The node is connected, with whatever configuration it has.
    pub(super) fn configuration_works(&mut self) {
        if self.configuring.overlay.commit() {
            self.configuring.deadline = None;
            tracing::info!(reported = ?self.configuring.overlay.reported, "the configuration is in force");
            self.store_overlay();
        }
    }

    pub(super) fn reported(&self) -> Option<headwater_protocol::message::ReportedConfig> {
        self.configuring.overlay.reported.clone()
    }

    fn store_overlay(&self) -> bool {
        let stored = self.configuring.overlay.store(&self.config.state_dir);
        if let Err(error) = &stored {
            tracing::error!(%error, "the configuration cannot be written");
        }
        stored.is_ok()
    }
}

/// This unit's lines of this boot, from before this start too, where this user may read them.
async fn journal() -> Option<String> {
    let mut command = Command::new("journalctl");
    command.args([
        "--unit=headwater-agent",
        "--boot",
        "--lines=2000",
        "--no-pager",
        "--quiet",
        "--output=short-iso",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let out = child.stdout.take()?;
    let text = timeout(JOURNAL, newest(out)).await.ok()?.ok()?;
    (!text.trim().is_empty()).then_some(text)
}

/// The last whole lines. More than leave the board: the beginning of a key that ends there makes it known as one.
async fn newest(mut from: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut ring = Ring::new(4 * MAX_LOG);
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return Ok(ring.text());
        }
        ring.push(&chunk[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_journal_that_is_too_long_the_newest_lines_are_kept() {
        let lines: String = (0..60_000).map(|n| format!("line {n:05} of a long journal\n")).collect();
        assert!(lines.len() > 4 * MAX_LOG);
        let kept = newest(lines.as_bytes()).await.unwrap();
        assert!(kept.starts_with("line ") && lines.ends_with(&kept));
        assert!(kept.len() > 4 * MAX_LOG - 100, "{}", kept.len());
        assert_eq!(newest(&b"one\ntwo\n"[..]).await.unwrap(), "one\ntwo\n");
    }
}
