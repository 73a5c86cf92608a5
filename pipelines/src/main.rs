//! `headwater-worker`: the process that runs GStreamer.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use headwater_pipelines::album::{self, Album};
use headwater_pipelines::exit::{self, Exit};
use headwater_pipelines::transcode::{Cut, Summary};
use headwater_pipelines::{cut, ladder, log, probe, serve, survey, transcode};
use headwater_protocol::{Container, Ladder, Rendition};

/// Transcodes video on this machine: probes what it can do, works for an agent, or turns a file into renditions.
#[derive(Debug, Parser)]
#[command(name = "headwater-worker", version, after_help = exit::HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work for an agent over the socket that is standard input
    Serve,
    /// Prove what this machine can decode, scale and encode; prints JSON
    Probe,
    /// Prove one candidate in this process, for `probe`
    #[command(hide = true)]
    ProbeOne { number: usize },
    /// Cut a file at keyframes; segments go to standard output in the worker's framing
    Split {
        /// MPEG-TS, MP4 or Matroska file
        input: PathBuf,
        /// Each at least so long
        #[arg(long, value_name = "SECONDS", default_value = "2s", value_parser = seconds)]
        segment: Duration,
    },
    /// Turn a file into renditions
    Transcode(Transcode),
    /// Make pictures of a file, one each so many seconds
    ///
    /// Where keyframes are no farther apart than the pictures, only keyframes are decoded, which is many times faster;
    /// a picture is then the first keyframe at or after its time.
    Thumbnails(Thumbnails),
    /// Make sheets of small pictures of a file, and a WebVTT file that tells players where each lies
    ///
    /// Only keyframes are decoded where they are no farther apart than the pictures, as with thumbnails.
    Storyboard(Storyboard),
}

