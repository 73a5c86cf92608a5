//! The far end of a segment: coded frames and audio to containers to the output, and a watch over it all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use headwater_protocol::media::Hdr;
use headwater_protocol::worker::Progress;
use headwater_protocol::{
    Code, Container, Evidence, Fault, FrameRate, Ladder, Millis, Pixels, Rendition, RenditionReport,
};

use crate::align::Alignment;
use crate::engine::{Gone, Output, Stopped, TICK};
use crate::es::{AudioPacket, CLOCK, Frame, Rotation, Ticks, Tracks};
use crate::feed::Shared;
use crate::fit::Size;
use crate::graph::{Faults, Stoppers};
use crate::mux::{MuxVideo, Muxer};
use crate::sound::{self, Heard};
use crate::stage::{Counters, Event};

/// Longest time for drawing the chains of a failed segment.
const DRAWING: Duration = Duration::from_secs(1);
const PROGRESS_EACH: Duration = Duration::from_millis(500);
/// Output is handed on in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// What the collector watches while it waits.
pub(crate) struct Watch<'a> {
    pub faults: &'a Faults,
    pub counters: &'a Counters,
    pub shared: &'a Shared,
    pub cancel: &'a AtomicBool,
    pub stoppers: &'a Arc<Stoppers>,
    /// Longest time without any sign of life.
    pub patience: Duration,
}

pub(crate) struct Collector<'a> {
    output: &'a mut dyn Output,
    tracks: Tracks,
    pub shown: Option<Size>,
    pub hdr: Option<Hdr>,
    /// Packets of sound that some rendition lacks.
    pub lost: u32,
    rungs: Vec<Rung>,
    pub reports: Vec<Option<RenditionReport>>,
}

struct Rung {
    wanted: Rendition,
    /// Which of the ladder's encoded sounds it takes.
    sound: Option<usize>,
    size: Size,
    rate: Option<FrameRate>,
    alignment: Option<Alignment>,
    mux: Option<Muxer>,
    /// Audio later than the last frame written; at most the segment's.
    audio: VecDeque<AudioPacket>,
    ready: BytesMut,
    frames: u64,
    keyframes: u64,
    bytes: u64,
    first: Ticks,
    last: Ticks,
    /// Added to all times.
    later: i64,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(ladder: &Ladder, output: &'a mut dyn Output) -> Self {
        let sounds = sound::wants(ladder);
        let rungs: Vec<Rung> = ladder
            .renditions()
            .iter()
            .map(|wanted| Rung::new(wanted, sounds.iter().position(|sound| *sound == wanted.audio)))
            .collect();
        let reports = rungs.iter().map(|_| None).collect();
        Self { output, tracks: Tracks::default(), shown: None, hdr: None, lost: 0, rungs, reports }
    }

