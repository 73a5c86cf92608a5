//! What the agent and the worker say to each other over the inherited socket.
//!
//! ```text
//! agent   Open ───────────▶  worker      Open and Ready once per worker
//!         ◀─ Hardware…, Ready
//!         Segment, Data…, End ▶          one segment after the other; several at once need several workers
//!         ◀ Output, Data…, Progress,     renditions interleaved, each on its channel
//!           Finished | Failed            exactly one per segment; before Failed, Evidence
//!         Close ──────────▶              or simply the end of the socket
//! ```
//!
//! A frame is an 8-byte header and up to [`MAX_PAYLOAD`] bytes. The socket is the worker's standard
//! input: the one descriptor a child inherits without unsafe code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::StreamId;
use crate::rendition::{Container, Ladder};
use crate::units::Millis;

/// Bytes of a frame's header.
pub const HEADER: usize = 8;
/// Largest payload of one frame. Larger media is cut, larger messages do not exist.
pub const MAX_PAYLOAD: usize = 256 * 1024;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)+) => {
        /// Kind of a frame; its payload is the JSON of the named type, or media bytes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number,)+ }

        impl Kind {
            fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Kind::$name),)+
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// [`Open`], agent to worker, first.
    Open = 1,
    /// [`SegmentStart`], agent to worker.
    Segment = 2,
    /// Media bytes: input from the agent on channel 0, rendition `i` of the ladder from the worker on channel `i`.
    Data = 3,
    /// End of the segment's input; no payload.
    End = 4,
    /// Stop the segment; answered by `Failed` with `revoked`; no payload.
    Cancel = 5,
    /// Finish and exit 0; no payload.
    Close = 6,
    /// [`Ready`], worker to agent.
    Ready = 16,
    /// [`RenditionReport`](crate::RenditionReport): the rendition of this channel is whole.
    Output = 17,
    /// [`Progress`], at least each second while a segment runs.
    Progress = 18,
    /// [`SegmentReport`](crate::SegmentReport): the segment is done.
    Finished = 19,
    /// [`Fault`](crate::Fault): the segment failed; what came on its channels is void.
    Failed = 20,
    /// [`Hardware`]: said before such an element is used first, so that it is known when it never comes back.
    Hardware = 21,
    /// [`Evidence`](crate::Evidence) for the `Failed` that follows.
    Evidence = 22,
}

/// A frame's header: payload length, kind, channel, and the low bits of the segment's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub length: u32,
    pub kind: Kind,
    pub channel: u8,
    pub tag: u16,
}

/// Why eight bytes are not a header. The connection cannot be used further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    #[error("frame of {0} bytes, at most {MAX_PAYLOAD} are allowed")]
    Length(u32),
}

impl Header {
    pub fn encode(self) -> [u8; HEADER] {
        let [a, b, c, d] = self.length.to_be_bytes();
        let [e, f] = self.tag.to_be_bytes();
        [a, b, c, d, self.kind as u8, self.channel, e, f]
    }

    pub fn decode(bytes: [u8; HEADER]) -> Result<Self, BadFrame> {
        let [a, b, c, d, kind, channel, e, f] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]);
        let kind = Kind::from_number(kind).ok_or(BadFrame::Kind(kind))?;
        if length as usize > MAX_PAYLOAD {
            return Err(BadFrame::Length(length));
        }
        Ok(Self { length, kind, channel, tag: u16::from_be_bytes([e, f]) })
    }
}

/// What the worker is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub stream: StreamId,
    pub ladder: Ladder,
    /// Elements that it must plan without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<Avoid>,
    /// What runs only so often at once, by its pool ([`crate::media::pool`]), and how much of it is this worker's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sessions: BTreeMap<String, Sessions>,
}

/// How often the elements of a pool may be open at once, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// On the whole machine.
    pub most: u32,
    /// In this process. The rest is other workers', or not needed here.
    pub ours: u32,
}

/// An element that hung or crashed here and is not used again before the next boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Avoid {
    pub element: String,
    /// A sentence for people.
    pub reason: String,
}

/// Elements behind which there is a device and its driver: what can hang beyond the reach of a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    pub elements: Vec<String>,
}

/// The worker has its elements and waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    pub worker_version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentStart {
    /// Number in its stream, for logs.
    pub number: u64,
    pub container: Container,
    /// What the caller said of its length; timestamps win.
    pub duration: Millis,
}

/// Frames so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub decoded: u64,
    /// Encoded frames over all renditions.
    pub encoded: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire_and_nonsense_does_not() {
        let header = Header { length: 188 * 7, kind: Kind::Data, channel: 3, tag: 513 };
        assert_eq!(Header::decode(header.encode()), Ok(header));
        assert_eq!(Header::decode([0, 0, 0, 0, 99, 0, 0, 0]), Err(BadFrame::Kind(99)));
        assert_eq!(Header::decode([255, 0, 0, 0, 3, 0, 0, 0]), Err(BadFrame::Length(0xff00_0000)));
    }
}
