//! Tables, their versions, and what a start does with the rests of an earlier life.

use std::collections::HashMap;
use std::path::Path;

use headwater_protocol::{Code, Fault, NodeId, StreamId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::write::{json, open_stream};
use super::{Open, Remembered, StoreError, fleet, listing};

/// One step per version; a step that has been released is never changed.
pub(super) const STEPS: &[&str] = &["
    CREATE TABLE streams(
        stream TEXT PRIMARY KEY, run INTEGER NOT NULL, started INTEGER NOT NULL, live INTEGER NOT NULL,
        ladder TEXT, resolution TEXT, node TEXT, removed INTEGER NOT NULL DEFAULT 0) STRICT;
    CREATE TABLE tasks(
        task TEXT PRIMARY KEY, stream TEXT NOT NULL, run INTEGER NOT NULL, segment INTEGER NOT NULL,
        container TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, duration_ms INTEGER NOT NULL,
        received INTEGER NOT NULL, ended INTEGER, state TEXT NOT NULL, winner INTEGER, node TEXT,
        attempts INTEGER NOT NULL DEFAULT 0, delay_ms INTEGER, report TEXT, fault TEXT) STRICT;
    CREATE INDEX tasks_of_stream ON tasks(stream, run, segment);
    CREATE INDEX tasks_by_age ON tasks(received);
    CREATE TABLE attempts(
        task TEXT NOT NULL, epoch INTEGER NOT NULL, node TEXT NOT NULL, offered INTEGER NOT NULL,
        ended INTEGER, code TEXT, PRIMARY KEY(task, epoch)) STRICT;
    CREATE TABLE outboxes(node TEXT PRIMARY KEY, outbox TEXT NOT NULL, n INTEGER NOT NULL) STRICT;
    CREATE TABLE nodes(node TEXT PRIMARY KEY, enrolled INTEGER NOT NULL, fingerprint TEXT NOT NULL) STRICT;
    CREATE TABLE tokens(hash TEXT PRIMARY KEY, node TEXT NOT NULL, expires INTEGER NOT NULL, used INTEGER) STRICT;
", "
    CREATE INDEX tasks_by_state ON tasks(stream, run, state, segment);
    CREATE TABLE counts(node TEXT PRIMARY KEY, done INTEGER NOT NULL, failed INTEGER NOT NULL) STRICT;
", "
    CREATE TABLE evidence(
        task TEXT NOT NULL, epoch INTEGER NOT NULL, node TEXT NOT NULL, stream TEXT NOT NULL,
        segment INTEGER NOT NULL, at INTEGER NOT NULL, evidence TEXT NOT NULL, PRIMARY KEY(task, epoch)) STRICT;
    CREATE INDEX evidence_of_stream ON evidence(stream, segment, at);
", "
    CREATE TABLE updates(
        update_id TEXT PRIMARY KEY, created INTEGER NOT NULL, ended INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE TABLE update_nodes(
        update_id TEXT NOT NULL, node TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY(update_id, node)) STRICT;
    CREATE TABLE configs(node TEXT PRIMARY KEY, revision INTEGER NOT NULL, settings TEXT NOT NULL) STRICT;
", "
    CREATE TABLE births(node TEXT PRIMARY KEY, seen INTEGER NOT NULL, birth TEXT NOT NULL) STRICT;
    CREATE INDEX births_by_age ON births(seen);
", "
    ALTER TABLE streams DROP COLUMN removed;
    ALTER TABLE streams ADD COLUMN listed_to INTEGER;
    ALTER TABLE streams ADD COLUMN next_entry INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE streams ADD COLUMN breaks INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE streams ADD COLUMN shown INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE streams ADD COLUMN shown_ladder TEXT;
    ALTER TABLE streams ADD COLUMN shown_resolution TEXT;
    ALTER TABLE tasks ADD COLUMN entry INTEGER;
    ALTER TABLE tasks ADD COLUMN breaks INTEGER;
    UPDATE tasks SET entry=segment WHERE task IN (SELECT task FROM (
        SELECT task, min(ended) FROM tasks WHERE state='done' GROUP BY stream, run, segment));
    UPDATE streams SET shown=run, shown_ladder=ladder, shown_resolution=resolution, listed_to=(SELECT max(segment)
        FROM tasks WHERE tasks.stream=streams.stream AND tasks.run=streams.run AND state='done'), next_entry=coalesce(
        (SELECT min(max(segment), 9007199254740990) + 1 FROM tasks
         WHERE tasks.stream=streams.stream AND state='done'), 0);
    CREATE INDEX tasks_listed ON tasks(stream, entry) WHERE entry IS NOT NULL;
"];

pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.set_prepared_statement_cache_capacity(64);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = STEPS.len().cast_signed() as i64;
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    for (index, step) in STEPS.iter().enumerate().skip(found.max(0).cast_unsigned() as usize) {
        let tx = connection.transaction()?;
        tx.execute_batch(step)?;
        tx.pragma_update(None, "user_version", index.cast_signed() as i64 + 1)?;
        tx.commit()?;
    }
    Ok(())
}

/// Closes what ran when the earlier life ended: its callers are gone, so nothing can win any more.
pub(super) fn recover(connection: &mut Connection) -> Result<Remembered, StoreError> {
    let tx = connection.transaction()?;
    settle(&tx, &Open::default(), "the gateway stopped before the segment was done; push it again")?;
    tx.commit()?;
    let mut remembered = Remembered::default();
    let mut statement = connection.prepare("SELECT node, outbox, n FROM outboxes")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (node, outbox, n): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // Only ids were ever written.
        if let Ok(node) = NodeId::new(node) {
            remembered.positions.insert(node, (outbox, n.cast_unsigned()));
        }
    }
    let mut statement = connection.prepare("SELECT node, done, failed FROM counts")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (node, done, failed): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if let Ok(node) = NodeId::new(node) {
            remembered.counts.insert(node, (done.cast_unsigned(), failed.cast_unsigned()));
        }
    }
    let last: Option<i64> = connection.query_row("SELECT max(run) FROM streams", [], |row| row.get(0))?;
    remembered.campaigns = fleet::campaigns(connection)?;
    remembered.configs = fleet::configs(connection)?;
    remembered.births = fleet::births(connection)?;
    remembered.next_run = last.unwrap_or(0).cast_unsigned() + 1;
    Ok(remembered)
}