    /// Until every rendition is whole, or something ends the segment early.
    pub(crate) fn run(&mut self, events: &Receiver<Event>, watch: &Watch<'_>) -> Result<(), Stopped> {
        let mut life = Life::new();
        let mut told = Instant::now();
        while self.reports.iter().any(Option::is_none) {
            if watch.cancel.load(Relaxed) {
                return Err(Stopped::Failed(Fault::new(Code::Revoked, "the segment was cancelled")));
            }
            if let Some(fault) = watch.faults.first() {
                return Err(Stopped::Failed(fault));
            }
            if told.elapsed() >= PROGRESS_EACH {
                told = Instant::now();
                let decoded = watch.counters.decoded.load(Relaxed);
                let encoded = watch.counters.encoded.load(Relaxed);
                self.output.progress(Progress { decoded, encoded })?;
            }
            match events.recv_timeout(TICK) {
                Ok(event) => {
                    life.seen();
                    self.event(event).map_err(|stopped| first(stopped, watch.faults))?;
                }
                Err(RecvTimeoutError::Timeout) => self.look(&mut life, watch),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Stopped::Failed(Fault::new(Code::PipelineFailed, "the pipeline went away")));
                }
            }
        }
        // A fault ends all chains, and so looks like the end of a whole segment.
        watch.faults.first().map_or(Ok(()), |fault| Err(Stopped::Failed(fault)))
    }

    fn look(&mut self, life: &mut Life, watch: &Watch<'_>) {
        if life.goes_on(watch) {
            return;
        }
        self.evidence(watch.stoppers);
        let text = format!("nothing moved for {} s; the worker ends", watch.patience.as_secs());
        self.output.hung(Fault::new(Code::WorkerHung, text).with_detail(crate::log::tail()));
    }

    /// Draws the chains in a thread of its own: one that hangs may hold what is needed for it.
    pub(crate) fn evidence(&mut self, stoppers: &Arc<Stoppers>) {
        // Before the drawing, which makes some elements complain.
        let log = crate::log::tail();
        let (send, drawn) = sync_channel(1);
        let stoppers = Arc::clone(stoppers);
        // Without a thread there is no graph, and the rest is still worth something. Nobody may listen any more.
        let _ = std::thread::Builder::new().name("graphs".into()).spawn(move || send.send(stoppers.graphs()));
        let graphs = drawn.recv_timeout(DRAWING).unwrap_or_default();
        let evidence = Evidence { graphs, log, ..Evidence::default() };
        // Without a reader there is nobody to be told of the failure either.
        let _ = self.output.evidence(evidence.bounded());
    }

    fn event(&mut self, event: Event) -> Result<(), Stopped> {
        match event {
            Event::Tracks(tracks) => {
                for mux in self.rungs.iter_mut().filter_map(|rung| rung.mux.as_mut()) {
                    mux.tracks(&tracks.audio);
                }
                self.tracks = tracks;
            }
            Event::Before(before) => {
                // A transport stream has no time before 0 that all players understand; MP4 has edits for it.
                for rung in self.rungs.iter_mut().filter(|rung| rung.wanted.container == Container::Ts) {
                    rung.later = before.0;
                }
            }
            Event::Audio(packet) => {
                for rung in self.rungs.iter_mut().filter(|rung| rung.wanted.audio.is_copy()) {
                    let pts = Ticks(packet.pts.0 + rung.later);
                    rung.audio.push_back(AudioPacket { pts, ..packet.clone() });
                }
            }
            Event::Sound(Heard { want, packet }) => {
                for rung in self.rungs.iter_mut().filter(|rung| rung.sound == Some(want)) {
                    let pts = Ticks(packet.pts.0 + rung.later);
                    // Only what runs an encoder in can be before 0, and a transport stream has no room for it there.
                    if pts >= Ticks(0) || rung.wanted.container == Container::Mp4 {
                        rung.audio.push_back(AudioPacket { pts, ..packet.clone() });
                    }
                }
            }
            Event::Planned { shown, hdr, rungs } => {
                (self.shown, self.hdr) = (Some(shown), hdr);
                for (rung, (size, rate)) in self.rungs.iter_mut().zip(rungs) {
                    (rung.size, rung.rate) = (size, Some(rate));
                }
            }
            Event::Encoded { rung, time, data } => {
                self.rungs[rung].frame(&self.tracks, time, data)?;
                let ready = self.rungs[rung].take(PIECE);
                self.hand_on(rung, ready)?;
            }
            Event::Done { rung } => {
                let report = self.rungs[rung].finish()?;
                self.lost = self.lost.max(self.rungs[rung].mux.as_ref().map_or(0, Muxer::lost));
                let rest = self.rungs[rung].take(1);
                self.hand_on(rung, rest)?;
                let report = RenditionReport { bytes: self.rungs[rung].bytes, ..report };
                self.output.whole(rung, &report)?;
                self.reports[rung] = Some(report);
            }
            Event::Copy { container, bytes } => self.copy(container, &bytes)?,
            Event::NoPicture => {
                let text = "the video could not be decoded; send segments that a player can play";
                let fault = Fault::new(Code::Undecodable, text).with_detail(crate::log::tail());
                return Err(Stopped::Failed(fault));
            }
        }
        Ok(())
    }

    fn hand_on(&mut self, rung: usize, ready: Option<Bytes>) -> Result<(), Gone> {
        let Some(ready) = ready else { return Ok(()) };
        self.rungs[rung].bytes += ready.len() as u64;
        self.output.data(rung, ready)
    }

    /// Every rendition is the input.
    fn copy(&mut self, container: Container, pieces: &[Bytes]) -> Result<(), Gone> {
        for at in 0..self.rungs.len() {
            // No picture is an empty file: an input of sound is none.
            let still = self.rungs[at].wanted.container == Container::Jpeg;
            for piece in pieces.iter().filter(|_| !still) {
                self.hand_on(at, Some(piece.clone()))?;
            }
            let report = RenditionReport {
                name: self.rungs[at].wanted.name.clone(),
                container,
                bytes: self.rungs[at].bytes,
                width: Pixels(0),
                height: Pixels(0),
                frames: 0,
                keyframes: 0,
                pixels: 0,
                first_pts: 0,
                duration: Millis(0),
                copied: true,
            };
            self.output.whole(at, &report)?;
            self.reports[at] = Some(report);
        }
        Ok(())
    }
}

