//! What one coded frame is, by its own first bits, whatever container it came in.
//!
//! ```text
//! H.264, HEVC   NAL units, [`crate::nal`]
//! AV1           a temporal unit of OBUs
//! VP9           a frame, or a superframe of several of which one is shown
//! VP8           a frame
//! FWHT          a frame
//! ```

pub(crate) mod av1;
pub(crate) mod fwht;
pub(crate) mod hidden;
pub(crate) mod vpx;

use headwater_protocol::Codec;

use crate::nal::{self, ParameterSets};

/// What a coded frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// Decoding can start here.
    pub(crate) key: bool,
    /// …and no frame after it refers to one before it.
    pub(crate) closed: bool,
    /// …or only frames that are shown before it do; they follow it at once.
    pub(crate) exact: bool,
    /// Gives a picture. Not so VP8's alternate references, and those of VP9 outside a superframe.
    pub(crate) shown: bool,
}

impl Facts {
    /// Of a codec in which nothing reaches behind a keyframe.
    fn whole(key: bool, shown: bool) -> Self {
        Self { key, closed: key, exact: key, shown }
    }
}

pub(crate) fn facts(codec: Codec, data: &[u8]) -> Facts {
    match codec {
        Codec::H264 | Codec::Hevc => {
            let picture = nal::look(codec, data, &mut ParameterSets::default());
            let closed = picture.has_slice && picture.closed;
            let exact = picture.has_slice && (picture.random_access || (picture.recovery && picture.intra));
            Facts { key: picture.key(), closed, exact, shown: shown(codec, data) }
        }
        Codec::Av1 => {
            let unit = av1::look(data);
            Facts::whole(unit.key, unit.shown)
        }
        Codec::Vp9 => {
            let frame = vpx::look_vp9(data);
            Facts::whole(frame.key, frame.shown)
        }
        Codec::Vp8 => {
            let frame = vpx::look_vp8(data);
            Facts::whole(frame.key, frame.shown)
        }
        Codec::Jpeg => Facts::whole(true, true),
        Codec::Fwht => fwht::look(data).map_or_else(Facts::default, |frame| Facts::whole(frame.key, true)),
    }
}

/// Whether frames of this codec are runs of NAL units.
pub(crate) fn is_nal(codec: Codec) -> bool {
    match codec {
        Codec::H264 | Codec::Hevc => true,
        Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg | Codec::Fwht => false,
    }
}

/// Whether the frame gives a picture. Cheap, for each frame is asked.
pub(crate) fn shown(codec: Codec, data: &[u8]) -> bool {
    match codec {
        Codec::H264 | Codec::Hevc => !hidden::is(codec, data),
        Codec::Av1 => av1::look(data).shown,
        Codec::Vp9 => vpx::look_vp9(data).shown,
        Codec::Vp8 => vpx::look_vp8(data).shown,
        Codec::Jpeg | Codec::Fwht => true,
    }
}

/// Width and height, where the frame's own bits say them and no parser in a chain does.
pub(crate) fn size(codec: Codec, data: &[u8]) -> Option<(u32, u32)> {
    let of_format = |format: vpx::Format| (format.width, format.height);
    match codec {
        Codec::H264 | Codec::Hevc | Codec::Jpeg => None,
        Codec::Av1 => {
            av1::parse_sequence(av1::sequence(data)?).map(|sequence| (sequence.width, sequence.height))
        }
        Codec::Vp9 => vpx::look_vp9(data).format.map(of_format),
        Codec::Vp8 => vpx::look_vp8(data).format.map(of_format),
        Codec::Fwht => fwht::look(data).map(|frame| (frame.width, frame.height)),
    }
}
