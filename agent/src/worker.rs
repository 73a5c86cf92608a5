//! One `headwater-worker serve`: its process, its socket, its last words.
//!
//! ```text
//!             socketpair, child's end is its standard input
//!   Worker ◀════════════════════════════════════════════▶ headwater-worker   own process group
//!      └── Output ◀───── standard output and error ──────────┘
//! ```
//!
//! The agent never waits for a worker without a deadline, and a worker never outlives its `Worker`: it ends by
//! [`Worker::close`] or [`Worker::kill`], which both reap it, and by the end of its socket when the agent is killed.
//! One that not even SIGKILL ends, because its driver does not come back, is left to the kernel.

mod frames;
mod output;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_protocol::worker::{Avoid, BadFrame, Hardware, Kind, Open, Ready};
use headwater_protocol::{Code, Evidence, Fault, Ladder, StreamId};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use self::frames::{Frame, Reader, Writer};
use self::output::Output;
use crate::sessions::Grant;

/// From SIGTERM to SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// From SIGKILL to giving up: the kernel needs a moment to free a large process, a driver that hangs never ends.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// From `Close` to SIGTERM.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// For the exit status and the rest of the output after the socket has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

/// The worker's binary, ready to be started in a process group of its own.
pub(crate) fn command(path: &Path, verb: &str) -> Command {
    let mut command = Command::new(path);
    command.arg(verb).process_group(0).kill_on_drop(true);
    // What the service manager told the agent is not the worker's to answer.
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
    command
}

/// How the end of a process went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Gone,
    /// It is still there after SIGKILL: a driver holds it. What that driver drives is lost until the next boot.
    Stuck,
}

/// A worker's process that has not been told yet what it is for.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Pid,
    reader: Reader,
    writer: Writer,
    output: Output,
    follower: JoinHandle<()>,
}

impl Process {
    pub(crate) fn spawn(path: &Path) -> Result<Self, WorkerError> {
        let failed = |source| WorkerError::Start { path: path.to_owned(), source };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let (printed, print) = io::pipe().map_err(failed)?;
        let child = command(path, "serve")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(print.try_clone().map_err(failed)?)
            .stderr(print)
            .spawn()
            .map_err(failed)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = Pid::from_raw(id.ok_or_else(|| failed(io::Error::other("it has no process id")))?);
        let printed = pipe::Receiver::from_owned_fd(printed.into()).map_err(failed)?;
        let (reader, writer) = frames::split(UnixStream::from_std(ours).map_err(failed)?);
        let output = Output::new();
        let follower = tokio::spawn(output::follow(printed, output.clone()));
        Ok(Self { child, group, reader, writer, output, follower })
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM to its group, a second, SIGKILL; then reaps it, if it can be. One that was given up in its middle can be
    /// tried again.
    pub(crate) async fn kill(&mut self) -> Fate {
        let _ = killpg(self.group, Signal::SIGTERM);
        let mut ended = timeout(TERM_GRACE, self.child.wait()).await;
        // Also for what it may have started itself.
        let _ = killpg(self.group, Signal::SIGKILL);
        if ended.is_err() {
            ended = timeout(KILL_GRACE, self.child.wait()).await;
        }
        match ended {
            Ok(Ok(_)) => Fate::Gone,
            Ok(Err(error)) => {
                tracing::error!(%error, pid = %self.group, "cannot reap a worker");
                Fate::Gone
            }
            // The runtime reaps it, should it ever end.
            Err(_) => Fate::Stuck,
        }
    }
}

impl Drop for Process {
    /// Where its owner was stopped in the middle; the runtime reaps it.
    fn drop(&mut self) {
        self.follower.abort();
        // None once it is reaped: then the number may be another's.
        if self.child.id().is_some() {
            let _ = killpg(self.group, Signal::SIGKILL);
        }
    }
}

/// What a worker has said beside its answers.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Elements with a device behind them that it uses or has used.
    pub(crate) hardware: BTreeSet<String>,
    /// For the failure that comes next.
    pub(crate) evidence: Option<Evidence>,
}

impl Notes {
    /// Gives the frame back where it is none of these.
    pub(crate) fn take(&mut self, frame: Frame) -> Result<Option<Frame>, WorkerError> {
        match frame.header.kind {
            Kind::Hardware => {
                let Hardware { elements } = frame.parse("list of hardware")?;
                self.hardware.extend(elements);
                Ok(None)
            }
            Kind::Evidence => {
                self.evidence = Some(frame.parse::<Evidence>("evidence")?);
                Ok(None)
            }
            _ => Ok(Some(frame)),
        }
    }
}

