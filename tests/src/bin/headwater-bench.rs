//! `make bench`: Headwater's promises with numbers, measured. Both sides of a ratio run in turns in the
//! same minutes, and medians are compared, because machines are shared and noisy.
//!
//! Prints a table and writes `target/bench.json`: a list of `{what, value, unit, must, ok}`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headwater_protocol::Ladder;
use headwater_tests::fleet::Options;
use headwater_tests::process::{binaries, binary};
use headwater_tests::worker::Worker;
use headwater_tests::{Fleet, media};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};

/// The ladder of the comparison: height, bit/s, and the width that 16:9 gives.
const RUNGS: [(u32, u32, u32); 4] =
    [(1280, 720, 3_000_000), (854, 480, 1_600_000), (640, 360, 800_000), (426, 240, 250_000)];

/// Frames between keyframes: 2 s of 30 fps.
const GOP: &str = "60";

struct Row {
    what: &'static str,
    value: f64,
    unit: &'static str,
    /// Upper bound, or lower where it is negative.
    must: f64,
    note: String,
}

impl Row {
    fn ok(&self) -> bool {
        if self.must < 0.0 { self.value >= self.must } else { self.value <= self.must }
    }
}

fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

/// CPU seconds of all ended children so far.
fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6)
}

/// Runs a command; gives CPU seconds and wall seconds.
fn measured(command: &mut Command) -> Result<(f64, f64)> {
    let (cpu, wall) = (children_cpu()?, Instant::now());
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((children_cpu()? - cpu, wall.elapsed().as_secs_f64()))
}

fn ladder() -> Result<Ladder> {
    let rung = |(width, height, bitrate): (u32, u32, u32)| {
        json!({"name": format!("{height}p"), "codec": "h264", "width": width, "height": height,
               "rate": {"bitrate": bitrate}, "gop": {"every": 2000}, "container": "ts"})
    };
    Ok(serde_json::from_value(Value::from(RUNGS.map(rung).to_vec()))?)
}

/// The same ladder for ffmpeg: decode once, split, scale each from the source as its users do.
fn ffmpeg_ladder(input: &Path, folder: &Path) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-y", "-v", "error", "-i"]).arg(input);
    let splits: String = (0..RUNGS.len()).map(|i| format!("[s{i}]")).collect();
    let scales: Vec<String> =
        RUNGS.iter().enumerate().map(|(i, (w, h, _))| format!("[s{i}]scale={w}:{h}[v{i}]")).collect();
    command.arg("-filter_complex").arg(format!("[0:v]split={}{splits};{}", RUNGS.len(), scales.join(";")));
    for (i, (_, height, bitrate)) in RUNGS.iter().enumerate() {
        let rate = bitrate.to_string();
        command.args(["-map", &format!("[v{i}]"), "-map", "0:a?", "-c:a", "copy", "-c:v", "libx264"]);
        command.args([
            "-preset",
            "veryfast",
            "-bf",
            "0",
            "-g",
            GOP,
            "-keyint_min",
            GOP,
            "-sc_threshold",
            "0",
        ]);
        command.args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &rate, "-f", "mpegts"]);
        command.arg(folder.join(format!("{height}p.ts")));
    }
    command
}

