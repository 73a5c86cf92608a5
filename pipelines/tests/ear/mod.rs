//! Files with sound, transcoded, and what ffmpeg hears in them, with the time of every sample.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use headwater_pipelines::transcode::{Cut, Summary, transcode};
use headwater_protocol::{Aac, Audio, BitsPerSecond, Container, Hertz, Ladder, Opus, Rendition};

use crate::rig::{Rig, rendition};

/// Decoded sound of one track, first channel.
#[derive(Debug, Clone)]
pub(crate) struct Pcm {
    pub(crate) rate: u32,
    pub(crate) channels: usize,
    /// Seconds.
    pub(crate) start: f64,
    pub(crate) samples: Vec<f32>,
}

fn output(program: &str, arguments: &str, file: &Path, last: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .arg(file)
        .args(last)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Decodes audio track `track` of a file, to 48 kHz.
pub(crate) fn hear(file: &Path, track: usize) -> Pcm {
    let probe =
        format!("-v error -select_streams a:{track} -show_entries stream=channels:frame=pts_time -of json");
    let found: serde_json::Value = serde_json::from_slice(&output("ffprobe", &probe, file, &[])).unwrap();
    let number = |value: &serde_json::Value| -> f64 {
        value.as_str().unwrap_or_else(|| panic!("{found}")).parse().unwrap()
    };
    let rate = 48_000;
    let channels = found["streams"][0]["channels"].as_u64().unwrap() as usize;
    let start = number(&found["frames"][0]["pts_time"]);
    let map = format!("0:a:{track}");
    let raw =
        output("ffmpeg", "-v error -nostdin -i", file, &["-map", &map, "-ar", "48000", "-f", "f32le", "-"]);
    let samples = raw.as_chunks::<4>().0.iter().step_by(channels).map(|s| f32::from_le_bytes(*s)).collect();
    Pcm { rate, channels, start, samples }
}

impl Pcm {
    /// `count` samples from `seconds` on; silence where there is none.
    pub(crate) fn at(&self, seconds: f64, count: usize, lag: i64) -> Vec<f32> {
        let from = ((seconds - self.start) * f64::from(self.rate)).round() as i64 + lag;
        (from..from + count as i64)
            .map(|at| usize::try_from(at).ok().and_then(|at| self.samples.get(at)).copied().unwrap_or(0.0))
            .collect()
    }

    pub(crate) fn end(&self) -> f64 {
        self.start + self.samples.len() as f64 / f64::from(self.rate)
    }
}

fn energy(samples: &[f32]) -> f64 {
    samples.iter().map(|s| f64::from(*s).powi(2)).sum()
}

/// Signal to noise of `b` against `a`, in dB.
pub(crate) fn snr(a: &[f32], b: &[f32]) -> f64 {
    let noise: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    10.0 * (energy(a) / noise.max(1e-12)).log10()
}

/// By how many samples `b` comes later than `a` from `seconds` on: where they are most alike.
pub(crate) fn lag(a: &Pcm, b: &Pcm, seconds: f64) -> i64 {
    assert_eq!(a.rate, b.rate);
    const COUNT: usize = 4_096;
    let one = a.at(seconds, COUNT, 0);
    assert!(energy(&one) > 0.1, "silence at {seconds} s");
    let alike = |lag: i64| -> f64 {
        let other = b.at(seconds, COUNT, lag);
        let product: f64 = one.iter().zip(&other).map(|(a, b)| f64::from(a * b)).sum();
        product / energy(&other).sqrt().max(1e-9)
    };
    (-2200..=2200).max_by(|x, y| alike(*x).total_cmp(&alike(*y))).unwrap()
}

/// Time in ticks of 90 kHz and hash of each packet of an audio track.
pub(crate) fn packets(file: &Path, track: usize) -> Vec<(i64, String)> {
    let probe = format!(
        "-v error -select_streams a:{track} -show_data_hash md5 -show_entries packet=pts_time,data_hash -of json"
    );
    let found: serde_json::Value = serde_json::from_slice(&output("ffprobe", &probe, file, &[])).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_else(|| panic!("{found}")).to_owned();
    let packets = found["packets"].as_array().unwrap().iter();
    packets
        .map(|packet| {
            let time: f64 = text(&packet["pts_time"]).parse().unwrap();
            ((time * 90_000.0).round() as i64, text(&packet["data_hash"]))
        })
        .collect()
}

pub(crate) const PICTURE: &str = "-f lavfi -i testsrc2=s=320x180:r=30";
/// Noise: no two places are alike.
pub(crate) const NOISE: &str = "-f lavfi -i anoisesrc=c=pink:r=48000:a=0.5:seed=7";
pub(crate) const VIDEO: &str = "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -bf 0 -g 30";

pub(crate) fn aac(rate: u32) -> Audio {
    Audio::Aac(Aac { bitrate: BitsPerSecond(160_000), rate: Hertz(rate), channels: 2 })
}

pub(crate) fn opus() -> Audio {
    Audio::Opus(Opus { bitrate: BitsPerSecond(160_000), channels: 2 })
}

pub(crate) fn rung(name: &str, audio: Audio, container: Container) -> Rendition {
    Rendition { audio, container, ..rendition(name, 160, 90) }
}

pub(crate) fn make(rig: &Rig, name: &str, options: &str) -> PathBuf {
    rig.ffmpeg(&format!("{PICTURE} {NOISE} -t 4 {VIDEO} {options} {name}"));
    rig.path(name)
}

pub(crate) fn work(rig: &Rig, input: &Path, rungs: &[Rendition], cut: Cut) -> Summary {
    transcode(input, &rig.path("out"), &Ladder::new(rungs.to_vec()).unwrap(), cut).unwrap()
}

pub(crate) const SECOND: Cut = Cut::Segments(Duration::from_secs(1));

/// A segment's sound, rendition `name`.
pub(crate) fn segments(rig: &Rig, name: &str, extension: &str, count: u64) -> Vec<PathBuf> {
    (0..count).map(|number| rig.path(&format!("out/{name}/{number}.{extension}"))).collect()
}

/// The sound at several places is where the source has it, and nothing but coding noise differs.
pub(crate) fn assert_true_to(source: &Pcm, heard: &Pcm, places: &[f64], what: &str) {
    for place in places {
        assert_eq!(lag(source, heard, *place), 0, "{what} at {place} s");
        let snr = snr(&source.at(*place, 24_000, 0), &heard.at(*place, 24_000, 0));
        assert!(snr > 8.0, "{what} at {place} s: {snr:.1} dB");
    }
}

/// Sound of the source at `place` is at the same place in rendition `a`.
pub(crate) fn assert_in_sync(source: &Path, heard: &Path, places: &[f64], what: &str) {
    let (source, heard) = (hear(source, 0), hear(heard, 0));
    for place in places {
        assert_eq!(lag(&source, &heard, *place), 0, "{what} at {place} s");
    }
}

pub(crate) fn loudness(heard: &Pcm, from: f64, to: f64) -> f64 {
    let samples = heard.at(from, ((to - from) * 48_000.0) as usize, 0);
    (samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
}
