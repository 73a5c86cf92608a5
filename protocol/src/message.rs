//! Everything that goes over MQTT, one struct per topic.
//!
//! JSON. Unknown fields are kept in `extra`, so that a message can be read, changed and written by an
//! older program without loss. A field is never renamed or given another meaning within a version.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Fault;
use crate::ids::{FleetId, NodeId, RenditionName, StreamId, TaskId, UpdateId};
use crate::media::{Capability, SegmentReport};
use crate::rendition::{Container, Ladder};
use crate::units::{Epoch, Millis};
use crate::update::{Installation, UpdateOrder};
use crate::worker::Avoid;

/// Largest message, bytes of JSON. Both sides set it as MQTT's maximum packet size plus room for the topic.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Fields a newer version may have added.
pub type Extra = Map<String, Value>;

/// Where a message's time came from; a board without a battery may not know it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeSource {
    /// The kernel says the clock is synchronised.
    Ntp,
    /// The clock runs, nobody vouches for it.
    Rtc,
    /// The clock is before this program was built.
    Unsynced,
}

/// Start of every message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`crate::VERSION`].
    pub v: u16,
    /// Since 1970-01-01 UTC.
    pub ts: Millis,
    pub ts_src: TimeSource,
    /// The kernel's boot id; changes with each boot, so that old retained messages show. Empty from the gateway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// Counts the sender's messages since it started.
    pub seq: u64,
}

/// Retained: who a node is and what it can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Birth {
    #[serde(flatten)]
    pub header: Header,
    pub node: NodeId,
    pub fleet: FleetId,
    pub agent_version: String,
    pub worker_version: String,
    pub board: Board,
    pub capabilities: Vec<Capability>,
    /// What it proved and does not use any more until it boots again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoids: Vec<Avoid>,
    pub limits: Limits,
    /// None from a version that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installation: Option<Installation>,
    /// The answer to the newest [`DesiredConfig`], if there ever was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ReportedConfig>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// Board profile in use.
    pub profile: String,
    /// From the device tree or DMI; may be empty.
    pub model: String,
    /// `x86_64`, `aarch64`, `arm`
    pub arch: String,
    /// `PRETTY_NAME` of os-release.
    pub os: String,
    pub kernel: String,
    pub cpus: u32,
    pub memory_bytes: u64,
}

/// What admission allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Streams at once, with [`Limits::in_flight`] workers each.
    pub workers: u32,
    /// Segments of one stream that are done at once.
    #[serde(default = "one")]
    pub in_flight: u32,
    /// Segments of one stream that may wait behind those being done.
    pub queue: u32,
    pub max_input_bytes: u64,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Online,
    /// Finishes what it has and takes nothing new.
    Draining,
    Offline,
}

/// Retained: whether a node is there. The last will is `offline` with the boot id of the birth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    #[serde(flatten)]
    pub header: Header,
    pub state: NodeState,
    #[serde(flatten)]
    pub extra: Extra,
}

/// How a node is. Not stored, not repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    #[serde(flatten)]
    pub header: Header,
    pub uptime: Millis,
    /// One-minute load average.
    pub load: f64,
    pub memory_available_bytes: u64,
    /// Agent's own proportional set, bytes.
    pub agent_memory_bytes: u64,
    /// Hottest sensor, degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
    /// Whole board, where a sensor exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_w: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<bool>,
    pub workers: Vec<WorkerState>,
    /// Events that wait for the gateway's ack.
    pub outbox: u32,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerState {
    pub stream: StreamId,
    pub segments: u64,
    pub busy: bool,
    pub memory_bytes: u64,
}

/// An attempt for one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    #[serde(flatten)]
    pub header: Header,
    pub task: TaskId,
    pub epoch: Epoch,
    pub stream: StreamId,
    /// The segment's number in its stream.
    pub segment: u64,
    pub lease: Lease,
    pub ladder: Ladder,
    pub input: Input,
    /// One per rendition, in the order of the ladder.
    pub outputs: Vec<Output>,
    /// Path to put the evidence of a failure to, if there is one; also shortly after the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Three clocks, each from the moment the offer was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Until `accepted` or `refused`; also the message's expiry.
    pub accept: Millis,
    /// Longest silence between two events of a running attempt.
    pub progress: Millis,
    /// Until `done` or `failed`.
    pub runtime: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Path below the gateway's node address; fetched with the node's certificate.
    pub path: String,
    pub container: Container,
    pub bytes: u64,
    /// As the caller said.
    pub duration: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub rendition: RenditionName,
    /// Path below the gateway's node address; put with the node's certificate.
    pub path: String,
}

/// Something that happened to an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    #[serde(flatten)]
    pub header: Header,
    /// Place in the node's outbox. Progress has none: it is neither stored nor sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<EventNumber>,
    pub task: TaskId,
    pub epoch: Epoch,
    pub event: EventKind,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Numbers count from 1 in the order the outbox wrote them; a new outbox has a new id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventNumber {
    pub outbox: String,
    pub n: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    Accepted,
    Refused {
        fault: Fault,
    },
    Progress {
        decoded: u64,
        encoded: u64,
    },
    /// Every rendition has been put.
    Done {
        report: Box<SegmentReport>,
    },
    Failed {
        fault: Fault,
    },
}

impl EventKind {
    /// Nothing comes after it.
    pub fn is_terminal(&self) -> bool {
        match self {
            EventKind::Refused { .. } | EventKind::Done { .. } | EventKind::Failed { .. } => true,
            EventKind::Accepted | EventKind::Progress { .. } => false,
        }
    }
}

/// Stop an attempt. The node answers with `failed(revoked)` if it still ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revoke {
    #[serde(flatten)]
    pub header: Header,
    pub task: TaskId,
    pub epoch: Epoch,
    #[serde(flatten)]
    pub extra: Extra,
}

/// All events of the outbox up to `n` are stored; the node forgets them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    #[serde(flatten)]
    pub header: Header,
    #[serde(flatten)]
    pub number: EventNumber,
    #[serde(flatten)]
    pub extra: Extra,
}

/// An operator's wish. Its answer is a [`Reply`] with the same id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    #[serde(flatten)]
    pub header: Header,
    /// Also the MQTT correlation data.
    pub id: String,
    pub command: CommandKind,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandKind {
    /// Finish what runs, take nothing new.
    Drain,
    /// Take work again.
    Resume,
    /// Drain, then exit with the code that makes the service manager start it anew.
    Restart,
    /// Drain, then boot the board anew. Answered before.
    Reboot,
    /// Probe the board again and publish a new birth.
    Probe,
    /// Put the end of the node's log. Answered when it is there.
    Logs(Logs),
    /// Answered when the order is on disk; what follows is the retained [`crate::update::UpdateStatus`].
    Update(Box<UpdateOrder>),
    /// Give up an update that has not begun to install; afterwards it is too late.
    CancelUpdate { id: UpdateId },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// Below the gateway's node address; put with the node's certificate, as text.
    pub path: String,
    /// Keeps the end where there is more.
    pub max_bytes: u64,
}

/// Retained: what the operator wants of a node's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredConfig {
    #[serde(flatten)]
    pub header: Header,
    /// Grows with every change.
    pub revision: u64,
    /// Sections and keys of `agent.toml`, laid over the node's own file; only what is said changes.
    pub settings: Map<String, Value>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// What became of it; part of the birth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedConfig {
    /// The newest revision that was read.
    pub revision: u64,
    /// Why it is not in force; then the earlier one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    #[serde(flatten)]
    pub header: Header,
    pub id: String,
    /// None when it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    #[serde(flatten)]
    pub extra: Extra,
}
