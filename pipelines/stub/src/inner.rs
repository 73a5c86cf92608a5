//! What all stand-ins do alike, by their kind.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use headwater_pipelines::machine::ElementFacts;

use crate::fault::{self, Fault};
use crate::kind::{Coder, Kind};
use crate::params::{self, Set, Settings};
use crate::relabel::{Relabel, features};
use crate::slot::spec;
use crate::trace;

/// Sessions of each faulty element in this process.
static SESSIONS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An element's state.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    values: Mutex<BTreeMap<String, Set>>,
    frames_in: Arc<AtomicU64>,
    given: Arc<Given>,
    parts: Mutex<Parts>,
}

/// Frames that went out.
#[derive(Debug, Default)]
struct Given {
    all: AtomicU64,
    /// Since it was started, which a flush is not.
    started: AtomicU64,
    /// From one keyframe to the next; 0: only the first frame is one.
    gop: AtomicU64,
}

impl Given {
    fn start(&self, gop: Option<u32>) {
        self.started.store(0, Relaxed);
        self.gop.store(gop.map_or(0, u64::from), Relaxed);
    }

    /// One more; whether it is a keyframe by the count.
    fn one_more(&self) -> bool {
        self.all.fetch_add(1, Relaxed);
        let number = self.started.fetch_add(1, Relaxed);
        number.is_multiple_of(self.gop.load(Relaxed))
    }
}

/// The software inside.
#[derive(Debug, Default)]
struct Parts {
    tee: Option<gst::Element>,
    coder: Option<gst::Element>,
    sizer: Option<gst::Element>,
    flip: Option<gst::Element>,
    /// Output pads that were asked for.
    asked: u32,
}

pub(crate) fn metadata(place: usize) -> gst::subclass::ElementMetadata {
    let spec = spec(place);
    let class = match spec.kind {
        Kind::Decoder => "Codec/Decoder/Video",
        Kind::Scaler | Kind::Split => "Filter/Converter/Video/Scaler",
        Kind::Encoder(_) => "Codec/Encoder/Video",
    };
    gst::subclass::ElementMetadata::new(
        &spec.name,
        class,
        "Stand-in for tests, not the hardware",
        "Headwater",
    )
}

fn caps(text: &str) -> gst::Caps {
    // What a snapshot has wrong must be seen at once.
    gst::Caps::from_str(text).unwrap_or_else(|error| panic!("caps {text:?}: {error}"))
}

pub(crate) fn templates(place: usize) -> Vec<gst::PadTemplate> {
    let spec = spec(place);
    let (src, presence) = match spec.kind {
        Kind::Split => ("src_%u", gst::PadPresence::Request),
        Kind::Decoder | Kind::Scaler | Kind::Encoder(_) => ("src", gst::PadPresence::Always),
    };
    let sink = gst::PadTemplate::new(
        "sink",
        gst::PadDirection::Sink,
        gst::PadPresence::Always,
        &caps(&spec.sink_caps),
    );
    let src = gst::PadTemplate::new(src, gst::PadDirection::Src, presence, &caps(&spec.src_caps));
    // Names and caps are well-formed.
    [sink, src].into_iter().map(|template| template.expect("a pad template")).collect()
}

pub(crate) fn signals(place: usize) -> Vec<glib::subclass::Signal> {
    let known = spec(place).facts.signals.iter().filter(|name| *name == "force-IDR");
    known
        .map(|name| {
            glib::subclass::Signal::builder(name.as_str())
                .action()
                .run_last()
                .class_handler(move |values| {
                    // Told through an event, as an application's request would come.
                    let element = values[0].get::<gst::Element>().ok()?;
                    if let Some(pad) = element.static_pad("sink") {
                        pad.send_event(gstreamer::event::CustomDownstream::new(
                            gst::Structure::builder("HeadwaterForceIdr").build(),
                        ));
                    }
                    None
                })
                .build()
        })
        .collect()
}

fn make(factory: &str) -> gst::Element {
    gst::ElementFactory::make(factory).build().unwrap_or_else(|_| panic!("the stub needs element {factory}"))
}

