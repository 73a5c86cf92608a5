//! Segments and renditions as objects, and a small memory for fresh segments.
//!
//! ```text
//! {task}/input.ts              the segment, as pushed
//! {task}/{epoch}/{name}.ts     a rendition of one attempt; two attempts never write one object
//! ```
//!
//! No two tasks share a folder: removing one never races with another that is being written.
//! An object is there as a whole or not at all: writers that are dropped leave nothing.

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use headwater_protocol::{Container, Epoch, RenditionName, TaskId};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

/// Above this a writer goes to the store in parts.
const PART: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error("media folder {path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("media store: {0}")]
    Store(#[from] object_store::Error),
    #[error("media store: {0}")]
    Finish(std::io::Error),
}

impl MediaError {
    pub fn is_missing(&self) -> bool {
        matches!(self, MediaError::Store(object_store::Error::NotFound { .. }))
    }
}

pub fn input_key(task: &TaskId, container: Container) -> Path {
    Path::from_iter([task.as_str(), &format!("input.{}", container.extension())])
}

pub fn rendition_key(task: &TaskId, epoch: Epoch, name: &RenditionName, container: Container) -> Path {
    let file = format!("{name}.{}", container.extension());
    Path::from_iter([task.as_str(), &epoch.to_string(), &file])
}

#[derive(Debug, Clone)]
pub struct Media {
    store: Arc<dyn ObjectStore>,
    fresh: Arc<Mutex<Fresh>>,
    root: PathBuf,
}

/// Segments in memory until their task ends; one that does not fit is read from the store.
#[derive(Debug, Default)]
struct Fresh {
    segments: HashMap<TaskId, Vec<Bytes>>,
    used: usize,
    most: usize,
}

impl Media {
    pub fn open(root: &FilePath, cache_bytes: usize) -> Result<Self, MediaError> {
        std::fs::create_dir_all(root)
            .map_err(|source| MediaError::Folder { path: root.to_owned(), source })?;
        let store = LocalFileSystem::new_with_prefix(root)?;
        Ok(Self {
            store: Arc::new(store),
            fresh: Arc::new(Mutex::new(Fresh { most: cache_bytes, ..Fresh::default() })),
            root: root.to_owned(),
        })
    }

    pub fn write(&self, key: Path) -> Writer {
        Writer {
            inner: BufWriter::with_capacity(Arc::clone(&self.store), key, PART).with_max_concurrency(1),
            digest: Sha256::new(),
            bytes: 0,
        }
    }

    /// Size and content of an object, or of a part of it.
    pub async fn read(
        &self,
        key: &Path,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<(u64, BoxStream<'static, Result<Bytes, MediaError>>), MediaError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.store.get_opts(key, options).await?;
        Ok((found.meta.size, found.into_stream().map_err(MediaError::from).boxed()))
    }

    /// Memory for a segment on its way in.
    pub fn arriving(&self) -> Arriving {
        Arriving { fresh: Arc::clone(&self.fresh), chunks: Some(Vec::new()), bytes: 0 }
    }

    pub fn fresh(&self, task: &TaskId) -> Option<Vec<Bytes>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).segments.get(task).cloned()
    }

    /// The task has ended: its segment will not be fetched again.
    pub fn forget(&self, task: &TaskId) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunks) = fresh.segments.remove(task) {
            fresh.used -= chunks.iter().map(taken).sum::<usize>();
        }
    }

    /// Removes what a task left behind, all of it or everything but its winner's and its input.
    pub async fn discard(&self, task: &TaskId, keep: Option<Epoch>) {
        self.forget(task);
        let folder = Path::from(task.as_str());
        let epoch = keep.map(|epoch| folder.clone().join(epoch.to_string()));
        let input = |path: &Path| keep.is_some() && path.filename().is_some_and(|f| f.starts_with("input."));
        let listed: Result<Vec<_>, _> = self.store.list(Some(&folder)).try_collect().await;
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => return tracing::warn!(%error, %task, "media not listed"),
        };
        for object in listed {
            if input(&object.location) || epoch.as_ref().is_some_and(|e| object.location.prefix_matches(e)) {
                continue;
            }
            if let Err(error) = self.store.delete(&object.location).await
                && !matches!(error, object_store::Error::NotFound { .. })
            {
                tracing::warn!(%error, %task, "media not removed");
            }
        }
        // Folders are no objects: the store does not see those that are empty now.
        let folder = self.root.join(task.as_str());
        if let Err(error) = tokio::task::spawn_blocking(move || remove_empty(&folder)).await {
            tracing::warn!(%error, "media folder not removed");
        }
    }

    pub async fn remove(&self, key: &Path) {
        if let Err(error) = self.store.delete(key).await {
            tracing::warn!(%error, %key, "media not removed");
        }
    }

    /// Task folders in the store that have not changed for `age`.
    pub async fn tasks(&self, age: Duration) -> Vec<TaskId> {
        let root = self.root.clone();
        let walk = move || {
            let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
            entries
                .filter_map(|entry| {
                    let entry = entry.ok()?;
                    let changed = entry.metadata().ok()?.modified().ok()?;
                    // A clock that was set back makes a folder seem new; the next look tells.
                    let old = age.is_zero() || changed.elapsed().is_ok_and(|since| since >= age);
                    let name = entry.file_name().into_string().ok()?;
                    // Ids of tasks are UUIDs; what else lies here is not ours.
                    let ours = uuid::Uuid::try_parse(&name).is_ok();
                    TaskId::new(name).ok().filter(|_| old && ours)
                })
                .collect()
        };
        tokio::task::spawn_blocking(walk).await.unwrap_or_default()
    }
}

