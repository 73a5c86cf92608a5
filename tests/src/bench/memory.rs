//! Peak memory of a worker on the standard ladder, against ffmpeg's.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::ffmpeg::{self, Scaling};
use super::{Lab, Must, RUNGS, Row, ladder, median, status_kib};
use crate::process::binary;
use crate::worker::Worker;

/// How often a process that ends by itself is looked at: its peak only grows.
const LOOK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(300);

fn ffmpeg_peak(lab: &Lab, threads: &[u32]) -> Result<f64> {
    let folder = lab.folder.join("memory");
    fs::create_dir_all(&folder)?;
    let mut command = ffmpeg::ladder(&lab.source, &folder, Scaling::Split, Some(threads));
    let mut child = command.stdin(Stdio::null()).spawn()?;
    let (mut peak, started) = (0.0_f64, Instant::now());
    loop {
        // An ended process has no memory any more.
        peak = status_kib(child.id(), "VmHWM").unwrap_or(peak).max(peak);
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "ffmpeg: {status}");
            return Ok(peak / 1024.0);
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
        }
        std::thread::sleep(LOOK);
    }
}

pub fn rows(lab: &Lab, threads: &[u32]) -> Result<Vec<Row>> {
    let (mut ratios, mut ours) = (Vec::new(), Vec::new());
    for round in 0..lab.rounds {
        eprintln!("  memory: round {} of {}", round + 1, lab.rounds);
        let mut worker = Worker::start(&binary("headwater-worker")?, &ladder("h264", "ts")?)?;
        for segment in &lab.segments {
            worker.segment(&fs::read(segment)?, RUNGS.len())?;
        }
        let own = status_kib(worker.pid(), "VmHWM")? / 1024.0;
        drop(worker);
        ratios.push(own / ffmpeg_peak(lab, threads)?);
        ours.push(own);
    }
    let note = format!("{:.0} MiB over {} segments", median(&mut ours), lab.segments.len());
    Ok(vec![Row::new(
        "peak memory of a worker against ffmpeg's",
        median(&mut ratios),
        "x",
        Must::AtMost(1.0),
        note,
    )])
}
