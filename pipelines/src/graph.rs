//! Chains of GStreamer elements. Which codecs and scalers are in them is said by the board profiles.
//!
//! ```text
//! decode   appsrc ─ decoder ─ appsink            coded frames in, pictures out
//! prepare  appsrc ─ download ─ videoconvert ─ deinterlace ─ videoflip ─ appsink   only where a picture needs it
//! encode   appsrc ─ [scaler] ─ encoder ─ appsink                            one per rendition
//! split    appsrc ─ scaler ─┬ queue ─ encoder ─ appsink                     where one pass makes several sizes
//!                           └ queue ─ encoder ─ appsink
//! ```
//!
//! A chain lives over many segments: [`Chain::end`] drains it with an EOS inside the stream, and
//! [`Chain::recycle`] flushes it, which takes microseconds and keeps every context. Containers are read and written
//! outside, since demuxers and muxers survive no flush. Between the chains pictures are scaled by [`crate::scale`]
//! in the decoder's thread, while they are still in its cache.

use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use headwater_protocol::{Code, Codec, Fault, Graph};
use headwater_scaler::Slabs;

use crate::board::{Board, ForceKey, Properties};
use crate::coded;
use crate::es::Rotation;
use crate::fit::Size;
use crate::lend::{self, Lent};
use crate::plan::{DecodePlan, Element, RungPlan};
use crate::{busy, hardware, log};

/// The first error of a worker's chains. Later ones are consequences.
#[derive(Debug, Default)]
pub struct Faults {
    first: Mutex<Option<Fault>>,
    memory_means_busy: bool,
}

impl Faults {
    /// Of chains on this board, where a device that refuses a session is no broken one.
    pub fn of(board: &Board) -> Self {
        Self { first: Mutex::default(), memory_means_busy: busy::memory_means_busy(board) }
    }

    /// What an element said; a device that refuses a session is told apart.
    fn met(&self, fault: Fault) {
        self.report(if busy::refused(&fault, self.memory_means_busy) { busy::told(fault) } else { fault });
    }

    pub fn report(&self, fault: Fault) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
    }

    pub fn first(&self) -> Option<Fault> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a chain hands over at its end, called in the chain's own thread.
pub trait Taker: Send + 'static {
    fn sample(&mut self, sample: gst::Sample) -> Result<(), gst::FlowError>;
    fn end(&mut self);
}

#[derive(Debug)]
pub struct Chain {
    place: Place,
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    queue: Queue,
    force_key: Vec<(gst::Element, ForceKey)>,
    /// A flush does not make its elements begin afresh, only a restart does.
    by_ready: bool,
}

/// Where a chain stands, from the far end: the order in which chains are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Encode,
    Prepare,
    Decode,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::Encode => "encode",
            Place::Prepare => "prepare",
            Place::Decode => "decode",
        }
    }
}

/// Coded bytes that may wait before a decoder; a full queue holds the reader of the input back.
const CODED_QUEUE: u64 = 4 << 20;
/// Pictures that may wait before an encoder; a full queue holds the decoder back. Few, so that the slowest
/// encoder, which sets the pace, never waits for the others, and memory stays small.
const PICTURE_QUEUE: u64 = 2;
/// A property of sources since GStreamer 1.20.
const COUNTS_BUFFERS: &str = "max-buffers";

fn failed(what: &str, error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::PipelineFailed, format!("{what}: {error}")).with_detail(log::tail())
}

fn make(element: &Element) -> Result<gst::Element, Fault> {
    hardware::about_to_use(&element.factory);
    let mut builder = gst::ElementFactory::make(&element.factory);
    for (name, value) in &element.properties {
        builder = builder.property_from_str(name, value);
    }
    builder.build().map_err(|error| failed(&element.factory, error))
}

fn plain(factory: &str, properties: &[(&str, &str)]) -> Result<gst::Element, Fault> {
    make(&Element::plain(factory, properties))
}

/// Coded frames of `codec` in, pictures out.
pub fn decode_chain(plan: &DecodePlan, faults: &Arc<Faults>, taker: impl Taker) -> Result<Chain, Fault> {
    let elements = plan.elements.iter().map(make).collect::<Result<_, _>>()?;
    let lent = plan.copies.then(Lent::default);
    // Some decoders give system memory to whoever takes anything, or a format that they cannot make.
    let caps = (plan.feature.is_some() || plan.format.is_some()).then(|| {
        let caps = gst::Caps::builder("video/x-raw").features(plan.feature.as_deref());
        caps.field_if_some("format", plan.format.as_deref()).build()
    });
    let chain = Shape {
        place: Place::Decode,
        queue: Queue::Bytes(CODED_QUEUE),
        trunk: Vec::new(),
        branches: vec![Branch { elements, caps, lent, taker: Box::new(taker), force_key: None }],
        by_ready: false,
    }
    .build(faults)?;
    let mut caps = coded_caps(plan.codec, &Properties::new());
    if plan.codec == Codec::Av1 {
        // Encoders leave it out.
        caps.make_mut().set("stream-format", "obu-stream");
    }
    chain.source.set_caps(Some(&caps));
    chain.start(faults)
}

