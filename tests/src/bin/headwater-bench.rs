//! `make bench`: Headwater's promises with numbers, measured.
//!
//! Prints a table and writes `target/bench.json`: a list of `{what, value, unit, must, ok, note}`. Names as
//! arguments, or in `ONLY`, run only those groups.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use headwater_tests::bench::{
    Lab, Row, codecs, cpu, endurance, memory, publish, quality, start, streams, system, warm,
};
use headwater_tests::process::binaries;

/// What can be asked for, in the order in which it runs; `engine` stands for all of the worker's.
const GROUPS: [&str; 10] =
    ["size", "cpu", "quality", "memory", "warm", "start", "streams", "codecs", "endurance", "system"];
const ENGINE: [&str; 8] = ["cpu", "quality", "memory", "warm", "start", "streams", "codecs", "endurance"];

/// The groups that were asked for.
fn chosen() -> Result<Vec<&'static str>> {
    let asked: Vec<String> = std::env::args().skip(1).chain(std::env::var("ONLY")).collect();
    let names: Vec<&str> =
        asked.iter().flat_map(|text| text.split([',', ' '])).filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = names.iter().find(|name| **name != "engine" && !GROUPS.contains(name)) {
        bail!("{unknown:?} is not measured; there are engine, {}", GROUPS.join(", "));
    }
    let wanted = |group: &&str| {
        names.is_empty() || names.contains(group) || (names.contains(&"engine") && ENGINE.contains(group))
    };
    Ok(GROUPS.into_iter().filter(wanted).collect())
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
    let groups = chosen()?;
    let wanted = |group: &str| groups.contains(&group);
    let temporary = tempfile::Builder::new().prefix("headwater-bench-").tempdir()?;
    let folder = temporary.path();
    let mut rows = Vec::new();
    if wanted("size") {
        rows.push(system::agent_size()?);
    }
    let endless = if quick { 300 } else { 10_000 };
    if ENGINE[..7].iter().any(|group| wanted(group)) {
        let lab = Lab::new(folder, if quick { 1 } else { 5 })?;
        if ["cpu", "quality", "memory"].into_iter().any(wanted) {
            let made = cpu::make(&lab)?;
            if wanted("cpu") {
                rows.extend(cpu::rows(&lab, &made)?);
            }
            if wanted("quality") {
                rows.extend(quality::rows(&lab, &made)?);
            }
            if wanted("memory") {
                rows.extend(memory::rows(&lab, &made.threads)?);
            }
        }
        if wanted("warm") {
            rows.extend(warm::rows(&lab)?);
        }
        if wanted("start") {
            rows.extend(start::rows(&lab)?);
        }
        if wanted("streams") {
            rows.extend(streams::rows(&lab, Duration::from_secs(if quick { 4 } else { 12 }))?);
        }
        if wanted("codecs") {
            rows.extend(codecs::rows(&lab)?);
        }
    }
    if wanted("endurance") {
        rows.extend(endurance::rows(folder, endless)?);
    }
    if wanted("system") {
        rows.extend(system::added_by_the_system(folder, if quick { 30 } else { 200 }).await?);
        let idle = Duration::from_secs(if quick { 10 } else { 300 });
        rows.extend(system::agent(folder, idle, if quick { 3 } else { 11 }).await?);
    }
    let target = binaries()?.parent().map_or_else(|| PathBuf::from("target"), Path::to_owned);
    publish(&rows, &target.join("bench.json"))?;
    Ok(rows)
}
