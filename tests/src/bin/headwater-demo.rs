//! `make demo`: a broker, a gateway and two agents on this machine, one clip pushed through them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use headwater_tests::fleet::Options;
use headwater_tests::process::binary;
use headwater_tests::{Fleet, media};

/// go-livepeer's port for HTTP ingest: what a user's bookmark already says.
const PORT: u16 = 9935;

struct Arguments {
    input: PathBuf,
    out: PathBuf,
    wait: bool,
}

fn arguments() -> Result<Arguments> {
    let mut parsed = Arguments { input: media::clip(), out: PathBuf::from("target/demo/hls"), wait: true };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--input" => parsed.input = value.into(),
            "--out" => parsed.out = value.into(),
            "--wait" => parsed.wait = value != "0",
            other => anyhow::bail!("unknown argument {other}; known are --input, --out, --wait"),
        }
    }
    ensure!(parsed.input.exists(), "{} does not exist", parsed.input.display());
    Ok(parsed)
}

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<bool> {
    let Arguments { input, out, wait } = arguments()?;
    let state = tempfile::Builder::new().prefix("headwater-demo-").tempdir()?;
    let mut options = Options::nodes(&["north", "south"]);
    options.http_port = if TcpListener::bind(("127.0.0.1", PORT)).is_ok() { PORT } else { 0 };

    println!("Starting a gateway with its broker and two agents, enrolled with one-time tokens …");
    let fleet = tokio::select! {
        fleet = Fleet::start(state.path(), options) => fleet?,
        _ = tokio::signal::ctrl_c() => return Ok(false),
    };
    println!("  status page  {}/", fleet.http);

    println!("Pushing {} …", input.display());
    let whole = tokio::select! {
        result = push(&fleet, &input, &out) => result?,
        _ = tokio::signal::ctrl_c() => false,
    };
    if whole {
        let folder = out.canonicalize().unwrap_or(out);
        println!("\nHLS on disk    {}", folder.join("master.m3u8").display());
        println!("play it there  ffplay {}", folder.join("master.m3u8").display());
    }
    if whole && wait {
        println!("watch it here  {}/  (open the stream \"demo\" and press play)", fleet.http);
        println!("\nCtrl-C stops everything.");
        tokio::signal::ctrl_c().await?;
        println!("\nStopping …");
    }
    fleet.stop()?;
    Ok(whole)
}

/// The operator's command does the work and shows it; its status is the demo's.
async fn push(fleet: &Fleet, input: &Path, out: &Path) -> Result<bool> {
    let mut child = tokio::process::Command::new(binary("headwater")?)
        .arg("--gateway")
        .arg(&fleet.http)
        .arg("push")
        .arg(input)
        .args(["--stream", "demo", "--ladder", "standard", "--out"])
        .arg(out)
        .kill_on_drop(true)
        .spawn()
        .context("starting headwater push")?;
    Ok(child.wait().await?.success())
}
