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
        let mut strand = Strand::new(&[(CONVERT, Vec::new()), (element.element(), properties)], None)?;
        strand.set_caps(&shape.caps());
        Ok(Some(Self { element, strand, shape, origin, written: 0, frames: 0 }))
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
            found.push((
                Ticks(self.origin.0 + to_ticks(at, self.shape.rate)),
                Bytes::copy_from_slice(&map),
            ));
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
