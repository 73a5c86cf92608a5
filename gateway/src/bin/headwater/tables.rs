//! Tables for people. Rows are made from views alone, so they can be tested as text.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle,
};
use headwater_gateway::views::{NodeView, SegmentState, SegmentView, StreamView};
use headwater_protocol::media::{Capability, CapabilityKind};
use headwater_protocol::message::NodeState;
use headwater_protocol::update::{UpdateState, UpdateStatus};
use headwater_protocol::{Codec, NodeId};

use crate::human;
use crate::summary::{Row, Summary, percentile};

/// Placeholder for what is not known.
const NONE: &str = "–";

/// One line under the header: rows stay close, and copy well.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

pub(crate) fn table(header: &[&str], colored: bool) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    if colored {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Dim)));
    // One space besides the style's own: what fits into 80 columns is not broken up.
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    if let Some(last) = table.column_iter_mut().last() {
        last.set_padding((0, 0));
    }
    table
}

/// How a table gives way to a narrow terminal.
pub(crate) struct Narrow {
    /// The one column whose text may be broken into lines; numbers and names stay whole.
    pub(crate) elastic: usize,
    /// Left out one after the other until the rest fits, the least wanted first.
    pub(crate) spare: &'static [usize],
}

const NODES: Narrow = Narrow { elastic: 0, spare: &[4, 2, 10, 5, 3] };
const STREAMS: Narrow = Narrow { elastic: 0, spare: &[9, 7, 3] };
const SEGMENTS: Narrow = Narrow { elastic: 10, spare: &[3, 8, 9, 7, 2] };
const PUSH: Narrow = Narrow { elastic: 7, spare: &[5] };

/// What the elastic column keeps before others are left out for it.
const ELASTIC: u16 = 20;
/// Between two columns.
const GAP: u16 = 2;

/// To the terminal, where there is one: asked anew, because a table without colours knows of none.
pub(crate) fn fitted(mut table: Table, narrow: &Narrow) -> Table {
    fit(&mut table, Table::new().width(), narrow);
    table
}

fn fit(table: &mut Table, width: Option<u16>, narrow: &Narrow) {
    let Some(width) = width else { return };
    let mut widths = table.column_max_content_widths();
    if let Some(elastic) = widths.get_mut(narrow.elastic) {
        *elastic = ELASTIC.min(*elastic);
    }
    let mut total = widths.iter().map(|width| width + GAP).sum::<u16>().saturating_sub(GAP);
    for spare in narrow.spare {
        if total <= width {
            break;
        }
        if let (Some(column), Some(gone)) = (table.column_mut(*spare), widths.get(*spare)) {
            column.set_constraint(ColumnConstraint::Hidden);
            total -= gone + GAP;
        }
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if index != narrow.elastic && !column.is_hidden() {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.set_width(width);
}

pub(crate) fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

pub(crate) fn or_none<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), text)
}

