//! `transcode`: a file in, renditions in a folder, for users and for benchmarks.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use headwater_protocol::{Code, Container, Fault, Ladder, SegmentReport};

use crate::engine::{Engine, Gone, Input, Next, Output, Stopped};
use crate::es::Ticks;
use crate::playlist::{self, Piece};
use crate::sound::{Heard, Soundtrack, Zero};
use crate::split::{SplitSegment, split};
use crate::survey;

/// Why the file was not transcoded.
#[derive(Debug, thiserror::Error)]
pub enum TranscodeError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("segment {number}: {fault}")]
    Segment { number: u64, fault: Fault },
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("the board profile is broken: {0}")]
    Profile(#[from] crate::board::BadProfile),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> TranscodeError {
    move |source| TranscodeError::File { path: path.to_owned(), source }
}

/// What one rendition came to.
#[derive(Debug, Clone, Serialize)]
pub struct RenditionTotal {
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub frames: u64,
    pub keyframes: u64,
    pub bytes: u64,
    pub bits_per_second: u64,
}

/// What the whole came to.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub segments: u64,
    pub frames: u64,
    pub decoded: u64,
    pub errors: u64,
    pub seconds: f64,
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
    /// Seconds of video per second of time.
    pub realtime: f64,
    pub fps: f64,
    pub renditions: Vec<RenditionTotal>,
    /// Wall time of each segment, in order.
    pub segment_wall_ms: Vec<f64>,
}

/// How to cut the input.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// At keyframes, each piece at least so long.
    Segments(Duration),
    Whole,
}

pub fn transcode(input: &Path, folder: &Path, ladder: &Ladder, cut: Cut) -> Result<Summary, TranscodeError> {
    let (board, machine) = survey::board()?;
    let mut work = Work {
        folder,
        ladder,
        engine: Engine::new(board, machine, ladder.clone()),
        totals: Summary {
            segments: 0,
            frames: 0,
            decoded: 0,
            errors: 0,
            seconds: 0.0,
            wall_seconds: 0.0,
            cpu_seconds: 0.0,
            realtime: 0.0,
            fps: 0.0,
            renditions: Vec::new(),
            segment_wall_ms: Vec::new(),
        },
        pieces: ladder.renditions().iter().map(|_| Vec::new()).collect(),
    };
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    let started = Instant::now();
    match cut {
        Cut::Whole => work.whole(input)?,
        Cut::Segments(target) => work.segments(input, target)?,
    }
    let Work { mut totals, pieces, .. } = work;
    totals.wall_seconds = started.elapsed().as_secs_f64();
    totals.realtime = totals.seconds / totals.wall_seconds.max(1e-9);
    totals.fps = totals.decoded as f64 / totals.wall_seconds.max(1e-9);
    for total in &mut totals.renditions {
        total.bits_per_second = (total.bytes as f64 * 8.0 / totals.seconds.max(1e-9)) as u64;
    }
    if matches!(cut, Cut::Segments(_)) {
        playlist::write(folder, ladder, &totals.renditions, &pieces).map_err(at(folder))?;
    }
    Ok(totals)
}

struct Work<'a> {
    folder: &'a Path,
    ladder: &'a Ladder,
    engine: Engine,
    totals: Summary,
    /// Per rendition.
    pieces: Vec<Vec<Piece>>,
}

