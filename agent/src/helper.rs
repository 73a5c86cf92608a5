//! The way to root's helper, see `system`: a request, its progress, its answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_protocol::{Code, Fault};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::system::wire::{Answer, MAX_LINE, Request, Status};

/// For what is answered at once; the helper itself asks RAUC.
const QUICK: Duration = Duration::from_secs(60);
/// For an installation, in all; the helper's own limit is below.
const LONG: Duration = Duration::from_secs(2 * 3600);

#[derive(Debug, Clone)]
pub(crate) struct Helper {
    socket: PathBuf,
}

impl Helper {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    fn nobody(&self, error: &io::Error) -> Fault {
        let text = format!(
            "root's helper does not answer at {} ({error}): install the headwater-agent package or a Headwater image, and see \
             that headwater-system.socket runs; or do this on the board by hand",
            self.socket.display()
        );
        Fault::new(Code::Unsupported, text)
    }

    pub(crate) async fn ask(&self, request: &Request, mut progress: impl FnMut(u8)) -> Result<Answer, Fault> {
        let limit = match request {
            Request::Install { .. } => LONG,
            Request::Status | Request::Commit { .. } | Request::Reboot => QUICK,
        };
        let broken = |error: io::Error| {
            Fault::new(Code::Interrupted, format!("root's helper ended without an answer: {error}"))
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.nobody(&error))?;
        let answer = async {
            let mut stream = BufReader::new(stream);
            let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
            line.push(b'\n');
            // One that refuses may have hung up already, and has said why.
            let _ = stream.write_all(&line).await;
            loop {
                let mut line = Vec::new();
                (&mut stream).take(MAX_LINE).read_until(b'\n', &mut line).await?;
                match serde_json::from_slice(&line).map_err(io::Error::other)? {
                    Answer::Progress { percent } => progress(percent),
                    answer @ (Answer::Status(_)
                    | Answer::Installed { .. }
                    | Answer::Done
                    | Answer::Fault(_)) => {
                        return Ok(answer);
                    }
                }
            }
        };
        match timeout(limit, answer).await {
            Ok(Ok(Answer::Fault(fault))) => Err(fault),
            Ok(result) => result.map_err(broken),
            Err(_) => Err(broken(io::ErrorKind::TimedOut.into())),
        }
    }

    pub(crate) async fn status(&self) -> Result<Box<Status>, Fault> {
        match self.ask(&Request::Status, |_| {}).await? {
            Answer::Status(status) => Ok(status),
            other
            @ (Answer::Progress { .. } | Answer::Installed { .. } | Answer::Done | Answer::Fault(_)) => {
                Err(Fault::new(Code::Interrupted, format!("root's helper answered {other:?} to a question")))
            }
        }
    }

    pub(crate) async fn install(&self, request: &Request, progress: impl FnMut(u8)) -> Result<bool, Fault> {
        match self.ask(request, progress).await? {
            Answer::Installed { boot } => Ok(boot),
            other @ (Answer::Progress { .. } | Answer::Status(_) | Answer::Done | Answer::Fault(_)) => {
                Err(Fault::new(Code::Interrupted, format!("root's helper answered {other:?} to an order")))
            }
        }
    }
}
