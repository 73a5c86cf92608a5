//! Between the decoder and the stage: pictures that the stage cannot take as they are go through a chain first.

use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer_video as gst_video;

use headwater_protocol::{Code, Fault, FrameRate};

use super::event::lock;
use super::{Failed, Stage};
use crate::board::SYSTEM;
use crate::es::Rotation;
use crate::fit::Size;
use crate::graph::{self, Chain, Faults, Stoppers, Taker};
use crate::plan::{self, Element, Way};
use crate::tone;

/// End of the chain that prepares pictures.
pub(crate) struct Prepared(pub Arc<Mutex<Stage>>);

impl Taker for Prepared {
    fn sample(&mut self, sample: gst::Sample) -> Result<(), gst::FlowError> {
        let (buffer, info) = open(&sample)?;
        let mut stage = lock(&self.0);
        let taken = match stage.stills.pop_front() {
            Some(dues) => stage.still_picture(dues, buffer, info),
            None => stage.picture(buffer, info, None),
        };
        taken.map_err(|failed| stage.fail(failed))
    }

    fn end(&mut self) {
        let mut stage = lock(&self.0);
        if let Err(failed) = stage.finish() {
            // A fault is reported there; a flow error has no reader after the end.
            let _ = stage.fail(failed);
        }
    }
}

pub(crate) fn open(sample: &gst::Sample) -> Result<(gst::Buffer, gst_video::VideoInfo), gst::FlowError> {
    let buffer = sample.buffer_owned().ok_or(gst::FlowError::Error)?;
    let caps = sample.caps().ok_or(gst::FlowError::NotNegotiated)?;
    let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| gst::FlowError::NotNegotiated)?;
    Ok((buffer, info))
}

/// What a chain that prepares pictures was built for.
#[derive(Debug, PartialEq)]
struct Preparation {
    download: Vec<Element>,
    rotation: Rotation,
    format: gst_video::VideoFormat,
    /// The rate of woven frames, where each gives two pictures.
    fields: Option<FrameRate>,
}

/// End of the decoder's chain: sends pictures that are not upright progressive I420 through a chain that makes
/// them so.
pub(crate) struct Front {
    stage: Arc<Mutex<Stage>>,
    faults: Arc<Faults>,
    stoppers: Arc<Stoppers>,
    /// The chain, and what it was built for.
    prepare: Option<(Preparation, Chain)>,
    /// This segment's pictures go to the encoders as they are.
    native: bool,
    /// Pictures of this segment go through `prepare`: on the native way those that become still ones, else all from the
    /// first that has to, to stay in order.
    in_use: bool,
}

impl Front {
    pub(crate) fn new(stage: Arc<Mutex<Stage>>, faults: Arc<Faults>, stoppers: Arc<Stoppers>) -> Self {
        Self { stage, faults, stoppers, prepare: None, native: false, in_use: false }
    }

    pub(crate) fn recycle(&mut self) {
        if let Some((_, chain)) = &self.prepare
            && self.in_use
        {
            chain.recycle();
        }
        self.in_use = false;
    }

    fn prepare(&mut self, wanted: Preparation) -> Result<&Chain, Fault> {
        // A picture of another format in the middle stays in the chain of those before it, which are inside.
        if self.prepare.as_ref().is_none_or(|(ready, _)| *ready != wanted && !self.in_use) {
            let taker = Prepared(Arc::clone(&self.stage));
            let Preparation { download, rotation, format, fields } = &wanted;
            let both = fields.is_some();
            let chain = graph::prepare_chain(download, *rotation, *format, both, &self.faults, taker)?;
            chain.join(&self.stoppers);
            self.prepare = Some((wanted, chain));
        }
        match &self.prepare {
            Some((_, chain)) => Ok(chain),
            None => Err(Fault::new(Code::PipelineFailed, "no chain to prepare pictures")),
        }
    }

    fn take(&mut self, sample: gst::Sample) -> Result<(), Failed> {
        let (buffer, info) = open(&sample)?;
        let mut stage = lock(&self.stage);
        let (decode, rotation) = (Arc::clone(&stage.segment.decode), stage.segment.rotation);
        if stage.shown.is_none() && stage.wanted.is_none() {
            let picture = facts(&info, rotation, stage.segment.rate);
            let plan = stage.plan_for(&decode, &picture)?;
            self.native = plan.way == Way::Native;
            stage.wanted = Some(plan);
        }
        if self.native {
            stage.picture(buffer.clone(), info.clone(), with_colours(&sample, &info).as_deref())?;
            if !stage.stills_are_due() {
                return Ok(());
            }
        }
        let format = tone::format(&info);
        let ready = decode.memory == SYSTEM
            && info.format() == format
            && info.interlace_mode() == gst_video::VideoInterlaceMode::Progressive
            && rotation == Rotation::None;
        if ready && !self.in_use && !self.native {
            return stage.picture(buffer, info, None);
        }
        let fields = stage.fields().filter(|_| !self.native);
        if fields.is_some() {
            stage.woven.get_or_insert_default().extend(buffer.pts());
        }
        drop(stage);
        let download = decode.download.clone();
        let chain = self.prepare(Preparation { download, rotation, format, fields })?;
        let sample = fields.map_or_else(|| sample.clone(), |rate| at_rate(&sample, &buffer, rate));
        let pushed = chain.push_sample(&sample);
        self.in_use = true;
        Ok(pushed?)
    }
}

/// The decoder's callbacks share the front with the engine, which recycles it.
pub(crate) struct Decoded(pub Arc<Mutex<Front>>);

impl Taker for Decoded {
    fn sample(&mut self, sample: gst::Sample) -> Result<(), gst::FlowError> {
        let mut front = lock(&self.0);
        front.take(sample).map_err(|failed| lock(&front.stage).fail(failed))
    }

    fn end(&mut self) {
        let front = lock(&self.0);
        match &front.prepare {
            Some((_, chain)) if front.in_use => chain.end(),
            Some(_) | None => Prepared(Arc::clone(&front.stage)).end(),
        }
    }
}

/// The picture's caps. Decoders leave colours open where the stream says nothing of them; V4L2 elements refuse that.
fn with_colours(sample: &gst::Sample, info: &gst_video::VideoInfo) -> Option<gst::Caps> {
    let mut caps = sample.caps_owned()?;
    if caps.structure(0).is_some_and(|picture| !picture.has_field("colorimetry")) {
        caps.make_mut().set("colorimetry", info.colorimetry().to_string());
    }
    Some(caps)
}

/// Decoders do not always say the rate, and the second field's time is reckoned from it.
fn at_rate(sample: &gst::Sample, buffer: &gst::Buffer, rate: FrameRate) -> gst::Sample {
    let mut caps = sample.caps_owned().unwrap_or_else(gst::Caps::new_empty);
    caps.make_mut().set("framerate", gst::Fraction::new(rate.num() as i32, rate.den() as i32));
    gst::Sample::builder().buffer(buffer).caps(&caps).build()
}

/// What a decoded picture says of itself.
pub(super) fn facts(
    info: &gst_video::VideoInfo,
    rotation: Rotation,
    rate: Option<FrameRate>,
) -> plan::Picture {
    plan::Picture {
        coded: Size::new(info.width(), info.height()),
        aspect: (info.par().numer().unsigned_abs(), info.par().denom().unsigned_abs()),
        rotation,
        rate,
        interlaced: info.interlace_mode() != gst_video::VideoInterlaceMode::Progressive,
        format: info.format().to_str().to_string(),
        mapped: tone::is_mapped(info),
    }
}
