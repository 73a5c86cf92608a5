//! The gateway's folder: private, used by one daemon at a time, with the operator's token in it.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::daemon::StartError;
use crate::secret;

pub fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)
}

pub fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// One gateway per state folder.
pub fn lock(dir: &Path) -> Result<Flock<File>, StartError> {
    let path = dir.join("lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    hold(file.map_err(|source| StartError::State { verb: "open", path, source })?, dir)
}

/// And one per folder of media; nothing is put into it.
pub fn lock_folder(dir: &Path) -> Result<Flock<File>, StartError> {
    let folder = File::open(dir);
    hold(folder.map_err(|source| StartError::State { verb: "open", path: dir.to_owned(), source })?, dir)
}

fn hold(file: File, dir: &Path) -> Result<Flock<File>, StartError> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => StartError::InUse(dir.to_owned()),
        error => StartError::State { verb: "lock", path: dir.to_owned(), source: error.into() },
    })
}

/// The operator's bearer token, made on the first start.
pub fn operator_token(dir: &Path) -> Result<String, StartError> {
    let path = dir.join("operator.token");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= 32 => Ok(text.trim().to_owned()),
        Ok(_) | Err(_) => {
            let token = secret::random_hex()?;
            secret::write_file(&path, format!("{token}\n").as_bytes(), 0o600)
                .map_err(|source| StartError::State { verb: "write", path, source })?;
            Ok(token)
        }
    }
}
