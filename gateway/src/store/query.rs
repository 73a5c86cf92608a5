//! Questions: lists for people, entries for playlists, tasks past their time.

use headwater_protocol::{
    Container, Epoch, Evidence, Fault, Ladder, Millis, NodeId, SegmentReport, StreamId, TaskId,
};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, StoreError};
use crate::views::{EvidenceView, SegmentState, SegmentView, StreamView};

/// Streams in a list; older ones can be asked for by name.
const LISTED: i64 = 200;
/// Segments of each stream in a list.
const RECENT: i64 = 20;

/// A stream as playlists need it.
#[derive(Debug, Clone)]
pub struct StreamRow {
    pub live: bool,
    pub ladder: Option<Ladder>,
    pub resolution: Option<String>,
}

/// Which entries of a playlist are wanted.
#[derive(Debug, Clone, Copy)]
pub enum Window {
    /// The last so many of a live stream, all that were listed of one that has ended.
    Live(u32),
    /// All; of a stream that has ended, also what was done too late to be listed.
    All,
    Newest,
    Segment(u64),
}

#[derive(Debug, Clone)]
pub struct Playlist {
    pub row: StreamRow,
    /// Number of the first entry, or of the one that comes next where there is none.
    pub first: u64,
    /// Places before it where segments do not follow on each other.
    pub breaks: u64,
    pub entries: Vec<PlaylistEntry>,
}

/// A segment that can be watched.
#[derive(Debug, Clone)]
pub struct PlaylistEntry {
    pub segment: u64,
    pub task: TaskId,
    pub epoch: Option<Epoch>,
    pub container: Container,
    pub duration: Millis,
    pub report: Option<SegmentReport>,
}

fn bad(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

fn parsed<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text).map_err(|error| bad(column, error))).transpose()
}

fn id<T: std::str::FromStr<Err = headwater_protocol::BadId>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    row.get::<_, String>(column)?.parse().map_err(|error| bad(column, error))
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

fn container(text: &str) -> Container {
    match text {
        "mp4" => Container::Mp4,
        "jpeg" => Container::Jpeg,
        _ts => Container::Ts,
    }
}

impl Store {
    /// Newest first, each with its last segments.
    pub async fn streams(&self) -> Result<Vec<StreamView>, StoreError> {
        self.read(|c| {
            let mut names =
                c.prepare_cached("SELECT stream FROM streams ORDER BY started DESC, run DESC LIMIT ?")?;
            let names: Vec<String> =
                names.query_map([LISTED], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            let mut views = Vec::with_capacity(names.len());
            for name in names {
                views.extend(stream_view(c, &name, RECENT)?);
            }
            Ok(views)
        })
        .await
    }

    pub async fn stream(&self, stream: &StreamId) -> Result<Option<StreamView>, StoreError> {
        let name = stream.as_str().to_owned();
        self.read(move |c| stream_view(c, &name, -1)).await
    }

    /// What failed attempts at a segment left behind, the oldest first.
    pub async fn evidence(&self, stream: &StreamId, segment: u64) -> Result<Vec<EvidenceView>, StoreError> {
        let name = stream.as_str().to_owned();
        self.read(move |c| {
            let mut statement = c.prepare_cached(
                "SELECT task, epoch, node, at, evidence FROM evidence
                 WHERE stream=? AND segment=? ORDER BY at, rowid",
            )?;
            let rows = statement.query_map(params![name, segment.cast_signed()], |row| {
                let evidence: Option<Evidence> = parsed(row, 4)?;
                Ok(EvidenceView {
                    task: id(row, 0)?,
                    epoch: Epoch(row.get(1)?),
                    node: id(row, 2)?,
                    at: Millis(number(row, 3)?),
                    evidence: evidence.unwrap_or_default(),
                })
            })?;
            rows.collect()
        })
        .await
    }

    /// What of a stream can be watched, in order; a number that was pushed twice counts once.
    pub async fn playlist(&self, stream: &StreamId, window: Window) -> Result<Option<Playlist>, StoreError> {
        let name = stream.as_str().to_owned();
        self.read(move |c| playlist(c, &name, window)).await
    }

    /// Tasks that ended before `before`, a bounded number of them.
    pub async fn expired(&self, before: u64) -> Result<Vec<TaskId>, StoreError> {
        self.read(move |c| {
            let mut statement = c.prepare_cached(
                "SELECT task FROM tasks WHERE received < ? AND state IN ('done','failed')
                 ORDER BY received LIMIT 500",
            )?;
            statement.query_map([before.cast_signed()], |row| id(row, 0))?.collect()
        })
        .await
    }

    pub async fn has_task(&self, task: &TaskId) -> Result<bool, StoreError> {
        let task = task.as_str().to_owned();
        self.read(move |c| {
            c.query_row("SELECT 1 FROM tasks WHERE task=? AND state != 'failed'", [task], |_| Ok(()))
                .optional()
                .map(|found| found.is_some())
        })
        .await
    }

    /// One small question, to see that the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read(|c| c.query_row("SELECT 1", [], |_| Ok(()))).await
    }
}

