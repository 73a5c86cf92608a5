//! What must be remembered: SQLite in WAL mode, one writer on a thread of its own, one reader beside it.
//!
//! ```text
//! owner ──Batch{writes, after}──▶ writer thread ── one transaction for all that waits ──▶ after(…)
//! pages, playlists ──closure──▶ reader thread
//! ```
//!
//! What comes `after` a batch (an answer, an ack) happens only once it is stored. `synchronous=NORMAL`:
//! after a power cut the last moments may be missing, never half of one; nodes send again what was not acked.

mod query;
mod schema;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use headwater_protocol::message::EventNumber;
use headwater_protocol::{
    Code, Container, Epoch, Fault, Ladder, Millis, NodeId, SegmentReport, StreamId, TaskId,
};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::{mpsc, oneshot};

pub use query::{PlaylistEntry, StreamRow};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database {path}: {source}")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("database {path} is of version {found}, this program knows {known}; run a newer one")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("database: {0}")]
    Sql(#[from] rusqlite::Error),
    #[error("the database thread has ended")]
    Gone,
}

#[derive(Debug, Clone)]
pub enum Ending {
    /// Nothing was asked for; the segment itself can be watched.
    Passed,
    Failed(Fault),
}

/// One change.
#[derive(Debug, Clone)]
pub enum Write {
    StreamOpened {
        stream: StreamId,
        run: u64,
        ladder: Option<Ladder>,
        resolution: Option<String>,
        at: u64,
    },
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
}

/// Told whether the batch is stored; the text says why not.
pub type After = Box<dyn FnOnce(Result<(), String>) + Send>;

struct Batch {
    writes: Vec<Write>,
    after: Vec<After>,
}

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Batches that may wait. A full queue makes the owner wait: with a disk that slow, new work only hurts.
const QUEUE: usize = 1024;

#[derive(Clone)]
pub struct Store {
    batches: mpsc::Sender<Batch>,
    reads: mpsc::Sender<Read>,
    tokens: mpsc::Sender<UseToken>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

struct UseToken {
    hash: String,
    node: NodeId,
    fingerprint: Box<dyn FnOnce() -> Option<String> + Send>,
    now: u64,
    reply: oneshot::Sender<Result<bool, StoreError>>,
}

/// What a fresh daemon must know of its earlier life.
#[derive(Debug, Default)]
pub struct Remembered {
    pub positions: HashMap<NodeId, (String, u64)>,
    pub next_run: u64,
}

/// Joined on the way out, so that everything is stored when the process ends.
#[derive(Debug)]
pub struct Threads(Vec<std::thread::JoinHandle<()>>);

impl Threads {
    pub fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a database thread panicked");
            }
        }
    }
}

impl Store {
    pub fn open(path: &Path) -> Result<(Self, Remembered, Threads), StoreError> {
        let opened = |source| StoreError::Open { path: path.to_owned(), source };
        let mut writer = Connection::open(path).map_err(opened)?;
        schema::prepare(&mut writer, path)?;
        let remembered = schema::recover(&mut writer)?;
        let reader = Connection::open(path).map_err(opened)?;
        reader.busy_timeout(std::time::Duration::from_secs(5))?;
        reader.pragma_update(None, "query_only", true)?;
        let (batches, batch_queue) = mpsc::channel(QUEUE);
        // A full queue makes its asker wait; pages are not urgent.
        let (reads, read_queue) = mpsc::channel(64);
        let (tokens, token_queue) = mpsc::channel(16);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run)
        };
        let failed = |source: std::io::Error| StoreError::Open {
            path: path.to_owned(),
            source: rusqlite::Error::ToSqlConversionFailure(Box::new(source)),
        };
        let threads = vec![
            spawn("store-write", Box::new(move || write_loop(writer, batch_queue, token_queue)))
                .map_err(failed)?,
            spawn("store-read", Box::new(move || read_loop(&reader, read_queue))).map_err(failed)?,
        ];
        Ok((Self { batches, reads, tokens }, remembered, Threads(threads)))
    }

    pub async fn write(&self, writes: Vec<Write>, after: Vec<After>) {
        if let Err(mpsc::error::SendError(batch)) = self.batches.send(Batch { writes, after }).await {
            for after in batch.after {
                after(Err(StoreError::Gone.to_string()));
            }
        }
    }

    /// A change nobody waits for; lost, with a line in the log, where the queue is full.
    pub fn note(&self, write: Write) {
        if self.batches.try_send(Batch { writes: vec![write], after: Vec::new() }).is_err() {
            tracing::warn!("database busy; a note was dropped");
        }
    }

    /// Stores and waits until it is.
    pub async fn write_now(&self, write: Write) -> Result<(), StoreError> {
        let (done, stored) = oneshot::channel();
        let after: After = Box::new(move |result| {
            let _ = done.send(result.is_ok());
        });
        self.write(vec![write], vec![after]).await;
        match stored.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(StoreError::Gone),
        }
    }

    pub async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            let _ = reply.send(ask(connection));
        });
        self.reads.send(read).await.map_err(|_| StoreError::Gone)?;
        Ok(answer.await.map_err(|_| StoreError::Gone)??)
    }

    /// Uses an enrolment token, once: `sign` runs while it is held, and a failure there leaves it usable.
    pub async fn use_token(
        &self,
        hash: String,
        node: NodeId,
        now: u64,
        sign: impl FnOnce() -> Option<String> + Send + 'static,
    ) -> Result<bool, StoreError> {
        let (reply, answer) = oneshot::channel();
        let message = UseToken { hash, node, fingerprint: Box::new(sign), now, reply };
        self.tokens.send(message).await.map_err(|_| StoreError::Gone)?;
        // Wakes the writer, which sleeps on its batches.
        self.write(Vec::new(), Vec::new()).await;
        answer.await.map_err(|_| StoreError::Gone)?
    }
}

