//! Which node does what, as plain data: no clock, no socket, no lock.
//!
//! ```text
//! submit ─▶ waiting ─choose─▶ offered ─accepted─▶ running ─done─▶ winner ─▶ answer
//!              ▲                 │accept over        │progress or runtime over, node gone
//!              └──── fault by class ◀── lost ◀───────┘     (a late valid result still wins)
//! ```
//!
//! [`Core`] takes what happened and the time, and leaves [`Action`]s for the owner to carry out.

pub mod choose;
mod conclude;
mod core;
mod events;
mod place;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use headwater_protocol::message::{Birth, EventNumber, Header, NodeState, Offer, Telemetry};
use headwater_protocol::update::UpdateStatus;
use headwater_protocol::{
    Container, Epoch, Fault, FleetId, Ladder, Millis, NodeId, RenditionName, SegmentReport, StreamId, TaskId,
};

use crate::grants::Grant;
use crate::rollout::Seen;
use crate::store::{OpenStream, Write};

pub use self::core::Core;

/// Milliseconds of both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since this daemon started; leases count on it.
    pub mono: u64,
    /// Since 1970; people read it.
    pub unix: u64,
}

#[derive(Debug, Clone)]
pub struct Policy {
    pub fleet: FleetId,
    pub attempts: u32,
    pub accept_ms: u64,
    pub progress_ms: u64,
    pub runtime_factor: u64,
    pub runtime_min_ms: u64,
    pub deadline_ms: u64,
    /// How long a task whose nodes all went away waits for one to come back.
    pub absent_ms: u64,
    pub streams: usize,
    pub in_flight_per_stream: usize,
    pub waiting: usize,
}

/// A stream without a segment for so long has ended.
pub const IDLE_MS: u64 = 60_000;
/// A node's last sign of life is stored this often, so that a killed gateway knows it about as well.
pub const SEEN_MS: u64 = 10 * 60_000;
/// Nodes that were connected to an earlier life of the gateway, or of the broker, are back by then.
pub const RETURN_MS: u64 = 10_000;

/// A segment that has arrived whole.
#[derive(Debug, Clone)]
pub struct Submission {
    pub task: TaskId,
    pub stream: StreamId,
    pub segment: u64,
    pub container: Container,
    pub bytes: u64,
    pub sha256: String,
    pub duration: Millis,
    /// `WxH` as the caller said.
    pub resolution: Option<String>,
    /// What the caller asks for; counts for the first segment of a stream only.
    pub wanted: Result<Option<Ladder>, String>,
}

/// How a segment's way ends: each submission gets exactly one.
#[derive(Debug, Clone)]
pub enum Outcome {
    Done(Box<Won>),
    /// The caller asked for no renditions.
    Nothing,
    /// The input is at fault.
    Input(Fault),
    /// Nodes tried and failed.
    Exhausted(Fault),
    /// No node can take it now.
    NoSession,
    /// The stream's ladder cannot be used.
    BadLadder(String),
    /// A bound of this gateway is reached.
    Full(&'static str),
    /// The result could not be stored.
    Internal(String),
    /// The caller went away.
    Gone,
}

#[derive(Debug, Clone)]
pub struct Won {
    pub epoch: Epoch,
    pub node: NodeId,
    pub ladder: Ladder,
    pub report: SegmentReport,
    pub attempts: u32,
}

/// What the owner must do. In order; answers and acks only once the writes before them are stored.
#[derive(Debug)]
pub enum Action {
    Grant {
        task: TaskId,
        epoch: Epoch,
        grant: Grant,
    },
    EndGrant {
        task: TaskId,
        epoch: Epoch,
    },
    Offer {
        node: NodeId,
        offer: Box<Offer>,
    },
    Revoke {
        node: NodeId,
        task: TaskId,
        epoch: Epoch,
    },
    Ack {
        node: NodeId,
        number: EventNumber,
    },
    Write(Write),
    Answer {
        task: TaskId,
        outcome: Outcome,
    },
    /// Remove a task's objects, or those of all attempts but one.
    Discard {
        task: TaskId,
        keep: Option<Epoch>,
    },
    /// Something that people look at has changed.
    NodesChanged,
}

/// A node as this gateway knows it.
#[derive(Debug, Clone)]
pub struct Node {
    pub state: NodeState,
    /// Heard of since the broker connection stands.
    pub heard: bool,
    pub birth: Option<Birth>,
    pub telemetry: Option<Telemetry>,
    /// Of the last that its agent itself said of its state, since the broker connection stands.
    pub word: Option<Header>,
    /// Its word on its newest update.
    pub update: Option<UpdateStatus>,
    /// Its last sign of life, since 1970; what the broker kept of it is none.
    pub last_seen: u64,
    /// Faults of its own in a row.
    pub strikes: u32,
    /// Takes nothing before this (mono), and until when on people's clock.
    pub rests_until: u64,
    pub rests_until_unix: u64,
    /// It said busy; asked again after this (mono).
    pub busy_until: u64,
}

impl Node {
    /// Known, and not heard of.
    pub(crate) fn new(last_seen: u64) -> Self {
        Self {
            state: NodeState::Offline,
            heard: false,
            birth: None,
            telemetry: None,
            word: None,
            update: None,
            last_seen,
            strikes: 0,
            rests_until: 0,
            rests_until_unix: 0,
            busy_until: 0,
        }
    }

