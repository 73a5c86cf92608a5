//! The near end of a segment: bytes to coded frames to the decoder, audio past it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;

use headwater_protocol::{Code, Codec, Container, Fault, FrameRate};

use crate::coded;
use crate::demux::Demuxer;
use crate::engine::{Decoder, Input, Next, TICK};
use crate::es::{CLOCK, Frame, Item, Rotation, Ticks, Tracks};
use crate::fit::measure_rate;
use crate::graph::{Chain, Faults};
use crate::known::Known;
use crate::plan::{self, Trust};
use crate::sound::Heard;
use crate::stage::{Counters, Event, Events, Origo, Segment, Stage, lock, send};

/// Frames looked at to tell the frame rate before the first goes to the decoder.
const RATE_FRAMES: usize = 9;

/// What the collector sees of the feeder.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Input is being waited for, so standing still is not our fault.
    pub waiting: AtomicBool,
    /// The segment has ended already; stop reading.
    pub give_up: AtomicBool,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Fed {
    pub container: Container,
    pub bytes: u64,
    pub errors: u32,
    pub codec: Option<Codec>,
    pub audio_streams: u32,
    /// Coded frames, lost ones too.
    pub frames: u64,
    pub rate: Option<FrameRate>,
    pub first: Option<Ticks>,
    pub last: Option<Ticks>,
}

/// The segment ended before its input did: a fault is reported elsewhere, or nobody wants it any more.
struct Over;

pub(crate) struct Feeder<'a> {
    pub events: &'a Events,
    pub stage: &'a Mutex<Stage>,
    pub faults: &'a Faults,
    pub counters: &'a Counters,
    pub shared: &'a Shared,
    pub cancel: &'a AtomicBool,
    pub max_duration: Duration,
    /// In place of the container's.
    pub rotation: Option<Rotation>,
}

/// State of one segment.
struct Feeding<'a, D> {
    feeder: Feeder<'a>,
    decoder: D,
    demuxer: Demuxer,
    tracks: Option<Tracks>,
    known: Known,
    /// Frames from the first keyframe on, until the rate is known.
    head: Vec<Frame>,
    chain: Option<Arc<Chain>>,
    origo: Origo,
    rate: Option<FrameRate>,
    codec: Option<Codec>,
    frames: u64,
    audio_packets: u64,
    errors: u32,
    /// Of pictures.
    seen: Option<Span>,
    /// Of sound.
    heard: Option<Span>,
    /// The whole input while no frame was seen: it may have to be handed on as it is.
    kept: Vec<Bytes>,
}

impl<'a> Feeder<'a> {
    /// Reads to the end or until the segment is over. Faults are reported, not returned.
    pub(crate) fn run<D>(self, hint: Container, input: &mut dyn Input, decoder: D) -> Fed
    where
        D: FnMut(plan::Input) -> Result<Decoder, Fault>,
    {
        // A whole file at once has no limit in bytes either.
        let unlimited = self.max_duration == Duration::MAX;
        let demuxer = if unlimited { Demuxer::without_limit(hint) } else { Demuxer::new(hint) };
        let mut feeding = Feeding {
            feeder: self,
            decoder,
            demuxer,
            tracks: None,
            known: Known::default(),
            head: Vec::new(),
            chain: None,
            origo: Origo::default(),
            rate: None,
            codec: None,
            frames: 0,
            audio_packets: 0,
            errors: 0,
            seen: None,
            heard: None,
            kept: Vec::new(),
        };
        let mut bytes = 0;
        // Over: whoever ended the segment has said why.
        let _ = feeding.all(input, &mut bytes);
        Fed {
            container: feeding.demuxer.container(),
            bytes,
            errors: feeding.errors + feeding.demuxer.errors(),
            codec: feeding.codec,
            audio_streams: feeding.tracks.map_or(0, |tracks| tracks.audio.len() as u32),
            frames: feeding.frames,
            rate: feeding.rate,
            first: feeding.seen.map(|span| span.first),
            last: feeding.seen.map(|span| span.last),
        }
    }
}

/// From the first time to the last.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: Ticks,
    last: Ticks,
}

/// The span with `now` in it.
fn reaching(span: Option<Span>, now: Ticks) -> Span {
    span.map_or(Span { first: now, last: now }, |span| Span {
        first: span.first.min(now),
        last: span.last.max(now),
    })
}

/// The first time at which anything is shown or heard.
fn earliest(items: &[Item]) -> Ticks {
    let times = items.iter().filter_map(|item| match item {
        Item::Video(frame) => Some(frame.pts),
        Item::Audio(packet) => Some(packet.pts),
        Item::Tracks(_) => None,
    });
    times.min().unwrap_or(Ticks(0))
}

