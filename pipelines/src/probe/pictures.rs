//! Pictures to prove with, and how like two of them are.

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use headwater_protocol::{Code, Fault};

use crate::fit::Size;
use crate::tone::bt709;

pub(super) fn info(size: Size) -> Result<gst_video::VideoInfo, Fault> {
    gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, size.width, size.height)
        .fps(gst::Fraction::new(30, 1))
        // Of any size: an encoder that guesses by it is found out.
        .colorimetry(&bt709())
        .build()
        .map_err(|error| Fault::new(Code::PipelineFailed, error.to_string()))
}

/// The brightness of a picture, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Luma {
    pub size: Size,
    pub bytes: Vec<u8>,
}

/// A moving gradient with a fine pattern on it: neither still nor noise.
fn drawn_luma(number: u64, size: Size) -> Vec<u8> {
    let (width, height) = (size.width as usize, size.height as usize);
    let mut bytes = vec![0_u8; width * height];
    for (row, line) in bytes.chunks_exact_mut(width).enumerate() {
        for (column, pixel) in line.iter_mut().enumerate() {
            *pixel = (row / 2 + column / 3 + number as usize * 4) as u8 ^ (column as u8 & 7);
        }
    }
    bytes
}

/// The picture `number` of those that encoders and scalers are fed with, in I420.
pub(super) fn draw(number: u64, size: Size) -> gst::Buffer {
    let mut bytes = drawn_luma(number, size);
    bytes.resize(bytes.len() * 3 / 2, 128);
    let mut buffer = gst::Buffer::from_slice(bytes);
    if let Some(fresh) = buffer.get_mut() {
        fresh.set_pts(gst::ClockTime::from_nseconds(number * 1_000_000_000 / 30));
        fresh.set_duration(gst::ClockTime::from_nseconds(1_000_000_000 / 30));
    }
    buffer
}

impl Luma {
    pub(super) fn drawn(number: u64, size: Size) -> Self {
        Self { size, bytes: drawn_luma(number, size) }
    }

    /// None where the processor cannot read the picture, or its first plane is not 8-bit brightness.
    pub(super) fn of(sample: &gst::Sample) -> Option<Self> {
        let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
        let planar = matches!(
            info.format(),
            gst_video::VideoFormat::I420 | gst_video::VideoFormat::Yv12 | gst_video::VideoFormat::Nv12
        );
        if !planar {
            return None;
        }
        Self::read(sample.buffer()?, &info)
    }

    pub(super) fn read(buffer: &gst::BufferRef, info: &gst_video::VideoInfo) -> Option<Self> {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).ok()?;
        let stride = usize::try_from(frame.plane_stride()[0]).ok()?;
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let rows = frame.plane_data(0).ok()?.chunks(stride).take(height);
        let bytes: Vec<u8> = rows.filter_map(|row| row.get(..width)).flatten().copied().collect();
        (bytes.len() == width * height)
            .then_some(Self { size: Size::new(frame.width(), frame.height()), bytes })
    }
}

/// Likeness of pictures in decibels; infinite for equal ones, 0 for lists of different lengths or sizes.
pub(super) fn psnr(ours: &[Luma], theirs: &[Luma]) -> f64 {
    if ours.len() != theirs.len() || ours.iter().zip(theirs).any(|(a, b)| a.size != b.size) {
        return 0.0;
    }
    let difference = |(a, b): (&u8, &u8)| u64::from(a.abs_diff(*b)).pow(2);
    let pairs = ours.iter().zip(theirs);
    let (mut error, mut pixels) = (0_u64, 0_u64);
    for (a, b) in pairs {
        error += a.bytes.iter().zip(&b.bytes).map(difference).sum::<u64>();
        pixels += a.bytes.len() as u64;
    }
    10.0 * (255.0 * 255.0 * pixels.max(1) as f64 / error as f64).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_is_infinite_for_the_same_and_low_for_another_picture() {
        let size = Size::new(64, 36);
        let (one, other) = (Luma::drawn(0, size), Luma::drawn(9, size));
        assert!(psnr(std::slice::from_ref(&one), std::slice::from_ref(&one)).is_infinite());
        assert!(psnr(std::slice::from_ref(&one), std::slice::from_ref(&other)) < 20.0);
        assert!(psnr(&[one.clone(), other.clone()], &[one]) < 1.0);
    }
}
