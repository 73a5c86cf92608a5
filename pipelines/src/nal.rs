//! H.264 and HEVC at the level of NAL units: where they begin, what they are, what a parameter set says.
//!
//! ```text
//! 00 00 01 │ header │ payload … │ 00 00 01 │ header │ …
//!          └────── one NAL unit ─┘
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use headwater_protocol::Codec;
use memchr::memmem;

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
        Codec::H264 | Codec::Av1 | Codec::Vp9 | Codec::Vp8 => h264_kind(head, nal),
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

fn is_sps(codec: Codec, nal: &[u8]) -> bool {
    match codec {
        Codec::Hevc => nal[0] >> 1 & 0x3f == 33,
        Codec::H264 | Codec::Av1 | Codec::Vp9 | Codec::Vp8 => nal[0] & 0x1f == 7,
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
}

impl ParameterSets {
    /// More than any real stream has; a stream that goes on making ids up is not remembered further.
    const MAX: usize = 64;

    pub fn put(&mut self, codec: Codec, nal: &[u8]) {
        let Some(key) = set_key(codec, nal) else { return };
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
        Codec::H264 | Codec::Av1 | Codec::Vp9 | Codec::Vp8 => {
            let order = (nal.first()? & 0x1f).checked_sub(6)?;
            let mut bits = Bits::new(nal.get(1..)?);
            if order == 1 {
                bits.skip(24)?;
            }
            Some((order, bits.ue()?))
        }
    }
}

/// What a sequence parameter set says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sps {
    pub width: u32,
    pub height: u32,
    pub chroma_format: u8,
    pub luma_bits: u8,
    pub chroma_bits: u8,
    /// Length of a frame in ticks of 90 kHz, where the timing information has it.
    pub frame_ticks: Option<u32>,
    /// Temporal layers, in HEVC.
    pub layers: u8,
    /// HEVC: the 12 bytes of profile, tier and level as `hvcC` wants them.
    pub profile_tier_level: [u8; 12],
}

pub fn parse_sps(codec: Codec, nal: &[u8]) -> Option<Sps> {
    match codec {
        Codec::Hevc => parse_hevc_sps(&unescape(nal.get(2..)?)),
        Codec::H264 | Codec::Av1 | Codec::Vp9 | Codec::Vp8 => parse_h264_sps(&unescape(nal.get(1..)?)),
    }
}

fn parse_h264_sps(payload: &[u8]) -> Option<Sps> {
    let mut bits = Bits::new(payload);
    let profile = bits.bits(8)?;
    bits.skip(16)?;
    bits.ue()?;
    let mut sps = Sps { chroma_format: 1, luma_bits: 8, chroma_bits: 8, ..Sps::default() };
    let mut separate_planes = false;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        sps.chroma_format = u8::try_from(bits.ue()?).ok().filter(|c| *c <= 3)?;
        separate_planes = sps.chroma_format == 3 && bits.flag()?;
        sps.luma_bits = 8 + u8::try_from(bits.ue()?).ok().filter(|d| *d <= 6)?;
        sps.chroma_bits = 8 + u8::try_from(bits.ue()?).ok().filter(|d| *d <= 6)?;
        bits.skip(1)?;
        if bits.flag()? {
            for list in 0..if sps.chroma_format == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue()?;
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.skip(1)?;
            bits.ue()?;
            bits.ue()?;
            for _ in 0..bits.ue()?.min(255) {
                bits.ue()?;
            }
        }
        _ => {}
    }
    bits.ue()?;
    bits.skip(1)?;
    let width = bits.ue()?.checked_add(1)?.checked_mul(16)?;
    let map_height = bits.ue()?.checked_add(1)?.checked_mul(16)?;
    let frame_only = bits.flag()?;
    let height = map_height.checked_mul(if frame_only { 1 } else { 2 })?;
    if !frame_only {
        bits.skip(1)?;
    }
    bits.skip(1)?;
    let chroma = if separate_planes { 0 } else { sps.chroma_format };
    let unit_x = if matches!(chroma, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma == 1 { 2 } else { 1 } * if frame_only { 1 } else { 2 };
    (sps.width, sps.height) = crop(&mut bits, width, height, unit_x, unit_y)?;
    // Everything after is a bonus: a strange VUI does not make the size unknown.
    sps.frame_ticks = h264_vui_frame_ticks(&mut bits);
    Some(sps)
}

fn crop(bits: &mut Bits<'_>, width: u32, height: u32, unit_x: u32, unit_y: u32) -> Option<(u32, u32)> {
    if !bits.flag()? {
        return Some((width, height));
    }
    let (left, right, top, bottom) = (bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?);
    Some((
        width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?,
        height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?,
    ))
}

