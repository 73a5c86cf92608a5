//! Between the decoder and the encoders: decides the outputs at the first picture, scales, and hands on.
//!
//! ```text
//!            ┌─ Front ────────────────┐      ┌─ Stage ────────────────────────┐
//! decode ───▶│ native way? yes        │─────▶│ plan · gate · pictures as they │──▶ encode 0
//!            │ no: needs preparing? no│─────▶│ are, or the cascade's          │──▶ encode 1 …
//!            │        yes             │      │                                │
//!            └───▶ prepare ───────────┼─────▶│                                │
//!                                     │      └────────────────────────────────┘
//! ```
//!
//! Everything here runs in the decoder's thread, or in that of the chain that prepares pictures. On the native way still
//! pictures alone go through that one; see [`stills`].

mod encoded;
mod event;
mod front;
mod outputs;
mod stills;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gstreamer as gst;
use gstreamer_video as gst_video;

use headwater_protocol::media::Hdr;
use headwater_protocol::{Code, Fault, FrameRate, Ladder};

pub(crate) use self::event::{Counters, Event, Events, Origo, Segment, lock, send};
use self::front::facts;
pub(crate) use self::front::{Decoded, Front, open};
use self::outputs::{Outputs, push, show, still, wanted};
use self::stills::Dues;
use crate::board::Board;
use crate::es::{CLOCK, Rotation, Ticks};
use crate::fit::{Gate, Origin, Size, cascade, square};
use crate::graph::{Faults, Stoppers};
use crate::machine::Machine;
use crate::plan::{self, DecodePlan, Feed, OutputPlan, RungPlan, Way};
use crate::scale::Picture;
use crate::tone::{self, Tone};

/// What never changes in a worker.
#[derive(Debug)]
pub(crate) struct Setup {
    pub board: Board,
    pub machine: Machine,
    pub ladder: Ladder,
}

/// Behind the decoder, in front of the encoders.
pub(crate) struct Stage {
    setup: Arc<Setup>,
    faults: Arc<Faults>,
    events: Events,
    counters: Arc<Counters>,
    stoppers: Arc<Stoppers>,
    tone: Tone,
    outputs: Option<Outputs>,
    segment: Segment,
    /// What to do with this segment's pictures, until the first of them is there.
    wanted: Option<OutputPlan>,
    /// The first picture has come: its size, upright, square pixels.
    shown: Option<Size>,
    /// How often encoders were built.
    built: u64,
    /// Origins for pictures of this size; they follow a change of size in the middle.
    decoded_size: Option<Size>,
    origins: Vec<Origin>,
    /// For renditions of another rate: the picture before the present one.
    previous: Option<(Picture, Option<gst::Caps>)>,
    /// Time of the latest picture.
    latest: Option<Ticks>,
    /// Time from the one before to it.
    step: Option<i64>,
    /// Rate of this segment, or of an earlier one, for those too short to tell.
    usual_rate: Option<FrameRate>,
    /// Times of frames in the chain that makes a picture of each field, if there is one: as many as it holds.
    woven: Option<VecDeque<gst::ClockTime>>,
    /// What the pictures are due for that are on their way to become still ones: as many as the chain holds.
    stills: VecDeque<Dues>,
}

impl Stage {
    pub(crate) fn new(
        setup: Arc<Setup>,
        faults: Arc<Faults>,
        events: Events,
        counters: Arc<Counters>,
        stoppers: Arc<Stoppers>,
    ) -> Self {
        Self {
            setup,
            faults,
            events,
            counters,
            stoppers,
            tone: Tone::default(),
            outputs: None,
            segment: Segment::unknown(),
            wanted: None,
            shown: None,
            built: 0,
            decoded_size: None,
            origins: Vec::new(),
            previous: None,
            latest: None,
            step: None,
            usual_rate: None,
            woven: None,
            stills: VecDeque::new(),
        }
    }