/// Any picture in, upright progressive pictures of `format` in system memory out. Colours stay what they are.
/// `download`: what carries pictures there; `fields`: a picture of each field, where frames are woven of two.
pub fn prepare_chain(
    download: &[Element],
    rotation: Rotation,
    format: gst_video::VideoFormat,
    fields: bool,
    faults: &Arc<Faults>,
    taker: impl Taker,
) -> Result<Chain, Fault> {
    let direction = match rotation {
        Rotation::None => "identity",
        Rotation::Clockwise90 => "90r",
        Rotation::Half => "180",
        Rotation::Clockwise270 => "90l",
    };
    let caps = gst_video::VideoCapsBuilder::new().format(format).build();
    let mut elements = download.iter().map(make).collect::<Result<Vec<_>, _>>()?;
    elements.extend([
        // First: the other two know few formats.
        plain("videoconvert", &[])?,
        plain("capsfilter", &[("caps", &caps.to_string())])?,
        // Usually one picture per coded frame: 50 fields become 25 pictures.
        plain(
            "deinterlace",
            &[("mode", "auto"), ("fields", if fields { "all" } else { "top" }), ("method", "linear")],
        )?,
        plain("videoflip", &[("video-direction", direction)])?,
    ]);
    Shape {
        place: Place::Prepare,
        queue: Queue::Pictures(PICTURE_QUEUE),
        trunk: Vec::new(),
        branches: vec![Branch {
            elements,
            caps: Some(caps),
            lent: None,
            taker: Box::new(taker),
            force_key: None,
        }],
        by_ready: false,
    }
    .build(faults)?
    .start(faults)
}

/// Pictures in, what `elements` make of them out: for those that prove a scaler.
pub fn picture_chain(
    elements: &[Element],
    input: Option<&gst_video::VideoInfo>,
    faults: &Arc<Faults>,
    taker: impl Taker,
) -> Result<Chain, Fault> {
    let chain = Shape {
        place: Place::Prepare,
        queue: Queue::Pictures(PICTURE_QUEUE),
        trunk: Vec::new(),
        branches: vec![Branch {
            elements: elements.iter().map(make).collect::<Result<_, _>>()?,
            caps: None,
            lent: None,
            taker: Box::new(taker),
            force_key: None,
        }],
        by_ready: false,
    }
    .build(faults)?;
    if let Some(input) = input {
        let caps = input.to_caps().map_err(|error| failed("caps of a picture", error))?;
        chain.source.set_caps(Some(&caps));
    }
    chain.start(faults)
}

fn encode_branch(plan: &RungPlan, taker: impl Taker) -> Result<Branch, Fault> {
    let mut elements = plan.before.iter().map(make).collect::<Result<Vec<_>, _>>()?;
    let encoder = make(&plan.element)?;
    elements.push(encoder.clone());
    for after in &plan.after {
        elements.push(make(after)?);
    }
    Ok(Branch {
        elements,
        caps: Some(coded_caps(plan.codec, &plan.caps)),
        lent: None,
        taker: Box::new(taker),
        force_key: plan.force_key.clone().map(|how| (encoder, how)),
    })
}

/// Pictures in, coded frames out. `input`: the shape of the pictures, where it is known before the first; `slabs`: the
/// memory they are in, where it is ours.
pub fn encode_chain(
    plan: &RungPlan,
    input: Option<&gst_video::VideoInfo>,
    slabs: Option<&Arc<Slabs>>,
    faults: &Arc<Faults>,
    taker: impl Taker,
) -> Result<Chain, Fault> {
    let branch = encode_branch(plan, taker)?;
    if let Some(slabs) = slabs.filter(|_| plan.copies)
        && let Some(pad) = branch.elements.first().and_then(|encoder| encoder.static_pad("sink"))
    {
        lend::let_go_once_copied(&pad, Arc::clone(slabs));
    }
    let chain = Shape {
        place: Place::Encode,
        queue: Queue::Pictures(PICTURE_QUEUE),
        trunk: Vec::new(),
        branches: vec![branch],
        by_ready: plan.by_ready,
    }
    .build(faults)?;
    if let Some(input) = input {
        let caps = input.to_caps().map_err(|error| failed("caps of a rendition", error))?;
        chain.source.set_caps(Some(&caps));
    }
    chain.start(faults)
}

