//! One `headwater-worker serve`: its process, its socket, its last words.
//!
//! ```text
//!             socketpair, child's end is its standard input
//!   Worker ◀════════════════════════════════════════════▶ headwater-worker   own process group
//!      └── Tail ◀──────────────── standard error ────────────┘
//! ```
//!
//! The agent never waits for a worker without a deadline, and a worker never outlives its `Worker`: it ends by
//! [`Worker::close`] or [`Worker::kill`], which both reap it, and by the end of its socket when the agent is killed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use headwater_protocol::worker::{BadFrame, HEADER, Header, Kind, MAX_PAYLOAD, Open, Ready};
use headwater_protocol::{Code, Fault, Ladder, StreamId};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// From SIGTERM to SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// From `Close` to SIGTERM.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// For the exit status and the rest of standard error after the socket has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Last bytes of standard error that are kept as evidence.
const TAIL: usize = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("cannot start {path}: {source}")]
    Start { path: PathBuf, source: io::Error },
    #[error("the worker was not ready within {0:?}")]
    NotReady(Duration),
    #[error("the worker ended before it was ready: {0}")]
    EndedEarly(String),
    #[error("the worker refused to start: {0}")]
    Refused(Fault),
    #[error("the worker's socket: {0}")]
    Socket(#[from] io::Error),
    #[error("the worker spoke nonsense: {0}")]
    Frame(#[from] BadFrame),
    #[error("the worker's {what} cannot be read: {source}")]
    Payload { what: &'static str, source: serde_json::Error },
    #[error("the worker said {0:?} out of turn")]
    OutOfTurn(Kind),
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) payload: Bytes,
}

impl Frame {
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self, what: &'static str) -> Result<T, WorkerError> {
        serde_json::from_slice(&self.payload).map_err(|source| WorkerError::Payload { what, source })
    }
}

/// Reads frames. Waiting for one may be abandoned at any time without loss.
#[derive(Debug)]
pub(crate) struct Reader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
}

impl Reader {
    /// The next frame, or None at the end of the socket.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, WorkerError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take(&mut self) -> Result<Option<Frame>, WorkerError> {
        let Some(head) = self.buffer.first_chunk::<HEADER>() else {
            self.buffer.reserve(64 * 1024);
            return Ok(None);
        };
        let header = Header::decode(*head)?;
        let whole = HEADER + header.length as usize;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(header.length as usize).freeze();
        Ok(Some(Frame { header, payload }))
    }
}

/// Writes frames. A write that is abandoned leaves half a frame, so the worker must be killed after that.
#[derive(Debug)]
pub(crate) struct Writer {
    socket: OwnedWriteHalf,
}

impl Writer {
    pub(crate) async fn data(&mut self, tag: u16, bytes: Bytes) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(MAX_PAYLOAD));
            self.frame(Kind::Data, tag, part).await?;
        }
        Ok(())
    }

    pub(crate) async fn empty(&mut self, kind: Kind, tag: u16) -> io::Result<()> {
        self.frame(kind, tag, Bytes::new()).await
    }

    pub(crate) async fn message(&mut self, kind: Kind, tag: u16, message: &impl Serialize) -> io::Result<()> {
        let payload = serde_json::to_vec(message)?;
        self.frame(kind, tag, payload.into()).await
    }

    async fn frame(&mut self, kind: Kind, tag: u16, payload: Bytes) -> io::Result<()> {
        // Callers cut media to MAX_PAYLOAD, and messages are far smaller.
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let header = Header { length, kind, channel: 0, tag }.encode();
        let mut both = Buf::chain(&header[..], payload);
        self.socket.write_all_buf(&mut both).await
    }
}

/// The last bytes that the worker wrote to standard error.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        // A panic while holding this lock is impossible to see from here; the bytes are only evidence.
        let mut kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        let excess = (kept.len() + new.len()).saturating_sub(TAIL);
        kept.drain(..excess);
        kept.extend(new);
    }

    pub(crate) fn text(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        String::from_utf8_lossy(kept.make_contiguous()).into_owned()
    }
}

async fn follow(mut stderr: ChildStderr, tail: Tail) {
    let mut buffer = [0; 2048];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        tail.push(&buffer[..count]);
        tracing::debug!(target: "worker", "{}", String::from_utf8_lossy(&buffer[..count]).trim_end());
    }
}

/// The worker's binary, ready to be started in a process group of its own.
pub(crate) fn command(path: &Path, verb: &str) -> Command {
    let mut command = Command::new(path);
    command.arg(verb).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    // What the service manager told the agent is not the worker's to answer.
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
    command
}

#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    group: Pid,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    tail: Tail,
    follower: JoinHandle<()>,
    pub(crate) ladder: Ladder,
    pub(crate) segments: u64,
}

