//! `headwater-agent system`: the small part that runs as root, and what it may do.
//!
//! ```text
//!  agent ──socket──▶ server: who asks? ─▶ Status | Install | Commit | Reboot ─▶ rauc, packages
//!                                               └── record: root's journal ◀── guard: commit in time, or back
//! ```
//!
//! The agent asks and never decides: signatures are verified here, by RAUC or against our own keyring, and what is
//! installed is what was verified. Started by the socket, gone when idle.

mod bundle;
mod config;
mod guard;
mod install;
mod keyring;
mod packages;
mod rauc;
mod record;
mod server;
mod stage;
mod tool;
pub(crate) mod wire;

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use headwater_protocol::update::BundleKind;
use nix::fcntl::{Flock, FlockArg};

use crate::exit::Exit;
use crate::{board, files};
use config::Config;
use record::{Journal, Place};
use wire::{Answer, Pending, Request, Status};

#[derive(Debug, Args)]
pub(crate) struct SystemArgs {
    /// Where to listen or to ask; without it the service manager's socket, or /run/headwater/system.sock
    #[arg(long, global = true, value_name = "FILE")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<SystemVerb>,
}

#[derive(Debug, Clone, Subcommand)]
enum SystemVerb {
    /// Answer requests on the socket, until nobody asks (the default)
    Serve,
    /// After a boot or an installation: wait for the commit, or go back to the earlier version
    Guard,
    /// Show what the helper says of this system, as JSON
    Status,
    /// Trust bundles of packages that are signed by a certificate in FILE, PEM, and by no other; for root
    Trust { file: PathBuf },
}

/// `path` is of `system.toml`.
pub(crate) fn run(args: SystemArgs, path: Option<&Path>) -> anyhow::Result<Exit> {
    match args.verb.unwrap_or(SystemVerb::Serve) {
        SystemVerb::Serve => {
            let system = System::open(Config::load(path)?)?;
            server::serve(&system, args.socket.as_deref())?;
        }
        SystemVerb::Guard => guard::guard(&System::open(guards_config(path))?)?,
        SystemVerb::Trust { file } => {
            for name in keyring::trust(&Config::load(path)?, &file)? {
                println!("trusted: bundles of packages that {name} signed");
            }
        }
        SystemVerb::Status => show(args.socket.as_deref().unwrap_or_else(|| Path::new(wire::SOCKET)))?,
    }
    Ok(Exit::Ok)
}

/// What goes back must run whatever a person wrote: on an image a guard that ends boots the board, again and again.
fn guards_config(path: Option<&Path>) -> Config {
    Config::load(path).unwrap_or_else(|error| {
        tracing::error!(%error, "the guard goes on with defaults");
        Config::default()
    })
}

fn show(socket: &Path) -> anyhow::Result<()> {
    let nobody = || format!("no helper at {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(nobody)?;
    stream.set_read_timeout(Some(2 * tool::QUICK))?;
    let mut request = serde_json::to_vec(&Request::Status)?;
    request.push(b'\n');
    // One that does not let us in may have hung up already, and has said why.
    let _ = stream.write_all(&request);
    let mut line = Vec::new();
    (&mut stream).take(wire::MAX_LINE).read_to_end(&mut line).with_context(nobody)?;
    match serde_json::from_slice(&line).with_context(nobody)? {
        Answer::Status(status) => println!("{}", serde_json::to_string_pretty(&status)?),
        Answer::Fault(fault) => return Err(fault.into()),
        other @ (Answer::Progress { .. } | Answer::Installed { .. } | Answer::Done) => {
            anyhow::bail!("the helper answered {other:?}");
        }
    }
    Ok(())
}

/// What root has at hand.
#[derive(Debug)]
pub(crate) struct System {
    config: Config,
    journal: Journal,
}

/// Held while an update is worked on.
type Lock = Flock<std::fs::File>;

impl System {
    fn open(config: Config) -> anyhow::Result<Self> {
        let folder = || format!("cannot create {}", config.state_dir.display());
        files::private_folder(&config.state_dir).with_context(folder)?;
        let journal = Journal::of(&config.state_dir);
        Ok(Self { config, journal })
    }

    /// None: somebody works on an update.
    fn lock(&self) -> io::Result<Option<Lock>> {
        let path = self.config.state_dir.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// What installs here, and what runs now.
    fn installation(&self) -> Status {
        if self.config.rauc_config.exists() {
            return match rauc::facts() {
                Ok(facts) => Status {
                    updates_by: Some(BundleKind::Rauc),
                    compatible: facts.compatible,
                    version: facts.version.unwrap_or_else(image_version),
                    slot: facts.slot,
                    ..Status::default()
                },
                Err(why) => Status {
                    // The bootloader has told the kernel, too.
                    slot: board::boot_option("rauc.slot"),
                    explanation: format!(
                        "RAUC is set up here and does not answer ({why}); see `systemctl status rauc`"
                    ),
                    ..Status::default()
                },
            };
        }
        match packages::installed() {
            Some((architecture, version)) => Status {
                updates_by: Some(BundleKind::Deb),
                compatible: architecture,
                version,
                ..Status::default()
            },
            None => Status {
                explanation: "the programs came neither with an image nor with a package: copy the new headwater-agent \
                              and headwater-worker over the old ones, then send `restart`"
                    .to_owned(),
                ..Status::default()
            },
        }
    }

    fn status(&self) -> io::Result<Status> {
        let mut status = self.installation();
        // Free only while nobody holds it; given back at once.
        let busy = self.lock()?.is_none();
        if let Some(record) = self.journal.load() {
            let standing = record.standing(&board::boot_id(), status.slot.as_deref(), busy);
            let standing = standing.ok_or_else(|| io::Error::other(&*status.explanation))?;
            status.pending = Some(Pending { standing, order: record.order });
        }
        Ok(status)
    }
}

impl Status {
    fn place(&self) -> Place {
        Place { slot: self.slot.clone(), version: self.version.clone() }
    }
}

/// Of an image that was flashed and not installed by RAUC.
fn image_version() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let version = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="));
    version.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_runs_beside_a_configuration_with_a_mistake() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "allow_downgrades = false\n").unwrap();
        assert!(Config::load(Some(file.path())).is_err());
        assert_eq!(guards_config(Some(file.path())), Config::default());
    }
}
