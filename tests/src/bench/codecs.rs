//! The standard ladder in HEVC and AV1 on software: figures for reference, to set boards against.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Lab, Must, RUNGS, Row, ladder, measured, quality};
use crate::media;
use crate::process::binary;

pub fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let source = lab.folder.join("codecs.ts");
    let text = |path: &std::path::Path| path.to_str().map(str::to_owned).context("path is not text");
    media::ffmpeg(&["-i", &text(&lab.source)?, "-t", "4", "-c", "copy", "-f", "mpegts", &text(&source)?])?;
    let mut rows = Vec::new();
    for (codec, container) in [("h264", "ts"), ("hevc", "ts"), ("av1", "mp4")] {
        eprintln!("  {codec}");
        let folder = lab.folder.join(codec);
        let file = lab.folder.join(format!("{codec}.json"));
        fs::write(&file, serde_json::to_string(&ladder(codec, container)?)?)?;
        let mut command = Command::new(binary("headwater-worker")?);
        command.arg("transcode").arg(&source).arg("-o").arg(&folder);
        command.arg("--ladder").arg(&file).args(["--whole", "--json"]);
        let what = format!("standard ladder in {codec}, software");
        let took = match measured(&mut command) {
            Ok(took) => took,
            Err(error) => {
                let why = error.to_string().lines().last().unwrap_or_default().to_owned();
                rows.push(Row::new(what, 0.0, "fps", Must::Nothing, format!("not made here: {why}")));
                continue;
            }
        };
        let report: Value = serde_json::from_slice(&took.output).context("the worker's summary")?;
        let seconds = report["seconds"].as_f64().context("a summary without seconds")?;
        let fps = report["fps"].as_f64().context("a summary without fps")?;
        let mut each = Vec::new();
        for (width, height, _) in RUNGS {
            let file = folder.join(format!("{height}p.{container}"));
            let (ssim, psnr) = quality::measure(&file, &source, width, height)?;
            each.push(format!(
                "{height}p {} kB SSIM {ssim:.4} PSNR {psnr:.2}",
                fs::metadata(&file)?.len() / 1000
            ));
        }
        let note = format!("{:.0} CPU seconds a minute; {}", took.cpu / seconds * 60.0, each.join(", "));
        rows.push(Row::new(what, fps, "fps", Must::Nothing, note));
    }
    Ok(rows)
}
