//! VP8 and VP9: what a frame's header says.

use crate::nal::bits::Bits;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Frame {
    pub(crate) key: bool,
    pub(crate) shown: bool,
    /// Of a keyframe.
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) profile: u8,
    pub(crate) depth: u8,
    /// As `vpcC` counts: 1 is 4:2:0 with chroma beside luma, 2 is 4:2:2, 3 is 4:4:4.
    pub(crate) chroma: u8,
    pub(crate) full_range: bool,
}

pub(crate) fn look_vp8(data: &[u8]) -> Frame {
    let Some(&tag) = data.first() else { return Frame::default() };
    let key = tag & 1 == 0;
    let format = match data.get(3..10) {
        Some(&[0x9d, 0x01, 0x2a, w, wide, h, high]) if key => Some(Format {
            // Two bits of scaling stand above each.
            width: u32::from(wide & 0x3f) << 8 | u32::from(w),
            height: u32::from(high & 0x3f) << 8 | u32::from(h),
            profile: tag >> 1 & 7,
            depth: 8,
            chroma: 1,
            full_range: false,
        }),
        _ => None,
    };
    Frame { key: key && format.is_some(), shown: tag & 0x10 != 0, format }
}

/// A superframe is as its first frame, and shown if any of its frames is.
pub(crate) fn look_vp9(data: &[u8]) -> Frame {
    let mut rest = data;
    let mut all = Frame::default();
    for (number, size) in superframe(data).into_iter().flatten().enumerate() {
        let Some((frame, after)) = rest.split_at_checked(size) else { break };
        rest = after;
        let frame = vp9_header(frame).unwrap_or_default();
        all = if number == 0 { frame } else { Frame { shown: all.shown || frame.shown, ..all } };
    }
    if rest.len() == data.len() { vp9_header(data).unwrap_or_default() } else { all }
}

/// Sizes of a superframe's frames, from the index at its end.
fn superframe(data: &[u8]) -> Option<impl Iterator<Item = usize>> {
    let marker = *data.last()?;
    if marker & 0xe0 != 0xc0 {
        return None;
    }
    let bytes = usize::from(marker >> 3 & 3) + 1;
    let frames = usize::from(marker & 7) + 1;
    let index = data.get(data.len().checked_sub(2 + bytes * frames)?..data.len() - 1)?;
    let (&first, sizes) = index.split_first()?;
    (first == marker).then(|| {
        sizes
            .chunks_exact(bytes)
            .map(|size| size.iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte)))
    })
}

fn vp9_header(data: &[u8]) -> Option<Frame> {
    let mut bits = Bits::new(data);
    if bits.bits(2)? != 2 {
        return None;
    }
    let profile = bits.bits(1)? | bits.bits(1)? << 1;
    if profile == 3 {
        bits.skip(1)?;
    }
    if bits.flag()? {
        // Shows a frame that was decoded before.
        return Some(Frame { key: false, shown: true, format: None });
    }
    let key = !bits.flag()?;
    let shown = bits.flag()?;
    bits.skip(1)?;
    if !key {
        return Some(Frame { key, shown, format: None });
    }
    if bits.bits(24)? != 0x49_8342 {
        return None;
    }
    let depth = if profile < 2 {
        8
    } else if bits.flag()? {
        12
    } else {
        10
    };
    const RGB: u32 = 7;
    let (mut chroma, mut full_range) = (1, true);
    if bits.bits(3)? == RGB {
        chroma = 3;
        bits.skip(u32::from(profile % 2 == 1))?;
    } else {
        full_range = bits.flag()?;
        if profile % 2 == 1 {
            chroma = match (bits.flag()?, bits.flag()?) {
                (false, _) => 3,
                (true, false) => 2,
                (true, true) => 1,
            };
            bits.skip(1)?;
        }
    }
    let (width, height) = (bits.bits(16)? + 1, bits.bits(16)? + 1);
    let format = Format { width, height, profile: profile as u8, depth, chroma, full_range };
    Some(Frame { key, shown, format: Some(format) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vp8_header_tells_key_size_and_whether_it_is_shown() {
        let key = [0x10, 2, 0, 0x9d, 1, 0x2a, 0x40, 1, 0xb4, 0];
        let frame = look_vp8(&key);
        let format = frame.format.unwrap();
        assert!(frame.key && frame.shown);
        assert_eq!((format.width, format.height), (320, 180));
        assert_eq!(look_vp8(&[0x01, 2, 0]), Frame { key: false, shown: false, format: None });
        assert_eq!(look_vp8(&[]), Frame::default());
    }

    #[test]
    fn a_superframe_is_shown_if_one_of_its_frames_is() {
        let (hidden, shown) = ([0x84, 0xaa], [0x86]);
        assert!(!look_vp9(&hidden).shown && look_vp9(&shown).shown);
        let both = [&hidden[..], &shown, &[0xc1, 2, 1, 0xc1]].concat();
        assert!(look_vp9(&both).shown && !look_vp9(&both).key);
        assert_eq!(look_vp9(&[0xc9; 30]), Frame::default(), "an index that does not fit");
    }
}
