//! A segment to measure with, made on the spot: no file, no network.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use gstreamer as gst;
use gstreamer_video as gst_video;

use headwater_protocol::{
    Audio, BitsPerSecond, Code, Codec, Container, Fault, FrameRate, Gop, Ladder, Pixels, Profile, Rate,
    Rendition, RenditionName,
};

use crate::alone::drive;
use crate::board::Board;
use crate::es::{CLOCK, Frame, Rotation, Ticks};
use crate::fit::Size;
use crate::graph::{self, Faults};
use crate::machine::Machine;
use crate::mux::{MuxVideo, Muxer};
use crate::plan::{self, DecodePlan};
use crate::stage::lock;

/// 1080p at 30 frames and 6 Mb a second, as in the published comparison.
const SIZE: Size = Size::new(1920, 1080);
const FPS: u32 = 30;
const BITS: u32 = 6_000_000;

fn wrong(error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::PipelineFailed, format!("making the clip: {error}"))
}

/// H.264 in MPEG-TS with `frames` frames, by the machine's own encoder.
pub(crate) fn make(board: &Board, machine: &Machine, frames: u64) -> Result<Bytes, Fault> {
    let rate = FrameRate::new(FPS, 1).map_err(wrong)?;
    let rendition = Rendition {
        name: RenditionName::new("clip").map_err(wrong)?,
        codec: Codec::H264,
        width: Pixels(SIZE.width),
        height: Pixels(SIZE.height),
        fps: None,
        rate: Rate::Bitrate(BitsPerSecond(BITS)),
        gop: Gop::Segment,
        profile: Profile::Auto,
        container: Container::Ts,
        audio: Audio::Copy,
        tiles: None,
    };
    let ladder = Ladder::new(vec![rendition]).map_err(wrong)?;
    let facts = plan::Picture::plain(SIZE, Some(rate));
    let plan = plan::outputs(board, machine, &ladder, &DecodePlan::nothing(), &facts)?;
    let rung = plan.rungs.first().ok_or_else(|| wrong("the plan is empty"))?;
    let input = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, SIZE.width, SIZE.height)
        .fps(gst::Fraction::new(FPS.cast_signed(), 1))
        .build()
        .map_err(wrong)?;
    let faults = Arc::new(Faults::default());
    let coded: Arc<Mutex<Vec<(bool, Bytes)>>> = Arc::default();
    let keep = Arc::clone(&coded);
    let each = move |sample: gst::Sample| {
        let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
        let data = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        lock(&keep).push((key, Bytes::copy_from_slice(&data)));
        Ok(())
    };
    drive(
        &faults,
        each,
        |taker| graph::encode_chain(rung, Some(&input), None, &faults, taker),
        |chain| (0..frames).try_for_each(|number| chain.push(picture(number))),
    )?;
    let coded = std::mem::take(&mut *lock(&coded));
    if coded.len() as u64 != frames {
        return Err(wrong(format!("of {frames} pictures the encoder gave {}", coded.len())));
    }
    let video = MuxVideo {
        codec: Codec::H264,
        width: SIZE.width,
        height: SIZE.height,
        fps: Some(rate),
        rotation: Rotation::None,
    };
    let mut muxer = Muxer::new(Container::Ts, video, &[]);
    let mut out = BytesMut::new();
    for (number, (key, data)) in coded.into_iter().enumerate() {
        let time = Ticks(CLOCK + number as i64 * CLOCK / i64::from(FPS));
        muxer.video(&Frame { pts: time, dts: time, key, data }, &mut out);
    }
    muxer.finish(&mut out);
    Ok(out.freeze())
}

/// A textured background that pans, with a brighter square that goes across it: work for motion search and for the
/// transform, and the same on every machine.
fn picture(number: u64) -> gst::Buffer {
    let (width, height) = (SIZE.width as usize, SIZE.height as usize);
    let mut bytes = vec![128_u8; width * height * 3 / 2];
    let pan = number as usize * 3;
    let (luma, chroma) = bytes.split_at_mut(width * height);
    for (row, line) in luma.chunks_exact_mut(width).enumerate() {
        for (column, pixel) in line.iter_mut().enumerate() {
            *pixel = texture(column + pan, row);
        }
    }
    let (left, top) = (100 + number as usize * 11 % 1500, 300 + number as usize * 5 % 400);
    for line in luma.chunks_exact_mut(width).skip(top).take(256) {
        for pixel in &mut line[left..left + 256] {
            *pixel = pixel.saturating_add(60);
        }
    }
    for (row, line) in chroma.chunks_exact_mut(width / 2).enumerate() {
        for (column, pixel) in line.iter_mut().enumerate() {
            *pixel = 96 + (((column * 2 + pan) / 16 + row / 8) % 64) as u8;
        }
    }
    let mut buffer = gst::Buffer::from_slice(bytes);
    if let Some(fresh) = buffer.get_mut() {
        fresh.set_pts(gst::ClockTime::from_nseconds(number * 1_000_000_000 / u64::from(FPS)));
    }
    buffer
}

/// Slopes with grain of a few steps: the grain is a hash of the place, so that it moves with the pan.
fn texture(x: usize, y: usize) -> u8 {
    let slope = (x / 5 + y / 3) % 160;
    let place = (x as u32 / 2).wrapping_mul(0x9E37_79B1) ^ (y as u32 / 2).wrapping_mul(0x85EB_CA77);
    let grain = (place ^ (place >> 15)).wrapping_mul(0x2C1B_3C6D) >> 28;
    32 + slope as u8 + grain as u8
}