impl Work<'_> {
    fn whole(&mut self, input: &Path) -> Result<(), TranscodeError> {
        let file = File::open(input).map_err(at(input))?;
        let hint = match input.extension().and_then(|extension| extension.to_str()) {
            Some("mp4" | "m4v" | "mov" | "mkv" | "webm") => Container::Mp4,
            Some(_) | None => Container::Ts,
        };
        let folder = self.folder;
        let paths: Vec<PathBuf> = self
            .ladder
            .renditions()
            .iter()
            .map(|wanted| folder.join(format!("{}.{}", wanted.name, wanted.container.extension())))
            .collect();
        self.engine.unlimited();
        let sound = Soundtrack::open(input, self.ladder, Zero::File)?;
        let mut bytes = FileInput { file, failed: None, sound };
        let end = self.run(0, hint, &mut bytes, &paths);
        match bytes.failed {
            Some(source) => Err(TranscodeError::File { path: input.to_owned(), source }),
            None => end,
        }
    }

    fn segments(&mut self, input: &Path, target: Duration) -> Result<(), TranscodeError> {
        let mut broken = None;
        let mut soundtrack = Soundtrack::open(input, self.ladder, Zero::Split)?;
        let cut = split(input, target, &mut |segment: SplitSegment| {
            let number = segment.number;
            let paths: Vec<PathBuf> = self
                .ladder
                .renditions()
                .iter()
                .map(|wanted| {
                    let name = format!("{number}.{}", wanted.container.extension());
                    self.folder.join(wanted.name.as_str()).join(name)
                })
                .collect();
            // Before its video, so that it does not matter in which order segments are done.
            let part = soundtrack.as_mut().map(|track| Part::of(track, &segment));
            let mut fail = |error: TranscodeError| {
                let text = error.to_string();
                broken = Some(error);
                io::Error::other(text)
            };
            let sound = part.transpose().map_err(|fault| fail(fault.into()))?;
            let mut input = Once { bytes: Some(segment.bytes), sound };
            self.run(number, Container::Ts, &mut input, &paths).map_err(fail)
        });
        match (cut, broken) {
            (_, Some(error)) => Err(error),
            (Err(fault), None) => Err(fault.into()),
            (Ok(_), None) => Ok(()),
        }
    }

    fn run(
        &mut self,
        number: u64,
        hint: Container,
        input: &mut dyn Input,
        paths: &[PathBuf],
    ) -> Result<(), TranscodeError> {
        let mut output = FileOutput { files: Vec::new(), failed: None };
        for path in paths {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(at(folder))?;
            }
            let part = part(path);
            let file = File::create(&part).map_err(at(&part))?;
            output.files.push((part, file));
        }
        let end = match self.engine.run(hint, input, &mut output, &AtomicBool::new(false)) {
            Ok(report) if report.input.video.is_none() => {
                let text = "the input has no frame of video, so there is nothing to transcode";
                Err(Stopped::Failed(Fault::new(Code::NoFrames, text)))
            }
            end => end,
        };
        for path in paths {
            match &end {
                Ok(_) => std::fs::rename(part(path), path).map_err(at(path))?,
                // Half a rendition is worth nothing; that it cannot be removed changes nothing.
                Err(_) => drop(std::fs::remove_file(part(path))),
            }
        }
        match end {
            Ok(report) => {
                self.count(number, &report);
                self.tell();
                Ok(())
            }
            Err(Stopped::Failed(fault)) => Err(TranscodeError::Segment { number, fault }),
            Err(Stopped::Gone) => Err(match output.failed {
                Some((path, source)) => TranscodeError::File { path, source },
                None => TranscodeError::Fault(Fault::new(Code::PipelineFailed, "the output was closed")),
            }),
        }
    }

    /// For someone who watches.
    fn tell(&self) {
        let mut screen = io::stderr();
        if screen.is_terminal() {
            let (done, frames) = (self.totals.seconds, self.totals.decoded);
            // Nobody is helped by a fault for a line that could not be shown.
            let _ = write!(screen, "\r{done:.1} s of video done, {frames} frames\x1b[K\r");
        }
    }

    fn count(&mut self, number: u64, report: &SegmentReport) {
        let totals = &mut self.totals;
        totals.segments += 1;
        totals.errors += u64::from(report.input.errors);
        totals.seconds += report.input.duration.0 as f64 / 1000.0;
        totals.cpu_seconds += report.cpu_us as f64 / 1e6;
        totals.segment_wall_ms.push(report.wall_us as f64 / 1000.0);
        if let Some(video) = &report.input.video {
            totals.frames += video.frames;
            totals.decoded += video.decoded;
        }
        for (at, rendition) in report.renditions.iter().enumerate() {
            if totals.renditions.len() <= at {
                totals.renditions.push(RenditionTotal {
                    name: rendition.name.to_string(),
                    width: rendition.width.0,
                    height: rendition.height.0,
                    frames: 0,
                    keyframes: 0,
                    bytes: 0,
                    bits_per_second: 0,
                });
            }
            let total = &mut totals.renditions[at];
            total.frames += rendition.frames;
            total.keyframes += rendition.keyframes;
            total.bytes += rendition.bytes;
            let duration = if rendition.copied { report.input.duration } else { rendition.duration };
            self.pieces[at].push(Piece { number, duration });
        }
    }
}

