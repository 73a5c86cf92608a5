//! `make image-test`: the reference image on an emulated board, through everything that a board in a shed meets.
//!
//! Environment: `HEADWATER_IMAGE` (what `make image` made); `ONLY` (parts of scenarios' names, with commas between),
//! `SHORT=1` (those of CI), `MINUTES` (none begins later), `CUTS`, `IDLE_MINUTES`, `SEED`, `FIRMWARE`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headwater_tests::board::Plug;
use headwater_tests::board::rig::{Rig, Setting};
use headwater_tests::board::scenarios::{ALL, Amount, FIRST, Scenario};
use headwater_tests::stop::{INTERRUPTED, Stop};
use serde_json::{Value, json};

/// Debian's, of qemu-efi-aarch64.
const UEFI: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";

fn number(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{name}={text}")),
        Ok(_) | Err(_) => Ok(default),
    }
}

fn folder(name: &str) -> Result<PathBuf> {
    Ok(std::env::var_os(name).with_context(|| format!("{name} is not set; run `make image-test`"))?.into())
}

fn chosen(short: bool) -> Result<Vec<Scenario>> {
    let only = std::env::var("ONLY").unwrap_or_default().replace(['-', ' '], "_");
    let only: Vec<&str> = only.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    for part in &only {
        ensure!(ALL.iter().any(|one| one.name.contains(part)), "no scenario's name has {part:?} in it");
    }
    let asked = |one: &&Scenario| {
        let named = only.iter().any(|part| one.name.contains(part));
        let wanted = if only.is_empty() { !short || one.short } else { named };
        wanted && one.name != FIRST
    };
    let first = ALL.iter().filter(|one| one.name == FIRST);
    Ok(first.chain(ALL.iter().filter(asked)).copied().collect())
}

/// Makes the bundles of the scenarios, where they are not there yet.
fn make_bundles(scenarios: &[Scenario], image: &Path, folder: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross/image/trial-bundles.sh");
    let names = scenarios.iter().flat_map(|one| one.bundles);
    let status = std::process::Command::new(&script).args([image, folder]).args(names).status();
    let status = status.with_context(|| script.display().to_string())?;
    ensure!(status.success(), "{}: {status}", script.display());
    Ok(())
}

/// How the whole run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    /// By a signal; nothing that was started is left.
    Stopped,
}

async fn run() -> Result<End> {
    let short = number("SHORT", 0)? != 0;
    let scenarios = chosen(short)?;
    let seed = number("SEED", u64::from(std::process::id()))?;
    let amount = Amount {
        cuts: number("CUTS", if short { 2 } else { 20 })?.try_into().context("CUTS")?,
        idle: Duration::from_secs(60 * number("IDLE_MINUTES", 10)?),
    };
    let image = folder("HEADWATER_IMAGE")?;
    let firmware = std::env::var_os("FIRMWARE").filter(|path| !path.is_empty());
    let setting = Setting {
        bundles: image.join("trial-bundles"),
        folder: image.join("trial"),
        firmware: firmware.map_or_else(|| PathBuf::from(UEFI), PathBuf::from),
        seed,
        image,
    };
    make_bundles(&scenarios, &setting.image, &setting.bundles)?;
    let mut stop = Stop::listen().context("listening for signals")?;
    let plug = Plug::default();
    let pulled = plug.clone();
    // In a thread of its own, for scenarios wait for the board without letting go of theirs.
    let mut stopped = tokio::spawn(async move {
        stop.asked().await;
        pulled.pull();
    });
    let limit = match number("MINUTES", 0)? {
        0 => None,
        minutes => Some(Duration::from_secs(60 * minutes)),
    };
    println!("image-test: {} scenarios, SEED={seed}, CUTS={}", scenarios.len(), amount.cuts);
    let started = Instant::now();
    let rig = tokio::select! {
        rig = Rig::start(&setting, plug.clone()) => rig,
        _ = &mut stopped => return Ok(End::Stopped),
    };
    let mut rig = match rig {
        Err(_) if plug.is_pulled() => return Ok(End::Stopped),
        rig => rig?,
    };
    let mut results: Vec<Value> = Vec::new();
    let mut passed = true;
    for scenario in scenarios {
        if limit.is_some_and(|limit| started.elapsed() > limit) {
            println!("skipped: {}, for MINUTES are over", scenario.name.replace('_', " "));
            continue;
        }
        println!("[{:7.1}] {}", started.elapsed().as_secs_f64(), scenario.name.replace('_', " "));
        let began = Instant::now();
        let result = tokio::select! {
            result = (scenario.step)(&mut rig, &amount) => Some(result),
            _ = &mut stopped => None,
        };
        let Some(result) = result.filter(|_| !plug.is_pulled()) else {
            // What was found until then is told.
            report(&setting, seed, &results)?;
            return Ok(End::Stopped);
        };
        let seconds = began.elapsed().as_secs_f64();
        let (ok, facts) = match result {
            Ok(facts) => (true, facts),
            Err(error) => (false, json!(format!("{error:#}"))),
        };
        let result = json!({ "scenario": scenario.name, "passed": ok, "seconds": seconds, "facts": facts });
        println!("[{:7.1}]   {}", started.elapsed().as_secs_f64(), word(&result));
        if let Some(why) = result["facts"].as_str().or_else(|| result["facts"]["skipped"].as_str()) {
            eprintln!("{why}");
        }
        results.push(result);
        passed &= ok;
        // The next begins where this one should have ended: with a board that is up and has proved itself.
        if !ok {
            let again = tokio::select! {
                again = rig.start_anew() => again,
                _ = &mut stopped => Err(anyhow::anyhow!("stopped")),
            };
            if let Err(error) = again {
                eprintln!("the board does not come back: {error:#}");
                break;
            }
        }
    }
    report(&setting, seed, &results)?;
    Ok(if passed { End::Passed } else { End::Failed })
}

/// How a scenario ended.
fn word(result: &Value) -> &'static str {
    if result["passed"] == false {
        "FAILED"
    } else if result["facts"]["skipped"].is_string() {
        "skipped"
    } else {
        "passed"
    }
}

fn report(setting: &Setting, seed: u64, results: &[Value]) -> Result<()> {
    println!("\n{:<80} {:>7}  result", "scenario", "seconds");
    for result in results {
        let name = result["scenario"].as_str().unwrap_or_default().replace('_', " ");
        let seconds = result["seconds"].as_f64().unwrap_or_default();
        println!("{name:<80} {seconds:>7.1}  {}", word(result));
    }
    let at = setting.image.parent().unwrap_or_else(|| Path::new(".")).join("image-test.json");
    let firmware = setting.firmware.display().to_string();
    let whole = json!({ "seed": seed, "firmware": firmware, "results": results });
    std::fs::write(&at, serde_json::to_string_pretty(&whole)?).with_context(|| at.display().to_string())?;
    let count = |wanted: &str| results.iter().filter(|result| word(result) == wanted).count();
    let [passed, failed, skipped] = ["passed", "FAILED", "skipped"].map(count);
    println!("\n{passed} passed, {failed} failed, {skipped} skipped; {}", at.display());
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(End::Passed) => ExitCode::SUCCESS,
        Ok(End::Failed) => ExitCode::FAILURE,
        Ok(End::Stopped) => {
            eprintln!("image-test: stopped");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("image-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}
