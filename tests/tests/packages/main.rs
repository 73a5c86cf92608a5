//! The .deb files in clean Debian systems, each with its own systemd: installed, enrolled, upgraded, removed, purged.
//!
//! By itself it packs the binaries that cargo has just built and takes Debian 12. `make packages-test` gives it the
//! packages that ship and more systems: HEADWATER_PACKAGES names their folder, HEADWATER_SUITES Debian's releases.
//! Systems are made with root's rights and kept below target/; where that cannot be, this fails, unless
//! HEADWATER_NO_SYSTEMS says why they are done without.

mod contents;
mod life;
mod machine;
mod updates;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use headwater_tests::process::binaries;
use libtest_mimic::{Arguments, Failed, Trial};

use machine::{Machine, as_root, sources, told};

pub(crate) const PROGRAMS: [&str; 4] =
    ["headwater-agent", "headwater-worker", "headwater-gateway", "headwater"];

/// A release of Debian, and the packages for it.
#[derive(Debug)]
pub(crate) struct Site {
    suite: String,
    root: PathBuf,
    /// The packages, in a folder called `first`.
    first: PathBuf,
    /// The same, a version later and with another default configuration, in a folder called `next`.
    next: PathBuf,
    /// Packed from release binaries.
    ships: bool,
}

impl Site {
    pub(crate) fn deb(&self, program: &str) -> Result<PathBuf> {
        let start = format!("{program}_");
        let mut files = std::fs::read_dir(&self.first)?.flatten().map(|entry| entry.path());
        files
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
            .with_context(|| format!("no package of {program} in {}", self.first.display()))
    }

    pub(crate) fn boot(&self) -> Result<Machine> {
        let clip = sources().join("tests/media/bbb-720p25-5s.mp4");
        Machine::boot(&self.root, &[&self.first, &self.next, &clip])
    }
}

pub(crate) fn pack(out: &Path) -> Result<()> {
    let mut command = Command::new(sources().join("cross/packages/pack.sh"));
    command.current_dir(sources()).arg(host_architecture()?).arg(binaries()?).arg(out);
    // Of no commit: one may be made while tests run.
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    told("pack.sh", &command.output()?).map(drop)
}

fn host_architecture() -> Result<String> {
    let output = Command::new("dpkg").arg("--print-architecture").output()?;
    Ok(told("dpkg", &output)?.trim().to_owned())
}

pub(crate) fn field(deb: &Path, name: &str) -> Result<String> {
    let output = Command::new("dpkg-deb").arg("--field").arg(deb).arg(name).output()?;
    Ok(told("dpkg-deb", &output)?.trim().to_owned())
}

/// Packages of version 0.2.0 with a line more in each configuration.
fn later(first: &Path, next: &Path) -> Result<()> {
    let script = r#"
        for deb in "$1"/*.deb; do
            tree="$2/tree"
            dpkg-deb --raw-extract "$deb" "$tree"
            sed -i 's/^Version: .*/Version: 0.2.0/' "$tree/DEBIAN/control"
            for file in "$tree"/etc/headwater/*.toml; do
                [ ! -e "$file" ] || echo '# Another default.' >>"$file"
            done
            dpkg-deb --root-owner-group -Zgzip -z1 --build "$tree" "$2" >/dev/null
            rm -r "$tree"
        done"#;
    std::fs::create_dir_all(next)?;
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).arg(first).arg(next);
    told("making the next version", &command.output()?).map(drop)
}

/// What the packages ask for, except one another.
fn dependencies(first: &Path) -> Result<Vec<String>> {
    let mut wanted = Vec::new();
    for entry in std::fs::read_dir(first)? {
        let path = entry?.path();
        for name in ["Depends", "Recommends"] {
            let text = field(&path, name)?;
            wanted.extend(text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned));
        }
    }
    wanted.retain(|one| !one.starts_with("headwater"));
    Ok(wanted)
}

fn prepare(work: &Path) -> Result<Vec<Site>> {
    let (first, next) = (work.join("first"), work.join("next"));
    let given = std::env::var_os("HEADWATER_PACKAGES");
    match &given {
        Some(folder) => {
            let mut copy = Command::new("cp");
            told("cp", &copy.arg("-r").arg(folder).arg(&first).output()?)?;
        }
        None => pack(&first)?,
    }
    later(&first, &next)?;
    let target = binaries()?.parent().context("the binaries' folder has no parent")?.to_owned();
    let suites = std::env::var("HEADWATER_SUITES").unwrap_or_else(|_| "bookworm".to_owned());
    suites
        .split_whitespace()
        .map(|suite| {
            let arch = host_architecture()?;
            let root = target.join(format!("packages/roots/{suite}-{arch}"));
            let mut command = Command::new(sources().join("cross/packages/root.sh"));
            command.arg(&root).arg(suite).arg(&arch).args(dependencies(&first)?);
            told("root.sh", &command.output()?)?;
            ensure!(
                as_root("test").arg("-d").arg(&root).status()?.success(),
                "{} is missing",
                root.display()
            );
            let (suite, first, next) = (suite.to_owned(), first.clone(), next.clone());
            Ok(Site { suite, root, first, next, ships: given.is_some() })
        })
        .collect()
}

type Case = fn(&Site) -> Result<()>;

const CASES: [(&str, Case); 11] = [
    ("one_installation_and_one_token_bring_a_node_that_transcodes", life::one_installation_and_one_token),
    ("an_upgrade_keeps_identity_outbox_and_configuration", life::an_upgrade_keeps_what_is_there),
    ("an_event_that_was_not_acknowledged_arrives_after_an_upgrade", life::an_event_outlives_an_upgrade),
    ("removal_keeps_state_and_purging_takes_it", life::removal_and_purging),
    ("without_systemd_sysusers_the_user_is_made_all_the_same", life::without_sysusers),
    ("what_was_disabled_or_stopped_stays_so", life::disabled_stays_disabled),
    (
        "the_first_update_by_packages_goes_back_where_it_does_not_prove_itself",
        updates::the_first_one_goes_back,
    ),
    ("units_are_sound_and_hardened", contents::units_are_sound_and_hardened),
    ("every_library_comes_from_a_named_dependency", contents::every_library_is_depended_on),
    ("a_package_has_manual_completions_licence_and_list_of_parts", contents::a_package_is_whole),
    ("packing_twice_gives_the_same_bytes", contents::packing_twice_gives_the_same_bytes),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let idle = |ignored: bool| {
        let trials = CASES.iter().map(|(name, _)| Trial::test(*name, || Ok(())).with_ignored_flag(ignored));
        libtest_mimic::run(
            &Arguments { ignored: false, include_ignored: false, ..arguments.clone() },
            trials.collect(),
        )
        .exit_code()
    };
    // Listing must not make systems.
    if arguments.list {
        return idle(false);
    }
    if let Ok(why) = std::env::var("HEADWATER_NO_SYSTEMS") {
        eprintln!("skipped: {why}");
        return idle(true);
    }
    let prepared = tempfile::tempdir().map_err(anyhow::Error::from).and_then(|work| {
        let sites = prepare(work.path())?;
        Ok((work, sites))
    });
    let (_work, sites) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("packages: {error:#}\nHEADWATER_NO_SYSTEMS=REASON does without these tests.");
            return ExitCode::FAILURE;
        }
    };
    let trials = sites.into_iter().map(Arc::new).flat_map(|site| {
        CASES.map(|(name, case)| {
            let site = Arc::clone(&site);
            Trial::test(format!("{}::{name}", site.suite), move || {
                case(&site).map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
