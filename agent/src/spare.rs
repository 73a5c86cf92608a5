//! A worker's process started ahead of need: the program is loaded and knows its elements, so that the next
//! stream waits for its encoders alone. It costs its memory while the node is idle.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::worker::{Process, WorkerError};

#[derive(Debug)]
pub(crate) struct Spare {
    worker: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    wanted: bool,
    /// At most one.
    process: Option<Process>,
}

impl Spare {
    pub(crate) fn new(worker: &Path, wanted: bool) -> Self {
        Self { worker: worker.to_owned(), kept: Mutex::new(Kept { wanted, process: None }) }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Only whole values are put in and taken out.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one where there is none, best when nobody waits for anything.
    pub(crate) fn prepare(&self) {
        let mut kept = self.kept();
        if !kept.wanted || kept.process.as_mut().is_some_and(Process::is_alive) {
            return;
        }
        match Process::spawn(&self.worker) {
            Ok(process) => kept.process = Some(process),
            // The next segment says so with its own fault.
            Err(error) => tracing::warn!(%error, "no spare worker"),
        }
    }

    /// The spare one, or one that starts now.
    pub(crate) fn take(&self) -> Result<Process, WorkerError> {
        let kept = self.kept().process.take();
        let alive = kept.and_then(|mut process| process.is_alive().then_some(process));
        alive.map_or_else(|| Process::spawn(&self.worker), Ok)
    }

    /// Another one in its place.
    pub(crate) fn renew(&self) {
        drop(self.kept().process.take());
        self.prepare();
    }

    /// Gives the spare one away to be ended; no other is started after it.
    pub(crate) fn end(&self) -> Option<Process> {
        let mut kept = self.kept();
        kept.wanted = false;
        kept.process.take()
    }
}
