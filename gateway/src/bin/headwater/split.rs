//! Cuts an input at its keyframes by running `headwater-worker split`, and reads the pieces from its output.
//!
//! ```text
//! worker ──▶ Ready  (Segment Data… End)…  end of file and status 0
//!                                         Failed at any point
//! ```

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use headwater_protocol::worker::{BadFrame, HEADER, Header, Kind, SegmentStart};
use headwater_protocol::{Container, Fault, Millis};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::human;

/// What a gateway takes for one segment.
const MAX_SEGMENT: usize = 300 << 20;
/// Longest silence of the worker; a slow disk is no reason to give up, a hung demuxer is.
const SILENCE: Duration = Duration::from_secs(60);
/// What is kept of its log, as evidence.
const LOG_TAIL: usize = 2048;

/// First word of the worker: what it found.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Found {
    pub(crate) duration_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) container: Container,
    pub(crate) duration: Millis,
    pub(crate) data: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SplitError {
    #[error(
        "cannot find headwater-worker beside this command or in PATH; install it (headwater's pipelines) or \
         pass --worker"
    )]
    NoWorker,
    #[error("cannot start {}: {source}", path.display())]
    Start { path: PathBuf, source: std::io::Error },
    #[error("the input cannot be cut: {}", .0.text)]
    Input(Fault),
    #[error("the worker stopped without saying why ({status}){}", evidence(.log))]
    Stopped { status: String, log: String },
    #[error("the worker said nothing for {}; it was stopped", human::span(SILENCE))]
    Hung,
    #[error("the worker's output cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("the worker's output cannot be understood: {0}")]
    Frame(#[from] BadFrame),
    #[error("the worker's output cannot be understood: {0}")]
    Grammar(String),
    #[error(
        "segment {number} is larger than 300 MB, which no gateway takes; its keyframes are too far apart or \
         --segment is too long"
    )]
    SegmentSize { number: u64 },
}

fn evidence(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {}", human::tame(log)) }
}

/// The running worker. [`stop`](Self::stop) ends and reaps it, whatever it does.
#[derive(Debug)]
pub(crate) struct Splitter {
    child: Child,
    output: BufReader<ChildStdout>,
    log: Option<JoinHandle<String>>,
    found: Found,
}

impl Splitter {
    pub(crate) async fn start(worker: &Path, input: &Path, segment: Duration) -> Result<Self, SplitError> {
        let mut child = Command::new(worker)
            .arg("split")
            .arg(input)
            .arg("--segment")
            .arg(format!("{}ms", segment.as_millis()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal reaches only us: we end it in our own order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SplitError::Start { path: worker.to_owned(), source })?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(SplitError::Grammar("it has no output".to_owned()));
        };
        let log = tokio::spawn(async move {
            let mut tail = Vec::new();
            let mut chunk = [0; 1024];
            while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
                tail.extend_from_slice(&chunk[..length]);
                tail.drain(..tail.len().saturating_sub(LOG_TAIL));
            }
            String::from_utf8_lossy(&tail).trim().to_owned()
        });
        let mut splitter = Self {
            child,
            output: BufReader::with_capacity(256 * 1024, stdout),
            log: Some(log),
            found: Found { duration_ms: 0 },
        };
        match splitter.ready().await {
            Ok(found) => splitter.found = found,
            Err(error) => {
                splitter.stop().await;
                return Err(error);
            }
        }
        Ok(splitter)
    }

    pub(crate) fn found(&self) -> Found {
        self.found
    }

    async fn ready(&mut self) -> Result<Found, SplitError> {
        match self.frame().await? {
            Some((Kind::Ready, payload)) => parse(&payload),
            Some((kind, _)) => Err(SplitError::Grammar(format!("it began with {kind:?}"))),
            None => Err(self.ended().await),
        }
    }

    /// The next piece, or None after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Segment>, SplitError> {
        let start: SegmentStart = match self.frame().await? {
            Some((Kind::Segment, payload)) => parse(&payload)?,
            Some((kind, _)) => return Err(SplitError::Grammar(format!("{kind:?} between segments"))),
            None => {
                let status = wait(&mut self.child).await?;
                if status.success() {
                    return Ok(None);
                }
                return Err(self.ended().await);
            }
        };
        let mut data = BytesMut::new();
        loop {
            match self.frame().await? {
                Some((Kind::Data, payload)) if data.len() + payload.len() <= MAX_SEGMENT => {
                    data.extend_from_slice(&payload);
                }
                Some((Kind::Data, _)) => return Err(SplitError::SegmentSize { number: start.number }),
                Some((Kind::End, _)) => break,
                Some((kind, _)) => return Err(SplitError::Grammar(format!("{kind:?} inside a segment"))),
                None => return Err(self.ended().await),
            }
        }
        let SegmentStart { number, container, duration } = start;
        Ok(Some(Segment { number, container, duration, data: data.freeze() }))
    }

    /// One frame; a fault becomes the error it tells of.
    async fn frame(&mut self) -> Result<Option<(Kind, Bytes)>, SplitError> {
        let read = tokio::time::timeout(SILENCE, read_frame(&mut self.output));
        match read.await.map_err(|_| SplitError::Hung)?? {
            Some((Kind::Failed, payload)) => Err(SplitError::Input(parse(&payload)?)),
            frame => Ok(frame),
        }
    }

    async fn ended(&mut self) -> SplitError {
        let status = match wait(&mut self.child).await {
            Ok(status) => status.to_string(),
            Err(error) => return error,
        };
        let log = match self.log.take() {
            Some(log) => tokio::time::timeout(Duration::from_secs(1), log).await.ok().and_then(Result::ok),
            None => None,
        };
        SplitError::Stopped { status, log: log.unwrap_or_default() }
    }

    /// Ends and reaps the worker.
    pub(crate) async fn stop(mut self) {
        // Fails only where it has been reaped already.
        let _ = self.child.kill().await;
        if let Some(log) = self.log.take() {
            log.abort();
        }
    }
}