/// Ends what the tables take for open and is not, and opens what they missed; `why` is told to people.
pub(super) fn settle(tx: &Transaction<'_>, open: &Open, why: &str) -> rusqlite::Result<usize> {
    let tasks = json(&open.tasks)?;
    let fault = json(&Fault::new(Code::Interrupted, why))?;
    tx.execute(
        "UPDATE attempts SET ended=offered, code='interrupted'
         WHERE ended IS NULL AND task NOT IN (SELECT value FROM json_each(?))",
        params![tasks],
    )?;
    let streams: Vec<&StreamId> = open.streams.iter().map(|opened| &opened.stream).collect();
    let seemed_live: Vec<String> = tx
        .prepare_cached("SELECT stream FROM streams WHERE live")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    tx.execute(
        "UPDATE streams SET live=0 WHERE live AND stream NOT IN (SELECT value FROM json_each(?))",
        params![json(&streams)?],
    )?;
    let ended = tx.execute(
        "UPDATE tasks SET state='failed', ended=received, fault=?
         WHERE state IN ('waiting','running') AND task NOT IN (SELECT value FROM json_each(?))",
        params![fault, tasks],
    )?;
    // Nothing is on its way any more that held them up.
    for stream in seemed_live {
        listing::advance(tx, &stream)?;
    }
    for opened in &open.streams {
        let run: Option<i64> = tx
            .query_row("SELECT run FROM streams WHERE stream=?", [opened.stream.as_str()], |row| row.get(0))
            .optional()?;
        if run != Some(opened.run.cast_signed()) {
            open_stream(tx, opened)?;
            listing::advance(tx, opened.stream.as_str())?;
        }
    }
    Ok(ended)
}

/// SHA-256 of each node's newest certificate.
pub(super) fn certificates(connection: &Connection) -> rusqlite::Result<HashMap<NodeId, String>> {
    let mut statement = connection.prepare("SELECT node, fingerprint FROM nodes")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let mut found = HashMap::new();
    for row in rows {
        let (node, fingerprint) = row?;
        if let Ok(node) = NodeId::new(node) {
            found.insert(node, fingerprint);
        }
    }
    Ok(found)
}
