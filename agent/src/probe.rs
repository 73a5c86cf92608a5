//! What this machine can do, as `headwater-worker probe` proved it. The worker alone remembers results, for it
//! plans with them: what is told of this board holds for its work too.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use headwater_protocol::ProbeReport;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::worker::command;

/// Far more than any board's list.
const MAX_REPORT: u64 = 1024 * 1024;
/// From SIGKILL to giving up on the exit status.
const REAP: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error(
        "{0} is not there, and without it this node takes no work; install it: apt install ./headwater-worker_*.deb"
    )]
    Missing(PathBuf),
    #[error("cannot run {path}: {source}")]
    Run { path: PathBuf, source: std::io::Error },
    #[error("{path} found no answer within {after:?} and was killed")]
    TooSlow { path: PathBuf, after: Duration },
    #[error("{path} ended with {status}: {stderr}")]
    Failed { path: PathBuf, status: std::process::ExitStatus, stderr: String },
    #[error("the report of {path} cannot be read: {source}")]
    Report { path: PathBuf, source: serde_json::Error },
}

/// The probe and the children in which it tries each element: gone when this is, also where the agent
/// stops in the middle of it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error means that nobody is left.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Whether there is something to run. A mere name is the system's to look up.
pub(crate) fn is_there(worker: &Path) -> Result<(), ProbeError> {
    let named = worker.parent().is_some_and(|folder| folder.as_os_str().is_empty());
    if named || worker.is_file() { Ok(()) } else { Err(ProbeError::Missing(worker.to_owned())) }
}

/// Runs the probe, `anew` or answered from what the worker remembers where that still holds; its process group is gone when
/// this returns or is dropped.
pub(crate) async fn run(worker: &Path, anew: bool, deadline: Duration) -> Result<ProbeReport, ProbeError> {
    is_there(worker)?;
    let failed = |source| ProbeError::Run { path: worker.to_owned(), source };
    let mut probe = command(worker, "probe");
    if !anew {
        probe.arg("--cached");
    }
    probe.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = probe.spawn().map_err(failed)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = timeout(deadline, async {
        let read_out = async {
            match out {
                Some(out) => out.take(MAX_REPORT).read_to_end(&mut stdout).await,
                None => Ok(0),
            }
        };
        let read_err = async {
            match err {
                Some(mut err) => {
                    let read = (&mut err).take(4096).read_to_end(&mut stderr).await;
                    // The rest is read and dropped, so that the probe does not wait for us.
                    tokio::io::copy(&mut err, &mut tokio::io::sink()).await.and(read)
                }
                None => Ok(0),
            }
        };
        let (out, err, status) = tokio::join!(read_out, read_err, child.wait());
        out.and(err).and(status)
    });
    let ended = ended.await;
    match ended {
        Ok(Ok(_)) => group.0 = None,
        Ok(Err(_)) | Err(_) => {
            drop(group);
            // A driver may hold it for ever; then the runtime reaps it if it ever ends.
            let _ = timeout(REAP, child.wait()).await;
        }
    }
    match ended {
        Ok(Ok(status)) if status.success() => serde_json::from_slice(&stdout)
            .map_err(|source| ProbeError::Report { path: worker.to_owned(), source }),
        Ok(Ok(status)) => {
            let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
            Err(ProbeError::Failed { path: worker.to_owned(), status, stderr })
        }
        Ok(Err(source)) => Err(failed(source)),
        Err(_) => Err(ProbeError::TooSlow { path: worker.to_owned(), after: deadline }),
    }
}
