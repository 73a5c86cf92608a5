//! Test media made by ffmpeg, and what ffprobe says of media.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The clip that ships with Headwater.
pub fn clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("media/bbb-720p25-5s.mp4")
}

/// Runs ffmpeg with `-y -v error` in front.
pub fn ffmpeg(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ffmpeg").args(["-nostdin", "-y", "-v", "error"]).args(arguments).output()?;
    if !output.status.success() {
        bail!("ffmpeg {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A moving test pattern with a tone: `options` go in front of the output file.
pub fn pattern(file: &Path, size: &str, fps: &str, seconds: f64, options: &[&str]) -> Result<()> {
    let video = format!("testsrc2=size={size}:rate={fps}:duration={seconds}");
    let audio = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let file = file.to_str().context("file name is not text")?;
    let mut arguments = vec!["-f", "lavfi", "-i", &video, "-f", "lavfi", "-i", &audio];
    let default =
        ["-c:v", "libx264", "-preset", "ultrafast", "-g", "600", "-pix_fmt", "yuv420p", "-c:a", "aac"];
    arguments.extend(default.iter());
    arguments.extend(options);
    arguments.push(file);
    ffmpeg(&arguments)
}

/// A segment of a stream as an encoder would push it: MPEG-TS, `index` times `seconds` into a stream that
/// starts at 10 s, so that no part of it lies before zero and is moved.
pub fn segment(folder: &Path, index: u32, size: &str, fps: &str, seconds: f64) -> Result<Vec<u8>> {
    let file = folder.join(format!("in-{index}.ts"));
    let offset = (10.0 + f64::from(index) * seconds).to_string();
    pattern(&file, size, fps, seconds, &["-output_ts_offset", &offset, "-muxdelay", "0", "-f", "mpegts"])?;
    std::fs::read(&file).with_context(|| file.display().to_string())
}

/// What ffprobe counts in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub codec: String,
    pub width: u64,
    pub height: u64,
    /// Decoded frames.
    pub frames: u64,
    /// Presentation timestamps of the video packets in container ticks, sorted.
    pub pts: Vec<i64>,
    /// Whether the first video packet is a keyframe.
    pub starts_with_key: bool,
    pub audio_streams: usize,
}

pub fn probe(file: &Path) -> Result<Probe> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json", "-count_frames", "-show_streams", "-show_packets"])
        .args([
            "-show_entries",
            "stream=codec_type,codec_name,width,height,nb_read_frames:packet=codec_type,pts,flags",
        ])
        .arg(file)
        .output()?;
    let json: Value = serde_json::from_slice(&output.stdout).context("ffprobe's JSON")?;
    let none = Vec::new();
    let streams = json["streams"].as_array().unwrap_or(&none);
    let of = |kind: &str| streams.iter().filter(|s| s["codec_type"] == kind).count();
    let video = streams.iter().find(|s| s["codec_type"] == "video").with_context(|| {
        format!("{} has no video: {}", file.display(), String::from_utf8_lossy(&output.stderr))
    })?;
    let packets: Vec<&Value> = json["packets"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .filter(|packet| packet["codec_type"] == "video")
        .collect();
    let mut pts: Vec<i64> = packets.iter().filter_map(|packet| packet["pts"].as_i64()).collect();
    pts.sort_unstable();
    Ok(Probe {
        codec: video["codec_name"].as_str().unwrap_or_default().to_owned(),
        width: video["width"].as_u64().unwrap_or_default(),
        height: video["height"].as_u64().unwrap_or_default(),
        frames: video["nb_read_frames"].as_str().and_then(|n| n.parse().ok()).unwrap_or_default(),
        pts,
        starts_with_key: packets
            .first()
            .is_some_and(|packet| packet["flags"].as_str().is_some_and(|flags| flags.starts_with('K'))),
        audio_streams: of("audio"),
    })
}

pub fn probe_bytes(folder: &Path, name: &str, bytes: &[u8]) -> Result<Probe> {
    let file = folder.join(name);
    std::fs::write(&file, bytes)?;
    probe(&file)
}

/// Width and height of each FWHT frame in a transport stream, which ffprobe cannot read. A frame begins with two words that
/// nothing else in it can be, its version, its width and its height, big-endian: `fwht_cframe_hdr` of the kernel's
/// `codec-fwht.h`. All of that is in a packet that a PES begins with.
pub fn fwht_frames(ts: &[u8]) -> Vec<(u32, u32)> {
    const MAGIC: [u8; 8] = [0x4f, 0x4f, 0x4f, 0x4f, 0xff, 0xff, 0xff, 0xff];
    let word = |at: &[u8]| at.first_chunk().map(|word| u32::from_be_bytes(*word));
    ts.windows(MAGIC.len() + 12)
        .filter(|header| header.starts_with(&MAGIC))
        .filter_map(|header| Some((word(&header[12..])?, word(&header[16..])?)))
        .collect()
}

/// MD5 of the first audio stream's packets.
pub fn audio_md5(file: &Path) -> Result<String> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(file)
        .args(["-map", "0:a:0", "-c", "copy", "-f", "md5", "-"])
        .output()?;
    if !output.status.success() {
        bail!("ffmpeg -f md5: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
