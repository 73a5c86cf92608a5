//! A mark on a picture that is decoded but not shown.
//!
//! A file in open groups of pictures is cut at pictures that those shown before them refer to:
//!
//! ```text
//! decoded  … P  I  b b b  P …        b: shown before I, refers to P and I
//! cut      … P [I] b b b │ I P …     [I]: once more, marked
//! ```
//!
//! The mark is user data in an SEI message, so it goes through every container, and decoders that do not
//! know it pass over it.

use bytes::{BufMut, Bytes, BytesMut};
use headwater_protocol::Codec;

use crate::nal::{self, Kind};

/// Names the message; made by chance, without a byte that would need an escape.
const NAME: [u8; 16] = *b"\x8f\x1c\xd4\x5e\x92\x7b\x4a\x66\xb1\x3f\x48\x77\x64\x72\x6e\x73";

/// User data, unregistered: its kind, its size, then the name.
const HEAD: [u8; 2] = [5, 16];

fn header(codec: Codec) -> &'static [u8] {
    match codec {
        Codec::Hevc => &[39 << 1, 1],
        Codec::H264 | Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg | Codec::Fwht => &[6],
    }
}

/// Whether the mark stands in front of the picture.
pub(crate) fn is(codec: Codec, unit: &[u8]) -> bool {
    nal::units(unit)
        .take_while(|nal| !matches!(nal::kind(codec, nal), Kind::Slice(_)))
        .any(|nal| nal.get(header(codec).len() + HEAD.len()..).is_some_and(|rest| rest.starts_with(&NAME)))
}

/// The picture of H.264 or HEVC with the mark before its first slice.
pub(crate) fn mark(codec: Codec, unit: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(unit.len() + 32);
    let mut marked = false;
    for nal in nal::units(unit) {
        if !marked && matches!(nal::kind(codec, nal), Kind::Slice(_)) {
            marked = true;
            out.put_slice(&[0, 0, 0, 1]);
            out.put_slice(header(codec));
            out.put_slice(&HEAD);
            out.put_slice(&NAME);
            out.put_u8(0x80);
        }
        out.put_slice(&[0, 0, 0, 1]);
        out.put_slice(nal);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_picture_is_known_and_any_other_is_not() {
        let h264 = [0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x41, 0x88, 0x80, 5];
        let hevc = [0, 0, 0, 1, 0x46, 1, 0x50, 0, 0, 0, 1, 0x2a, 1, 0x80, 5];
        for (codec, unit) in [(Codec::H264, &h264[..]), (Codec::Hevc, &hevc)] {
            assert!(!is(codec, unit));
            let marked = mark(codec, unit);
            assert!(is(codec, &marked));
            assert_eq!(nal::units(&marked).count(), 3);
        }
    }
}