/// The other end of a pad that a ghost pad shows.
fn ghost(element: &gst::Element, place: usize, name: &str, of: &gst::Element, pad: &str) -> gst::GhostPad {
    let template = templates(place)
        .into_iter()
        .find(|template| (template.direction() == gst::PadDirection::Sink) == (name == "sink"));
    let target = of.static_pad(pad).expect("an always pad");
    let ghost = match template {
        Some(template) => gst::GhostPad::builder_from_template_with_target(&template, &target),
        None => gst::GhostPad::builder_with_target(&target),
    };
    let ghost = ghost.expect("a pad of the bin's own").name(name).build();
    ghost.set_active(true).expect("a fresh pad");
    element.add_pad(&ghost).expect("a fresh pad");
    ghost
}

fn chain(bin: &gst::Bin, elements: &[&gst::Element]) {
    bin.add_many(elements).expect("fresh elements");
    gst::Element::link_many(elements).expect("raw video everywhere");
}

impl Inner {
    pub(crate) fn set(&self, element: &gst::Element, place: usize, name: &str, value: &glib::Value) {
        let spec = spec(place);
        let Some(value) = Set::of(value) else {
            lock(&self.values).remove(name);
            return;
        };
        if let Some(facts) = spec.facts.properties.get(name)
            && !params::takes(facts, &value)
        {
            trace::tell(&spec.name, &format!("refused {name}={value:?}"));
            gst::element_error!(element, gst::LibraryError::Settings, ["{} does not take {:?}", name, value]);
        }
        lock(&self.values).insert(name.to_owned(), value);
    }

    pub(crate) fn get(&self, spec: &glib::ParamSpec) -> glib::Value {
        match lock(&self.values).get(spec.name()) {
            Some(set) => set.value(spec),
            None => spec.default_value().clone(),
        }
    }

    fn settings(&self, place: usize) -> Settings {
        let spec = spec(place);
        params::settings(&spec.name, &spec.facts, &lock(&self.values))
    }

    pub(crate) fn build(&self, element: &gst::Element, place: usize) {
        let spec = spec(place);
        let Some(bin) = element.downcast_ref::<gst::Bin>() else { return };
        let system = || vec![String::new()];
        let (sink, src) = (features(&caps(&spec.sink_caps)), features(&caps(&spec.src_caps)));
        let mut parts = lock(&self.parts);
        match spec.kind {
            Kind::Decoder => {
                let entry = make("identity");
                let convert = make("videoconvert");
                let (format, out) =
                    (make("capsfilter"), Relabel::between(system(), src).upcast::<gst::Element>());
                // What a codec block gives for video of 8 bits, unless it says otherwise.
                if spec.src_caps.contains("NV12") {
                    format.set_property("caps", caps("video/x-raw,format=NV12"));
                }
                bin.add(&entry).expect("a fresh element");
                chain(bin, &[&convert, &format, &out]);
                decoder_when_known(&entry, bin, &convert, element.clone().downgrade());
                ghost(element, place, "sink", &entry, "sink");
                ghost(element, place, "src", &out, "src");
            }
            Kind::Scaler => {
                let input = Relabel::between(sink, system()).upcast::<gst::Element>();
                let (convert, scale, flip) = (make("videoconvert"), make("videoscale"), make("videoflip"));
                let out = Relabel::between(system(), src).upcast::<gst::Element>();
                chain(bin, &[&input, &convert, &scale, &flip, &out]);
                parts.flip = Some(flip);
                ghost(element, place, "sink", &input, "sink");
                ghost(element, place, "src", &out, "src");
            }
            Kind::Split => {
                let input = Relabel::between(sink, system()).upcast::<gst::Element>();
                let tee = make("tee");
                chain(bin, &[&input, &tee]);
                parts.tee = Some(tee);
                ghost(element, place, "sink", &input, "sink");
            }
            Kind::Encoder(coder) => {
                let input = Relabel::between(sink, system()).upcast::<gst::Element>();
                let (convert, scale, sizer) = (make("videoconvert"), make("videoscale"), make("capsfilter"));
                let (encoder, filter) = (encoder(coder), make("capsfilter"));
                filter.set_property("caps", caps(coder.caps()));
                chain(bin, &[&input, &convert, &scale, &sizer, &encoder, &filter]);
                parts.coder = Some(encoder);
                parts.sizer = Some(sizer);
                ghost(element, place, "sink", &input, "sink");
                ghost(element, place, "src", &filter, "src");
            }
        }
        drop(parts);
        self.watch(element, place);
    }