impl Rung {
    fn new(wanted: &Rendition, sound: Option<usize>) -> Self {
        Self {
            wanted: wanted.clone(),
            sound,
            size: Size::new(0, 0),
            rate: None,
            alignment: None,
            mux: None,
            audio: VecDeque::new(),
            ready: BytesMut::new(),
            frames: 0,
            keyframes: 0,
            bytes: 0,
            first: Ticks(0),
            last: Ticks(0),
            later: 0,
        }
    }

    fn frame(&mut self, tracks: &Tracks, time: Ticks, data: Bytes) -> Result<(), Stopped> {
        let time = Ticks(time.0 + self.later);
        let alignment = self.alignment.get_or_insert_with(|| Alignment::new(&self.wanted, self.rate));
        let key = alignment.next(&data).map_err(|misaligned| Stopped::Failed(misaligned.into()))?;
        if self.frames == 0 {
            self.first = time;
        }
        self.last = time;
        self.frames += 1;
        self.keyframes += u64::from(key);
        let mux = self.mux.get_or_insert_with(|| {
            let video = MuxVideo {
                codec: self.wanted.codec,
                width: self.size.width,
                height: self.size.height,
                fps: self.rate,
                // Turned already.
                rotation: Rotation::None,
            };
            Muxer::new(self.wanted.container, video, &sound::formats(tracks, &self.wanted.audio))
        });
        while let Some(packet) = self.audio.pop_front_if(|packet| packet.pts <= time) {
            mux.audio(&packet, &mut self.ready);
        }
        // Encoders here do not reorder: a frame is decoded when it is shown.
        mux.video(&Frame { pts: time, dts: time, key, data }, &mut self.ready);
        Ok(())
    }

    fn finish(&mut self) -> Result<RenditionReport, Stopped> {
        let Some(mux) = &mut self.mux else {
            let text = format!("rendition {} has no frame", self.wanted.name);
            return Err(Stopped::Failed(Fault::new(Code::BadOutput, text)));
        };
        for packet in self.audio.drain(..) {
            mux.audio(&packet, &mut self.ready);
        }
        mux.finish(&mut self.ready);
        let frame = self.rate.map_or(0.0, |rate| CLOCK as f64 / rate.as_f64());
        Ok(RenditionReport {
            name: self.wanted.name.clone(),
            container: self.wanted.container,
            bytes: 0,
            width: Pixels(self.size.width),
            height: Pixels(self.size.height),
            frames: self.frames,
            keyframes: self.keyframes,
            pixels: self.frames * self.size.pixels(),
            first_pts: (self.first.0 & 0x1_ffff_ffff) as u64,
            duration: millis((self.last.0 - self.first.0) as f64 + frame),
            copied: false,
        })
    }

    fn take(&mut self, at_least: usize) -> Option<Bytes> {
        (self.ready.len() >= at_least).then(|| self.ready.split().freeze())
    }
}

/// A chain that has failed still comes to its end, and an end without a picture is only the consequence.
fn first(stopped: Stopped, faults: &Faults) -> Stopped {
    match (stopped, faults.first()) {
        (Stopped::Failed(_), Some(earlier)) => Stopped::Failed(earlier),
        (stopped @ (Stopped::Failed(_) | Stopped::Gone), _) => stopped,
    }
}

pub(crate) fn millis(ticks: f64) -> Millis {
    Millis((ticks * 1000.0 / CLOCK as f64).round() as u64)
}

impl From<Gone> for Stopped {
    fn from(Gone: Gone) -> Self {
        Stopped::Gone
    }
}

/// When something last moved.
struct Life {
    counts: [u64; 3],
    since: Instant,
}

impl Life {
    fn new() -> Self {
        Self { counts: [0; 3], since: Instant::now() }
    }

    fn seen(&mut self) {
        self.since = Instant::now();
    }

    fn goes_on(&mut self, watch: &Watch<'_>) -> bool {
        let counters = watch.counters;
        let counts = [&counters.fed, &counters.decoded, &counters.encoded].map(|count| count.load(Relaxed));
        if counts != self.counts || watch.shared.waiting.load(Relaxed) {
            self.counts = counts;
            self.seen();
        }
        self.since.elapsed() < watch.patience
    }
}
