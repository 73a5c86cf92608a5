//! An emulated board with the reference image on its disk, as `make image-test` drives it.
//!
//! ```text
//! Board ── qemu-system-aarch64 ── Disk (NBD, with a cache that loses power)
//!            ├ Qmp: events, resets          ├ console, in a file
//!            └ ssh, for the key that headwater.toml has
//! ```

pub mod dice;
pub mod disk;
mod proxy;
mod qmp;
pub mod rig;
pub mod scenarios;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::Process;
use dice::Dice;
use disk::Disk;
use qmp::Qmp;

/// The host as the board sees it through QEMU's user network.
pub const HOST: &str = "10.0.2.2";
/// A boot takes 20 to 40 s on a quiet machine, and ten times as long on a busy one.
pub const BOOTED: Duration = Duration::from_secs(480);

/// What a board is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    pub folder: PathBuf,
    /// UEFI or U-Boot, in a file.
    pub firmware: PathBuf,
}

/// The board's plug, for whoever may have to pull it while somebody waits for the board.
#[derive(Debug, Clone, Default)]
pub struct Plug(Arc<Mutex<Plugged>>);

#[derive(Debug, Default)]
struct Plugged {
    /// For ever.
    pulled: bool,
    qemu: Option<Pid>,
}

impl Plug {
    fn held(&self) -> std::sync::MutexGuard<'_, Plugged> {
        // Both of its values are whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the machine, and none starts any more: whoever waits for the board gives up soon.
    pub fn pull(&self) {
        let mut held = self.held();
        held.pulled = true;
        if let Some(qemu) = held.qemu {
            // Not reaped before `leave`, so the number is its own.
            let _ = killpg(qemu, Signal::SIGKILL);
        }
    }

    pub fn is_pulled(&self) -> bool {
        self.held().pulled
    }

    /// Starts the machine, unless the plug is out.
    fn enter(&self, start: impl FnOnce() -> Result<Process>) -> Result<Process> {
        let mut held = self.held();
        ensure!(!held.pulled, "stopped");
        let qemu = start()?;
        held.qemu = Some(qemu.pid());
        Ok(qemu)
    }

    fn leave(&self) {
        self.held().qemu = None;
    }
}

/// A board that is switched on.
#[derive(Debug)]
pub struct Board {
    parts: Parts,
    pub disk: Arc<Disk>,
    power: Option<Power>,
    plug: Plug,
    ssh: u16,
    /// Where on the console the next look begins.
    read: usize,
}

#[derive(Debug)]
struct Power {
    qemu: Process,
    qmp: Qmp,
    server: JoinHandle<()>,
}

impl Board {
    pub fn new(parts: Parts, disk: Arc<Disk>, plug: Plug) -> Result<Self> {
        let ssh = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut board = Self { parts, disk, power: None, plug, ssh, read: 0 };
        board.switch_on()?;
        Ok(board)
    }

    fn console_file(&self) -> PathBuf {
        self.parts.folder.join("console.log")
    }

    pub fn switch_on(&mut self) -> Result<()> {
        self.read = self.console().len();
        let folder = &self.parts.folder;
        let (nbd, qmp) = (folder.join("nbd"), folder.join("qmp"));
        let server = self.disk.serve(&nbd)?;
        // Whatever ends this program ends the machine: it is started by the main thread, which lives as long.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-aarch64"]);
        // Emulation, never KVM: it is the same everywhere.
        command.args(["-M", "virt,gic-version=3", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024"]);
        command.args([
            "-accel",
            "tcg,thread=multi,tb-size=512",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ]);
        command.arg("-bios").arg(&self.parts.firmware);
        command
            .args(["-chardev", &format!("file,id=console,path={},append=on", self.console_file().display())]);
        command.args(["-serial", "chardev:console"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())]);
        command.args(["-device", "i6300esb", "-action", "watchdog=reset", "-device", "virtio-rng-pci"]);
        command.args([
            "-blockdev",
            &format!("driver=nbd,node-name=disk,server.type=unix,server.path={}", nbd.display()),
        ]);
        command.args(["-device", "virtio-blk-pci,drive=disk,write-cache=on,bootindex=0"]);
        let network = format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:22", self.ssh);
        command.args(["-netdev", &network, "-device", "virtio-net-pci,netdev=net,romfile="]);
        let mut qemu = self.plug.enter(|| Process::start("qemu", command, &folder.join("qemu.log")))?;
        let qmp = qemu.wait_for("QMP", Duration::from_secs(60), || Qmp::connect(&qmp).ok());
        let qmp = qmp.inspect_err(|_| self.plug.leave())?;
        self.power = Some(Power { qemu, qmp, server });
        Ok(())
    }

    /// The plug is pulled: what the disk had not written is lost in part. Returns how many sectors are.
    pub fn cut_power(&mut self, dice: &mut Dice) -> Result<usize> {
        self.stop();
        self.disk.cut_power(dice)
    }

    fn stop(&mut self) {
        if let Some(mut power) = self.power.take() {
            self.plug.leave();
            power.qemu.kill();
            // It ends with its connection.
            let _ = power.server.join();
        }
    }

    /// The reset button. What was on the console before is not looked at any more.
    pub fn reset(&mut self) -> Result<()> {
        self.read = self.console().len();
        self.power.as_mut().context("the board is off")?.qmp.order("system_reset").map(|_| ())
    }

    /// Fails where the machine is gone without having been switched off.
    pub fn alive(&mut self) -> Result<()> {
        let Some(power) = self.power.as_mut() else { return Ok(()) };
        match power.qemu.ended() {
            Some(status) => bail!("QEMU ended with {status}: {}", power.qemu.log_tail()),
            None => Ok(()),
        }
    }

    /// Whether the watchdog has bitten since this was last asked.
    pub fn watchdog_bit(&mut self) -> Result<bool> {
        self.power.as_mut().context("the board is off")?.qmp.seen("WATCHDOG")
    }

    /// All that was ever on the console, without the firmware's control characters.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.console_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace(['\r', '\u{1b}', '\0'], "")
    }

