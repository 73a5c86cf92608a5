//! What an encoder's frame is, read from its bits: flags say what an element believes of itself.

use headwater_protocol::Codec;

use crate::coded::fwht;
use crate::nal::{self, ParameterSets};

/// One frame as it came out of an encoder.
#[derive(Debug, Clone)]
pub(super) struct CodedFrame {
    pub data: Vec<u8>,
    pub start: Start,
}

/// Whether decoding can start at a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    No,
    /// It is a keyframe, but what a decoder must know first is not with it.
    WithoutSets,
    Yes,
}

impl CodedFrame {
    pub(super) fn new(codec: Codec, data: Vec<u8>) -> Self {
        let start = match codec {
            Codec::H264 | Codec::Hevc => by_nal(codec, &data),
            Codec::Av1 => by_obu(&data),
            Codec::Vp9 => by_bit(vp9_key(&data)),
            Codec::Vp8 => by_bit(data.first().is_some_and(|byte| byte & 1 == 0)),
            Codec::Jpeg => by_bit(data.starts_with(&[0xff, 0xd8])),
            Codec::Fwht => by_bit(fwht::look(&data).is_some_and(|frame| frame.key)),
        };
        Self { data, start }
    }

    pub(super) fn key(&self) -> bool {
        self.start != Start::No
    }
}

fn by_bit(key: bool) -> Start {
    if key { Start::Yes } else { Start::No }
}

fn by_nal(codec: Codec, data: &[u8]) -> Start {
    let mut sets = ParameterSets::default();
    let picture = nal::look(codec, data, &mut sets);
    if !(picture.random_access && picture.closed) {
        return Start::No;
    }
    let vps = codec != Codec::Hevc || sets.vps().next().is_some();
    let whole = vps && sets.sps().next().is_some() && sets.pps().next().is_some();
    if whole { Start::Yes } else { Start::WithoutSets }
}

/// A temporal unit of AV1 (specification 5.3): encoders write the sequence header where decoding can start, and only
/// there. The type is in bits 3 to 6 of the header, and a size follows where bit 1 says so.
fn by_obu(mut data: &[u8]) -> Start {
    const SEQUENCE_HEADER: u8 = 1;
    while let Some((&header, rest)) = data.split_first() {
        if header >> 3 & 0xf == SEQUENCE_HEADER {
            return Start::Yes;
        }
        let rest = if header & 4 == 0 { rest } else { rest.get(1..).unwrap_or_default() };
        if header & 2 == 0 {
            return Start::No;
        }
        let Some((size, rest)) = leb128(rest) else { return Start::No };
        data = rest.get(size..).unwrap_or_default();
    }
    Start::No
}

fn leb128(data: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (at, byte) in data.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &data[at + 1..]));
        }
    }
    None
}

/// VP9's uncompressed header (specification 6.2): marker, profile, show_existing_frame, frame_type.
fn vp9_key(data: &[u8]) -> bool {
    let Some(&byte) = data.first() else { return false };
    // Profile 3 has a reserved bit more.
    let shift = if byte >> 4 & 3 == 3 { 1 } else { 0 };
    let bit = |at: u8| byte >> (7 - at - shift) & 1;
    byte >> 6 == 2 && bit(4) == 0 && bit(5) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(codec: Codec, data: &[u8]) -> Start {
        CodedFrame::new(codec, data.to_vec()).start
    }

    #[test]
    fn a_keyframe_is_known_by_its_bits() {
        let sets =
            [&[0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0x95][..], &[0, 0, 0, 1, 0x68, 0xce, 0x3c]].concat();
        let idr = [0, 0, 1, 0x65, 0x88, 0x84];
        assert_eq!(start(Codec::H264, &[&sets[..], &idr].concat()), Start::Yes);
        assert_eq!(start(Codec::H264, &idr), Start::WithoutSets);
        // An I picture that is no IDR picture.
        assert_eq!(start(Codec::H264, &[&sets[..], &[0, 0, 1, 0x41, 0x88, 0x84]].concat()), Start::No);
        assert_eq!(start(Codec::Vp8, &[0x10]), Start::Yes);
        assert_eq!(start(Codec::Vp8, &[0x11]), Start::No);
        assert_eq!(start(Codec::Vp9, &[0x82]), Start::Yes);
        assert_eq!(start(Codec::Vp9, &[0x86]), Start::No);
        // Temporal delimiter, then a sequence header or a frame.
        assert_eq!(start(Codec::Av1, &[0x12, 0, 0x0a, 1, 0]), Start::Yes);
        assert_eq!(start(Codec::Av1, &[0x12, 0, 0x32, 1, 0]), Start::No);
    }
}