fn playlist(c: &Connection, name: &str, window: Window) -> rusqlite::Result<Option<Playlist>> {
    let row = c
        .prepare_cached("SELECT live, shown_ladder, shown_resolution, shown, next_entry, breaks FROM streams WHERE stream=?")?
        .query_row([name], |row| {
            let found = StreamRow { live: row.get(0)?, ladder: parsed(row, 1)?, resolution: row.get(2)? };
            Ok((found, row.get::<_, i64>(3)?, (number(row, 4)?, number(row, 5)?)))
        })
        .optional()?;
    let Some((row, run, next)) = row else { return Ok(None) };
    let listed = "SELECT segment, task, winner, container, duration_ms, report, entry, breaks FROM tasks
         WHERE stream=?1 AND run=?2 AND entry IS NOT NULL ORDER BY entry DESC LIMIT ?3";
    // With min(), SQLite takes the other columns from the row that has it: the first that was done.
    let done =
        "SELECT segment, task, winner, container, duration_ms, report, entry, breaks, min(ended) FROM tasks
         WHERE stream=?1 AND run=?2 AND state='done' GROUP BY segment ORDER BY segment DESC LIMIT ?3";
    // Players may still ask for one of the run before.
    let one =
        "SELECT segment, task, winner, container, duration_ms, report, entry, breaks, min(ended) FROM tasks
         WHERE stream=?1 AND state='done' AND segment=?3 GROUP BY run ORDER BY run=?2 DESC, run DESC LIMIT 1";
    let (sql, which) = match window {
        Window::Live(most) if row.live => (listed, i64::from(most)),
        Window::Live(_) => (listed, -1),
        Window::Newest => (listed, 1),
        Window::All if row.live => (listed, -1),
        Window::All => (done, -1),
        Window::Segment(number) => (one, number.cast_signed()),
    };
    let mut found: Vec<(PlaylistEntry, Option<u64>, u64)> = c
        .prepare_cached(sql)?
        .query_map(params![name, run, which], |row| {
            let entry = PlaylistEntry {
                segment: number(row, 0)?,
                task: id(row, 1)?,
                epoch: row.get::<_, Option<u32>>(2)?.map(Epoch),
                container: container(&row.get::<_, String>(3)?),
                duration: Millis(number(row, 4)?),
                report: parsed(row, 5)?,
            };
            let entry_number = row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned);
            Ok((entry, entry_number, row.get::<_, Option<i64>>(7)?.unwrap_or(0).cast_unsigned()))
        })?
        .collect::<rusqlite::Result<_>>()?;
    found.reverse();
    // One that was done too late for the live list has no number.
    let numbered = (0..).zip(&found).find_map(|(before, (_, entry_number, breaks))| {
        Some((entry_number.as_ref()?.saturating_sub(before), *breaks))
    });
    let (first, breaks) = numbered.unwrap_or(next);
    let entries = found.into_iter().map(|(entry, _, _)| entry).collect();
    Ok(Some(Playlist { row, first, breaks, entries }))
}

fn stream_view(c: &Connection, name: &str, limit: i64) -> rusqlite::Result<Option<StreamView>> {
    let row = c
        .prepare_cached("SELECT run, live, started, node, ladder FROM streams WHERE stream=?")?
        .query_row([name], |row| {
            let ladder: Option<Ladder> = parsed(row, 4)?;
            Ok((
                row.get::<_, i64>(0)?,
                row.get(1)?,
                number(row, 2)?,
                row.get::<_, Option<String>>(3)?,
                ladder,
            ))
        })
        .optional()?;
    let Some((run, live, started, node, ladder)) = row else { return Ok(None) };
    let (total, failed): (i64, i64) = c
        .prepare_cached(
            "SELECT count(*), coalesce(sum(state='failed'),0) FROM tasks WHERE stream=? AND run=?",
        )?
        .query_row(params![name, run], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut statement = c.prepare_cached(
        "SELECT segment, task, state, duration_ms, bytes, attempts, node, delay_ms, report, fault FROM tasks
         WHERE stream=? AND run=? ORDER BY segment DESC, task DESC LIMIT ?",
    )?;
    let mut segments: Vec<SegmentView> =
        statement.query_map(params![name, run, limit], segment_view)?.collect::<rusqlite::Result<_>>()?;
    segments.reverse();
    Ok(Some(StreamView {
        stream: name.parse().map_err(|error| bad(0, error))?,
        live,
        started: Millis(started),
        node: node.and_then(|node| NodeId::new(node).ok()),
        ladder: ladder
            .as_ref()
            .map(|ladder| ladder.renditions().iter().map(|rendition| rendition.name.clone()).collect())
            .unwrap_or_default(),
        renditions: ladder,
        segments_total: total.cast_unsigned(),
        segments_failed: failed.cast_unsigned(),
        segments,
        playlist: format!("/stream/{name}.m3u8"),
    }))
}

fn segment_view(row: &Row<'_>) -> rusqlite::Result<SegmentView> {
    let fault: Option<Fault> = parsed(row, 9)?;
    Ok(SegmentView {
        segment: number(row, 0)?,
        task: id(row, 1)?,
        state: match row.get::<_, String>(2)?.as_str() {
            "running" => SegmentState::Running,
            "done" => SegmentState::Done,
            "failed" => SegmentState::Failed,
            _waiting => SegmentState::Waiting,
        },
        duration: Millis(number(row, 3)?),
        bytes: number(row, 4)?,
        attempts: row.get(5)?,
        node: row.get::<_, Option<String>>(6)?.and_then(|node| NodeId::new(node).ok()),
        delay_ms: row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned),
        report: parsed(row, 8)?,
        fault,
    })
}
