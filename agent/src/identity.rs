//! Who this node is: `state_dir/identity/` with key, certificate, CA and where the gateway is.
//!
//! The folder appears and is replaced as a whole, so a power cut leaves the old identity or the new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use headwater_protocol::{FleetId, NodeId};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use crate::files;

#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(
        "this node has no identity in {0}; get a token with `headwater enroll NAME`, then run `headwater-agent enroll TOKEN`"
    )]
    Missing(PathBuf),
    #[error("this node is enrolled already, see {0}; use --force to replace its identity")]
    Exists(PathBuf),
    #[error("cannot {verb} {path}: {source}")]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is damaged ({source}); enrol again with --force")]
    Damaged { path: PathBuf, source: serde_json::Error },
}

/// `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) fleet: FleetId,
    pub(crate) node: NodeId,
    /// `https://host:port`, without a slash at the end.
    pub(crate) gateway_url: String,
    pub(crate) broker_host: String,
    pub(crate) broker_port: u16,
}

pub(crate) struct Identity {
    pub(crate) node: Node,
    /// PKCS#8, PEM.
    pub(crate) key: Vec<u8>,
    pub(crate) certificate: Vec<u8>,
    pub(crate) ca: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("node", &self.node).finish_non_exhaustive()
    }
}

pub(crate) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("identity")
}

fn file_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File { verb, path, source }
}

impl Identity {
    pub(crate) fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let folder = folder(state_dir);
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => IdentityError::Missing(folder.clone()),
                _ => IdentityError::File { verb: "read", path, source: error },
            })
        };
        let node = serde_json::from_slice(&read("node.json")?)
            .map_err(|source| IdentityError::Damaged { path: folder.join("node.json"), source })?;
        Ok(Self { node, key: read("node.key")?, certificate: read("node.crt")?, ca: read("ca.crt")? })
    }

    pub(crate) fn may_store(state_dir: &Path, force: bool) -> Result<(), IdentityError> {
        let folder = folder(state_dir);
        if folder.exists() && !force { Err(IdentityError::Exists(folder)) } else { Ok(()) }
    }

    pub(crate) fn store(&self, state_dir: &Path, force: bool) -> Result<(), IdentityError> {
        files::private_folder(state_dir).map_err(file_error("create", state_dir))?;
        let fresh = tempfile_in(state_dir)?;
        let result = self.fill(&fresh).and_then(|()| put_in_place(&fresh, state_dir, force));
        // After success this is what was replaced, after failure the half-made new one: either way, not wanted.
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(file_error("remove", &fresh))?;
        }
        result
    }

    fn fill(&self, folder: &Path) -> Result<(), IdentityError> {
        let node = serde_json::to_vec_pretty(&self.node)
            .map_err(|source| IdentityError::Damaged { path: folder.join("node.json"), source })?;
        let write = |name: &str, bytes: &[u8], mode| {
            let path = folder.join(name);
            files::write_atomically(&path, bytes, mode).map_err(file_error("write", &path))
        };
        write("node.key", &self.key, 0o600)?;
        write("node.crt", &self.certificate, 0o644)?;
        write("ca.crt", &self.ca, 0o644)?;
        write("node.json", &node, 0o644)
    }
}

fn tempfile_in(state_dir: &Path) -> Result<PathBuf, IdentityError> {
    let path = state_dir.join(format!("identity.{}", std::process::id()));
    if path.exists() {
        fs::remove_dir_all(&path).map_err(file_error("remove", &path))?;
    }
    files::private_folder(&path).map_err(file_error("create", &path))?;
    Ok(path)
}

fn put_in_place(fresh: &Path, state_dir: &Path, force: bool) -> Result<(), IdentityError> {
    let target = folder(state_dir);
    let flags =
        if force && target.exists() { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::RENAME_NOREPLACE };
    match renameat2(AT_FDCWD, fresh, AT_FDCWD, &target, flags) {
        Ok(()) => files::sync_parent(&target).map_err(file_error("sync", state_dir)),
        Err(nix::errno::Errno::EEXIST) => Err(IdentityError::Exists(target)),
        Err(errno) => Err(file_error("create", &target)(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn identity(node: &str) -> Identity {
        Identity {
            node: Node {
                fleet: FleetId::new("home").unwrap(),
                node: NodeId::new(node).unwrap(),
                gateway_url: "https://gw:1".into(),
                broker_host: "gw".into(),
                broker_port: 8883,
            },
            key: b"key".to_vec(),
            certificate: b"crt".to_vec(),
            ca: b"ca".to_vec(),
        }
    }

    #[test]
    fn an_identity_is_replaced_only_by_force_and_leaves_nothing_beside_it() {
        let home = tempfile::tempdir().unwrap();
        identity("a").store(home.path(), false).unwrap();
        assert!(matches!(identity("b").store(home.path(), false), Err(IdentityError::Exists(_))));
        assert_eq!(Identity::load(home.path()).unwrap().node.node.as_str(), "a");
        identity("b").store(home.path(), true).unwrap();
        assert_eq!(Identity::load(home.path()).unwrap().node.node.as_str(), "b");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder(home.path())), 0o700);
        assert_eq!(mode(&folder(home.path()).join("node.key")), 0o600);
    }
}