fn h264_vui_frame_ticks(bits: &mut Bits<'_>) -> Option<u32> {
    if !bits.flag()? {
        return None;
    }
    if bits.flag()? && bits.bits(8)? == 255 {
        bits.skip(32)?;
    }
    if bits.flag()? {
        bits.skip(1)?;
    }
    if bits.flag()? {
        bits.skip(4)?;
        if bits.flag()? {
            bits.skip(24)?;
        }
    }
    if bits.flag()? {
        bits.ue()?;
        bits.ue()?;
    }
    if !bits.flag()? {
        return None;
    }
    let (num, den) = (bits.bits(32)?, bits.bits(32)?);
    // The scale counts fields: two to a frame.
    let ticks = 2 * 90_000 * u64::from(num) / u64::from(den).max(1);
    u32::try_from(ticks).ok().filter(|t| (90..=900_000).contains(t))
}

fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + i64::from(bits.se()?) + 256).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

fn parse_hevc_sps(payload: &[u8]) -> Option<Sps> {
    let mut bits = Bits::new(payload);
    bits.skip(4)?;
    let layers = bits.bits(3)?;
    bits.skip(1)?;
    let mut sps = Sps { layers: u8::try_from(layers + 1).ok()?, ..Sps::default() };
    sps.profile_tier_level.copy_from_slice(payload.get(1..13)?);
    skip_profile_tier_level(&mut bits, layers)?;
    bits.ue()?;
    sps.chroma_format = u8::try_from(bits.ue()?).ok().filter(|c| *c <= 3)?;
    let separate_planes = sps.chroma_format == 3 && bits.flag()?;
    let (width, height) = (bits.ue()?, bits.ue()?);
    let chroma = if separate_planes { 0 } else { sps.chroma_format };
    let unit_x = if matches!(chroma, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma == 1 { 2 } else { 1 };
    (sps.width, sps.height) = crop(&mut bits, width, height, unit_x, unit_y)?;
    sps.luma_bits = 8 + u8::try_from(bits.ue()?).ok().filter(|d| *d <= 8)?;
    sps.chroma_bits = 8 + u8::try_from(bits.ue()?).ok().filter(|d| *d <= 8)?;
    Some(sps)
}

/// `layers` is `sps_max_sub_layers_minus1`.
fn skip_profile_tier_level(bits: &mut Bits<'_>, layers: u32) -> Option<()> {
    bits.skip(96)?;
    if layers == 0 {
        return Some(());
    }
    let mut present = [(false, false); 8];
    for slot in present.iter_mut().take(layers as usize) {
        *slot = (bits.flag()?, bits.flag()?);
    }
    bits.skip(2 * (8 - layers))?;
    for (profile, level) in present.into_iter().take(layers as usize) {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(())
}

/// Removes emulation prevention: 00 00 03 becomes 00 00.
pub fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut rest = nal;
    while let Some(at) = memmem::find(rest, b"\0\0\x03") {
        out.extend_from_slice(&rest[..at + 2]);
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    out
}

/// Reads bits from the most significant on.
#[derive(Debug)]
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    fn flag(&mut self) -> Option<bool> {
        let byte = *self.data.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// At most 32 bits.
    fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        self.at = self.at.checked_add(count as usize)?;
        (self.at <= self.data.len() * 8).then_some(())
    }

    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.bits(zeros)?)
    }

    fn se(&mut self) -> Option<i32> {
        let value = i64::from(self.ue()?);
        i32::try_from(if value % 2 == 1 { (value + 1) / 2 } else { -value / 2 }).ok()
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
    fn emulation_prevention_is_removed() {
        assert_eq!(unescape(&[1, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3]), [1, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn an_sps_of_x264_gives_size_and_rate() {
        // 320x240, High, 25 fps.
        let sps = [
            0x67, 0x64, 0x00, 0x0D, 0xAC, 0xD9, 0x41, 0x41, 0xFA, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00,
            0x00, 0x03, 0x03, 0x20, 0xF1, 0x42, 0x99, 0x60,
        ];
        let sps = parse_sps(Codec::H264, &sps).unwrap();
        assert_eq!((sps.width, sps.height, sps.frame_ticks), (320, 240, Some(3600)));
        assert_eq!((sps.chroma_format, sps.luma_bits), (1, 8));
    }

    #[test]
    fn golomb_codes_are_read_and_endless_zeros_refused() {
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0000]);
        assert_eq!([bits.ue(), bits.ue(), bits.ue(), bits.ue()], [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(Bits::new(&[0; 9]).ue(), None);
    }

    #[test]
    fn a_recovery_point_makes_an_intra_picture_a_key() {
        let unit = [0, 0, 1, 0x06, 6, 1, 0xc4, 0x80, 0, 0, 1, 0x41, 0x88, 0x80];
        let picture = look(Codec::H264, &unit, &mut ParameterSets::default());
        assert!(picture.key() && !picture.random_access);
    }
}
