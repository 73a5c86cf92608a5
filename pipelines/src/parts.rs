//! The parts of a segment's work, each alone and through the very same chains: what they cost together is what the
//! whole is compared with.

use std::path::Path;
use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer_video as gst_video;
use serde::Serialize;

use headwater_protocol::{Code, Codec, Container, Fault, FrameRate, Ladder};

use crate::alone::drive;
use crate::board::Board;
use crate::demux::Demuxer;
use crate::engine::cpu_us;
use crate::es::{Frame, Item};
use crate::fit::{Size, measure_rate};
use crate::graph::{self, Faults};
use crate::machine::Machine;
use crate::plan::{self, DecodePlan, Feed, Input, OutputPlan, Trust};
use crate::scale::{Canvas, Picture};
use crate::stage::{Origo, lock};
use crate::survey;

/// Decoded pictures that are kept and scaled in turns: more than any cache holds, less than memory.
const HELD: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Decode,
    /// To all sizes of the ladder.
    Scale,
    /// The rendition of this number, from pictures that are scaled already.
    Encode(usize),
}

/// What a part cost. Start-up and the making of its input are not counted.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    pub frames: u64,
    pub cpu_seconds: f64,
    /// Of the encoder, where its number can be set.
    pub threads: Option<u32>,
}

type Pictures = Arc<Mutex<Vec<(gst::Buffer, gst_video::VideoInfo)>>>;

struct Work {
    board: Board,
    machine: Machine,
    codec: Codec,
    frames: Vec<Frame>,
    rate: Option<FrameRate>,
}

/// Measures one part of the work on a transport stream.
pub fn cost(input: &Path, ladder: &Ladder, part: Part) -> Result<Cost, Fault> {
    let work = Work::read(input)?;
    match part {
        Part::Decode => {
            let before = cpu_us();
            work.decode(|_, _| Ok(()))?;
            Ok(work.cost(before))
        }
        Part::Scale => work.scale(ladder),
        Part::Encode(rendition) => work.encode(ladder, rendition),
    }
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::PipelineFailed, error.to_string())
}

impl Work {
    fn read(input: &Path) -> Result<Self, Fault> {
        let bytes = std::fs::read(input).map_err(broken)?;
        let mut demuxer = Demuxer::without_limit(Container::Ts);
        let mut items = Vec::new();
        demuxer.push(bytes.into(), &mut items)?;
        demuxer.finish(&mut items)?;
        let (mut codec, mut frames) = (None, Vec::new());
        for item in items {
            match item {
                Item::Tracks(tracks) => codec = codec.or_else(|| tracks.video.map(|video| video.codec)),
                Item::Video(frame) => frames.push(frame),
                Item::Audio(_) => {}
            }
        }
        let codec = codec.ok_or_else(|| Fault::new(Code::NoVideo, "there is no video stream"))?;
        let times: Vec<_> = frames.iter().map(|frame| frame.pts).collect();
        let (board, machine) = survey::board().map_err(broken)?;
        Ok(Self { board, machine, codec, rate: measure_rate(&times), frames })
    }

    fn cost(&self, before: u64) -> Cost {
        let cpu_seconds = cpu_us().saturating_sub(before) as f64 / 1e6;
        Cost { frames: self.frames.len() as u64, cpu_seconds, threads: None }
    }

    /// Calls `each` for every picture, in the decoder's thread.
    fn decode<F>(&self, mut each: F) -> Result<(), Fault>
    where
        F: FnMut(gst::Buffer, gst_video::VideoInfo) -> Result<(), Fault> + Send + 'static,
    {
        let faults = Arc::new(Faults::default());
        let plan = plan::decoder(&self.board, &self.machine, Input::any(self.codec, Trust::Whole))?;
        let Some(first) = self.frames.first() else {
            return Err(Fault::new(Code::NoFrames, "there is no frame"));
        };
        let origo = Origo::of(first.pts);
        let told = Arc::clone(&faults);
        let taker = move |sample: gst::Sample| {
            let (buffer, info) = crate::stage::open(&sample)?;
            each(buffer, info).map_err(|fault| {
                told.report(fault);
                gst::FlowError::Error
            })
        };
        drive(
            &faults,
            taker,
            |taker| graph::decode_chain(&plan, &faults, taker),
            |chain| {
                self.frames.iter().try_for_each(|frame| {
                    let mut buffer = gst::Buffer::from_slice(frame.data.clone());
                    if let Some(fresh) = buffer.get_mut() {
                        fresh.set_pts(origo.nanoseconds(frame.pts));
                        fresh.set_dts(origo.nanoseconds(frame.dts));
                    }
                    chain.push(buffer)
                })
            },
        )
    }