fn read_loop(connection: &Connection, mut queue: mpsc::Receiver<Read>) {
    while let Some(read) = queue.blocking_recv() {
        read(connection);
    }
}

fn write_loop(
    mut connection: Connection,
    mut queue: mpsc::Receiver<Batch>,
    mut tokens: mpsc::Receiver<UseToken>,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut batches = vec![first];
        // Everything that waits shares a commit.
        while batches.len() < 64
            && let Ok(next) = queue.try_recv()
        {
            batches.push(next);
        }
        if commit(&mut connection, &batches).is_ok() {
            for after in batches.into_iter().flat_map(|batch| batch.after) {
                after(Ok(()));
            }
        } else {
            // One that cannot be stored must not take the others along.
            for batch in batches {
                let stored = commit(&mut connection, std::slice::from_ref(&batch));
                let result = stored.map_err(|error| {
                    tracing::error!(%error, "not stored");
                    error.to_string()
                });
                for after in batch.after {
                    after(result.clone());
                }
            }
        }
        while let Ok(token) = tokens.try_recv() {
            let used = use_token(&mut connection, token.hash, &token.node, token.now, token.fingerprint);
            let _ = token.reply.send(used.map_err(StoreError::from));
        }
    }
}

fn commit(connection: &mut Connection, batches: &[Batch]) -> rusqlite::Result<()> {
    if batches.iter().all(|batch| batch.writes.is_empty()) {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for write in batches.iter().flat_map(|batch| &batch.writes) {
        apply(&transaction, write)?;
    }
    transaction.commit()
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn apply(tx: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| tx.prepare_cached(sql)?.execute(values);
    match write {
        Write::StreamOpened { stream, run: number, ladder, resolution, at } => run(
            "INSERT INTO streams(stream, run, started, live, ladder, resolution) VALUES(?,?,?,1,?,?)
             ON CONFLICT(stream) DO UPDATE SET run=excluded.run, started=excluded.started, live=1,
             ladder=excluded.ladder, resolution=excluded.resolution, node=NULL, removed=0",
            params![stream.as_str(), number.cast_signed(), at.cast_signed(), ladder.as_ref().map(json).transpose()?, resolution],
        )?,
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
            run("UPDATE streams SET node=? WHERE stream=?", params![node.as_str(), stream.as_str()])?
        }
        Write::TaskEnded { task, ending, attempts, at } => {
            let (state, fault) = match ending {
                Ending::Passed => ("done", None),
                Ending::Failed(fault) => ("failed", Some(json(fault)?)),
            };
            run(
                "UPDATE tasks SET state=?, fault=?, attempts=?, ended=? WHERE task=? AND winner IS NULL",
                params![state, fault, attempts, at.cast_signed(), task.as_str()],
            )?
        }
        Write::Position { node, number } => run(
            "INSERT INTO outboxes(node, outbox, n) VALUES(?,?,?)
             ON CONFLICT(node) DO UPDATE SET outbox=excluded.outbox, n=excluded.n",
            params![node.as_str(), number.outbox, number.n.cast_signed()],
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
        Write::TasksRemoved { tasks } => {
            for task in tasks {
                run(
                    "UPDATE streams SET removed = removed + 1 WHERE EXISTS(SELECT 1 FROM tasks
                     WHERE task=?1 AND state='done' AND tasks.stream=streams.stream AND tasks.run=streams.run)",
                    params![task.as_str()],
                )?;
                run("DELETE FROM attempts WHERE task=?", params![task.as_str()])?;
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

fn use_token(
    connection: &mut Connection,
    hash: String,
    node: &NodeId,
    now: u64,
    sign: Box<dyn FnOnce() -> Option<String> + Send>,
) -> rusqlite::Result<bool> {
    let tx = connection.transaction()?;
    let found: Option<String> = tx
        .query_row(
            "SELECT node FROM tokens WHERE hash=? AND used IS NULL AND expires > ?",
            params![hash, now.cast_signed()],
            |row| row.get(0),
        )
        .optional()?;
    if found.as_deref() != Some(node.as_str()) {
        return Ok(false);
    }
    let Some(fingerprint) = sign() else { return Ok(true) };
    tx.execute("UPDATE tokens SET used=? WHERE hash=?", params![now.cast_signed(), hash])?;
    tx.execute(
        "INSERT INTO nodes(node, enrolled, fingerprint) VALUES(?,?,?)
         ON CONFLICT(node) DO UPDATE SET enrolled=excluded.enrolled, fingerprint=excluded.fingerprint",
        params![node.as_str(), now.cast_signed(), fingerprint],
    )?;
    // A node enrolled anew starts with a new outbox; the old one's place means nothing to it.
    tx.commit()?;
    Ok(true)
}

#[cfg(test)]
mod tests;
