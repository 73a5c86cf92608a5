//! Our own Debian packages: installed by the package manager, with those of the earlier version kept to go back to.
//!
//! ```text
//! packages/next      verified, to be installed                ─ commit ─▶ packages/current
//! packages/current   what runs, brought by a bundle or        ◀─ go back
//!                    packed anew from what is installed
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_protocol::packages::{MANIFEST, Package, PackageManifest};
use headwater_protocol::update::{BundleKind, UpdateOrder};
use headwater_protocol::{Code, Fault};

use super::bundle;
use super::config::Config;
use super::install::storage;
use super::record::Record;
use super::tool::{self, ToolError};
use crate::files;

const AGENT: &str = "headwater-agent";
/// For one package of ours to be packed anew; a slow card needs a twentieth.
const REPACK: Duration = Duration::from_secs(300);

fn next(config: &Config) -> PathBuf {
    config.state_dir.join("packages/next")
}

fn current(config: &Config) -> PathBuf {
    config.state_dir.join("packages/current")
}

/// Architecture and version, where the agent came with a package.
pub(super) fn installed() -> Option<(String, String)> {
    let version = version_of(AGENT)?;
    Some((tool::ask("dpkg", &["--print-architecture"]).ok()?, version))
}

fn version_of(package: &str) -> Option<String> {
    let said = tool::ask("dpkg-query", &["-W", "-f", "${db:Status-Abbrev}${Version}", package]).ok()?;
    // Half installed counts: it is to be replaced.
    let version = said.get(3..)?.trim();
    (said.starts_with('i') && !version.is_empty()).then(|| version.to_owned())
}

/// Verifies a bundle and makes its packages ready to be installed.
pub(super) fn unpack(config: &Config, path: &Path, order: &UpdateOrder) -> Result<(), Fault> {
    let folder = next(config);
    empty(&folder).map_err(storage)?;
    let checked = bundle::unpack(path, &config.update_keyring, &folder)
        .and_then(|manifest| check(config, &manifest, order));
    if checked.is_err() {
        empty(&folder).map_err(storage)?;
    }
    checked
}

fn check(config: &Config, manifest: &PackageManifest, order: &UpdateOrder) -> Result<(), Fault> {
    let ordered = &order.bundle;
    let bad = |text: String| Err(Fault::new(Code::BadBundle, text));
    let PackageManifest { kind, architecture, version, packages } = manifest;
    if *kind != BundleKind::Deb {
        return bad("the manifest is not for packages".to_owned());
    }
    if *architecture != ordered.compatible {
        return bad(format!("the packages are for {architecture}, this board is {}", ordered.compatible));
    }
    if *version != ordered.version {
        return bad(format!(
            "the bundle has version {version:?}, and version {:?} was ordered",
            ordered.version
        ));
    }
    if !packages.iter().any(|package| package.package == AGENT) {
        return bad(format!("the bundle lacks {AGENT}"));
    }
    for package in packages {
        let file = next(config).join(&package.file);
        let says =
            tool::ask("dpkg-deb", &["-W", "--showformat=${Package} ${Version}", &file.to_string_lossy()]);
        if says.as_deref().ok() != Some(&*format!("{} {}", package.package, package.version)) {
            return bad(format!("{} is not the package that the manifest names", package.file));
        }
        if let Some(installed) = version_of(&package.package)
            && !(order.allow_downgrade && config.allow_downgrade)
            && tool::ask("dpkg", &["--compare-versions", &package.version, "ge", &installed]).is_err()
        {
            return bad(format!(
                "{} {} is older than the installed {installed}; order it with --allow-downgrade",
                package.package, package.version
            ));
        }
    }
    Ok(())
}

/// Also after a power cut in the middle of it.
pub(super) fn install(config: &Config) -> Result<(), Fault> {
    run(config, &next(config)).map_err(|error| {
        let fault = Fault::new(Code::InstallFailed, format!("the packages could not be installed: {error}"));
        fault.with_detail(error.text())
    })
}

