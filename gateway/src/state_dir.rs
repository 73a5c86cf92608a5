//! The gateway's folder: private, used by one daemon at a time, with the operator's token in it.

use std::path::Path;

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

/// One gateway per folder: that of its state, and that of its media.
pub fn lock(dir: &Path) -> Result<nix::fcntl::Flock<std::fs::File>, StartError> {
    let path = dir.join("lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| StartError::State { verb: "open", path, source })?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|_| StartError::InUse(dir.to_owned()))
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
