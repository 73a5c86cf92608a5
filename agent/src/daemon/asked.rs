//! Commands that take a while: logs and boots; and the configuration that the operator wants.

use std::process::Stdio;
use std::time::{Duration, Instant};

use headwater_protocol::message::{DesiredConfig, Logs, NodeState};
use headwater_protocol::{Code, Fault};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::updating::Told;
use super::{Daemon, DaemonError};
use crate::exit::Exit;
use crate::log_ring;
use crate::node::Event;
use crate::overlay::{Overlay, Wanted};

/// Of a log that leaves the board, bytes; more is for a person on the board.
const MAX_LOG: u64 = 256 * 1024;
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
            // Less than usize everywhere.
            let most = usize::try_from(max_bytes.min(MAX_LOG)).unwrap_or(0);
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
                    self.apply(Event::Resume)?;
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
            self.apply(Event::Drain)?;
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
        if std::mem::take(&mut self.configuring.draining) { self.apply(Event::Resume) } else { Ok(()) }
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
    let mut bytes = Vec::new();
    let read = async {
        // 2000 lines of ours; the rest is cut off with the program.
        out.take(4 * MAX_LOG).read_to_end(&mut bytes).await.ok()
    };
    timeout(JOURNAL, read).await.ok()??;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (!text.trim().is_empty()).then_some(text)
}