fn run(config: &Config, folder: &Path) -> Result<(), ToolError> {
    let read = |source| ToolError::Run { program: folder.display().to_string(), source };
    let entries = fs::read_dir(folder).map_err(read)?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.path().to_string_lossy().into_owned()));
    let files: Vec<String> = names.filter(|name| name.ends_with(".deb")).collect();
    let deadline = Duration::from_secs(config.install_seconds);
    let log = |line: &str| tracing::info!(line, "package manager");
    // What a power cut left in the middle. Where it cannot be finished, the new packages replace it.
    if let Err(error) = tool::run("dpkg", &["--force-confold", "--configure", "-a"], deadline, log) {
        tracing::warn!(%error, "packages from before cannot be configured");
    }
    let mut args = vec!["install", "--yes", "--allow-downgrades", "--no-install-recommends", "--reinstall"];
    args.extend(["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]);
    args.extend(["-o", "DPkg::Lock::Timeout=300"]);
    args.extend(files.iter().map(String::as_str));
    tool::run("apt-get", &args, deadline, log).map(|_| ())
}

fn manifest(folder: &Path) -> Option<PackageManifest> {
    serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()
}

/// Packs what is installed and is about to be replaced, where what is kept would not bring it back: no bundle has brought
/// it here, or the last one brought less. What the bundle brings for the first time has no way back, and stays.
pub(super) fn repack(config: &Config) -> Result<(), String> {
    let folder = config.state_dir.join("packages/repacked");
    let Some(next) = manifest(&next(config)) else {
        return Err("the new packages have no manifest".to_owned());
    };
    let broken = |error: io::Error| format!("{}: {error}", folder.display());
    empty(&folder).map_err(broken)?;
    let mut packages = Vec::new();
    for Package { package, .. } in next.packages {
        let Some(version) = version_of(&package) else { continue };
        // Quick, and read by every dpkg.
        let args = ["--tag=none", "--deb-option=-Zgzip", &package];
        tool::run_in(&folder, "dpkg-repack", &args, REPACK, |_| {})
            .map_err(|error| format!("{error}: {}; is dpkg-repack installed?", error.text()))?;
        let begin = format!("{package}_");
        let mut names = fs::read_dir(&folder).map_err(broken)?.flatten().map(|entry| entry.file_name());
        let name = names.find_map(|name| name.into_string().ok().filter(|name| name.starts_with(&begin)));
        let file = name.ok_or_else(|| format!("dpkg-repack left no package of {package}"))?;
        let path = folder.join(&file);
        let sha256 =
            fs::File::open(&path).and_then(|file| file.sync_all()).and_then(|()| files::sha256(&path));
        packages.push(Package { file, package, version, sha256: sha256.map_err(broken)? });
    }
    let Some(agent) = packages.iter().find(|package| package.package == AGENT) else {
        return Err(format!("{AGENT} is not installed"));
    };
    let manifest = PackageManifest { version: agent.version.clone(), packages, ..next };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| error.to_string())?;
    let current = current(config);
    files::write_atomically(&folder.join(MANIFEST), &text, 0o644)
        .and_then(|()| remove(&current))
        .and_then(|()| fs::rename(&folder, &current))
        .and_then(|()| files::sync_parent(&current))
        .map_err(broken)
}

/// Whether what is kept brings back all that the packages made ready would replace.
pub(super) fn way_back(config: &Config) -> bool {
    match (manifest(&current(config)), manifest(&next(config))) {
        (Some(kept), Some(next)) => brings_back(&kept.packages, &next.packages, version_of),
        (None, _) | (_, None) => false,
    }
}

/// A part of it would be a version that nobody has tried; so would be another than the one that is installed now.
fn brings_back(kept: &[Package], next: &[Package], installed: impl Fn(&str) -> Option<String>) -> bool {
    let is_kept = |name: &str| kept.iter().any(|package| package.package == name);
    kept.iter().all(|package| installed(&package.package).as_ref() == Some(&package.version))
        && next.iter().all(|Package { package, .. }| is_kept(package) || installed(package).is_none())
}

/// Brings the earlier packages back and starts their agent.
pub(super) fn go_back(config: &Config, record: &Record) -> Result<(), String> {
    let version = &record.from.version;
    // What is kept may be the new ones already, where the power failed in the middle of a commit.
    let is_earlier = |kept: PackageManifest| {
        kept.packages.iter().any(|package| package.package == AGENT && package.version == *version)
    };
    if !record.way_back || !manifest(&current(config)).is_some_and(is_earlier) {
        return Err(format!(
            "no way back: not all packages that version {version} ran with are kept, as neither an update brought them nor \
             dpkg-repack could pack them; install them by hand"
        ));
    }
    run(config, &current(config)).map_err(|error| format!("no way back: {error}: {}", error.text()))?;
    // An agent that failed too often is not started by its package any more.
    for args in [["reset-failed", "headwater-agent.service"], ["restart", "headwater-agent.service"]] {
        if let Err(error) = tool::ask("systemctl", &args) {
            tracing::warn!(%error, "the earlier agent may not run");
        }
    }
    Ok(())
}

/// The new packages are the ones to come back to. Where it was done before, there is nothing to do.
pub(super) fn keep(config: &Config) -> io::Result<()> {
    let (next, current) = (next(config), current(config));
    if !next.join(MANIFEST).exists() {
        return Ok(());
    }
    remove(&current)?;
    fs::rename(&next, &current)?;
    files::sync_parent(&current)
}

fn empty(folder: &Path) -> io::Result<()> {
    remove(folder)?;
    files::private_folder(folder)?;
    files::sync_parent(folder)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(packages: &[(&str, &str)]) -> Vec<Package> {
        let package = |(name, version): &(&str, &str)| Package {
            file: format!("{name}.deb"),
            package: (*name).to_owned(),
            version: (*version).to_owned(),
            sha256: String::new(),
        };
        packages.iter().map(package).collect()
    }

    #[test]
    fn what_is_kept_is_a_way_back_where_it_has_all_that_is_replaced_as_it_is_installed() {
        const WORKER: &str = "headwater-worker";
        let both = |version| packages(&[(AGENT, version), (WORKER, version)]);
        let agent = |version| packages(&[(AGENT, version)]);
        let here = |worker: Option<&'static str>| {
            move |name: &str| if name == AGENT { Some("3") } else { worker }.map(str::to_owned)
        };
        assert!(brings_back(&both("3"), &both("4"), here(Some("3"))));
        assert!(brings_back(&agent("3"), &agent("4"), here(Some("3"))), "the worker stays as it is");
        assert!(!brings_back(&agent("3"), &both("4"), here(Some("3"))), "the worker would stay new");
        assert!(brings_back(&agent("3"), &both("4"), here(None)), "there was no worker");
        assert!(
            !brings_back(&both("3"), &both("4"), here(Some("3.1"))),
            "somebody has installed another worker"
        );
        assert!(!brings_back(&both("3"), &agent("4"), here(None)), "somebody has removed the worker");
        assert!(!brings_back(&both("2"), &both("4"), here(Some("2"))), "the agent is another");
    }
}
