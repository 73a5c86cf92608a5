//! Removes what is past its time, and what no task knows.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::media::Media;
use crate::owner::unix_millis;
use crate::store::{Store, StoreError, Write};

const EVERY: Duration = Duration::from_secs(30);

/// Media that an earlier life left without a task, once at the start.
pub async fn sweep(store: &Store, media: &Media) -> Result<usize, StoreError> {
    let mut removed = 0;
    for task in media.tasks().await {
        if !store.has_task(&task).await? {
            media.discard(&task, None).await;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Segments older than `keep`, until `stop`.
pub async fn run(store: Store, media: Media, keep: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = expire(&store, &media, keep).await {
            tracing::warn!(%error, "housekeeping put off");
        }
    }
}

async fn expire(store: &Store, media: &Media, keep: Duration) -> Result<(), StoreError> {
    let before = unix_millis().saturating_sub(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
    loop {
        let old = store.expired(before).await?;
        if old.is_empty() {
            return Ok(());
        }
        // The rows first: a playlist never names what is gone, and the sweep finds what a crash leaves.
        store.write_now(Write::TasksRemoved { tasks: old.clone() }).await?;
        for task in old {
            media.discard(&task, None).await;
        }
    }
}
