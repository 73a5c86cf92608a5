//! `make image-test`: the reference image on an emulated board, through everything that a board in a shed meets.
//!
//! Environment: `HEADWATER_IMAGE` (what `make image` made) and `HEADWATER_TRIAL_BUNDLES`; `ONLY` (part of a scenario's
//! name), `SHORT=1` (those of CI), `CUTS`, `IDLE_MINUTES`, `SEED`, `FIRMWARE`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headwater_tests::board::rig::{Rig, Setting};
use headwater_tests::board::scenarios::{ALL, Amount, FIRST, Scenario};
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

fn chosen() -> Result<Vec<Scenario>> {
    let only = std::env::var("ONLY").unwrap_or_default().replace(['-', ' '], "_");
    let short = number("SHORT", 0)? != 0;
    let asked = |one: &&Scenario| {
        let wanted = if only.is_empty() { !short || one.short } else { one.name.contains(&only) };
        wanted && one.name != FIRST
    };
    let first = ALL.iter().filter(|one| one.name == FIRST);
    let chosen: Vec<Scenario> = first.chain(ALL.iter().filter(asked)).copied().collect();
    ensure!(
        only.is_empty() || chosen.len() > 1 || FIRST.contains(&only),
        "no scenario's name has {only:?} in it"
    );
    Ok(chosen)
}

/// Why no board can be emulated here.
fn missing(firmware: &Path) -> Option<String> {
    let qemu = std::process::Command::new("qemu-system-aarch64").arg("--version").output();
    match qemu {
        Err(error) => Some(format!("qemu-system-aarch64: {error}")),
        Ok(output) if !output.status.success() => {
            Some(format!("qemu-system-aarch64 does not run: {}", output.status))
        }
        Ok(_) if !firmware.exists() => Some(format!("there is no firmware {}", firmware.display())),
        Ok(_) => None,
    }
}

async fn run() -> Result<bool> {
    let scenarios = chosen()?;
    let seed = number("SEED", u64::from(std::process::id()))?;
    let amount = Amount {
        cuts: number("CUTS", 20)?.try_into().context("CUTS")?,
        idle: Duration::from_secs(60 * number("IDLE_MINUTES", 10)?),
    };
    let image = folder("HEADWATER_IMAGE")?;
    let firmware = std::env::var_os("FIRMWARE").filter(|path| !path.is_empty());
    let setting = Setting {
        bundles: folder("HEADWATER_TRIAL_BUNDLES")?,
        folder: image.join("trial"),
        firmware: firmware.map_or_else(|| PathBuf::from(UEFI), PathBuf::from),
        seed,
        image,
    };
    if let Some(why) = missing(&setting.firmware) {
        println!("skipped: {why}; run `tests/setup.sh image-test`");
        return Ok(true);
    }
    println!("image-test: {} scenarios, SEED={seed}, CUTS={}", scenarios.len(), amount.cuts);
    let started = Instant::now();
    let mut rig = Rig::start(&setting).await?;
    let mut results: Vec<Value> = Vec::new();
    let mut passed = true;
    for scenario in scenarios {
        println!("[{:7.1}] {}", started.elapsed().as_secs_f64(), scenario.name.replace('_', " "));
        let began = Instant::now();
        let result = (scenario.step)(&mut rig, &amount).await;
        let seconds = began.elapsed().as_secs_f64();
        let (ok, facts) = match result {
            Ok(facts) => (true, facts),
            Err(error) => (false, json!(format!("{error:#}"))),
        };
        println!("[{:7.1}]   {}", started.elapsed().as_secs_f64(), if ok { "passed" } else { "FAILED" });
        if !ok {
            eprintln!("{}", facts.as_str().unwrap_or_default());
        }
        results.push(json!({ "scenario": scenario.name, "passed": ok, "seconds": seconds, "facts": facts }));
        passed &= ok;
        // Later ones begin where this one should have ended.
        if !ok {
            break;
        }
    }
    report(&setting, seed, &results)?;
    Ok(passed)
}

fn report(setting: &Setting, seed: u64, results: &[Value]) -> Result<()> {
    println!("\n{:<80} {:>7}  result", "scenario", "seconds");
    for result in results {
        let name = result["scenario"].as_str().unwrap_or_default().replace('_', " ");
        let word = if result["passed"] == true { "passed" } else { "FAILED" };
        println!("{name:<80} {:>7.1}  {word}", result["seconds"].as_f64().unwrap_or_default());
    }
    let at = setting.image.parent().unwrap_or_else(|| Path::new(".")).join("image-test.json");
    let firmware = setting.firmware.display().to_string();
    let whole = json!({ "seed": seed, "firmware": firmware, "results": results });
    std::fs::write(&at, serde_json::to_string_pretty(&whole)?).with_context(|| at.display().to_string())?;
    let count = |ok: bool| results.iter().filter(|result| result["passed"] == ok).count();
    println!("\n{} passed, {} failed; {}", count(true), count(false), at.display());
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("image-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}