    /// Counts frames, tells caps, and does what the element's fault is.
    fn watch(&self, element: &gst::Element, place: usize) {
        let name = &spec(place).name;
        let fault = fault::of(name);
        if let Some(pad) = element.static_pad("sink") {
            let count = Arc::clone(&self.frames_in);
            pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
                match &info.data {
                    Some(gst::PadProbeData::Buffer(_)) => entering(fault, count.fetch_add(1, Relaxed) + 1),
                    Some(gst::PadProbeData::Event(event)) => entering_event(name, fault, event),
                    _ => gst::PadProbeReturn::Ok,
                }
            });
        }
        if let Some(pad) = element.static_pad("src") {
            watch_out(&pad, name, fault, Arc::clone(&self.given));
        }
    }

    pub(crate) fn request(
        &self,
        element: &gst::Element,
        place: usize,
        _template: &gst::PadTemplate,
    ) -> Option<gst::Pad> {
        let spec = spec(place);
        let bin = element.downcast_ref::<gst::Bin>()?;
        let mut parts = lock(&self.parts);
        let tee = parts.tee.clone()?;
        let number = parts.asked;
        parts.asked += 1;
        let (convert, scale) = (make("videoconvert"), make("videoscale"));
        let out =
            Relabel::between(vec![String::new()], features(&caps(&spec.src_caps))).upcast::<gst::Element>();
        chain(bin, &[&convert, &scale, &out]);
        tee.link(&convert).ok()?;
        for one in [&convert, &scale, &out] {
            one.sync_state_with_parent().ok()?;
        }
        let pad = ghost(element, place, &format!("src_{number}"), &out, "src");
        watch_out(pad.upcast_ref(), &spec.name, fault::of(&spec.name), Arc::clone(&self.given));
        Some(pad.upcast())
    }

    pub(crate) fn before(
        &self,
        element: &gst::Element,
        place: usize,
        change: gst::StateChange,
    ) -> Result<(), gst::StateChangeError> {
        let spec = spec(place);
        if change == gst::StateChange::NullToReady {
            if fault::of(&spec.name) == Some(Fault::NoDevice) {
                gst::element_error!(
                    element,
                    gst::ResourceError::OpenReadWrite,
                    ("{}: it cannot open its device", spec.name)
                );
                return Err(gst::StateChangeError);
            }
            list_controls(element, &spec.facts);
        }
        let stops = change == gst::StateChange::PausedToReady;
        while stops && fault::of(&spec.name) == Some(Fault::HangOnStop) {
            std::thread::park();
        }
        if change != gst::StateChange::ReadyToPaused {
            return Ok(());
        }
        let settings = self.settings(place);
        trace::tell(&spec.name, &format!("starts {settings:?}"));
        open_session(element, &spec.name)?;
        self.given.start(settings.gop);
        let parts = lock(&self.parts);
        if let (Some(flip), Some(turn)) = (&parts.flip, settings.turn) {
            flip.set_property_from_str("method", turn);
        }
        if let (Some(sizer), Some((width, height))) = (&parts.sizer, settings.size) {
            sizer.set_property(
                "caps",
                caps(&format!("video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1")),
            );
        }
        if let (Some(coder), Kind::Encoder(kind)) = (&parts.coder, spec.kind) {
            tune(coder, kind, &settings);
        }
        Ok(())
    }

    pub(crate) fn after(&self, place: usize, change: gst::StateChange, _ok: bool) {
        if change != gst::StateChange::PausedToReady {
            return;
        }
        let name = &spec(place).name;
        if let Some(count) = lock(&SESSIONS).get_mut(name) {
            *count = count.saturating_sub(1);
        }
        let (seen, given) = (self.frames_in.load(Relaxed), self.given.all.load(Relaxed));
        trace::tell(name, &format!("stops in={seen} out={given}"));
    }
}

/// Counted and refused under one lock, for sessions open side by side.
fn open_session(element: &gst::Element, name: &str) -> Result<(), gst::StateChangeError> {
    let mut sessions = lock(&SESSIONS);
    let count = sessions.entry(name.to_owned()).or_default();
    if let Some(Fault::Busy(most)) = fault::of(name)
        && *count + 1 >= most
    {
        // Whoever reads of it on the bus may ask for a session in turn.
        drop(sessions);
        gst::element_error!(
            element,
            gst::ResourceError::NoSpaceLeft,
            ("{}: out of memory for another session", name)
        );
        return Err(gst::StateChangeError);
    }
    *count += 1;
    Ok(())
}

