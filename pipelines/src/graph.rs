//! Chains of GStreamer elements, and the only place besides the board profiles that names elements.
//!
//! ```text
//! decode   appsrc ─ decoder ─ appsink            coded frames in, pictures out
//! prepare  appsrc ─ deinterlace ─ videoflip ─ videoconvert ─ appsink      only where a picture needs it
//! encode   appsrc ─ encoder ─ appsink            one per rendition
//! ```
//!
//! A chain lives over many segments: [`Chain::end`] drains it with an EOS inside the stream, and
//! [`Chain::recycle`] flushes it, which takes microseconds and keeps every context. Containers are read and written
//! outside, since demuxers and muxers survive no flush. Between the chains pictures are scaled by [`crate::scale`]
//! in the decoder's thread, while they are still in its cache.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use headwater_protocol::{Code, Codec, Fault};

use crate::es::Rotation;
use crate::log;
use crate::plan::{DecodePlan, Element, Machine, RungPlan};

/// The first error of a worker's chains. Later ones are consequences.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Option<Fault>>);

impl Faults {
    pub fn report(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
    }

    pub fn first(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    /// A flush does not make its element begin afresh, only a restart does.
    restarts: bool,
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
const PICTURE_QUEUE: u64 = 4;

/// What is at hand in this process's registry of elements.
pub fn machine() -> Machine {
    let elements: BTreeSet<String> = gst::Registry::get()
        .features(gst::ElementFactory::static_type())
        .into_iter()
        .map(|feature| feature.name().to_string())
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    Machine { elements, cores: u32::try_from(cores).unwrap_or(1) }
}

fn failed(what: &str, error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::PipelineFailed, format!("{what}: {error}")).with_detail(log::tail())
}

fn make(element: &Element) -> Result<gst::Element, Fault> {
    let mut builder = gst::ElementFactory::make(&element.factory);
    for (name, value) in &element.properties {
        builder = builder.property_from_str(name, value);
    }
    builder.build().map_err(|error| failed(&element.factory, error))
}

fn plain(factory: &str, properties: &[(&str, &str)]) -> Result<gst::Element, Fault> {
    make(&Element {
        factory: factory.to_owned(),
        properties: properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
    })
}

/// Coded frames of `codec` in, pictures out.
pub fn decode_chain(plan: &DecodePlan, faults: &Arc<Faults>, taker: impl Taker) -> Result<Chain, Fault> {
    let mut caps = coded_caps(plan.codec, None);
    if plan.codec == Codec::Av1 {
        // Encoders leave it out.
        caps.make_mut().set("stream-format", "obu-stream");
    }
    let elements = plan.elements.iter().map(make).collect::<Result<_, _>>()?;
    let chain = Chain::new(Place::Decode, Queue::Bytes(CODED_QUEUE), elements, None, faults, taker)?;
    chain.source.set_caps(Some(&caps));
    chain.start()
}

/// Any picture in, upright progressive I420 out.
pub fn prepare_chain(rotation: Rotation, faults: &Arc<Faults>, taker: impl Taker) -> Result<Chain, Fault> {
    let direction = match rotation {
        Rotation::None => "identity",
        Rotation::Clockwise90 => "90r",
        Rotation::Half => "180",
        Rotation::Clockwise270 => "90l",
    };
    let elements = vec![
        // First, for the others do not take every kind of pixels.
        plain("videoconvert", &[])?,
        // One picture per coded frame: 50 fields become 25 pictures.
        plain("deinterlace", &[("mode", "auto"), ("fields", "top"), ("method", "linear")])?,
        plain("videoflip", &[("video-direction", direction)])?,
    ];
    let caps = gst_video::VideoCapsBuilder::new().format(gst_video::VideoFormat::I420).build();
    let chain =
        Chain::new(Place::Prepare, Queue::Pictures(PICTURE_QUEUE), elements, Some(caps), faults, taker)?;
    chain.start()
}

/// Pictures of `input` in, coded frames out.
pub fn encode_chain(
    plan: &RungPlan,
    input: &gst_video::VideoInfo,
    faults: &Arc<Faults>,
    taker: impl Taker,
) -> Result<Chain, Fault> {
    let caps = coded_caps(plan.codec, plan.profile);
    let elements = vec![make(&plan.element)?];
    let mut chain =
        Chain::new(Place::Encode, Queue::Pictures(PICTURE_QUEUE), elements, Some(caps), faults, taker)?;
    // libaom goes on after a drain as if nothing had ended: no keyframe.
    chain.restarts = plan.element.factory == "av1enc";
    let caps = input.to_caps().map_err(|error| failed("caps of a rendition", error))?;
    chain.source.set_caps(Some(&caps));
    chain.start()
}

fn coded_caps(codec: Codec, profile: Option<&str>) -> gst::Caps {
    let name = match codec {
        Codec::H264 => "video/x-h264",
        Codec::Hevc => "video/x-h265",
        Codec::Av1 => "video/x-av1",
        Codec::Vp9 => "video/x-vp9",
        Codec::Vp8 => "video/x-vp8",
    };
    let mut caps = gst::Caps::builder(name);
    if matches!(codec, Codec::H264 | Codec::Hevc) {
        caps = caps.field("stream-format", "byte-stream").field("alignment", "au");
    }
    if codec == Codec::Av1 {
        caps = caps.field("alignment", "tu");
    }
    caps.field_if_some("profile", profile).build()
}

enum Queue {
    Bytes(u64),
    Pictures(u64),
}

impl Chain {
    fn new(
        place: Place,
        queue: Queue,
        elements: Vec<gst::Element>,
        caps: Option<gst::Caps>,
        faults: &Arc<Faults>,
        taker: impl Taker,
    ) -> Result<Self, Fault> {
        let (bytes, pictures) = match queue {
            Queue::Bytes(bytes) => (bytes, 0),
            Queue::Pictures(pictures) => (0, pictures),
        };
        let source = gst_app::AppSrc::builder()
            .format(gst::Format::Time)
            .block(true)
            .max_bytes(bytes)
            .max_buffers(pictures)
            .build();
        // Nothing here runs in real time: no clock, no preroll, no late frames.
        let sink = gst_app::AppSink::builder().sync(false).async_(false).enable_last_sample(false).qos(false);
        let sink = match &caps {
            Some(caps) => sink.caps(caps),
            None => sink,
        }
        .build();
        take_padded_pictures(&sink);
        sink.set_callbacks(callbacks(taker));

        let name = place.name();
        let pipeline = gst::Pipeline::with_name(name);
        let mut all: Vec<&gst::Element> = vec![source.upcast_ref()];
        all.extend(&elements);
        all.push(sink.upcast_ref());
        pipeline.add_many(&all).map_err(|error| failed(name, error))?;
        gst::Element::link_many(&all).map_err(|error| failed(name, error))?;
        if let Some(bus) = pipeline.bus() {
            let faults = Arc::clone(faults);
            // Messages are looked at where they are made and dropped: a bus that nobody reads would grow.
            bus.set_sync_handler(move |_, message| {
                if let gst::MessageView::Error(error) = message.view() {
                    faults.report(bus_fault(error));
                }
                gst::BusSyncReply::Drop
            });
        }
        Ok(Self { place, pipeline, source, restarts: false })
    }

