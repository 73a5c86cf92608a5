//! The node's events, numbered, on disk until the gateway has them.
//!
//! ```text
//!   push ─▶ live, not stored ─▶ take_work ─▶ [write + fdatasync] ─▶ written ─▶ stored ─▶ next_unsent ─▶ MQTT
//!                                                                                └── ack ──▶ forgotten
//! ```
//!
//! The file is lines of JSON: a head, then events in the order of their numbers and acks between them. A number is
//! published only after its line is synced, so a torn end of the file was never seen by anyone and is cut off.
//! Damage before the end means that published lines were lost: then the outbox gets a new id, and what can be read
//! is numbered anew, so that no number ever means two things. The same where the gateway lost what it had acknowledged, as
//! by a power cut or a restored backup. Acks are not synced for their own sake: losing one costs a repetition, which the
//! gateway drops.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use headwater_protocol::message::{Event, EventKind, EventNumber};
use headwater_protocol::{Epoch, TaskId};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::node::AttemptId;

/// Events that may wait for an ack, and their bytes. Full: offers are refused with `storage`; the ends of attempts
/// that were accepted before are still taken, and there are only as many of those as the queues allow.
const MAX_EVENTS: usize = 10_000;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The file is written anew past this size, once most of it is acknowledged.
const COMPACT_BYTES: u64 = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboxError {
    #[error("cannot {verb} the outbox {path}: {source}")]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("the outbox cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

/// First line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    outbox: String,
    /// Number of the first event that may follow.
    next: u64,
    /// Accepted, and without an end in what follows.
    open: BTreeSet<(TaskId, Epoch)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Ack { acked: u64 },
    Event(Box<Event>),
}

#[derive(Debug, Clone)]
struct Entry {
    n: u64,
    json: Bytes,
}

/// What must be written next. At most one is on its way at a time.
#[derive(Debug)]
pub(crate) enum Work {
    Append { bytes: Vec<u8>, upto: u64 },
    Rewrite { bytes: Vec<u8>, upto: u64 },
}

#[derive(Debug)]
pub(crate) struct Outbox {
    id: String,
    next: u64,
    acked: u64,
    stored: u64,
    sent: u64,
    /// The number that the gateway asked to go on from, so that it is obeyed once: each event behind a gap asks.
    resumed: u64,
    live: VecDeque<Entry>,
    live_bytes: usize,
    open: BTreeSet<(TaskId, Epoch)>,
    pending: Vec<u8>,
    file_bytes: u64,
    writing: bool,
    /// The file must be written anew: it grew, or a write failed and its end is not known.
    rewrite: bool,
    broken: bool,
    /// To be numbered anew, once the write is through that is on its way.
    anew: bool,
}

impl Outbox {
    fn empty(id: String) -> Self {
        Self {
            id,
            next: 1,
            acked: 0,
            stored: 0,
            sent: 0,
            resumed: 0,
            live: VecDeque::new(),
            live_bytes: 0,
            open: BTreeSet::new(),
            pending: Vec::new(),
            file_bytes: 0,
            writing: false,
            rewrite: true,
            broken: false,
            anew: false,
        }
    }

