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
//! Everything here runs in the decoder's thread, or in that of the chain that prepares pictures.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer_video as gst_video;

use headwater_protocol::media::Hdr;
use headwater_protocol::{Code, Container, Fault, FrameRate, Ladder};

use crate::board::{Board, SYSTEM};
use crate::es::{AudioPacket, CLOCK, Rotation, Ticks, Tracks};
use crate::fit::{Gate, Origin, Size, cascade, square};
use crate::graph::{self, Chain, Faults, Stoppers, Taker};
use crate::machine::Machine;
use crate::plan::{self, DecodePlan, Element, Feed, OutputPlan, RungPlan, Way};
use crate::scale::{Canvas, Picture, own};
use crate::sound::Heard;
use crate::still::Sheet;
use crate::tone::{self, Tone};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in a callback has become a fault by then; the data is thrown away with the chains.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What never changes in a worker.
#[derive(Debug)]
pub(crate) struct Setup {
    pub board: Board,
    pub machine: Machine,
    pub ladder: Ladder,
}

/// What the chains tell the collector, in order for each rendition.
#[derive(Debug)]
pub(crate) enum Event {
    Tracks(Tracks),
    /// How far before 0 an MP4 begins.
    Before(Ticks),
    Audio(AudioPacket),
    /// Encoded sound, for the renditions that wish for it.
    Sound(Heard),
    Encoded {
        rung: usize,
        time: Ticks,
        data: Bytes,
    },
    /// A rendition has all its frames.
    Done {
        rung: usize,
    },
    /// The first picture is there: its size as shown, whether it is tone-mapped, and size and rate of each rendition.
    Planned {
        shown: Size,
        hdr: Option<Hdr>,
        rungs: Vec<(Size, FrameRate)>,
    },
    /// There is no video frame: every rendition is the input.
    Copy {
        container: Container,
        bytes: Vec<Bytes>,
    },
    /// The decoder came to its end without a picture.
    NoPicture,
}

/// Where events of the segment in work go; empty between segments.
pub(crate) type Events = Arc<Mutex<Option<SyncSender<Event>>>>;

/// Waits while the collector has enough to do: a slow reader of the output slows the encoders down.
pub(crate) fn send(events: &Events, event: Event) -> Result<(), gst::FlowError> {
    let sender = lock(events).clone();
    sender.ok_or(gst::FlowError::Flushing)?.send(event).map_err(|_| gst::FlowError::Flushing)
}

/// Counts that prove life.
#[derive(Debug)]
pub(crate) struct Counters {
    pub fed: AtomicU64,
    pub decoded: AtomicU64,
    pub pixels: AtomicU64,
    pub encoded: AtomicU64,
    /// A picture at this time or later is there only for others to refer to; see `coded::hidden`.
    pub hidden_from: AtomicI64,
}

/// Times in a segment as the chains count them: nanoseconds from ten seconds before the first frame, so that
/// reordered frames before it stay positive.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origo(i64);

impl Origo {
    pub(crate) fn of(first: Ticks) -> Self {
        Self(first.0 - 10 * CLOCK)
    }

    /// None for a time more than ten seconds before the first frame's.
    pub(crate) fn nanoseconds(self, time: Ticks) -> Option<gst::ClockTime> {
        let ticks = u64::try_from(time.0.checked_sub(self.0)?).ok()?;
        // A tick is 11111.1 ns, so rounding to nanoseconds loses nothing.
        Some(gst::ClockTime::from_nseconds(ticks.checked_mul(100_000)? / 9))
    }

    pub(crate) fn ticks(self, time: gst::ClockTime) -> Ticks {
        let ticks = (u128::from(time.nseconds()) * 9 + 50_000) / 100_000;
        Ticks(self.0 + ticks as i64)
    }
}

/// What is known of a segment before its first picture.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub decode: Arc<DecodePlan>,
    pub origo: Origo,
    pub rotation: Rotation,
    pub rate: Option<FrameRate>,
}

impl Segment {
    /// Nothing was decoded yet.
    fn unknown() -> Self {
        Self {
            decode: Arc::new(DecodePlan::nothing()),
            origo: Origo::default(),
            rotation: Rotation::None,
            rate: None,
        }
    }
}

