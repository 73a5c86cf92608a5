//! Cuts a file at keyframes into segments, without touching a picture: MPEG-TS, or MP4 for codecs and turns that it
//! cannot carry.
//!
//! ```text
//! video  K . . . . K . . . . K . . .      K: a keyframe
//!        └ segment 0 ┘└ segment 1 ┘…      each at least `target` long
//! audio  a  a  a  a │ a  a  a  a │ a      by timestamp; it may lie later in the file than its video
//! ```
//!
//! ```text
//! open   … P  I  b b b  P …              b: shown before I, refers to P and I
//!        … P [I] b b b │ I P …           [I]: once more, marked as not to be shown
//! ```
//!
//! One segment is in memory, and of the next what lies before the first one's last audio.

mod inspect;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use headwater_protocol::{Code, Codec, Container, Fault, Millis};

pub use self::inspect::{Inspection, inspect};
use crate::coded::{self, hidden};
use crate::demux::mp4::{FileSource, Movie};
use crate::demux::{Demuxer, MAX_BYTES, sniff};
use crate::es::{AudioPacket, CLOCK, Frame, Item, Rotation, Ticks, Tracks};
use crate::mux::{MuxVideo, Muxer};

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Audio that lies further behind its video than this goes with what is there.
const PATIENCE: i64 = 3 * CLOCK;

/// A longer step between two frames is a jump of the clock and no duration.
const JUMP: i64 = 10 * CLOCK;

/// Audio before the first frame; more belongs to no video.
const MAX_EARLY: usize = 4096;

/// A piece of a file, playable by itself.
#[derive(Debug, Clone)]
pub struct SplitSegment {
    /// From 0.
    pub number: u64,
    /// Rounded so that the sum over all segments is exact.
    pub duration: Millis,
    pub container: Container,
    pub bytes: Bytes,
    /// Those that are shown.
    pub frames: u64,
    /// Presentation time of its keyframe.
    pub start: Ticks,
    /// That of the next segment's; None: this is the last one.
    pub next: Option<Ticks>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitSummary {
    pub segments: u64,
    pub frames: u64,
    pub duration: Millis,
    pub tracks: Tracks,
    /// Broken packets and samples that were left out.
    pub errors: u32,
}

/// Why a file was not cut, or not to its end.
#[derive(Debug, thiserror::Error)]
enum SplitError {
    #[error("{path} cannot be read: {error}", path = path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} has no video", path = path.display())]
    NoVideo { path: PathBuf },
    #[error("{path} has no frame of video", path = path.display())]
    NoFrames { path: PathBuf },
    #[error(
        "{path} has no keyframe for {seconds} s and {MAX_BYTES} bytes; encode it with a keyframe every few seconds",
        path = path.display()
    )]
    NoKeyframe { path: PathBuf, seconds: i64 },
    #[error("segment {number} could not be handed on: {error}")]
    Sink { number: u64, error: io::Error },
    #[error(transparent)]
    Input(#[from] Fault),
}

impl From<SplitError> for Fault {
    fn from(error: SplitError) -> Fault {
        let code = match &error {
            SplitError::Read { .. } => Code::FetchFailed,
            SplitError::NoVideo { .. } => Code::NoVideo,
            SplitError::NoFrames { .. } => Code::NoFrames,
            SplitError::NoKeyframe { .. } => Code::TooLarge,
            SplitError::Sink { .. } => Code::Storage,
            SplitError::Input(fault) => return fault.clone(),
        };
        Fault::new(code, error.to_string())
    }
}

/// Cuts the file at `path` into segments at least `target` long; the last one may be shorter.
///
/// `sink` takes each as it is ready; its error ends the work.
pub fn split(
    path: &Path,
    target: Duration,
    sink: &mut dyn FnMut(SplitSegment) -> io::Result<()>,
) -> Result<SplitSummary, Fault> {
    Ok(split_file(path, target, sink)?)
}