    fn plan(&self, ladder: &Ladder, info: &gst_video::VideoInfo) -> Result<(OutputPlan, Vec<Canvas>), Fault> {
        let picture = plan::Picture::plain(Size::new(info.width(), info.height()), self.rate);
        let plan = plan::outputs(&self.board, &self.machine, ladder, &DecodePlan::nothing(), &picture)?;
        let canvases = plan
            .sizes
            .iter()
            .map(|&size| self.shape(size, info).map(Canvas::new))
            .collect::<Result<_, Fault>>()?;
        Ok((plan, canvases))
    }

    fn shape(&self, size: Size, like: &gst_video::VideoInfo) -> Result<gst_video::VideoInfo, Fault> {
        let (num, den) = self.rate.map_or((30, 1), |rate| (rate.num(), rate.den()));
        gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, size.width, size.height)
            .fps(gst::Fraction::new(num.cast_signed(), den.cast_signed()))
            .colorimetry(&like.colorimetry())
            .build()
            .map_err(broken)
    }

    fn scale(&self, ladder: &Ladder) -> Result<Cost, Fault> {
        let held = Pictures::default();
        let keep = Arc::clone(&held);
        self.decode(move |buffer, info| {
            let mut held = lock(&keep);
            if held.len() < HELD {
                held.push((buffer, info));
            }
            Ok(())
        })?;
        let held = std::mem::take(&mut *lock(&held));
        let Some((_, info)) = held.first() else { return Err(Fault::new(Code::Undecodable, "no picture")) };
        let (plan, canvases) = self.plan(ladder, info)?;
        let before = cpu_us();
        for (frame, (buffer, info)) in self.frames.iter().zip(held.iter().cycle()) {
            let mut picture = Picture::new(frame.pts, buffer.clone(), info.clone(), plan.sizes.len());
            for at in 0..plan.sizes.len() {
                picture.at(at, &plan.origins, &canvases)?;
            }
        }
        Ok(self.cost(before))
    }

    fn encode(&self, ladder: &Ladder, rendition: usize) -> Result<Cost, Fault> {
        let first = Pictures::default();
        let scaled: Arc<Mutex<Vec<gst::Buffer>>> = Arc::default();
        let faults = Arc::new(Faults::default());
        // The plan needs a picture's size, so the first one is looked at on its own.
        let keep = Arc::clone(&first);
        self.decode(move |buffer, info| {
            let mut first = lock(&keep);
            if first.is_empty() {
                first.push((buffer, info));
            }
            Ok(())
        })?;
        let first = std::mem::take(&mut *lock(&first));
        let Some((_, info)) = first.first() else { return Err(Fault::new(Code::Undecodable, "no picture")) };
        let (plan, canvases) = self.plan(ladder, info)?;
        let rung = plan.rungs.get(rendition).cloned();
        let rung = rung.ok_or_else(|| broken(format!("the ladder has no rendition {rendition}")))?;
        let input = self.shape(Size::new(rung.width, rung.height), info)?;
        let Feed::Canvas(size) = rung.feed else { return Err(broken("the plan does not scale in software")) };
        let (keep, sizes, origins) = (Arc::clone(&scaled), plan.sizes.len(), plan.origins);
        self.decode(move |buffer, info| {
            let mut picture = Picture::new(crate::es::Ticks(0), buffer, info, sizes);
            lock(&keep).push(picture.at(size, &origins, &canvases)?);
            Ok(())
        })?;
        let scaled = std::mem::take(&mut *lock(&scaled));
        let before = cpu_us();
        drive(
            &faults,
            |_| Ok(()),
            |taker| graph::encode_chain(&rung, Some(&input), None, &faults, taker),
            |chain| scaled.into_iter().try_for_each(|picture| chain.push(picture)),
        )?;
        let threads = rung.element.properties.get("threads").and_then(|threads| threads.parse().ok());
        Ok(Cost { threads, ..self.cost(before) })
    }
}
