//! What sequence parameter sets of H.264 and HEVC say.

use headwater_protocol::Codec;

use super::bits::{Bits, unescape};
use super::vui::{self, Colours};

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
    pub colours: Colours,
    /// H.264: where pictures may be single fields.
    pub field_coding: Option<FieldCoding>,
    /// Temporal layers, in HEVC.
    pub layers: u8,
    /// HEVC: the 12 bytes of profile, tier and level as `hvcC` wants them.
    pub profile_tier_level: [u8; 12],
}

/// How a slice's header tells that it is one of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldCoding {
    pub frame_num_bits: u32,
    pub separate_planes: bool,
}

pub fn parse_sps(codec: Codec, nal: &[u8]) -> Option<Sps> {
    match codec {
        Codec::Hevc => parse_hevc_sps(&unescape(nal.get(2..)?)),
        Codec::H264 => parse_h264_sps(&unescape(nal.get(1..)?)),
        Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg | Codec::Fwht => None,
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
    let frame_num_bits = bits.ue()?.checked_add(4).filter(|bits| *bits <= 16)?;
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
        sps.field_coding = Some(FieldCoding { frame_num_bits, separate_planes });
        bits.skip(1)?;
    }
    bits.skip(1)?;
    let chroma = if separate_planes { 0 } else { sps.chroma_format };
    let unit_x = if matches!(chroma, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma == 1 { 2 } else { 1 } * if frame_only { 1 } else { 2 };
    (sps.width, sps.height) = crop(&mut bits, width, height, unit_x, unit_y)?;
    // Everything after is a bonus: a strange VUI does not make the size unknown.
    h264_vui(&mut bits, &mut sps);
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

fn h264_vui(bits: &mut Bits<'_>, sps: &mut Sps) -> Option<()> {
    if !bits.flag()? {
        return None;
    }
    sps.colours = vui::colours(bits)?;
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
    sps.frame_ticks = u32::try_from(ticks).ok().filter(|t| (90..=900_000).contains(t));
    Some(())
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
    let colours = vui::skip_to_hevc_vui(&mut bits, layers).and_then(|()| vui::colours(&mut bits));
    sps.colours = colours.unwrap_or_default();
    Some(sps)
}

/// `layers` is `sps_max_sub_layers_minus1`.
pub(super) fn skip_profile_tier_level(bits: &mut Bits<'_>, layers: u32) -> Option<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