#[derive(Debug, clap::Args)]
struct Thumbnails {
    /// MPEG-TS or MP4 file
    input: PathBuf,
    /// Folder for the pictures: 00001.jpg, 00002.jpg, …
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// From one picture to the next
    #[arg(long, value_name = "SECONDS", default_value = "10s", value_parser = seconds)]
    every: Duration,
    /// Width of the pictures, of upright ones the height
    #[arg(long, value_name = "PIXELS", default_value_t = 320)]
    width: u32,
    /// From 1, the best, to 51
    #[arg(long, default_value_t = 8)]
    quality: u8,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Storyboard {
    /// MPEG-TS or MP4 file
    input: PathBuf,
    /// Folder for the sheets: sheet-001.jpg, sheet-002.jpg, …, and storyboard.vtt
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// From one picture to the next
    #[arg(long, value_name = "SECONDS", default_value = "5s", value_parser = seconds)]
    every: Duration,
    /// Pictures side by side on a sheet
    #[arg(long, default_value_t = 5)]
    columns: u8,
    /// Pictures one below the other on a sheet
    #[arg(long, default_value_t = 5)]
    rows: u8,
    /// Width of the pictures, of upright ones the height
    #[arg(long, value_name = "PIXELS", default_value_t = 160)]
    width: u32,
    /// From 1, the best, to 51
    #[arg(long, default_value_t = 12)]
    quality: u8,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Transcode {
    /// MPEG-TS, MP4 or Matroska file
    input: PathBuf,
    /// Folder for the renditions: RENDITION/NUMBER.ts, index.m3u8 and master.m3u8
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// JSON list of renditions or Livepeer profiles, or TOML with [[rendition]] tables
    ///
    /// A rendition's audio is copied unless it says otherwise: `audio = "none"`, `audio = { aac = { bitrate =
    /// "128k", rate = 48000, channels = 2 } }` or `audio = { opus = { bitrate = "96k", channels = 2 } }`. It is
    /// encoded once over the whole file, so that segments follow each other without a gap.
    #[arg(short, long, value_name = "FILE")]
    ladder: PathBuf,
    /// Cut at keyframes into segments of at least so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "2s", value_parser = seconds, conflicts_with = "whole")]
    segment: Duration,
    /// Do not cut: one file per rendition, DIR/RENDITION.ts or .mp4
    #[arg(long)]
    whole: bool,
    /// Container of all renditions, in place of the ladder's
    #[arg(long, value_enum)]
    container: Option<ContainerName>,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ContainerName {
    Ts,
    Mp4,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no length; write 2, 2s or 500ms");
    let (number, scale) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let value = number.trim().parse::<f64>().map_err(|_| bad())? * scale;
    if (0.01..=300.0).contains(&value) { Ok(Duration::from_secs_f64(value)) } else { Err(bad()) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HEADWATER_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(arguments.command) {
        Ok(()) => Exit::Done.into(),
        Err((exit, error)) => {
            tracing::debug!("{error:?}");
            eprintln!("headwater-worker: {}", headwater_protocol::error::in_one_line(error.as_ref()));
            exit.into()
        }
    }
}

fn run(command: Command) -> Result<(), (Exit, anyhow::Error)> {
    // Cutting needs no GStreamer.
    if !matches!(command, Command::Split { .. }) {
        log::init().map_err(|error| (Exit::Start, error.into()))?;
    }
    match command {
        Command::Serve => serve::serve().map_err(|error| (error.exit(), error.into())),
        Command::Split { input, segment } => {
            cut::cut(&input, segment).map_err(|error| (Exit::Failed, error.into()))
        }
        Command::Probe => run_probe().map_err(|error| (Exit::Start, error)),
        Command::ProbeOne { number } => run_probe_one(number),
        Command::Transcode(arguments) => run_transcode(&arguments).map_err(|error| (Exit::Failed, error)),
        Command::Thumbnails(Thumbnails { input, output, every, width, quality, json }) => {
            let album = Album { every, side: width, quality, sheet: None };
            run_album(&input, &output, album, json).map_err(|error| (Exit::Failed, error))
        }
        Command::Storyboard(Storyboard { input, output, every, columns, rows, width, quality, json }) => {
            let album = Album { every, side: width, quality, sheet: Some((columns, rows)) };
            run_album(&input, &output, album, json).map_err(|error| (Exit::Failed, error))
        }
    }
}

fn run_probe() -> anyhow::Result<()> {
    let (board, machine) = survey::board()?;
    let report = probe::probe(&board, &machine);
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn run_probe_one(number: usize) -> Result<(), (Exit, anyhow::Error)> {
    let (board, machine) = survey::board().map_err(|error| (Exit::Start, error.into()))?;
    let proved = probe::probe_one(&board, &machine, number);
    // The parent reads either of the two.
    let text = match &proved {
        Ok(capability) => serde_json::to_string(capability),
        Err(fault) => serde_json::to_string(fault),
    };
    println!("{}", text.map_err(|error| (Exit::Failed, error.into()))?);
    proved.map(drop).map_err(|fault| (Exit::Failed, fault.into()))
}

fn run_transcode(arguments: &Transcode) -> anyhow::Result<()> {
    let mut ladder = ladder::read(&arguments.ladder)?;
    if let Some(container) = arguments.container {
        let container = match container {
            ContainerName::Ts => Container::Ts,
            ContainerName::Mp4 => Container::Mp4,
        };
        let all = ladder.renditions().iter().map(|one| Rendition { container, ..one.clone() });
        ladder = Ladder::new(all.collect())?;
    }
    let cut = if arguments.whole { Cut::Whole } else { Cut::Segments(arguments.segment) };
    let summary = transcode::transcode(&arguments.input, &arguments.output, &ladder, cut)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print_summary(&summary);
    }
    Ok(())
}

fn run_album(input: &Path, output: &Path, album: Album, json: bool) -> anyhow::Result<()> {
    let made = album::make(input, output, album)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    println!(
        "{} pictures of {}x{} in {} files, {} of {} frames decoded",
        made.pictures,
        made.width,
        made.height,
        made.files.len(),
        made.decoded,
        made.frames
    );
    if let Some(vtt) = &made.vtt {
        println!("{}", output.join(vtt).display());
    }
    Ok(())
}

fn print_summary(summary: &Summary) {
    println!(
        "{:<16} {:>9} {:>8} {:>6} {:>12} {:>9}",
        "rendition", "size", "frames", "keys", "bytes", "kbit/s"
    );
    for one in &summary.renditions {
        let size = format!("{}x{}", one.width, one.height);
        println!(
            "{:<16} {size:>9} {:>8} {:>6} {:>12} {:>9}",
            one.name,
            one.frames,
            one.keyframes,
            one.bytes,
            one.bits_per_second / 1000
        );
    }
    println!(
        "{} segments, {:.2} s of video in {:.2} s: {:.1} x real time, {:.0} fps, {:.2} s of CPU",
        summary.segments,
        summary.seconds,
        summary.wall_seconds,
        summary.realtime,
        summary.fps,
        summary.cpu_seconds
    );
    if summary.decoded < summary.frames || summary.errors > 0 {
        println!(
            "input damaged: {} of {} frames decoded, {} errors",
            summary.decoded, summary.frames, summary.errors
        );
    }
}