/// A frame comes in.
fn entering(fault: Option<Fault>, count: u64) -> gst::PadProbeReturn {
    match fault {
        Some(Fault::Crash(at)) if count >= at => std::process::abort(),
        Some(Fault::Hang(at)) if count >= at => loop {
            std::thread::park();
        },
        Some(Fault::Slow(milliseconds)) => {
            std::thread::sleep(std::time::Duration::from_millis(milliseconds));
            gst::PadProbeReturn::Ok
        }
        Some(Fault::NoOutput) => gst::PadProbeReturn::Drop,
        Some(Fault::Flood) => {
            let line = "the vendor's library has much to say about nothing\n".repeat(2000);
            print!("{line}");
            eprint!("{line}");
            gst::PadProbeReturn::Ok
        }
        Some(
            Fault::Crash(_)
            | Fault::Hang(_)
            | Fault::NoDevice
            | Fault::HangOnDrain
            | Fault::HangOnStop
            | Fault::Busy(_)
            | Fault::IgnoreKeyframe
            | Fault::NoTime(_)
            | Fault::EmptyBuffers,
        )
        | None => gst::PadProbeReturn::Ok,
    }
}

fn entering_event(name: &str, fault: Option<Fault>, event: &gst::Event) -> gst::PadProbeReturn {
    match event.view() {
        gst::EventView::Caps(caps) => {
            trace::tell(name, &format!("takes {}", caps.caps()));
            gst::PadProbeReturn::Ok
        }
        gst::EventView::Eos(_) if fault == Some(Fault::HangOnDrain) => gst::PadProbeReturn::Drop,
        gst::EventView::CustomDownstream(custom)
            if custom.structure().is_some_and(|structure| {
                ["HeadwaterForceIdr", "GstForceKeyUnit"].contains(&structure.name().as_str())
            }) =>
        {
            trace::tell(name, "is asked for a keyframe");
            gst::PadProbeReturn::Ok
        }
        _ => gst::PadProbeReturn::Ok,
    }
}

/// As GStreamer's V4L2 elements write of their device's controls into their log when they open it.
fn list_controls(element: &gst::Element, facts: &ElementFacts) {
    static V4L2: LazyLock<gst::DebugCategory> =
        LazyLock::new(|| gst::DebugCategory::new("v4l2", gst::DebugColorFlags::empty(), None));
    let Some(controls) = &facts.controls else { return };
    gst::debug!(V4L2, obj = element, "  controls+menus");
    for name in controls.keys() {
        gst::debug!(V4L2, obj = element, "ControlID {name} (0) unhandled, FIXME");
    }
}