async fn wait(child: &mut Child) -> Result<std::process::ExitStatus, SplitError> {
    tokio::time::timeout(SILENCE, child.wait()).await.map_err(|_| SplitError::Hung)?.map_err(SplitError::Read)
}

async fn read_frame(output: &mut BufReader<ChildStdout>) -> Result<Option<(Kind, Bytes)>, SplitError> {
    let mut header = [0; HEADER];
    match output.read(&mut header[..1]).await? {
        0 => return Ok(None),
        _ => output.read_exact(&mut header[1..]).await?,
    };
    let header = Header::decode(header)?;
    let mut payload = vec![0; header.length as usize];
    output.read_exact(&mut payload).await?;
    Ok(Some((header.kind, Bytes::from(payload))))
}

fn parse<T: for<'a> Deserialize<'a>>(payload: &[u8]) -> Result<T, SplitError> {
    serde_json::from_slice(payload).map_err(|error| SplitError::Grammar(error.to_string()))
}

/// `--worker`, else beside this command, else in PATH.
pub(crate) fn find_worker(wanted: Option<&Path>) -> Result<PathBuf, SplitError> {
    const NAME: &str = "headwater-worker";
    if let Some(path) = wanted {
        return Ok(path.to_owned());
    }
    let beside = std::env::current_exe().ok().and_then(|path| path.parent().map(|dir| dir.join(NAME)));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&in_path).map(|dir| dir.join(NAME)).collect::<Vec<_>>();
    beside.into_iter().chain(folders).find(|path| path.is_file()).ok_or(SplitError::NoWorker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let header = Header { length: payload.len() as u32, kind, channel: 0, tag: 0 };
        [header.encode().as_slice(), payload].concat()
    }

    /// A worker that says these bytes and does this at its end.
    fn worker(folder: &Path, output: &[u8], then: &str) -> PathBuf {
        let (script, data) = (folder.join("worker"), folder.join("output"));
        std::fs::write(&data, output).unwrap();
        let mut file = std::fs::File::create(&script).unwrap();
        write!(file, "#!/bin/sh\ncat '{}'\n{then}\n", data.display()).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        script
    }

    async fn start(worker: &Path) -> Result<Splitter, SplitError> {
        // Another test's fork may hold the script open for writing for a moment.
        loop {
            match Splitter::start(worker, Path::new("in.mp4"), Duration::from_secs(2)).await {
                Err(SplitError::Start { source, .. })
                    if source.kind() == std::io::ErrorKind::ExecutableFileBusy =>
                {
                    tokio::task::yield_now().await;
                }
                other => return other,
            }
        }
    }

    fn ready() -> Vec<u8> {
        frame(Kind::Ready, br#"{"duration_ms":2500,"bytes":10,"worker_version":"1"}"#)
    }

    fn segment(number: u64, data: &[u8]) -> Vec<u8> {
        let head = format!(r#"{{"number":{number},"container":"ts","duration":1250}}"#);
        [
            frame(Kind::Segment, head.as_bytes()),
            frame(Kind::Data, data),
            frame(Kind::Data, data),
            frame(Kind::End, b""),
        ]
        .concat()
    }

    #[tokio::test]
    async fn the_pieces_come_whole_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let output = [ready(), segment(0, b"ab"), segment(1, b"cd")].concat();
        let mut splitter = start(&worker(folder.path(), &output, "exit 0")).await.unwrap();
        assert_eq!(splitter.found().duration_ms, 2500);
        let first = splitter.next().await.unwrap().unwrap();
        assert_eq!((first.number, first.duration, &first.data[..]), (0, Millis(1250), &b"abab"[..]));
        assert_eq!(splitter.next().await.unwrap().unwrap().number, 1);
        assert!(splitter.next().await.unwrap().is_none());
        splitter.stop().await;
    }

    #[tokio::test]
    async fn a_fault_of_the_input_is_told_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let fault = frame(Kind::Failed, br#"{"code":"not_media","text":"This is text, not video."}"#);
        let error = start(&worker(folder.path(), &fault, "exit 1")).await.unwrap_err();
        assert_eq!(error.to_string(), "the input cannot be cut: This is text, not video.");
    }

    #[tokio::test]
    async fn an_end_in_the_middle_is_an_error_with_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let output = [ready(), segment(0, b"ab")].concat();
        let worker = worker(folder.path(), &output, "echo no codec >&2; exit 7");
        let mut splitter = start(&worker).await.unwrap();
        splitter.next().await.unwrap().unwrap();
        let error = splitter.next().await.unwrap_err().to_string();
        assert!(error.contains("exit status: 7") && error.contains("no codec"), "{error}");
    }

    #[tokio::test]
    async fn a_worker_that_goes_on_for_ever_is_gone_after_stop() {
        let folder = tempfile::tempdir().unwrap();
        let splitter = start(&worker(folder.path(), &ready(), "exec sleep 1000")).await.unwrap();
        let id = splitter.child.id().unwrap();
        splitter.stop().await;
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
