//! Samples to coded frames with exact times: frame *n* is where *n* frames and the encoder's delay put it.

use bytes::{Bytes, BytesMut};
use gstreamer as gst;

use headwater_protocol::{Audio, Fault};

use super::elements::{self, CONVERT, Encoder as Element};
use super::line::to_ticks;
use super::strand::Strand;
use super::{Shape, failed};
use crate::es::Ticks;

/// A coded frame and when its decoded samples are heard.
pub(super) type Coded = (Ticks, Bytes);

pub(super) struct Encoder {
    element: &'static Element,
    strand: Strand,
    shape: Shape,
    /// Time of the first sample.
    origin: Ticks,
    /// Samples put in.
    written: i64,
    frames: i64,
}

impl Encoder {
    pub(super) fn new(want: &Audio, shape: Shape, origin: Ticks) -> Result<Option<Self>, Fault> {
        let Some((element, properties)) = elements::encoder(want)? else { return Ok(None) };
        Self::with(element, properties, shape, origin).map(Some)
    }

    fn with(
        element: &'static Element,
        properties: elements::Properties,
        shape: Shape,
        origin: Ticks,
    ) -> Result<Self, Fault> {
        let mut strand = Strand::new(&[(CONVERT, Vec::new()), (element.element(), properties)], None)?;
        strand.set_caps(&shape.caps());
        Ok(Self { element, strand, shape, origin, written: 0, frames: 0 })
    }

    /// Takes whole samples.
    pub(super) fn push(&mut self, samples: Bytes) -> Result<Vec<Coded>, Fault> {
        let count = (samples.len() / self.shape.bytes()) as i64;
        let coded = self.put(samples)?;
        self.written += count;
        Ok(coded)
    }

    pub(super) fn silence(&mut self, samples: i64) -> Result<Vec<Coded>, Fault> {
        let mut found = Vec::new();
        let mut left = samples;
        while left > 0 {
            let part = left.min(i64::from(self.shape.rate));
            found.extend(self.push(zeros(part, self.shape))?);
            left -= part;
        }
        Ok(found)
    }

    fn put(&mut self, samples: Bytes) -> Result<Vec<Coded>, Fault> {
        if samples.is_empty() {
            return Ok(Vec::new());
        }
        let coded = self.strand.push(gst::Buffer::from_slice(samples));
        let coded = coded.map_err(|_| failed(&format!("{} took no samples", self.element.element())))?;
        self.number(coded)
    }

    fn number(&mut self, coded: Vec<gst::Buffer>) -> Result<Vec<Coded>, Fault> {
        let mut found = Vec::new();
        for buffer in coded.iter().filter(|buffer| !buffer.flags().contains(gst::BufferFlags::HEADER)) {
            let map = buffer.map_readable().map_err(|_| failed("a frame cannot be read"))?;
            let at = self.frames * i64::from(self.element.frame) - i64::from(self.element.delay);
            found.push((Ticks(self.origin.0 + to_ticks(at, self.shape.rate)), Bytes::copy_from_slice(&map)));
            self.frames += 1;
        }
        Ok(found)
    }

    /// The frames that hold what was written; the last one is filled with silence.
    pub(super) fn finish(mut self) -> Result<Vec<Coded>, Fault> {
        if self.written == 0 {
            return Ok(Vec::new());
        }
        let frame = i64::from(self.element.frame);
        let whole = (self.written + i64::from(self.element.delay) + frame - 1) / frame;
        let before = self.frames;
        // Enough silence to push the last samples out, whatever the encoder holds back.
        let mut found = self.put(zeros(i64::from(self.element.delay) + 3 * frame, self.shape))?;
        let rest = self.strand.end();
        found.extend(self.number(rest)?);
        found.truncate(usize::try_from(whole - before).unwrap_or(0));
        Ok(found)
    }
}

fn zeros(samples: i64, shape: Shape) -> Bytes {
    BytesMut::zeroed(usize::try_from(samples).unwrap_or(0) * shape.bytes()).freeze()
}

#[cfg(test)]
mod tests {
    use headwater_protocol::{Aac, BitsPerSecond, Hertz, Opus};

    use super::super::decode::Decoder;
    use super::super::formats;
    use super::*;
    use crate::es::{AudioFormat, AudioPacket, Tracks};
    use crate::log;

    /// Noise without high tones, the same each time.
    fn noise(count: usize) -> Vec<f32> {
        let (mut state, mut value) = (1u32, 0.0f32);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                value += 0.1 * ((state >> 16) as f32 / 65_536.0 - 0.5 - value);
                value
            })
            .collect()
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|f| f32::from_le_bytes(*f)).collect()
    }

    #[test]
    fn every_encoders_delay_is_what_the_table_says() {
        log::init().unwrap();
        let aac = |rate| Audio::Aac(Aac { bitrate: BitsPerSecond(96_000), rate: Hertz(rate), channels: 1 });
        let opus = Audio::Opus(Opus { bitrate: BitsPerSecond(96_000), channels: 1 });
        for (want, element) in elements::all().into_iter().flat_map(|element| match element.element() {
            "opusenc" => vec![(opus, element)],
            _ => vec![(aac(48_000), element), (aac(44_100), element), (aac(22_050), element)],
        }) {
            let name = element.element();
            let shape = Shape::of(&want).unwrap();
            let properties = vec![("bitrate", "96000".to_owned())];
            let mut encoder = Encoder::with(element, properties, shape, Ticks(0)).unwrap();
            let source = noise(30_000);
            let bytes: Vec<u8> = source.iter().flat_map(|s| s.to_le_bytes()).collect();
            let mut coded = Vec::new();
            // Pieces of no frame's length.
            for piece in bytes.chunks(4 * 777) {
                coded.extend(encoder.push(Bytes::copy_from_slice(piece)).unwrap());
            }
            coded.extend(encoder.finish().unwrap());
            let (frame, delay) = (element.frame as usize, element.delay as usize);
            assert_eq!(coded.len(), (30_000 + delay).div_ceil(frame), "{name}");

            let tracks = Tracks { video: None, audio: vec![AudioFormat::Adts] };
            let mut decoder = Decoder::new(&formats(&tracks, &want)[0]).unwrap();
            let mut heard = Vec::new();
            for (pts, data) in coded {
                let packet = AudioPacket { track: 0, pts, data };
                for pcm in decoder.packet(&packet, &mut 0).unwrap() {
                    heard.extend(floats(&pcm.data.map_readable().unwrap()));
                }
            }
            let alike = |lag: usize| -> f32 {
                source[8000..24_000].iter().zip(&heard[8000 + lag..]).map(|(a, b)| a * b).sum()
            };
            let found = (0..4000).max_by(|a, b| alike(*a).total_cmp(&alike(*b))).unwrap();
            assert_eq!(found, delay, "{name} at {}", shape.rate);
        }
    }
}
