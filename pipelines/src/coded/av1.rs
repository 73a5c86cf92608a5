//! AV1: the units (OBUs) of a temporal unit, and what its sequence header says.

use bytes::{BufMut, Bytes, BytesMut};

use super::Chroma;
use crate::nal::bits::Bits;

const SEQUENCE: u8 = 1;
const DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;

struct Obu<'a> {
    kind: u8,
    /// With its header.
    all: &'a [u8],
    payload: &'a [u8],
}

fn obus(data: &[u8]) -> impl Iterator<Item = Obu<'_>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let head = *rest.first()?;
        let mut at = if head & 4 != 0 { 2 } else { 1 };
        let len = if head & 2 != 0 {
            let (len, bytes) = leb128(rest.get(at..)?)?;
            at += bytes;
            len
        } else {
            rest.len().checked_sub(at)?
        };
        let end = at.checked_add(len)?;
        let obu = Obu { kind: head >> 3 & 0x0f, all: rest.get(..end)?, payload: &rest[at..end] };
        rest = &rest[end..];
        Some(obu)
    })
}

fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (at, byte) in data.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, at + 1));
        }
    }
    None
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Unit {
    /// Starts with a shown keyframe.
    pub(crate) key: bool,
    pub(crate) shown: bool,
    pub(crate) has_sequence: bool,
}

pub(crate) fn look(data: &[u8]) -> Unit {
    let mut unit = Unit::default();
    let mut still = false;
    let mut first = true;
    for obu in obus(data) {
        match obu.kind {
            SEQUENCE => {
                unit.has_sequence = true;
                // `reduced_still_picture_header`, after profile and `still_picture`.
                still = obu.payload.first().is_some_and(|byte| byte & 0x08 != 0);
            }
            FRAME_HEADER | FRAME => {
                let byte = obu.payload.first().copied().unwrap_or(0);
                let (again, key, shown) = (byte & 0x80 != 0, byte & 0x60 == 0, byte & 0x10 != 0);
                unit.key |= first && (still || (!again && key && shown));
                unit.shown |= still || again || shown;
                first = false;
            }
            _ => {}
        }
    }
    unit
}

/// Without delimiters, which MP4 does not have.
pub(crate) fn without_delimiters(data: &Bytes) -> Bytes {
    if obus(data).all(|obu| obu.kind != DELIMITER) {
        return data.clone();
    }
    let mut out = BytesMut::with_capacity(data.len());
    obus(data).filter(|obu| obu.kind != DELIMITER).for_each(|obu| out.put_slice(obu.all));
    out.freeze()
}

