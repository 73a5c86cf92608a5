//! The orderly end.

use headwater_protocol::message::NodeState;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use super::{CLOSING, Daemon, DaemonError, join};
use crate::outbox::Work;

impl Daemon {
    /// Lanes end their workers; the last events are stored and sent; the broker hears goodbye.
    pub(super) async fn close(mut self, poller: JoinHandle<()>) -> Result<(), DaemonError> {
        self.jobs.clear();
        if let Some(mut spare) = self.shop.spare.end() {
            // It has done nothing yet; one that is stuck all the same is the kernel's.
            spare.kill().await;
        }
        let deadline = tokio::time::Instant::now() + CLOSING;
        let lanes = async {
            loop {
                tokio::select! {
                    ended = self.lanes.join_next() => if ended.is_none() { break },
                    // Drained, so that no lane waits for us.
                    Some(_) = self.reports_out.recv() => {}
                }
            }
        };
        if tokio::time::timeout_at(deadline, lanes).await.is_err() {
            tracing::warn!("some workers did not end in time and are killed");
            self.lanes.shutdown().await;
        }
        if let Some(probing) = self.probing.take() {
            probing.abort();
        }
        let deadline = tokio::time::Instant::now() + CLOSING;
        self.flush()?;
        while !self.outbox.is_settled(self.publisher.is_some()) {
            tokio::select! {
                written = join(&mut self.writing) => self.written(written)?,
                Some(_) = self.inbox.control.recv() => {}
                Ok(()) = self.inbox.state.changed() => self.connection(),
                () = sleep_until(deadline) => break,
            }
            self.flush()?;
        }
        if let Some(publisher) = &self.publisher {
            self.publish_status(NodeState::Offline);
            if publisher.disconnect().is_ok() && timeout(CLOSING, poller).await.is_err() {
                tracing::warn!("the broker did not take the goodbye; it will publish the last will");
            }
        } else {
            poller.abort();
        }
        if self.writing.is_none()
            && let Some(mut store) = self.store.take()
            && let Some(work @ (Work::Append { .. } | Work::Rewrite { .. })) = self.outbox.take_work(true)?
            && let Err(error) = store.write(&work)
        {
            // Acks only: the events they cover will be sent once more.
            tracing::warn!(%error, "the outbox could not be tidied");
        }
        Ok(())
    }
}
