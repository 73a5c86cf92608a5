//! H.264 and HEVC at the level of NAL units: where they begin, what they are, what a parameter set says.
//!
//! ```text
//! 00 00 01 │ header │ payload … │ 00 00 01 │ header │ …
//!          └────── one NAL unit ─┘
//! ```

pub(crate) mod bits;
mod sps;
mod vui;

use bytes::{BufMut, Bytes, BytesMut};
use headwater_protocol::Codec;
use memchr::memmem;

use self::bits::{Bits, unescape};
use self::sps::skip_profile_tier_level;
pub use self::sps::{FieldCoding, Sps, parse_sps};
pub use self::vui::{Colours, UNSAID};

/// What a NAL unit means for cutting a stream into access units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Coded picture data.
    Slice(Slice),
    /// SPS, PPS or VPS.
    ParameterSet,
    /// Access unit delimiter.
    Delimiter,
    /// Supplemental information that stands in front of a picture.
    Sei,
    /// Something else that only stands in front of a picture.
    Prefix,
    /// End of sequence, filler, suffix SEI, auxiliary pictures, further layers.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// IDR in H.264; IDR, BLA or CRA in HEVC.
    pub random_access: bool,
    /// No picture after it refers to one before it.
    pub closed: bool,
    /// Position in the picture: 0 is the first slice. For HEVC 0 or 1.
    pub first: u32,
    /// Only intra prediction, as far as the header tells cheaply.
    pub intra: bool,
}

/// Bytes of a NAL unit that [`kind`] needs at most.
pub const HEAD: usize = 16;

/// Classifies a NAL unit by its first bytes.
pub fn kind(codec: Codec, nal: &[u8]) -> Kind {
    let Some(&head) = nal.first() else { return Kind::Other };
    match codec {
        Codec::Hevc => hevc_kind(head, nal),
        Codec::H264 => h264_kind(head, nal),
        // Not made of NAL units.
        Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg | Codec::Fwht => Kind::Other,
    }
}

fn h264_kind(head: u8, nal: &[u8]) -> Kind {
    match head & 0x1f {
        t @ (1 | 2 | 5) => {
            let mut bits = Bits::new(&nal[1..]);
            let first = bits.ue().unwrap_or(0);
            let slice_type = bits.ue().unwrap_or(0);
            let idr = t == 5;
            Kind::Slice(Slice {
                random_access: idr,
                closed: idr,
                first,
                intra: matches!(slice_type % 5, 2 | 4),
            })
        }
        6 => Kind::Sei,
        7 | 8 => Kind::ParameterSet,
        9 => Kind::Delimiter,
        14..=18 => Kind::Prefix,
        _ => Kind::Other,
    }
}

fn hevc_kind(head: u8, nal: &[u8]) -> Kind {
    let layer = (head & 1) << 5 | nal.get(1).map_or(0, |b| b >> 3);
    if layer != 0 {
        return Kind::Other;
    }
    match head >> 1 & 0x3f {
        t @ 0..=31 => {
            let random_access = (16..=23).contains(&t);
            let first = u32::from(nal.get(2).is_some_and(|b| b & 0x80 == 0));
            let closed = random_access && t != 21;
            Kind::Slice(Slice { random_access, closed, first, intra: random_access })
        }
        32..=34 => Kind::ParameterSet,
        35 => Kind::Delimiter,
        39 => Kind::Sei,
        41..=44 | 48..=55 => Kind::Prefix,
        _ => Kind::Other,
    }
}

/// The NAL units of an Annex B byte stream, without start codes.
pub fn units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts = memmem::find_iter(data, b"\0\0\x01").map(|at| at + 3).peekable();
    std::iter::from_fn(move || {
        let from = starts.next()?;
        let to = starts.peek().map_or(data.len(), |next| next - 3);
        // Zeros before a start code belong to it; no NAL unit ends in one.
        let unit = &data[from..to];
        let len = unit.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        Some(&unit[..len])
    })
    .filter(|unit| !unit.is_empty())
}

/// What one access unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Picture {
    pub has_slice: bool,
    /// IDR, BLA or CRA.
    pub random_access: bool,
    /// As [`Slice::closed`].
    pub closed: bool,
    /// H.264's recovery point: decoding can start here and is right a little later.
    pub recovery: bool,
    /// All slices are intra, in H.264.
    pub intra: bool,
    pub has_delimiter: bool,
    pub has_sps: bool,
    /// Only one field of a frame, in H.264.
    pub field: Option<Field>,
}

/// Two fields of one frame have the same number and are not both the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub frame: u32,
    pub bottom: bool,
}

fn field(slice: &[u8], coding: FieldCoding) -> Option<Field> {
    let payload = unescape(slice.get(1..slice.len().min(32))?);
    let mut bits = Bits::new(&payload);
    for _ in ["first_mb_in_slice", "slice_type", "pic_parameter_set_id"] {
        bits.ue()?;
    }
    bits.skip(if coding.separate_planes { 2 } else { 0 })?;
    let frame = bits.bits(coding.frame_num_bits)?;
    let is_field = bits.flag()?;
    let bottom = bits.flag()?;
    is_field.then_some(Field { frame, bottom })
}

impl Picture {
    /// Decoding can start here.
    pub fn key(&self) -> bool {
        self.has_slice && (self.random_access || self.recovery)
    }
}

/// Looks an access unit over and remembers its parameter sets.
pub fn look(codec: Codec, unit: &[u8], sets: &mut ParameterSets) -> Picture {
    let mut picture = Picture { intra: true, ..Picture::default() };
    for nal in units(unit) {
        picture.add(codec, nal, sets);
    }
    picture.intra &= picture.has_slice;
    picture
}

