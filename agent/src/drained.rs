//! An operator's `drain` outlasts the agent and the boot: a file in the state folder, until `resume`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files;

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("drained")
}

pub(crate) fn load(state_dir: &Path) -> bool {
    file(state_dir).exists()
}

pub(crate) fn save(state_dir: &Path, drained: bool) -> io::Result<()> {
    let path = file(state_dir);
    if drained {
        return files::write_atomically(&path, b"", 0o600);
    }
    match fs::remove_file(&path) {
        Ok(()) => files::sync_parent(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_kept_until_a_resume_however_often_each_comes() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!load(folder.path()));
        for drained in [false, true, true, false, false] {
            save(folder.path(), drained).unwrap();
            assert_eq!(load(folder.path()), drained);
        }
        assert!(save(&folder.path().join("nowhere"), true).is_err());
    }
}
