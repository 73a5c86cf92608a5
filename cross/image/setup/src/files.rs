//! Where things are, and writing them.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::SetupError;
use crate::plan::Write;

/// The boot partition, below the root.
pub(crate) const BOOT: &str = "boot/efi";
/// On it.
pub(crate) const FILE: &str = "headwater.toml";
pub(crate) const ERROR_FILE: &str = "headwater-error.txt";

pub(crate) fn put(root: &Path, write: &Write) -> Result<(), SetupError> {
    let path = root.join(write.path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(SetupError::file("make", folder))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(if write.secret { 0o600 } else { 0o644 });
    let mut file = options.open(&path).map_err(SetupError::file("open", &path))?;
    file.write_all(write.text.as_bytes()).map_err(SetupError::file("write", &path))
}

/// Leaves a message on the card, for who looks at it in another machine. Flash is written only for a new one.
pub(crate) fn say(path: &Path, text: &str) -> Result<(), SetupError> {
    // Lines as every editor on every system shows them.
    let text = format!("{}\r\n", text.trim_end().replace('\n', "\r\n"));
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let mut file = File::create(path).map_err(SetupError::file("write", path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(SetupError::file("write", path))
}

pub(crate) fn unsay(path: &Path) -> Result<(), SetupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(SetupError::file("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Overwrites a part of a file where it lies, so that what was there is not in some free block afterwards.
pub(crate) fn overwrite(path: &Path, at: usize, text: &str) -> Result<(), SetupError> {
    let file = OpenOptions::new().write(true).open(path).map_err(SetupError::file("open", path))?;
    let written = file.write_all_at(text.as_bytes(), at as u64).and_then(|()| file.sync_all());
    written.map_err(SetupError::file("write", path))
}
