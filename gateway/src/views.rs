//! What the gateway tells people and programs: the JSON of `/api/v1`, of the status page's
//! server-sent events and of `headwater --json`. Wire types of their own, apart from MQTT's.

use std::time::Duration;

use headwater_protocol::message::{Birth, CommandKind, NodeState, Telemetry};
use headwater_protocol::update::UpdateStatus;
use headwater_protocol::{
    Epoch, Evidence, Fault, Ladder, Millis, NodeId, RenditionName, SegmentReport, StreamId, TaskId,
};
use serde::{Deserialize, Serialize};

/// `GET /api/v1/nodes` gives a list of these; the event `nodes` too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeView {
    pub node: NodeId,
    pub state: NodeState,
    /// Last message of any kind, since 1970.
    pub last_seen: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub birth: Option<Birth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// Its word on its newest update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateStatus>,
    /// Attempts it has now.
    pub running: Vec<AttemptView>,
    pub done: u64,
    pub failed: u64,
    /// Until when it rests after faults of its own, since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resting_until: Option<Millis>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttemptView {
    pub task: TaskId,
    pub epoch: Epoch,
    pub stream: StreamId,
    pub segment: u64,
}

/// `GET /api/v1/streams` gives a list of these (newest first, without `segments` older than the last 20);
/// `GET /api/v1/streams/{stream}` gives one with all its segments; the event `streams` gives the list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamView {
    pub stream: StreamId,
    /// Segments come in: false after 60 s of silence.
    pub live: bool,
    pub started: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    pub ladder: Vec<RenditionName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renditions: Option<Ladder>,
    pub segments_total: u64,
    pub segments_failed: u64,
    pub segments: Vec<SegmentView>,
    /// Path of the master playlist.
    pub playlist: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentState {
    Waiting,
    Running,
    Done,
    Failed,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SegmentView {
    pub segment: u64,
    pub task: TaskId,
    pub state: SegmentState,
    pub duration: Millis,
    pub bytes: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// Who won, or has it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// From the request's last byte to the answer's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<SegmentReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// `GET /api/v1/streams/{stream}/{segment}/evidence` gives a list of these, the oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvidenceView {
    pub task: TaskId,
    pub epoch: Epoch,
    pub node: NodeId,
    /// When it came, since 1970.
    pub at: Millis,
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// `POST /api/v1/enroll`, with the operator's token as bearer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnrollRequest {
    pub node: NodeId,
    /// How long the token works; a day unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<Millis>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnrollReply {
    pub token: String,
    pub expires: Millis,
}

/// Body of every error of `/api/v1`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorView {
    pub error: String,
}

/// `POST /api/v1/nodes/{node}/command`, with the operator's token as bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRequest {
    pub command: NodeCommand,
}

/// What may be asked of a node as it is; commands with addresses in them are the gateway's own to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeCommand {
    Drain,
    Resume,
    Restart,
    Reboot,
    Probe,
}

impl NodeCommand {
    /// How long a node that is there may take to answer. A probe is answered when it is over, which the agent's
    /// `deadlines.probe_seconds` bounds: 600 at most.
    pub fn patience(self) -> Duration {
        match self {
            Self::Drain | Self::Resume | Self::Restart | Self::Reboot => Duration::from_secs(10),
            Self::Probe => Duration::from_secs(610),
        }
    }
}

impl From<NodeCommand> for CommandKind {
    fn from(command: NodeCommand) -> Self {
        match command {
            NodeCommand::Drain => CommandKind::Drain,
            NodeCommand::Resume => CommandKind::Resume,
            NodeCommand::Restart => CommandKind::Restart,
            NodeCommand::Reboot => CommandKind::Reboot,
            NodeCommand::Probe => CommandKind::Probe,
        }
    }
}