    /// The next line of the console with `wanted` in it.
    pub fn line(&mut self, wanted: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let console = self.console();
            let rest = console.get(self.read..).unwrap_or_default();
            if let Some(at) = rest.find(wanted)
                && let Some(end) = rest[at..].find('\n')
            {
                self.read += at + end;
                return Ok(rest[at..at + end].to_owned());
            }
            ensure!(self.power.is_some(), "the board is off");
            self.alive()?;
            ensure!(
                Instant::now() < deadline,
                "no {wanted:?} on the console within {limit:?}:\n{}",
                tail(&console)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for GRUB; says which slot it starts.
    pub fn slot_started(&mut self, limit: Duration) -> Result<char> {
        let line = self.line("headwater: slot ", limit)?;
        line.chars().nth("headwater: slot ".len()).with_context(|| line)
    }

    /// Runs a command as root on the board; what it said and whether it went well.
    pub fn run(&self, command: &str, limit: Duration) -> Result<Output> {
        self.ssh(command, limit).stdin(Stdio::null()).output().context("ssh")
    }

    fn ssh(&self, command: &str, limit: Duration) -> Command {
        let mut ssh = Command::new("timeout");
        ssh.arg(limit.as_secs().to_string()).args(["ssh", "-q", "-i"]).arg(self.parts.folder.join("key"));
        ssh.args(["-p", &self.ssh.to_string()]);
        for option in
            ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=20", "BatchMode=yes"]
        {
            ssh.args(["-o", option]);
        }
        ssh.args(["root@127.0.0.1", command]);
        ssh
    }

    /// Copies a file onto the board.
    pub fn put(&self, file: &Path, to: &str) -> Result<()> {
        let mut command = self.ssh(&format!("cat >{to}"), BOOTED);
        let status = command.stdin(fs::File::open(file)?).status().context("ssh")?;
        ensure!(status.success(), "{} could not be copied: {status}", file.display());
        Ok(())
    }

    /// What a command says that must go well.
    pub fn ask(&self, command: &str) -> Result<String> {
        let output = self.run(command, BOOTED)?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{command}` ended with {}: {said} {errors}", output.status);
        Ok(said)
    }

    /// Waits until ssh lets us in.
    pub fn wait_ssh(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.run("true", Duration::from_secs(30))?.status.success() {
            self.alive()?;
            ensure!(Instant::now() < deadline, "no ssh within {limit:?}:\n{}", tail(&self.console()));
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.stop();
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Puts `text` over a file on the boot partition of a disk image, as a person with a card reader does.
pub fn write_on_card(image: &Path, name: &str, text: &str, folder: &Path) -> Result<()> {
    let file = folder.join("on-card");
    fs::write(&file, text)?;
    // The boot partition begins at 1 MiB.
    let partition = format!("{}@@1M", image.display());
    let status =
        Command::new("mcopy").args(["-o", "-i", &partition]).arg(&file).arg(format!("::{name}")).status()?;
    ensure!(status.success(), "mcopy: {status}");
    Ok(fs::remove_file(file)?)
}

/// Reads a file of the boot partition; none where it is not there.
pub fn read_from_card(image: &Path, name: &str) -> Result<Option<String>> {
    let partition = format!("{}@@1M", image.display());
    let output = Command::new("mtype").args(["-i", &partition]).arg(format!("::{name}")).output()?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}
