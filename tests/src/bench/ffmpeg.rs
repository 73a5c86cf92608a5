//! The other side: one ffmpeg process for the whole ladder.

use std::path::Path;
use std::process::Command;

use super::{GOP, RUNGS};

/// Where ffmpeg takes a rung's picture from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// Each from the source, as its users do.
    Split,
    /// Each from the one before.
    Cascade,
}

fn graph(scaling: Scaling) -> String {
    let last = RUNGS.len() - 1;
    match scaling {
        Scaling::Split => {
            let splits: String = (0..RUNGS.len()).map(|i| format!("[s{i}]")).collect();
            let scales: Vec<String> =
                RUNGS.iter().enumerate().map(|(i, (w, h, _))| format!("[s{i}]scale={w}:{h}[v{i}]")).collect();
            format!("[0:v]split={}{splits};{}", RUNGS.len(), scales.join(";"))
        }
        Scaling::Cascade => {
            let step = |(i, (w, h, _)): (usize, &(u32, u32, u32))| {
                let from = if i == 0 { "0:v".to_owned() } else { format!("c{}", i - 1) };
                let more = if i < last { format!(",split=2[v{i}][c{i}]") } else { format!("[v{i}]") };
                format!("[{from}]scale={w}:{h}{more}")
            };
            RUNGS.iter().enumerate().map(step).collect::<Vec<_>>().join(";")
        }
    }
}

/// `threads` of each encoder, or ffmpeg's own choice.
pub fn ladder(input: &Path, folder: &Path, scaling: Scaling, threads: Option<&[u32]>) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-y", "-v", "error", "-i"]).arg(input);
    command.arg("-filter_complex").arg(graph(scaling));
    for (i, (_, height, bitrate)) in RUNGS.iter().enumerate() {
        let rate = bitrate.to_string();
        command.args(["-map", &format!("[v{i}]"), "-map", "0:a?", "-c:a", "copy", "-c:v", "libx264"]);
        if let Some(count) = threads.and_then(|threads| threads.get(i)) {
            command.args(["-threads:v", &count.to_string()]);
        }
        #[rustfmt::skip]
        command.args(["-preset", "veryfast", "-bf", "0", "-g", GOP, "-keyint_min", GOP, "-sc_threshold", "0"]);
        command.args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &rate, "-f", "mpegts"]);
        command.arg(folder.join(format!("{height}p.ts")));
    }
    command
}
