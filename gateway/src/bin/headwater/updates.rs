//! `headwater updates`: lists, tables and sentences of updates.

use comfy_table::{Attribute, Cell, Color, Table};
use headwater_gateway::operate::views::UpdateView;
use headwater_gateway::owner;
use headwater_gateway::rollout::{Progress, State};
use headwater_protocol::update::UpdateState;
use headwater_protocol::{Fault, NodeId};

use crate::args::{Steer, Updates};
use crate::client::Gateway;
use crate::fleet::{FleetError, Style, json, now_ms, print, show};
use crate::human;
use crate::tables::{Narrow, fitted, right, table};

const UPDATES: Narrow = Narrow { elastic: 5, spare: &[6, 1] };
const NODES: Narrow = Narrow { elastic: 3, spare: &[4, 1] };

pub(crate) async fn run(gateway: &Gateway, style: Style, args: &Updates) -> Result<(), FleetError> {
    if let Some(steer) = &args.steer {
        return self::steer(gateway, style, steer).await;
    }
    show(style, &args.watch, async || {
        if let Some(id) = &args.id {
            let view = gateway.update(id).await?;
            return if style.json { json(&view, &args.watch) } else { Ok(whole(&view, style.colored)) };
        }
        let all = gateway.updates().await?;
        if style.json {
            return json(&all, &args.watch);
        }
        if all.is_empty() {
            return Ok("No update yet. Begin with: headwater update SELECTOR BUNDLE --dry-run".to_owned());
        }
        Ok(list(&all, now_ms(), style.colored).to_string())
    })
    .await
}

async fn steer(gateway: &Gateway, style: Style, steer: &Steer) -> Result<(), FleetError> {
    let (id, action, says) = match steer {
        Steer::Pause { id } => (
            id,
            owner::Steer::Pause,
            "is paused; nodes that have their order go on. Resume it with: headwater updates resume",
        ),
        Steer::Resume { id } => (id, owner::Steer::Resume, "goes on. See: headwater updates"),
        Steer::Cancel { id } => (
            id,
            owner::Steer::Cancel,
            "is cancelled; nodes that have begun to install go on. See: headwater updates",
        ),
    };
    let view = gateway.steer(id, action).await?;
    match style.json {
        true => print(&serde_json::to_string_pretty(&view)?),
        false => print(&format!("The update {id} {says} {id}")),
    }
}

fn list(all: &[UpdateView], now: u64, colored: bool) -> Table {
    let mut table = table(&["update", "name", "version", "state", "wave", "nodes", "begun"], colored);
    for view in all {
        let update = &view.update;
        table.add_row(vec![
            Cell::new(&update.id).add_attribute(Attribute::Bold),
            Cell::new(human::tame(update.name.as_deref().unwrap_or("–"))),
            Cell::new(human::tame(&update.bundle.version)),
            Cell::new(update.head.state.as_str()).fg(state_color(&update.head.state)),
            right(wave(view)),
            Cell::new(counts(view)),
            Cell::new(human::ago(now, update.created.0)),
        ]);
    }
    fitted(table, &UPDATES)
}

fn state_color(state: &State) -> Color {
    match state {
        State::Running => Color::Cyan,
        State::Paused => Color::Yellow,
        State::Stopped { .. } => Color::Red,
        State::Done => Color::Green,
        State::Cancelled => Color::Grey,
    }
}

fn wave(view: &UpdateView) -> String {
    format!("{} of {}", view.update.head.wave + 1, view.update.plan.waves.len())
}