/// Pictures in, coded frames of several renditions out, their sizes made by one pass of `scaler`.
pub fn split_chain<T: Taker>(
    scaler: &Element,
    rungs: Vec<(&RungPlan, T)>,
    faults: &Arc<Faults>,
) -> Result<Chain, Fault> {
    let by_ready = rungs.iter().any(|(plan, _)| plan.by_ready);
    let branches = rungs.into_iter().map(|(plan, taker)| encode_branch(plan, taker));
    Shape {
        place: Place::Encode,
        queue: Queue::Pictures(PICTURE_QUEUE),
        trunk: vec![make(scaler)?],
        branches: branches.collect::<Result<_, _>>()?,
        by_ready,
    }
    .build(faults)?
    .start(faults)
}

fn coded_caps(codec: Codec, fields: &Properties) -> gst::Caps {
    let (name, form): (&str, &[(&str, &str)]) = match codec {
        Codec::H264 => ("video/x-h264", &[("stream-format", "byte-stream"), ("alignment", "au")]),
        Codec::Hevc => ("video/x-h265", &[("stream-format", "byte-stream"), ("alignment", "au")]),
        Codec::Av1 => ("video/x-av1", &[("alignment", "tu")]),
        Codec::Vp9 => ("video/x-vp9", &[]),
        Codec::Vp8 => ("video/x-vp8", &[]),
        Codec::Jpeg => ("image/jpeg", &[]),
        Codec::Fwht => ("video/x-fwht", &[]),
    };
    let mut caps = gst::Caps::builder(name);
    for (field, value) in form {
        caps = caps.field(*field, *value);
    }
    for (field, value) in fields {
        caps = caps.field(field.as_str(), value.as_str());
    }
    caps.build()
}

#[derive(Debug, Clone, Copy)]
enum Queue {
    Bytes(u64),
    Pictures(u64),
}

/// From the chain's trunk, or its source where there is none, to one end.
struct Branch {
    elements: Vec<gst::Element>,
    caps: Option<gst::Caps>,
    /// Memory for its pictures.
    lent: Option<Lent>,
    taker: Box<dyn Taker>,
    /// The encoder, and how it is asked for a keyframe.
    force_key: Option<(gst::Element, ForceKey)>,
}

/// A chain to be built.
struct Shape {
    place: Place,
    queue: Queue,
    trunk: Vec<gst::Element>,
    branches: Vec<Branch>,
    by_ready: bool,
}

impl Shape {
    fn build(self, faults: &Arc<Faults>) -> Result<Chain, Fault> {
        let source = gst_app::AppSrc::builder().format(gst::Format::Time).block(true).build();
        match self.queue {
            Queue::Bytes(bytes) => source.set_max_bytes(bytes),
            Queue::Pictures(pictures) if source.has_property(COUNTS_BUFFERS) => {
                source.set_max_bytes(0);
                source.set_property(COUNTS_BUFFERS, pictures);
            }
            // Said with the first picture.
            Queue::Pictures(_) => {}
        }
        let name = self.place.name();
        let broken = |error: gst::glib::BoolError| failed(name, error);
        let pipeline = gst::Pipeline::with_name(name);
        pipeline.add(&source).map_err(broken)?;
        let mut last: gst::Element = source.clone().upcast();
        for element in &self.trunk {
            pipeline.add(element).map_err(broken)?;
            last.link(element).map_err(broken)?;
            last = element.clone();
        }
        let mut force_key = Vec::new();
        for branch in self.branches {
            let sink = sink(branch.caps.as_ref(), branch.lent, branch.taker);
            // Behind a scaler with several outputs each encoder works in a thread of its own.
            let queue = if self.trunk.is_empty() {
                None
            } else {
                Some(plain(
                    "queue",
                    &[("max-size-buffers", "4"), ("max-size-bytes", "0"), ("max-size-time", "0")],
                )?)
            };
            let all: Vec<&gst::Element> =
                queue.iter().chain(&branch.elements).chain([sink.upcast_ref()]).collect();
            pipeline.add_many(&all).map_err(broken)?;
            gst::Element::link_many(&all).map_err(broken)?;
            // A scaler's further output pads come by request.
            last.link(all[0]).map_err(broken)?;
            force_key.extend(branch.force_key);
        }
        if let Some(bus) = pipeline.bus() {
            let faults = Arc::clone(faults);
            let source = source.downgrade();
            // Messages are looked at where they are made and dropped: a bus that nobody reads would grow.
            bus.set_sync_handler(move |_, message| {
                if let gst::MessageView::Error(error) = message.view() {
                    faults.met(bus_fault(error));
                    // Who waits for room in a chain that has stopped would wait for ever. No event travels here, so
                    // nothing is waited for that the failing element may hold.
                    if let Some(source) = source.upgrade() {
                        let _ = source.end_of_stream();
                    }
                }
                gst::BusSyncReply::Drop
            });
        }
        Ok(Chain {
            place: self.place,
            pipeline,
            source,
            queue: self.queue,
            force_key,
            by_ready: self.by_ready,
        })
    }
}