    /// Connected, for all we know.
    pub fn is_there(&self) -> bool {
        self.state() != NodeState::Offline
    }

    pub fn state(&self) -> NodeState {
        if self.heard { self.state } else { NodeState::Offline }
    }

    /// It has booted, and not said since then what it is: the boot may have taken an update back, so what it said before
    /// does not count.
    pub fn has_booted(&self) -> bool {
        let (Some(birth), Some(word)) = (&self.birth, &self.word) else { return false };
        !word.boot_id.is_empty() && birth.header.boot_id != word.boot_id
    }

    /// For an update, one that has not said what it is now is as good as away.
    pub fn seen(&self) -> Seen<'_> {
        Seen { online: self.is_there() && !self.has_booted(), birth: self.birth.as_ref() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) run: u64,
    pub(crate) ladder: Option<Ladder>,
    pub(crate) node: Option<NodeId>,
    pub(crate) resolution: Option<String>,
    /// Since 1970.
    pub(crate) opened: u64,
    pub(crate) last_push: u64,
    pub(crate) done: DoneNumbers,
}

impl Stream {
    fn row(&self, stream: &StreamId) -> OpenStream {
        OpenStream {
            stream: stream.clone(),
            run: self.run,
            ladder: self.ladder.clone(),
            resolution: self.resolution.clone(),
            at: self.opened,
        }
    }
}

/// Numbers of a stream that are done, the newest few thousand, and of each the beginning of its content's SHA-256.
#[derive(Debug, Clone, Default)]
pub(crate) struct DoneNumbers(BTreeMap<u64, u64>);

impl DoneNumbers {
    /// More than two hours of segments of two seconds.
    const MOST: usize = 4096;
    /// Segments that come so much out of order, or from a second encoder beside the first, are of the same run.
    const SLACK: u64 = 8;

    pub(crate) fn add(&mut self, number: u64, sha256: &str) {
        self.0.entry(number).or_insert_with(|| Self::mark(sha256));
        while self.0.len() > Self::MOST {
            self.0.pop_first();
        }
    }

    /// Whether this can only come from an encoder that counts from its beginning again: well below the newest, other
    /// content under a number that is done; or well below the oldest that is known here. The same content is a retry.
    pub(crate) fn begins_anew(&self, number: u64, sha256: &str) -> bool {
        let (Some(first), Some(last)) = (self.0.first_key_value(), self.0.last_key_value()) else {
            return false;
        };
        let reached = number.saturating_add(Self::SLACK);
        match self.0.get(&number) {
            Some(seen) => reached <= *last.0 && *seen != Self::mark(sha256),
            None => reached < *first.0,
        }
    }

    fn mark(sha256: &str) -> u64 {
        sha256.get(..16).and_then(|start| u64::from_str_radix(start, 16).ok()).unwrap_or(0)
    }
}

/// Where an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Offered {
        until: u64,
    },
    Running {
        until: u64,
    },
    /// Its lease is over or its node is gone; its result is still welcome.
    Lost,
    Ended,
}

#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) epoch: Epoch,
    pub(crate) node: NodeId,
    pub(crate) phase: Phase,
    pub(crate) runtime_until: u64,
}

impl Attempt {
    pub(crate) fn is_live(&self) -> bool {
        match self.phase {
            Phase::Offered { .. } | Phase::Running { .. } => true,
            Phase::Lost | Phase::Ended => false,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) stream: StreamId,
    pub(crate) segment: u64,
    pub(crate) container: Container,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) run: u64,
    pub(crate) duration: Millis,
    pub(crate) ladder: Ladder,
    pub(crate) deadline: u64,
    pub(crate) attempts: Vec<Attempt>,
    /// Attempts that count; a node that said busy was not one.
    pub(crate) tries: u32,
    /// Nodes that lack something for it.
    pub(crate) unable: Vec<NodeId>,
    /// Nodes that failed it; asked again only where there is no other.
    pub(crate) avoid: Vec<NodeId>,
    /// Nodes that found its input at fault.
    pub(crate) accused_by: Vec<NodeId>,
    /// Nodes whose worker died of it.
    pub(crate) killed_on: Vec<NodeId>,
    pub(crate) last_fault: Option<Fault>,
    pub(crate) not_before: u64,
    pub(crate) nobody_since: Option<u64>,
}

/// What lies in the store for an attempt: bytes per rendition.
pub type Puts = HashMap<RenditionName, u64>;
