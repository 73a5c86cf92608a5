//! What a probe found, remembered for as long as nothing that it depends on changes.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::finding::Findings;
use super::nodes::nodes;
use crate::board::Board;
use crate::machine::Machine;
use crate::survey;

/// What results hold for. A change of any of these makes them void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// A driver that hung before may work after a reboot, and the other way round.
    pub boot: String,
    pub worker: String,
    pub gstreamer: String,
    /// The profile's id, and a hash of all that it says.
    pub board: String,
    pub profile: String,
    /// Plugin to version.
    pub plugins: BTreeMap<String, String>,
    /// Kernel and drivers to version.
    pub drivers: BTreeMap<String, String>,
    /// Device nodes that codecs work through.
    pub devices: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    key: Key,
    findings: Findings,
}

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Says where results are remembered, before anything is read; later calls change nothing.
pub fn use_file(file: PathBuf) {
    let _ = FILE.set(file);
}

/// Where results are remembered: what [`use_file`] said, else in the user's cache folder, else in `/run`,
/// for a service without a home.
pub fn file() -> PathBuf {
    if let Some(file) = FILE.get() {
        return file.clone();
    }
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    cache.unwrap_or_else(|| PathBuf::from("/run")).join("headwater/probe.json")
}

/// The present key of this machine with this profile.
pub fn key(board: &Board, machine: &Machine) -> Key {
    Key {
        boot: text(Path::new("/proc/sys/kernel/random/boot_id")),
        worker: worker(),
        gstreamer: gstreamer::version_string().to_string(),
        board: board.id.clone(),
        profile: hash(board),
        plugins: survey::versions(machine),
        drivers: drivers(),
        devices: devices(Path::new("/dev")),
    }
}

impl Key {
    /// Whether what was found then still serves: a device that came since, such as a camera, takes nothing from the others.
    fn serves(&self, now: &Key) -> bool {
        let known = now.devices.iter().filter(|device| self.devices.contains(device));
        *self == Key { devices: known.cloned().collect(), ..now.clone() }
    }
}

/// What was found earlier, if nothing has changed since.
pub fn load(key: &Key) -> Option<Findings> {
    remembered().filter(|then| then.key == *key).map(|then| then.findings)
}

/// What was found earlier, if all that it depends on is still there: enough for work, while a probe looks again.
pub fn load_for_work(key: &Key) -> Option<Findings> {
    remembered().filter(|then| then.key.serves(key)).map(|then| then.findings)
}

fn remembered() -> Option<Remembered> {
    serde_json::from_slice(&fs::read(file()).ok()?).ok()
}

/// Remembers results, whole or not at all.
pub fn store(key: Key, findings: Findings) -> io::Result<()> {
    let path = file();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let bytes = serde_json::to_vec(&Remembered { key, findings }).map_err(io::Error::other)?;
    let mut part = path.clone().into_os_string();
    part.push(format!(".{}.part", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&part, &path));
    if written.is_err() {
        // Half a file is worth nothing; the error that matters is the first.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Version of the worker, and which build of it.
fn worker() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let meta = std::env::current_exe().and_then(fs::metadata);
    meta.map_or_else(
        |_| version.to_owned(),
        |meta| format!("{version} {} {}.{:09}", meta.len(), meta.mtime(), meta.mtime_nsec()),
    )
}

/// Stable for one build of the worker, which is in the key too.
fn hash(board: &Board) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{board:?}").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// First line of a file, empty where there is none.
pub(crate) fn text(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim_matches('\0').to_owned()
}

/// Versions of the kernel and of drivers that say theirs.
pub fn drivers() -> BTreeMap<String, String> {
    let files = [
        ("kernel", "/proc/sys/kernel/osrelease"),
        ("l4t", "/etc/nv_tegra_release"),
        ("nvidia", "/sys/module/nvidia/version"),
        ("mpp_service", "/proc/mpp_service/version"),
        ("rknpu", "/sys/module/rknpu/version"),
        ("i915", "/sys/module/i915/srcversion"),
        ("xe", "/sys/module/xe/srcversion"),
    ];
    let read = files.into_iter().map(|(name, path)| (name.to_owned(), text(Path::new(path))));
    read.filter(|(_, version)| !version.is_empty()).collect()
}

/// How names begin that codecs are behind. The agent's unit has to let the worker open each.
const KNOWN: [&str; 10] =
    ["video", "media", "nvidia", "nvhost", "nvmap", "v4l2-", "mpp_service", "rga", "dma_heap", "dri/renderD"];

/// Those of the nodes in `dev` that codecs are behind.
fn devices(dev: &Path) -> Vec<String> {
    let mut all = nodes(dev);
    all.retain(|node| KNOWN.iter().any(|known| node.starts_with(known)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_unit_opens_each_device_that_codecs_are_behind() {
        let unit = include_str!("../../../agent/dist/headwater-agent.service");
        for known in KNOWN {
            let allowed = match known {
                "video" => "char-video4linux",
                "media" => "char-media",
                "nvidia" => "char-nvidia*",
                "nvhost" => "char-nvhost",
                "nvmap" => "/dev/nvmap",
                // Nodes of /dev/null's numbers, which each unit may open; the plugin looks whether they are there.
                "v4l2-" => continue,
                "mpp_service" => "char-mpp_service",
                "rga" => "/dev/rga",
                "dma_heap" => "char-dma_heap",
                "dri/renderD" => "char-drm",
                other => panic!("which class of devices is {other}?"),
            };
            let line = format!("DeviceAllow={allowed} rw");
            assert!(unit.lines().any(|one| one == line), "{line}");
        }
    }

    #[test]
    fn what_was_proved_serves_beside_a_device_that_came_and_not_without_one_that_went() {
        let with = |devices: &[&str], profile: &str| Key {
            boot: "boot".into(),
            worker: "worker".into(),
            gstreamer: "1.22".into(),
            board: "pi".into(),
            profile: profile.into(),
            plugins: BTreeMap::new(),
            drivers: BTreeMap::new(),
            devices: devices.iter().map(|name| (*name).to_owned()).collect(),
        };
        let then = with(&["video10", "video11"], "a");
        assert!(then.serves(&then));
        assert!(then.serves(&with(&["video0", "video10", "video11"], "a")), "a camera came");
        assert!(!then.serves(&with(&["video0", "video11"], "a")), "a codec went");
        assert!(!then.serves(&with(&["video10", "video11"], "b")), "the profile says something else");
    }

    #[test]
    fn results_hang_on_the_nodes_of_codecs_and_on_no_others() {
        let dev = tempfile::tempdir().unwrap();
        fs::create_dir(dev.path().join("dri")).unwrap();
        for node in ["video11", "video0", "dri/renderD128", "dri/card0", "tty0", "mpp_service"] {
            fs::write(dev.path().join(node), "").unwrap();
        }
        assert_eq!(devices(dev.path()), ["dri/renderD128", "mpp_service", "video0", "video11"]);
        assert!(devices(Path::new("/nowhere")).is_empty());
    }
}
