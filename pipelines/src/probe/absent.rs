//! Why an element is not in the registry: not installed, or its plugin is and registers it for a device alone, which is
//! not there, not open to this user, or does other work. No device is opened for that: one that hangs would hang us.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gstreamer as gst;
use headwater_protocol::Fault;
use nix::unistd::{AccessFlags, access};

use super::candidate::Candidate;
use super::nodes::nodes;
use super::words;
use crate::survey;

/// A plugin whose elements are there only with a device.
struct Plugin {
    name: &'static str,
    /// Beginnings of its elements' names. A Jetson's elements come with the plugin, whatever the board has.
    elements: &'static [&'static str],
    /// Its devices in `/dev`, without their numbers.
    devices: &'static [&'static str],
}

/// The first of which an element's name begins so.
const PLUGINS: [Plugin; 5] = [
    Plugin { name: "v4l2codecs", elements: &["v4l2sl"], devices: &["media", "video"] },
    Plugin { name: "video4linux2", elements: &["v4l2"], devices: &["video"] },
    Plugin { name: "va", elements: &["va"], devices: &["dri/renderD"] },
    Plugin { name: "nvcodec", elements: &["nvh26", "nvav1", "nvvp", "nvcuda", "cuda"], devices: &["nvidia"] },
    Plugin { name: "vulkan", elements: &["vulkan"], devices: &["dri/renderD", "nvidia"] },
];

/// What an installed plugin finds where it looks for devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Devices {
    /// None of these.
    None(Vec<String>),
    /// None that this user may open.
    Closed(Closed),
    /// Such as do something else, and one that may be the right one and is closed.
    Others { open: Vec<String>, closed: Option<Closed> },
}

/// A device that this user may not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) path: String,
    pub(super) group: String,
}

/// `broken`: plugins that could not be loaded.
pub(super) fn why(candidate: &Candidate, broken: &[String]) -> Fault {
    let begins = |plugin: &&Plugin| plugin.elements.iter().any(|name| candidate.element.starts_with(name));
    match PLUGINS.iter().find(begins).filter(|plugin| is_installed(plugin)) {
        Some(plugin) => {
            let may_open = |path: &Path| access(path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok();
            words::no_device(candidate, &devices(&survey::root(), plugin.devices, may_open))
        }
        None => words::missing(candidate, broken),
    }
}

fn is_installed(plugin: &Plugin) -> bool {
    let found = gst::Registry::get().find_plugin(plugin.name);
    found.is_some_and(|found| !found.plugin_flags().contains(gst::PluginFlags::BLACKLISTED))
}

fn devices(root: &Path, names: &[&str], may_open: impl Fn(&Path) -> bool) -> Devices {
    let dev = root.join("dev");
    let is_numbered = |node: &String| {
        let mut numbers = names.iter().filter_map(|name| node.strip_prefix(name));
        numbers.any(|number| number.parse::<u32>().is_ok())
    };
    let found = nodes(&dev).into_iter().filter(is_numbered);
    let (open, closed): (Vec<String>, Vec<String>) = found.partition(|node| may_open(&dev.join(node)));
    let shown = |node: &String| format!("/dev/{node}");
    let closed = closed.first().map(|node| Closed { path: shown(node), group: group(root, &dev.join(node)) });
    match (open.is_empty(), closed) {
        (true, None) => Devices::None(names.iter().map(|name| format!("/dev/{name}*")).collect()),
        (true, Some(closed)) => Devices::Closed(closed),
        (false, closed) => Devices::Others { open: open.iter().map(shown).collect(), closed },
    }
}

/// The name of a file's group, else its number.
fn group(root: &Path, path: &Path) -> String {
    let number = fs::metadata(path).map(|meta| meta.gid()).unwrap_or_default().to_string();
    let groups = fs::read_to_string(root.join("etc/group")).unwrap_or_default();
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    named.unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(nodes: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in [&["dev/dri/by-path", "dev/videology"], nodes].concat() {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn a_machine_without_a_driver_has_no_device() {
        let root = tree(&["dev/dri/card0"]);
        let none = devices(root.path(), &["dri/renderD", "nvidia"], |_| true);
        assert_eq!(none, Devices::None(vec!["/dev/dri/renderD*".to_owned(), "/dev/nvidia*".to_owned()]));
        assert_eq!(
            devices(Path::new("/nowhere"), &["video"], |_| true),
            Devices::None(vec!["/dev/video*".to_owned()])
        );
    }

    #[test]
    fn devices_that_may_be_opened_do_other_work() {
        let root = tree(&["dev/video0", "dev/video11"]);
        let others = devices(root.path(), &["video"], |_| true);
        let open = vec!["/dev/video0".to_owned(), "/dev/video11".to_owned()];
        assert_eq!(others, Devices::Others { open, closed: None });
    }

    #[test]
    fn a_device_that_may_not_be_opened_is_told_with_its_group() {
        let root = tree(&["dev/dri/renderD128", "dev/dri/renderD129"]);
        let closed = || devices(root.path(), &["dri/renderD"], |_| false);
        let number = fs::metadata(root.path().join("dev/dri/renderD128")).unwrap().gid();
        let path = "/dev/dri/renderD128".to_owned();
        let group = number.to_string();
        assert_eq!(closed(), Devices::Closed(Closed { path: path.clone(), group }));
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/group"), format!("none\nvideo:x:99999:\nrender:x:{number}:me\n"))
            .unwrap();
        let told = Closed { path, group: "render".to_owned() };
        assert_eq!(closed(), Devices::Closed(told.clone()));
        let one_open = devices(root.path(), &["dri/renderD"], |path| path.ends_with("renderD129"));
        let open = vec!["/dev/dri/renderD129".to_owned()];
        assert_eq!(one_open, Devices::Others { open, closed: Some(told) });
    }
}
