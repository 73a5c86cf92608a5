//! Removes what is past its time, and what no task knows.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::depot::Depot;
use crate::media::Media;
use crate::owner::{Handle, unix_millis};
use crate::store::{Store, StoreError, Write};

const EVERY: Duration = Duration::from_secs(30);
/// Rounds between two looks for folders without a task.
const STRAYS: u64 = 20;
/// No segment is this long on its way in: nothing in a folder so much older than `keep` is still to come.
const UPLOAD: Duration = Duration::from_secs(2 * 3600);

/// Media without a task that was not touched for `age`: at the start, whatever an earlier life left.
pub async fn sweep(store: &Store, media: &Media, age: Duration) -> Result<usize, StoreError> {
    let mut removed = 0;
    for task in media.tasks(age).await {
        if !store.has_task(&task).await? {
            media.discard(&task, None).await;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Segments older than `keep`, until `stop`; and now and then folders that lost their task on the way,
/// by a full queue of the janitor's or an upload that was cut off.
pub async fn run(store: Store, media: Media, keep: Duration, stop: CancellationToken) {
    for round in 1u64.. {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if round.is_multiple_of(STRAYS)
            && let Err(error) = sweep(&store, &media, keep + UPLOAD).await
        {
            tracing::warn!(%error, "stray media not swept");
        }
        if let Err(error) = expire(&store, &media, keep).await {
            tracing::warn!(%error, "housekeeping put off");
        }
    }
}

/// How long a bundle stays that no update wants: it may be uploaded for one that is still being planned.
const BUNDLE: Duration = Duration::from_secs(3600);
const BUNDLES_EVERY: Duration = Duration::from_secs(600);

/// Bundles that no update wants any more, until `stop`.
pub async fn sweep_bundles(depot: Depot, owner: Handle, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BUNDLES_EVERY) => {}
        }
        let Ok(updates) = owner.updates().await else { return };
        let open = updates.into_iter().filter(|view| !view.update.head.state.is_final());
        let wanted: BTreeSet<String> = open.map(|view| view.update.bundle.sha256).collect();
        let depot = depot.clone();
        match tokio::task::spawn_blocking(move || depot.sweep(&wanted, BUNDLE)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => tracing::info!(count, "removed bundles that no update wants"),
            Ok(Err(error)) => tracing::warn!(%error, "bundles not swept"),
            Err(error) => tracing::warn!(%error, "bundles not swept"),
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
        store.write_now(vec![Write::TasksRemoved { tasks: old.clone() }]).await?;
        for task in old {
            media.discard(&task, None).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::{Container, Millis, StreamId, TaskId};

    use super::*;
    use crate::media::input_key;
    use crate::store::{Ending, OpenStream};

    async fn put(media: &Media, task: &TaskId) {
        let mut writer = media.write(input_key(task, Container::Ts));
        writer.put(bytes::Bytes::from_static(b"x")).await.unwrap();
        writer.finish().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_past_its_time_goes_and_what_runs_or_is_young_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _, _) = Store::open(&dir.path().join("db")).unwrap();
        let media = Media::open(&dir.path().join("media"), 0).unwrap();
        let stream = StreamId::new("s").unwrap();
        let now = unix_millis();
        let opened = Write::StreamOpened(OpenStream {
            stream: stream.clone(),
            run: 1,
            ladder: None,
            resolution: None,
            at: 1,
        });
        store.write_now(vec![opened]).await.unwrap();
        let mut ids = std::collections::BTreeMap::new();
        for (name, received, ended) in
            [("old", 1, true), ("running", 1, false), ("young", now, true), ("stray", 0, false)]
        {
            let task = TaskId::new(uuid::Uuid::now_v7().to_string()).unwrap();
            ids.insert(task.clone(), name);
            put(&media, &task).await;
            if name == "stray" {
                continue;
            }
            let new = Write::TaskNew {
                task: task.clone(),
                stream: stream.clone(),
                run: 1,
                segment: 0,
                container: Container::Ts,
                bytes: 1,
                sha256: String::new(),
                duration: Millis(2000),
                at: received,
            };
            store.write_now(vec![new]).await.unwrap();
            if ended {
                let end = Write::TaskEnded { task, ending: Ending::Passed, attempts: 0, at: received };
                store.write_now(vec![end]).await.unwrap();
            }
        }
        let left = async || {
            let mut names: Vec<&str> =
                media.tasks(Duration::ZERO).await.iter().map(|task| ids[task]).collect();
            names.sort_unstable();
            names
        };
        expire(&store, &media, Duration::from_secs(3600)).await.unwrap();
        assert_eq!(left().await, ["running", "stray", "young"]);
        assert_eq!(store.stream(&stream).await.unwrap().unwrap().segments_total, 2);
        sweep(&store, &media, Duration::from_secs(3600)).await.unwrap();
        assert_eq!(left().await, ["running", "stray", "young"], "it may still be on its way in");
        sweep(&store, &media, Duration::ZERO).await.unwrap();
        assert_eq!(left().await, ["running", "young"]);
    }
}
