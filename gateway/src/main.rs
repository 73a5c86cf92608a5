//! `headwater-gateway`: reads its configuration, runs until SIGTERM, says with its exit code how it ended.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | stopped on request, every waiting push answered |
//! | 1 | could not start or go on for a reason that may pass: a port in use, no mosquitto, a full disk |
//! | 2 | the command line, the configuration or the state folder is unusable: starting again does not help |

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use headwater_gateway::config::{Config, LogFormat};
use headwater_gateway::daemon;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Takes video over HTTP, hands it to the fleet, returns renditions.
#[derive(Debug, Parser)]
#[command(name = "headwater-gateway", version)]
struct Args {
    /// Configuration, TOML; without one every key has its default.
    #[arg(long, global = true, value_name = "FILE", env = "HEADWATER_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// In the place of the configuration's state_dir.
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Run the gateway (also without a command).
    Run,
    /// Read and check the configuration, then exit.
    Check,
    /// Print a completion script for a shell.
    Completions { shell: Shell },
    /// Print the manual page, or write one page per command into a folder.
    Man {
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.command {
        None | Some(Command::Run) => serve(&args),
        Some(Command::Check) => load(&args).map_or_else(|error| fail(&error, 2), |_| ExitCode::SUCCESS),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(
                *shell,
                &mut Args::command(),
                "headwater-gateway",
                &mut std::io::stdout(),
            );
            ExitCode::SUCCESS
        }
        Some(Command::Man { dir }) => {
            manual(dir.as_deref()).map_or_else(|error| fail(&error.into(), 1), |()| ExitCode::SUCCESS)
        }
    }
}

fn manual(folder: Option<&Path>) -> std::io::Result<()> {
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(Args::command(), folder)
        }
        None => clap_mangen::Man::new(Args::command()).render(&mut std::io::stdout()),
    }
}

fn serve(args: &Args) -> ExitCode {
    let config = match load(args) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    if let Err(error) = log(&config) {
        return fail(&error, 2);
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.downcast_ref::<daemon::StartError>().map_or(1, daemon::StartError::exit_code);
            fail(&error, code)
        }
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("headwater-gateway: {}", headwater_protocol::error::in_one_line(error.as_ref()));
    ExitCode::from(code)
}

fn load(args: &Args) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    if let Some(dir) = &args.state_dir {
        config.state_dir.clone_from(dir);
    }
    // Folders are named to other programs, which have their own working folder.
    config.state_dir = std::path::absolute(&config.state_dir).context("state_dir")?;
    config.check()?;
    Ok(config)
}

fn log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.level).context("log.level")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        told.cancel();
    });
    Ok(daemon::run(config, stop).await?)
}
