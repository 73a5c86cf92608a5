//! The operator's command.
//!
//! ```text
//! args ─▶ main ─┬─▶ fleet (nodes, streams, enroll), evidence ────────┬─▶ client ─▶ gateway
//!               ├─▶ update, updates ─────────────────────────────────┤
//!               ├─▶ operate (drain, restart, logs, …, bundle), config ┤
//!               ├─▶ push ─▶ source ─▶ split ─▶ sender ─▶ folder ─────┘
//!               └─▶ completions, man
//! ```

mod args;
mod client;
mod config;
mod container;
mod evidence;
mod fleet;
mod folder;
mod human;
mod ladder;
mod multipart;
mod operate;
mod playlist;
mod progress;
mod push;
mod sender;
mod source;
mod split;
mod summary;
mod tables;
mod update;
mod updates;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use headwater_gateway::views::NodeCommand;

use crate::args::{Cli, Color, Command, Global, Nodes, Push};
use crate::client::{ClientError, Gateway};
use crate::fleet::{FleetError, Style};
use crate::operate::OperateError;
use crate::push::PushError;
use crate::sender::SendError;
use crate::update::UpdateError;

/// The numbers are in `headwater --help`.
const INCOMPLETE: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("headwater: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(cli));
    // A read of standard input cannot be interrupted; it must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("headwater: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { global, command } = cli;
    let style = Style { json: global.json, colored: colored(global.color) };
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "headwater", &mut std::io::stdout());
        }
        Command::Man { dir } => man(dir.as_deref())?,
        Command::Push(args) => return push(&gateway(global)?, style, &args).await,
        Command::Nodes(watch) => fleet::nodes(&gateway(global)?, style, &watch).await?,
        Command::Streams(args) => fleet::streams(&gateway(global)?, style, &args).await?,
        Command::Evidence(args) => evidence::show(&gateway(global)?, style, &args).await?,
        Command::Enroll(args) => fleet::enroll(&gateway(global)?, style, &args).await?,
        Command::Update(args) => {
            let terminal = std::io::stderr().is_terminal();
            return whole(update::run(&gateway(global)?, style, terminal, &args).await?);
        }
        Command::Updates(args) => updates::run(&gateway(global)?, style, &args).await?,
        Command::Bundle(args) => operate::bundle(style, &args)?,
        Command::Drain(nodes) => return ask(global, style, &nodes, NodeCommand::Drain).await,
        Command::Resume(nodes) => return ask(global, style, &nodes, NodeCommand::Resume).await,
        Command::Restart(nodes) => return ask(global, style, &nodes, NodeCommand::Restart).await,
        Command::Reboot(nodes) => return ask(global, style, &nodes, NodeCommand::Reboot).await,
        Command::Probe(nodes) => return ask(global, style, &nodes, NodeCommand::Probe).await,
        Command::Logs(args) => operate::logs(&gateway(global)?, &args).await?,
        Command::Config(args) => return whole(config::run(&gateway(global)?, style, &args).await?),
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(global: Global, style: Style, nodes: &Nodes, wish: NodeCommand) -> anyhow::Result<ExitCode> {
    whole(operate::command(&gateway(global)?, style, &nodes.selector, wish).await?)
}

/// Whether all of it went well, as a status.
fn whole(all: bool) -> anyhow::Result<ExitCode> {
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

fn gateway(global: Global) -> Result<Gateway, ClientError> {
    Gateway::new(global.gateway, global.token_file)
}

async fn push(gateway: &Gateway, style: Style, args: &Push) -> anyhow::Result<ExitCode> {
    let quiet = args.quiet || style.json;
    let summary = push::run(gateway, args, quiet).await?;
    if style.json {
        fleet::print(&serde_json::to_string_pretty(&summary)?)?;
    } else {
        fleet::print(&format!("{}\n{}", tables::push(&summary, style.colored), summary.totals()))?;
        if let Some(playlist) = &summary.playlist {
            fleet::print(&format!("playlist {}", playlist.display()))?;
        }
    }
    if summary.whole {
        return Ok(ExitCode::SUCCESS);
    }
    for problem in if quiet { &summary.problems } else { &summary.news } {
        eprintln!("headwater: {problem}");
    }
    eprintln!("headwater: not every rendition of every segment arrived whole");
    Ok(ExitCode::from(INCOMPLETE))
}

fn man(dir: Option<&Path>) -> std::io::Result<()> {
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(Cli::command(), dir)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            std::io::stdout().write_all(&page)
        }
    }
}

fn colored(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let client = |error: &ClientError| match error {
        ClientError::NoGateway { .. } => 4,
        ClientError::Silent { .. }
        | ClientError::Connection { .. }
        | ClientError::Refused { .. }
        | ClientError::Strange { .. }
        | ClientError::Token { .. }
        | ClientError::BadToken { .. }
        | ClientError::InTheClear { .. }
        | ClientError::Setup(_) => 1,
    };
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return client(error);
    }
    if let Some(FleetError::Client(error)) = error.downcast_ref::<FleetError>() {
        return client(error);
    }
    match error.downcast_ref::<OperateError>() {
        Some(OperateError::Client(error) | OperateError::Fleet(FleetError::Client(error))) => {
            return client(error);
        }
        Some(OperateError::Bundle { .. }) => return 5,
        Some(
            OperateError::Fleet(_)
            | OperateError::Nobody(_)
            | OperateError::Write { .. }
            | OperateError::Make(_),
        )
        | None => {}
    }
    match error.downcast_ref::<UpdateError>() {
        Some(UpdateError::Client(error) | UpdateError::Fleet(FleetError::Client(error))) => {
            return client(error);
        }
        Some(UpdateError::Bundle { .. }) => return 5,
        Some(UpdateError::Soaks { .. }) => return 2,
        Some(UpdateError::Interrupted(_)) => return 130,
        Some(UpdateError::Fleet(_) | UpdateError::Changed { .. }) | None => {}
    }
    match error.downcast_ref::<PushError>() {
        Some(PushError::Ladder(_)) => 2,
        Some(PushError::Client(error) | PushError::Send(SendError::Client(error))) => client(error),
        Some(PushError::Source(_) | PushError::Split(split::SplitError::Input(_)) | PushError::Nothing) => 5,
        Some(PushError::Interrupted) => 130,
        Some(PushError::Split(_) | PushError::Folder(_) | PushError::Send(_) | PushError::Signals(_))
        | None => 1,
    }
}
