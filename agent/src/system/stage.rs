//! A bundle's way from the agent's folder into root's: from then on nobody but root can put another in its place.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use headwater_protocol::update::Bundle;
use headwater_protocol::{Code, Fault};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};

use super::config::Config;
use crate::files;

fn folder(path: &Path) -> io::Result<OwnedFd> {
    // A link there would lead root to wherever the agent wants.
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let folder = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    Ok(folder.into())
}

pub(super) fn place(config: &Config) -> PathBuf {
    config.state_dir.join("staged")
}

/// Takes the bundle that an order names. One that was taken before, for an installation that was cut off, is still there.
pub(super) fn take(config: &Config, bundle: &Bundle) -> Result<PathBuf, Fault> {
    let name = &bundle.sha256;
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::new(Code::BadBundle, "the order has no SHA-256"));
    }
    let staged = place(config);
    let target = staged.join(name);
    files::private_folder(&staged)
        .and_then(|()| leave_only(&staged, name))
        .and_then(|()| move_in(&config.bundles, &staged, name))
        .and_then(|()| own(&target, bundle.bytes))
        .map_err(|error| {
            // Nothing that was not looked at stays there.
            let _ = fs::remove_file(&target);
            let full = error.kind() == io::ErrorKind::StorageFull;
            let code = if full { Code::Storage } else { Code::BadBundle };
            Fault::new(code, format!("the fetched bundle cannot be taken: {error}"))
        })?;
    Ok(target)
}

/// What an order that was given up has left.
fn leave_only(staged: &Path, name: &str) -> io::Result<()> {
    for entry in fs::read_dir(staged)? {
        let entry = entry?;
        if entry.file_name() != name {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn move_in(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    if to.join(name).symlink_metadata().is_ok() {
        return Ok(());
    }
    let (from, into) = (folder(from)?, folder(to)?);
    match renameat(&from, name, &into, name) {
        Ok(()) => files::sync_parent(&to.join(name)),
        Err(Errno::EXDEV) => copy(&from, to, name),
        Err(errno) => Err(errno.into()),
    }
}

fn copy(from: &OwnedFd, to: &Path, name: &str) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut source = File::from(openat(from.as_fd(), name, flags, Mode::empty())?);
    if !source.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let temporary = to.join("copy.tmp");
    let mut copied =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    io::copy(&mut source, &mut copied)?;
    copied.sync_all()?;
    fs::rename(&temporary, to.join(name))?;
    files::sync_parent(&to.join(name))
}

/// Makes it root's alone. A descriptor that the agent kept can still write to it, but nothing that nobody signed: our packages are
/// verified while they are read, and RAUC verifies each bundle that it opens. That it may open another signed one, an
/// older one say, than was checked before is what `rauc::confirm` is for.
fn own(path: &Path, bytes: u64) -> io::Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.nlink() != 1 {
        return Err(io::Error::other("it is no file of its own"));
    }
    if meta.len() != bytes {
        return Err(io::Error::other(format!("it has {} bytes, the order says {bytes}", meta.len())));
    }
    fchown(&file, Some(geteuid().as_raw()), Some(getegid().as_raw()))?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::update::BundleKind;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn setup() -> (tempfile::TempDir, Config, Bundle) {
        let home = tempfile::tempdir().unwrap();
        let config = Config {
            state_dir: home.path().join("root"),
            bundles: home.path().join("agent"),
            ..Config::default()
        };
        fs::create_dir(&config.bundles).unwrap();
        let bundle = Bundle {
            kind: BundleKind::Rauc,
            compatible: "board".into(),
            version: "2".into(),
            bytes: 5,
            sha256: "a".repeat(64),
            path: "/x".into(),
        };
        (home, config, bundle)
    }

    fn refused(config: &Config, bundle: &Bundle) -> String {
        let fault = take(config, bundle).unwrap_err();
        assert_eq!(fault.code, Code::BadBundle);
        assert!(!place(config).join(&bundle.sha256).exists(), "nothing stays");
        fault.text
    }

    #[test]
    fn a_bundle_is_moved_once_and_found_again_after_a_power_cut() {
        let (_home, config, bundle) = setup();
        fs::write(config.bundles.join(&bundle.sha256), "12345").unwrap();
        let path = take(&config, &bundle).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!config.bundles.join(&bundle.sha256).exists(), "no second copy on the disk");
        assert_eq!(take(&config, &bundle).unwrap(), path);
        let other = Bundle { sha256: "b".repeat(64), ..bundle };
        fs::write(config.bundles.join(&other.sha256), "12345").unwrap();
        take(&config, &other).unwrap();
        assert!(!path.exists(), "an order that was given up leaves nothing");
    }

    #[test]
    fn links_that_lead_elsewhere_are_refused() {
        let (home, config, bundle) = setup();
        let secret = home.path().join("secret");
        fs::write(&secret, "12345").unwrap();
        let name = config.bundles.join(&bundle.sha256);
        symlink(&secret, &name).unwrap();
        refused(&config, &bundle);
        fs::hard_link(&secret, &name).unwrap();
        assert!(refused(&config, &bundle).contains("no file of its own"));
        assert_eq!(fs::read(&secret).unwrap(), b"12345");
        // The folder itself.
        fs::remove_dir(&config.bundles).unwrap();
        fs::create_dir(home.path().join("elsewhere")).unwrap();
        fs::write(home.path().join("elsewhere").join(&bundle.sha256), "12345").unwrap();
        symlink(home.path().join("elsewhere"), &config.bundles).unwrap();
        refused(&config, &bundle);
    }

    #[test]
    fn names_that_are_no_digest_and_sizes_that_differ_are_refused() {
        let (_home, config, mut bundle) = setup();
        fs::write(config.bundles.join(&bundle.sha256), "123456").unwrap();
        assert!(refused(&config, &bundle).contains("6 bytes"));
        bundle.sha256 = "../../etc/shadow".into();
        assert_eq!(take(&config, &bundle).unwrap_err().text, "the order has no SHA-256");
    }
}
