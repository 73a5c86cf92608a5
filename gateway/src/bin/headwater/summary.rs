//! What a push came to: from what arrived and what the gateway reports, to rows and a verdict. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use headwater_gateway::views::{SegmentView, StreamView};
use headwater_protocol::{Container, FrameRate, Ladder, NodeId, RenditionName, SegmentReport, StreamId};
use serde::Serialize;

use crate::human;
use crate::sender::{Outcome, Received};

/// Problems told one by one; more are counted.
const MAX_PROBLEMS: usize = 20;

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(crate) struct Summary {
    pub(crate) stream: StreamId,
    /// Every rendition of every segment arrived whole.
    pub(crate) whole: bool,
    pub(crate) segments: u64,
    pub(crate) segments_whole: u64,
    /// Segments that had to be sent more than once.
    pub(crate) sent_again: u64,
    /// The input has sound, which every rendition carries besides its picture.
    pub(crate) sound: bool,
    pub(crate) media_ms: u64,
    pub(crate) elapsed_ms: u64,
    /// Media time by elapsed time.
    pub(crate) real_time_factor: f64,
    pub(crate) delay_ms_p50: Option<u64>,
    pub(crate) delay_ms_p95: Option<u64>,
    pub(crate) renditions: Vec<Row>,
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) problems: Vec<String>,
    /// Those of them that nobody was told while it ran.
    #[serde(skip)]
    pub(crate) news: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) playlist: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(crate) struct Row {
    pub(crate) name: RenditionName,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    /// bit/s over the segments that arrived.
    pub(crate) bitrate: u64,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    pub(crate) frames: Option<u64>,
    pub(crate) fps: Option<f64>,
    /// Media time by the workers' time; one worker makes all renditions of a segment at once.
    pub(crate) real_time_factor: Option<f64>,
    pub(crate) nodes: Vec<NodeId>,
}

impl Summary {
    pub(crate) fn new(
        stream: &StreamId,
        ladder: &Ladder,
        received: &[Received],
        view: Option<&StreamView>,
        elapsed: Duration,
    ) -> Self {
        let views: BTreeMap<u64, &SegmentView> =
            view.map(|v| v.segments.iter().map(|s| (s.segment, s)).collect()).unwrap_or_default();
        let (mut problems, mut news) = (Vec::new(), Vec::new());
        if view.is_none() {
            news.push("the gateway has no report of this stream, so frames could not be counted".to_owned());
            problems.clone_from(&news);
        }
        let mut whole = 0;
        for answer in received {
            let number = answer.number;
            let found = match &answer.outcome {
                Outcome::Failed { text } => vec![text.clone()],
                Outcome::Whole { parts } => match views.get(&number).and_then(|s| s.report.as_ref()) {
                    Some(report) => frame_problems(ladder, report, parts.iter().map(|part| part.bytes)),
                    None if view.is_some() => vec!["the gateway has no report of it".to_owned()],
                    None => Vec::new(),
                },
            };
            whole += u64::from(found.is_empty());
            let found = found.into_iter().map(|text| format!("segment {number}: {text}"));
            match answer.outcome {
                Outcome::Failed { .. } => problems.extend(found),
                Outcome::Whole { .. } => {
                    let found: Vec<String> = found.collect();
                    news.extend_from_slice(&found);
                    problems.extend(found);
                }
            }
        }
        let media_ms: u64 = received.iter().map(|answer| answer.duration.0).sum();
        let is_whole = problems.is_empty();
        for list in [&mut problems, &mut news] {
            if list.len() > MAX_PROBLEMS {
                let more = list.len() - MAX_PROBLEMS;
                list.truncate(MAX_PROBLEMS);
                list.push(format!("and {more} more"));
            }
        }
        let mut delays: Vec<u64> = views.values().filter_map(|segment| segment.delay_ms).collect();
        delays.sort_unstable();
        let rows = ladder.renditions().iter().enumerate();
        let rows: Vec<Row> = rows.map(|(index, r)| row(index, &r.name, received, &views)).collect();
        let nodes: BTreeSet<NodeId> = rows.iter().flat_map(|row| row.nodes.iter().cloned()).collect();
        Self {
            stream: stream.clone(),
            whole: is_whole,
            segments: received.len() as u64,
            segments_whole: whole,
            sent_again: received.iter().filter(|answer| answer.sent > 1).count() as u64,
            sound: views
                .values()
                .filter_map(|s| s.report.as_ref())
                .any(|report| report.input.audio_streams > 0),
            media_ms,
            elapsed_ms: elapsed.as_millis() as u64,
            real_time_factor: media_ms as f64 / 1e3 / elapsed.as_secs_f64().max(1e-6),
            delay_ms_p50: percentile(&delays, 50),
            delay_ms_p95: percentile(&delays, 95),
            renditions: rows,
            nodes: nodes.into_iter().collect(),
            problems,
            news,
            playlist: None,
        }
    }

