//! Headwater's agent: takes work over MQTT, fetches and puts media over HTTPS, drives the worker.
//!
//! ```text
//!             admission ◀─ node ─▶ actions            pure
//!                  ▲         ▲
//!  mqtt ──────────▶ daemon (owner of the state) ◀──── outbox ── disk
//!                     │
//!                     ├─▶ lane, one per stream ──▶ worker ── headwater-worker
//!                     │        └────────────────▶ media ─── gateway
//!                     └─▶ update (pure), helper ─▶ socket ─▶ system: the same program as root
//! ```

mod admission;
mod board;
mod clock;
mod config;
mod daemon;
mod drained;
mod enroll;
mod exit;
mod files;
mod helper;
mod identity;
mod jitter;
mod lane;
mod log_ring;
mod logging;
mod manual;
mod media;
mod mqtt;
mod node;
mod outbox;
mod overlay;
mod owner;
mod probe;
mod proxy;
mod quarantine;
mod sessions;
mod spare;
mod system;
mod update;
mod worker;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use headwater_protocol::enroll::Token;
use reqwest::StatusCode;

use config::{Config, Log, LogFormat, LogLevel};
use daemon::{DaemonError, Setup};
use enroll::EnrollError;
use exit::Exit;
use identity::{Identity, IdentityError};
use overlay::Overlay;
use owner::OwnerError;

/// Takes transcoding work for this board.
#[derive(Debug, Parser)]
#[command(name = "headwater-agent", version, about, after_long_help = Exit::HELP, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration; without it /etc/headwater/agent.toml (of `system`: system.toml there), where a missing file means
    /// defaults
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for identity and outbox
    #[arg(long, global = true, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// The headwater-worker to run
    #[arg(long, global = true, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// Form of the log lines on standard error
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// How much is logged
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve (the default)
    Run,
    /// Get this node's certificate with a one-time token from `headwater enroll NAME`
    Enroll {
        /// The token; `-` reads it from standard input, where it shows in no process list
        token: String,
        /// Replace an identity that is there
        #[arg(long)]
        force: bool,
    },
    /// Root's part: updates and boots for the agent
    ///
    /// headwater-system.socket starts `serve` when the agent asks; headwater-update-guard.service runs `guard` at each boot and beside
    /// each installation. They install bundles that RAUC's keyring or /etc/headwater/update-keyring.pem trusts, keep a
    /// journal in /var/lib/headwater-system, and go back to the earlier version where the new one does not prove
    /// itself in time. Settings are in /etc/headwater/system.toml; all of them are explained in
    /// /usr/share/doc/headwater-agent/examples/system.toml.
    System(system::SystemArgs),
    /// Print a completion script for a shell
    Completions { shell: Shell },
    /// Print the manual page, or write one page per command into a folder
    Man {
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // One line, as systemd shows it.
            eprintln!("headwater-agent: {}", headwater_protocol::error::in_one_line(error.as_ref()));
            exit_of(&error).into()
        }
    }
}

fn start(Cli { common, command }: Cli) -> anyhow::Result<Exit> {
    match command {
        None | Some(Verb::Run) => {
            let (own, file) = Config::load(common.config.as_deref())?;
            let state_dir = common.state_dir.as_ref().unwrap_or(&own.state_dir);
            owner::become_owner(state_dir)?;
            let identity = Identity::load(state_dir)?;
            let mut overlay = Overlay::load(state_dir);
            let (config, changed) = overlay.start(&own, &file);
            if changed && let Err(error) = overlay.store(state_dir) {
                // Then this start is not counted; a trial still has its deadline.
                eprintln!("headwater-agent: the configuration cannot be written: {error}");
            }
            let config = common.over(config);
            let runtime = begin(&config)?;
            let worker = find_worker(config.worker.as_ref());
            let result = runtime.block_on(daemon::run(Setup { config, file, overlay, identity, worker }));
            // A look-up of a name may still hang in its thread; the process does not wait for it.
            runtime.shutdown_background();
            Ok(result?)
        }
        Some(Verb::Enroll { token, force }) => {
            let (config, _) = Config::load(common.config.as_deref())?;
            let config = common.over(config);
            let token = read_token(token)?;
            owner::become_owner(&config.state_dir)?;
            let runtime = begin(&config)?;
            let enrolment = enroll::enroll(&token, &config.state_dir, config.proxy.as_ref(), force);
            let result = runtime.block_on(enrolment);
            runtime.shutdown_background();
            let node = result?;
            println!("enrolled: node {} of fleet {}, gateway {}", node.node, node.fleet, node.gateway_url);
            // Somebody looks on, and the package is only recommended: apt finds none beside a lone file.
            if let Err(missing) = probe::is_there(&find_worker(config.worker.as_ref())) {
                eprintln!("headwater-agent: {missing}");
            }
            Ok(Exit::Ok)
        }
        Some(Verb::System(args)) => {
            let log = Log::default();
            logging::start(&Log {
                format: common.log_format.unwrap_or(log.format),
                level: common.log_level.unwrap_or(log.level),
                kept_kib: 0,
            });
            system::run(args, common.config.as_deref())
        }
        Some(Verb::Completions { shell }) => {
            manual::completions(Cli::command(), shell);
            Ok(Exit::Ok)
        }
        Some(Verb::Man { dir }) => {
            manual::pages(Cli::command(), dir.as_deref()).context("cannot write the manual")?;
            Ok(Exit::Ok)
        }
    }
}