/// The unit's sequence header with its OBU header.
pub(crate) fn sequence(data: &[u8]) -> Option<&[u8]> {
    obus(data).find(|obu| obu.kind == SEQUENCE).map(|obu| obu.all)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sequence {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bits a sample.
    pub(crate) depth: u8,
    pub(crate) chroma: Chroma,
    /// The four bytes with which `av1C` begins.
    pub(crate) config: [u8; 4],
}

/// Reads a sequence header, given with its OBU header: clause 5.5 of the specification.
pub(crate) fn parse_sequence(obu: &[u8]) -> Option<Sequence> {
    let payload = obus(obu).next()?.payload;
    let mut bits = Bits::new(payload);
    let profile = bits.bits(3)?;
    bits.skip(1)?;
    let reduced = bits.flag()?;
    let (level, tier) = if reduced { (bits.bits(5)?, 0) } else { operating_points(&mut bits)? };
    let (wide, high) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
    let (width, height) = (bits.bits(wide)? + 1, bits.bits(high)? + 1);
    if !reduced && bits.flag()? {
        bits.skip(7)?;
    }
    bits.skip(3)?;
    if !reduced {
        skip_tools(&mut bits)?;
    }
    bits.skip(3)?;
    let deep = bits.flag()?;
    let twelve = profile == 2 && deep && bits.flag()?;
    let mono = profile != 1 && bits.flag()?;
    let colours = if bits.flag()? { (bits.bits(8)?, bits.bits(8)?, bits.bits(8)?) } else { (2, 2, 2) };
    const RGB: (u32, u32, u32) = (1, 13, 0);
    let (mut narrow, mut low) = (true, true);
    if mono {
        bits.skip(1)?;
    } else if colours == RGB {
        (narrow, low) = (false, false);
    } else {
        bits.skip(1)?;
        (narrow, low) = match profile {
            0 => (true, true),
            1 => (false, false),
            _ if twelve => {
                let narrow = bits.flag()?;
                (narrow, narrow && bits.flag()?)
            }
            _ => (true, false),
        };
    }
    let position = if narrow && low && !mono { bits.bits(2)? } else { 0 };
    let flag = |on: bool, shift: u8| u8::from(on) << shift;
    let config = [
        0x81,
        (profile << 5 | level) as u8,
        (tier << 7) as u8
            | flag(deep, 6)
            | flag(twelve, 5)
            | flag(mono, 4)
            | flag(narrow, 3)
            | flag(low, 2)
            | position as u8,
        0,
    ];
    let depth = match (deep, twelve) {
        (_, true) => 12,
        (true, false) => 10,
        (false, false) => 8,
    };
    let chroma = match (mono, narrow, low) {
        (true, _, _) => Chroma::Grey,
        (false, true, true) => Chroma::Quarter,
        (false, true, false) => Chroma::Half,
        (false, false, _) => Chroma::Full,
    };
    Some(Sequence { width, height, depth, chroma, config })
}

/// Level and tier of the first one.
fn operating_points(bits: &mut Bits<'_>) -> Option<(u32, u32)> {
    let mut delay_bits = None;
    if bits.flag()? {
        bits.skip(64)?;
        if bits.flag()? {
            bits.ue()?;
        }
        if bits.flag()? {
            delay_bits = Some(bits.bits(5)? + 1);
            bits.skip(42)?;
        }
    }
    let has_delay = bits.flag()?;
    let count = bits.bits(5)? + 1;
    let mut first = None;
    for _ in 0..count {
        bits.skip(12)?;
        let level = bits.bits(5)?;
        let tier = if level > 7 { bits.bits(1)? } else { 0 };
        first.get_or_insert((level, tier));
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            bits.skip(2 * delay_bits + 1)?;
        }
        if has_delay && bits.flag()? {
            bits.skip(4)?;
        }
    }
    first
}

fn skip_tools(bits: &mut Bits<'_>) -> Option<()> {
    bits.skip(4)?;
    let order_hint = bits.flag()?;
    if order_hint {
        bits.skip(2)?;
    }
    let chooses_screen = bits.flag()?;
    let screen = chooses_screen || bits.flag()?;
    if screen && !bits.flag()? {
        bits.skip(1)?;
    }
    bits.skip(if order_hint { 3 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a stream that libaom made: 320x180, main profile, 8 bit.
    const MADE: [u8; 13] = [0x0a, 0x0b, 0x00, 0x00, 0x00, 0x04, 0x3c, 0xfe, 0xcc, 0xda, 0xf9, 0x00, 0x40];

    #[test]
    fn a_sequence_header_gives_size_and_configuration() {
        let sequence = parse_sequence(&MADE).unwrap();
        assert_eq!(
            (sequence.width, sequence.height, sequence.depth, sequence.chroma),
            (320, 180, 8, Chroma::Quarter)
        );
        assert_eq!(sequence.config, [0x81, 0x00, 0x0c, 0]);
    }

    #[test]
    fn units_without_an_end_or_with_a_wrong_length_end_the_walk() {
        assert_eq!(look(&[]), Unit::default());
        assert_eq!(look(&[0x0a, 0x7f, 0]), Unit::default());
        assert_eq!(look(&[0x32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Unit::default());
    }

    #[test]
    fn frames_are_told_apart_by_their_first_bits() {
        let key = [&[0x12, 0][..], &MADE, &[0x32, 1, 0x10]].concat();
        assert_eq!(look(&key), Unit { key: true, shown: true, has_sequence: true });
        assert_eq!(sequence(&key), Some(&MADE[..]));
        let hidden = [0x32, 1, 0x20];
        assert_eq!(look(&hidden), Unit::default());
        // A hidden frame, then one that shows an older frame again.
        let again = [0x32, 1, 0x20, 0x1a, 1, 0x80];
        assert_eq!(look(&again), Unit { key: false, shown: true, has_sequence: false });
        let bare = without_delimiters(&Bytes::from(key.clone()));
        assert_eq!(&bare[..], &key[2..]);
    }
}
