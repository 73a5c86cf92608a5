//! RAUC: it verifies a bundle's signature and writes the other slot. Its own service does so; this only asks it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use headwater_protocol::{Code, Fault};
use serde::Deserialize;

use super::tool::{self, ToolError};

/// What of `rauc status --detailed --output-format=json` counts here.
#[derive(Debug, Deserialize)]
struct Report {
    compatible: String,
    /// A boot name; empty where RAUC does not know it.
    #[serde(default)]
    booted: Option<String>,
    /// The slot that is started next, by its name.
    #[serde(default)]
    boot_primary: Option<String>,
    #[serde(default)]
    slots: Vec<BTreeMap<String, Slot>>,
}

#[derive(Debug, Deserialize)]
struct Slot {
    #[serde(default)]
    class: String,
    #[serde(default)]
    bootname: Option<String>,
    #[serde(default)]
    slot_status: Option<SlotStatus>,
}

#[derive(Debug, Deserialize)]
struct SlotStatus {
    #[serde(default)]
    bundle: Option<Manifest>,
}

#[derive(Debug, Default, Deserialize)]
struct Manifest {
    #[serde(default)]
    compatible: Option<String>,
    #[serde(default)]
    version: Option<String>,
}

/// The running system as RAUC knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) compatible: String,
    pub(crate) slot: Option<String>,
    /// None in a slot that no bundle was installed to: the one that was flashed.
    pub(crate) version: Option<String>,
    /// The same of the other slot, which bundles are installed to.
    other_version: Option<String>,
    /// The next boot starts what runs now, as far as the bootloader tells.
    pub(crate) stays: bool,
}

fn read(json: &str) -> Result<Facts, serde_json::Error> {
    let report: Report = serde_json::from_str(json)?;
    let slot = report.booted.filter(|slot| !slot.is_empty());
    let mut slots: Vec<(String, Slot)> = report.slots.into_iter().flatten().collect();
    slots.retain(|(_, of)| of.bootname.is_some());
    let (booted, others): (Vec<_>, Vec<_>) = slots.into_iter().partition(|(_, of)| of.bootname == slot);
    let booted = booted.into_iter().next();
    // Not one for rescue.
    let class = booted.as_ref().map(|(_, of)| of.class.clone());
    let other = others.into_iter().find(|(_, of)| class.as_ref() == Some(&of.class));
    let stays = booted.as_ref().is_some_and(|(name, _)| report.boot_primary.as_ref() == Some(name));
    let version = |(_, of): (String, Slot)| of.slot_status?.bundle?.version;
    let (version, other_version) = (booted.and_then(version), other.and_then(version));
    Ok(Facts { compatible: report.compatible, slot, version, other_version, stays })
}

pub(crate) fn facts() -> Result<Facts, String> {
    let json = tool::ask("rauc", &["status", "--detailed", "--output-format=json"]);
    let json = json.map_err(|error| format!("{error}: {}", last_line(error.text())))?;
    read(&json).map_err(|error| format!("RAUC's status cannot be read: {error}"))
}

/// Checks the signature, and that it is the bundle that was ordered.
pub(crate) fn check(bundle: &Path, compatible: &str, version: &str) -> Result<(), Fault> {
    let path = bundle.to_string_lossy();
    let info = tool::run("rauc", &["info", "--output-format=json", &path], CHECK, |_| {});
    let info = info.map_err(|error| match error {
        ToolError::Run { .. } | ToolError::TooSlow { .. } => {
            Fault::new(Code::InstallFailed, format!("the bundle cannot be checked: {error}"))
        }
        ToolError::Failed { ref text, .. } => {
            let said = last_line(text);
            Fault::new(Code::BadBundle, format!("RAUC refuses the bundle: {said}")).with_detail(text.as_str())
        }
    })?;
    let manifest: Manifest = serde_json::from_str(&info)
        .map_err(|error| Fault::new(Code::BadBundle, format!("RAUC's words on the bundle: {error}")))?;
    if manifest.compatible.as_deref() != Some(compatible) {
        let is = manifest.compatible.unwrap_or_default();
        let text = format!("the bundle is for {is:?}, and this board is {compatible:?}");
        return Err(Fault::new(Code::BadBundle, text));
    }
    if manifest.version.as_deref() != Some(version) {
        let is = manifest.version.unwrap_or_default();
        let text = format!("the bundle has version {is:?}, and version {version:?} was ordered");
        return Err(Fault::new(Code::BadBundle, text));
    }
    Ok(())
}

/// Reads the whole bundle's signature and mounts nothing; a slow card needs some seconds.
const CHECK: Duration = Duration::from_secs(120);

/// Writes the other slot and makes it the next to boot.
pub(crate) fn install(bundle: &Path, deadline: Duration, mut progress: impl FnMut(u8)) -> Result<(), Fault> {
    let path = bundle.to_string_lossy();
    let said = tool::run("rauc", &["install", &path], deadline, |line| {
        if let Some(percent) = percent(line) {
            progress(percent);
        }
    });
    said.map(|_| ()).map_err(|error| not_installed(&error))
}