impl Common {
    /// The command line comes before any file.
    fn over(self, mut config: Config) -> Config {
        let Self { config: _, state_dir, worker, log_format, log_level } = self;
        config.state_dir = state_dir.unwrap_or(config.state_dir);
        config.worker = worker.or(config.worker);
        config.log.format = log_format.unwrap_or(config.log.format);
        config.log.level = log_level.unwrap_or(config.log.level);
        config
    }
}

fn begin(config: &Config) -> anyhow::Result<tokio::runtime::Runtime> {
    logging::start(&config.log);
    // One thread: everything here waits for something else.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .context("cannot start the runtime")
}

fn read_token(text: String) -> anyhow::Result<Token> {
    let text = if text == "-" {
        let mut text = String::new();
        // A token is far shorter.
        std::io::stdin().take(8192).read_to_string(&mut text).context("cannot read the token")?;
        text
    } else {
        text
    };
    Ok(text.parse::<Token>()?)
}

/// Beside this program, or in PATH. Where it is in neither, the place beside this program, into which its package puts it.
fn find_worker(configured: Option<&PathBuf>) -> PathBuf {
    let name = "headwater-worker";
    if let Some(path) = configured {
        return path.clone();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let in_path = || std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let mut places = beside.iter().cloned().chain(in_path().into_iter().map(|folder| folder.join(name)));
    places.find(|path| path.is_file()).or(beside).unwrap_or_else(|| PathBuf::from(name))
}

/// Every known error has its status; what is left is a bug or a broken system.
fn exit_of(error: &anyhow::Error) -> Exit {
    if let Some(error) = error.downcast_ref::<IdentityError>() {
        return identity_exit(error);
    }
    if let Some(error) = error.downcast_ref::<EnrollError>() {
        return match error {
            EnrollError::Identity(error) => identity_exit(error),
            EnrollError::Refused(_) | EnrollError::WrongCa { .. } | EnrollError::BadGrant(_) => {
                Exit::EnrolmentRefused
            }
            // It, or what stands before it, cannot answer now; that says nothing of the token.
            EnrollError::Answer { status, .. } => match *status {
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Exit::Internal,
                status if status.is_client_error() => Exit::EnrolmentRefused,
                _ => Exit::Internal,
            },
            EnrollError::Proxy(_)
            | EnrollError::Unreachable { .. }
            | EnrollError::Stranger { .. }
            | EnrollError::Crypto(_) => Exit::Internal,
        };
    }
    if let Some(error) = error.downcast_ref::<OwnerError>() {
        return match error {
            OwnerError::Look { .. } | OwnerError::Become { .. } | OwnerError::NotOurs(_) => Exit::StateDir,
        };
    }
    if let Some(error) = error.downcast_ref::<DaemonError>() {
        return match error {
            DaemonError::Outbox(_) => Exit::StateDir,
            DaemonError::Identity(_) | DaemonError::Https(_) => Exit::NotEnrolled,
            DaemonError::Signals(_) | DaemonError::Random(_) => Exit::Internal,
        };
    }
    if error.is::<config::ConfigError>() || error.is::<headwater_protocol::enroll::BadToken>() {
        return Exit::Usage;
    }
    Exit::Internal
}

fn identity_exit(error: &IdentityError) -> Exit {
    match error {
        IdentityError::Missing(_) => Exit::NotEnrolled,
        IdentityError::Exists(_) => Exit::Usage,
        IdentityError::File { .. } | IdentityError::Damaged { .. } => Exit::StateDir,
    }
}