pub(crate) fn nodes(nodes: &[NodeView], now_ms: u64, colored: bool) -> Table {
    let header =
        ["node", "state", "board", "load", "temp", "can", "running", "done", "failed", "update", "last seen"];
    let mut table = table(&header, colored);
    for view in nodes {
        let NodeView {
            node,
            state,
            last_seen,
            birth,
            telemetry,
            update,
            running,
            done,
            failed,
            resting_until,
        } = view;
        let resting = resting_until.is_some_and(|until| until.0 > now_ms);
        let (word, color) = match state {
            NodeState::Online if resting => ("resting", Color::Yellow),
            NodeState::Online => ("online", Color::Green),
            NodeState::Draining => ("draining", Color::Yellow),
            NodeState::Offline => ("offline", Color::Red),
        };
        let cpus = birth.as_ref().map(|birth| birth.board.cpus);
        let load = or_none(telemetry.as_ref(), |t| match cpus {
            Some(cpus) => format!("{:.2}/{cpus}", t.load),
            None => format!("{:.2}", t.load),
        });
        let limit = birth.as_ref().map_or(0, |birth| birth.limits.workers);
        let streams: std::collections::BTreeSet<_> = running.iter().map(|attempt| &attempt.stream).collect();
        let busy = match running.len() {
            0 => format!("0 of {limit}"),
            attempts => format!("{} of {limit}, {}", streams.len(), human::count(attempts, "segment")),
        };
        table.add_row(vec![
            Cell::new(node).add_attribute(Attribute::Bold),
            Cell::new(word).fg(color),
            Cell::new(or_none(birth.as_ref(), |birth| {
                let board = &birth.board;
                human::tame(if board.model.is_empty() { &board.profile } else { &board.model })
            })),
            right(load),
            right(or_none(telemetry.as_ref().and_then(|t| t.temperature_c), |c| format!("{c:.0} °C"))),
            Cell::new(or_none(birth.as_ref(), |birth| capabilities(&birth.capabilities))),
            Cell::new(busy),
            right(done),
            if *failed > 0 { right(failed).fg(Color::Red) } else { right(failed) },
            update.as_ref().map_or_else(|| Cell::new(NONE), newest_update),
            Cell::new(human::ago(now_ms, last_seen.0)),
        ]);
    }
    fitted(table, &NODES)
}

/// `0.2.0 installing 40%`
fn newest_update(status: &UpdateStatus) -> Cell {
    let (percent, color) = match &status.state {
        UpdateState::Installing { percent } => (format!(" {percent}%"), Color::Cyan),
        UpdateState::Fetching { .. }
        | UpdateState::Waiting
        | UpdateState::Restarting
        | UpdateState::Verifying => (String::new(), Color::Cyan),
        UpdateState::Done => (String::new(), Color::Green),
        UpdateState::RolledBack { .. } | UpdateState::Failed { .. } => (String::new(), Color::Red),
    };
    let text = format!("{} {}{percent}", human::tame(&status.version), status.state.as_str());
    Cell::new(text.trim_start()).fg(color)
}

/// A line for each device that a node does not use any more.
pub(crate) fn avoided(nodes: &[NodeView]) -> Vec<String> {
    let births = nodes.iter().filter_map(|view| Some((&view.node, view.birth.as_ref()?)));
    let lines = births.flat_map(|(node, birth)| {
        birth.avoids.iter().map(move |avoid| {
            let (element, reason) = (human::tame(&avoid.element), human::tame(&avoid.reason));
            format!("{node} does without {element} until it boots again: {reason}")
        })
    });
    lines.collect()
}

/// `h264 → h264 hevc`: what it reads and what it makes, hardware or not.
fn capabilities(capabilities: &[Capability]) -> String {
    let codecs = |kind: CapabilityKind| {
        let mut names: Vec<&str> =
            capabilities.iter().filter(|c| c.kind == kind).filter_map(|c| c.codec.map(codec)).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
    };
    format!("{} → {}", codecs(CapabilityKind::Decode), codecs(CapabilityKind::Encode))
}

pub(crate) fn codec(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264",
        Codec::Hevc => "hevc",
        Codec::Av1 => "av1",
        Codec::Vp9 => "vp9",
        Codec::Vp8 => "vp8",
        Codec::Jpeg => "jpeg",
        Codec::Fwht => "fwht",
    }
}

pub(crate) fn streams(streams: &[StreamView], now_ms: u64, colored: bool) -> Table {
    let header = [
        "stream",
        "state",
        "node",
        "ladder",
        "segments",
        "failed",
        "delay p50",
        "p95",
        "real time",
        "started",
    ];
    let mut table = table(&header, colored);
    for view in streams {
        let (p50, p95) = delays(&view.segments);
        let ladder: Vec<&str> = view.ladder.iter().map(|name| name.as_str()).collect();
        table.add_row(vec![
            Cell::new(&view.stream).add_attribute(Attribute::Bold),
            if view.live { Cell::new("live").fg(Color::Green) } else { Cell::new("ended") },
            Cell::new(or_none(view.node.as_ref(), NodeId::to_string)),
            Cell::new(ladder.join(" ")),
            right(view.segments_total),
            if view.segments_failed > 0 {
                right(view.segments_failed).fg(Color::Red)
            } else {
                right(view.segments_failed)
            },
            right(or_none(p50, human::ms)),
            right(or_none(p95, human::ms)),
            right(or_none(real_time(&view.segments), |factor| format!("{factor:.2} x"))),
            Cell::new(human::ago(now_ms, view.started.0)),
        ]);
    }
    fitted(table, &STREAMS)
}