impl Picture {
    pub(crate) fn add(&mut self, codec: Codec, nal: &[u8], sets: &mut ParameterSets) {
        match kind(codec, nal) {
            Kind::Slice(slice) => {
                if !self.has_slice {
                    self.random_access = slice.random_access;
                    self.closed = slice.closed;
                    self.field = sets.field_coding.and_then(|coding| field(nal, coding));
                }
                self.intra &= slice.intra;
                self.has_slice = true;
            }
            Kind::Sei => self.recovery |= codec == Codec::H264 && is_recovery_point(nal),
            Kind::Delimiter => self.has_delimiter = true,
            Kind::ParameterSet => {
                self.has_sps |= is_sps(codec, nal);
                sets.put(codec, nal);
            }
            Kind::Prefix | Kind::Other => {}
        }
    }
}

/// What the first sequence parameter set of an access unit says.
pub fn sps_of(codec: Codec, unit: &[u8]) -> Option<Sps> {
    units(unit).find(|nal| is_sps(codec, nal)).and_then(|nal| parse_sps(codec, nal))
}

fn is_sps(codec: Codec, nal: &[u8]) -> bool {
    match codec {
        Codec::Hevc => nal[0] >> 1 & 0x3f == 33,
        Codec::H264 => nal[0] & 0x1f == 7,
        Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg | Codec::Fwht => false,
    }
}

fn is_recovery_point(nal: &[u8]) -> bool {
    // Large messages are user data and come last; what we look for is in front.
    let payload = unescape(&nal[1..nal.len().min(512)]);
    let mut rest = payload.as_slice();
    while rest.len() >= 2 {
        let Some((kind, after)) = sei_number(rest) else { return false };
        let Some((size, after)) = sei_number(after) else { return false };
        if kind == 6 {
            return true;
        }
        rest = after.get(size..).unwrap_or_default();
    }
    false
}

fn sei_number(mut rest: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        value += usize::from(byte);
        if byte != 0xff {
            return Some((value, rest));
        }
    }
}

/// The parameter sets in force, by kind and id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParameterSets {
    /// Kind (order in which they are written) and id, then the NAL unit. Few: a Vec is quickest.
    sets: Vec<((u8, u32), Bytes)>,
    /// What the last sequence parameter set of H.264 says.
    field_coding: Option<FieldCoding>,
}

impl ParameterSets {
    /// More than any real stream has; a stream that goes on making ids up is not remembered further.
    const MAX: usize = 64;

    pub fn put(&mut self, codec: Codec, nal: &[u8]) {
        let Some(key) = set_key(codec, nal) else { return };
        if codec == Codec::H264 && is_sps(codec, nal) {
            self.field_coding = parse_sps(codec, nal).and_then(|sps| sps.field_coding);
        }
        let room = self.sets.len() < Self::MAX;
        match self.sets.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) if old.as_ref() == nal => {}
            Some((_, old)) => *old = Bytes::copy_from_slice(nal),
            None if room => {
                self.sets.push((key, Bytes::copy_from_slice(nal)));
                self.sets.sort_by_key(|(k, _)| *k);
            }
            None => {}
        }
    }

    /// All sets with start codes, in the order VPS, SPS, PPS.
    pub fn annex_b(&self, out: &mut BytesMut) {
        for (_, nal) in &self.sets {
            out.put_slice(&[0, 0, 0, 1]);
            out.put_slice(nal);
        }
    }

    /// Whether this very set is in force.
    pub fn has(&self, nal: &[u8]) -> bool {
        self.sets.iter().any(|(_, set)| set == nal)
    }

    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    fn of_kind(&self, kind: u8) -> impl Iterator<Item = &Bytes> {
        self.sets.iter().filter(move |((k, _), _)| *k == kind).map(|(_, nal)| nal)
    }

    pub fn vps(&self) -> impl Iterator<Item = &Bytes> {
        self.of_kind(0)
    }

    pub fn sps(&self) -> impl Iterator<Item = &Bytes> {
        self.of_kind(1)
    }

    pub fn pps(&self) -> impl Iterator<Item = &Bytes> {
        self.of_kind(2)
    }
}

fn set_key(codec: Codec, nal: &[u8]) -> Option<(u8, u32)> {
    match codec {
        Codec::Hevc => {
            let order = (nal.first()? >> 1 & 0x3f).checked_sub(32)?;
            let payload = unescape(nal.get(2..nal.len().min(128))?);
            let mut bits = Bits::new(&payload);
            let id = match order {
                0 => bits.bits(4)?,
                1 => {
                    let layers = bits.bits(4)? >> 1 & 7;
                    bits.skip(4)?;
                    skip_profile_tier_level(&mut bits, layers)?;
                    bits.ue()?
                }
                _ => bits.ue()?,
            };
            Some((order, id))
        }
        Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg | Codec::Fwht => None,
        Codec::H264 => {
            let order = (nal.first()? & 0x1f).checked_sub(6)?;
            let mut bits = Bits::new(nal.get(1..)?);
            if order == 1 {
                bits.skip(24)?;
            }
            Some((order, bits.ue()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_between_start_codes_of_three_and_four_bytes() {
        let data = [0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 0x88];
        let found: Vec<&[u8]> = units(&data).collect();
        assert_eq!(found, [&[0x67, 1][..], &[0x68, 2], &[0x65, 0x88]]);
        assert_eq!(units(&[0, 0, 1]).count(), 0);
        assert_eq!(units(b"no start code").count(), 0);
    }

    #[test]
    fn a_recovery_point_makes_an_intra_picture_a_key() {
        let unit = [0, 0, 1, 0x06, 6, 1, 0xc4, 0x80, 0, 0, 1, 0x41, 0x88, 0x80];
        let picture = look(Codec::H264, &unit, &mut ParameterSets::default());
        assert!(picture.key() && !picture.random_access);
    }
}