    /// Reads what a file holds. `fresh_id` is used where there is none or it is damaged.
    pub(crate) fn read(bytes: &[u8], fresh_id: String) -> Result<Self, OutboxError> {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let mut lines =
            bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).peekable();
        let Some(head) = lines
            .next()
            .and_then(|line| serde_json::from_slice::<Head>(line).ok())
            .filter(|head| head.next > 0)
        else {
            // Without its head nothing says what the numbers mean. What can be read is kept under a new id.
            let mut outbox = Self::empty(fresh_id);
            return outbox.salvage(lines).map(|()| outbox);
        };
        let mut outbox = Self::empty(head.outbox);
        outbox.next = head.next;
        outbox.acked = head.next - 1;
        outbox.open = head.open;
        while let Some(line) = lines.next() {
            match serde_json::from_slice(line) {
                Ok(Line::Ack { acked }) => outbox.forget(acked),
                Ok(Line::Event(event))
                    if event.number.as_ref().is_some_and(|number| number.n == outbox.next) =>
                {
                    outbox.take(&event, Bytes::copy_from_slice(line));
                }
                // The torn end of the last write.
                Ok(Line::Event(_)) | Err(_) if lines.peek().is_none() => break,
                Ok(Line::Event(_)) | Err(_) => {
                    outbox.renumber(fresh_id)?;
                    return outbox.salvage(lines).map(|()| outbox);
                }
            }
        }
        // Under their old numbers they are on disk already.
        outbox.stored = outbox.next - 1;
        Ok(outbox)
    }

    fn renumber(&mut self, id: String) -> Result<(), OutboxError> {
        let old = std::mem::take(&mut self.live);
        let open = std::mem::take(&mut self.open);
        *self = Self::empty(id);
        self.open = open;
        for entry in old {
            let event: Event = serde_json::from_slice(&entry.json)?;
            self.push(event)?;
        }
        Ok(())
    }

    fn salvage<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>) -> Result<(), OutboxError> {
        for line in lines {
            if let Ok(Line::Event(event)) = serde_json::from_slice(line) {
                self.push(*event)?;
            }
        }
        Ok(())
    }

    /// Gives the event its number and keeps it.
    pub(crate) fn push(&mut self, mut event: Event) -> Result<u64, OutboxError> {
        event.number = Some(EventNumber { outbox: self.id.clone(), n: self.next });
        let json = serde_json::to_vec(&event)?;
        self.pending.extend_from_slice(&json);
        self.pending.push(b'\n');
        self.take(&event, json.into());
        Ok(self.next - 1)
    }

    fn take(&mut self, event: &Event, json: Bytes) {
        let attempt = (event.task.clone(), event.epoch);
        match &event.event {
            EventKind::Accepted => {
                self.open.insert(attempt);
            }
            EventKind::Done { .. } | EventKind::Failed { .. } | EventKind::Refused { .. } => {
                self.open.remove(&attempt);
            }
            EventKind::Progress { .. } => {}
        }
        self.live_bytes += json.len();
        self.live.push_back(Entry { n: self.next, json });
        self.next += 1;
    }

    /// Accepted attempts without an end.
    pub(crate) fn open_attempts(&self) -> Vec<AttemptId> {
        self.open.iter().map(|(task, epoch)| AttemptId { task: task.clone(), epoch: *epoch }).collect()
    }

    /// Attempts that the kept events speak of.
    pub(crate) fn known_attempts(&self) -> Vec<AttemptId> {
        let event = |entry: &Entry| serde_json::from_slice::<Event>(&entry.json).ok();
        let known = self.live.iter().filter_map(event);
        known
            .map(|event| AttemptId { task: event.task, epoch: event.epoch })
            .chain(self.open_attempts())
            .collect()
    }

    /// True: offers must be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.broken || self.live.len() >= MAX_EVENTS || self.live_bytes >= MAX_BYTES
    }

    /// The last write failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(crate) fn waiting(&self) -> u32 {
        u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }

    /// Everything is stored, and sent where `sent` is asked for.
    pub(crate) fn is_settled(&self, sent: bool) -> bool {
        let last = self.next - 1;
        self.stored == last && (!sent || self.sent.max(self.acked) == last)
    }

    pub(crate) fn ack(&mut self, number: &EventNumber) -> Result<(), OutboxError> {
        if number.outbox != self.id || number.n >= self.next {
            return Ok(());
        }
        if number.n < self.acked {
            // It would wait for ever for numbers that are forgotten here. What it had before it may get again.
            self.anew = true;
            return self.begin_anew();
        }
        if number.n == self.acked {
            // Said a second time: the gateway missed what follows, as when the broker's queue was full.
            if self.resumed < number.n {
                (self.resumed, self.sent) = (number.n, number.n);
            }
            return Ok(());
        }
        self.forget(number.n);
        // Goes to disk with the next events, or with none at all.
        if let Ok(line) = serde_json::to_vec(&Line::Ack { acked: number.n }) {
            self.pending.extend_from_slice(&line);
            self.pending.push(b'\n');
        }
        Ok(())
    }

    fn begin_anew(&mut self) -> Result<(), OutboxError> {
        if self.writing || !self.anew {
            return Ok(());
        }
        let id = following(&self.id);
        tracing::warn!(
            old = self.id,
            new = id,
            "the gateway has lost what it had acknowledged; the outbox begins anew"
        );
        self.renumber(id)
    }

    fn forget(&mut self, n: u64) {
        while let Some(entry) = self.live.pop_front_if(|entry| entry.n <= n) {
            self.live_bytes -= entry.json.len();
        }
        self.acked = self.acked.max(n.min(self.next - 1));
    }

    /// After a connection: everything that is not acknowledged goes out again.
    pub(crate) fn rewind(&mut self) {
        self.sent = self.acked;
        self.resumed = 0;
    }

    /// The next event to publish, in order. Call [`Outbox::sent`] when it is on its way.
    pub(crate) fn next_unsent(&self) -> Option<(u64, Bytes)> {
        let after = self.sent.max(self.acked);
        let first = self.live.front()?.n;
        // Numbers in `live` have no gaps.
        let index = usize::try_from((after + 1).saturating_sub(first)).ok()?;
        let entry = self.live.get(index)?;
        (entry.n <= self.stored).then(|| (entry.n, entry.json.clone()))
    }

    pub(crate) fn sent(&mut self, n: u64) {
        self.sent = self.sent.max(n);
    }

    /// The next write, if one is due and none is on its way. `tidy`: also what is not urgent.
    pub(crate) fn take_work(&mut self, tidy: bool) -> Result<Option<Work>, OutboxError> {
        if self.writing {
            return Ok(None);
        }
        let upto = self.next - 1;
        let grown =
            self.file_bytes + self.pending.len() as u64 > COMPACT_BYTES.max(2 * self.live_bytes as u64);
        if self.rewrite || grown || (tidy && !self.pending.is_empty()) {
            let bytes = self.image()?;
            self.pending.clear();
            self.writing = true;
            return Ok(Some(Work::Rewrite { bytes, upto }));
        }
        // An ack alone is not worth a write.
        if upto == self.stored {
            return Ok(None);
        }
        self.writing = true;
        Ok(Some(Work::Append { bytes: std::mem::take(&mut self.pending), upto }))
    }

    /// The whole outbox as a file.
    fn image(&self) -> Result<Vec<u8>, OutboxError> {
        // The events below take attempts out of `open` and into it again when they are read; those that were accepted
        // in lines that are gone must be named here. Naming one twice does no harm.
        let head = Head { outbox: self.id.clone(), next: self.acked + 1, open: self.open.clone() };
        let mut bytes = serde_json::to_vec(&head)?;
        bytes.push(b'\n');
        for entry in &self.live {
            bytes.extend_from_slice(&entry.json);
            bytes.push(b'\n');
        }
        Ok(bytes)
    }

    /// How the write that [`Outbox::take_work`] asked for went.
    pub(crate) fn written(&mut self, work: Result<(u64, u64), ()>) -> Result<(), OutboxError> {
        self.writing = false;
        match work {
            Ok((upto, file_bytes)) => {
                self.stored = self.stored.max(upto);
                self.file_bytes = file_bytes;
                (self.rewrite, self.broken) = (false, false);
            }
            Err(()) => (self.rewrite, self.broken) = (true, true),
        }
        self.begin_anew()
    }
}

