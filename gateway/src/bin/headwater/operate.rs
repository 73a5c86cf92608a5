//! Commands to the nodes of a selector, and logs.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, stream};
use headwater_gateway::bundle::{self, BundleError, MakeError};
use headwater_gateway::views::NodeCommand;
use headwater_protocol::NodeId;
use headwater_protocol::update::BundleKind;
use serde_json::{Value, json};

use crate::args::{Bundle, Logs, ShowBundle};
use crate::client::{ClientError, Gateway};
use crate::fleet::{FleetError, Style, print};
use crate::human;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OperateError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error("no node matches {0:?}; headwater nodes shows what there is")]
    Nobody(String),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Bundle { path: PathBuf, source: BundleError },
    #[error(transparent)]
    Make(#[from] MakeError),
}

/// Nodes that are asked at once: one that is away takes 10 s.
pub(crate) const AT_ONCE: usize = 32;

/// The nodes of a selector; at least one.
pub(crate) async fn select(gateway: &Gateway, selector: &str) -> Result<Vec<NodeId>, OperateError> {
    let nodes: Vec<NodeId> = gateway.select(selector).await?.into_iter().map(|view| view.node).collect();
    if nodes.is_empty() { Err(OperateError::Nobody(selector.to_owned())) } else { Ok(nodes) }
}

/// True where each node did it.
pub(crate) async fn command(
    gateway: &Gateway,
    style: Style,
    selector: &str,
    command: NodeCommand,
) -> Result<bool, OperateError> {
    let nodes = select(gateway, selector).await?;
    let one = nodes.len() == 1;
    if command == NodeCommand::Probe && std::io::stderr().is_terminal() {
        eprintln!("probing; a small board takes a minute or more");
    }
    let ask = async |node: NodeId| {
        let answer = gateway.command(&node, command).await;
        (node, answer)
    };
    let mut answers = stream::iter(nodes).map(ask).buffered(AT_ONCE);
    let mut all = true;
    while let Some((node, answer)) = answers.next().await {
        match answer {
            Ok(()) if style.json => print(&json!({ "node": node, "command": command }).to_string())?,
            Ok(()) => print(&format!("{node} {}", says(command)))?,
            // One node's reason is the reason of all.
            Err(error) if one => return Err(error.into()),
            Err(error @ ClientError::Refused { .. }) => {
                all = false;
                complain(style, &node, json!({ "node": node, "command": command }), &error)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

/// One of many nodes that did not do it; the others are asked all the same. `asked` is what its line as JSON begins with.
pub(crate) fn complain(
    style: Style,
    node: &NodeId,
    mut asked: Value,
    error: &ClientError,
) -> Result<(), FleetError> {
    if style.json {
        asked["error"] = error.to_string().into();
        return print(&asked.to_string());
    }
    eprintln!("headwater: {node}: {error}");
    Ok(())
}

fn says(command: NodeCommand) -> &'static str {
    match command {
        NodeCommand::Drain => "finishes what it has and takes nothing new until it is resumed",
        NodeCommand::Resume => "takes work again",
        NodeCommand::Restart => "restarts when it has drained",
        NodeCommand::Reboot => "boots anew when it has drained",
        NodeCommand::Probe => "has probed its board again",
    }
}

pub(crate) async fn logs(gateway: &Gateway, args: &Logs) -> Result<(), OperateError> {
    let mut response = gateway.logs(&args.node, args.bytes).await?;
    let mut chunk = async || response.chunk().await.map_err(|error| gateway.explain(&error));
    let Some(path) = &args.output else {
        while let Some(bytes) = chunk().await? {
            // A log is another machine's text; only its line ends and tabs reach this terminal as they are.
            let text: String = String::from_utf8_lossy(&bytes).chars().map(harmless).collect();
            match std::io::stdout().write_all(text.as_bytes()) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                result => result.map_err(FleetError::Output)?,
            }
        }
        return Ok(());
    };
    let cannot = |source| OperateError::Write { path: path.clone(), source };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    // All of it or nothing.
    let mut file = tempfile_in(folder).map_err(cannot)?;
    let mut bytes = 0;
    while let Some(piece) = chunk().await? {
        bytes += piece.len() as u64;
        file.0.write_all(&piece).map_err(cannot)?;
    }
    std::fs::rename(&file.1, path).map_err(cannot)?;
    print(&format!("{} of the log of {} are in {}", human::bytes(bytes), args.node, path.display()))?;
    Ok(())
}

/// A file that is removed unless it was renamed.
struct Part(std::fs::File, PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // It has its name by now, or goes.
        let _ = std::fs::remove_file(&self.1);
    }
}

fn tempfile_in(folder: &Path) -> std::io::Result<Part> {
    let path = folder.join(format!(".headwater-log-{}", std::process::id()));
    Ok(Part(std::fs::File::create(&path)?, path))
}

fn harmless(c: char) -> char {
    if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }
}

pub(crate) fn bundle(style: Style, args: &Bundle) -> Result<(), OperateError> {
    if let Some(ShowBundle::Show { file }) = &args.show {
        let about =
            bundle::read(file).map_err(|source| OperateError::Bundle { path: file.clone(), source })?;
        if style.json {
            return Ok(print(&serde_json::to_string_pretty(&about).map_err(FleetError::Json)?)?);
        }
        let kind = match about.kind {
            BundleKind::Rauc => "an image",
            BundleKind::Deb => "packages",
        };
        let mut lines =
            vec![format!("{kind}, {} for {}", human::tame(&about.version), human::tame(&about.compatible))];
        if !about.description.is_empty() {
            lines.push(human::tame(&about.description));
        }
        lines.extend(
            about.packages.iter().map(|p| format!("{} {}", human::tame(&p.package), human::tame(&p.version))),
        );
        lines
            .extend(about.signers.iter().map(|name| format!("claims to be signed by {}", human::tame(name))));
        return Ok(print(&lines.join("\n"))?);
    }
    // Clap wants all three where nothing is shown.
    let (Some(key), Some(cert), Some(output)) = (&args.key, &args.cert, &args.output) else { return Ok(()) };
    let made = bundle::make(&args.debs, key, cert, output)?;
    if style.json {
        return Ok(print(&serde_json::to_string_pretty(&made).map_err(FleetError::Json)?)?);
    }
    print(&format!("{}: {} for {}", output.display(), made.version, made.architecture))?;
    if made.packages.iter().any(|package| package.package == "headwater-gateway") {
        eprintln!(
            "Boards install all that is in a bundle: each that takes this one gets a gateway, and its broker."
        );
    }
    Ok(())
}
