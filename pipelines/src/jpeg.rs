//! JPEG files: where one ends, and the colours that its numbers stand for.

use gstreamer_video as gst_video;

/// The JPEG files that lie one after the other in `bytes`, by their markers (ITU-T T.81, annex B). What is broken off or
/// is no JPEG is left out.
pub fn pictures(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some(length) = picture(bytes) {
        let (one, rest) = bytes.split_at(length);
        found.push(one);
        bytes = rest;
    }
    found
}

/// Length of the JPEG file at the start of `bytes`; None where it is not whole.
pub fn picture(bytes: &[u8]) -> Option<usize> {
    const START: u8 = 0xd8;
    const END: u8 = 0xd9;
    const SCAN: u8 = 0xda;
    if *bytes.first()? != 0xff || *bytes.get(1)? != START {
        return None;
    }
    let mut at = 2;
    loop {
        if *bytes.get(at)? != 0xff {
            return None;
        }
        let marker = *bytes.get(at + 1)?;
        at += 2;
        match marker {
            END => return Some(at),
            // Fill bytes.
            0xff => at -= 1,
            _ => {
                at += usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
                if marker == SCAN {
                    // Coded data: an 0xff in it is followed by zero or is a restart marker.
                    at += memchr::memchr_iter(0xff, bytes.get(at..)?)
                        .find(|in_scan| !matches!(bytes.get(at + in_scan + 1), Some(0 | 0xd0..=0xd7)))?;
                }
            }
        }
    }
}

/// Y'CbCr of one colour space as JFIF's, which is full range and BT.601's matrix (JFIF 1.02): encoders take it for
/// granted, and browsers too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ToJfif {
    /// Of luma without black, and black.
    luma: (f32, f32),
    /// What Cb and Cr add to luma.
    to_luma: [f32; 2],
    /// Of Cb and Cr: what each adds to the new Cb and to the new Cr.
    chroma: [[f32; 2]; 2],
}

impl ToJfif {
    pub(crate) fn new(from: &gst_video::VideoColorimetry) -> Self {
        const KR: f64 = 0.299;
        const KB: f64 = 0.114;
        let full = from.range() == gst_video::VideoColorRange::Range0_255;
        let (luma, chroma, black) = if full { (1.0, 1.0, 0.0) } else { (255.0 / 219.0, 255.0 / 224.0, 16.0) };
        let (kr, kb) = from.matrix().kr_kb().unwrap_or((KR, KB));
        // The difference of each primary to the old luma, by Cb and Cr; from that, the new luma's to the old one.
        let (red, blue) = ([0.0, 2.0 * (1.0 - kr)], [2.0 * (1.0 - kb), 0.0]);
        let by = |at: usize| {
            let green = -(kr * red[at] + kb * blue[at]) / (1.0 - kr - kb);
            KR * red[at] + (1.0 - KR - KB) * green + KB * blue[at]
        };
        let more = [by(0), by(1)];
        let scaled = |value: f64| (value * chroma) as f32;
        Self {
            luma: (luma as f32, black),
            to_luma: more.map(scaled),
            chroma: [
                [0, 1].map(|at| scaled((blue[at] - more[at]) / (2.0 * (1.0 - KB)))),
                [0, 1].map(|at| scaled((red[at] - more[at]) / (2.0 * (1.0 - KR)))),
            ],
        }
    }

    /// Two rows of luma and one of each chroma, in place.
    pub(crate) fn rows(&self, luma: [&mut [u8]; 2], b: &mut [u8], r: &mut [u8]) {
        let [top, bottom] = luma;
        let pairs = top.chunks_mut(2).zip(bottom.chunks_mut(2));
        for ((top, bottom), (b, r)) in pairs.zip(b.iter_mut().zip(r)) {
            let old = [f32::from(*b) - 128.0, f32::from(*r) - 128.0];
            let sum = |shares: [f32; 2]| shares[0] * old[0] + shares[1] * old[1];
            let (factor, black) = self.luma;
            let more = sum(self.to_luma) - black * factor;
            for y in top.iter_mut().chain(bottom) {
                // A cast to a byte stops at its ends.
                *y = (f32::from(*y) * factor + more).round() as u8;
            }
            *b = (128.0 + sum(self.chroma[0])).round() as u8;
            *r = (128.0 + sum(self.chroma[1])).round() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(space: &str, [y, b, r]: [u8; 3]) -> [u8; 3] {
        let map = ToJfif::new(&space.parse().unwrap());
        let (mut top, mut bottom, mut b, mut r) = ([y; 2], [y; 2], [b], [r]);
        map.rows([&mut top, &mut bottom], &mut b, &mut r);
        assert_eq!(top, bottom);
        [top[0], b[0], r[0]]
    }

    #[test]
    fn colours_become_jfifs() {
        gstreamer::init().unwrap();
        assert_eq!(converted("bt709", [16, 128, 128]), [0, 128, 128]);
        assert_eq!(converted("bt709", [235, 128, 128]), [255, 128, 128]);
        // Red of 192, 32, 64: in BT.709 as ITU-R BT.709-6 has it, in JFIF as JFIF 1.02 has it.
        assert_eq!(converted("bt709", [75, 126, 197]), [84, 117, 205]);
        assert_eq!(converted("1:4:7:1", [83, 117, 205]), [83, 117, 205], "JFIF's own stay");
        assert_eq!(converted("bt601", [235, 128, 128]), [255, 128, 128]);
    }

    #[test]
    fn files_in_a_row_are_told_apart() {
        let one = [0xff, 0xd8, 0xff, 0xda, 0, 2, 1, 0xff, 0, 0xff, 0xd0, 7, 0xff, 0xd9];
        let two = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, 0xd9, 0xff, 0xff, 0xda, 0, 2, 9, 0xff, 0xd9];
        let both = [one.as_slice(), &two].concat();
        assert_eq!(pictures(&both), [one.as_slice(), &two]);
        assert_eq!(pictures(&both[..both.len() - 1]), [one.as_slice()], "the second is not whole");
        for cut in 0..two.len() {
            assert_eq!(picture(&two[..cut]), None);
        }
        assert_eq!(pictures(b"GIF89a"), [[0_u8; 0]; 0]);
    }
}
