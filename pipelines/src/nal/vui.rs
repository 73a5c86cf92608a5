//! Colours in the video usability information (VUI) of a sequence parameter set, and the way there.

use super::bits::Bits;

/// What a stream says of its colours, in the numbers of ISO/IEC 23091-2, by which a player shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colours {
    /// Primaries, transfer and matrix; [`UNSAID`] where the stream leaves them open.
    pub description: [u8; 3],
    pub full_range: bool,
}

/// A colour that players have to guess.
pub const UNSAID: u8 = 2;

impl Default for Colours {
    /// Of a stream that says nothing.
    fn default() -> Self {
        Self { description: [UNSAID; 3], full_range: false }
    }
}

/// Reads the beginning of the VUI, which H.264 and HEVC have alike, up to the colours.
pub(super) fn colours(bits: &mut Bits<'_>) -> Option<Colours> {
    let mut colours = Colours::default();
    // The shape of a sample.
    if bits.flag()? && bits.bits(8)? == 255 {
        bits.skip(32)?;
    }
    if bits.flag()? {
        bits.skip(1)?;
    }
    if bits.flag()? {
        bits.skip(3)?;
        colours.full_range = bits.flag()?;
        if bits.flag()? {
            for one in &mut colours.description {
                *one = u8::try_from(bits.bits(8)?).ok()?;
            }
        }
    }
    Some(colours)
}

/// From behind the bit depths of an HEVC sequence parameter set to its VUI (ITU-T H.265, 7.3.2.2.1); None where it has
/// none. `layers` is `sps_max_sub_layers_minus1`.
pub(super) fn skip_to_hevc_vui(bits: &mut Bits<'_>, layers: u32) -> Option<()> {
    let order_bits = bits.ue()?.checked_add(4).filter(|bits| *bits <= 16)?;
    let each_layer = bits.flag()?;
    // Three numbers of each layer's buffer, six of the sizes of blocks.
    let numbers = 3 * (if each_layer { layers + 1 } else { 1 }) + 6;
    for _ in 0..numbers {
        bits.ue()?;
    }
    if bits.flag()? && bits.flag()? {
        skip_scaling_lists(bits)?;
    }
    bits.skip(2)?;
    if bits.flag()? {
        // Samples without prediction.
        bits.skip(8)?;
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
    }
    let mut last = 0;
    for at in 0..bits.ue().filter(|count| *count <= 64)? {
        last = skip_reference_set(bits, at, last)?;
    }
    if bits.flag()? {
        for _ in 0..bits.ue().filter(|count| *count <= 32)? {
            bits.skip(order_bits + 1)?;
        }
    }
    bits.skip(2)?;
    bits.flag()?.then_some(())
}

/// How many pictures the set has, for the next set may be told by its difference. `last`: those of the set before.
fn skip_reference_set(bits: &mut Bits<'_>, at: u32, last: u32) -> Option<u32> {
    if at > 0 && bits.flag()? {
        bits.skip(1)?;
        bits.ue()?;
        let mut count = 0;
        for _ in 0..=last {
            let used = bits.flag()?;
            count += u32::from(used || bits.flag()?);
        }
        return Some(count);
    }
    let (before, after) = (bits.ue()?, bits.ue()?);
    let count = before.checked_add(after).filter(|count| *count <= 32)?;
    for _ in 0..count {
        bits.ue()?;
        bits.skip(1)?;
    }
    Some(count)
}

fn skip_scaling_lists(bits: &mut Bits<'_>) -> Option<()> {
    for size in 0..4_u32 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.flag()? {
                bits.ue()?;
                continue;
            }
            let numbers = (16 << (2 * size)).min(64) + u32::from(size > 1);
            for _ in 0..numbers {
                bits.se()?;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use headwater_protocol::Codec;

    use super::super::parse_sps;
    use super::*;

    fn said(codec: Codec, sps: &[u8]) -> Colours {
        parse_sps(codec, sps).unwrap().colours
    }

    #[test]
    fn an_sps_of_h264_says_its_colours_or_leaves_them_open() {
        // Of x264, in BT.709 and without a word.
        let bt709 = [
            0x67, 0x64, 0x00, 0x0d, 0xac, 0xd9, 0x41, 0x41, 0x9f, 0x9f, 0x01, 0x6a, 0x02, 0x02, 0x02, 0x80,
            0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x1e, 0x07, 0x8a, 0x14, 0xcb,
        ];
        assert_eq!(said(Codec::H264, &bt709), Colours { description: [1; 3], full_range: false });
        let open = [
            0x67, 0x64, 0x00, 0x0d, 0xac, 0xd9, 0x41, 0x41, 0x9f, 0x9f, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00,
            0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x42, 0x99, 0x60,
        ];
        assert_eq!(said(Codec::H264, &open), Colours::default());
    }

    #[test]
    fn an_sps_of_hevc_says_its_colours_behind_all_that_may_stand_before_them() {
        // Of x265: BT.601's matrix alone, in full range, with 4:2:2 in ten bits and scaling lists.
        let made = [
            0x42, 0x01, 0x01, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x9d, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00,
            0x3c, 0xb0, 0x0a, 0x08, 0x0b, 0x9f, 0x2b, 0x65, 0x95, 0x9a, 0x49, 0x39, 0x5e, 0x02, 0xdc, 0x08,
            0x08, 0x18, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x01, 0xe0, 0x80,
        ];
        assert_eq!(said(Codec::Hevc, &made), Colours { description: [UNSAID, UNSAID, 6], full_range: true });
        // Written by hand and read alike by ffmpeg: scaling lists of its own, PCM, three sets of references of which two
        // are told by differences, long-term ones, and BT.2020 with PQ in full range.
        let rich = [
            0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03,
            0x00, 0x3c, 0xa0, 0x0a, 0x08, 0x0b, 0x9f, 0x79, 0x65, 0x79, 0x24, 0x4b, 0xb4, 0xd3, 0x4d, 0x34,
            0xd3, 0x4d, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x4e, 0xd3, 0x4d, 0x34, 0xd3, 0x4d, 0x34, 0xd3,
            0x4d, 0x34, 0xd3, 0x4d, 0x34, 0xd3, 0x4d, 0x34, 0xd3, 0x4d, 0x34, 0xd3, 0x4d, 0x34, 0xd3, 0x4d,
            0x34, 0x44, 0x44, 0x45, 0xdd, 0xea, 0x46, 0xb4, 0x7f, 0x4c, 0xa3, 0xb0, 0x58, 0x4b, 0xc0, 0x5b,
            0x84, 0x88, 0x04, 0x80, 0x40,
        ];
        assert_eq!(said(Codec::Hevc, &rich), Colours { description: [9, 16, 9], full_range: true });
    }
}
