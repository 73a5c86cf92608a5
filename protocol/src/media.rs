//! What was found in an input and produced from it, and what a machine has proved it can do.

use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::ids::RenditionName;
use crate::rendition::{Codec, Container};
use crate::units::{FrameRate, Millis, Pixels};

/// What the worker saw in a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputFacts {
    pub container: Container,
    pub bytes: u64,
    /// None in a segment of sound alone, or one whose video has no frame: it was handed on as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoFacts>,
    /// Audio streams that were carried over.
    pub audio_streams: u32,
    /// From the first to the end of the last frame, by timestamps.
    pub duration: Millis,
    /// Continuity errors, broken packets: the input was damaged and the rest was used.
    #[serde(default)]
    pub errors: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoFacts {
    pub codec: Codec,
    /// Upright size with square pixels, of the first frame.
    pub width: Pixels,
    pub height: Pixels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<FrameRate>,
    /// Coded frames in the segment.
    pub frames: u64,
    /// Frames the decoder gave; fewer than `frames` means loss.
    pub decoded: u64,
    /// Sum of width x height over the decoded frames.
    pub pixels: u64,
    /// High dynamic range that was mapped to BT.709's, in every rendition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hdr: Option<Hdr>,
}

/// How a picture of high dynamic range codes its light.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hdr {
    /// SMPTE ST 2084, as in HDR10.
    Pq,
    /// Hybrid log-gamma of ITU-R BT.2100.
    Hlg,
}

/// One rendition of a segment, as produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenditionReport {
    pub name: RenditionName,
    pub container: Container,
    pub bytes: u64,
    pub width: Pixels,
    pub height: Pixels,
    pub frames: u64,
    pub keyframes: u64,
    /// Sum of width x height over the frames.
    pub pixels: u64,
    /// First presentation timestamp, 90 kHz, 33 bits, as the input has it.
    pub first_pts: u64,
    pub duration: Millis,
    /// The input's bytes, handed on unchanged because there was no frame to encode.
    #[serde(default)]
    pub copied: bool,
}

/// A finished segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentReport {
    pub input: InputFacts,
    /// In the order of the ladder.
    pub renditions: Vec<RenditionReport>,
    /// From the first input byte to the last output byte, microseconds.
    pub wall_us: u64,
    /// User and system time of the worker over the segment, microseconds.
    pub cpu_us: u64,
    /// The pipeline was there already.
    pub warm: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapabilityKind {
    Decode,
    Scale,
    Encode,
}

impl CapabilityKind {
    /// Who does it: `encoder`.
    pub fn role(self) -> &'static str {
        match self {
            Self::Decode => "decoder",
            Self::Scale => "scaler",
            Self::Encode => "encoder",
        }
    }
}

/// One thing a machine did in front of our eyes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capability {
    pub kind: CapabilityKind,
    /// None for scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Codec>,
    /// GStreamer element that did it.
    pub element: String,
    /// The device behind it, as people call it: `NVENC`. Empty where that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub block: String,
    /// Memory its frames are in: `system`, `NVMM`, `DMABuf`, …
    pub memory: String,
    /// Frames a second at `width` x `height`, measured with one instance on an otherwise free machine.
    pub speed_fps: f64,
    pub width: Pixels,
    pub height: Pixels,
    /// How many were seen to run at once. None where that was not tried: software is bounded by the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// How many of its pool run at once at most: one more failed, or the board's profile knows. None: no limit was met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl Capability {
    pub fn pool(&self) -> String {
        pool(self.kind, &self.block, &self.element)
    }
}

/// What sessions are counted by: several elements may drive one device, and what is too much for it is their sum.
/// `NVENC encoder`, or the element's name where the device is not known.
pub fn pool(kind: CapabilityKind, block: &str, element: &str) -> String {
    if block.is_empty() { element.to_owned() } else { format!("{block} {}", kind.role()) }
}

/// Something that is there by name and was not proved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unproved {
    pub element: String,
    pub fault: Fault,
}

/// What `headwater-worker probe` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    pub worker_version: String,
    pub gstreamer_version: String,
    /// Board profile in use.
    pub profile: String,
    pub capabilities: Vec<Capability>,
    #[serde(default)]
    pub unproved: Vec<Unproved>,
}
