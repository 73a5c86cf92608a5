//! Elementary streams to containers.
//!
//! ```text
//! Frame, AudioPacket ─▶ ts    packets, at once
//!                    └▶ fmp4  a header, then a fragment per group of pictures
//! ```

pub(crate) mod adts;
mod boxes;
mod fmp4;
pub(crate) mod sound;
mod ts;

use bytes::BytesMut;
use headwater_protocol::{Codec, Container, FrameRate};

use self::fmp4::Fmp4Muxer;
use self::ts::TsMuxer;
use crate::es::{AudioFormat, AudioPacket, Frame, Rotation};

/// What headers say about the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MuxVideo {
    pub codec: Codec,
    pub width: u32,
    pub height: u32,
    /// Length of the last frame, and of a lone one; 30 fps where unknown.
    pub fps: Option<FrameRate>,
    /// To be turned so when shown; MP4 can say it.
    pub rotation: Rotation,
}

/// Writes one rendition of one segment. Frames come in decoding order; audio packets where they belong in time.
#[derive(Debug)]
pub struct Muxer(Inner);

#[derive(Debug)]
enum Inner {
    Ts(Box<TsMuxer>),
    Mp4(Box<Fmp4Muxer>),
    /// Pictures as they are, one after the other.
    Jpeg,
}

impl Muxer {
    /// `audio` are the tracks of the input; those the container cannot carry are left out.
    pub fn new(container: Container, video: MuxVideo, audio: &[AudioFormat]) -> Self {
        Self(match container {
            Container::Ts => Inner::Ts(Box::new(TsMuxer::new(video.codec, audio))),
            Container::Mp4 => Inner::Mp4(Box::new(Fmp4Muxer::new(video, audio))),
            Container::Jpeg => Inner::Jpeg,
        })
    }

    /// The list of tracks has grown at its end. MP4 can take that until its header is written, with the first fragment.
    pub fn tracks(&mut self, audio: &[AudioFormat]) {
        match &mut self.0 {
            Inner::Ts(ts) => ts.tracks(audio),
            Inner::Mp4(mp4) => mp4.tracks(audio),
            Inner::Jpeg => {}
        }
    }

    pub fn video(&mut self, frame: &Frame, out: &mut BytesMut) {
        match &mut self.0 {
            Inner::Ts(ts) => ts.video(frame, out),
            Inner::Mp4(mp4) => mp4.video(frame, out),
            Inner::Jpeg => out.extend_from_slice(&frame.data),
        }
    }

    pub fn audio(&mut self, packet: &AudioPacket, out: &mut BytesMut) {
        match &mut self.0 {
            Inner::Ts(ts) => ts.audio(packet, out),
            Inner::Mp4(mp4) => mp4.audio(packet),
            Inner::Jpeg => {}
        }
    }

    /// Packets of sound that are not in the output, though it carries their format: MP4's header was written before their
    /// track was known.
    pub fn lost(&self) -> u32 {
        match &self.0 {
            Inner::Ts(_) | Inner::Jpeg => 0,
            Inner::Mp4(mp4) => mp4.lost(),
        }
    }

    /// Nothing more comes: writes what was held back.
    pub fn finish(&mut self, out: &mut BytesMut) {
        match &mut self.0 {
            Inner::Ts(ts) => ts.finish(out),
            Inner::Mp4(mp4) => mp4.finish(out),
            Inner::Jpeg => {}
        }
    }
}
