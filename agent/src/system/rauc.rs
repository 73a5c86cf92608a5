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
    #[serde(default)]
    slots: Vec<BTreeMap<String, Slot>>,
}

#[derive(Debug, Deserialize)]
struct Slot {
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
}

fn read(json: &str) -> Result<Facts, serde_json::Error> {
    let report: Report = serde_json::from_str(json)?;
    let slot = report.booted.filter(|slot| !slot.is_empty());
    let booted = report.slots.into_iter().flat_map(BTreeMap::into_values);
    let booted = booted.filter(|of| of.bootname.is_some() && of.bootname == slot);
    let version = booted.filter_map(|of| of.slot_status?.bundle?.version).next();
    Ok(Facts { compatible: report.compatible, slot, version })
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
    said.map(|_| ()).map_err(|error| {
        let text = error.text();
        let reason = text.lines().rev().find_map(|line| line.trim().strip_prefix("LastError: "));
        let reason = reason.unwrap_or_else(|| last_line(text));
        // `check` has accepted it; these are what only an installation finds.
        let bundle = ["signature", "ompatible mismatch", "manifest", "Invalid bundle", "checksum", "verity"];
        let code = if text.contains("lready processing") {
            // An installation whose helper is gone.
            Code::Busy
        } else if bundle.iter().any(|word| reason.contains(word)) {
            Code::BadBundle
        } else {
            Code::InstallFailed
        };
        Fault::new(code, format!("RAUC could not install: {error}: {reason}")).with_detail(text)
    })
}

/// ` 40% Checking bundle done.`
fn percent(line: &str) -> Option<u8> {
    let (number, _) = line.trim_start().split_once('%')?;
    number.parse().ok().filter(|percent| *percent <= 100)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Good,
    Bad,
}

/// Marks the booted slot.
pub(crate) fn mark(mark: Mark) -> Result<(), ToolError> {
    let word = match mark {
        Mark::Good => "mark-good",
        Mark::Bad => "mark-bad",
    };
    tool::ask("rauc", &["status", word, "booted"]).map(|_| ())
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
    fn progress_is_read_from_raucs_lines() {
        assert_eq!(percent(" 40% Verifying signature done."), Some(40));
        assert_eq!(percent("100% Installing done."), Some(100));
        assert_eq!(percent("installing"), None);
        assert_eq!(percent("full to 400% of x"), None);
    }
}