pub(crate) fn segments(view: &StreamView, colored: bool) -> Table {
    let header = [
        "segment",
        "state",
        "length",
        "in",
        "delay",
        "node",
        "tries",
        "real time",
        "frames",
        "out",
        "remark",
    ];
    let mut table = table(&header, colored);
    for segment in &view.segments {
        let (word, color) = match segment.state {
            SegmentState::Waiting => ("waiting", Color::Grey),
            SegmentState::Running => ("running", Color::Cyan),
            SegmentState::Done => ("done", Color::Green),
            SegmentState::Failed => ("failed", Color::Red),
        };
        let report = segment.report.as_ref();
        table.add_row(vec![
            right(segment.segment),
            Cell::new(word).fg(color),
            right(human::ms(segment.duration.0)),
            right(human::bytes(segment.bytes)),
            right(or_none(segment.delay_ms, human::ms)),
            Cell::new(or_none(segment.node.as_ref(), NodeId::to_string)),
            right(segment.attempts),
            right(or_none(real_time(std::slice::from_ref(segment)), |factor| format!("{factor:.2} x"))),
            right(or_none(report.and_then(|r| r.input.video.as_ref()), |video| video.decoded.to_string())),
            right(or_none(report, |r| human::bytes(r.renditions.iter().map(|r| r.bytes).sum()))),
            Cell::new(segment.fault.as_ref().map_or_else(String::new, |fault| human::tame(&fault.text))),
        ]);
    }
    fitted(table, &SEGMENTS)
}

pub(crate) fn push(summary: &Summary, colored: bool) -> Table {
    let header = ["rendition", "size", "fps", "frames", "bitrate", "bytes", "real time", "node"];
    let mut table = table(&header, colored);
    for row in &summary.renditions {
        let Row { name, bytes, bitrate, width, height, frames, fps, real_time_factor, nodes, .. } = row;
        let nodes: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
        table.add_row(vec![
            Cell::new(name).add_attribute(Attribute::Bold),
            right(or_none(width.zip(*height), |(width, height)| format!("{width}x{height}"))),
            right(or_none(*fps, human::rate)),
            right(or_none(*frames, |frames| frames.to_string())),
            right(human::bitrate(*bitrate as f64)),
            right(human::bytes(*bytes)),
            right(or_none(*real_time_factor, |factor| format!("{factor:.2} x"))),
            Cell::new(if nodes.is_empty() { NONE.to_owned() } else { nodes.join(", ") }),
        ]);
    }
    fitted(table, &PUSH)
}

/// Median and 95th percentile of the known delays.
pub(crate) fn delays(segments: &[SegmentView]) -> (Option<u64>, Option<u64>) {
    let mut delays: Vec<u64> = segments.iter().filter_map(|segment| segment.delay_ms).collect();
    delays.sort_unstable();
    (percentile(&delays, 50), percentile(&delays, 95))
}

