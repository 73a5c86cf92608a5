//! Inputs made by ffmpeg on the spot, the engine run on them, outputs read back with ffprobe.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use headwater_pipelines::engine::{Engine, Gone, Input, Next, Output, Stopped};
use headwater_pipelines::{log, survey};
use headwater_protocol::worker::Progress;
use headwater_protocol::{
    Audio, BitsPerSecond, Codec, Container, Fault, Gop, Ladder, Pixels, Profile, Rate, Rendition,
    RenditionName, RenditionReport, SegmentReport,
};

pub(crate) struct Rig {
    folder: tempfile::TempDir,
}

/// A decoded frame as ffprobe sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) key: bool,
    pub(crate) pts: i64,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// An audio track as ffprobe sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    pub(crate) channels: u64,
    pub(crate) packets: u64,
    pub(crate) start: f64,
}

pub(crate) struct Done {
    pub(crate) report: SegmentReport,
    pub(crate) outputs: Vec<Vec<u8>>,
}

fn start() {
    static START: Once = Once::new();
    START.call_once(|| log::init().unwrap());
}

impl Rig {
    pub(crate) fn new() -> Self {
        start();
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs ffmpeg with `arguments` in the rig's folder and gives the bytes of the last argument's file.
    pub(crate) fn ffmpeg(&self, arguments: &str) -> Vec<u8> {
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-y"])
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .output()
            .expect("ffmpeg is installed");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(self.path(arguments.split_whitespace().last().unwrap())).unwrap()
    }

    /// A clip of a test picture with `options` for the encoder.
    pub(crate) fn clip(&self, size: &str, seconds: f64, options: &str, name: &str) -> Vec<u8> {
        self.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s={size}:r=30 -t {seconds} -pix_fmt yuv420p {options} {name}"
        ))
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn frames(&self, bytes: &[u8]) -> Vec<Seen> {
        let path = self.write("frames.bin", bytes);
        let text = ffprobe(
            &path,
            "-select_streams v -show_entries frame=key_frame,pts,width,height -of compact=p=0",
        );
        text.lines()
            .filter(|line| line.contains("pts="))
            .map(|line| {
                let field = |name: &str| {
                    let part = line.split('|').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
                    part.unwrap_or_else(|| panic!("no {name} in {line:?}")).parse::<i64>().unwrap()
                };
                Seen {
                    key: field("key_frame") == 1,
                    pts: field("pts"),
                    width: field("width") as u32,
                    height: field("height") as u32,
                }
            })
            .collect()
    }

    pub(crate) fn times(&self, bytes: &[u8]) -> Vec<i64> {
        self.frames(bytes).into_iter().map(|frame| frame.pts).collect()
    }

    pub(crate) fn audio(&self, bytes: &[u8]) -> Vec<Heard> {
        let path = self.write("heard.bin", bytes);
        let entries = "-count_packets -select_streams a -show_entries stream=channels,nb_read_packets,start_time \
                       -of json";
        let found: serde_json::Value = serde_json::from_str(&ffprobe(&path, entries)).unwrap();
        let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<f64>().unwrap();
        found["streams"]
            .as_array()
            .unwrap()
            .iter()
            .map(|track| Heard {
                channels: track["channels"].as_u64().unwrap(),
                packets: number(&track["nb_read_packets"]) as u64,
                start: number(&track["start_time"]),
            })
            .collect()
    }

