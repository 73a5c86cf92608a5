//! `headwater-worker`: the process that runs GStreamer.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use headwater_pipelines::album::{self, Album};
use headwater_pipelines::doctor::{self, Diagnosis, Secrets, Style};
use headwater_pipelines::exit::{self, Exit};
use headwater_pipelines::machine::Machine;
use headwater_pipelines::parts::{self, Part};
use headwater_pipelines::probe::{Candidate, Options, Said, cache};
use headwater_pipelines::transcode::{Cut, Summary};
use headwater_pipelines::{bench, cut, environment, ladder, listing, log, probe, serve, survey, transcode};
use headwater_protocol::{Container, Ladder, Rendition};

/// Transcodes video on this machine: probes what it can do, works for an agent, or turns a file into renditions.
#[derive(Debug, Parser)]
#[command(name = "headwater-worker", version, after_help = exit::HELP)]
struct Arguments {
    /// Where the results of `probe` are remembered; where not given, in the user's cache folder
    #[arg(long, global = true, value_name = "FILE", env = "HEADWATER_PROBE_CACHE")]
    cache: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work for an agent over the socket that is standard input
    Serve,
    /// Prove what this machine can decode, scale and encode; prints JSON
    Probe {
        /// Answer from what is remembered where that still holds: same boot, drivers, plugins and profile
        #[arg(long)]
        cached: bool,
        /// An element that gives nothing for so long is killed
        #[arg(long, value_name = "SECONDS", default_value = "30s", value_parser = seconds)]
        deadline: Duration,
    },
    /// Prove one candidate in this process, for `probe`
    #[command(hide = true)]
    ProbeOne {
        key: String,
        #[arg(long, value_parser = seconds)]
        deadline: Duration,
        /// Process without which this one is for nothing
        #[arg(long)]
        parent: u32,
    },
    /// Show what this machine is, what works on it, what is missing and which package brings it
    Doctor(Doctor),
    /// List the board profiles and which are for this machine
    Boards {
        #[command(subcommand)]
        command: Option<BoardsCommand>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell
    Completions { shell: Shell },
    /// Print the manual page, or write one page per command into a folder
    Man {
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
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
    /// Measure this machine on the standard ladder: streams in real time, CPU, memory, power; takes a minute
    Bench {
        /// Report as JSON
        #[arg(long)]
        json: bool,
        /// Each load lasts so long
        #[arg(long, value_name = "SECONDS", default_value = "20s", value_parser = seconds)]
        load: Duration,
    },
    /// Measure one part of the work alone, for `make bench`; prints JSON
    #[command(hide = true)]
    Part {
        /// MPEG-TS file
        input: PathBuf,
        #[arg(short, long, value_name = "FILE")]
        ladder: PathBuf,
        /// decode, scale, or the number of the rendition to encode
        #[arg(value_parser = part)]
        part: Part,
    },
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

#[derive(Debug, Subcommand)]
enum BoardsCommand {
    /// Print a profile with everything that it extends, as TOML
    Show { id: String },
}

#[derive(Debug, clap::Args)]
struct Doctor {
    /// Print JSON
    #[arg(long, conflicts_with = "plan")]
    json: bool,
    /// Print the plan for the standard ladder as JSON, with its reasons
    #[arg(long)]
    plan: bool,
    /// Write a file to share: the machine, its elements and what was proved, without names or serial numbers
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Use this profile in place of the one that matches
    #[arg(long, value_name = "ID")]
    board: Option<String>,
    /// An element that gives nothing for so long is killed
    #[arg(long, value_name = "SECONDS", default_value = "30s", value_parser = seconds)]
    deadline: Duration,
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

fn part(text: &str) -> Result<Part, String> {
    match text {
        "decode" => Ok(Part::Decode),
        "scale" => Ok(Part::Scale),
        _ => text.parse().map(Part::Encode).map_err(|_| format!("{text:?} is no part of the work")),
    }
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
    let started = Instant::now();
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HEADWATER_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    if let Some(file) = arguments.cache {
        cache::use_file(file);
    }
    match run(arguments.command, started) {
        Ok(exit) => exit.into(),
        Err((exit, error)) => {
            tracing::debug!("{error:?}");
            eprintln!("headwater-worker: {}", headwater_protocol::error::in_one_line(error.as_ref()));
            exit.into()
        }
    }
}

impl Command {
    /// Whether it runs elements, and the board that it was told.
    fn board(&self) -> Option<Option<String>> {
        match self {
            Command::Split { .. } | Command::Completions { .. } | Command::Man { .. } => None,
            Command::Doctor(Doctor { board: Some(board), .. }) => Some(Some(board.clone())),
            Command::Serve
            | Command::Probe { .. }
            | Command::ProbeOne { .. }
            | Command::Doctor(_)
            | Command::Boards { .. }
            | Command::Thumbnails(_)
            | Command::Storyboard(_)
            | Command::Bench { .. }
            | Command::Part { .. }
            | Command::Transcode(_) => Some(survey::named_board()),
        }
    }
}

fn run(command: Command, started: Instant) -> Result<Exit, (Exit, anyhow::Error)> {
    // What needs no GStreamer does not wait for it.
    if let Some(board) = command.board() {
        environment::enter(board.as_deref()).map_err(|error| (Exit::Start, error.into()))?;
        if !headwater_scaler::keep_little() {
            tracing::debug!("freed pictures stay in the heap: this C library cannot be told otherwise");
        }
        log::init().map_err(|error| (Exit::Start, error.into()))?;
    }
    let done = |()| Exit::Done;
    let failed = |error| (Exit::Failed, error);
    match command {
        Command::Serve => serve::serve().map(done).map_err(|error| (error.exit(), error.into())),
        Command::Split { input, segment } => {
            cut::cut(&input, segment).map(done).map_err(|error| failed(error.into()))
        }
        Command::Probe { cached, deadline } => {
            run_probe(cached, deadline).map(done).map_err(|error| (Exit::Start, error))
        }
        Command::ProbeOne { key, deadline, parent } => run_probe_one(&key, started, deadline, parent),
        Command::Doctor(arguments) => run_doctor(arguments),
        Command::Boards { command: None, json } => run_boards(json).map(done).map_err(failed),
        Command::Boards { command: Some(BoardsCommand::Show { id }), .. } => {
            let shown = listing::show(&id).map_err(anyhow::Error::from);
            shown.and_then(|text| print(&text)).map(done).map_err(failed)
        }
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "headwater-worker",
                &mut std::io::stdout(),
            );
            Ok(Exit::Done)
        }
        Command::Man { dir } => man(dir.as_deref()).map(done).map_err(|error| failed(error.into())),
        Command::Transcode(arguments) => run_transcode(&arguments).map(done).map_err(failed),
        Command::Bench { json, load } => run_bench(json, load).map(done).map_err(failed),
        Command::Part { input, ladder, part } => run_part(&input, &ladder, part).map(done).map_err(failed),
        Command::Thumbnails(Thumbnails { input, output, every, width, quality, json }) => {
            let album = Album { every, side: width, quality, sheet: None };
            run_album(&input, &output, album, json).map(done).map_err(failed)
        }
        Command::Storyboard(Storyboard { input, output, every, columns, rows, width, quality, json }) => {
            let album = Album { every, side: width, quality, sheet: Some((columns, rows)) };
            run_album(&input, &output, album, json).map(done).map_err(failed)
        }
    }
}

/// A reader that went away is no failure of ours to shout about, but still one.
fn print(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", text.trim_end())?)
}

fn man(dir: Option<&std::path::Path>) -> std::io::Result<()> {
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(Arguments::command(), dir)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            std::io::stdout().write_all(&page)
        }
    }
}

