//! `headwater push`: cut, send in order with a few under way, collect, write playlists, sum up.
//!
//! ```text
//! file ─▶ worker split ─▶ segment ─▶ POST ─▶ multipart ─▶ folder     (at most --in-flight at once)
//!                                                 └─▶ Received ─▶ Summary
//! ```

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream};
use headwater_gateway::views::{SegmentState, StreamView};
use headwater_protocol::{Container, Ladder, StreamId};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Push;
use crate::client::{ClientError, Gateway};
use crate::folder::{Folder, FolderError};
use crate::ladder::{self, SpecError};
use crate::playlist::{Entry, Variant};
use crate::progress::{Progress, Step};
use crate::sender::{Outcome, Received, SendError, Sender};
use crate::source::{self, SourceError};
use crate::split::{self, SplitError, Splitter};
use crate::summary::Summary;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    #[error(transparent)]
    Ladder(#[from] SpecError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Split(#[from] SplitError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("no segment came out of the input")]
    Nothing,
    #[error("interrupted")]
    Interrupted,
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// Ends by itself, on Ctrl-C, or on SIGTERM; in each case no process and no half-written file is left.
pub(crate) async fn run(gateway: &Gateway, args: &Push, quiet: bool) -> Result<Summary, PushError> {
    let ladder = ladder::parse(&args.ladder)?;
    let progress = Progress::new(quiet);
    let mut terminate = signal(SignalKind::terminate()).map_err(PushError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(PushError::Signals)?;
    let mut splitter = None;
    let result = tokio::select! {
        result = work(gateway, args, &ladder, &progress, &mut splitter) => result,
        _ = interrupt.recv() => Err(PushError::Interrupted),
        _ = terminate.recv() => Err(PushError::Interrupted),
    };
    // The work is dropped here, with its requests and half-written files; the worker is reaped next.
    if let Some(splitter) = splitter {
        splitter.stop().await;
    }
    progress.clear();
    result
}

async fn work(
    gateway: &Gateway,
    args: &Push,
    ladder: &Ladder,
    progress: &Progress,
    slot: &mut Option<Splitter>,
) -> Result<Summary, PushError> {
    let worker = split::find_worker(args.worker.as_deref())?;
    gateway.greet().await?;
    let source = source::open(&args.input, args.max_size, progress).await?;
    let stream = match &args.stream {
        Some(stream) => stream.clone(),
        None => stream_name(&source.name, unix_seconds()),
    };
    let splitter = slot.insert(Splitter::start(&worker, source.path(), args.segment).await?);
    let total = Duration::from_millis(splitter.found().duration_ms);
    let folder = match &args.out {
        Some(path) => Some(Folder::prepare(path, ladder)?),
        None => None,
    };
    progress.note(&format!("pushing {} as stream {stream}; watch it at {}", source.shown, gateway.url("")));

    let sender = Sender {
        gateway,
        stream: &stream,
        ladder,
        header: ladder::push_header(ladder),
        folder: folder.as_ref(),
        deadline: args.deadline,
    };
    let started = Instant::now();
    let segments = stream::try_unfold(splitter, |splitter| async move {
        Ok::<_, PushError>(splitter.next().await?.map(|segment| (segment, splitter)))
    });
    // Bounded: cutting waits while so many are under way or not yet taken in order.
    let answers = segments
        .map_ok(|segment| {
            let sender = &sender;
            async move { sender.send(segment).await.map_err(PushError::from) }
        })
        .try_buffered(usize::from(args.in_flight));
    let mut answers = std::pin::pin!(answers);
    let mut received: Vec<Received> = Vec::new();
    let mut step = Step { segments: 0, failed: 0, done: Duration::ZERO, total, elapsed: Duration::ZERO };
    progress.step(&step);
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        step.segments += 1;
        step.done += Duration::from(answer.duration);
        step.elapsed = started.elapsed();
        if let Outcome::Failed { text } = &answer.outcome {
            step.failed += 1;
            progress.note(&format!("segment {}: {text}", answer.number));
        }
        progress.step(&step);
        received.push(answer);
    }
    if received.is_empty() {
        return Err(PushError::Nothing);
    }
    let elapsed = started.elapsed();
    let view = reports(gateway, &stream).await;
    let summary = Summary::new(&stream, ladder, &received, view.as_ref(), elapsed);
    if let Some(folder) = &folder {
        folder.write_playlists(&variants(ladder, &received, &summary))?;
        return Ok(summary.with_playlist(folder.master()));
    }
    Ok(summary)
}

/// What the gateway wrote down. It answers a push before its books are closed, so one that still runs is
/// asked for again; a gateway without this API has none.
async fn reports(gateway: &Gateway, stream: &StreamId) -> Option<StreamView> {
    let mut view = None;
    for wait_ms in [0, 100, 200, 400, 800] {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        view = gateway.stream(stream).await.ok();
        let open = |state| matches!(state, SegmentState::Waiting | SegmentState::Running);
        match &view {
            Some(view) if view.segments.iter().any(|segment| open(segment.state)) => {}
            Some(_) | None => break,
        }
    }
    view
}

fn variants(ladder: &Ladder, received: &[Received], summary: &Summary) -> Vec<Variant> {
    let rungs = ladder.renditions().iter().zip(&summary.renditions).enumerate();
    rungs
        .map(|(index, (rendition, row))| {
            let parts = received.iter().filter_map(|answer| match &answer.outcome {
                Outcome::Whole { parts } => parts.get(index).map(|part| (answer, part)),
                Outcome::Failed { .. } => None,
            });
            let codecs = parts.clone().find_map(|(_, part)| part.codecs.clone());
            let entries = parts.map(|(answer, part)| Entry {
                number: answer.number,
                duration: answer.duration,
                bytes: part.bytes,
                init_bytes: part.init_bytes.filter(|_| rendition.container == Container::Mp4),
            });
            Variant {
                name: rendition.name.clone(),
                container: rendition.container,
                size: row.width.zip(row.height),
                fps: row.fps,
                codecs,
                entries: entries.collect(),
            }
        })
        .collect()
}

/// A name that is safe everywhere, and new each second: a stream's ladder is fixed while it lives.
fn stream_name(input: &str, seconds: u64) -> StreamId {
    let mut name: String = input
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(80)
        .collect();
    name = name.trim_matches(['.', '_', '-']).to_owned();
    if name.is_empty() {
        name.push_str("stream");
    }
    StreamId::new(format!("{name}-{seconds}"))
        // Every character was made an allowed one and the first is a letter or a digit.
        .unwrap_or_else(|error| unreachable!("{error}"))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod against_a_gateway;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_name_becomes_a_stream_name() {
        for name in ["", "..", "a b/c", "ü", "-x", &"long".repeat(90), "Big Buck Bunny (1080p)"] {
            let stream = stream_name(name, 1_700_000_000);
            assert!(stream.as_str().ends_with("-1700000000"), "{stream}");
        }
        assert_eq!(stream_name("my clip", 7).as_str(), "my-clip-7");
    }
}
