//! What can be known of V4L2 devices without touching them, and what GStreamer's elements say of their controls.
//!
//! Which devices there are stands in sysfs. Which controls a device has is asked of the element that drives it:
//! when it opens the device it tries each control it was given in `extra-controls`, and warns of those it cannot
//! set. That needs no system call of our own, and it asks the one who will set the control later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

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

/// What became of a control that was to be set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// The device took the value. Drivers clamp it to their range without a word; only its effect tells.
    Taken,
    /// The device has no control of that name.
    Missing,
    /// The device has it and refused the value; with the element's words.
    Refused(String),
}

/// Why the controls of a device could not be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unasked {
    #[error("GStreamer has no {0}: no device that would do its work was found")]
    NoElement(String),
    #[error("{0} takes no V4L2 controls: it has no property extra-controls")]
    NoControls(String),
    #[error("{0:?} is no name of a V4L2 control")]
    BadName(String),
    #[error("{element} could not open its device: {why}")]
    NotOpened { element: String, why: String },
    #[error("{0} does not say which controls it cannot set; this GStreamer was built without its debug log")]
    Silent(String),
}

/// A control that no device has. An element that does not warn of it would not warn of others either.
const NOBODY_HAS: &str = "headwater_asks";

/// Sets `controls` on the device behind `factory` and tells what became of each. Names as [`normalised`] makes them.
///
/// Opens the device, so it belongs into a child process with a deadline.
pub fn ask(factory: &str, controls: &BTreeMap<String, i32>) -> Result<BTreeMap<String, Control>, Unasked> {
    if let Some(bad) = controls.keys().find(|name| normalised(name) != **name || name.is_empty()) {
        return Err(Unasked::BadName(bad.clone()));
    }
    let element = gst::ElementFactory::make(factory)
        .build()
        .map_err(|_| Unasked::NoElement(factory.to_owned()))?;
    if !element.has_property("extra-controls") {
        return Err(Unasked::NoControls(factory.to_owned()));
    }
    let names = controls.keys().map(String::as_str);
    let warnings: BTreeMap<String, Vec<String>> = names
        .chain([NOBODY_HAS])
        .map(|name| (name.to_owned(), warnings_of(&element, name, controls.get(name).copied().unwrap_or(0))))
        .map(|(name, heard)| heard.map(|heard| (name, heard)))
        .collect::<Result<_, _>>()
        .map_err(|why| Unasked::NotOpened { element: factory.to_owned(), why })?;
    if warnings.get(NOBODY_HAS).is_none_or(Vec::is_empty) {
        return Err(Unasked::Silent(factory.to_owned()));
    }
    Ok(controls.keys().map(|name| (name.clone(), verdict(warnings.get(name)))).collect())
}

/// Reads the words of GStreamer's `v4l2_calls.c`, the same from 1.16 to 1.28.
fn verdict(warnings: Option<&Vec<String>>) -> Control {
    let first = warnings.and_then(|warnings| warnings.first());
    match first {
        None => Control::Taken,
        Some(text) if text.contains("does not exist") => Control::Missing,
        Some(text) => Control::Refused(text.clone()),
    }
}

/// Opens the element's device with one control and gives the warnings of its opening.
fn warnings_of(element: &gst::Element, name: &str, value: i32) -> Result<Vec<String>, String> {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let to = Arc::clone(&heard);
    let wanted = element.clone().downgrade();
    let listener = gst::log::add_log_function(move |category, level, _file, _function, _line, object, text| {
        // Its own messages only: other elements of the process log too.
        let ours = || {
            let object = object.map(|object| object.to_string()).unwrap_or_default();
            wanted.upgrade().is_some_and(|element| object.contains(element.name().as_str()))
        };
        if level <= gst::DebugLevel::Warning && category.name().starts_with("v4l2") && ours() {
            let text = text.get().map(|text| text.to_string()).unwrap_or_default();
            to.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    });
    let controls = gst::Structure::builder("controls").field(name, value).build();
    element.set_property("extra-controls", controls);
    let opened = element.set_state(gst::State::Ready);
    let closed = element.set_state(gst::State::Null);
    gst::log::remove_log_function(listener);
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    match opened.and(closed) {
        Ok(_) => Ok(std::mem::take(&mut heard)),
        Err(_) => Err(heard.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn devices_are_read_from_sysfs_by_number_and_radios_are_none() {
        let folder = tempfile::tempdir().unwrap();
        for (node, name) in [("video10", "second"), ("video2", "first\n"), ("radio0", "fm"), ("v4l-subdev0", "s")] {
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
    fn an_element_that_is_not_there_or_takes_no_controls_is_told_in_words() {
        gst::init().unwrap();
        let none = BTreeMap::new();
        assert_eq!(ask("v4l2nosuchenc", &none), Err(Unasked::NoElement("v4l2nosuchenc".to_owned())));
        assert_eq!(ask("identity", &none), Err(Unasked::NoControls("identity".to_owned())));
        let bad = BTreeMap::from([("Video GOP".to_owned(), 1)]);
        assert_eq!(ask("identity", &bad), Err(Unasked::BadName("Video GOP".to_owned())));
    }
}