/// Media time by the workers' time.
pub(crate) fn real_time(segments: &[SegmentView]) -> Option<f64> {
    let done = segments.iter().filter_map(|s| s.report.as_ref().map(|r| (s.duration.0, r.wall_us)));
    let (media_ms, wall_us) = done.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    (wall_us > 0).then(|| media_ms as f64 * 1e3 / wall_us as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_that_never_reported_has_a_row_too() {
        let view: Vec<NodeView> = serde_json::from_value(json!([
            {"node": "orin-1", "state": "offline", "last_seen": 1000, "running": [], "done": 3, "failed": 1}
        ]))
        .unwrap();
        let text = nodes(&view, 61_000, false).to_string();
        assert!(text.contains("orin-1") && text.contains("offline") && text.contains("60 s ago"), "{text}");
        assert!(!text.contains('\x1b'), "colours where none were wanted");
        assert!(nodes(&view, 61_000, true).to_string().contains('\x1b'));
    }

    #[test]
    fn a_node_shows_how_far_it_is_with_its_newest_update() {
        let row = |state: serde_json::Value| {
            let status = json!({"v": 1, "ts": 1, "ts_src": "rtc", "boot_id": "b", "seq": 1, "id": "u1", "version": "0.2.0",
                "state": state});
            let view = json!([{"node": "orin-1", "state": "online", "last_seen": 1000, "running": [], "done": 3,
                "failed": 1, "update": status}]);
            nodes(&serde_json::from_value::<Vec<NodeView>>(view).unwrap(), 61_000, false).to_string()
        };
        assert!(row(json!({"kind": "installing", "percent": 40})).contains("  0.2.0 installing 40%  "));
        let fault = json!({"code": "unhealthy", "text": "no"});
        let text = row(json!({"kind": "rolled_back", "fault": fault}));
        assert!(text.contains("update") && text.contains("0.2.0 rolled back"), "{text}");
    }

    #[test]
    fn a_push_by_two_nodes_fits_a_terminal_of_80_columns() {
        let row = |name: &str| {
            json!({"name": name, "segments": 3, "bytes": 2_450_000, "bitrate": 3_710_000, "width": 1280,
                "height": 720, "frames": 132_000, "fps": 29.97, "real_time_factor": 11.59,
                "nodes": ["north", "south"]})
        };
        let summary: Summary = serde_json::from_value(json!({
            "stream": "s", "whole": true, "segments": 3, "segments_whole": 3, "sent_again": 0, "sound": true,
            "media_ms": 1, "elapsed_ms": 1, "real_time_factor": 1.0, "renditions": [row("720p"), row("240p")],
            "nodes": [], "problems": []
        }))
        .unwrap();
        let mut table = push(&summary, false);
        fit(&mut table, Some(80), &PUSH);
        let text = table.to_string();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("1280x720  29.97"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_loses_columns_and_breaks_no_word() {
        let view: StreamView = serde_json::from_value(json!({
            "stream": "my-best-holiday-clip-1795412256", "live": false, "started": 0, "node": "orin-nano-1",
            "ladder": ["720p", "480p", "360p", "240p"], "segments_total": 1, "segments_failed": 1,
            "playlist": "/stream/s.m3u8", "segments": [{"segment": 4, "task": "t", "state": "failed",
                "duration": 2000, "bytes": 10_000, "attempts": 3, "delay_ms": 1500, "node": "orin-nano-1",
                "fault": {"code": "no_frames", "text": "the input is plain text, not video; send a file"}}]
        }))
        .unwrap();
        for (mut table, narrow) in
            [(segments(&view, false), SEGMENTS), (streams(&[view], 9_000_000, false), STREAMS)]
        {
            fit(&mut table, Some(80), &narrow);
            let text = table.to_string();
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.contains("orin-nano-1") && text.contains("1.50 s"), "{text}");
        }
    }

    #[test]
    fn a_fault_is_shown_on_one_line_without_its_control_characters() {
        let view: StreamView = serde_json::from_value(json!({
            "stream": "s", "live": false, "started": 0, "ladder": ["a"], "segments_total": 1, "segments_failed": 1,
            "playlist": "/stream/s.m3u8", "segments": [{"segment": 4, "task": "t", "state": "failed",
                "duration": 2000, "bytes": 10, "attempts": 3, "delay_ms": 1500,
                "fault": {"code": "no_frames", "text": "No\u{1b}[2J frames."}}]
        }))
        .unwrap();
        let text = segments(&view, false).to_string();
        assert!(text.contains("1.50 s") && text.contains("frames.") && !text.contains('\x1b'), "{text}");
        assert!(streams(&[view], 0, false).to_string().contains("ended"));
    }
}
