//! What must be remembered: SQLite in WAL mode, one writer on a thread of its own, one reader beside it.
//!
//! ```text
//! owner ──Batch{writes, after}──▶ writer thread ── one transaction for all that waits ──▶ after(…)
//! pages, playlists ──closure──▶ reader thread
//! ```
//!
//! What comes `after` a batch (an answer, an ack) happens only once it is stored. `synchronous=NORMAL`:
//! after a power cut the last moments may be missing, never half of one; nodes send again what was not acked.

mod fleet;
mod listing;
mod query;
mod schema;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_protocol::message::Birth;
use headwater_protocol::{Ladder, NodeId, StreamId, TaskId, UpdateId};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::rollout::Campaign;
use write::{commit, use_token};

pub use fleet::{Desired, REMEMBERED};
pub use query::{Playlist, PlaylistEntry, StreamRow, Window};
pub use write::{Ending, Write};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database {path}: {source}")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("database {path} is of version {found}, this program knows {known}; run a newer one")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("database: {0}")]
    Sql(#[from] rusqlite::Error),
    #[error("{0}")]
    NotStored(String),
    #[error("the database thread has ended")]
    Gone,
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
    certificates: Certificates,
    missed: Arc<AtomicBool>,
}

/// SHA-256 of each node's newest certificate, as the database has it.
type Certificates = Arc<Mutex<HashMap<NodeId, String>>>;

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
    /// Segments each node did and failed.
    pub counts: HashMap<NodeId, (u64, u64)>,
    pub next_run: u64,
    pub campaigns: BTreeMap<UpdateId, Campaign>,
    pub configs: BTreeMap<NodeId, Desired>,
    /// And when each was heard of last, since 1970.
    pub births: BTreeMap<NodeId, (u64, Birth)>,
}

/// What is not over.
#[derive(Debug, Clone, Default)]
pub struct Open {
    pub tasks: Vec<TaskId>,
    pub streams: Vec<OpenStream>,
}

/// A stream as it was opened; `run` tells it from earlier ones of the same name, `at` is since 1970.
#[derive(Debug, Clone)]
pub struct OpenStream {
    pub stream: StreamId,
    pub run: u64,
    pub ladder: Option<Ladder>,
    pub resolution: Option<String>,
    pub at: u64,
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
        let certificates = Arc::new(Mutex::new(schema::certificates(&writer)?));
        let current = Arc::clone(&certificates);
        let reader = Connection::open(path).map_err(opened)?;
        reader.busy_timeout(std::time::Duration::from_secs(5))?;
        reader.pragma_update(None, "query_only", true)?;
        let missed = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&missed);
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
            spawn(
                "store-write",
                Box::new(move || write_loop(writer, batch_queue, token_queue, &current, &tell)),
            )
            .map_err(failed)?,
            spawn("store-read", Box::new(move || read_loop(&reader, read_queue))).map_err(failed)?,
        ];
        Ok((Self { batches, reads, tokens, certificates, missed }, remembered, Threads(threads)))
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

    /// Whether a batch was not stored since this was asked last.
    pub fn has_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    /// Stores all or nothing, and waits until it is.
    pub async fn write_now(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let (done, stored) = oneshot::channel();
        let after: After = Box::new(move |result| {
            let _ = done.send(result);
        });
        self.write(writes, vec![after]).await;
        stored.await.map_err(|_| StoreError::Gone)?.map_err(StoreError::NotStored)
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

impl Store {
    /// Whether this is the certificate that the node got last. A node this database does not know passes:
    /// the CA vouches for it, and a lost database must not lock a fleet out.
    pub fn is_current(&self, node: &NodeId, fingerprint: &str) -> bool {
        let current = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        current.get(node).is_none_or(|newest| newest == fingerprint)
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
    current: &Mutex<HashMap<NodeId, String>>,
    missed: &AtomicBool,
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
                    missed.store(true, Ordering::Relaxed);
                    error.to_string()
                });
                for after in batch.after {
                    after(result.clone());
                }
            }
        }
        while let Ok(token) = tokens.try_recv() {
            let used = use_token(&mut connection, token.hash, &token.node, token.now, token.fingerprint);
            let used = used.map(|used| match used {
                write::Used::No => false,
                write::Used::NotSigned => true,
                write::Used::Signed(fingerprint) => {
                    // After the commit, and here alone: memory never gets ahead of the database.
                    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
                    current.insert(token.node, fingerprint);
                    true
                }
            });
            let _ = token.reply.send(used.map_err(StoreError::from));
        }
    }
}

#[cfg(test)]
mod tests;