fn remove_empty(dir: &FilePath) {
    if let Ok(entries) = std::fs::read_dir(dir) {
        for entry in entries.flatten() {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

/// What has come of a segment, while there is room for it: what it takes counts from its first byte on.
#[derive(Debug)]
pub struct Arriving {
    fresh: Arc<Mutex<Fresh>>,
    /// None once there was no room.
    chunks: Option<Vec<Bytes>>,
    bytes: usize,
}

/// What a chunk takes; a body may come a byte at a time.
fn taken(chunk: &Bytes) -> usize {
    chunk.len() + size_of::<Bytes>()
}

impl Arriving {
    pub fn add(&mut self, chunk: &Bytes) {
        let Some(chunks) = &mut self.chunks else { return };
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = taken(chunk);
        if fresh.used + bytes <= fresh.most {
            fresh.used += bytes;
            self.bytes += bytes;
            chunks.push(chunk.clone());
        } else {
            fresh.used -= std::mem::take(&mut self.bytes);
            self.chunks = None;
        }
    }

    /// It has come whole: it stays until its task ends.
    pub fn keep(mut self, task: &TaskId) {
        let Some(chunks) = self.chunks.take() else { return };
        self.bytes = 0;
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.segments.insert(task.clone(), chunks);
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).used -= self.bytes;
    }
}

/// One object on its way in. Dropped before [`Writer::finish`], nothing of it stays.
#[derive(Debug)]
pub struct Writer {
    inner: BufWriter,
    digest: Sha256,
    bytes: u64,
}

impl Writer {
    pub async fn put(&mut self, chunk: Bytes) -> Result<(), MediaError> {
        self.digest.update(&chunk);
        self.bytes += chunk.len() as u64;
        Ok(self.inner.put(chunk).await?)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the object visible; gives its size and SHA-256.
    pub async fn finish(mut self) -> Result<(u64, String), MediaError> {
        self.inner.shutdown().await.map_err(MediaError::Finish)?;
        Ok((self.bytes, crate::secret::hex(&self.digest.finalize())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> TaskId {
        TaskId::new("t").unwrap()
    }

    async fn put(media: &Media, key: Path, bytes: usize) {
        let mut writer = media.write(key);
        writer.put(Bytes::from(vec![1; bytes])).await.unwrap();
        writer.finish().await.unwrap();
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let media = Media::open(dir.path(), 0).unwrap();
        let task = id();
        let key = input_key(&task, Container::Ts);
        let mut writer = media.write(key.clone());
        writer.put(Bytes::from(vec![0; PART * 2])).await.unwrap();
        drop(writer);
        assert!(media.read(&key, None).await.err().unwrap().is_missing());
    }

    #[test]
    fn what_is_kept_in_memory_is_bounded_from_its_first_byte_on() {
        let dir = tempfile::tempdir().unwrap();
        let media = Media::open(dir.path(), 10 + size_of::<Bytes>()).unwrap();
        let chunk = Bytes::from_static(b"123456");
        let (mut first, mut second) = (media.arriving(), media.arriving());
        first.add(&chunk);
        second.add(&chunk);
        second.keep(&TaskId::new("second").unwrap());
        assert!(media.fresh(&TaskId::new("second").unwrap()).is_none(), "the first had the room");
        drop(first);
        let mut third = media.arriving();
        third.add(&chunk);
        third.keep(&id());
        assert_eq!(media.fresh(&id()).unwrap(), [chunk.as_ref()]);
        media.forget(&id());
        assert_eq!(media.fresh.lock().unwrap().used, 0);
    }

    #[tokio::test]
    async fn what_is_not_named_like_a_task_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let media = Media::open(dir.path(), 0).unwrap();
        let task = uuid::Uuid::now_v7().to_string();
        for name in ["movies", "lock", &task] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(media.tasks(Duration::ZERO).await, [TaskId::new(task).unwrap()]);
    }

    #[tokio::test]
    async fn only_the_winner_and_the_input_stay() {
        let dir = tempfile::tempdir().unwrap();
        let media = Media::open(dir.path(), 0).unwrap();
        let task = id();
        let name = RenditionName::new("a").unwrap();
        let key = |epoch| rendition_key(&task, Epoch(epoch), &name, Container::Ts);
        put(&media, input_key(&task, Container::Ts), 3).await;
        put(&media, key(1), 4).await;
        put(&media, key(2), 5).await;
        media.discard(&task, Some(Epoch(2))).await;
        assert!(media.read(&key(1), None).await.err().unwrap().is_missing());
        assert_eq!(media.read(&key(2), None).await.unwrap().0, 5);
        media.discard(&task, None).await;
        assert!(!dir.path().join("t").exists(), "an empty folder stayed");
    }
}
