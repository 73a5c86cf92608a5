//! What `make bench` measures. Both sides of a ratio run in turns in the same minutes, and medians of the turns'
//! ratios are compared, because machines are shared and noisy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use headwater_protocol::Ladder;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};

use crate::media;

pub mod codecs;
pub mod cpu;
pub mod endurance;
pub mod ffmpeg;
pub mod memory;
pub mod quality;
pub mod start;
pub mod streams;
pub mod system;
pub mod warm;

/// The standard ladder: width that 16:9 gives, height, bit/s.
pub const RUNGS: [(u32, u32, u32); 4] =
    [(1280, 720, 3_000_000), (854, 480, 1_600_000), (640, 360, 800_000), (426, 240, 250_000)];

/// Frames between keyframes: 2 s of 30 fps.
pub const GOP: &str = "60";

/// Seconds of the source.
pub const SECONDS: f64 = 16.0;

/// What a figure has to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Must {
    AtMost(f64),
    AtLeast(f64),
    /// A figure for reference.
    Nothing,
}

#[derive(Debug)]
pub struct Row {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    pub must: Must,
    pub note: String,
}

impl Row {
    pub fn new(
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        must: Must,
        note: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), value, unit, must, note: note.into() }
    }

    pub fn ok(&self) -> bool {
        match self.must {
            Must::AtMost(bound) => self.value <= bound,
            Must::AtLeast(bound) => self.value >= bound,
            Must::Nothing => true,
        }
    }

    fn bound(&self) -> String {
        match self.must {
            Must::AtMost(bound) => format!("<= {bound}"),
            Must::AtLeast(bound) => format!(">= {bound}"),
            Must::Nothing => "-".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let must = match self.must {
            Must::AtMost(bound) | Must::AtLeast(bound) => Some(bound),
            Must::Nothing => None,
        };
        json!({"what": self.what, "value": self.value, "unit": self.unit, "must": must, "ok": self.ok(), "note": self.note})
    }
}

/// A table for a person, and the same as a list of `{what, value, unit, must, ok, note}` in `file`.
pub fn publish(rows: &[Row], file: &Path) -> Result<()> {
    println!("\n{:<56} {:>10} {:<6} {:>9}  {:<4} note", "what", "value", "unit", "must", "ok");
    for row in rows {
        let ok = if row.ok() { "yes" } else { "NO" };
        println!(
            "{:<56} {:>10.3} {:<6} {:>9}  {ok:<4} {}",
            row.what,
            row.value,
            row.unit,
            row.bound(),
            row.note
        );
    }
    let list: Vec<Value> = rows.iter().map(Row::json).collect();
    fs::write(file, serde_json::to_string_pretty(&list)? + "\n")?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

/// CPU seconds of all ended children so far.
fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6)
}

/// What a command took.
#[derive(Debug, Clone)]
pub struct Took {
    pub cpu: f64,
    pub wall: f64,
    pub output: Vec<u8>,
}

/// Runs a command alone.
pub fn measured(command: &mut Command) -> Result<Took> {
    let (cpu, wall) = (children_cpu()?, Instant::now());
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Took { cpu: children_cpu()? - cpu, wall: wall.elapsed().as_secs_f64(), output: output.stdout })
}

/// The standard ladder with another codec or without change.
pub fn ladder(codec: &str, container: &str) -> Result<Ladder> {
    let rung = |(width, height, bitrate): (u32, u32, u32)| {
        json!({"name": format!("{height}p"), "codec": codec, "width": width, "height": height,
               "rate": {"bitrate": bitrate}, "gop": {"every": 2000}, "container": container})
    };
    Ok(serde_json::from_value(Value::from(RUNGS.map(rung).to_vec()))?)
}

/// A line of `/proc/PID/status` in KiB, such as `VmHWM`.
pub fn status_kib(pid: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("no {name}"))?.parse()?)
}

/// Where the benchmark works: a folder with the source, whole and cut, and the ladder.
#[derive(Debug)]
pub struct Lab {
    pub folder: PathBuf,
    /// 1080p30 at 6 Mb/s with real motion: the shipped clip, three times, enlarged.
    pub source: PathBuf,
    /// Of 2 s each.
    pub segments: Vec<PathBuf>,
    pub ladder: PathBuf,
    pub rounds: usize,
}

impl Lab {
    pub fn new(folder: &Path, rounds: usize) -> Result<Self> {
        let source = folder.join("source.ts");
        let clip = media::clip();
        let text = |path: &Path| path.to_str().map(str::to_owned).context("path is not text");
        #[rustfmt::skip]
        media::ffmpeg(&[
            "-stream_loop", "2", "-i", &text(&clip)?, "-t", &SECONDS.to_string(),
            "-vf", "scale=1920:1080,fps=30", "-c:v", "libx264", "-preset", "fast",
            "-b:v", "6M", "-maxrate", "6M", "-bufsize", "6M", "-g", GOP, "-sc_threshold", "0",
            "-c:a", "aac", "-ac", "2", "-muxdelay", "0", "-f", "mpegts", &text(&source)?,
        ])?;
        #[rustfmt::skip]
        media::ffmpeg(&[
            "-copyts", "-i", &text(&source)?, "-c", "copy", "-f", "segment", "-segment_time", "2",
            "-segment_format_options", "mpegts_copyts=1", &text(&folder.join("seg-%d.ts"))?,
        ])?;
        // The last one is shorter than the others.
        let mut segments: Vec<PathBuf> =
            (0..).map(|i| folder.join(format!("seg-{i}.ts"))).take_while(|file| file.exists()).collect();
        segments.pop();
        ensure!(segments.len() >= 4, "only {} segments", segments.len());
        let file = folder.join("ladder.json");
        fs::write(&file, serde_json::to_string(&ladder("h264", "ts")?)?)?;
        Ok(Self { folder: folder.to_owned(), source, segments, ladder: file, rounds })
    }
}