fn not_installed(error: &ToolError) -> Fault {
    let text = error.text();
    let reason = text.lines().rev().find_map(|line| line.trim().strip_prefix("LastError: "));
    let reason = reason.unwrap_or_else(|| last_line(text));
    // `check` has accepted it; these are what only an installation finds.
    let bundle = ["signature", "ompatible mismatch", "manifest", "Invalid bundle", "checksum", "verity"];
    let code = match error {
        // Only who asked was killed: RAUC's service goes on, and may still switch the slot.
        ToolError::TooSlow { .. } => Code::Busy,
        // An installation whose helper is gone.
        ToolError::Failed { .. } if text.contains("lready processing") => Code::Busy,
        ToolError::Failed { .. } if bundle.iter().any(|word| reason.contains(word)) => Code::BadBundle,
        ToolError::Failed { .. } | ToolError::Run { .. } => Code::InstallFailed,
    };
    Fault::new(code, format!("RAUC could not install: {error}: {reason}")).with_detail(text)
}

/// That the other slot has the version that was ordered: `install` opens the bundle anew, and whoever could still write to it
/// may have made another signed one of it since [`check`].
pub(crate) fn confirm(version: &str) -> Result<(), Fault> {
    let facts = facts().map_err(|why| {
        Fault::new(Code::InstallFailed, format!("RAUC does not say what it has installed: {why}"))
    })?;
    if facts.other_version.as_deref() != Some(version) {
        let is = facts.other_version.unwrap_or_default();
        let text = format!("version {is:?} was installed, and version {version:?} was ordered");
        return Err(Fault::new(Code::BadBundle, text));
    }
    Ok(())
}

/// ` 40% Checking bundle done.`
fn percent(line: &str) -> Option<u8> {
    let (number, _) = line.trim_start().split_once('%')?;
    number.parse().ok().filter(|percent| *percent <= 100)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The booted slot.
    Good,
    Bad,
    OtherBad,
}

/// Marks a slot, which RAUC refuses while it installs.
pub(crate) fn mark(mark: Mark) -> Result<(), ToolError> {
    let (word, slot) = match mark {
        Mark::Good => ("mark-good", "booted"),
        Mark::Bad => ("mark-bad", "booted"),
        Mark::OtherBad => ("mark-bad", "other"),
    };
    tool::ask("rauc", &["status", word, slot]).map(|_| ())
}

fn last_line(text: &str) -> &str {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RAUC 1.8 writes it; shortened.
    const STATUS: &str = r#"{"compatible":"headwater-arm64","variant":"","booted":"B","boot_primary":"rootfs.1","slots":[
        {"rootfs.1":{"class":"rootfs","device":"/dev/vda3","type":"ext4","bootname":"B","state":"booted","parent":null,
          "mountpoint":"/","boot_status":"good","slot_status":{"bundle":{"compatible":"headwater-arm64","version":"0.2.0"},
          "checksum":{"sha256":"00","size":1},"installed":{"timestamp":"2026-11-22T10:00:00Z","count":1}}}},
        {"rootfs.0":{"class":"rootfs","device":"/dev/vda2","type":"ext4","bootname":"A","state":"inactive","parent":null,
          "mountpoint":null,"boot_status":"good"}}]}"#;

    #[test]
    fn the_booted_slot_and_its_version_are_found_in_raucs_status() {
        let facts = read(STATUS).unwrap();
        assert_eq!((facts.compatible.as_str(), facts.slot.as_deref()), ("headwater-arm64", Some("B")));
        assert_eq!(facts.version.as_deref(), Some("0.2.0"));
        let flashed = read(&STATUS.replace(r#""booted":"B""#, r#""booted":"A""#)).unwrap();
        assert_eq!((flashed.slot.as_deref(), flashed.version), (Some("A"), None));
    }

    #[test]
    fn the_other_slot_and_what_the_next_boot_starts_are_found_whatever_runs_now() {
        let rescue =
            r#"{"rescue.0":{"class":"rescue","bootname":"R","slot_status":{"bundle":{"version":"9"}}}},"#;
        let status = STATUS.replace(r#""slots":["#, &format!("\"slots\":[{rescue}"));
        let read = |booted: &str, primary: &str| {
            let status = status.replace(r#""booted":"B""#, &format!("\"booted\":\"{booted}\""));
            let facts = read(&status.replace(r#""boot_primary":"rootfs.1""#, primary)).unwrap();
            (facts.stays, facts.other_version)
        };
        let (flashed, installed) = (r#""boot_primary":"rootfs.0""#, r#""boot_primary":"rootfs.1""#);
        let version = Some("0.2.0".to_owned());
        assert_eq!(read("A", installed), (false, version.clone()));
        assert_eq!(read("A", flashed), (true, version.clone()));
        assert_eq!(read("B", installed), (true, None));
        assert_eq!(read("A", r#""boot_primary":null"#), (false, version), "the bootloader does not say");
    }

    #[test]
    fn what_goes_on_without_us_is_no_failure() {
        use std::os::unix::process::ExitStatusExt;
        let program = || "rauc".to_owned();
        let said = |text: &str| ToolError::Failed {
            program: program(),
            status: std::process::ExitStatus::from_raw(256),
            text: text.to_owned(),
        };
        let slow = ToolError::TooSlow { program: program(), after: Duration::from_secs(3600) };
        assert_eq!(not_installed(&slow).code, Code::Busy);
        assert_eq!(not_installed(&said("LastError: Already processing a different method")).code, Code::Busy);
        assert_eq!(not_installed(&said("LastError: signature verification failed")).code, Code::BadBundle);
        assert_eq!(not_installed(&said("LastError: No space left")).code, Code::InstallFailed);
    }

    #[test]
    fn progress_is_read_from_raucs_lines() {
        assert_eq!(percent(" 40% Verifying signature done."), Some(40));
        assert_eq!(percent("100% Installing done."), Some(100));
        assert_eq!(percent("installing"), None);
        assert_eq!(percent("full to 400% of x"), None);
    }
}
