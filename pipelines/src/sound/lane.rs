//! One track on its way to one wanted form: samples at any rate, with holes, to an unbroken row of coded frames.

use bytes::Bytes;
use gstreamer as gst;

use headwater_protocol::{Audio, Fault};

use super::decode::Pcm;
use super::elements::{CONVERT, RESAMPLE};
use super::encode::{Coded, Encoder};
use super::line::{Line, Run, Step, to_samples};
use super::strand::Strand;
use super::{Shape, failed};
use crate::es::Ticks;

pub(super) struct Lane {
    want: Audio,
    shape: Shape,
    /// Sound before this is not heard: what an MP4's edits cut off.
    from: Option<Ticks>,
    open: Option<Open>,
    run: Option<Running>,
}

/// An encoder, and how far it has come.
struct Open {
    line: Line,
    encoder: Encoder,
}

/// Samples that follow each other, on their way to the wanted rate.
struct Running {
    run: Run,
    caps: gst::Caps,
    strand: Strand,
    /// Samples at the wanted rate that have come out.
    given: i64,
    /// Of those, how many at the start are left out.
    skip: i64,
}

impl Lane {
    pub(super) fn new(want: Audio, from: Option<Ticks>) -> Option<Self> {
        let shape = Shape::of(&want)?;
        Some(Self { want, shape, from, open: None, run: None })
    }

    pub(super) fn take(&mut self, pcm: &Pcm, out: &mut Vec<Coded>) -> Result<(), Fault> {
        let follows = |running: &Running| running.caps == pcm.caps && running.run.goes_on(pcm.at);
        if self.run.as_ref().is_some_and(|running| !follows(running)) {
            let end = self.run.as_ref().map(|running| running.run.end());
            self.end_run(out)?;
            self.begin(pcm, pcm.at.or(end), out)?;
        } else if self.run.is_none() {
            self.begin(pcm, pcm.at, out)?;
        }
        let Some(running) = &mut self.run else { return Ok(()) };
        running.run.add(pcm.samples);
        let resampled = running.strand.push(pcm.data.clone());
        let resampled = resampled.map_err(|_| failed("samples could not be converted"))?;
        self.write(&resampled, None, out)
    }

    /// A frame without a time and without one before it belongs nowhere.
    fn begin(&mut self, pcm: &Pcm, at: Option<Ticks>, out: &mut Vec<Coded>) -> Result<(), Fault> {
        let Some(at) = at else { return Ok(()) };
        let early = self.from.map_or(0, |from| (from.0 - at.0).max(0));
        let heard = Ticks(at.0 + early);
        let step = self.open.as_ref().map_or(Step::Restart, |open| open.line.place(heard));
        let again = match step {
            Step::Silence(hole) => {
                if let Some(open) = &mut self.open {
                    out.extend(open.encoder.silence(hole)?);
                    open.line.write(hole);
                }
                0
            }
            Step::Skip(again) => again,
            Step::Restart => {
                self.close(out)?;
                let encoder = Encoder::new(&self.want, self.shape, heard)?;
                let line = Line::new(self.shape.rate, heard);
                self.open = encoder.map(|encoder| Open { line, encoder });
                0
            }
        };
        let mut strand =
            Strand::new(&[(CONVERT, Vec::new()), (RESAMPLE, Vec::new())], Some(&self.shape.caps()))?;
        strand.set_caps(&pcm.caps);
        self.run = Some(Running {
            run: Run::new(at, pcm.rate),
            caps: pcm.caps.clone(),
            strand,
            given: 0,
            skip: to_samples(early, self.shape.rate) + again,
        });
        Ok(())
    }

    /// The resampler gives what it holds, and no sample more than the run has.
    fn end_run(&mut self, out: &mut Vec<Coded>) -> Result<(), Fault> {
        let Some(running) = &self.run else { return Ok(()) };
        let rest = running.strand.end();
        let whole = running.run.samples_at(self.shape.rate);
        self.write(&rest, Some(whole), out)?;
        self.run = None;
        Ok(())
    }

    fn write(
        &mut self,
        resampled: &[gst::Buffer],
        whole: Option<i64>,
        out: &mut Vec<Coded>,
    ) -> Result<(), Fault> {
        let (Some(running), Some(open)) = (&mut self.run, &mut self.open) else { return Ok(()) };
        let width = self.shape.bytes();
        for buffer in resampled {
            let map = buffer.map_readable().map_err(|_| failed("samples cannot be read"))?;
            let mut samples: &[u8] = &map;
            let mut count = (samples.len() / width) as i64;
            if let Some(whole) = whole {
                count = count.min((whole - running.given).max(0));
                samples = &samples[..count as usize * width];
            }
            running.given += count;
            let skip = running.skip.min(count);
            running.skip -= skip;
            samples = &samples[skip as usize * width..];
            out.extend(open.encoder.push(Bytes::copy_from_slice(samples))?);
            open.line.write(count - skip);
        }
        Ok(())
    }

    /// Ends what is being encoded.
    fn close(&mut self, out: &mut Vec<Coded>) -> Result<(), Fault> {
        if let Some(open) = self.open.take() {
            out.extend(open.encoder.finish()?);
        }
        Ok(())
    }

    /// No more comes, or what comes next is another track.
    pub(super) fn finish(&mut self, out: &mut Vec<Coded>) -> Result<(), Fault> {
        self.end_run(out)?;
        self.close(out)
    }
}
