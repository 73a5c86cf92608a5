//! A throw-away Debian system with its own systemd as first process: `cross/packages/boot.sh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use headwater_tests::Process;

/// From a start of systemd to its saying so; a busy machine is slow.
const BOOTED: Duration = Duration::from_secs(60);
/// Longest that something inside may take to come about.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longest that one script inside may run, in seconds: an installation of all packages.
const SCRIPT: &str = "240";

/// The sources' folder.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A command with root's rights.
pub(crate) fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if nix::unistd::Uid::effective().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--non-interactive").arg(program);
    command
}

pub(crate) fn told(what: &str, output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} ended with {}:\n{text}{errors}", output.status);
    Ok(text)
}

#[derive(Debug)]
pub(crate) struct Machine {
    // Ends before its folder goes.
    _boot: Process,
    init: String,
    _shared: tempfile::TempDir,
}

impl Machine {
    /// Boots a copy of a root; what `shared` has is in /shared.
    pub(crate) fn boot(root: &Path, shared: &[&Path]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for path in shared {
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(path).arg(folder.path());
            told("cp", &copy.output()?)?;
        }
        let mut command = as_root(sources().join("cross/packages/boot.sh"));
        command.arg(root).arg(folder.path());
        let pid = folder.path().join("init.pid");
        let mut boot = Process::start("boot.sh", command, &folder.path().join("console"))?;
        let init = boot.wait_for("first process", BOOTED, || fs::read_to_string(&pid).ok())?;
        let machine = Self { _boot: boot, init: init.trim().to_owned(), _shared: folder };
        machine
            .wait_for("a system that is up", "systemctl is-system-running | grep -Ex 'running|degraded'")?;
        Ok(machine)
    }

    /// Runs a shell script inside as root.
    pub(crate) fn run(&self, script: &str) -> Result<Output> {
        let mut command = as_root("nsenter");
        command.args(["--target", &self.init, "--all", "--", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8"]);
        command.args(["DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.args(["timeout", SCRIPT, "sh", "-euc", script]);
        Ok(command.output()?)
    }

    /// What a script prints, which must end well.
    pub(crate) fn ok(&self, script: &str) -> Result<String> {
        told(script, &self.run(script)?)
    }

    /// Waits until a script ends well.
    pub(crate) fn wait_for(&self, what: &str, script: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.run(script)?;
            if output.status.success() {
                return told(what, &output);
            }
            if Instant::now() > deadline {
                let journal =
                    self.run("systemctl --no-pager status 'headwater*'; journalctl --no-pager -n 60")?;
                let journal = String::from_utf8_lossy(&journal.stdout).into_owned();
                bail!(
                    "no {what} within {PATIENCE:?}: {}\n{journal}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Installs packages from /shared as a person would.
    pub(crate) fn install(&self, debs: &str) -> Result<String> {
        self.ok(&format!("apt-get install -yqq --no-install-recommends {debs} 2>&1")).context("installing")
    }
}