struct Rung {
    plan: RungPlan,
    /// Index into [`Outputs::chains`]; rungs behind one scaler share theirs.
    chain: usize,
    /// Times of pictures in the encoder, oldest first. Encoders here never reorder.
    inside: Arc<Mutex<VecDeque<Ticks>>>,
    gate: Option<Gate>,
    /// For stills.
    sheet: Option<Sheet>,
}

impl Rung {
    fn sheet(
        &self,
        chain: &Chain,
        (time, mut sheet): (Ticks, gst::Buffer),
        origo: Origo,
    ) -> Result<(), Failed> {
        own(&mut sheet)?.set_pts(origo.nanoseconds(time));
        lock(&self.inside).push_back(time);
        Ok(chain.push(sheet)?)
    }
}

struct Outputs {
    plan: OutputPlan,
    colour: String,
    canvases: Vec<Canvas>,
    chains: Vec<Chain>,
    rungs: Vec<Rung>,
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
    /// Rate of an earlier segment, for those too short to tell.
    usual_rate: Option<FrameRate>,
}

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let hidden_from = AtomicI64::new(i64::MAX);
        Self { fed: zero(), decoded: zero(), pixels: zero(), encoded: zero(), hidden_from }
    }
}

impl Counters {
    pub(crate) fn reset(&self) {
        for count in [&self.fed, &self.decoded, &self.pixels, &self.encoded] {
            count.store(0, Relaxed);
        }
        self.hidden_from.store(i64::MAX, Relaxed);
    }
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

    /// The graphs of all chains, for evidence.
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