/// A worker of one stream.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Process,
    opened: Instant,
    pub(crate) notes: Notes,
    pub(crate) ladder: Ladder,
    /// What it plans without.
    pub(crate) avoid: Arc<[Avoid]>,
    pub(crate) segments: u64,
    /// After the process, which has what this stands for.
    pub(crate) grant: Grant,
}

impl Worker {
    pub(crate) fn new(process: Process, ladder: &Ladder, avoid: Arc<[Avoid]>, grant: Grant) -> Self {
        Self {
            process,
            opened: Instant::now(),
            notes: Notes::default(),
            ladder: ladder.clone(),
            avoid,
            segments: 0,
            grant,
        }
    }

    /// Tells the process what it is for and waits until it is ready, at most `deadline`. One that does not get ready,
    /// or is not waited for, still has to be killed.
    pub(crate) async fn open(&mut self, stream: &StreamId, deadline: Duration) -> Result<(), Fault> {
        let result = timeout(deadline, self.greet(stream)).await;
        match result.unwrap_or(Err(WorkerError::NotReady(deadline))) {
            Ok(()) => Ok(()),
            Err(WorkerError::Refused(fault)) => Err(fault),
            Err(error) => {
                let code = match error {
                    WorkerError::EndedEarly(_) => Code::WorkerCrashed,
                    WorkerError::Start { .. }
                    | WorkerError::NotReady(_)
                    | WorkerError::Refused(_)
                    | WorkerError::Socket(_)
                    | WorkerError::Frame(_)
                    | WorkerError::Payload { .. }
                    | WorkerError::OutOfTurn(_) => Code::WorkerStart,
                };
                Err(Fault::new(code, error.to_string()).with_detail(self.printed()))
            }
        }
    }

    async fn greet(&mut self, stream: &StreamId) -> Result<(), WorkerError> {
        let open = Open {
            stream: stream.clone(),
            ladder: self.ladder.clone(),
            avoid: self.avoid.to_vec(),
            sessions: self.grant.told().clone(),
        };
        // A process that is gone is found out by reading.
        let _ = self.process.writer.message(Kind::Open, 0, &open).await;
        loop {
            let frame = match self.process.reader.next().await {
                Ok(Some(frame)) => frame,
                // One that dies with `Open` unread resets its socket.
                Ok(None) | Err(WorkerError::Socket(_)) => {
                    return Err(WorkerError::EndedEarly(self.epitaph().await));
                }
                Err(error) => return Err(error),
            };
            let Some(frame) = self.notes.take(frame)? else { continue };
            return match frame.header.kind {
                Kind::Ready => {
                    let ready: Ready = frame.parse("readiness")?;
                    tracing::debug!(version = ready.worker_version, "worker is ready");
                    Ok(())
                }
                Kind::Failed => Err(WorkerError::Refused(frame.parse("fault")?)),
                kind => Err(WorkerError::OutOfTurn(kind)),
            };
        }
    }

    /// What a segment's run needs at the same time.
    pub(crate) fn parts(&mut self) -> (&mut Reader, &mut Writer, &mut Notes) {
        (&mut self.process.reader, &mut self.process.writer, &mut self.notes)
    }

    /// Resident memory in bytes; 0 when it is gone.
    pub(crate) fn memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.group)).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    }

    /// Since its stream began: as a spare it did nothing.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// The end of what it has printed.
    pub(crate) fn printed(&self) -> String {
        self.process.output.text()
    }

    /// What it prints from now on is part of the present span's log.
    pub(crate) fn works_on(&self, span: tracing::Span) {
        self.process.output.belongs_to(span);
    }

    /// After the end of the socket: how the process ended, in words.
    pub(crate) async fn epitaph(&mut self) -> String {
        let status = timeout(LAST_WORDS, self.process.child.wait()).await;
        // What it wrote last is still in the pipe.
        let _ = timeout(LAST_WORDS, &mut self.process.follower).await;
        match status {
            Ok(Ok(status)) => describe(status),
            Ok(Err(error)) => format!("its exit status cannot be read: {error}"),
            Err(_) => "it closed its socket and went on".to_owned(),
        }
    }

    /// Asks it to end, and insists. One that was given up in its middle can be killed.
    pub(crate) async fn close(&mut self) -> Fate {
        self.grant.ending();
        let asked = timeout(CLOSE_GRACE, async {
            self.process.writer.empty(Kind::Close, 0).await?;
            self.process.child.wait().await
        });
        if matches!(asked.await, Ok(Ok(_))) { Fate::Gone } else { self.kill().await }
    }

    pub(crate) async fn kill(&mut self) -> Fate {
        self.grant.ending();
        let fate = self.process.kill().await;
        if fate == Fate::Stuck {
            self.grant.lost(self.process.group);
        }
        fate
    }

    #[cfg(test)]
    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.is_alive()
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