    pub(crate) fn with_playlist(mut self, playlist: PathBuf) -> Self {
        self.playlist = Some(playlist);
        self
    }

    /// The lines below the table.
    pub(crate) fn totals(&self) -> String {
        let Self { segments, segments_whole, sent_again, media_ms, elapsed_ms, .. } = self;
        let mut text = format!(
            "{segments_whole} of {} whole, {} of media in {}, {:.2} x real time",
            human::count(*segments as usize, "segment"),
            human::ms(*media_ms),
            human::ms(*elapsed_ms),
            self.real_time_factor
        );
        if let (Some(p50), Some(p95)) = (self.delay_ms_p50, self.delay_ms_p95) {
            text = format!("{text}, delay {} (p95 {})", human::ms(p50), human::ms(p95));
        }
        if *sent_again > 0 {
            text = format!("{text}, {sent_again} sent again");
        }
        if self.sound {
            // Else a 250 kb/s rung beside 375 kb/s of sound looks like an encoder that ignores its target.
            text.push_str("\nbitrate and bytes are of the whole file: picture, sound and container");
        }
        text
    }
}

/// Where the report contradicts itself, the ladder, or what arrived.
fn frame_problems(
    ladder: &Ladder,
    report: &SegmentReport,
    arrived: impl Iterator<Item = u64>,
) -> Vec<String> {
    let mut problems = Vec::new();
    // Renditions of one frame rate have the same frames.
    let mut frames: BTreeMap<Option<String>, u64> = BTreeMap::new();
    let decoded = report.input.video.as_ref().map(|video| video.decoded);
    for (rendition, bytes) in ladder.renditions().iter().zip(arrived) {
        let name = &rendition.name;
        let Some(made) = report.renditions.iter().find(|made| made.name == *name) else {
            problems.push(format!("the report does not know rendition {name}"));
            continue;
        };
        if made.bytes != bytes {
            problems.push(format!("rendition {name} has {bytes} bytes, the node made {}", made.bytes));
        }
        if made.copied {
            continue;
        }
        if made.frames == 0 {
            problems.push(format!("rendition {name} has no frames"));
        }
        // Its frames are pictures or sheets, of which there are as many as the ladder says.
        if rendition.container == Container::Jpeg {
            continue;
        }
        let rate = rendition.fps.as_ref().map(FrameRate::to_string);
        let expected = match (&rate, decoded) {
            (None, Some(decoded)) => decoded,
            (Some(_), _) | (None, None) => *frames.entry(rate).or_insert(made.frames),
        };
        if made.frames != expected {
            problems.push(format!("rendition {name} has {} frames, {expected} were expected", made.frames));
        }
    }
    problems
}

fn row(
    index: usize,
    name: &RenditionName,
    received: &[Received],
    views: &BTreeMap<u64, &SegmentView>,
) -> Row {
    let (mut segments, mut bytes, mut media_ms) = (0, 0, 0);
    let (mut frames, mut reported_ms, mut wall_us, mut made_ms) = (0, 0, 0, 0);
    let mut size = None;
    let mut nodes = BTreeSet::new();
    for answer in received {
        let Outcome::Whole { parts } = &answer.outcome else { continue };
        let Some(part) = parts.get(index) else { continue };
        segments += 1;
        bytes += part.bytes;
        media_ms += answer.duration.0;
        let Some(segment) = views.get(&answer.number) else { continue };
        nodes.extend(segment.node.clone());
        let Some(report) = &segment.report else { continue };
        wall_us += report.wall_us;
        made_ms += answer.duration.0;
        if let Some(made) = report.renditions.iter().find(|made| made.name == *name && !made.copied) {
            frames += made.frames;
            reported_ms += made.duration.0;
            size = size.or(Some((made.width.0, made.height.0)));
        }
    }
    Row {
        name: name.clone(),
        segments,
        bytes,
        bitrate: (bytes * 8 * 1000).checked_div(media_ms).unwrap_or(0),
        width: size.map(|size| size.0),
        height: size.map(|size| size.1),
        frames: size.map(|_| frames),
        fps: (reported_ms > 0).then(|| frames as f64 * 1e3 / reported_ms as f64),
        real_time_factor: (wall_us > 0).then(|| made_ms as f64 * 1e3 / wall_us as f64),
        nodes: nodes.into_iter().collect(),
    }
}