/// The name of a rendition until it is whole: one that was broken off is not taken for one.
fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

struct FileInput {
    file: File,
    failed: Option<io::Error>,
    sound: Option<Soundtrack>,
}

impl Input for FileInput {
    fn next(&mut self, _wait: Duration) -> Next {
        let mut piece = vec![0; 256 * 1024];
        match self.file.read(&mut piece) {
            Ok(0) => Next::End,
            Ok(count) => {
                piece.truncate(count);
                Next::Bytes(piece.into())
            }
            Err(error) => {
                self.failed = Some(error);
                Next::End
            }
        }
    }

    fn sees_all(&self) -> bool {
        true
    }

    fn sound(&mut self, until: Option<Ticks>) -> Result<(Vec<Heard>, u32), Fault> {
        let Some(track) = &mut self.sound else { return Ok(Default::default()) };
        Ok((track.until(until)?, track.errors()))
    }
}

/// A segment's part of the file's sound.
struct Part {
    heard: VecDeque<Heard>,
    errors: u32,
    start: Ticks,
    /// What the file's times are later than the segment's, whose clock has turned over since: whole turns of 33 bits.
    turns: Option<i64>,
}

impl Part {
    fn of(track: &mut Soundtrack, segment: &SplitSegment) -> Result<Self, Fault> {
        let heard = track.until(segment.next)?.into();
        Ok(Self { heard, errors: track.errors(), start: segment.start, turns: None })
    }

    fn until(&mut self, until: Option<Ticks>) -> (Vec<Heard>, u32) {
        const TURN: i64 = 1 << 33;
        let nearest = |time: Ticks| (self.start.0 - time.0 + TURN / 2).div_euclid(TURN) * TURN;
        let turns = *self.turns.get_or_insert_with(|| until.map_or(0, nearest));
        let due = |heard: &mut Heard| until.is_none_or(|until| heard.packet.pts.0 - turns < until.0);
        let mut found = Vec::new();
        while let Some(mut heard) = self.heard.pop_front_if(due) {
            heard.packet.pts.0 -= turns;
            found.push(heard);
        }
        (found, std::mem::take(&mut self.errors))
    }
}

struct Once {
    bytes: Option<Bytes>,
    sound: Option<Part>,
}

impl Input for Once {
    fn next(&mut self, _wait: Duration) -> Next {
        self.bytes.take().map_or(Next::End, Next::Bytes)
    }

    fn sees_all(&self) -> bool {
        true
    }

    fn sound(&mut self, until: Option<Ticks>) -> Result<(Vec<Heard>, u32), Fault> {
        Ok(self.sound.as_mut().map_or_else(Default::default, |part| part.until(until)))
    }
}

struct FileOutput {
    files: Vec<(PathBuf, File)>,
    failed: Option<(PathBuf, io::Error)>,
}

impl Output for FileOutput {
    fn data(&mut self, rendition: usize, bytes: Bytes) -> Result<(), Gone> {
        let (path, file) = &mut self.files[rendition];
        file.write_all(&bytes).map_err(|error| {
            self.failed = Some((path.clone(), error));
            Gone
        })
    }
}
