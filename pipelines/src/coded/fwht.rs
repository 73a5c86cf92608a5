//! FWHT, the codec of the Linux kernel's virtual device: what a frame's header says.
//!
//! ```text
//! magic, 8 │ version │ width │ height │ flags │ colours, 16 │ size │ as many bytes as that
//! ```
//!
//! Numbers have four bytes, the first one is the highest. From `drivers/media/test-drivers/vicodec` of the kernel:
//! `codec-fwht.h`, and `is_header_valid` of `vicodec-core.c`, which decides what the device takes.

/// Does not occur in coded data; planes that were left as they are may have it.
pub(crate) const MAGIC: &[u8] = &[0x4f, 0x4f, 0x4f, 0x4f, 0xff, 0xff, 0xff, 0xff];

/// Bytes of a header.
pub(crate) const HEADER: usize = 44;

const NEWEST_VERSION: u32 = 3;
/// `V4L2_FWHT_FL_I_FRAME`
const INTRA: u32 = 1 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) key: bool,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes, with the header.
    pub(crate) len: usize,
}

/// None where this is no header, or not one of a frame that the device would take.
pub(crate) fn look(data: &[u8]) -> Option<Frame> {
    let header = data.get(..HEADER)?;
    if !header.starts_with(MAGIC) {
        return None;
    }
    let number = |at: usize| header[at..].first_chunk().copied().map_or(0, u32::from_be_bytes);
    let (version, width, height, flags, size) = (number(8), number(12), number(16), number(20), number(40));
    let known = (1..=NEWEST_VERSION).contains(&version)
        && (640..=4096).contains(&width)
        && (360..=2160).contains(&height);
    // Four planes as they are, of whole blocks, are the most that a frame can have.
    if !known || size > 4 * width.next_multiple_of(16) * height.next_multiple_of(16) {
        return None;
    }
    let len = HEADER + usize::try_from(size).ok()?;
    Some(Frame { key: flags & INTRA != 0, width, height, len })
}

/// A frame with `size` bytes that are nothing, for tests of what goes around it.
#[cfg(test)]
pub(crate) fn made(key: bool, size: u32) -> Vec<u8> {
    let flags = 0x000a_0000 | if key { INTRA } else { 0 };
    let numbers = [3, 1280, 720, flags, 3, 0, 0, 0, size];
    let numbers = numbers.iter().flat_map(|number| number.to_be_bytes());
    MAGIC.iter().copied().chain(numbers).chain(std::iter::repeat_n(0x11, size as usize)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_gives_size_length_and_whether_it_is_a_keyframe() {
        let frame = look(&made(true, 1000)).unwrap();
        assert_eq!(frame, Frame { key: true, width: 1280, height: 720, len: 1044 });
        assert!(!look(&made(false, 0)).unwrap().key);
    }

    #[test]
    fn what_the_device_would_not_take_is_no_frame() {
        let whole = made(true, 10);
        for len in 0..HEADER {
            assert_eq!(look(&whole[..len]), None, "{len} bytes");
        }
        // Magic; version 0 and 4; too narrow, too wide; too low, too high; more data than any frame has.
        let changes: [(usize, u32); 8] = [
            (4, 0x4f4f_4f4f),
            (8, 0),
            (8, 4),
            (12, 632),
            (12, u32::MAX),
            (16, 352),
            (16, 2168),
            (40, 4 * 1280 * 720 + 1),
        ];
        for (at, number) in changes {
            let mut bad = whole.clone();
            bad[at..at + 4].copy_from_slice(&number.to_be_bytes());
            assert_eq!(look(&bad), None, "{number} at {at}");
        }
    }
}