/// SSIM of a rendition against the source scaled once.
fn ssim(rendition: &Path, source: &Path, width: u32, height: u32) -> Result<f64> {
    let graph = format!(
        "[1:v]scale={width}:{height}:flags=bicubic[r];[0:v]settb=AVTB,setpts=N[a];[r]settb=AVTB,setpts=N[b];[a][b]ssim"
    );
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-i"])
        .arg(rendition)
        .arg("-i")
        .arg(source)
        .args(["-lavfi", &graph, "-f", "null", "-"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let all = text.rsplit_once("All:").context("no SSIM in ffmpeg's output")?.1;
    Ok(all.split_whitespace().next().context("no number after All:")?.parse()?)
}

/// 1080p30 at 6 Mb/s with real motion: the shipped clip, three times, enlarged.
fn source(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("source.ts");
    let clip = media::clip();
    let clip = clip.to_str().context("path is not text")?;
    let out = file.to_str().context("path is not text")?;
    media::ffmpeg(&[
        "-stream_loop",
        "2",
        "-i",
        clip,
        "-t",
        "16",
        "-vf",
        "scale=1920:1080,fps=30",
        "-c:v",
        "libx264",
        "-preset",
        "fast",
        "-b:v",
        "6M",
        "-maxrate",
        "6M",
        "-bufsize",
        "6M",
        "-g",
        GOP,
        "-sc_threshold",
        "0",
        "-c:a",
        "aac",
        "-ac",
        "2",
        "-muxdelay",
        "0",
        "-f",
        "mpegts",
        out,
    ])?;
    Ok(file)
}

fn cpu_and_quality(folder: &Path, rounds: usize) -> Result<Vec<Row>> {
    let source = source(folder)?;
    let ladder_file = folder.join("ladder.json");
    fs::write(&ladder_file, serde_json::to_string(&ladder()?)?)?;
    let (ours, theirs) = (folder.join("ours"), folder.join("theirs"));
    fs::create_dir_all(&theirs)?;
    let worker = binary("headwater-worker")?;
    let (mut ratios, mut cpu) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        eprintln!("  CPU: round {} of {rounds}", round + 1);
        let mut transcode = Command::new(&worker);
        transcode
            .arg("transcode")
            .arg(&source)
            .arg("-o")
            .arg(&ours)
            .arg("--ladder")
            .arg(&ladder_file)
            .arg("--whole");
        let (own, _) = measured(&mut transcode)?;
        let (other, _) = measured(&mut ffmpeg_ladder(&source, &theirs))?;
        ratios.push(own / other);
        cpu.push(own / 16.0 * 60.0);
    }
    let mut worst = f64::MAX;
    let mut note = Vec::new();
    for (width, height, _) in RUNGS {
        let own = ssim(&ours.join(format!("{height}p.ts")), &source, width, height)?;
        let other = ssim(&theirs.join(format!("{height}p.ts")), &source, width, height)?;
        let bytes = |folder: &Path| fs::metadata(folder.join(format!("{height}p.ts"))).map(|m| m.len());
        let size = bytes(&ours)? as f64 / bytes(&theirs)? as f64;
        note.push(format!("{height}p {own:.4}/{other:.4} at {size:.2}x the bytes"));
        worst = worst.min(own - other);
    }
    let own = median(&mut cpu);
    Ok(vec![
        Row {
            what: "CPU per source minute against ffmpeg's",
            value: median(&mut ratios),
            unit: "x",
            must: 1.02,
            note: format!("{own:.1} CPU seconds a minute of 1080p30"),
        },
        Row {
            what: "SSIM against ffmpeg's, worst rung",
            value: worst,
            unit: "",
            must: -0.002,
            note: note.join(", "),
        },
    ])
}

fn warm_segment(folder: &Path, rounds: usize) -> Result<Row> {
    let source = folder.join("source.ts");
    let pattern = folder.join("seg-%d.ts");
    let (input, pattern) = (source.to_str().context("path")?, pattern.to_str().context("path")?);
    media::ffmpeg(&[
        "-copyts",
        "-i",
        input,
        "-c",
        "copy",
        "-f",
        "segment",
        "-segment_time",
        "2",
        "-segment_format_options",
        "mpegts_copyts=1",
        pattern,
    ])?;
    let segments: Vec<PathBuf> =
        (0..).map(|i| folder.join(format!("seg-{i}.ts"))).take_while(|file| file.exists()).collect();
    ensure!(segments.len() >= 4, "only {} segments", segments.len());
    let out = folder.join("per-segment");
    fs::create_dir_all(&out)?;
    let ladder = ladder()?;
    let mut worker = Worker::start(&binary("headwater-worker")?, &ladder)?;
    worker.segment(&fs::read(&segments[0])?, RUNGS.len())?;
    let mut ratios = Vec::new();
    let mut walls = Vec::new();
    for round in 0..rounds {
        eprintln!("  warm segments: round {} of {rounds}", round + 1);
        for segment in &segments[1..segments.len() - 1] {
            let bytes = fs::read(segment)?;
            let (report, _, took) = worker.segment(&bytes, RUNGS.len())?;
            ensure!(report.warm, "the worker built a new pipeline");
            let (_, other) = measured(&mut ffmpeg_ladder(segment, &out))?;
            ratios.push(took.as_secs_f64() / other);
            walls.push(took.as_secs_f64() * 1e3);
        }
    }
    let wall = median(&mut walls);
    Ok(Row {
        what: "a warm 2 s segment against an ffmpeg process",
        value: median(&mut ratios),
        unit: "x",
        must: 0.92,
        note: format!("{wall:.0} ms for four rungs of 1080p30"),
    })
}

async fn added_by_the_system(folder: &Path, segments: u32) -> Result<Vec<Row>> {
    let fleet = Fleet::start(&folder.join("fleet"), Options::nodes(&["bench-a", "bench-b"])).await?;
    let configuration = r#"{"profiles":[
        {"name":"360p","width":640,"height":360,"bitrate":800000,"gop":"2"},
        {"name":"240p","width":426,"height":240,"bitrate":250000,"gop":"2"}]}"#;
    let made = 5;
    let inputs: Vec<Vec<u8>> =
        (0..made).map(|i| media::segment(folder, i, "1280x720", "30", 2.0)).collect::<Result<_>>()?;
    let mut total = Vec::new();
    for i in 0..segments {
        let body = inputs[(i % made) as usize].clone();
        let started = Instant::now();
        let answer = fleet.push("added", &format!("{i}.ts"), Some(configuration), body).await?;
        total.push(started.elapsed());
        ensure!(answer.parts()?.len() == 2, "not both renditions came back");
    }
    let view = fleet.get("/api/v1/streams/added").await?;
    let reports = view["segments"].as_array().context("no segments in the stream's view")?;
    ensure!(reports.len() >= segments as usize, "{} reports of {segments} segments", reports.len());
    let mut added = Vec::new();
    for segment in reports {
        let number = segment["segment"].as_u64().context("a segment without a number")?;
        let wall = segment["report"]["wall_us"].as_u64().context("a segment without a report")?;
        // The first starts the worker.
        if number > 0 {
            added.push(total[usize::try_from(number)?].as_secs_f64() * 1e3 - wall as f64 / 1e3);
        }
    }
    fleet.stop()?;
    let note = format!("{} pushes of 2 s over loopback", added.len());
    Ok(vec![
        Row {
            what: "what the system adds to a segment, median",
            value: median(&mut added),
            unit: "ms",
            must: 25.0,
            note: note.clone(),
        },
        Row {
            what: "what the system adds to a segment, p99",
            value: quantile(&mut added, 0.99),
            unit: "ms",
            must: 80.0,
            note,
        },
    ])
}