/// Frames go out at `pad`.
fn watch_out(pad: &gst::Pad, name: &'static str, fault: Option<Fault>, given: Arc<Given>) {
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let is_due = given.one_more();
                match fault {
                    Some(Fault::EmptyBuffers) => {
                        let mut empty = gst::Buffer::new();
                        if let Some(fresh) = empty.get_mut() {
                            fresh.set_pts(buffer.pts());
                        }
                        *buffer = empty;
                    }
                    Some(Fault::IgnoreKeyframe) if !is_due => no_keyframe(buffer.make_mut()),
                    Some(Fault::NoTime(at)) if given.all.load(Relaxed) == at => {
                        buffer.make_mut().set_pts(None);
                    }
                    Some(
                        Fault::NoOutput
                        | Fault::NoDevice
                        | Fault::HangOnDrain
                        | Fault::HangOnStop
                        | Fault::Hang(_)
                        | Fault::Busy(_)
                        | Fault::IgnoreKeyframe
                        | Fault::NoTime(_)
                        | Fault::Crash(_)
                        | Fault::Flood
                        | Fault::Slow(_),
                    )
                    | None => {}
                }
            }
            Some(gst::PadProbeData::Event(event)) => {
                if let gst::EventView::Caps(caps) = event.view() {
                    trace::tell(name, &format!("gives {}", caps.caps()));
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// Makes an IDR frame of H.264 (NAL unit type 5) any frame (type 1), and says so.
fn no_keyframe(buffer: &mut gst::BufferRef) {
    buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
    let Ok(mut bytes) = buffer.map_writable() else { return };
    for at in 3..bytes.len() {
        if bytes[at - 3..at] == [0, 0, 1] && bytes[at] & 0x1f == 5 {
            bytes[at] = bytes[at] & 0xe0 | 1;
        }
    }
}

/// The decoder inside is chosen by the caps that come.
fn decoder_when_known(
    entry: &gst::Element,
    bin: &gst::Bin,
    convert: &gst::Element,
    element: glib::WeakRef<gst::Element>,
) {
    let (entry_weak, bin, convert) = (entry.downgrade(), bin.downgrade(), convert.downgrade());
    let Some(pad) = entry.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::PadProbeData::Event(event)) = &info.data else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Caps(caps) = event.view() else { return gst::PadProbeReturn::Ok };
        let (Some(entry), Some(bin), Some(convert)) =
            (entry_weak.upgrade(), bin.upgrade(), convert.upgrade())
        else {
            return gst::PadProbeReturn::Ok;
        };
        if entry.static_pad("src").is_some_and(|pad| pad.is_linked()) {
            return gst::PadProbeReturn::Ok;
        }
        let media =
            caps.caps().structure(0).map(|structure| structure.name().to_string()).unwrap_or_default();
        let factory = match media.as_str() {
            "video/x-h264" => "avdec_h264",
            "video/x-h265" => "avdec_h265",
            "video/x-av1" => "av1dec",
            "video/x-vp8" => "vp8dec",
            "video/x-vp9" => "vp9dec",
            "image/jpeg" => "jpegdec",
            other => {
                if let Some(element) = element.upgrade() {
                    gst::element_error!(
                        element,
                        gst::StreamError::WrongType,
                        ["it does not decode {}", other]
                    );
                }
                return gst::PadProbeReturn::Drop;
            }
        };
        let decoder = make(factory);
        bin.add(&decoder).expect("a fresh element");
        gst::Element::link_many([&entry, &decoder, &convert]).expect("coded video in, raw video out");
        decoder.sync_state_with_parent().expect("a software decoder starts");
        gst::PadProbeReturn::Ok
    });
}

fn encoder(coder: Coder) -> gst::Element {
    let (factory, fixed): (&str, &[(&str, &str)]) = match coder {
        Coder::H264 => (
            "x264enc",
            &[
                ("speed-preset", "ultrafast"),
                ("bframes", "0"),
                ("byte-stream", "true"),
                ("threads", "1"),
                ("option-string", "scenecut=0:open-gop=0"),
            ],
        ),
        Coder::Hevc => (
            "x265enc",
            &[
                ("speed-preset", "ultrafast"),
                ("option-string", "scenecut=0:open-gop=0:bframes=0:repeat-headers=1:pools=1"),
            ],
        ),
        Coder::Av1 => ("av1enc", &[("cpu-used", "8")]),
        Coder::Jpeg => ("jpegenc", &[]),
        Coder::Vp8 => ("vp8enc", &[("deadline", "1")]),
        Coder::Vp9 => ("vp9enc", &[("deadline", "1")]),
    };
    let element = make(factory);
    for (name, value) in fixed {
        element.set_property_from_str(name, value);
    }
    element
}

/// The vendor's numbers in the software encoder's.
fn tune(coder: &gst::Element, kind: Coder, settings: &Settings) {
    // 4 Mbit/s is what NVIDIA's encoders take when nobody says anything.
    let bits = settings.bits.unwrap_or(4_000_000);
    let kilobits = u32::try_from(bits / 1000).unwrap_or(u32::MAX).clamp(1, 100_000);
    let gop = settings.gop.map_or(1_000_000, |gop| i32::try_from(gop).unwrap_or(i32::MAX));
    match kind {
        Coder::H264 => {
            coder.set_property("bitrate", kilobits);
            coder.set_property_from_str("pass", "cbr");
            coder.set_property("key-int-max", gop.unsigned_abs());
            let headers = if settings.headers { "1" } else { "0" };
            coder.set_property_from_str(
                "option-string",
                &format!("scenecut=0:open-gop=0:repeat-headers={headers}"),
            );
        }
        Coder::Hevc => {
            coder.set_property("bitrate", kilobits);
            coder.set_property("key-int-max", gop);
        }
        Coder::Av1 => {
            coder.set_property("target-bitrate", kilobits);
            coder.set_property("keyframe-max-dist", gop);
        }
        Coder::Vp8 | Coder::Vp9 => {
            coder.set_property("target-bitrate", i32::try_from(bits).unwrap_or(i32::MAX));
            coder.set_property("keyframe-max-dist", gop);
        }
        Coder::Jpeg => {}
    }
}
