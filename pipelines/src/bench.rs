//! `bench`: what this machine can do, in about a minute, without files, network or other programs.
//!
//! ```text
//! idle ─▶ make a clip ─▶ one stream ─▶ as many at once as there are pairs of cores
//!         └────────────── power, where a sensor is ─────────────────────────────┘
//! ```

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use headwater_protocol::{Code, Codec, Container, Fault, Ladder};

use crate::board::Board;
use crate::clip;
use crate::engine::{Engine, Nowhere, Once, Stopped, cpu_us};
use crate::machine::Machine;
use crate::plan::{self, Input, Trust};
use crate::power::{self, Meter, Sensor};
use crate::standard;
use crate::survey;

const FRAMES: u64 = 60;
const SECONDS: f64 = 2.0;
/// How often power is looked at: slower than sensors average, fast enough for a second's load.
const LOOK: Duration = Duration::from_millis(250);

/// How long each step lasts.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub idle: Duration,
    pub load: Duration,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub worker_version: String,
    pub machine: String,
    pub cores: u32,
    pub profile: String,
    pub decoder: String,
    /// In the order of the ladder.
    pub encoders: Vec<String>,
    /// What reads the power and what it covers; None where there is no sensor.
    pub sensor: Option<Power>,
    pub loads: Vec<Load>,
    /// What was not measured, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Power {
    pub name: String,
    pub covers: power::Covers,
    pub idle_watts: Option<f64>,
}

/// What came of some streams at once. A minute is one of source video with all its renditions.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    pub streams: u32,
    /// Streams that this machine carries in real time.
    pub realtime: f64,
    /// Source frames a second, over all streams.
    pub fps: f64,
    pub cpu_seconds_per_minute: f64,
    /// Largest resident memory so far.
    pub memory_mib: f64,
    pub watts: Option<f64>,
    pub joules_per_minute: Option<f64>,
    pub joules_per_minute_above_idle: Option<f64>,
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::PipelineFailed, error.to_string())
}

pub fn bench(board: &Board, machine: &Machine, times: Times) -> Result<Report, Fault> {
    let ladder = standard::ladder();
    let bar = Bar { steps: 4 };
    let sensor = power::here(&survey::root());
    let idle = sensor.as_ref().and_then(|sensor| {
        bar.show(0, 0.0, "idle");
        metered(Some(sensor), || std::thread::sleep(times.idle)).1
    });
    bar.show(1, 0.0, "making a clip");
    let clip = clip::make(board, machine, FRAMES)?;
    let mut loads = vec![load(board, machine, &ladder, &clip, 1, &sensor, idle, times, &bar)?];
    let mut notes = Vec::new();
    let many = machine.cores / 2;
    if many > 1 {
        match load(board, machine, &ladder, &clip, many, &sensor, idle, times, &bar) {
            Ok(load) => loads.push(load),
            // What one stream did is worth knowing where the devices have no session for a second.
            Err(fault) if matches!(fault.code, Code::Busy | Code::NoEncoder | Code::NoDecoder) => {
                notes.push(format!("{many} streams at once: {}", fault.text));
            }
            Err(fault) => return Err(fault),
        }
    }
    bar.clear();
    let decoder = plan::decoder(board, machine, Input::any(Codec::H264, Trust::Lossy))?;
    let picture = standard::picture(board, machine);
    let rungs = plan::outputs(board, machine, &ladder, &decoder, &picture)?.rungs;
    Ok(Report {
        worker_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: model(),
        cores: machine.cores,
        profile: board.id.clone(),
        decoder: decoder.elements.last().map(|element| element.factory.clone()).unwrap_or_default(),
        encoders: rungs.into_iter().map(|rung| rung.element.factory).collect(),
        sensor: sensor.map(|sensor| Power { name: sensor.name, covers: sensor.covers, idle_watts: idle }),
        loads,
        notes,
    })
}

/// The machine as one of several streams has it: the sessions of what runs only so many at once are shared out.
fn part(machine: &Machine, streams: u32, number: u32) -> Machine {
    let mut machine = machine.clone();
    for sessions in machine.sessions.values_mut() {
        sessions.ours = sessions.most * (number + 1) / streams - sessions.most * number / streams;
    }
    machine
}