    /// Before the first frame of a segment.
    pub(crate) fn begin(&mut self, segment: Segment) {
        self.segment = segment;
        self.wanted = None;
        self.shown = None;
        self.decoded_size = None;
        self.previous = None;
        self.latest = None;
        self.step = None;
        self.woven = None;
        self.stills.clear();
    }

    /// After the last: all chains are drained.
    pub(crate) fn recycle(&mut self) {
        if let Some(outputs) = &mut self.outputs {
            for chain in &outputs.chains {
                chain.recycle();
            }
            // What must be new for each segment goes now, not while the next one waits.
            if outputs.plan.rungs.iter().any(|rung| rung.fresh) {
                self.outputs = None;
            }
        }
        self.previous = None;
    }

    /// How often encoders were built.
    pub(crate) fn built(&self) -> u64 {
        self.built
    }

    /// Builds the encoders for a usual picture, so that the first segment finds them.
    pub(crate) fn prewarm(&mut self, size: Size, rate: FrameRate) -> Result<(), Fault> {
        self.segment = Segment { origo: Origo::of(Ticks(0)), rate: Some(rate), ..Segment::unknown() };
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, size.width, size.height)
            .build()
            .map_err(|error| Fault::new(Code::PipelineFailed, error.to_string()))?;
        let grey = gst::Buffer::from_slice(vec![128_u8; info.size()]);
        let plan = self.plan_for(&DecodePlan::nothing(), &facts(&info, Rotation::None, self.segment.rate))?;
        self.wanted = Some(plan);
        let picture = self.take_grey(grey, info);
        picture.and_then(|()| self.finish()).map_err(|failed| match failed {
            Failed::Fault(fault) => fault,
            Failed::Flow(flow) => {
                Fault::new(Code::PipelineFailed, format!("an encoder refused a picture: {flow}"))
            }
        })
    }

    fn take_grey(&mut self, mut grey: gst::Buffer, info: gst_video::VideoInfo) -> Result<(), Failed> {
        if let Some(fresh) = grey.get_mut() {
            fresh.set_pts(self.segment.origo.nanoseconds(Ticks(0)));
        }
        self.picture(grey, info, None)
    }

    /// The plan for a segment's first picture, as the decoder gave it.
    fn plan_for(&mut self, decode: &DecodePlan, picture: &plan::Picture) -> Result<OutputPlan, Fault> {
        let rate = picture.rate.or(self.usual_rate);
        self.usual_rate = rate;
        let picture = plan::Picture { rate, ..picture.clone() };
        plan::outputs(&self.setup.board, &self.setup.machine, &self.setup.ladder, decode, &picture)
    }

    /// The rate of woven frames in this segment, where a picture of each of their fields is wanted.
    fn fields(&self) -> Option<FrameRate> {
        self.usual_rate.filter(|rate| plan::both_fields(&self.setup.ladder, Some(*rate)))
    }

    /// Whether the picture at `time` is of a woven frame's second field: it is no frame of the input, and only for
    /// renditions of another rate. It comes before the next frame's own picture.
    fn is_second_field(&mut self, time: Ticks) -> bool {
        let Some(woven) = &mut self.woven else { return false };
        let origo = self.segment.origo;
        let mut last = None;
        // A frame whose own picture was lost is over by the next one's; one of before the clock went back is not.
        while let Some(next) =
            woven.pop_front_if(|next| origo.ticks(*next) <= time && last.is_none_or(|last| *next > last))
        {
            last = Some(next);
        }
        last.is_none()
    }

    /// Makes `outputs` fit the first picture of a segment.
    fn arrange(&mut self, info: &gst_video::VideoInfo, hdr: Option<Hdr>) -> Result<(), Fault> {
        let plan = self.wanted.take().ok_or_else(|| {
            Fault::new(Code::PipelineFailed, "a picture came before it was planned what to do with it")
        })?;
        let (num, den) = (info.par().numer().unsigned_abs(), info.par().denom().unsigned_abs());
        // A picture on the native way is turned only behind here.
        let shown = square(Size::new(info.width(), info.height()), (num, den));
        let shown = match self.segment.rotation {
            Rotation::Clockwise90 | Rotation::Clockwise270 if plan.way == Way::Native => shown.turned(),
            Rotation::None | Rotation::Half | Rotation::Clockwise90 | Rotation::Clockwise270 => shown,
        };
        self.shown = Some(shown);
        let colour = info.colorimetry().to_string();
        if self.outputs.as_ref().is_none_or(|outputs| !outputs.serves(&plan, &colour)) {
            // Old encoders go first: two sets at once would double the memory.
            self.outputs = None;
            self.outputs = Some(self.build(plan, colour, info)?);
            self.built += 1;
        }
        if let Some(outputs) = &mut self.outputs {
            for rung in &mut outputs.rungs {
                rung.gate = rung.plan.gate.map(Gate::new);
                if let Some(sheet) = &mut rung.sheet {
                    sheet.begin();
                }
                lock(&rung.inside).clear();
            }
            let rungs = outputs.rungs.iter().map(|rung| {
                let plan = &rung.plan;
                (Size::new(plan.width, plan.height), plan.rate)
            });
            // Nobody listens while it is built ahead of the first segment.
            let _ = send(&self.events, Event::Planned { shown, hdr, rungs: rungs.collect() });
        }
        Ok(())
    }

    /// Takes a picture: prepared for the cascade, or with its caps as the decoder gave it.
    fn picture(
        &mut self,
        buffer: gst::Buffer,
        info: gst_video::VideoInfo,
        caps: Option<&gst::CapsRef>,
    ) -> Result<(), Failed> {
        let decoded = buffer.pts().map(|pts| self.segment.origo.ticks(pts));
        let second = decoded.is_some_and(|time| self.is_second_field(time));
        if decoded.is_some_and(|time| time.0 >= self.counters.hidden_from.load(Relaxed)) {
            return Ok(());
        }
        let size = Size::new(info.width(), info.height());
        let hdr = tone::hdr(&info);
        let (mut buffer, info) = self.tone.picture(buffer, info)?;
        if self.shown.is_none() {
            self.arrange(&info, hdr)?;
        }
        let time = decoded.map(|time| self.in_order(time));
        let Some(outputs) = &mut self.outputs else { return Err(Failed::Flow(gst::FlowError::Flushing)) };
        if self.decoded_size != Some(size) {
            // Where nothing stands before an encoder, nothing brings the new size back to the one it began with.
            let bare = |rung: &RungPlan| rung.feed == Feed::Decoded && rung.before.is_empty();
            if self.decoded_size.is_some() && outputs.plan.rungs.iter().any(bare) {
                let text =
                    "the picture's size changes within the segment, which this board's encoder cannot follow";
                return Err(Fault::new(Code::PipelineFailed, text).into());
            }
            self.decoded_size = Some(size);
            self.origins = cascade(size, &outputs.plan.sizes);
        }
        let Some(time) = time else { return Ok(()) };
        if !second {
            self.counters.decoded.fetch_add(1, Relaxed);
            self.counters.pixels.fetch_add(size.pixels(), Relaxed);
        }
        let shown = self.segment.origo.nanoseconds(time);
        if buffer.pts() != shown {
            buffer.make_mut().set_pts(shown);
        }
        let mut picture = Picture::new(time, buffer, info, outputs.plan.sizes.len());
        let caps = caps.map(ToOwned::to_owned);
        let mut gated = false;
        let mut split = vec![false; outputs.plan.splits.len()];
        // Before any push: one push reaches all encoders behind a split, and any may be done with it at once.
        for rung in outputs.rungs.iter().filter(|rung| !second && rung.sheet.is_none() && rung.gate.is_none())
        {
            lock(&rung.inside).push_back(time);
        }
        for rung in outputs.rungs.iter_mut().filter(|rung| !second || rung.gate.is_some()) {
            if rung.sheet.is_some() {
                if outputs.plan.way == Way::Native {
                    continue;
                }
                let chain = &outputs.chains[rung.chain];
                still(rung, chain, &mut picture, self.segment.origo, &self.origins, &outputs.canvases)?;
                continue;
            }
            match &mut rung.gate {
                None => {
                    if let Feed::Split(at) = rung.plan.feed
                        && std::mem::replace(&mut split[at], true)
                    {
                        continue;
                    }
                    let wanted = wanted(rung, &mut picture, &self.origins, &outputs.canvases)?;
                    push(&outputs.chains[rung.chain], wanted, caps.as_ref())?;
                }
                Some(gate) => {
                    gated = true;
                    for shown in gate.arrive(time) {
                        let Some((previous, caps)) = &mut self.previous else { continue };
                        let again = wanted(rung, previous, &self.origins, &outputs.canvases)?;
                        let chain = &outputs.chains[rung.chain];
                        show(rung, chain, &again, caps.as_ref(), shown, self.segment.origo)?;
                    }
                }
            }
        }
        self.previous = gated.then_some((picture, caps));
        Ok(())
    }

    /// Pictures come in the order in which they are shown. One that is not later than the one before has the
    /// time of its decoding, for want of another, or the input's clock went back: it follows at the usual distance.
    fn in_order(&mut self, time: Ticks) -> Ticks {
        let time = match self.latest {
            Some(latest) if time <= latest => Ticks(latest.0 + self.frame_length().unwrap_or(CLOCK / 30)),
            Some(_) | None => time,
        };
        self.step = self.latest.map(|latest| time.0 - latest.0);
        self.latest = Some(time);
        time
    }

    fn frame_length(&self) -> Option<i64> {
        let rate = self.segment.rate.or(self.usual_rate)?;
        Some((CLOCK as f64 / rate.as_f64()).round() as i64)
    }

    fn finish(&mut self) -> Result<(), Failed> {
        if self.shown.is_none() {
            // Nobody may be there to hear it, after a cancel.
            let _ = send(&self.events, Event::NoPicture);
            return Ok(());
        }
        // The rate may have grown since the start, and a gap is no length.
        let (length, step) = (self.frame_length(), self.step);
        let Some(outputs) = &mut self.outputs else { return Ok(()) };
        for rung in &mut outputs.rungs {
            if let Some(sheet) = &mut rung.sheet
                && let Some(rest) = sheet.rest()?
            {
                rung.sheet(&outputs.chains[rung.chain], rest, self.segment.origo)?;
            }
            if let (Some(gate), Some((last, caps))) = (&mut rung.gate, &mut self.previous) {
                let alone = (CLOCK as f64 / rung.plan.rate.as_f64()).round() as i64;
                let length = length.unwrap_or(alone).min(step.unwrap_or(i64::MAX));
                for shown in gate.finish(Ticks(last.time.0 + length)) {
                    let again = wanted(rung, last, &self.origins, &outputs.canvases)?;
                    let chain = &outputs.chains[rung.chain];
                    show(rung, chain, &again, caps.as_ref(), shown, self.segment.origo)?;
                }
            }
        }
        for chain in &outputs.chains {
            chain.end();
        }
        Ok(())
    }

    fn fail(&self, failed: Failed) -> gst::FlowError {
        match failed {
            Failed::Flow(flow) => flow,
            Failed::Fault(fault) => {
                self.faults.report(fault);
                gst::FlowError::Error
            }
        }
    }
}

enum Failed {
    Flow(gst::FlowError),
    Fault(Fault),
}

impl From<gst::FlowError> for Failed {
    fn from(flow: gst::FlowError) -> Self {
        Failed::Flow(flow)
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed::Fault(fault)
    }
}
