//! Wall time of a warm 2 s segment, against an ffmpeg process for each: one at a time, and two in flight.
//!
//! ffmpeg chooses its own threads here: with the worker's one per small encoder it would be slower, and the row
//! easier to keep.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::ffmpeg::{self, Scaling};
use super::{Lab, Must, RUNGS, Row, ladder, measured, median};
use crate::process::binary;
use crate::worker::Worker;

/// Two ffmpeg processes at once; wall seconds until both are done.
fn pair(segments: [&PathBuf; 2], folders: &[PathBuf; 2]) -> Result<f64> {
    let started = Instant::now();
    let children: Vec<Child> = segments
        .into_iter()
        .zip(folders)
        .map(|(segment, folder)| {
            let mut command = ffmpeg::ladder(segment, folder, Scaling::Split, None);
            Ok(command.stdin(Stdio::null()).spawn()?)
        })
        .collect::<Result<_>>()?;
    for mut child in children {
        let status = child.wait()?;
        ensure!(status.success(), "ffmpeg: {status}");
    }
    Ok(started.elapsed().as_secs_f64())
}

/// A segment in each worker at once; until both are done.
fn both(workers: [&mut Worker; 2], segments: &[Vec<u8>; 2]) -> Result<Duration> {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let running = workers
            .into_iter()
            .zip(segments)
            .map(|(worker, segment)| scope.spawn(move || worker.segment(segment, RUNGS.len()).map(drop)));
        let running: Vec<_> = running.collect();
        running.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(started.elapsed())
}

pub fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let folders = [lab.folder.join("per-segment-a"), lab.folder.join("per-segment-b")];
    folders.iter().try_for_each(fs::create_dir_all)?;
    let start = || Worker::start(&binary("headwater-worker")?, &ladder("h264", "ts")?);
    // Each segment in flight has a worker of its own.
    let (mut worker, mut other_worker) = (start()?, start()?);
    let first = fs::read(&lab.segments[0])?;
    worker.segment(&first, RUNGS.len())?;
    other_worker.segment(&first, RUNGS.len())?;
    let (mut single, mut double) = (Vec::new(), Vec::new());
    let (mut one_ms, mut two_ms) = (Vec::new(), Vec::new());
    for round in 0..lab.rounds {
        eprintln!("  warm segments: round {} of {}", round + 1, lab.rounds);
        for two in lab.segments[1..].chunks_exact(2) {
            let bytes = [fs::read(&two[0])?, fs::read(&two[1])?];
            for (segment, bytes) in two.iter().zip(&bytes) {
                let (report, _, took) = worker.segment(bytes, RUNGS.len())?;
                ensure!(report.warm, "the worker built a new pipeline");
                let other = measured(&mut ffmpeg::ladder(segment, &folders[0], Scaling::Split, None))?;
                single.push(took.as_secs_f64() / other.wall);
                one_ms.push(took.as_secs_f64() * 1e3);
            }
            let took = both([&mut worker, &mut other_worker], &bytes)?;
            double.push(took.as_secs_f64() / pair([&two[0], &two[1]], &folders)?);
            two_ms.push(took.as_secs_f64() * 1e3 / 2.0);
        }
    }
    Ok(vec![
        Row::new(
            "a warm 2 s segment against an ffmpeg process",
            median(&mut single),
            "x",
            Must::AtMost(0.83),
            format!("{:.0} ms for four rungs of 1080p30; ffmpeg chooses its threads", median(&mut one_ms)),
        ),
        Row::new(
            "two warm segments in flight against two ffmpeg processes",
            median(&mut double),
            "x",
            Must::AtMost(0.78),
            format!("{:.0} ms a segment; ffmpeg chooses its threads", median(&mut two_ms)),
        ),
    ])
}