/// Of sorted values, by nearest rank.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder;
    use crate::sender::Part;
    use headwater_protocol::Millis;
    use serde_json::json;

    fn answer(number: u64, bytes: u64) -> Received {
        let part = Part { bytes, init_bytes: None, codecs: None };
        Received {
            number,
            duration: Millis(2000),
            sent: 1,
            outcome: Outcome::Whole { parts: vec![part.clone(), part] },
        }
    }

    fn view(frames: [u64; 2]) -> StreamView {
        let made = |name: &str, width: u32, height: u32, frames: u64| {
            json!({"name": name, "container": "ts", "bytes": 1000, "width": width, "height": height,
                "frames": frames, "keyframes": 1, "pixels": 1, "first_pts": 0, "duration": 2000})
        };
        serde_json::from_value(json!({
            "stream": "s", "live": true, "started": 0, "ladder": ["480p", "240p"], "segments_total": 1,
            "segments_failed": 0, "playlist": "/stream/s.m3u8",
            "segments": [{"segment": 0, "task": "t", "state": "done", "duration": 2000, "bytes": 5000,
                "attempts": 1, "node": "a", "delay_ms": 420, "report": {
                    "input": {"container": "ts", "bytes": 5000, "audio_streams": 1, "duration": 2000,
                        "video": {"codec": "h264", "width": 1280, "height": 720, "frames": 60, "decoded": 60, "pixels": 1}},
                    "renditions": [made("480p", 854, 480, frames[0]), made("240p", 426, 240, frames[1])],
                    "wall_us": 400_000, "cpu_us": 700_000, "warm": true}}]
        }))
        .unwrap()
    }

    fn summary(received: &[Received], view: Option<&StreamView>) -> Summary {
        let ladder = ladder::parse(&["480p,240p".to_owned()]).unwrap();
        Summary::new(&StreamId::new("s").unwrap(), &ladder, received, view, Duration::from_secs(1))
    }

    #[test]
    fn a_whole_push_is_whole_and_its_rows_say_what_was_made() {
        let summary = summary(&[answer(0, 1000)], Some(&view([60, 60])));
        assert!(summary.whole, "{:?}", summary.problems);
        let row = &summary.renditions[0];
        assert_eq!((row.width, row.height, row.frames), (Some(854), Some(480), Some(60)));
        assert_eq!((row.fps, row.real_time_factor, row.bitrate), (Some(30.0), Some(5.0), 4000));
        assert_eq!(summary.nodes.len(), 1);
        assert!(
            summary.totals().starts_with("1 of 1 segment whole, 2.00 s of media in 1.00 s, 2.00 x real time")
        );
    }

    #[test]
    fn anything_less_is_not_whole_and_says_why() {
        let text = |summary: Summary| {
            assert!(!summary.whole);
            summary.problems.join("\n")
        };
        let frames = view([60, 59]);
        assert!(
            text(summary(&[answer(0, 1000)], Some(&frames))).contains("240p has 59 frames, 60 were expected")
        );
        let fine = view([60, 60]);
        assert!(text(summary(&[answer(0, 999)], Some(&fine))).contains("999 bytes, the node made 1000"));
        assert!(
            text(summary(&[answer(1, 1000)], Some(&fine))).contains("segment 1: the gateway has no report")
        );
        assert!(text(summary(&[answer(0, 1000)], None)).contains("has no report of this stream"));
        let mut failed = answer(0, 1000);
        failed.outcome = Outcome::Failed { text: "no frames".to_owned() };
        assert_eq!(text(summary(&[failed], Some(&fine))), "segment 0: no frames");
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[7], 95), Some(7));
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 95)), (Some(50), Some(95)));
    }
}
