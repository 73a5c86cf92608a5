//! What can be known of V4L2 devices without touching them, and what GStreamer's elements say of their controls.
//!
//! Which devices there are stands in sysfs. Which controls a device has is heard from the element that drives it:
//! opening the device it lists them in its debug log. That needs no system call of our own, and it is the list that
//! the element looks into when it sets `extra-controls`. Ranges are not told, and drivers clamp without a word:
//! whether a value was taken shows only in its effect.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::machine::EXTRA_CONTROLS;

/// A video device of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Device {
    /// `/dev/video0`
    pub path: PathBuf,
    /// What the driver calls it: `vicodec-stateful-enc`. One driver often has several.
    pub card: String,
    /// The kernel's driver, `vicodec`; absent where the device hangs on none.
    pub driver: Option<String>,
}

/// Every video device of this machine, by number. None where the kernel has no V4L2.
pub fn devices() -> Vec<Device> {
    devices_in(Path::new("/sys/class/video4linux"))
}

fn devices_in(class: &Path) -> Vec<Device> {
    let Ok(entries) = std::fs::read_dir(class) else { return Vec::new() };
    let mut found: Vec<(u32, Device)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // Beside them are radios, tuners and sub-devices.
            let number = name.strip_prefix("video")?.parse().ok()?;
            let card = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            let driver = std::fs::read_link(entry.path().join("device/driver")).ok();
            let driver = driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
            let path = Path::new("/dev").join(name);
            Some((number, Device { path, card: card.trim().to_owned(), driver }))
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, device)| device).collect()
}

/// The name of a control in `extra-controls`: `Video GOP Size` is `video_gop_size`.
pub fn normalised(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// Why the controls of a device could not be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unasked {
    #[error("GStreamer has no {0}: no device that would do its work was found")]
    NoElement(String),
    #[error("{0} takes no V4L2 controls: it has no property extra-controls")]
    NoControls(String),
    #[error("{0} could not open its device; it may be in use, or this user may not open it")]
    NotOpened(String),
    #[error("{0} does not list its controls; this GStreamer was built without its debug log")]
    Silent(String),
}

/// The controls that `extra-controls` of `factory` can set, by the names it takes. Flips, rotations and volumes,
/// which other properties set, may be absent.
///
/// Opens the device, so it belongs into a child process with a deadline.
pub fn controls(factory: &str) -> Result<BTreeSet<String>, Unasked> {
    let element =
        gst::ElementFactory::make(factory).build().map_err(|_| Unasked::NoElement(factory.to_owned()))?;
    if !element.has_property(EXTRA_CONTROLS) {
        return Err(Unasked::NoControls(factory.to_owned()));
    }
    let before = gst::log::get_default_threshold();
    gst::log::set_threshold_for_name("v4l2", gst::DebugLevel::Debug);
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&lines);
    let listener =
        gst::log::add_log_function(move |category, _level, _file, _function, _line, _object, text| {
            if let (true, Some(text)) = (category.name() == "v4l2", text.get()) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_string());
            }
        });
    let opened = element.set_state(gst::State::Ready);
    // What it says here is of no use: the device is let go of in any case.
    let _ = element.set_state(gst::State::Null);
    gst::log::remove_log_function(listener);
    gst::log::set_threshold_for_name("v4l2", before);
    if opened.is_err() {
        return Err(Unasked::NotOpened(factory.to_owned()));
    }
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    listed(&lines).ok_or_else(|| Unasked::Silent(factory.to_owned()))
}

/// Reads the words of GStreamer's `v4l2_calls.c`; none where they are not there at all.
fn listed(lines: &[String]) -> Option<BTreeSet<String>> {
    lines.iter().find(|line| line.contains("controls+menus"))?;
    let name = |line: &String| {
        let rest = line.strip_prefix("Adding ").unwrap_or(line).strip_prefix("ControlID ")?;
        Some(normalised(rest.rsplit_once(" (")?.0))
    };
    let not_to_set = |line: &String| {
        Some(normalised(line.strip_prefix("Control type for '")?.split_once("' not supported")?.0))
    };
    let without: BTreeSet<String> = lines.iter().filter_map(not_to_set).collect();
    Some(lines.iter().filter_map(name).filter(|name| !without.contains(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn devices_are_read_from_sysfs_by_number_and_radios_are_none() {
        let folder = tempfile::tempdir().unwrap();
        for (node, name) in
            [("video10", "second"), ("video2", "first\n"), ("radio0", "fm"), ("v4l-subdev0", "s")]
        {
            fs::create_dir_all(folder.path().join(node).join("device")).unwrap();
            fs::write(folder.path().join(node).join("name"), name).unwrap();
        }
        symlink("../../bus/platform/drivers/vicodec", folder.path().join("video2/device/driver")).unwrap();
        let device = |path: &str, card: &str, driver: Option<&str>| Device {
            path: path.into(),
            card: card.to_owned(),
            driver: driver.map(str::to_owned),
        };
        let wanted =
            [device("/dev/video2", "first", Some("vicodec")), device("/dev/video10", "second", None)];
        assert_eq!(devices_in(folder.path()), wanted);
    }

    #[test]
    fn a_kernel_without_v4l2_has_no_devices() {
        assert_eq!(devices_in(Path::new("/nowhere")), []);
    }

    #[test]
    fn control_names_are_written_as_gstreamer_writes_them() {
        assert_eq!(normalised("Video GOP Size"), "video_gop_size");
        assert_eq!(normalised("FWHT I-Frame QP Value"), "fwht_i_frame_qp_value");
    }

    #[test]
    fn controls_are_read_from_what_the_element_lists() {
        let lines = [
            "  controls+menus",
            "ControlID video_gop_size (9909cb) unhandled, FIXME",
            "Adding ControlID brightness (980900)",
            "Control type for 'FWHT Stateless Parameters' not supported for extra controls.",
            "ControlID FWHT Stateless Parameters (a40964) unhandled, FIXME",
        ];
        let lines = lines.map(str::to_owned);
        let wanted = ["brightness", "video_gop_size"].map(str::to_owned);
        assert_eq!(listed(&lines), Some(BTreeSet::from(wanted)));
        assert_eq!(listed(&[]), None);
    }

    #[test]
    fn an_element_that_is_not_there_or_takes_no_controls_is_told_in_words() {
        gst::init().unwrap();
        assert_eq!(controls("v4l2nosuchenc"), Err(Unasked::NoElement("v4l2nosuchenc".to_owned())));
        assert_eq!(controls("identity"), Err(Unasked::NoControls("identity".to_owned())));
    }
}