    /// MD5 of the packets of the first audio stream.
    pub(crate) fn audio_md5(&self, bytes: &[u8]) -> String {
        let path = self.write("audio.bin", bytes);
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(path)
            .args(["-map", "0:a", "-c", "copy", "-f", "md5", "-"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Pixel format, range, matrix, transfer and primaries, as the stream says.
    pub(crate) fn colour(&self, bytes: &[u8]) -> [String; 5] {
        let path = self.write("colour.bin", bytes);
        let names = ["pix_fmt", "color_range", "color_space", "color_transfer", "color_primaries"];
        let entries = format!("-select_streams v -show_entries stream={} -of json", names.join(","));
        let found: serde_json::Value = serde_json::from_str(&ffprobe(&path, &entries)).unwrap();
        names.map(|name| found["streams"][0][name].as_str().unwrap_or("unknown").to_owned())
    }

    /// Luma of the first picture's middle row.
    pub(crate) fn row(&self, bytes: &[u8], width: usize) -> Vec<u8> {
        self.write("row.bin", bytes);
        let raw = self.ffmpeg("-i row.bin -frames:v 1 -vf extractplanes=y -f rawvideo row.raw");
        let middle = raw.len() / width / 2 * width;
        raw[middle..middle + width].to_vec()
    }

    /// Codec and size of a picture.
    pub(crate) fn image(&self, bytes: &[u8]) -> (String, u64, u64) {
        let path = self.write("image.jpg", bytes);
        let text = ffprobe(&path, "-show_entries stream=codec_name,width,height -of json");
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        let one = &found["streams"][0];
        (
            one["codec_name"].as_str().unwrap().to_owned(),
            one["width"].as_u64().unwrap(),
            one["height"].as_u64().unwrap(),
        )
    }

    /// Red, green and blue in the middle of a picture.
    pub(crate) fn pixel(&self, bytes: &[u8]) -> [u8; 3] {
        self.write("pixel.jpg", bytes);
        let raw = self.ffmpeg("-i pixel.jpg -vf crop=2:2 -pix_fmt rgb24 -f rawvideo pixel.raw");
        [raw[0], raw[1], raw[2]]
    }

    /// Structural similarity of a picture, or of the tile at `corner`, to the source's frame at `seconds`.
    pub(crate) fn still_ssim(
        &self,
        still: &[u8],
        source: &[u8],
        seconds: f64,
        (width, height): (u32, u32),
        corner: Option<(u32, u32)>,
    ) -> f64 {
        let (left, top) = corner.unwrap_or_default();
        // What is compared is the luma that a viewer sees: full range on both sides.
        let graph = format!(
            "[1:v]trim=start={},select=eq(n\\,0),setpts=0,scale={width}:{height}:flags=area:out_range=pc:\
             out_color_matrix=bt601,format=yuvj420p[r];[0:v]setpts=0,crop={width}:{height}:{left}:{top},\
             format=yuvj420p[s];[s][r]ssim",
            // Frames of exactly this time are in.
            seconds - 0.001
        );
        let text = self.compare(still, source, &graph);
        let all = text.rsplit("All:").next().and_then(|rest| rest.split_whitespace().next());
        all.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    }

    /// Peak signal-to-noise ratio in dB of `bytes` to `source` after `filter`.
    pub(crate) fn psnr(&self, bytes: &[u8], source: &[u8], filter: &str) -> f64 {
        let graph = format!("[1:v]{filter}[r];[0:v][r]psnr");
        let text = self.compare(bytes, source, &graph);
        let average = text.rsplit("average:").next().and_then(|rest| rest.split_whitespace().next());
        average.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    }

    /// Structural similarity of `bytes` to `source` scaled to the same size.
    pub(crate) fn ssim(&self, bytes: &[u8], source: &[u8], width: u32, height: u32) -> f64 {
        let text = self.compare(
            bytes,
            source,
            &format!("[1:v]scale={width}:{height}:flags=bicubic[r];[0:v][r]ssim"),
        );
        let all = text.rsplit("All:").next().and_then(|rest| rest.split_whitespace().next());
        all.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    }

    /// What ffmpeg says of two inputs in a filter graph.
    fn compare(&self, bytes: &[u8], source: &[u8], graph: &str) -> String {
        let (a, b) = (self.write("a.bin", bytes), self.write("b.bin", source));
        let output = Command::new("ffmpeg")
            .args(["-v", "info", "-nostdin", "-i"])
            .arg(a)
            .arg("-i")
            .arg(b)
            .args(["-filter_complex", graph, "-f", "null", "-"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn ffprobe(path: &Path, arguments: &str) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error"])
        .args(arguments.split_whitespace())
        .arg(path)
        .output()
        .expect("ffprobe is installed");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn rendition(name: &str, width: u32, height: u32) -> Rendition {
    Rendition {
        name: RenditionName::new(name).unwrap(),
        codec: Codec::H264,
        width: Pixels(width),
        height: Pixels(height),
        fps: None,
        rate: Rate::Bitrate(BitsPerSecond(800_000)),
        gop: Gop::Segment,
        profile: Profile::Auto,
        container: Container::Ts,
        audio: Audio::Copy,
        tiles: None,
    }
}

pub(crate) fn engine(renditions: Vec<Rendition>) -> Engine {
    start();
    let (board, machine) = survey::board().unwrap();
    Engine::new(board, machine, Ladder::new(renditions).unwrap())
}

struct Pieces(Vec<Bytes>);

impl Input for Pieces {
    fn next(&mut self, _wait: Duration) -> Next {
        self.0.pop().map_or(Next::End, Next::Bytes)
    }
}

struct Kept(Vec<Vec<u8>>);

impl Output for Kept {
    fn data(&mut self, rendition: usize, bytes: Bytes) -> Result<(), Gone> {
        self.0[rendition].extend_from_slice(&bytes);
        Ok(())
    }
    fn whole(&mut self, _rendition: usize, _report: &RenditionReport) -> Result<(), Gone> {
        Ok(())
    }
    fn progress(&mut self, _progress: Progress) -> Result<(), Gone> {
        Ok(())
    }
    fn hung(&mut self, fault: Fault) -> ! {
        panic!("{fault}")
    }
}

pub(crate) fn run_as(engine: &mut Engine, container: Container, input: &[u8]) -> Result<Done, Fault> {
    let mut pieces: Vec<Bytes> = input.chunks(65_536).map(Bytes::copy_from_slice).collect();
    pieces.reverse();
    let mut kept = Kept(vec![Vec::new(); 16]);
    match engine.run(container, &mut Pieces(pieces), &mut kept, &AtomicBool::new(false)) {
        Ok(report) => {
            kept.0.truncate(report.renditions.len());
            Ok(Done { report, outputs: kept.0 })
        }
        Err(Stopped::Failed(fault)) => Err(fault),
        Err(Stopped::Gone) => panic!("the output never goes away"),
    }
}

pub(crate) fn run(engine: &mut Engine, input: &[u8]) -> Result<Done, Fault> {
    run_as(engine, Container::Ts, input)
}
