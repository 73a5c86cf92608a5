//! Changes, and the SQL that makes them.

use headwater_protocol::message::{Birth, EventNumber};
use headwater_protocol::{
    Code, Container, Epoch, Evidence, Fault, Millis, NodeId, SegmentReport, StreamId, TaskId, UpdateId,
};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::fleet::{self, Desired};
use super::{Open, OpenStream, listing, schema};
use crate::rollout::{Campaign, Member};

#[derive(Debug, Clone)]
pub enum Ending {
    /// Nothing was asked for; the segment itself can be watched.
    Passed,
    Failed(Fault),
}

/// One change.
#[derive(Debug, Clone)]
pub enum Write {
    StreamOpened(OpenStream),
    StreamEnded {
        stream: StreamId,
    },
    TaskNew {
        task: TaskId,
        stream: StreamId,
        run: u64,
        segment: u64,
        container: Container,
        bytes: u64,
        sha256: String,
        duration: Millis,
        at: u64,
    },
    AttemptNew {
        task: TaskId,
        epoch: Epoch,
        node: NodeId,
        at: u64,
    },
    AttemptEnded {
        task: TaskId,
        epoch: Epoch,
        code: Option<Code>,
        at: u64,
    },
    Winner {
        task: TaskId,
        stream: StreamId,
        epoch: Epoch,
        node: NodeId,
        report: SegmentReport,
        attempts: u32,
        at: u64,
    },
    TaskEnded {
        task: TaskId,
        ending: Ending,
        attempts: u32,
        at: u64,
    },
    Position {
        node: NodeId,
        number: EventNumber,
    },
    /// Segments a node did and failed, in all.
    Counts {
        node: NodeId,
        done: u64,
        failed: u64,
    },
    Delay {
        task: TaskId,
        delay: Millis,
    },
    TokenNew {
        hash: String,
        node: NodeId,
        expires: u64,
    },
    TasksRemoved {
        tasks: Vec<TaskId>,
    },
    /// What is open still; all else has ended, though a write that failed would have said how.
    Settle(Open),
    /// What a failed attempt left behind; of each stream and in all only the newest are kept.
    Evidence {
        task: TaskId,
        epoch: Epoch,
        node: NodeId,
        stream: StreamId,
        segment: u64,
        evidence: Box<Evidence>,
        at: u64,
    },
    /// An update as a whole; its nodes are written by themselves.
    Update(Box<Campaign>),
    UpdateNode {
        update: UpdateId,
        node: NodeId,
        member: Member,
    },
    Config {
        node: NodeId,
        desired: Desired,
    },
    Birth {
        birth: Box<Birth>,
        seen: u64,
    },
    /// When a node was heard of last.
    Seen {
        node: NodeId,
        at: u64,
    },
}

/// Failed attempts of one stream of which evidence is kept, at most 256 KiB each.
const EVIDENCE_PER_STREAM: i64 = 16;
/// And of all streams together.
const EVIDENCE: i64 = 256;

