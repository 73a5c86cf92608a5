//! What a change is for people.

use headwater_protocol::TaskId;

use super::Running;
use crate::store::Write;

impl Running {
    /// One line for everything that happens to an attempt.
    pub(super) fn log(&self, write: &Write) {
        let open = |task: &TaskId| {
            let open = self.open.get(task);
            (open.map(|o| o.stream.to_string()).unwrap_or_default(), open.map_or(0, |o| o.segment))
        };
        match write {
            Write::AttemptEnded { task, epoch, code, .. } => {
                let (stream, segment) = open(task);
                let node = self
                    .open
                    .get(task)
                    .and_then(|open| open.nodes.get((epoch.0 as usize).wrapping_sub(1)))
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let code = code.map_or("", headwater_protocol::Code::as_str);
                tracing::warn!(stream, segment, %task, epoch = epoch.0, node, code, "attempt ended");
            }
            Write::Winner { task, epoch, node, report, attempts, .. } => {
                let (stream, segment) = open(task);
                tracing::info!(
                    stream, segment, %task, epoch = epoch.0, %node, attempts,
                    worker_ms = report.wall_us / 1000, "done"
                );
            }
            Write::TaskEnded { task, ending: crate::store::Ending::Failed(fault), attempts, .. } => {
                let (stream, segment) = open(task);
                let node = self
                    .open
                    .get(task)
                    .and_then(|open| open.nodes.last())
                    .map(ToString::to_string)
                    .unwrap_or_default();
                tracing::warn!(
                    stream, segment, %task, epoch = attempts, node, code = %fault.code, text = fault.text, "failed"
                );
            }
            Write::StreamOpened(opened) => tracing::info!(stream = %opened.stream, "stream begins"),
            Write::StreamEnded { stream } => tracing::info!(%stream, "stream ended"),
            Write::TaskEnded { .. }
            | Write::TaskNew { .. }
            | Write::AttemptNew { .. }
            | Write::Position { .. }
            | Write::Counts { .. }
            | Write::Delay { .. }
            | Write::TokenNew { .. }
            | Write::TasksRemoved { .. }
            | Write::Settle(_)
            | Write::Update(_)
            | Write::UpdateNode { .. }
            | Write::Config { .. }
            | Write::Birth { .. }
            | Write::Seen { .. }
            | Write::Evidence { .. } => {}
        }
    }
}