    fn start(self) -> Result<Self, Fault> {
        self.pipeline.set_state(gst::State::Playing).map_err(|error| failed("start of a pipeline", error))?;
        Ok(self)
    }

    /// Takes one frame or picture, waiting while the queue is full. Fails once the chain is flushed or broken.
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), gst::FlowError> {
        self.source.push_buffer(buffer).map(|_| ())
    }

    /// Takes one picture whose caps may differ from the last one's.
    pub fn push_sample(&self, sample: &gst::Sample) -> Result<(), gst::FlowError> {
        self.source.push_sample(sample).map(|_| ())
    }

    /// Ends the segment: the chain gives what it still holds, then calls [`Taker::end`].
    pub fn end(&self) {
        // Not `AppSrc::end_of_stream`: its state outlives a flush.
        self.source.send_event(gst::event::Eos::new());
    }

    /// Makes a drained chain ready for the next segment.
    pub fn recycle(&self) {
        if self.restarts {
            // What fails here fails again at the next picture, and says so on the bus.
            let _ = self.pipeline.set_state(gst::State::Ready);
            let _ = self.pipeline.set_state(gst::State::Playing);
            return;
        }
        self.source.send_event(gst::event::FlushStart::new());
        self.source.send_event(gst::event::FlushStop::new(true));
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

fn callbacks(taker: impl Taker) -> gst_app::AppSinkCallbacks {
    let taker = Arc::new(Mutex::new(taker));
    let at_end = Arc::clone(&taker);
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let mut taker = taker.lock().unwrap_or_else(PoisonError::into_inner);
            taker.sample(sample).map(|()| gst::FlowSuccess::Ok)
        })
        .eos(move |_| at_end.lock().unwrap_or_else(PoisonError::into_inner).end())
        .build()
}

/// Tells elements before `sink` that rows may be padded. Without it libav decoders copy every picture; appsink
/// answers this query itself only since GStreamer 1.24.
fn take_padded_pictures(sink: &gst_app::AppSink) {
    let Some(pad) = sink.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        let Some(query) = info.query_mut() else { return gst::PadProbeReturn::Ok };
        let gst::QueryViewMut::Allocation(allocation) = query.view_mut() else {
            return gst::PadProbeReturn::Ok;
        };
        allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
        gst::PadProbeReturn::Handled
    });
}

fn bus_fault(error: &gst::message::Error) -> Fault {
    let path = error.src().map(|source| source.path_string().to_string()).unwrap_or_default();
    let decoding = path.contains(":decode/");
    // A decoder that finds no picture in well-formed input has met bad input; anything else is ours.
    let code = if decoding && error.error().kind::<gst::StreamError>().is_some() {
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
    let debug = error.debug().map(|debug| debug.to_string()).unwrap_or_default();
    Fault::new(code, text).with_detail(format!("{}\n{path}: {}\n{debug}", log::tail(), error.error()))
}