fn split_file(
    path: &Path,
    target: Duration,
    sink: &mut dyn FnMut(SplitSegment) -> io::Result<()>,
) -> Result<SplitSummary, SplitError> {
    let (mut file, container) = open(path)?;
    let target = i64::try_from(target.as_millis()).unwrap_or(i64::MAX / CLOCK).saturating_mul(CLOCK / 1000);
    let mut cutter = Cutter::new(path, target, sink);
    let errors = match container {
        Container::Ts => {
            let mut demuxer = Demuxer::without_limit(container);
            let mut items = Vec::new();
            loop {
                let piece = read_piece(&mut file).map_err(|error| read_error(path, error))?;
                let end = piece.is_empty();
                if end {
                    demuxer.finish(&mut items)?;
                } else {
                    demuxer.push(piece, &mut items)?;
                }
                for item in items.drain(..) {
                    cutter.item(item)?;
                }
                if end {
                    break demuxer.errors();
                }
            }
        }
        Container::Mp4 => {
            let source = FileSource::new(file).map_err(|error| read_error(path, error))?;
            let mut movie = Movie::open(&source).map_err(Fault::from)?;
            cutter.item(Item::Tracks(movie.tracks().clone()))?;
            let shift = shift(&movie);
            for at in 0..movie.samples().len() {
                let mut sample = movie.samples()[at];
                sample.pts += shift;
                sample.dts += shift;
                if let Some(item) = movie.item(&source, sample).map_err(Fault::from)? {
                    cutter.item(item)?;
                }
            }
            movie.errors()
        }
        Container::Jpeg => return Err(SplitError::NoVideo { path: path.to_owned() }),
    };
    cutter.finish(errors)
}

/// How much later an MP4's segments are than the file: a transport stream has no time before 0 that all players
/// understand.
pub(crate) fn shift(movie: &Movie) -> i64 {
    let first = movie.samples().iter().map(|s| s.dts.min(s.pts)).min().unwrap_or(0);
    (-first).max(0)
}

fn read_error(path: &Path, error: io::Error) -> SplitError {
    SplitError::Read { path: path.to_owned(), error }
}

/// Opens a file and tells what it is by its first bytes.
pub(crate) fn open(path: &Path) -> Result<(File, Container), Fault> {
    let failed = |error| Fault::from(read_error(path, error));
    let mut file = File::open(path).map_err(failed)?;
    let mut head = Vec::new();
    file.by_ref().take(sniff::ENOUGH as u64).read_to_end(&mut head).map_err(failed)?;
    let container = sniff::sniff(&head, true).map_err(Fault::from)?.unwrap_or(Container::Ts);
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok((file, container))
}

/// Empty at the end.
fn read_piece(file: &mut File) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE);
    file.take(PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

/// A segment that is being filled.
#[derive(Debug)]
struct Open {
    tracks: Tracks,
    start: i64,
    frames: Vec<Frame>,
    shown: u64,
    audio: Vec<AudioPacket>,
    bytes: usize,
    /// Time that its frames have taken.
    elapsed: i64,
}

struct Cutter<'a> {
    path: &'a Path,
    target: i64,
    sink: &'a mut dyn FnMut(SplitSegment) -> io::Result<()>,
    tracks: Option<Tracks>,
    /// Latest time of each audio track.
    heard: Vec<i64>,
    early: VecDeque<AudioPacket>,
    /// The last one takes frames; those before wait for audio.
    open: VecDeque<Open>,
    /// The open keyframe that began the last segment, while frames that are shown before it may follow; whether its
    /// copy is in the segment before.
    leading: Option<(Frame, bool)>,
    last_dts: Option<i64>,
    step: i64,
    number: u64,
    frames: u64,
    total: i64,
}

