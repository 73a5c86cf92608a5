//! Root works for the user whom the state folder belongs to, so that the service can read what is made there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{self, AccessFlags, Gid, Uid, User};

#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnerError {
    #[error("cannot look at {path}: {source}")]
    Look { path: PathBuf, source: io::Error },
    #[error("cannot become user {uid}, whom {path} belongs to: {source}")]
    Become { path: PathBuf, uid: Uid, source: io::Error },
    #[error("{0} belongs to somebody else; run this with sudo, or as the user whom it belongs to")]
    NotOurs(PathBuf),
}

/// Who `ours` has to become to work in a folder of `owner`: root can, others stay who they are.
fn successor(ours: Uid, owner: Uid) -> Option<Uid> {
    (ours.is_root() && !owner.is_root()).then_some(owner)
}

/// Makes this process the state folder's owner, for good. Before anything is written or sent: a one-time token
/// that is spent for an identity which cannot be stored is lost.
pub(crate) fn become_owner(state_dir: &Path) -> Result<(), OwnerError> {
    let metadata = match fs::metadata(state_dir) {
        Ok(metadata) => metadata,
        // It will be made, by whoever this is.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(OwnerError::Look { path: state_dir.to_owned(), source }),
    };
    if let Some(uid) = successor(Uid::effective(), Uid::from_raw(metadata.uid())) {
        let failed =
            |errno: nix::Error| OwnerError::Become { path: state_dir.to_owned(), uid, source: errno.into() };
        become_user(uid, Gid::from_raw(metadata.gid())).map_err(failed)?;
    }
    let usable = AccessFlags::W_OK | AccessFlags::X_OK;
    unistd::access(state_dir, usable).map_err(|_| OwnerError::NotOurs(state_dir.to_owned()))
}

/// The groups first: without root's rights they cannot be changed any more.
fn become_user(uid: Uid, folder_group: Gid) -> nix::Result<()> {
    match User::from_uid(uid)? {
        Some(user) => {
            // A name from the system's list of users holds no NUL byte.
            let name = std::ffi::CString::new(user.name).map_err(|_| nix::Error::EINVAL)?;
            unistd::initgroups(&name, user.gid)?;
            unistd::setgid(user.gid)?;
        }
        // A number without a name, as in a container.
        None => {
            unistd::setgroups(&[folder_group])?;
            unistd::setgid(folder_group)?;
        }
    }
    unistd::setuid(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_becomes_somebody_else_and_only_for_somebody_elses_folder() {
        let (root, agent, other) = (Uid::from_raw(0), Uid::from_raw(990), Uid::from_raw(1000));
        assert_eq!(successor(root, agent), Some(agent));
        assert_eq!(successor(root, root), None);
        assert_eq!(successor(agent, agent), None);
        assert_eq!(successor(other, agent), None);
    }
}
