//! CPU time for the standard ladder: against ffmpeg with split and with a cascade, and against the sum of the
//! worker's own parts, each alone.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::ffmpeg::{self, Scaling};
use super::{Lab, Must, RUNGS, Row, SECONDS, measured, median};
use crate::process::binary;

/// Renditions of both sides, for the comparison of their quality.
#[derive(Debug)]
pub struct Made {
    pub ours: PathBuf,
    pub theirs: PathBuf,
    /// Of each encoder, on both sides.
    pub threads: Vec<u32>,
}

/// CPU seconds and, for an encoder, its threads.
fn part(lab: &Lab, name: &str) -> Result<(f64, Option<u32>)> {
    let mut command = Command::new(binary("headwater-worker")?);
    command.arg("part").arg(&lab.source).arg("--ladder").arg(&lab.ladder).arg(name);
    let cost: Value = serde_json::from_slice(&measured(&mut command)?.output).context("a part's cost")?;
    let threads = cost["threads"].as_u64().map(u32::try_from).transpose()?;
    Ok((cost["cpu_seconds"].as_f64().context("a part without CPU seconds")?, threads))
}

fn transcode(lab: &Lab, made: &Made) -> Result<Command> {
    let mut command = Command::new(binary("headwater-worker")?);
    command.arg("transcode").arg(&lab.source).arg("-o").arg(&made.ours);
    command.arg("--ladder").arg(&lab.ladder).args(["--whole", "--json"]);
    Ok(command)
}

/// Both sides' renditions once, without measuring.
pub fn make(lab: &Lab) -> Result<Made> {
    let (ours, theirs) = (lab.folder.join("ours"), lab.folder.join("theirs"));
    fs::create_dir_all(&theirs)?;
    let threads = (0..RUNGS.len())
        .map(|rung| part(lab, &rung.to_string())?.1.context("an encoder without a number of threads"))
        .collect::<Result<_>>()?;
    let made = Made { ours, theirs, threads };
    measured(&mut transcode(lab, &made)?)?;
    measured(&mut ffmpeg::ladder(&lab.source, &made.theirs, Scaling::Split, Some(&made.threads)))?;
    Ok(made)
}

pub fn rows(lab: &Lab, made: &Made) -> Result<Vec<Row>> {
    let spare = lab.folder.join("cascaded");
    fs::create_dir_all(&spare)?;
    let (mut split, mut cascade, mut sums, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut shares: Vec<(String, Vec<f64>)> = Vec::new();
    for round in 0..lab.rounds {
        eprintln!("  CPU: round {} of {}", round + 1, lab.rounds);
        let own = measured(&mut transcode(lab, made)?)?;
        let one = ffmpeg::ladder(&lab.source, &made.theirs, Scaling::Split, Some(&made.threads));
        split.push(own.cpu / measured(&mut { one })?.cpu);
        let other = ffmpeg::ladder(&lab.source, &spare, Scaling::Cascade, Some(&made.threads));
        cascade.push(own.cpu / measured(&mut { other })?.cpu);
        cpu.push(own.cpu / SECONDS * 60.0);
        // Without the process's start on both sides.
        let report: Value = serde_json::from_slice(&own.output).context("the worker's summary")?;
        let whole = report["cpu_seconds"].as_f64().context("a summary without CPU seconds")?;
        let names = ["decode".to_owned(), "scale".to_owned()];
        let names = names.into_iter().chain((0..RUNGS.len()).map(|rung| rung.to_string()));
        let mut sum = 0.0;
        for (at, name) in names.enumerate() {
            let (seconds, _) = part(lab, &name)?;
            sum += seconds;
            if shares.len() <= at {
                shares.push((name, Vec::new()));
            }
            shares[at].1.push(seconds);
        }
        sums.push(whole / sum);
    }
    let parts: Vec<String> =
        shares.iter_mut().map(|(name, seconds)| format!("{name} {:.2}", median(seconds))).collect();
    let same = format!("x264 threads {:?} on both sides", made.threads);
    let minute = median(&mut cpu);
    Ok(vec![
        Row::new(
            "CPU for the standard ladder against ffmpeg, split",
            median(&mut split),
            "x",
            Must::AtMost(0.93),
            format!("{minute:.1} CPU seconds a minute of 1080p30; {same}"),
        ),
        Row::new(
            "CPU for the standard ladder against ffmpeg, cascaded",
            median(&mut cascade),
            "x",
            Must::AtMost(0.97),
            same,
        ),
        Row::new(
            "CPU of the whole against the sum of its parts alone",
            median(&mut sums),
            "x",
            Must::AtMost(1.06),
            format!("CPU seconds: {}", parts.join(", ")),
        ),
    ])
}