/// Nothing here runs in real time: no clock, no preroll, no late frames.
fn sink(caps: Option<&gst::Caps>, lent: Option<Lent>, taker: Box<dyn Taker>) -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder().sync(false).async_(false).enable_last_sample(false).qos(false);
    let sink = match caps {
        Some(caps) => sink.caps(caps),
        None => sink,
    }
    .build();
    take_padded_pictures(&sink, lent.clone());
    sink.set_callbacks(callbacks(lent, taker));
    sink
}

impl Chain {
    /// Where it does not start, `faults` have a first one too.
    fn start(self, faults: &Faults) -> Result<Self, Fault> {
        let Err(error) = self.pipeline.set_state(gst::State::Playing) else { return Ok(self) };
        let fault = failed("start of a pipeline", error);
        // Who did not start said more of it on the bus.
        faults.met(fault.clone());
        Err(faults.first().unwrap_or(fault))
    }

    /// Says the size of what comes, of which `first` is the first frame, where that has it: drivers' decoders take
    /// nothing of unknown size, and only some have a parser before them.
    pub fn announce(&self, codec: Codec, first: &[u8]) {
        let Some(mut caps) = self.source.caps() else { return };
        if let Some(Size { width, height }) = coded::size(codec, first)
            && let (Ok(width), Ok(height)) = (i32::try_from(width), i32::try_from(height))
        {
            caps.make_mut().set("width", width);
            caps.make_mut().set("height", height);
            self.source.set_caps(Some(&caps));
        }
    }

    /// Takes one frame or picture, waiting while the queue is full. Fails once the chain is flushed or broken.
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), gst::FlowError> {
        self.make_room(&buffer);
        self.source.push_buffer(buffer).map(|_| ())
    }

    /// Takes one picture whose caps may differ from the last one's.
    pub fn push_sample(&self, sample: &gst::Sample) -> Result<(), gst::FlowError> {
        if let Some(buffer) = sample.buffer() {
            self.make_room(buffer);
        }
        self.source.push_sample(sample).map(|_| ())
    }

    /// Before 1.20 a source counts bytes alone: as many as the pictures have that may wait.
    fn make_room(&self, next: &gst::BufferRef) {
        if let Queue::Pictures(pictures) = self.queue
            && !self.source.has_property(COUNTS_BUFFERS)
        {
            self.source.set_max_bytes(pictures * next.size() as u64);
        }
    }

    /// Ends the segment: the chain gives what it still holds, then calls [`Taker::end`].
    pub fn end(&self) {
        // Not `AppSrc::end_of_stream`: its state outlives a flush.
        self.source.send_event(gst::event::Eos::new());
    }

    /// Makes a drained chain ready for the next segment.
    pub fn recycle(&self) {
        if self.by_ready {
            // What fails here fails again at the next picture, and says so on the bus.
            let _ = self.pipeline.set_state(gst::State::Ready);
            let _ = self.pipeline.set_state(gst::State::Playing);
            return;
        }
        self.source.send_event(gst::event::FlushStart::new());
        self.source.send_event(gst::event::FlushStop::new(true));
        for (encoder, how) in &self.force_key {
            match how {
                ForceKey::Event => {
                    let event = gst_video::DownstreamForceKeyUnitEvent::builder().all_headers(true).build();
                    self.source.send_event(event);
                }
                ForceKey::Signal(name) => encoder.emit_by_name::<()>(name, &[]),
            }
        }
    }

    /// Puts the chain among those that [`Stoppers::stop`] lets go of.
    pub fn join(&self, stoppers: &Stoppers) {
        stoppers.add(self.place, &self.source);
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // An error here means that the chain is broken already, and it goes away either way.
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

/// The chains of a worker, to be stopped from any thread.
#[derive(Debug, Default)]
pub struct Stoppers(Mutex<Joined>);

#[derive(Debug, Default)]
struct Joined {
    stopped: bool,
    sources: Vec<(Place, gst::glib::WeakRef<gst_app::AppSrc>)>,
}

impl Stoppers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Joined> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, place: Place, source: &gst_app::AppSrc) {
        let mut joined = self.lock();
        if joined.stopped {
            // Built while the others were stopped.
            drop(joined);
            source.send_event(gst::event::FlushStart::new());
            return;
        }
        joined.sources.retain(|(_, source)| source.upgrade().is_some());
        joined.sources.push((place, source.downgrade()));
    }

    /// The chains as Graphviz draws them, with every state and caps; the decoder's first.
    pub fn graphs(&self) -> Vec<Graph> {
        let mut joined: Vec<_> = self
            .lock()
            .sources
            .iter()
            .filter_map(|(place, source)| Some((*place, source.upgrade()?)))
            .collect();
        joined.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        let chains = joined.iter().filter_map(|(_, source)| source.parent().and_downcast::<gst::Bin>());
        let draw = |chain: gst::Bin| Graph {
            chain: chain.name().to_string(),
            dot: chain.debug_to_dot_data(gst::DebugGraphDetails::all()).to_string(),
        };
        chains.map(draw).collect()
    }

    /// Lets go of every thread that waits for room in a chain. The chains take nothing afterwards.
    ///
    /// A flush waits for what the chain's end is doing, which may be to wait for room in a later chain, or to build
    /// one. So the far end goes first, and nothing is locked meanwhile.
    pub fn stop(&self) {
        let mut sources = {
            let mut joined = self.lock();
            joined.stopped = true;
            std::mem::take(&mut joined.sources)
        };
        sources.sort_by_key(|(place, _)| *place);
        for source in sources.iter().filter_map(|(_, source)| source.upgrade()) {
            source.send_event(gst::event::FlushStart::new());
        }
    }
}

