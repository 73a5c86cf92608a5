//! A short clip of each codec to prove decoders with, of 1280x720. What made them is in `boards/samples`.

use bytes::Bytes;
use gstreamer as gst;

use headwater_protocol::{Codec, Container, Fault};

use crate::demux::Demuxer;
use crate::es::{CLOCK, Frame, Item, Ticks};
use crate::graph::Chain;

/// A further codec is one more line here.
const SAMPLES: &[(Codec, Container, &[u8])] = &[
    (Codec::H264, Container::Ts, include_bytes!("../../boards/samples/h264.ts")),
    (Codec::Hevc, Container::Ts, include_bytes!("../../boards/samples/hevc.ts")),
    (Codec::Av1, Container::Mp4, include_bytes!("../../boards/samples/av1.mp4")),
    (Codec::Vp9, Container::Mp4, include_bytes!("../../boards/samples/vp9.webm")),
    (Codec::Vp8, Container::Mp4, include_bytes!("../../boards/samples/vp8.webm")),
];

/// Coded frames to feed a decoder with.
#[derive(Debug, Clone)]
pub(super) struct Clip {
    codec: Codec,
    frames: Vec<Frame>,
    /// From one round to the next.
    length: i64,
}

/// Without a sample a codec is proved by a pair: what its encoder made of drawn pictures is its decoder's clip.
pub(super) fn exists(codec: Codec) -> bool {
    SAMPLES.iter().any(|(of, ..)| *of == codec)
}

/// None where there is no sample of the codec.
pub(super) fn clip(codec: Codec) -> Result<Option<Clip>, Fault> {
    let Some((_, container, bytes)) = SAMPLES.iter().find(|(of, ..)| *of == codec) else { return Ok(None) };
    let mut demuxer = Demuxer::new(*container);
    let mut items = Vec::new();
    demuxer.push(Bytes::from_static(bytes), &mut items)?;
    demuxer.finish(&mut items)?;
    let frames = items.into_iter().filter_map(|item| match item {
        Item::Video(frame) => Some(frame),
        Item::Tracks(_) | Item::Audio(_) => None,
    });
    Ok(Some(Clip::new(codec, frames.collect())))
}

impl Clip {
    pub(super) fn new(codec: Codec, frames: Vec<Frame>) -> Self {
        let length = length(&frames);
        Self { codec, frames, length }
    }

    pub(super) fn len(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Its first frames, as many as that.
    pub(super) fn first(mut self, count: u64) -> Self {
        self.frames.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        Self::new(self.codec, self.frames)
    }

    /// The clip with half a frame at its end, and without one in its middle.
    pub(super) fn damaged(&self) -> Self {
        let mut frames = self.frames.clone();
        if frames.len() > 2 {
            frames.remove(frames.len() / 2);
        }
        if let Some(last) = frames.last_mut() {
            last.data.truncate(last.data.len() / 2);
        }
        Self { frames, ..*self }
    }

    /// Pushes the clip `rounds` times, each later than the one before.
    pub(super) fn feed(&self, chain: &Chain, rounds: u64) -> Result<(), gst::FlowError> {
        if let Some(first) = self.frames.first() {
            chain.announce(self.codec, &first.data);
        }
        for round in 0..rounds {
            let later = round as i64 * self.length;
            for frame in &self.frames {
                let mut buffer = gst::Buffer::from_slice(frame.data.clone());
                if let Some(fresh) = buffer.get_mut() {
                    fresh.set_pts(nanoseconds(Ticks(frame.pts.0 + later)));
                    fresh.set_dts(nanoseconds(Ticks(frame.dts.0 + later)));
                }
                chain.push(buffer)?;
            }
        }
        Ok(())
    }
}

/// What the frames' own times say, each shown as long as the others.
fn length(frames: &[Frame]) -> i64 {
    let times = || frames.iter().map(|frame| frame.pts.0);
    let span = times().max().zip(times().min()).map_or(0, |(last, first)| last - first);
    match frames.len() as i64 - 1 {
        gaps @ 1.. => span + span / gaps,
        _ => CLOCK / 30,
    }
}

fn nanoseconds(time: Ticks) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(time.0.unsigned_abs() * 100_000 / 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_of_a_sample_begins_one_picture_after_the_round_before() {
        for (codec, ..) in SAMPLES {
            let clip = clip(*codec).unwrap().unwrap();
            let round = |number: i64| clip.frames.iter().map(move |frame| frame.pts.0 + number * clip.length);
            let mut times: Vec<i64> = round(0).chain(round(1)).collect();
            times.sort_unstable();
            let step = times[1] - times[0];
            assert!(step > 0 && times.windows(2).all(|two| two[1] - two[0] == step), "{codec:?}: {times:?}");
        }
    }
}
