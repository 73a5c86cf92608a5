//! What is in the packages, and what they ask for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::machine::told;
use super::{PROGRAMS, Site, field, pack};

/// Of 100, as `systemd-analyze security` counts; the agent has 18, the gateway 14, root's helper 18.
const EXPOSURE: u32 = 20;
/// Runs the package manager, which writes wherever packages do, and starts their scripts as root.
const UNCONFINED: [&str; 1] = ["headwater-update-guard.service"];

fn unpacked(site: &Site, program: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("dpkg-deb");
    told("dpkg-deb", &command.arg("--extract").arg(site.deb(program)?).arg(folder.path()).output()?)?;
    Ok(folder)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

pub(crate) fn units_are_sound_and_hardened(site: &Site) -> Result<()> {
    let board = site.boot()?;
    board.install("/shared/first/*.deb")?;
    for program in ["headwater-agent", "headwater-gateway"] {
        for unit in names(&unpacked(site, program)?.path().join("usr/lib/systemd/system"))? {
            let words = board.ok(&format!("systemd-analyze verify --man=no {unit} 2>&1"))?;
            ensure!(words.is_empty(), "{unit}: {words}");
            if unit.ends_with(".service") && !UNCONFINED.contains(&unit.as_str()) {
                board.ok(&format!(
                    "systemd-analyze security --no-pager --offline=true --threshold={EXPOSURE} {unit}"
                ))?;
            }
        }
    }
    Ok(())
}

pub(crate) fn every_library_is_depended_on(site: &Site) -> Result<()> {
    let board = site.boot()?;
    for program in PROGRAMS {
        let folder = unpacked(site, program)?;
        let mut readelf = Command::new("readelf");
        let sections =
            told("readelf", &readelf.arg("-Wd").arg(folder.path().join("usr/bin").join(program)).output()?)?;
        let needed: Vec<&str> = sections
            .lines()
            .filter(|line| line.contains("(NEEDED)"))
            .filter_map(|line| line.split(['[', ']']).nth(1))
            .collect();
        ensure!(needed.contains(&"libc.so.6"), "{program} needs {needed:?}");
        let depends = field(&site.deb(program)?, "Depends")?;
        let depends: BTreeSet<&str> =
            depends.split([',', '|']).filter_map(|one| one.split_whitespace().next()).collect();
        for library in needed {
            // Who brings it, and what else that package is called.
            let owners = board
                .ok(&format!(
                    "path=$(ldconfig -p | awk '$1 == \"{library}\" {{ print $NF; exit }}')
                 path=$(readlink -f \"$path\")
                 owner=$(dpkg-query -S \"$path\" \"${{path#/usr}}\" 2>/dev/null | cut -d: -f 1 | head -n 1)
                 test -n \"$owner\"
                 dpkg-query -W -f '${{Package}}, ${{Provides}}' \"$owner\""
                ))
                .with_context(|| format!("{program}: who brings {library}"))?;
            let known = owners
                .split(',')
                .filter_map(|one| one.split_whitespace().next())
                .any(|name| depends.contains(name));
            ensure!(known, "{program} needs {library}, of {owners}; it depends on {depends:?}");
        }
    }
    Ok(())
}

pub(crate) fn a_package_is_whole(site: &Site) -> Result<()> {
    for program in PROGRAMS {
        let folder = unpacked(site, program)?;
        let share = folder.path().join("usr/share");
        for file in [
            format!("man/man1/{program}.1.gz"),
            format!("bash-completion/completions/{program}"),
            format!("zsh/vendor-completions/_{program}"),
            format!("fish/vendor_completions.d/{program}.fish"),
            format!("doc/{program}/copyright"),
            format!("doc/{program}/changelog.gz"),
            format!("doc/{program}/NEWS.md.gz"),
        ] {
            let size = fs::metadata(share.join(&file)).with_context(|| file.clone())?.len();
            ensure!(size > 100, "{file} has {size} bytes");
        }
        let parts: Value =
            serde_json::from_slice(&fs::read(share.join(format!("doc/{program}/sbom.cdx.json")))?)?;
        ensure!(parts["bomFormat"] == "CycloneDX", "{program}");
        let parts: BTreeSet<(String, String)> = parts["components"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|part| {
                Some((part["name"].as_str()?.to_owned(), part["version"].as_str()?.to_owned()))
            })
            .collect();
        ensure!(parts.iter().any(|(name, _)| name == "headwater-protocol"), "{program}: {parts:?}");
        if program == "headwater-agent" {
            // What the manual sends people to.
            let example = fs::read_to_string(share.join("doc/headwater-agent/examples/system.toml"))?;
            ensure!(example.contains("#allow_downgrade = true"), "{example}");
        }
        if site.ships {
            // The list that the program itself holds.
            let binary = fs::read(folder.path().join("usr/bin").join(program))?;
            let own = auditable_info::audit_info_from_slice(&binary, 1 << 24).context(program)?;
            ensure!(own.packages.len() > 50, "{program} knows {} packages", own.packages.len());
            let own: BTreeSet<(String, String)> = own
                .packages
                .iter()
                .filter(|package| !package.root)
                .map(|package| (package.name.clone(), package.version.to_string()))
                .collect();
            let apart: Vec<_> = own.symmetric_difference(&parts).collect();
            ensure!(apart.is_empty(), "{program} and its list of parts do not agree on {apart:?}");
        }
    }
    Ok(())
}

pub(crate) fn packing_twice_gives_the_same_bytes(site: &Site) -> Result<()> {
    if site.ships {
        // `make packages-repro` builds twice.
        return Ok(());
    }
    let again = tempfile::tempdir()?;
    pack(again.path())?;
    for program in PROGRAMS {
        let path = site.deb(program)?;
        let name = path.file_name().context("a package has a name")?;
        ensure!(fs::read(&path)? == fs::read(again.path().join(name))?, "{program} is packed differently");
    }
    Ok(())
}