impl<'a> Cutter<'a> {
    fn new(path: &'a Path, target: i64, sink: &'a mut dyn FnMut(SplitSegment) -> io::Result<()>) -> Self {
        Self {
            path,
            target,
            sink,
            tracks: None,
            heard: Vec::new(),
            early: VecDeque::new(),
            open: VecDeque::new(),
            leading: None,
            last_dts: None,
            step: CLOCK / 30,
            number: 0,
            frames: 0,
            total: 0,
        }
    }

    fn item(&mut self, item: Item) -> Result<(), SplitError> {
        match item {
            Item::Tracks(tracks) => {
                if tracks.video.is_none() && self.tracks.is_none() {
                    return Err(SplitError::NoVideo { path: self.path.to_owned() });
                }
                self.heard.resize(tracks.audio.len(), i64::MIN);
                self.tracks = Some(tracks);
                Ok(())
            }
            Item::Video(frame) => self.video(frame),
            Item::Audio(packet) => {
                self.audio(packet);
                Ok(())
            }
        }
    }

    fn video(&mut self, frame: Frame) -> Result<(), SplitError> {
        let between = self.last_dts.map_or(0, |last| frame.dts.0 - last);
        let step = if (0..=JUMP).contains(&between) { between } else { self.step };
        if (1..=JUMP).contains(&between) {
            self.step = between;
        }
        self.last_dts = Some(frame.dts.0);
        if self.leads(&frame) {
            self.lead(frame, step);
            return Ok(());
        }
        self.leading = None;
        let codec = self.codec();
        let shown = codec.is_none_or(|codec| coded::shown(codec, &frame.data));
        if let Some(open) = self.open.back_mut() {
            open.elapsed += step;
        }
        if self.open.back().is_none_or(|open| self.cuts(open, &frame)) {
            if !self.open.is_empty() && codec.is_some_and(|codec| !coded::facts(codec, &frame.data).closed) {
                self.leading = Some((frame.clone(), false));
            }
            self.open.push_back(Open {
                tracks: self.tracks.clone().unwrap_or_default(),
                start: frame.pts.0,
                frames: Vec::new(),
                shown: 0,
                audio: self.early.drain(..).collect(),
                bytes: 0,
                elapsed: 0,
            });
        }
        let dts = frame.dts.0;
        if let Some(open) = self.open.back_mut() {
            open.bytes += frame.data.len();
            open.shown += u64::from(shown);
            open.frames.push(frame);
            if open.bytes as u64 > MAX_BYTES {
                let seconds = open.elapsed / CLOCK;
                return Err(SplitError::NoKeyframe { path: self.path.to_owned(), seconds });
            }
        }
        while self.leading.is_none()
            && let Some(next) = self.open.get(1)
            && (self.heard.iter().all(|heard| *heard >= next.start)
                || !(-JUMP..PATIENCE).contains(&(dts - next.start)))
        {
            self.close()?;
        }
        Ok(())
    }

    fn cuts(&self, open: &Open, frame: &Frame) -> bool {
        // What is shown before an open keyframe is still to come; a jump of the clock is no length.
        let shown = (frame.pts.0 - open.start).clamp(open.elapsed, open.elapsed + CLOCK);
        if !frame.key || shown < self.target {
            return false;
        }
        // Where pictures are refreshed little by little a cut costs some of them; better than one huge segment.
        self.codec().is_some_and(|codec| coded::facts(codec, &frame.data).exact)
            || open.elapsed >= self.target.saturating_mul(3).max(JUMP)
    }

    fn codec(&self) -> Option<Codec> {
        Some(self.tracks.as_ref()?.video.as_ref()?.codec)
    }

    /// Whether the frame belongs to the segment before the last.
    fn leads(&self, frame: &Frame) -> bool {
        self.leading.as_ref().is_some_and(|(key, _)| !frame.key && frame.pts < key.pts)
    }

