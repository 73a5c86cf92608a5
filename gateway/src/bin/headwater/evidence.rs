//! `evidence`: what failed attempts at a segment left behind.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use headwater_gateway::views::EvidenceView;

use crate::args::Evidence;
use crate::client::Gateway;
use crate::fleet::{FleetError, Style, print};
use crate::human;

pub(crate) async fn show(gateway: &Gateway, style: Style, args: &Evidence) -> Result<(), FleetError> {
    let found = gateway.evidence(&args.stream, args.segment).await?;
    if let Some(folder) = &args.graphs {
        write_graphs(folder, &found)?;
    }
    if style.json {
        return print(&serde_json::to_string_pretty(&found)?);
    }
    if found.is_empty() {
        let (stream, segment) = (&args.stream, args.segment);
        return print(&format!(
            "Nothing is kept of segment {segment} of {stream}: no attempt failed in its worker, or it was too long ago."
        ));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let texts: Vec<String> = found.iter().map(|view| text(view, now)).collect();
    print(&texts.join("\n\n"))
}

fn text(view: &EvidenceView, now: u64) -> String {
    let evidence = &view.evidence;
    let mut lines = vec![format!("attempt {} on {}, {}", view.epoch, view.node, human::ago(now, view.at.0))];
    if let Some(fault) = &evidence.fault {
        lines.push(human::tame(&fault.to_string()));
        lines.extend(block("detail", &fault.detail));
    }
    lines.extend(block("log", &evidence.log));
    lines.extend(block("output of the worker", &evidence.output));
    if !evidence.graphs.is_empty() {
        let chains: Vec<String> = evidence.graphs.iter().map(|graph| human::tame(&graph.chain)).collect();
        lines.push(format!("graphs: {} (--graphs DIR writes them)", chains.join(", ")));
    }
    lines.join("\n")
}

/// A title and the text's lines, each tamed: they come from a worker's libraries.
fn block(title: &str, text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let lines = text.trim_end().lines().map(|line| format!("  {}", human::tame(line)));
    std::iter::once(format!("{title}:")).chain(lines).collect()
}

fn write_graphs(folder: &Path, found: &[EvidenceView]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for view in found {
        for (number, graph) in view.evidence.graphs.iter().enumerate() {
            // A chain's name comes from a node; only what cannot leave the folder goes into a file's name.
            let chain: String = graph.chain.chars().filter(char::is_ascii_alphanumeric).collect();
            let name = format!("{}-{}-{number}-{chain}.dot", view.task, view.epoch);
            std::fs::write(folder.join(name), &graph.dot)?;
        }
    }
    Ok(())
}
