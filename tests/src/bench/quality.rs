//! SSIM and PSNR of each rung, ours and ffmpeg's, against the source scaled once.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cpu::Made;
use super::{Lab, Must, RUNGS, Row};

/// SSIM and PSNR in dB over all planes and frames.
pub fn measure(rendition: &Path, source: &Path, width: u32, height: u32) -> Result<(f64, f64)> {
    let graph = format!(
        "[1:v]scale={width}:{height}:flags=bicubic[r];[0:v]settb=AVTB,setpts=N,split[a][c];\
         [r]settb=AVTB,setpts=N,split[b][d];[a][b]ssim;[c][d]psnr"
    );
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-i"])
        .arg(rendition)
        .arg("-i")
        .arg(source)
        .args(["-lavfi", &graph, "-f", "null", "-"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let after = |mark: &str| -> Result<f64> {
        let rest = text.rsplit_once(mark).with_context(|| format!("no {mark} in ffmpeg's output: {text}"))?.1;
        Ok(rest.split_whitespace().next().with_context(|| format!("no number after {mark}"))?.parse()?)
    };
    Ok((after("All:")?, after("average:")?))
}

pub fn rows(lab: &Lab, made: &Made) -> Result<Vec<Row>> {
    let (mut ssim, mut psnr) = (f64::MAX, f64::MAX);
    let (mut ssims, mut psnrs) = (Vec::new(), Vec::new());
    for (width, height, _) in RUNGS {
        let file = format!("{height}p.ts");
        let own = measure(&made.ours.join(&file), &lab.source, width, height)?;
        let other = measure(&made.theirs.join(&file), &lab.source, width, height)?;
        let bytes = |folder: &Path| fs::metadata(folder.join(&file)).map(|file| file.len());
        let size = bytes(&made.ours)? as f64 / bytes(&made.theirs)? as f64;
        ssims.push(format!("{height}p {:.4}/{:.4} at {size:.2}x the bytes", own.0, other.0));
        psnrs.push(format!("{height}p {:.2}/{:.2}", own.1, other.1));
        (ssim, psnr) = (ssim.min(own.0 - other.0), psnr.min(own.1 - other.1));
    }
    Ok(vec![
        Row::new("SSIM against ffmpeg's, worst rung", ssim, "", Must::AtLeast(-0.001), ssims.join(", ")),
        Row::new("PSNR against ffmpeg's, worst rung", psnr, "dB", Must::AtLeast(-0.1), psnrs.join(", ")),
    ])
}