fn pss_kib(pid: i32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).context("no Pss")?;
    Ok(line.split_whitespace().nth(1).context("Pss without a number")?.parse()?)
}

async fn agent(folder: &Path, idle: Duration, starts: usize) -> Result<Vec<Row>> {
    let mut fleet = Fleet::start(&folder.join("idle"), Options::nodes(&["idle"])).await?;
    eprintln!("  idle agent: {} s", idle.as_secs());
    tokio::time::sleep(idle).await;
    let pss = pss_kib(fleet.agent("idle")?.pid().as_raw())? / 1024.0;

    let mut times = Vec::new();
    for _ in 0..starts {
        fleet.agent("idle")?.terminate()?;
        fleet.agents.clear();
        let offline = |nodes: &Value| nodes[0]["state"] == "offline";
        while !offline(&fleet.get("/api/v1/nodes").await?) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let started = Instant::now();
        fleet.start_agent("idle")?;
        while offline(&fleet.get("/api/v1/nodes").await?) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    fleet.stop()?;
    Ok(vec![
        Row {
            what: "idle agent, proportional set",
            value: pss,
            unit: "MiB",
            must: 8.0,
            note: format!("after {} s connected over TLS", idle.as_secs()),
        },
        Row {
            what: "agent start, exec to seen online",
            value: median(&mut times),
            unit: "ms",
            must: 300.0,
            note: format!("median of {starts}, warm cache; includes the gateway's view"),
        },
    ])
}

fn agent_size() -> Result<Row> {
    let bytes = fs::metadata(binary("headwater-agent")?)?.len();
    Ok(Row {
        what: "headwater-agent, stripped",
        value: bytes as f64 / 1e6,
        unit: "MB",
        must: 5.0,
        note: binaries()?.display().to_string(),
    })
}

fn print(rows: &[Row]) {
    println!("\n{:<48} {:>10} {:<4} {:>8}  {:<4} note", "what", "value", "unit", "must", "ok");
    for row in rows {
        let bound = if row.must < 0.0 { ">=" } else { "<=" };
        let ok = if row.ok() { "yes" } else { "NO" };
        println!(
            "{:<48} {:>10.3} {:<4} {bound} {:>5}  {ok:<4} {}",
            row.what, row.value, row.unit, row.must, row.note
        );
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // QUICK=1 is for looking at the benchmark itself; its figures are not for publication.
    let quick = std::env::var_os("QUICK").is_some();
    match bench(quick).await {
        Ok(rows) if rows.iter().all(Row::ok) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(quick: bool) -> Result<Vec<Row>> {
    let folder = tempfile::Builder::new().prefix("headwater-bench-").tempdir()?;
    let folder = folder.path();
    let mut rows = vec![agent_size()?];
    rows.extend(cpu_and_quality(folder, if quick { 1 } else { 5 })?);
    rows.push(warm_segment(folder, if quick { 1 } else { 3 })?);
    rows.extend(added_by_the_system(folder, if quick { 30 } else { 200 }).await?);
    let idle = Duration::from_secs(if quick { 10 } else { 300 });
    rows.extend(agent(folder, idle, if quick { 3 } else { 11 }).await?);
    print(&rows);
    let list: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({"what": row.what, "value": row.value, "unit": row.unit, "must": row.must, "ok": row.ok(), "note": row.note})
        })
        .collect();
    let target = binaries()?.parent().map_or_else(|| PathBuf::from("target"), Path::to_owned);
    fs::write(target.join("bench.json"), serde_json::to_string_pretty(&list)? + "\n")?;
    println!("\nwritten to {}", target.join("bench.json").display());
    Ok(rows)
}
