//! Elementary streams to containers.

use bytes::BytesMut;
use headwater_protocol::{Codec, Container, FrameRate};

use crate::es::{AudioFormat, AudioPacket, Frame};

/// What headers say about the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MuxVideo {
    pub codec: Codec,
    pub width: u32,
    pub height: u32,
    /// Length of the last frame, and of a lone one; 30 fps where unknown.
    pub fps: Option<FrameRate>,
}

/// Writes one rendition of one segment. Frames come in decoding order; audio packets where they belong in time.
#[derive(Debug)]
pub struct Muxer {}

impl Muxer {
    /// `audio` are the tracks of the input; those the container cannot carry are left out.
    pub fn new(_container: Container, _video: MuxVideo, _audio: &[AudioFormat]) -> Self {
        Self {}
    }

    pub fn video(&mut self, _frame: &Frame, _out: &mut BytesMut) {}

    pub fn audio(&mut self, _packet: &AudioPacket, _out: &mut BytesMut) {}

    pub fn finish(&mut self, _out: &mut BytesMut) {}
}