    fn build(&self, plan: OutputPlan, colour: String, info: &gst_video::VideoInfo) -> Result<Outputs, Fault> {
        let shape = |size: Size, rate: FrameRate| {
            gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, size.width, size.height)
                .fps(gst::Fraction::new(rate.num() as i32, rate.den() as i32))
                .par(gst::Fraction::new(1, 1))
                .colorimetry(&info.colorimetry())
                .build()
                .map_err(|error| Fault::new(Code::PipelineFailed, error.to_string()))
        };
        let any_rate =
            FrameRate::new(30, 1).map_err(|bad| Fault::new(Code::PipelineFailed, bad.to_string()))?;
        let canvases = plan
            .sizes
            .iter()
            .map(|&size| Canvas::new(shape(size, any_rate)?))
            .collect::<Result<Vec<_>, Fault>>()?;
        let mut chains = Vec::new();
        let mut rungs = Vec::new();
        let mut behind: Vec<Vec<(&RungPlan, Encoded)>> = plan.splits.iter().map(|_| Vec::new()).collect();
        for (at, rung) in plan.rungs.iter().enumerate() {
            let inside = Arc::new(Mutex::new(VecDeque::new()));
            let taker = Encoded {
                rung: at,
                inside: Arc::clone(&inside),
                offset: None,
                events: Arc::clone(&self.events),
                counters: Arc::clone(&self.counters),
                faults: Arc::clone(&self.faults),
            };
            let input = match rung.feed {
                Feed::Canvas(_) => Some(shape(Size::new(rung.width, rung.height), rung.rate)?),
                Feed::Decoded | Feed::Split(_) => None,
            };
            let (sheet, input) = match (rung.still, rung.feed, input) {
                (Some(grid), Feed::Canvas(at), Some(input)) => {
                    let sheet = Sheet::new(grid, plan.sizes[at], input)?;
                    let input = sheet.coded().clone();
                    (Some(sheet), Some(input))
                }
                (_, _, input) => (None, input),
            };
            // Chains of splits come after all others, in their order.
            let chain = match rung.feed {
                Feed::Canvas(_) | Feed::Decoded => {
                    chains.push(graph::encode_chain(rung, input.as_ref(), &self.faults, taker)?);
                    chains.len() - 1
                }
                Feed::Split(split) => {
                    behind[split].push((rung, taker));
                    usize::MAX
                }
            };
            rungs.push(Rung { plan: rung.clone(), chain, inside, gate: None, sheet });
        }
        let first = chains.len();
        for (scaler, behind) in plan.splits.iter().zip(behind) {
            chains.push(graph::split_chain(scaler, behind, &self.faults)?);
        }
        for rung in &mut rungs {
            if let Feed::Split(split) = rung.plan.feed {
                rung.chain = first + split;
            }
        }
        for chain in &chains {
            chain.join(&self.stoppers);
        }
        Ok(Outputs { plan, colour, canvases, chains, rungs })
    }

    /// Takes a picture: prepared for the cascade, or with its caps as the decoder gave it.
    fn picture(
        &mut self,
        buffer: gst::Buffer,
        info: gst_video::VideoInfo,
        caps: Option<&gst::CapsRef>,
    ) -> Result<(), Failed> {
        let decoded = buffer.pts().map(|pts| self.segment.origo.ticks(pts));
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
            self.decoded_size = Some(size);
            self.origins = cascade(size, &outputs.plan.sizes);
        }
        self.counters.decoded.fetch_add(1, Relaxed);
        self.counters.pixels.fetch_add(size.pixels(), Relaxed);
        let Some(time) = time else { return Ok(()) };
        let shown = self.segment.origo.nanoseconds(time);
        if buffer.pts() != shown {
            buffer.make_mut().set_pts(shown);
        }
        let mut picture = Picture::new(time, buffer, info, outputs.plan.sizes.len());
        let caps = caps.map(ToOwned::to_owned);
        let mut gated = false;
        let mut split = vec![false; outputs.plan.splits.len()];
        // Before any push: one push reaches all encoders behind a split, and any may be done with it at once.
        for rung in outputs.rungs.iter().filter(|rung| rung.sheet.is_none() && rung.gate.is_none()) {
            lock(&rung.inside).push_back(time);
        }
        for rung in &mut outputs.rungs {
            if rung.sheet.is_some() {
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

/// Puts `picture` where it is due on a sheet, and pushes sheets that are full.
fn still(
    rung: &mut Rung,
    chain: &Chain,
    picture: &mut Picture,
    origo: Origo,
    origins: &[Origin],
    canvases: &[Canvas],
) -> Result<(), Failed> {
    while let Some(due) = rung.sheet.as_mut().and_then(|sheet| sheet.due(picture.time)) {
        let tile = wanted(rung, picture, origins, canvases)?;
        let Some(sheet) = &mut rung.sheet else { return Ok(()) };
        if let Some(full) = sheet.put(due, &tile)? {
            rung.sheet(chain, full, origo)?;
        }
    }
    Ok(())
}

/// The picture as the rung's chain takes it.
fn wanted(
    rung: &Rung,
    picture: &mut Picture,
    origins: &[Origin],
    canvases: &[Canvas],
) -> Result<gst::Buffer, Fault> {
    match rung.plan.feed {
        Feed::Canvas(at) => picture.at(at, origins, canvases),
        Feed::Decoded | Feed::Split(_) => Ok(picture.whole()),
    }
}

/// `caps`: where pictures come as the decoder gives them, theirs.
fn push(chain: &Chain, buffer: gst::Buffer, caps: Option<&gst::Caps>) -> Result<(), gst::FlowError> {
    match caps {
        None => chain.push(buffer),
        Some(caps) => chain.push_sample(&gst::Sample::builder().buffer(&buffer).caps(caps).build()),
    }
}

/// Pushes a picture as it is shown at another time than its own.
fn show(
    rung: &Rung,
    chain: &Chain,
    picture: &gst::Buffer,
    caps: Option<&gst::Caps>,
    time: Ticks,
    origo: Origo,
) -> Result<(), Failed> {
    let mut again = picture.copy();
    if let Some(again) = again.get_mut() {
        again.set_pts(origo.nanoseconds(time));
    }
    lock(&rung.inside).push_back(time);
    push(chain, again, caps)?;
    Ok(())
}

/// What a decoded picture says of itself.
fn facts(info: &gst_video::VideoInfo, rotation: Rotation, rate: Option<FrameRate>) -> plan::Picture {
    let transfer = info.colorimetry().transfer();
    plan::Picture {
        coded: Size::new(info.width(), info.height()),
        aspect: (info.par().numer().unsigned_abs(), info.par().denom().unsigned_abs()),
        rotation,
        rate,
        interlaced: info.interlace_mode() != gst_video::VideoInterlaceMode::Progressive,
        format: info.format().to_str().to_string(),
        hdr: matches!(
            transfer,
            gst_video::VideoTransferFunction::Smpte2084 | gst_video::VideoTransferFunction::AribStdB67
        ),
    }
}

impl Outputs {
    /// The encoders can do the plan's work. Where a size is scaled from follows each picture, so it does not count.
    fn serves(&self, plan: &OutputPlan, colour: &str) -> bool {
        let OutputPlan { way, sizes, origins: _, splits, rungs } = plan;
        self.colour == colour
            && self.plan.way == *way
            && self.plan.sizes == *sizes
            && self.plan.splits == *splits
            && self.plan.rungs == *rungs
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

/// End of the chain that prepares pictures.
pub(crate) struct Prepared(pub Arc<Mutex<Stage>>);

impl Taker for Prepared {
    fn sample(&mut self, sample: gst::Sample) -> Result<(), gst::FlowError> {
        let (buffer, info) = open(&sample)?;
        let mut stage = lock(&self.0);
        stage.picture(buffer, info, None).map_err(|failed| stage.fail(failed))
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
    /// This segment's pictures go through `prepare`. Once one does, all later ones do, to stay in order.
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
            let Preparation { download, rotation, format } = &wanted;
            let chain = graph::prepare_chain(download, *rotation, *format, &self.faults, taker)?;
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
            return stage.picture(buffer, info, sample.caps());
        }
        let format = tone::format(&info);
        let ready = decode.memory == SYSTEM
            && info.format() == format
            && info.interlace_mode() == gst_video::VideoInterlaceMode::Progressive
            && rotation == Rotation::None;
        if ready && !self.in_use {
            return stage.picture(buffer, info, None);
        }
        drop(stage);
        let download = decode.download.clone();
        let chain = self.prepare(Preparation { download, rotation, format })?;
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

/// End of an encoder's chain: gives each coded frame the exact time of its picture.
struct Encoded {
    rung: usize,
    inside: Arc<Mutex<VecDeque<Ticks>>>,
    /// Encoders shift their times (x264enc by 1000 hours): first time out and first time in.
    offset: Option<(gst::ClockTime, Ticks)>,
    events: Events,
    counters: Arc<Counters>,
    faults: Arc<Faults>,
}

impl Taker for Encoded {
    fn sample(&mut self, sample: gst::Sample) -> Result<(), gst::FlowError> {
        let buffer = sample.buffer_owned().ok_or(gst::FlowError::Error)?;
        let pts = buffer.pts();
        let mapped = buffer.into_mapped_buffer_readable().map_err(|_| gst::FlowError::Error)?;
        let data = Bytes::from_owner(mapped);
        if data.is_empty() {
            // Rockchip's encoder hands on an error of its device like that.
            let text = format!("rendition {}: the encoder gave a frame without bytes", self.rung);
            self.faults.report(Fault::new(Code::BadOutput, text));
            return Err(gst::FlowError::Error);
        }
        let time = lock(&self.inside).pop_front();
        let (Some(time), Some(pts)) = (time, pts) else {
            self.faults.report(Fault::new(Code::BadOutput, "an encoder gave more frames than it got"));
            return Err(gst::FlowError::Error);
        };
        let (first_out, first_in) = *self.offset.get_or_insert((pts, time));
        let out = (i128::from(pts.nseconds()) - i128::from(first_out.nseconds())) * 9 / 100_000;
        if (out - i128::from(time.0 - first_in.0)).abs() > 1 {
            self.faults.report(Fault::new(
                Code::BadOutput,
                format!("rendition {} lost or reordered a frame in its encoder", self.rung),
            ));
            return Err(gst::FlowError::Error);
        }
        self.counters.encoded.fetch_add(1, Relaxed);
        send(&self.events, Event::Encoded { rung: self.rung, time, data })
    }

    fn end(&mut self) {
        self.offset = None;
        let lost = std::mem::take(&mut *lock(&self.inside)).len();
        if lost > 0 {
            let text = format!("rendition {}: the encoder swallowed {lost} frames", self.rung);
            self.faults.report(Fault::new(Code::BadOutput, text));
            return;
        }
        // Nobody may be there to hear it, after a cancel.
        let _ = send(&self.events, Event::Done { rung: self.rung });
    }
}