impl<D> Feeding<'_, D>
where
    D: FnMut(plan::Input) -> Result<Decoder, Fault>,
{
    fn fault(&self, fault: Fault) -> Over {
        self.feeder.faults.report(fault);
        Over
    }

    fn all(&mut self, input: &mut dyn Input, bytes: &mut u64) -> Result<(), Over> {
        let mut items = Vec::new();
        let mut demuxed = false;
        loop {
            if self.feeder.cancel.load(Relaxed) || self.feeder.shared.give_up.load(Relaxed) {
                return Err(Over);
            }
            self.feeder.shared.waiting.store(true, Relaxed);
            let next = input.next(TICK);
            self.feeder.shared.waiting.store(false, Relaxed);
            match next {
                Next::Nothing => {}
                Next::End => break,
                Next::Bytes(piece) => {
                    *bytes += piece.len() as u64;
                    if self.frames == 0 {
                        self.kept.push(piece.clone());
                    }
                    self.demuxer.push(piece, &mut items).map_err(|fault| self.fault(fault))?;
                    self.items(&mut items, input)?;
                }
                Next::Items(mut given) => {
                    demuxed = true;
                    self.items(&mut given, input)?;
                }
            }
        }
        if demuxed {
            return self.end();
        }
        if *bytes == 0 {
            return Err(self.fault(Fault::new(Code::EmptyInput, "the segment is empty; send its bytes")));
        }
        self.demuxer.finish(&mut items).map_err(|fault| self.fault(fault))?;
        if self.demuxer.container() == Container::Mp4 {
            let first = earliest(&items);
            let sounds = self.hear(input, Some(Ticks(first.0.max(0) + 1)))?;
            let heard = sounds.iter().map(|heard| heard.packet.pts).min().unwrap_or(first);
            let before = Ticks(-first.min(heard).0.min(0));
            send(self.feeder.events, Event::Before(before)).map_err(|_| Over)?;
            self.tell(sounds)?;
        }
        self.items(&mut items, input)?;
        let sounds = self.hear(input, None)?;
        self.tell(sounds)?;
        self.end()
    }

    /// Sound that was encoded elsewhere.
    fn hear(&mut self, input: &mut dyn Input, until: Option<Ticks>) -> Result<Vec<Heard>, Over> {
        // All that is left may be an hour after the last picture; anything else is a few seconds.
        self.feeder.shared.waiting.store(until.is_none(), Relaxed);
        let sound = input.sound(until);
        self.feeder.shared.waiting.store(false, Relaxed);
        let (heard, errors) = sound.map_err(|fault| self.fault(fault))?;
        self.errors += errors;
        Ok(heard)
    }

    fn tell(&self, sounds: Vec<Heard>) -> Result<(), Over> {
        sounds
            .into_iter()
            .try_for_each(|heard| send(self.feeder.events, Event::Sound(heard)).map_err(|_| Over))
    }

    fn items(&mut self, items: &mut Vec<Item>, input: &mut dyn Input) -> Result<(), Over> {
        for item in items.drain(..) {
            match item {
                Item::Tracks(tracks) => {
                    if self.chain.is_none() && tracks.video.is_none() {
                        // The frames so far are all there will be, and only the old table says of what.
                        self.start()?;
                    }
                    let tracks = self.known.take(tracks);
                    self.tracks = Some(tracks.clone());
                    send(self.feeder.events, Event::Tracks(tracks)).map_err(|_| Over)?;
                }
                Item::Audio(mut packet) => {
                    self.audio_packets += 1;
                    self.heard = Some(reaching(self.heard, packet.pts));
                    let Some(place) = self.known.place(packet.track) else { continue };
                    packet.track = place;
                    send(self.feeder.events, Event::Audio(packet)).map_err(|_| Over)?;
                }
                Item::Video(frame) => {
                    self.frame(frame)?;
                    let sounds = self.hear(input, self.seen.map(|span| span.last))?;
                    self.tell(sounds)?;
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Over> {
        let codec = self.tracks.as_ref().and_then(|tracks| tracks.video.as_ref()).map(|video| video.codec);
        if let Some(codec) = codec
            && !coded::shown(codec, &frame.data)
        {
            if coded::is_nal(codec) {
                self.feeder.counters.hidden_from.store(frame.pts.0, Relaxed);
            }
            return self.coded(frame);
        }
        self.frames += 1;
        self.kept = Vec::new();
        self.seen = Some(reaching(self.seen, frame.pts));
        self.not_too_long(self.seen)?;
        self.coded(frame)
    }

    fn not_too_long(&self, span: Option<Span>) -> Result<(), Over> {
        let limit = self.feeder.max_duration.as_secs();
        match span {
            Some(Span { first, last }) if (last.0 - first.0) as u64 / CLOCK as u64 > limit => {
                let text = format!("the segment is longer than {limit} s; cut it");
                Err(self.fault(Fault::new(Code::TooLarge, text)))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn coded(&mut self, frame: Frame) -> Result<(), Over> {
        if self.chain.is_some() {
            return self.push(frame);
        }
        // Nothing before the first keyframe can be decoded; that it is missing shows in the counts.
        if frame.key || !self.head.is_empty() {
            self.head.push(frame);
        }
        if self.head.len() == RATE_FRAMES { self.start() } else { Ok(()) }
    }

    fn start(&mut self) -> Result<(), Over> {
        let Some(video) = self.tracks.as_ref().and_then(|tracks| tracks.video.clone()) else { return Ok(()) };
        let Some(first) = self.head.first() else { return Ok(()) };
        let shown = self.head.iter().filter(|frame| coded::shown(video.codec, &frame.data));
        let times: Vec<Ticks> = shown.map(|frame| frame.pts).collect();
        self.rate = measure_rate(&times);
        self.origo = Origo::of(first.pts);
        self.codec = Some(video.codec);
        // MP4's index says of each frame where it is; elsewhere some may be missing without a word.
        let trust = match self.demuxer.container() {
            Container::Mp4 if !self.demuxer.is_matroska() => Trust::Whole,
            Container::Mp4 | Container::Ts | Container::Jpeg => Trust::Lossy,
        };
        let coded = coded::format(video.codec, &first.data);
        let wanted = plan::Input { codec: video.codec, trust, coded };
        let Decoder { plan, chain } = (self.decoder)(wanted).map_err(|fault| self.fault(fault))?;
        let segment = Segment {
            decode: plan,
            origo: self.origo,
            rotation: self.feeder.rotation.unwrap_or(video.rotation),
            rate: self.rate,
        };
        lock(self.feeder.stage).begin(segment);
        chain.announce(video.codec, &first.data);
        self.chain = Some(chain);
        for frame in std::mem::take(&mut self.head) {
            self.push(frame)?;
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame) -> Result<(), Over> {
        let codec = self.tracks.as_ref().and_then(|tracks| tracks.video.as_ref()).map(|video| video.codec);
        let (Some(chain), Some(pts)) = (&self.chain, self.origo.nanoseconds(frame.pts)) else {
            self.errors += 1;
            return Ok(());
        };
        if codec != self.codec {
            // Another codec in the middle: its frames are lost, and said to be.
            self.errors += 1;
            return Ok(());
        }
        let mut buffer = gst::Buffer::from_slice(frame.data);
        if let Some(fresh) = buffer.get_mut() {
            fresh.set_pts(pts);
            fresh.set_dts(self.origo.nanoseconds(frame.dts));
            if !frame.key {
                fresh.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        // A flow error has its reason on the bus, or comes from the end of the segment.
        chain.push(buffer).map_err(|_| Over)?;
        self.feeder.counters.fed.fetch_add(1, Relaxed);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Over> {
        if self.chain.is_none() {
            self.start()?;
        }
        if let Some(chain) = &self.chain {
            chain.end();
            return Ok(());
        }
        if self.frames > 0 {
            let text = "no frame is a keyframe; cut segments so that each starts with one";
            return Err(self.fault(Fault::new(Code::NoKeyframe, text)));
        }
        self.not_too_long(self.heard)?;
        let video = self.tracks.as_ref().is_some_and(|tracks| tracks.video.is_some());
        let code = if video { Code::NoFrames } else { Code::NoVideo };
        let what = if video { "the video stream has no frame" } else { "there is no video stream" };
        let whole = if self.audio_packets == 0 {
            Err("there is no sound to hand on; send segments with video")
        } else if self.demuxer.is_matroska() {
            Err("Matroska cannot be handed on as it is; send MPEG-TS or MP4")
        } else {
            Ok(std::mem::take(&mut self.kept))
        };
        match whole {
            Ok(bytes) => send(self.feeder.events, Event::Copy { container: self.demuxer.container(), bytes })
                .map_err(|_| Over),
            Err(why) => Err(self.fault(Fault::new(code, format!("{what}, and {why}")))),
        }
    }
}
