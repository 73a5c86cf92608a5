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

use std::fmt;

use headwater_protocol::Codec;

use self::av1::Sequence;
use crate::fit::Size;
use crate::nal::{self, ParameterSets};
use crate::plan::Coded;

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

/// How many samples of colour there are for those of luma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chroma {
    Grey,
    /// One in two rows for two columns: what devices take.
    #[default]
    Quarter,
    Half,
    Full,
}

impl Chroma {
    /// As H.264, HEVC and `vpcC` count; `vpcC` has two numbers for 4:2:0, and none for grey.
    fn of_number(number: u8) -> Self {
        match number {
            0 => Chroma::Grey,
            2 => Chroma::Half,
            3 => Chroma::Full,
            _ => Chroma::Quarter,
        }
    }
}

impl fmt::Display for Chroma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Chroma::Grey => "4:0:0",
            Chroma::Quarter => "4:2:0",
            Chroma::Half => "4:2:2",
            Chroma::Full => "4:4:4",
        })
    }
}

/// What a keyframe says of its pictures; None where it does not say.
pub(crate) fn format(codec: Codec, data: &[u8]) -> Option<Coded> {
    let vpx = |format: vpx::Format| Coded {
        size: Size::new(format.width, format.height),
        depth: format.depth,
        chroma: Chroma::of_number(format.chroma.max(1)),
    };
    match codec {
        Codec::H264 | Codec::Hevc => {
            let sps = nal::sps_of(codec, data)?;
            Some(Coded {
                size: Size::new(sps.width, sps.height),
                depth: sps.luma_bits.max(sps.chroma_bits),
                chroma: Chroma::of_number(sps.chroma_format),
            })
        }
        Codec::Av1 => {
            let sequence = av1::sequence(data).and_then(av1::parse_sequence)?;
            let Sequence { width, height, depth, chroma, config: _ } = sequence;
            Some(Coded { size: Size::new(width, height), depth, chroma })
        }
        Codec::Vp9 => vpx::look_vp9(data).format.map(vpx),
        Codec::Vp8 => vpx::look_vp8(data).format.map(vpx),
        // Eight bits are all it has; of its formats the pipelines read 4:2:0.
        Codec::Fwht => fwht::look(data).map(|frame| Coded {
            size: Size::new(frame.width, frame.height),
            depth: 8,
            chroma: Chroma::Quarter,
        }),
        Codec::Jpeg => None,
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

/// The pictures' size, where the frame's own bits say it and no parser in a chain does.
pub(crate) fn size(codec: Codec, data: &[u8]) -> Option<Size> {
    if is_nal(codec) { None } else { format(codec, data).map(|coded| coded.size) }
}
