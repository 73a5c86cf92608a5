//! `thumbnails` and `storyboard`: pictures of a file at even distances.
//!
//! ```text
//! file ─ split ─▶ groups of pictures ─ keep what is needed ─▶ engine ─▶ JPEG after JPEG ─▶ files, WebVTT
//! ```
//!
//! Where keyframes are no farther apart than the pictures, only keyframes are decoded: a picture is then the first
//! keyframe at or after its time.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use headwater_protocol::worker::Progress;
use headwater_protocol::{
    Audio, Code, Codec, Container, Fault, Gop, Ladder, Millis, Pixels, Profile, Rate, Rendition,
    RenditionName, Tiles,
};

use crate::engine::{Engine, Gone, Output, Stopped};
use crate::es::CLOCK;
use crate::groups::{Groups, Reader, read};
use crate::jpeg;
use crate::split;
use crate::survey;

/// Groups of pictures that wait for the engine; a full queue holds the reader of the file back.
const QUEUE: usize = 2;

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum AlbumError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("these pictures cannot be made: {0}")]
    Ladder(#[from] headwater_protocol::LadderError),
    #[error("the board profile is broken: {0}")]
    Profile(#[from] crate::board::BadProfile),
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Album {
    pub every: Duration,
    /// Longer side of a picture.
    pub side: u32,
    pub quality: u8,
    /// Columns and rows of a sheet; None for a file per picture.
    pub sheet: Option<(u8, u8)>,
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Made {
    /// In their order in time.
    pub files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vtt: Option<String>,
    /// Of one picture, in pixels.
    pub width: u32,
    pub height: u32,
    pub every_ms: u64,
    pub pictures: u64,
    /// Frames of the file, and how many of them had to be decoded.
    pub frames: u64,
    pub decoded: u64,
    pub seconds: f64,
}

pub fn make(input: &Path, folder: &Path, album: Album) -> Result<Made, AlbumError> {
    let about = split::inspect(input)?;
    let file = |source| AlbumError::File { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(file)?;
    let every = Millis(album.every.as_millis() as u64);
    let (board, machine) = survey::board()?;
    let mut engine = Engine::new(board, machine, ladder(album, every)?);
    engine.unlimited();
    if let Some(video) = &about.tracks.video {
        engine = engine.turned(video.rotation);
    }
    let whole = about.duration.map_or(0, |duration| duration.0 as i64 * CLOCK / 1000);
    let done = AtomicI64::new(0);
    let (sender, groups) = sync_channel(QUEUE);
    let mut output =
        Files { folder, album, names: Vec::new(), rest: BytesMut::new(), failed: None, whole, done: &done };
    let reader = Reader::new(sender, every.0 as i64 * CLOCK / 1000, &done);
    let (report, read) = std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(input, reader));
        let mut groups = Groups(groups);
        let report = engine.run(Container::Ts, &mut groups, &mut output, &AtomicBool::new(false));
        drop(groups);
        (report, reading.join())
    });
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let read = read.map_err(|_| Fault::new(Code::PipelineFailed, "the reader of the file panicked"))?;
    let report = match report {
        Ok(report) => report,
        Err(Stopped::Failed(fault)) => return Err(read.err().unwrap_or(fault).into()),
        Err(Stopped::Gone) => {
            let (path, source) =
                output.failed.unwrap_or_else(|| (folder.to_owned(), io::ErrorKind::BrokenPipe.into()));
            return Err(AlbumError::File { path, source });
        }
    };
    let span = read?;
    let mut made = Made {
        files: output.names,
        every_ms: every.0,
        frames: span.frames,
        decoded: report.input.video.map_or(0, |video| video.decoded),
        seconds: span.ticks as f64 / CLOCK as f64,
        ..Made::default()
    };
    let (columns, rows) = album.sheet.unwrap_or((1, 1));
    if let Some(one) = report.renditions.first() {
        (made.width, made.height) = (one.width.0 / u32::from(columns), one.height.0 / u32::from(rows));
    }
    let room = made.files.len() as u64 * u64::from(columns) * u64::from(rows);
    let length = (span.ticks * 1000 / CLOCK) as u64;
    made.pictures = length.div_ceil(every.0).clamp(1, room.max(1));
    if album.sheet.is_some() {
        let path = folder.join("storyboard.vtt");
        fs::write(&path, vtt(&made, columns, rows, length)).map_err(file)?;
        made.vtt = Some("storyboard.vtt".to_owned());
    }
    Ok(made)
}

fn ladder(album: Album, every: Millis) -> Result<Ladder, AlbumError> {
    let (columns, rows) = album.sheet.unwrap_or((1, 1));
    let name = RenditionName::new("pictures").map_err(|bad| Fault::new(Code::BadLadder, bad.to_string()))?;
    Ok(Ladder::new(vec![Rendition {
        name,
        codec: Codec::Jpeg,
        width: Pixels(album.side),
        height: Pixels(album.side),
        fps: None,
        rate: Rate::Quality(album.quality),
        gop: Gop::Segment,
        profile: Profile::Auto,
        container: Container::Jpeg,
        audio: Audio::Copy,
        tiles: Some(Tiles { columns, rows, every }),
    }])?)
}

/// WebVTT whose cues name a part of a picture (`#xywh=`, W3C Media Fragments): what players show over their time line.
fn vtt(made: &Made, columns: u8, rows: u8, length_ms: u64) -> String {
    let (columns, rows) = (u64::from(columns), u64::from(rows));
    let mut text = String::from("WEBVTT\n");
    for at in 0..made.pictures {
        let (sheet, place) = (at / (columns * rows), at % (columns * rows));
        let Some(file) = made.files.get(sheet as usize) else { break };
        let (from, to) = (at * made.every_ms, ((at + 1) * made.every_ms).min(length_ms));
        let (width, height) = (u64::from(made.width), u64::from(made.height));
        let (left, top) = (place % columns * width, place / columns * height);
        text += &format!("\n{} --> {}\n{file}#xywh={left},{top},{width},{height}\n", clock(from), clock(to));
    }
    text
}

fn clock(ms: u64) -> String {
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

/// Writes each picture to a file of its own.
struct Files<'a> {
    folder: &'a Path,
    album: Album,
    names: Vec<String>,
    rest: BytesMut,
    failed: Option<(PathBuf, io::Error)>,
    whole: i64,
    done: &'a AtomicI64,
}

impl Files<'_> {
    fn write(&mut self, picture: &[u8]) -> Result<(), Gone> {
        let number = self.names.len() + 1;
        let name = match self.album.sheet {
            Some(_) => format!("sheet-{number:03}.jpg"),
            None => format!("{number:05}.jpg"),
        };
        let path = self.folder.join(&name);
        self.names.push(name);
        fs::write(&path, picture).map_err(|error| {
            self.failed = Some((path, error));
            Gone
        })
    }

    /// For someone who watches.
    fn tell(&self) {
        const BAR: i64 = 40;
        let mut screen = io::stderr();
        if self.whole > 0 && screen.is_terminal() {
            let part = self.done.load(Relaxed).clamp(0, self.whole);
            let full = "#".repeat((part * BAR / self.whole) as usize);
            // Nobody is helped by a fault for a line that could not be shown.
            let _ = write!(
                screen,
                "\r[{full:<40}] {:>3} %, {} files\x1b[K",
                part * 100 / self.whole,
                self.names.len()
            );
        }
    }
}

impl Output for Files<'_> {
    fn data(&mut self, _rendition: usize, bytes: Bytes) -> Result<(), Gone> {
        self.rest.extend_from_slice(&bytes);
        while let Some(length) = jpeg::picture(&self.rest) {
            let picture = self.rest.split_to(length);
            self.write(&picture)?;
        }
        self.tell();
        Ok(())
    }

    fn progress(&mut self, _progress: Progress) -> Result<(), Gone> {
        self.tell();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cues_tell_where_each_picture_lies() {
        let made = Made {
            files: vec!["a.jpg".into(), "b.jpg".into()],
            width: 160,
            height: 90,
            every_ms: 5000,
            pictures: 5,
            ..Made::default()
        };
        let text = vtt(&made, 2, 2, 3_624_500);
        assert!(
            text.starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:05.000\na.jpg#xywh=0,0,160,90\n"),
            "{text}"
        );
        assert!(text.contains("00:00:15.000 --> 00:00:20.000\na.jpg#xywh=160,90,160,90\n"), "{text}");
        assert!(text.ends_with("00:00:20.000 --> 00:00:25.000\nb.jpg#xywh=0,0,160,90\n"), "{text}");
        assert_eq!(clock(3_624_500), "01:00:24.500");
    }
}
