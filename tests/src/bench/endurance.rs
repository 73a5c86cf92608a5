//! Thousands of tiny segments through one worker: memory, handles, threads and every frame.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use headwater_protocol::Ladder;
use serde_json::json;

use super::{Must, Row, status_kib};
use crate::media;
use crate::process::binary;
use crate::worker::Worker;

/// Frames of a segment: a third of a second.
const FRAMES: u64 = 10;

/// What a run left behind.
#[derive(Debug, Clone, Copy)]
pub struct Endured {
    /// Growth of resident memory after the first tenth, by least squares.
    pub kib_per_thousand: f64,
    /// Open descriptors and threads more than after the first tenth.
    pub handles: i64,
    pub threads: i64,
}

fn count(pid: u32, what: &str) -> Result<i64> {
    Ok(fs::read_dir(format!("/proc/{pid}/{what}"))?.count() as i64)
}

/// The fewest descriptors and threads within two seconds: a thread that is about to end is nothing left behind.
fn settled(pid: u32) -> Result<(i64, i64)> {
    let mut fewest = (count(pid, "fd")?, count(pid, "task")?);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        fewest = (fewest.0.min(count(pid, "fd")?), fewest.1.min(count(pid, "task")?));
    }
    Ok(fewest)
}

/// Slope of `points` by least squares.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if under == 0.0 { 0.0 } else { over / under }
}

/// Runs `segments` through one worker; fails at the first that has not all its frames.
pub fn run(folder: &Path, segments: u64) -> Result<Endured> {
    let inputs: Vec<Vec<u8>> = (0..4)
        .map(|at| media::segment(folder, at, "192x108", "30", FRAMES as f64 / 30.0))
        .collect::<Result<_>>()?;
    let ladder: Ladder = serde_json::from_value(json!([
        {"name": "a", "codec": "h264", "width": 160, "height": 90, "rate": {"bitrate": 100_000}, "container": "ts"},
    ]))?;
    let mut worker = Worker::start(&binary("headwater-worker")?, &ladder)?;
    let pid = worker.pid();
    let warm = segments / 10;
    let every = (segments / 200).max(1);
    let (mut memory, mut before) = (Vec::new(), (0, 0));
    for number in 0..segments {
        let (report, outputs, _) = worker.segment(&inputs[(number % 4) as usize], 1)?;
        let frames = report.renditions.first().map(|rendition| rendition.frames);
        ensure!(
            frames == Some(FRAMES) && !outputs[0].is_empty(),
            "segment {number}: {frames:?} frames of {FRAMES}"
        );
        if number == warm {
            before = settled(pid)?;
        }
        if number >= warm && number % every == 0 {
            memory.push((number as f64 / 1000.0, status_kib(pid, "VmRSS")?));
        }
    }
    let after = settled(pid)?;
    Ok(Endured { kib_per_thousand: slope(&memory), handles: after.0 - before.0, threads: after.1 - before.1 })
}

pub fn rows(folder: &Path, segments: u64) -> Result<Vec<Row>> {
    eprintln!("  endurance: {segments} segments");
    let endured = run(folder, segments)?;
    let note = format!("over {segments} segments, each with all its {FRAMES} frames");
    Ok(vec![
        Row::new(
            "memory of a worker per 1,000 segments",
            endured.kib_per_thousand / 1024.0,
            "MiB",
            Must::AtMost(1.0),
            note.clone(),
        ),
        Row::new(
            "descriptors and threads left behind",
            (endured.handles.max(0) + endured.threads.max(0)) as f64,
            "",
            Must::AtMost(0.0),
            note,
        ),
    ])
}