/// For someone who waits.
fn tell(candidate: &Candidate, number: usize, count: usize) {
    let mut screen = std::io::stderr();
    if screen.is_terminal() {
        // Nobody is helped by a fault for a line that could not be shown.
        let _ = write!(screen, "\r{number}/{count} trying {}\x1b[K\r", candidate.element);
        if number == count {
            let _ = write!(screen, "\x1b[K");
        }
    }
}

fn run_probe(cached: bool, deadline: Duration) -> anyhow::Result<()> {
    let (board, machine) = survey::choose(None)?;
    let known = cache::load(&cache::key(&board, &machine)).filter(|found| cached && !found.passing());
    let options = Options { deadline, board: None };
    let findings = known.unwrap_or_else(|| probe::probe_and_remember(&board, &machine, &options, &mut tell));
    print(&serde_json::to_string_pretty(&findings.report())?)
}

fn run_probe_one(
    key: &str,
    started: Instant,
    deadline: Duration,
    parent: u32,
) -> Result<Exit, (Exit, anyhow::Error)> {
    let start = |error: anyhow::Error| (Exit::Start, error);
    probe::end_with_parent(parent).map_err(|error| start(error.into()))?;
    let (board, mut machine) = survey::choose(None).map_err(|error| start(error.into()))?;
    if let Some(candidate) = probe::candidates(&board, &machine).into_iter().find(|one| one.key() == key) {
        survey::look_at_one(&mut machine, &board, &candidate.element);
    }
    // A line that nobody reads any more is nothing to this process.
    let mut say = |said: &Said| {
        let line = serde_json::to_string(said).unwrap_or_default();
        let _ = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
    };
    let exit = match probe::prove(&board, &mut machine, key, started, deadline, &mut say) {
        Ok(()) => Exit::Done,
        Err(fault) => {
            say(&Said::Failed(fault));
            Exit::Failed
        }
    };
    // Threads of a hung element would be waited for.
    exit.now()
}

