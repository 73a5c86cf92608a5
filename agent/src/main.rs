//! Headwater's agent: takes work over MQTT, fetches and puts media over HTTPS, drives the worker.
//!
//! ```text
//!             admission ◀─ node ─▶ actions            pure
//!                  ▲         ▲
//!  mqtt ──────────▶ daemon (owner of the state) ◀──── outbox ── disk
//!                     │
//!                     └─▶ lane, one per stream ──▶ worker ── headwater-worker
//!                              └────────────────▶ media ─── gateway
//! ```

mod admission;
mod board;
mod clock;
mod config;
mod daemon;
mod enroll;
mod exit;
mod files;
mod identity;
mod lane;
mod logging;
mod manual;
mod media;
mod mqtt;
mod node;
mod outbox;
mod owner;
mod probe;
mod quarantine;
mod spare;
mod worker;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use headwater_protocol::enroll::Token;

use config::{Config, LogFormat, LogLevel};
use daemon::DaemonError;
use enroll::EnrollError;
use exit::Exit;
use identity::{Identity, IdentityError};
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
    /// Configuration; without it /etc/headwater/agent.toml, where a missing file means defaults
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

fn start(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command.unwrap_or(Verb::Run) {
        Verb::Run => {
            let config = configure(cli.common)?;
            owner::become_owner(&config.state_dir)?;
            let identity = Identity::load(&config.state_dir)?;
            let worker = find_worker(config.worker.as_ref());
            Ok(wait_for(daemon::run(config, identity, worker))??)
        }
        Verb::Enroll { token, force } => {
            let config = configure(cli.common)?;
            let token = read_token(token)?;
            owner::become_owner(&config.state_dir)?;
            let node = wait_for(enroll::enroll(&token, &config.state_dir, force))??;
            println!("enrolled: node {} of fleet {}, gateway {}", node.node, node.fleet, node.gateway_url);
            Ok(Exit::Ok)
        }
        Verb::Completions { shell } => {
            manual::completions(Cli::command(), shell);
            Ok(Exit::Ok)
        }
        Verb::Man { dir } => {
            manual::pages(Cli::command(), dir.as_deref()).context("cannot write the manual")?;
            Ok(Exit::Ok)
        }
    }
}

/// The file, and what the command line says in its place; starts the log.
fn configure(common: Common) -> anyhow::Result<Config> {
    let Common { config, state_dir, worker, log_format, log_level } = common;
    let mut config = Config::load(config.as_deref())?;
    config.state_dir = state_dir.unwrap_or(config.state_dir);
    config.worker = worker.or(config.worker);
    config.log.format = log_format.unwrap_or(config.log.format);
    config.log.level = log_level.unwrap_or(config.log.level);
    logging::start(&config.log);
    Ok(config)
}

fn wait_for<F: Future>(work: F) -> anyhow::Result<F::Output> {
    // One thread: everything here waits for something else.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(work);
    // A look-up of a name may still hang in its thread; the process does not wait for it.
    runtime.shutdown_background();
    Ok(result)
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

/// Beside this program; otherwise by name, which the system looks up in PATH.
fn find_worker(configured: Option<&PathBuf>) -> PathBuf {
    let name = "headwater-worker";
    if let Some(path) = configured {
        return path.clone();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let in_path = || std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let found = beside.into_iter().chain(in_path().into_iter().map(|folder| folder.join(name)));
    found.into_iter().find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
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
            EnrollError::Answer { .. } => Exit::EnrolmentRefused,
            EnrollError::Unreachable { .. } | EnrollError::Crypto(_) => Exit::Internal,
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
