//! Removes objects in the background.

use headwater_protocol::{Epoch, TaskId};
use tokio::sync::mpsc;

use crate::media::Media;

#[derive(Debug, Clone)]
pub struct Janitor(mpsc::Sender<(TaskId, Option<Epoch>)>);

impl Janitor {
    pub fn start(media: Media) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, mut queue) = mpsc::channel::<(TaskId, Option<Epoch>)>(4096);
        let worker = tokio::spawn(async move {
            while let Some((task, keep)) = queue.recv().await {
                media.discard(&task, keep).await;
            }
        });
        (Self(sender), worker)
    }

    /// Where the queue is full the objects stay until their time is over.
    pub fn discard(&self, task: TaskId, keep: Option<Epoch>) {
        if self.0.try_send((task, keep)).is_err() {
            tracing::warn!("media of a task stays until its time is over");
        }
    }
}