/// An id that this outbox never had: `ab`, `ab-1`, `ab-2`.
fn following(id: &str) -> String {
    let counted = id.rsplit_once('-').and_then(|(base, count)| Some((base, count.parse::<u64>().ok()?)));
    let (base, count) = counted.unwrap_or((id, 0));
    format!("{base}-{}", count + 1)
}

/// The file under the outbox. Its calls block; the daemon makes them off its loop.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Store {
    pub(crate) fn open(state_dir: &Path, fresh_id: String) -> Result<(Self, Outbox), OutboxError> {
        let folder = state_dir.join("outbox");
        let failed = |verb, path: &Path| {
            let path = path.to_owned();
            move |source| OutboxError::File { verb, path, source }
        };
        files::private_folder(&folder).map_err(failed("create", &folder))?;
        let path = folder.join("events");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(failed("read", &path)(source)),
        };
        let outbox = Outbox::read(&bytes, fresh_id)?;
        Ok((Self { path, file: None, bytes: 0 }, outbox))
    }

    /// Writes and syncs; the last number and the file's size.
    pub(crate) fn write(&mut self, work: &Work) -> io::Result<(u64, u64)> {
        match work {
            Work::Rewrite { bytes, upto } => {
                self.file = None;
                files::write_atomically(&self.path, bytes, 0o600)?;
                self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
                self.bytes = bytes.len() as u64;
                Ok((*upto, self.bytes))
            }
            Work::Append { bytes, upto } => {
                let file = self.file.as_mut().ok_or_else(|| io::Error::other("the file is not open"))?;
                file.write_all(bytes)?;
                file.sync_data()?;
                self.bytes += bytes.len() as u64;
                Ok((*upto, self.bytes))
            }
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
