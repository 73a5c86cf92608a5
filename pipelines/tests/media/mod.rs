//! Inputs made by ffmpeg on the spot, and what ffprobe reads in an output.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::{Bytes, BytesMut};
use headwater_pipelines::demux::Demuxer;
use headwater_pipelines::es::{AudioPacket, Frame, Item, Rotation, Tracks};
use headwater_pipelines::mux::{MuxVideo, Muxer};
use headwater_protocol::{Container, Fault};
use tempfile::TempDir;

pub(crate) const WRAP: i64 = 1 << 33;

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Two seconds of test picture and a tone, with ffmpeg's `options` for the output.
    pub(crate) fn make(&self, name: &str, options: &str) -> PathBuf {
        let out = self.path(name);
        let input = "-f lavfi -i testsrc2=s=320x180:r=30:d=2 -f lavfi -i sine=r=48000:d=2";
        run("ffmpeg", &format!("-v error -y {input} {options}"), &[&out]);
        out
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let out = self.path(name);
        std::fs::write(&out, bytes).unwrap();
        out
    }
}

/// Runs a program that must succeed without a word on stderr.
pub(crate) fn run(program: &str, args: &str, files: &[&Path]) -> String {
    let (text, errors) = run_anyway(program, args, files);
    assert!(errors.is_empty(), "{program} {args}: {errors}");
    text
}

/// What ffmpeg says when it decodes all of a file.
pub(crate) fn complaints(file: &Path) -> String {
    let output = Command::new("ffmpeg")
        .args(["-v", "warning", "-i"])
        .arg(file)
        .args(["-map", "0", "-f", "null", "-"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run_anyway(program: &str, args: &str, files: &[&Path]) -> (String, String) {
    let output = Command::new(program).args(args.split_whitespace()).args(files).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || !errors.is_empty(), "{program} {args} failed silently");
    (String::from_utf8_lossy(&output.stdout).into_owned(), errors)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) pts: i64,
    pub(crate) dts: i64,
    pub(crate) key: bool,
}

/// Packets of a stream (`v:0`, `a:0`) in ticks of 90 kHz modulo 2^33.
pub(crate) fn probe(file: &Path, stream: &str) -> Vec<Packet> {
    let scale = run(
        "ffprobe",
        &format!("-v error -select_streams {stream} -show_entries stream=time_base -of csv=p=0"),
        &[file],
    );
    let (num, den) = scale
        .lines()
        .next()
        .unwrap_or_else(|| panic!("{file:?} has no {stream}"))
        .trim_end_matches(',')
        .split_once('/')
        .unwrap();
    let (num, den): (i64, i64) = (num.parse().unwrap(), den.parse().unwrap());
    let args = format!("-v error -select_streams {stream} -show_entries packet=pts,dts,flags -of csv=p=0");
    run("ffprobe", &args, &[file])
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let mut fields = line.split(',');
            let mut time = || {
                let value: i64 = fields.next().unwrap().parse().ok()?;
                Some(((value * num * 90_000) as f64 / den as f64).round() as i64)
            };
            let pts = time().unwrap_or_else(|| panic!("{line}"));
            // Frames of Matroska that are never shown have none.
            let dts = time().unwrap_or(pts);
            let (pts, dts) = (pts.rem_euclid(WRAP), dts.rem_euclid(WRAP));
            Packet { pts, dts, key: fields.next().unwrap().starts_with('K') }
        })
        .collect()
}

pub(crate) fn md5(file: &Path, args: &str) -> String {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(args.split_whitespace())
        .arg("-")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Hashes of the decoded pictures, without their times.
pub(crate) fn pictures(file: &Path) -> Vec<String> {
    md5(file, "-map 0:v -vsync 0 -f framemd5")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit(',').next().unwrap().trim().to_owned())
        .collect()
}

#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) tracks: Vec<Tracks>,
    pub(crate) video: Vec<Frame>,
    pub(crate) audio: Vec<AudioPacket>,
    pub(crate) items: Vec<Item>,
    pub(crate) errors: u32,
}

pub(crate) fn demux_in(bytes: &[u8], piece: usize) -> Result<Read, Fault> {
    let mut demuxer = Demuxer::new(Container::Ts);
    let mut items = Vec::new();
    for part in bytes.chunks(piece) {
        demuxer.push(Bytes::copy_from_slice(part), &mut items)?;
    }
    demuxer.finish(&mut items)?;
    let mut read = Read { errors: demuxer.errors(), ..Read::default() };
    for item in &items {
        assert!(!read.tracks.is_empty() || matches!(item, Item::Tracks(_)), "a frame before the tracks");
        match item {
            Item::Tracks(tracks) => read.tracks.push(tracks.clone()),
            Item::Video(frame) => read.video.push(frame.clone()),
            Item::Audio(packet) => read.audio.push(packet.clone()),
        }
    }
    read.items = items;
    Ok(read)
}

pub(crate) fn demux(file: &Path) -> Read {
    demux_in(&std::fs::read(file).unwrap(), 65_536).unwrap()
}

impl Read {
    pub(crate) fn packets(&self) -> Vec<Packet> {
        self.video
            .iter()
            .map(|f| Packet { pts: f.pts.0.rem_euclid(WRAP), dts: f.dts.0.rem_euclid(WRAP), key: f.key })
            .collect()
    }

    /// Writes everything again, in order.
    pub(crate) fn mux(&self, container: Container) -> Vec<u8> {
        let tracks = &self.tracks[0];
        let video = MuxVideo {
            codec: tracks.video.as_ref().unwrap().codec,
            width: 320,
            height: 180,
            fps: None,
            rotation: Rotation::None,
        };
        let mut muxer = Muxer::new(container, video, &tracks.audio);
        let mut out = BytesMut::new();
        for item in &self.items {
            match item {
                Item::Tracks(_) => {}
                Item::Video(frame) => muxer.video(frame, &mut out),
                Item::Audio(packet) => muxer.audio(packet, &mut out),
            }
        }
        muxer.finish(&mut out);
        out.to_vec()
    }
}
