//! Whether a profile is for a machine. Keys are all to hold; in a list one entry is enough.

use regex::Regex;
use serde::Deserialize;

use super::Board;
use crate::machine::{Machine, Version};

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    pub arch: Vec<String>,
    /// Exact strings of `/proc/device-tree/compatible`.
    pub dt_compatible: Vec<String>,
    /// Regular expressions on `/proc/device-tree/model`.
    pub dt_model: Vec<String>,
    /// None of these may match.
    pub dt_model_not: Vec<String>,
    pub file: Vec<FileRule>,
    /// Names of kernel drivers of `/dev/video*`, or regular expressions on the devices' names.
    pub v4l2_driver: Vec<String>,
    pub pci: Vec<PciRule>,
    /// Elements in the registry.
    pub element: Vec<String>,
    pub gst_min: Option<Version>,
    pub gst_below: Option<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    pub path: String,
    /// On the file's first 4 KiB; absent: it is enough that it is there.
    #[serde(default)]
    pub regex: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciRule {
    /// `0x10de`
    pub vendor: String,
    /// Beginning of the class: `0x03` for displays.
    pub class: String,
}

/// The first rule that a machine does not meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("it is a base for other profiles")]
    Abstract,
    #[error("the machine is {0}")]
    Arch(String),
    #[error("the device tree is not of {0}")]
    Compatible(String),
    #[error("the device tree's model is {0:?}")]
    Model(String),
    #[error("{0} is not there or says something else")]
    File(String),
    #[error("no video device of driver {0}")]
    Driver(String),
    #[error("no such PCI device")]
    Pci,
    #[error("GStreamer has no element {0}")]
    Element(String),
    #[error("GStreamer is {0}")]
    Gstreamer(Version),
}

impl Match {
    /// Ok where every rule holds.
    pub fn check(&self, machine: &Machine) -> Result<(), Mismatch> {
        let any =
            |rules: &[String], test: &dyn Fn(&String) -> bool| rules.is_empty() || rules.iter().any(test);
        let model = machine.device_tree.model.as_str();
        let like = |rule: &String| expression(rule).is_some_and(|rule| rule.is_match(model));
        if !any(&self.arch, &|arch| *arch == machine.arch) {
            return Err(Mismatch::Arch(machine.arch.clone()));
        }
        if !any(&self.dt_compatible, &|name| machine.device_tree.compatible.contains(name)) {
            return Err(Mismatch::Compatible(self.dt_compatible.join(" or ")));
        }
        if !any(&self.dt_model, &like) || self.dt_model_not.iter().any(like) {
            return Err(Mismatch::Model(model.to_owned()));
        }
        let says = |rule: &FileRule| {
            let text = machine.files.get(&rule.path)?;
            expression(&rule.regex).filter(|rule| rule.is_match(text))
        };
        if !self.file.is_empty() && !self.file.iter().any(|rule| says(rule).is_some()) {
            let paths: Vec<&str> = self.file.iter().map(|rule| rule.path.as_str()).collect();
            return Err(Mismatch::File(paths.join(" or ")));
        }
        let drives = |rule: &String| {
            let named = expression(rule);
            machine.video_devices.iter().any(|device| {
                device.driver == *rule || named.as_ref().is_some_and(|rule| rule.is_match(&device.name))
            })
        };
        if !any(&self.v4l2_driver, &drives) {
            return Err(Mismatch::Driver(self.v4l2_driver.join(" or ")));
        }
        let at_hand = |rule: &PciRule| {
            machine.pci.iter().any(|one| one.vendor == rule.vendor && one.class.starts_with(&rule.class))
        };
        if !self.pci.is_empty() && !self.pci.iter().any(at_hand) {
            return Err(Mismatch::Pci);
        }
        if !any(&self.element, &|name| machine.elements.contains_key(name)) {
            return Err(Mismatch::Element(self.element.join(" or ")));
        }
        let version = machine.gstreamer;
        if self.gst_min.is_some_and(|min| version < min)
            || self.gst_below.is_some_and(|below| version >= below)
        {
            return Err(Mismatch::Gstreamer(version));
        }
        Ok(())
    }

    /// The regular expressions that cannot be read; a profile with one is refused when it is loaded.
    pub(super) fn bad_expression(&self) -> Option<regex::Error> {
        let models = self.dt_model.iter().chain(&self.dt_model_not).chain(&self.v4l2_driver);
        let files = self.file.iter().map(|rule| &rule.regex);
        models.chain(files).find_map(|rule| Regex::new(rule).err())
    }
}

/// None only for an expression that loading has refused already.
fn expression(rule: &str) -> Option<Regex> {
    Regex::new(rule).ok()
}

impl Board {
    /// Ok where this profile may be used on the machine.
    pub fn check(&self, machine: &Machine) -> Result<(), Mismatch> {
        if self.is_abstract { Err(Mismatch::Abstract) } else { self.rules.check(machine) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_would_do_is_named() {
        let file = |path: &str| FileRule { path: path.to_owned(), regex: String::new() };
        let rules = Match { file: vec![file("/a"), file("/b")], ..Match::default() };
        let why = rules.check(&Machine::default()).unwrap_err().to_string();
        assert_eq!(why, "/a or /b is not there or says something else");
    }
}
