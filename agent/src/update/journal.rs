//! The update's journal and its bundles, in one folder of the state folder.

use std::io;
use std::path::{Path, PathBuf};

use super::Kept;
use crate::files;

/// Bundles, whole or partly, and the journal.
pub(crate) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("update")
}

fn file(state_dir: &Path) -> PathBuf {
    folder(state_dir).join("order.json")
}

/// None where there is nothing or nothing to be read; what root's helper has begun it ends all the same.
pub(crate) fn load(state_dir: &Path) -> Option<Kept> {
    serde_json::from_slice(&std::fs::read(file(state_dir)).ok()?).ok()
}

pub(crate) fn store(state_dir: &Path, kept: &Kept) -> io::Result<()> {
    files::private_folder(&folder(state_dir))?;
    files::write_atomically(&file(state_dir), &serde_json::to_vec(kept).map_err(io::Error::other)?, 0o600)
}

/// Everything but the journal.
pub(crate) fn remove_bundles(state_dir: &Path) {
    let entries = std::fs::read_dir(folder(state_dir)).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| *path != file(state_dir)) {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot be removed");
        }
    }
}
