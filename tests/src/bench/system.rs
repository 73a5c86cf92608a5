//! The whole system: what it adds to a segment, and what an agent costs.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Must, Row, median, quantile};
use crate::fleet::{Fleet, Options};
use crate::media;
use crate::process::{binaries, binary};

pub async fn added_by_the_system(folder: &Path, segments: u32) -> Result<Vec<Row>> {
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
        Row::new(
            "what the system adds to a segment, median",
            median(&mut added),
            "ms",
            Must::AtMost(25.0),
            note.clone(),
        ),
        Row::new(
            "what the system adds to a segment, p99",
            quantile(&mut added, 0.99),
            "ms",
            Must::AtMost(80.0),
            note,
        ),
    ])
}

fn pss_kib(pid: i32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).context("no Pss")?;
    Ok(line.split_whitespace().nth(1).context("Pss without a number")?.parse()?)
}

pub async fn agent(folder: &Path, idle: Duration, starts: usize) -> Result<Vec<Row>> {
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
        Row::new(
            "idle agent, proportional set",
            pss,
            "MiB",
            Must::AtMost(8.0),
            format!("after {} s connected over TLS", idle.as_secs()),
        ),
        Row::new(
            "agent start, exec to seen online",
            median(&mut times),
            "ms",
            Must::AtMost(300.0),
            format!("median of {starts}, warm cache; includes the gateway's view"),
        ),
    ])
}

pub fn agent_size() -> Result<Row> {
    let bytes = fs::metadata(binary("headwater-agent")?)?.len();
    Ok(Row::new(
        "headwater-agent, stripped",
        bytes as f64 / 1e6,
        "MB",
        Must::AtMost(5.0),
        binaries()?.display().to_string(),
    ))
}
