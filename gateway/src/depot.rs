//! Bundles on their way to boards: files named by their SHA-256, each with a note of what it says of itself.
//!
//! ```text
//! state_dir/bundles/{sha256}         the file
//! state_dir/bundles/{sha256}.json    what it is; written first, so that a file without one is a rest
//! state_dir/bundles/part-…           on its way in
//! ```

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::bundle::{self, About, BundleError};
use crate::secret;

/// An uploaded bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub sha256: String,
    pub bytes: u64,
    #[serde(flatten)]
    pub about: About,
}

#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(
        "the bundle is larger than {0} MiB, which is as much as this gateway takes (limits.max_bundle_mib)"
    )]
    TooLarge(u64),
    #[error("the bundle is cut off")]
    CutOff,
    #[error("no data for too long")]
    Idle,
    #[error("the bundle cannot be stored: {0}")]
    Store(#[from] io::Error),
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

#[derive(Debug, Clone)]
pub struct Depot {
    dir: PathBuf,
    max_mib: u64,
}

impl Depot {
    /// Opens the folder and removes what an upload that was cut off by the daemon's end left behind.
    pub fn open(dir: PathBuf, max_mib: u64) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b"part-") {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { dir, max_mib })
    }

    /// Where a bundle lies, if it is there; any other text names nothing.
    pub fn file(&self, sha256: &str) -> Option<PathBuf> {
        let known = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        known.then(|| self.dir.join(sha256)).filter(|path| path.is_file())
    }

    pub fn get(&self, sha256: &str) -> Option<Stored> {
        let file = self.file(sha256)?;
        serde_json::from_slice(&std::fs::read(note(&file)).ok()?).ok()
    }

    /// By version.
    pub fn list(&self) -> io::Result<Vec<Stored>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            found.extend(entry?.file_name().to_str().and_then(|name| self.get(name)));
        }
        found.sort_by(|a, b| headwater_protocol::version::compare(&a.about.version, &b.about.version));
        Ok(found)
    }

    /// It is wanted now: the next sweeps leave it.
    pub fn touch(&self, sha256: &str) -> io::Result<()> {
        let path = self.file(sha256).ok_or(io::ErrorKind::NotFound)?;
        std::fs::File::options().append(true).open(path)?.set_modified(SystemTime::now())
    }

    /// Takes a bundle in, whole and readable or not at all. Also true where it was there already.
    pub async fn receive<E>(
        &self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        idle: Duration,
    ) -> Result<(Stored, bool), DepotError> {
        let part = Part(self.dir.join(format!("part-{}", secret::random_hex()?)));
        let mut file = tokio::fs::File::create(&part.0).await?;
        let (mut digest, mut bytes) = (Sha256::new(), 0u64);
        loop {
            let chunk = match tokio::time::timeout(idle, body.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) => break,
                Ok(Some(Err(_))) => return Err(DepotError::CutOff),
                Err(_) => return Err(DepotError::Idle),
            };
            bytes += chunk.len() as u64;
            if bytes > self.max_mib << 20 {
                return Err(DepotError::TooLarge(self.max_mib));
            }
            digest.update(&chunk);
            file.write_all(&chunk).await?;
        }
        file.sync_all().await?;
        let sha256 = secret::hex(&digest.finalize());
        let path = self.dir.join(&sha256);
        let keep = move || {
            let about = bundle::read(&part.0)?;
            let stored = Stored { sha256, bytes, about };
            let new = !path.is_file();
            let text = serde_json::to_vec_pretty(&stored).map_err(io::Error::other)?;
            secret::write_file(&note(&path), &text, 0o644)?;
            std::fs::rename(&part.0, &path)?;
            Ok((stored, new))
        };
        tokio::task::spawn_blocking(keep).await.map_err(io::Error::other)?
    }

    /// Removes what is not wanted and was not touched for `age`; gives the count.
    pub fn sweep(&self, wanted: &BTreeSet<String>, age: Duration) -> io::Result<usize> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some(file) =
                name.to_str().filter(|name| !wanted.contains(*name)).and_then(|name| self.file(name))
            else {
                continue;
            };
            // A clock that was set back makes it seem new; a later sweep tells.
            if file.metadata()?.modified()?.elapsed().is_ok_and(|since| since >= age) {
                std::fs::remove_file(&file)?;
                std::fs::remove_file(note(&file))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn note(file: &Path) -> PathBuf {
    file.with_extension("json")
}

/// A file on its way in: gone unless it was moved to its place.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.0.display(), "a part of a bundle stays");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(depot: &Depot, sha256: &str) {
        std::fs::write(depot.dir.join(sha256), "x").unwrap();
        std::fs::write(depot.dir.join(format!("{sha256}.json")), "{}").unwrap();
    }

    #[test]
    fn what_no_update_wants_goes_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path().join("bundles"), 1).unwrap();
        let (wanted, other) = ("a".repeat(64), "b".repeat(64));
        put(&depot, &wanted);
        put(&depot, &other);
        let keep = BTreeSet::from([wanted.clone()]);
        assert_eq!(depot.sweep(&keep, Duration::from_secs(3600)).unwrap(), 0, "it was put just now");
        assert_eq!(depot.sweep(&keep, Duration::ZERO).unwrap(), 1);
        assert!(depot.file(&wanted).is_some() && depot.file(&other).is_none());
    }

    #[test]
    fn only_a_hash_names_a_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path().to_owned(), 1).unwrap();
        std::fs::write(dir.path().join("x"), "").unwrap();
        for name in ["x", "", "../x", &"A".repeat(64), &"a".repeat(64)] {
            assert!(depot.file(name).is_none(), "{name}");
        }
    }

    #[tokio::test]
    async fn what_is_no_bundle_or_too_large_or_cut_off_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path().to_owned(), 1).unwrap();
        let chunk = |size: usize| Ok::<_, ()>(Bytes::from(vec![0; size]));
        let receive = async |chunks: Vec<Result<Bytes, ()>>| {
            depot.receive(futures_util::stream::iter(chunks), Duration::from_secs(9)).await.unwrap_err()
        };
        assert!(matches!(receive(vec![chunk(9)]).await, DepotError::Bundle(BundleError::Unknown)));
        assert!(matches!(receive(vec![chunk(1 << 20), chunk(1)]).await, DepotError::TooLarge(1)));
        assert!(matches!(receive(vec![chunk(9), Err(())]).await, DepotError::CutOff));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