fn callbacks(lent: Option<Lent>, taker: Box<dyn Taker>) -> gst_app::AppSinkCallbacks {
    let taker = Arc::new(Mutex::new(taker));
    let at_end = Arc::clone(&taker);
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let mut sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let ours = lent.as_ref().and_then(|lent| lent.claim(sample.buffer()?));
            if let Some(ours) = ours {
                sample.make_mut().set_buffer(Some(&ours));
            }
            let mut taker = taker.lock().unwrap_or_else(PoisonError::into_inner);
            taker.sample(sample).map(|()| gst::FlowSuccess::Ok)
        })
        .eos(move |_| at_end.lock().unwrap_or_else(PoisonError::into_inner).end())
        .build()
}

/// Tells elements before `sink` that rows may be padded, as devices' decoders make them: else they copy every picture.
/// appsink says so itself only since GStreamer 1.24. `lent`: what a decoder that copies anyway is offered to copy into.
fn take_padded_pictures(sink: &gst_app::AppSink, lent: Option<Lent>) {
    let Some(pad) = sink.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
        let Some(query) = info.query_mut() else { return gst::PadProbeReturn::Ok };
        let gst::QueryViewMut::Allocation(allocation) = query.view_mut() else {
            return gst::PadProbeReturn::Ok;
        };
        allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
        let info = allocation.get().0.and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
        let bytes = info.and_then(|info| u32::try_from(info.size()).ok());
        if let (Some(lent), Some(bytes)) = (&lent, bytes) {
            allocation.add_allocation_pool(Some(&lent.pool()), bytes, 0, 0);
        }
        gst::PadProbeReturn::Handled
    });
}

fn bus_fault(error: &gst::message::Error) -> Fault {
    let path = error.src().map(|source| source.path_string().to_string()).unwrap_or_default();
    let decoding = path.contains(":decode/");
    let debug = error.debug().map(|debug| debug.to_string()).unwrap_or_default();
    let factory = error.src().and_then(|source| source.downcast_ref::<gst::Element>()?.factory());
    let factory = factory.map(|factory| factory.name().to_string()).unwrap_or_default();
    // A decoder that finds no picture in well-formed input has met bad input; anything else is ours.
    let code = if busy::said(error.error().kind(), &factory, &debug) {
        Code::Busy
    } else if decoding && error.error().kind::<gst::StreamError>().is_some() {
        Code::Undecodable
    } else {
        Code::PipelineFailed
    };
    let text = match code {
        Code::Undecodable => {
            "the video could not be decoded; send segments that a player can play".to_owned()
        }
        _ => format!("GStreamer failed: {}", error.error()),
    };
    Fault::new(code, text).with_detail(format!("{}\n{path}: {}\n{debug}", log::tail(), error.error()))
}
