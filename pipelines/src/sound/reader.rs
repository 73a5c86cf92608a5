//! The sound of a file, read on its own while its video is at work, and handed out by time.
//!
//! The file is read a second time for it. So the sound of a segment can be whole although the encoder needs what
//! comes after, and neither waits for the other.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use headwater_protocol::{Audio, Container, Fault, Ladder};

use super::{Heard, Sound, elements, wants};
use crate::demux::mp4::{FileSource, Movie};
use crate::demux::{DemuxError, Demuxer};
use crate::es::{AudioPacket, CLOCK, Item, Ticks};
use crate::split;

/// Bytes read at once.
const PIECE: u64 = 256 << 10;
/// A track that is silent so far past what is asked for has no sound there.
const PATIENCE: i64 = 5 * CLOCK;
/// What is further than this past what is asked for is from before a jump of the clock.
const JUMP: i64 = 30 * CLOCK;

/// Where the times of an MP4 begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zero {
    /// As the file has it: sound before 0 is cut off by its edits.
    File,
    /// As [`crate::split`] writes its segments: nothing is before 0.
    Split,
}

enum Source {
    Ts { path: PathBuf, file: File, demuxer: Box<Demuxer> },
    Mp4 { file: FileSource, movie: Box<Movie>, next: usize, shift: i64 },
}

/// Encoded sound of a file, in the order of its times.
pub struct Soundtrack {
    wants: Vec<Audio>,
    source: Source,
    sound: Sound,
    /// By wish and track. What is read ahead, a few seconds.
    ready: BTreeMap<(usize, usize), VecDeque<AudioPacket>>,
    /// Time of the last item read.
    seen: Option<Ticks>,
    ended: bool,
}

impl std::fmt::Debug for Soundtrack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Soundtrack").field("wants", &self.wants).finish_non_exhaustive()
    }
}

impl Soundtrack {
    /// None where the ladder wants no sound encoded.
    pub fn open(path: &Path, ladder: &Ladder, zero: Zero) -> Result<Option<Self>, Fault> {
        let wants = wants(ladder);
        if wants.is_empty() {
            return Ok(None);
        }
        for want in &wants {
            elements::encoder(want)?;
        }
        let (file, container) = split::open(path)?;
        let (source, from) = match container {
            // A file of pictures is never opened as one with sound.
            Container::Ts | Container::Jpeg => {
                let demuxer = Box::new(Demuxer::without_limit(container));
                (Source::Ts { path: path.to_owned(), file, demuxer }, None)
            }
            Container::Mp4 => {
                let file = FileSource::new(file).map_err(|error| unread(path, &error))?;
                let movie = Box::new(Movie::open(&file)?);
                let shift = match zero {
                    Zero::File => 0,
                    Zero::Split => split::shift(&movie),
                };
                (Source::Mp4 { file, movie, next: 0, shift }, Some(Ticks(shift)))
            }
        };
        let mut track = Self {
            sound: Sound::new(wants.clone(), from),
            wants,
            source,
            ready: BTreeMap::new(),
            seen: None,
            ended: false,
        };
        if let Source::Mp4 { movie, .. } = &track.source {
            let tracks = movie.tracks().clone();
            track.items(vec![Item::Tracks(tracks)])?;
        }
        Ok(Some(track))
    }

    /// The sound before `until`, or all the rest.
    pub fn until(&mut self, until: Option<Ticks>) -> Result<Vec<Heard>, Fault> {
        while !self.ended && !until.is_some_and(|until| self.has(until)) {
            self.read()?;
        }
        let mut found = Vec::new();
        for (&(want, _), ready) in &mut self.ready {
            let due = |packet: &mut AudioPacket| {
                until.is_none_or(|until| !(0..JUMP).contains(&(packet.pts.0 - until.0)))
            };
            while let Some(packet) = ready.pop_front_if(due) {
                found.push(Heard { want, packet });
            }
        }
        found.sort_by_key(|heard| heard.packet.pts);
        Ok(found)
    }

    /// Frames that could not be decoded, since this was last asked.
    pub fn errors(&mut self) -> u32 {
        std::mem::take(&mut self.sound.errors)
    }

    /// Whether all that is before `until` has been read, as far as can be told.
    fn has(&self, until: Ticks) -> bool {
        let lanes = self.sound.tracks() * self.wants.len();
        let past = |ready: &VecDeque<AudioPacket>| ready.back().is_some_and(|last| last.pts >= until);
        self.ready.values().filter(|ready| past(ready)).count() >= lanes.max(1)
            || self.seen.is_some_and(|seen| seen.0 - until.0 > PATIENCE)
    }

    fn read(&mut self) -> Result<(), Fault> {
        let mut items = Vec::new();
        match &mut self.source {
            Source::Ts { path, file, demuxer } => {
                let mut piece = Vec::new();
                file.take(PIECE).read_to_end(&mut piece).map_err(|error| unread(path, &error))?;
                self.ended = piece.is_empty();
                match self.ended {
                    true => demuxer.finish(&mut items)?,
                    false => demuxer.push(piece.into(), &mut items)?,
                }
            }
            Source::Mp4 { file, movie, next, shift } => match movie.samples().get(*next).copied() {
                None => self.ended = true,
                Some(mut sample) => {
                    *next += 1;
                    sample.pts += *shift;
                    self.seen = Some(Ticks(sample.dts + *shift));
                    if movie.is_audio(sample) {
                        items.extend(movie.item(file, sample)?);
                    }
                }
            },
        }
        self.items(items)?;
        if self.ended {
            let mut out = Vec::new();
            self.sound.finish(&mut out)?;
            self.keep(out);
        }
        Ok(())
    }

    fn items(&mut self, items: Vec<Item>) -> Result<(), Fault> {
        let mut out = Vec::new();
        for item in items {
            match item {
                Item::Tracks(tracks) => self.sound.set(&tracks, &mut out)?,
                Item::Video(frame) => self.seen = Some(frame.dts),
                Item::Audio(packet) => {
                    self.seen = Some(packet.pts);
                    self.sound.packet(&packet, &mut out)?;
                }
            }
        }
        self.keep(out);
        Ok(())
    }

    fn keep(&mut self, out: Vec<Heard>) {
        for Heard { want, packet } in out {
            self.ready.entry((want, packet.track)).or_default().push_back(packet);
        }
    }
}

fn unread(path: &Path, error: &std::io::Error) -> Fault {
    DemuxError::Read { path: path.display().to_string(), error: error.to_string() }.into()
}