impl Worker {
    /// Starts a worker and waits until it is ready, at most `deadline`.
    pub(crate) async fn start(
        path: &Path,
        stream: &StreamId,
        ladder: &Ladder,
        deadline: Duration,
    ) -> Result<Self, Fault> {
        let mut worker =
            Self::spawn(path, ladder).map_err(|error| Fault::new(Code::WorkerStart, error.to_string()))?;
        let result = timeout(deadline, worker.open(stream)).await;
        match result.unwrap_or(Err(WorkerError::NotReady(deadline))) {
            Ok(()) => Ok(worker),
            Err(WorkerError::Refused(fault)) => {
                worker.kill().await;
                Err(fault)
            }
            Err(error) => {
                let tail = worker.tail.clone();
                worker.kill().await;
                Err(Fault::new(Code::WorkerStart, error.to_string()).with_detail(tail.text()))
            }
        }
    }

    fn spawn(path: &Path, ladder: &Ladder) -> Result<Self, WorkerError> {
        let failed = |source| WorkerError::Start { path: path.to_owned(), source };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut child = command(path, "serve")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = Pid::from_raw(id.ok_or_else(|| failed(io::Error::other("it has no process id")))?);
        let tail = Tail::default();
        let follower = match child.stderr.take() {
            Some(stderr) => tokio::spawn(follow(stderr, tail.clone())),
            None => return Err(failed(io::Error::other("it has no standard error"))),
        };
        let (socket, write) = UnixStream::from_std(ours).map_err(failed)?.into_split();
        Ok(Self {
            child,
            group,
            reader: Reader { socket, buffer: BytesMut::new() },
            writer: Writer { socket: write },
            tail,
            follower,
            ladder: ladder.clone(),
            segments: 0,
        })
    }

    async fn open(&mut self, stream: &StreamId) -> Result<(), WorkerError> {
        let open = Open { stream: stream.clone(), ladder: self.ladder.clone() };
        self.writer.message(Kind::Open, 0, &open).await?;
        match self.reader.next().await? {
            Some(frame) if frame.header.kind == Kind::Ready => {
                let ready: Ready = frame.parse("readiness")?;
                tracing::debug!(version = ready.worker_version, "worker is ready");
                Ok(())
            }
            Some(frame) if frame.header.kind == Kind::Failed => {
                Err(WorkerError::Refused(frame.parse("fault")?))
            }
            Some(frame) => Err(WorkerError::OutOfTurn(frame.header.kind)),
            None => Err(WorkerError::EndedEarly(self.epitaph().await)),
        }
    }

    /// Resident memory in bytes; 0 when it is gone.
    pub(crate) fn memory(&self) -> u64 {
        let pages = std::fs::read_to_string(format!("/proc/{}/statm", self.group)).ok();
        let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or(0) * 4096
    }

    pub(crate) fn tail(&self) -> String {
        self.tail.text()
    }

    /// After the end of the socket: how the process ended, in words.
    pub(crate) async fn epitaph(&mut self) -> String {
        let status = timeout(LAST_WORDS, self.child.wait()).await;
        // What it wrote last is still in the pipe.
        let _ = timeout(LAST_WORDS, &mut self.follower).await;
        match status {
            Ok(Ok(status)) => describe(status),
            Ok(Err(error)) => format!("its exit status cannot be read: {error}"),
            Err(_) => "it closed its socket and went on".to_owned(),
        }
    }

    /// Asks it to end, and insists.
    pub(crate) async fn close(mut self) {
        let asked = timeout(CLOSE_GRACE, async {
            self.writer.empty(Kind::Close, 0).await?;
            self.child.wait().await
        });
        if !matches!(asked.await, Ok(Ok(_))) {
            self.kill().await;
        }
    }

    /// SIGTERM to its group, a second, SIGKILL; then reaps it.
    pub(crate) async fn kill(mut self) {
        let _ = killpg(self.group, Signal::SIGTERM);
        let ended = timeout(TERM_GRACE, self.child.wait()).await;
        // Also for what it may have started itself.
        let _ = killpg(self.group, Signal::SIGKILL);
        if ended.is_err()
            && let Err(error) = self.child.wait().await
        {
            tracing::error!(%error, pid = %self.group, "cannot reap a worker");
        }
        self.follower.abort();
    }
}

impl Drop for Worker {
    /// Where its owner was stopped in the middle; the runtime reaps it.
    fn drop(&mut self) {
        // None once it is reaped: then the number may be another's.
        if self.child.id().is_some() {
            let _ = killpg(self.group, Signal::SIGKILL);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal().map(Signal::try_from), status.code()) {
        (Some(Ok(signal)), _) => format!("killed by {}", signal.as_str()),
        (Some(Err(_)), _) => "killed by an unknown signal".to_owned(),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_the_end_of_what_was_written_however_much_it_was() {
        let tail = Tail::default();
        for _ in 0..100 {
            tail.push(&[b'x'; 3000]);
        }
        tail.push(b"last");
        assert_eq!(tail.text().len(), TAIL);
        assert!(tail.text().ends_with("xlast"));
        tail.push(&[b'y'; 3 * TAIL]);
        assert_eq!(tail.text(), "y".repeat(TAIL));
    }
}