/// What the machine calls itself.
fn model() -> String {
    let tree = std::fs::read_to_string(survey::root().join("proc/device-tree/model")).ok();
    let board = tree.map(|model| model.trim_end_matches('\0').to_owned());
    let processor = || {
        let facts = std::fs::read_to_string(survey::root().join("proc/cpuinfo")).ok()?;
        let line = facts.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    board.or_else(processor).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Runs `work` and gives the mean power meanwhile.
fn metered<T>(sensor: Option<&Sensor>, work: impl FnOnce() -> T) -> (T, Option<f64>) {
    let (stop, stopped) = mpsc::sync_channel::<()>(1);
    std::thread::scope(|scope| {
        let meter = scope.spawn(move || {
            let (mut meter, started) = (Meter::default(), Instant::now());
            let sensor = sensor?;
            loop {
                if let Some(reading) = sensor.read() {
                    meter.add(started.elapsed(), reading);
                }
                if !matches!(stopped.recv_timeout(LOOK), Err(mpsc::RecvTimeoutError::Timeout)) {
                    return meter.watts();
                }
            }
        });
        let done = work();
        drop(stop);
        // A panic there would only lose the figure.
        (done, meter.join().unwrap_or(None))
    })
}

#[expect(clippy::too_many_arguments, reason = "one step of one function, taken out of it")]
fn load(
    board: &Board,
    machine: &Machine,
    ladder: &Ladder,
    clip: &Bytes,
    streams: u32,
    sensor: &Option<Sensor>,
    idle: Option<f64>,
    times: Times,
    bar: &Bar,
) -> Result<Load, Fault> {
    let step = if streams == 1 { 2 } else { 3 };
    let segments = AtomicU64::new(0);
    // All streams are warm before the first is timed; the caller is one of those who wait.
    let ready = Barrier::new(streams as usize + 1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..streams)
            .map(|number| {
                let machine = part(machine, streams, number);
                let mut engine = Engine::new(board.clone(), machine, ladder.clone());
                let (segments, ready, stop) = (&segments, &ready, &stop);
                scope.spawn(move || {
                    let first =
                        engine.prewarm().map_err(Stopped::Failed).and_then(|()| one(&mut engine, clip));
                    ready.wait();
                    first?;
                    while !stop.load(Relaxed) {
                        one(&mut engine, clip)?;
                        segments.fetch_add(1, Relaxed);
                    }
                    Ok::<(), Stopped>(())
                })
            })
            .collect();
        ready.wait();
        let (cpu, started) = (cpu_us(), Instant::now());
        let (ended, watts) = metered(sensor.as_ref(), || {
            while started.elapsed() < times.load && !running.iter().any(|stream| stream.is_finished()) {
                let done = started.elapsed().as_secs_f64() / times.load.as_secs_f64();
                bar.show(step, done, &format!("{streams} at once"));
                std::thread::sleep(Duration::from_millis(100));
            }
            stop.store(true, Relaxed);
            // What is begun is finished and counted, and so is the time for it.
            running.into_iter().try_for_each(|stream| match stream.join() {
                Ok(Ok(())) => Ok(()),
                Ok(Err(Stopped::Failed(fault))) => Err(fault),
                Ok(Err(Stopped::Gone)) | Err(_) => Err(broken("a stream stopped")),
            })
        });
        ended?;
        let seconds = started.elapsed().as_secs_f64();
        let video = segments.load(Relaxed) as f64 * SECONDS;
        let cpu = cpu_us().saturating_sub(cpu) as f64 / 1e6;
        let minute = |joules: f64| joules * seconds / video * 60.0;
        Ok(Load {
            streams,
            realtime: video / seconds,
            fps: video / SECONDS * FRAMES as f64 / seconds,
            cpu_seconds_per_minute: cpu / video * 60.0,
            memory_mib: peak_memory_mib().unwrap_or_default(),
            watts,
            joules_per_minute: watts.map(minute),
            joules_per_minute_above_idle: watts.zip(idle).map(|(watts, idle)| minute(watts - idle)),
        })
    })
}

fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

fn one(engine: &mut Engine, clip: &Bytes) -> Result<(), Stopped> {
    let report =
        engine.run(Container::Ts, &mut Once(Some(clip.clone())), &mut Nowhere, &AtomicBool::new(false))?;
    match report.renditions.iter().find(|rendition| rendition.frames != FRAMES) {
        None => Ok(()),
        Some(short) => {
            let text = format!("{} has {} frames of {FRAMES}", short.name, short.frames);
            Err(Stopped::Failed(Fault::new(Code::BadOutput, text)))
        }
    }
}

/// Progress for someone who watches.
struct Bar {
    steps: usize,
}

impl Bar {
    const WIDTH: usize = 32;

    fn show(&self, step: usize, part: f64, what: &str) {
        let mut screen = io::stderr();
        if screen.is_terminal() {
            let done = (step as f64 + part.clamp(0.0, 1.0)) / self.steps as f64;
            let full = (done * Self::WIDTH as f64) as usize;
            // Nobody is helped by a fault for a line that could not be shown.
            let _ = write!(screen, "\r[{:<width$}] {what}\x1b[K", "#".repeat(full), width = Self::WIDTH);
        }
    }

    fn clear(&self) {
        let mut screen = io::stderr();
        if screen.is_terminal() {
            let _ = write!(screen, "\r\x1b[K");
        }
    }
}

/// The report for a person.
pub fn print(report: &Report, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "{}, {} cores, profile {}", report.machine, report.cores, report.profile)?;
    let mut encoders = report.encoders.clone();
    encoders.dedup();
    writeln!(to, "1080p30 to 720p, 480p, 360p, 240p: {} and {}", report.decoder, encoders.join(", "))?;
    match &report.sensor {
        Some(power) => {
            let idle = power.idle_watts.map_or_else(|| "unknown".to_owned(), |watts| format!("{watts:.2} W"));
            writeln!(to, "power by {}: {}; idle {idle}", power.name, power.covers.words())?;
        }
        None => writeln!(to, "power: no sensor that this user may read; measure at the wall")?,
    }
    writeln!(
        to,
        "\n{:>7} {:>10} {:>7} {:>14} {:>9} {:>8} {:>9} {:>11}",
        "streams", "real time", "fps", "CPU s/minute", "memory", "power", "J/minute", "above idle"
    )?;
    let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    for load in &report.loads {
        writeln!(
            to,
            "{:>7} {:>9.2}x {:>7.1} {:>14.1} {:>5.0} MiB {:>8} {:>9} {:>11}",
            load.streams,
            load.realtime,
            load.fps,
            load.cpu_seconds_per_minute,
            load.memory_mib,
            load.watts.map_or_else(|| "-".to_owned(), |watts| format!("{watts:.2} W")),
            or_dash(load.joules_per_minute),
            or_dash(load.joules_per_minute_above_idle)
        )?;
    }
    for note in &report.notes {
        writeln!(to, "not measured: {note}")?;
    }
    writeln!(to, "\nreal time: streams that this machine carries at once; a minute is one of source video")
}