pub(super) fn commit(connection: &mut Connection, batches: &[super::Batch]) -> rusqlite::Result<()> {
    if batches.iter().all(|batch| batch.writes.is_empty()) {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for write in batches.iter().flat_map(|batch| &batch.writes) {
        apply(&transaction, write)?;
    }
    transaction.commit()
}

pub(super) fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn apply(tx: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| tx.prepare_cached(sql)?.execute(values);
    match write {
        Write::StreamOpened(opened) => open_stream(tx, opened)?,
        Write::StreamEnded { stream } => run("UPDATE streams SET live=0 WHERE stream=?", params![stream.as_str()])?,
        Write::TaskNew { task, stream, run: number, segment, container, bytes, sha256, duration, at } => run(
            "INSERT INTO tasks(task, stream, run, segment, container, bytes, sha256, duration_ms, received, state)
             VALUES(?,?,?,?,?,?,?,?,?,'waiting')",
            params![
                task.as_str(),
                stream.as_str(),
                number.cast_signed(),
                segment.cast_signed(),
                container.extension(),
                bytes.cast_signed(),
                sha256,
                duration.0.cast_signed(),
                at.cast_signed()
            ],
        )?,
        Write::AttemptNew { task, epoch, node, at } => {
            run(
                "INSERT INTO attempts(task, epoch, node, offered) VALUES(?,?,?,?)",
                params![task.as_str(), epoch.0, node.as_str(), at.cast_signed()],
            )?;
            run(
                "UPDATE tasks SET state='running', node=?, attempts=? WHERE task=? AND winner IS NULL",
                params![node.as_str(), epoch.0, task.as_str()],
            )?
        }
        Write::AttemptEnded { task, epoch, code, at } => run(
            "UPDATE attempts SET ended=?, code=? WHERE task=? AND epoch=? AND ended IS NULL",
            params![at.cast_signed(), code.map(Code::as_str), task.as_str(), epoch.0],
        )?,
        Write::Winner { task, stream, epoch, node, report, attempts, at } => {
            // The one compare-and-set that decides a task.
            let won = run(
                "UPDATE tasks SET winner=?, state='done', node=?, report=?, attempts=?, ended=?
                 WHERE task=? AND winner IS NULL AND state IN ('waiting','running')",
                params![epoch.0, node.as_str(), json(report)?, attempts, at.cast_signed(), task.as_str()],
            )?;
            if won != 1 {
                return Err(rusqlite::Error::StatementChangedRows(won));
            }
            run(
                "UPDATE attempts SET ended=?, code=NULL WHERE task=? AND epoch=?",
                params![at.cast_signed(), task.as_str(), epoch.0],
            )?;
            listing::advance(tx, stream.as_str())?;
            run("UPDATE streams SET node=? WHERE stream=?", params![node.as_str(), stream.as_str()])?
        }
        Write::TaskEnded { task, ending, attempts, at } => {
            let (state, fault) = match ending {
                Ending::Passed => ("done", None),
                Ending::Failed(fault) => ("failed", Some(json(fault)?)),
            };
            let ended = run(
                "UPDATE tasks SET state=?, fault=?, attempts=?, ended=? WHERE task=? AND winner IS NULL",
                params![state, fault, attempts, at.cast_signed(), task.as_str()],
            )?;
            listing::advance_for(tx, task)?;
            ended
        }
        Write::Position { node, number } => run(
            "INSERT INTO outboxes(node, outbox, n) VALUES(?,?,?)
             ON CONFLICT(node) DO UPDATE SET outbox=excluded.outbox, n=excluded.n",
            params![node.as_str(), number.outbox, number.n.cast_signed()],
        )?,
        Write::Counts { node, done, failed } => run(
            "INSERT INTO counts(node, done, failed) VALUES(?,?,?)
             ON CONFLICT(node) DO UPDATE SET done=excluded.done, failed=excluded.failed",
            params![node.as_str(), done.cast_signed(), failed.cast_signed()],
        )?,
        Write::Delay { task, delay } => run(
            "UPDATE tasks SET delay_ms=? WHERE task=?",
            params![delay.0.cast_signed(), task.as_str()],
        )?,
        Write::TokenNew { hash, node, expires } => {
            // A node has one open token: the newest.
            run("DELETE FROM tokens WHERE node=? AND used IS NULL", params![node.as_str()])?;
            run(
                "INSERT INTO tokens(hash, node, expires) VALUES(?,?,?)",
                params![hash, node.as_str(), expires.cast_signed()],
            )?
        }
        Write::Evidence { task, epoch, node, stream, segment, evidence, at } => {
            run(
                "INSERT OR REPLACE INTO evidence(task, epoch, node, stream, segment, at, evidence)
                 VALUES(?,?,?,?,?,?,?)",
                params![
                    task.as_str(),
                    epoch.0,
                    node.as_str(),
                    stream.as_str(),
                    segment.cast_signed(),
                    at.cast_signed(),
                    json(evidence)?
                ],
            )?;
            run(
                "DELETE FROM evidence WHERE stream=?1 AND rowid NOT IN
                 (SELECT rowid FROM evidence WHERE stream=?1 ORDER BY at DESC, rowid DESC LIMIT ?2)",
                params![stream.as_str(), EVIDENCE_PER_STREAM],
            )?;
            run(
                "DELETE FROM evidence WHERE rowid NOT IN
                 (SELECT rowid FROM evidence ORDER BY at DESC, rowid DESC LIMIT ?)",
                params![EVIDENCE],
            )?
        }
        Write::Settle(open) => {
            schema::settle(tx, open, "the gateway could not store how the segment ended; push it again")?
        }
        Write::Update(campaign) => fleet::save(tx, campaign)?,
        Write::UpdateNode { update, node, member } => fleet::save_node(tx, update, node, member)?,
        Write::Config { node, desired } => fleet::save_config(tx, node, desired)?,
        Write::Birth { birth, seen } => fleet::save_birth(tx, birth, *seen)?,
        Write::Seen { node, at } => fleet::save_seen(tx, node, *at)?,
        Write::TasksRemoved { tasks } => {
            for task in tasks {
                run("DELETE FROM attempts WHERE task=?", params![task.as_str()])?;
                run("DELETE FROM evidence WHERE task=?", params![task.as_str()])?;
                run("DELETE FROM tasks WHERE task=?", params![task.as_str()])?;
            }
            run(
                "DELETE FROM streams WHERE live=0 AND NOT EXISTS(SELECT 1 FROM tasks WHERE tasks.stream=streams.stream)",
                params![],
            )?
        }
    };
    Ok(())
}

pub(super) fn open_stream(tx: &Transaction<'_>, opened: &OpenStream) -> rusqlite::Result<usize> {
    let OpenStream { stream, run, ladder, resolution, at } = opened;
    let ladder = ladder.as_ref().map(json).transpose()?;
    // What is shown stays until there is something new to show, where there was something.
    tx.prepare_cached(
        "INSERT INTO streams(stream, run, shown, started, live, ladder, shown_ladder, resolution, shown_resolution)
         VALUES(?1,?2,?2,?3,1,?4,?4,?5,?5)
         ON CONFLICT(stream) DO UPDATE SET run=excluded.run, started=excluded.started, live=1,
         ladder=excluded.ladder, resolution=excluded.resolution, node=NULL, listed_to=NULL,
         shown=iif(next_entry=0, excluded.shown, shown),
         shown_ladder=iif(next_entry=0, excluded.ladder, shown_ladder),
         shown_resolution=iif(next_entry=0, excluded.resolution, shown_resolution)",
    )?
    .execute(params![stream.as_str(), run.cast_signed(), at.cast_signed(), ladder, resolution])
}

/// What became of a token.
pub(super) enum Used {
    No,
    /// It is the node's, but its request was not signed; it stays usable.
    NotSigned,
    /// SHA-256 of the certificate.
    Signed(String),
}

pub(super) fn use_token(
    connection: &mut Connection,
    hash: String,
    node: &NodeId,
    now: u64,
    sign: Box<dyn FnOnce() -> Option<String> + Send>,
) -> rusqlite::Result<Used> {
    let tx = connection.transaction()?;
    let found: Option<String> = tx
        .query_row(
            "SELECT node FROM tokens WHERE hash=? AND used IS NULL AND expires > ?",
            params![hash, now.cast_signed()],
            |row| row.get(0),
        )
        .optional()?;
    if found.as_deref() != Some(node.as_str()) {
        return Ok(Used::No);
    }
    let Some(fingerprint) = sign() else { return Ok(Used::NotSigned) };
    tx.execute("UPDATE tokens SET used=? WHERE hash=?", params![now.cast_signed(), hash])?;
    tx.execute(
        "INSERT INTO nodes(node, enrolled, fingerprint) VALUES(?,?,?)
         ON CONFLICT(node) DO UPDATE SET enrolled=excluded.enrolled, fingerprint=excluded.fingerprint",
        params![node.as_str(), now.cast_signed(), fingerprint],
    )?;
    tx.commit()?;
    Ok(Used::Signed(fingerprint))
}