    /// Puts the frame there, after a copy of the keyframe that it refers to.
    fn lead(&mut self, frame: Frame, step: i64) {
        let codec = self.codec();
        let before = self.open.len().checked_sub(2).and_then(|at| self.open.get_mut(at));
        let (Some(codec), Some(open), Some((key, copied))) = (codec, before, &mut self.leading) else {
            return;
        };
        if !std::mem::replace(copied, true) {
            open.bytes += key.data.len();
            open.frames.push(Frame { key: false, data: hidden::mark(codec, &key.data), ..key.clone() });
        }
        open.elapsed += step;
        open.bytes += frame.data.len();
        open.shown += 1;
        open.frames.push(frame);
    }

    fn audio(&mut self, packet: AudioPacket) {
        if let Some(heard) = self.heard.get_mut(packet.track) {
            *heard = (*heard).max(packet.pts.0);
        }
        let next_starts = self.open.iter().skip(1).map(|open| open.start);
        let index = next_starts.take_while(|start| packet.pts.0 >= *start).count();
        match self.open.get_mut(index) {
            Some(open) => {
                open.bytes += packet.data.len();
                open.audio.push(packet);
            }
            None => {
                if self.early.len() == MAX_EARLY {
                    self.early.pop_front();
                }
                self.early.push_back(packet);
            }
        }
    }

    /// Hands the oldest segment on.
    fn close(&mut self) -> Result<(), SplitError> {
        let Some(open) = self.open.pop_front() else { return Ok(()) };
        let before = to_millis(self.total);
        self.total += open.elapsed;
        let duration = Millis(to_millis(self.total) - before);
        let frames = open.shown;
        let container = container(&open.tracks);
        let segment = SplitSegment {
            number: self.number,
            duration,
            container,
            frames,
            start: Ticks(open.start),
            next: self.open.front().map(|next| Ticks(next.start)),
            bytes: write(open),
        };
        (self.sink)(segment).map_err(|error| SplitError::Sink { number: self.number, error })?;
        self.number += 1;
        self.frames += frames;
        Ok(())
    }

    fn finish(mut self, errors: u32) -> Result<SplitSummary, SplitError> {
        if let Some(last) = self.open.back_mut() {
            last.elapsed += self.step;
        }
        while !self.open.is_empty() {
            self.close()?;
        }
        if self.frames == 0 {
            return Err(SplitError::NoFrames { path: self.path.to_owned() });
        }
        Ok(SplitSummary {
            segments: self.number,
            frames: self.frames,
            duration: Millis(to_millis(self.total)),
            tracks: self.tracks.unwrap_or_default(),
            errors,
        })
    }
}

fn to_millis(ticks: i64) -> u64 {
    let per_ms = CLOCK / 1000;
    u64::try_from((ticks + per_ms / 2) / per_ms).unwrap_or(0)
}

/// That of a segment, by what it carries.
fn container(tracks: &Tracks) -> Container {
    let plain = tracks
        .video
        .as_ref()
        .is_none_or(|video| Container::Ts.carries(video.codec) && video.rotation == Rotation::None);
    if plain { Container::Ts } else { Container::Mp4 }
}

/// Interleaves by time: video by decoding, audio by presentation.
fn write(open: Open) -> Bytes {
    let container = container(&open.tracks);
    let Some(video) = open.tracks.video else { return Bytes::new() };
    let video = MuxVideo { codec: video.codec, width: 0, height: 0, fps: None, rotation: video.rotation };
    let mut muxer = Muxer::new(container, video, &open.tracks.audio);
    let mut out = BytesMut::with_capacity(open.bytes + open.bytes / 20 + 4096);
    let mut audio = open.audio;
    audio.sort_by_key(|packet| packet.pts);
    let mut audio = audio.into_iter().peekable();
    for (index, frame) in open.frames.iter().enumerate() {
        // The keyframe is first whatever came before.
        while index > 0
            && let Some(packet) = audio.next_if(|packet| packet.pts <= frame.dts)
        {
            muxer.audio(&packet, &mut out);
        }
        muxer.video(frame, &mut out);
    }
    for packet in audio {
        muxer.audio(&packet, &mut out);
    }
    muxer.finish(&mut out);
    out.freeze()
}