fn run_doctor(arguments: Doctor) -> Result<Exit, (Exit, anyhow::Error)> {
    let options = Options { deadline: arguments.deadline, board: arguments.board.clone() };
    let found = doctor::diagnose(&options, &mut tell);
    let (diagnosis, machine) = found.map_err(|error| (Exit::Start, error.into()))?;
    let exit = diagnosis.verdict.exit();
    show(&arguments, diagnosis, machine).map_err(|error| (Exit::Failed, error))?;
    Ok(exit)
}

fn show(arguments: &Doctor, diagnosis: Diagnosis, machine: Machine) -> anyhow::Result<()> {
    let Doctor { json, plan, report, .. } = arguments;
    if *json {
        print(&serde_json::to_string_pretty(&diagnosis)?)?;
    } else if *plan {
        print(&serde_json::to_string_pretty(&diagnosis.plan)?)?;
    } else {
        let stdout = std::io::stdout();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        print(&doctor::page(&diagnosis, Style { colored: stdout.is_terminal() && !plain }))?;
    }
    if let Some(path) = report {
        let text = doctor::Report::new(diagnosis, machine).to_json(&Secrets::here())?;
        std::fs::write(path, text + "\n").map_err(|error| {
            anyhow::anyhow!("the report cannot be written to {}: {error}", path.display())
        })?;
    }
    Ok(())
}

fn run_boards(json: bool) -> anyhow::Result<()> {
    let listed = listing::list()?;
    if json { print(&serde_json::to_string_pretty(&listed)?) } else { print(&listing::text(&listed)) }
}

fn run_bench(json: bool, load: Duration) -> anyhow::Result<()> {
    let times = bench::Times { idle: Duration::from_secs(8), load };
    proved()?;
    let (board, machine) = survey::board()?;
    let report = bench::bench(&board, &machine, times)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        bench::print(&report, &mut std::io::stdout())?;
    }
    Ok(())
}

fn run_part(input: &Path, ladder: &Path, part: Part) -> anyhow::Result<()> {
    let cost = parts::cost(input, &ladder::read(ladder)?, part)?;
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
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
    proved()?;
    let cut = if arguments.whole { Cut::Whole } else { Cut::Segments(arguments.segment) };
    let summary = transcode::transcode(&arguments.input, &arguments.output, &ladder, cut)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print_summary(&summary);
    }
    Ok(())
}

/// Hardware is used only once it is proved; what was found is remembered.
fn proved() -> anyhow::Result<()> {
    let mut said = false;
    probe::ensure(&mut |candidate, number, count| {
        if !std::mem::replace(&mut said, true) {
            eprintln!("headwater-worker: proving this board's hardware, once for each boot");
        }
        tell(candidate, number, count);
    })?;
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
