//! `make demo`: a broker, a gateway and two agents on this machine, one clip pushed through them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headwater_tests::fleet::Options;
use headwater_tests::process::binary;
use headwater_tests::stop::{INTERRUPTED, Stop};
use headwater_tests::{Fleet, media};
use nix::sys::signal::{Signal as Kill, kill};
use nix::unistd::Pid;
use tokio::process::Child;

/// go-livepeer's port for HTTP ingest: what a user's bookmark already says.
const PORT: u16 = 9935;
/// How long the push may take to clear up after itself.
const GRACE: Duration = Duration::from_secs(5);

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
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<ExitCode> {
    let Arguments { input, out, wait } = arguments()?;
    let mut stop = Stop::listen().context("listening for signals")?;
    let state = tempfile::Builder::new().prefix("headwater-demo-").tempdir()?;
    let mut options = Options::nodes(&["north", "south"]);
    options.http_port = if TcpListener::bind(("127.0.0.1", PORT)).is_ok() { PORT } else { 0 };
    if options.http_port == 0 {
        println!("Port {PORT} is taken, so this gateway gets another one.");
    }

    println!("Starting a gateway with its broker and two agents, enrolled with one-time tokens …");
    let started = tokio::select! {
        fleet = Fleet::start(state.path(), options) => Some(fleet),
        () = stop.asked() => None,
    };
    let fleet = match started {
        Some(Ok(fleet)) => fleet,
        Some(Err(error)) if !stop.was_asked().await => return Err(error),
        Some(Err(_)) | None => return Ok(ExitCode::from(INTERRUPTED)),
    };

    let Some(whole) = push(&fleet, &input, &out, &mut stop).await? else {
        fleet.stop()?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if whole {
        let master = out.canonicalize().unwrap_or(out).join("master.m3u8");
        println!("\nplay it     ffplay {}", quoted(&master));
        if wait {
            println!("watch it    {}/  (Watch, at the stream \"demo\")", fleet.http);
            println!(
                "look around in another terminal, with {}:\n  export HEADWATER_GATEWAY={} HEADWATER_TOKEN_FILE={}\n  \
                 headwater nodes; headwater streams demo; headwater drain north",
                binary("headwater")?.display(),
                fleet.http,
                fleet.gateway_state().join("operator.token").display()
            );
            println!("\nCtrl-C stops everything.");
            stop.asked().await;
            println!("\nStopping …");
        }
    }
    fleet.stop()?;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The operator's command does the work and shows it; its status is the demo's. None: stopped by the user.
async fn push(fleet: &Fleet, input: &Path, out: &Path, stop: &mut Stop) -> Result<Option<bool>> {
    let mut child = tokio::process::Command::new(binary("headwater")?)
        .arg("--gateway")
        .arg(&fleet.http)
        .arg("push")
        .args(["--stream", "demo", "--ladder", "standard", "--out"])
        .arg(out)
        .arg("--")
        .arg(input)
        .kill_on_drop(true)
        .spawn()
        .context("starting headwater push")?;
    let status = tokio::select! {
        status = child.wait() => status?,
        () = stop.asked() => {
            end(&mut child).await;
            return Ok(None);
        }
    };
    if !status.success() && stop.was_asked().await {
        return Ok(None);
    }
    Ok(Some(status.success()))
}

/// It removes its half-written files, which SIGKILL would leave.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id() {
        // An error means it is gone already.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Kill::SIGTERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// To be pasted into a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b)) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_pasted_whatever_its_characters() {
        assert_eq!(quoted(Path::new("/a/b-1.m3u8")), "/a/b-1.m3u8");
        assert_eq!(quoted(Path::new("/my clip's")), r"'/my clip'\''s'");
    }
}
