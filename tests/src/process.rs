//! Child processes with an owner: what is started here is gone when its value is dropped.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Environment variable that all processes of one fleet inherit, so that leftovers can be found.
pub const MARK: &str = "HEADWATER_TEST_MARK";

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(20);

/// Folder of the built binaries: beside this program, or above it for a test.
pub fn binaries() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where this program is")?;
    let folder = own.parent().context("this program has no folder")?;
    let folder =
        if folder.ends_with("deps") { folder.parent().context("deps has no parent")? } else { folder };
    Ok(folder.to_owned())
}

/// A built binary of this workspace.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = binaries()?.join(name);
    if !path.exists() {
        bail!("{} is not built; run `make test`, or `cargo build --workspace --bins` first", path.display());
    }
    Ok(path)
}

/// A child in its own process group, its output in a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file =
            File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for a condition, and tells the log's end when the process ends or time runs out first.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            if let Some(status) = self.ended() {
                bail!("{} ended with {status} before {what}:\n{}", self.name, self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{}: no {what} within {limit:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM to the process alone, as a service manager does first.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        // An error means it is gone already; the wait below tells.
        let _ = kill(self.pid(), Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        bail!("{} did not end within {GRACE:?} of SIGTERM:\n{}", self.name, self.log_tail());
    }

    /// SIGKILL to its whole group, as when the power goes.
    pub fn kill(&mut self) {
        // Errors mean that nobody is left to kill.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() && self.terminate().is_err() {
            self.kill();
        }
        // Whatever it left in its group goes too.
        let _ = killpg(self.pid(), Signal::SIGKILL);
    }
}

/// Every process that inherited `mark`: pid and command line.
pub fn marked(mark: &str) -> BTreeSet<(i32, String)> {
    let needle = format!("{MARK}={mark}");
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeSet::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let environ = fs::read(entry.path().join("environ")).ok()?;
            environ.split(|b| *b == 0).any(|var| var == needle.as_bytes()).then_some(())?;
            // A zombie has no command line and holds nothing but its number.
            let command = fs::read(entry.path().join("cmdline")).ok().filter(|c| !c.is_empty())?;
            Some((pid, String::from_utf8_lossy(&command).replace('\0', " ")))
        })
        .collect()
}
