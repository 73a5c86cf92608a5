//! Words that Headwater's processes share.
//!
//! ```text
//! ids ── units ── rendition ──▶ message ──▶ topic        gateway ◀─ MQTT ─▶ agent
//!                  │  │
//!                  │  └───────▶ worker                   agent ◀─ socket ─▶ worker
//!                  └─ livepeer                           what callers write
//! ```
//!
//! Everything here is plain data with serde, and how versions are ordered; nothing opens a socket, reads a clock or starts a thread.
//! A value that exists is valid: ids, units and ladders are checked where they are made or parsed.

pub mod enroll;
pub mod error;
pub mod evidence;
pub mod ids;
pub mod livepeer;
pub mod media;
pub mod message;
pub mod packages;
pub mod proxy;
pub mod rendition;
pub mod sound;
pub mod topic;
pub mod units;
pub mod update;
pub mod version;
pub mod worker;

pub use error::{Class, Code, Fault};
pub use evidence::{Evidence, Graph};
pub use ids::{BadId, FleetId, NodeId, RenditionName, StreamId, TaskId, UpdateId};
pub use media::{Capability, CapabilityKind, InputFacts, ProbeReport, RenditionReport, SegmentReport};
pub use rendition::{Codec, Container, Gop, Ladder, LadderError, Profile, Rate, Rendition, Tiles};
pub use sound::{Aac, Audio, Opus};
pub use units::{BitsPerSecond, Epoch, FrameRate, Hertz, Millis, Pixels};

/// Version of the wire format: the `v` of every message and the second level of every topic.
pub const VERSION: u16 = 1;
