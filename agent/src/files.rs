//! Files that are whole or not there, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use openssl::sha::Sha256;

/// Writes `bytes` to a temporary file beside `path`, syncs it and puts it in place.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes a rename or a new name in `path`'s folder last.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

/// Creates a folder that only its owner may enter; fine where it exists.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Of a whole file, 64 digits.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; 256 * 1024]);
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok(digest.finish().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        digest.update(&chunk[..n]);
    }
}
