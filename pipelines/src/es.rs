//! Elementary streams: the working types between the containers and the graph.
//!
//! ```text
//! bytes ─▶ demux ─▶ Item::{Tracks, Video, Audio} ─▶ graph ─▶ Frame ─▶ mux ─▶ bytes
//!                        └────────── audio, untouched ───────────────▲
//! ```

use bytes::Bytes;
use headwater_protocol::Codec;

/// A point on the stream's 90 kHz clock, unwrapped: 33-bit wraps inside a segment have been undone,
/// and writing to a container takes it modulo 2^33 again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(pub i64);

/// Ticks in a second.
pub const CLOCK: i64 = 90_000;

/// One coded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub pts: Ticks,
    pub dts: Ticks,
    /// Decoding can start here.
    pub key: bool,
    /// H.264 and HEVC: the access unit in Annex B, with the parameter sets it needs where `key`. AV1: the temporal
    /// unit, with its sequence header where `key`. VP9 and VP8: the frame, or a superframe.
    pub data: Bytes,
}

/// One or more audio frames that share a timestamp, as they lay in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioPacket {
    /// Index into [`Tracks::audio`].
    pub track: usize,
    pub pts: Ticks,
    pub data: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioFormat {
    /// AAC with an ADTS header on each frame, as in MPEG-TS.
    Adts,
    /// AAC frames without header, as in MP4, and their AudioSpecificConfig.
    Aac {
        config: Bytes,
        rate: u32,
        channels: u16,
    },
    /// MPEG-1/2 layer II or III.
    Mpeg,
    Ac3,
    Eac3,
    /// Opus packets, with the codec's channel count and pre-skip.
    Opus {
        channels: u8,
        pre_skip: u16,
        rate: u32,
    },
    /// Carried over from TS to TS only: stream type and ES descriptors as found.
    Other {
        stream_type: u8,
        descriptors: Bytes,
    },
}

/// How a picture has to be turned to stand upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    #[default]
    None,
    Clockwise90,
    Half,
    Clockwise270,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoTrack {
    pub codec: Codec,
    /// From MP4's display matrix; TS has none.
    pub rotation: Rotation,
}

/// What a segment has. Known before its first frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracks {
    pub video: Option<VideoTrack>,
    pub audio: Vec<AudioFormat>,
}

/// What a demuxer gives, in the order of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// First, and again where the set changes in the middle.
    Tracks(Tracks),
    Video(Frame),
    Audio(AudioPacket),
}