/// `12 done, 1 failed, 3 pending`
fn counts(view: &UpdateView) -> String {
    let counts = view.counts.iter().map(|(progress, count)| format!("{count} {progress}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// One line of how it goes.
pub(crate) fn line(view: &UpdateView, now: u64) -> String {
    let update = &view.update;
    let mut text = format!("wave {}: {}", wave(view), counts(view));
    if let Some(since) = update.head.soaking
        && let Some(wave) = update.plan.waves.get(update.head.wave)
    {
        let left = (since.0 + wave.soak.0).saturating_sub(now);
        text = format!("{text}; soaks {} more", human::span(std::time::Duration::from_millis(left)));
    }
    match &update.head.state {
        State::Paused => format!("{text}; paused"),
        State::Running | State::Stopped { .. } | State::Done | State::Cancelled => text,
    }
}

/// Who goes when, and who does not and why.
pub(crate) fn plan(view: &UpdateView) -> String {
    let update = &view.update;
    let bundle = &update.bundle;
    let mut lines = vec![format!(
        "{} for {}, {}",
        human::tame(&bundle.version),
        human::tame(&bundle.compatible),
        human::bytes(bundle.bytes)
    )];
    for (index, wave) in update.plan.waves.iter().enumerate() {
        let nodes = view.nodes.iter().filter(|entry| entry.member.wave == index);
        let nodes = nodes.filter(|entry| !matches!(entry.member.progress, Progress::Skipped { .. }));
        let names: Vec<&str> = nodes.map(|entry| entry.node.as_str()).collect();
        let soak = match wave.soak.0 {
            0 => String::new(),
            soak => format!(", then {}", human::validity(std::time::Duration::from_millis(soak))),
        };
        let who = if names.is_empty() { "nobody".to_owned() } else { names.join(" ") };
        lines.push(format!("wave {} ({}{soak}): {who}", index + 1, wave.upto));
    }
    if let Some(window) = update.plan.window {
        lines.push(format!("installed only {}", human::window(window)));
    }
    for entry in &view.nodes {
        if let Progress::Skipped { reason } = &entry.member.progress {
            lines.push(format!("skipped {}: {}", entry.node, human::tame(reason)));
        }
    }
    lines.join("\n")
}

/// How it ended, for who followed it.
pub(crate) fn ending(view: &UpdateView) -> String {
    let id = &view.update.id;
    match &view.update.head.state {
        State::Stopped { reason } => format!(
            "The update {id} stopped: {}.\nSee headwater updates {id}; then headwater updates resume {id}, or cancel.",
            human::tame(reason)
        ),
        State::Done | State::Cancelled | State::Running | State::Paused => {
            format!("The update {id} is {}: {}", view.update.head.state.as_str(), counts(view))
        }
    }
}

/// `orin-1 rolled back: unhealthy: …`
pub(crate) fn sentence(node: &NodeId, progress: &Progress) -> String {
    match remark(progress) {
        text if text.is_empty() => format!("{node} {}", progress.as_str()),
        text => format!("{node} {}: {text}", progress.as_str()),
    }
}

fn remark(progress: &Progress) -> String {
    let fault = |fault: &Fault| human::tame(&fault.to_string());
    match progress {
        Progress::Skipped { reason } => human::tame(reason),
        Progress::Silent => "it began to install and was not heard of again; look at it".to_owned(),
        Progress::Node { state } => match state {
            UpdateState::Fetching { bytes } => human::bytes(*bytes),
            UpdateState::Installing { percent } => format!("{percent}%"),
            UpdateState::RolledBack { fault: why } | UpdateState::Failed { fault: why } => fault(why),
            UpdateState::Waiting => "for its window, or for attempts that still run".to_owned(),
            UpdateState::Restarting | UpdateState::Verifying | UpdateState::Done => String::new(),
        },
        Progress::Pending | Progress::Ordered | Progress::Recalled => String::new(),
    }
}

fn whole(view: &UpdateView, colored: bool) -> String {
    let update = &view.update;
    let name = update.name.as_deref().map_or_else(String::new, |name| format!(" {}", human::tame(name)));
    let mut lines = vec![
        format!(
            "update {}{name} · {} · {} to {}",
            update.id,
            update.head.state.as_str(),
            human::tame(&update.bundle.version),
            human::tame(&update.selector)
        ),
        line(view, now_ms()),
    ];
    if let State::Stopped { reason } = &update.head.state {
        lines.push(human::tame(reason));
    }
    lines.push(nodes(view, now_ms(), colored).to_string());
    lines.join("\n")
}

fn nodes(view: &UpdateView, now: u64, colored: bool) -> Table {
    let mut table = table(&["node", "wave", "state", "remark", "since"], colored);
    let mut rows: Vec<_> = view.nodes.iter().collect();
    rows.sort_by_key(|entry| (matches!(entry.member.progress, Progress::Skipped { .. }), entry.member.wave));
    for entry in rows {
        let progress = &entry.member.progress;
        let skipped = matches!(progress, Progress::Skipped { .. });
        let color = match () {
            () if progress.is_failure() => Color::Red,
            () if progress.is_done() => Color::Green,
            () if progress.is_changing() || progress.has_not_begun() => Color::Cyan,
            () => Color::Grey,
        };
        table.add_row(vec![
            Cell::new(&entry.node).add_attribute(Attribute::Bold),
            right(if skipped { "–".to_owned() } else { (entry.member.wave + 1).to_string() }),
            Cell::new(progress.as_str()).fg(color),
            Cell::new(remark(progress)),
            Cell::new(human::ago(now, entry.member.since.0)),
        ]);
    }
    fitted(table, &NODES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(state: serde_json::Value) -> UpdateView {
        let node = |name: &str, wave: usize, progress: serde_json::Value| json!({"node": name, "wave": wave, "progress": progress, "order": "u", "since": 1000});
        let fault = json!({"code": "unhealthy", "text": "the probe did not\u{1b}[2J pass"});
        serde_json::from_value(json!({
            "id": "20261124-9f3c2b1a", "name": "autumn", "selector": "all",
            "bundle": {"kind": "rauc", "compatible": "board-x", "version": "0.2.0", "bytes": 5_000_000, "sha256": "",
                "path": "/v1/bundles/x"},
            "plan": {"waves": [{"upto": "1", "soak": 1_800_000}, {"upto": "100%", "soak": 0}], "stop_after": "1",
                "window": {"from": 120, "until": 300}, "health": 600_000},
            "created": 0, "head": {"state": state, "wave": 0, "soaking": null, "forgiven": 0, "round": 0},
            "counts": {"rolled back": 1, "pending": 1, "skipped": 1},
            "nodes": [
                node("orin-1", 0, json!({"kind": "node", "state": {"kind": "rolled_back", "fault": fault}})),
                node("orin-2", 1, json!({"kind": "pending"})),
                node("pi-1", 0, json!({"kind": "skipped", "reason": "it runs 0.2.0 already"})),
            ]
        }))
        .unwrap()
    }

    #[test]
    fn a_plan_says_who_goes_when_and_who_does_not() {
        let text = plan(&view(json!({"kind": "running"})));
        assert_eq!(
            text,
            "0.2.0 for board-x, 5.00 MB\nwave 1 (1, then 30 min): orin-1\nwave 2 (100%): orin-2\n\
             installed only 02:00-05:00 UTC\nskipped pi-1: it runs 0.2.0 already"
        );
    }

    #[test]
    fn a_stopped_update_says_why_and_what_to_do() {
        let view = view(json!({"kind": "stopped", "reason": "1 of 2 nodes failed: orin-1 rolled back"}));
        let text = ending(&view);
        assert!(
            text.contains("stopped: 1 of 2 nodes failed") && text.contains("resume 20261124-9f3c2b1a"),
            "{text}"
        );
        let text = whole(&view, false);
        assert!(text.contains("unhealthy: the probe did not") && !text.contains('\x1b'), "{text}");
        assert!(text.contains("wave 1 of 2: 1 pending, 1 rolled back, 1 skipped"), "{text}");
        let listed = list(&[view], 61_000, false).to_string();
        assert!(listed.contains("stopped") && listed.contains("autumn"), "{listed}");
    }
}
