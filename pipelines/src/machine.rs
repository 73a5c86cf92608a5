//! What a machine is, as plain data: read from a live machine by [`crate::survey`], or from a file that was written
//! on another one. Plans and profiles are matched against this alone, so they are tested without the board.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::worker::Sessions;
use headwater_protocol::{CapabilityKind, Codec};
use serde::{Deserialize, Serialize};

/// Property of GStreamer's V4L2 elements that takes controls of their devices.
pub(crate) const EXTRA_CONTROLS: &str = "extra-controls";

/// Everything that board profiles ask of a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// As `uname -m` says it.
    pub arch: String,
    pub cores: u32,
    /// Version of GStreamer at run time.
    pub gstreamer: Version,
    #[serde(default)]
    pub device_tree: DeviceTree,
    /// The beginnings of those files that profiles ask for, by path; a file that is not there is not here.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    #[serde(default)]
    pub video_devices: Vec<VideoDevice>,
    #[serde(default)]
    pub pci: Vec<PciDevice>,
    /// Elements in the registry that profiles name, by factory. Being here proves nothing.
    pub elements: BTreeMap<String, ElementFacts>,
    /// Elements that are not to be used, though they are there, and why: a probe failed, or a device hung. By factory,
    /// or by [`Use::key`] where only that use of it is refused.
    #[serde(default)]
    pub refused: BTreeMap<String, String>,
    /// Uses that work, but not after a flush, by [`Use::key`]: a new element for each segment.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub fresh: BTreeSet<String>,
    /// What runs only so often at once, by its pool ([`headwater_protocol::media::pool`]). Anything else may be open as
    /// often as anybody likes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sessions: BTreeMap<String, Sessions>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceTree {
    pub model: String,
    pub compatible: Vec<String>,
}

/// One `/dev/video*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoDevice {
    pub path: String,
    /// `/sys/class/video4linux/*/name`: the driver's word for the device.
    pub name: String,
    /// Name of the kernel's driver, from its link in `/sys`.
    pub driver: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciDevice {
    /// As in `/sys/bus/pci/devices/*/vendor`: `0x10de`.
    pub vendor: String,
    /// As in `.../class`: `0x030000`.
    pub class: String,
}

/// One element of the registry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElementFacts {
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    #[serde(default)]
    pub properties: BTreeMap<String, PropertyFacts>,
    /// V4L2 controls of the element's device, where it has `extra-controls`, with their ranges where those are known.
    /// None: they were not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<BTreeMap<String, Option<ControlFacts>>>,
    /// Caps of its pad templates, as GStreamer prints them.
    #[serde(default)]
    pub sink: String,
    #[serde(default)]
    pub src: String,
    /// Action signals.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub signals: BTreeSet<String>,
}

impl ElementFacts {
    /// Whether a control can be set. Where a device's controls were not read, its element is believed.
    pub fn has_control(&self, control: &str) -> bool {
        self.properties.contains_key(EXTRA_CONTROLS)
            && self.controls.as_ref().is_none_or(|all| all.contains_key(control))
    }

    /// A control's range; None where it is not known.
    pub fn range(&self, control: &str) -> Option<ControlFacts> {
        self.controls.as_ref()?.get(control).copied().flatten()
    }
}

/// One property that can be written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropertyFacts {
    pub kind: PropertyKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Nicks of an enumeration or of flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PropertyKind {
    Bool,
    Int,
    Uint,
    Int64,
    Uint64,
    Float,
    Double,
    Text,
    Enum,
    Flags,
    /// Caps, structures, boxed values: set by text where at all.
    #[default]
    Other,
}

/// A V4L2 control's range, as VIDIOC_QUERYCTRL gives it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlFacts {
    pub min: i64,
    pub max: i64,
    pub step: i64,
}

/// A version of GStreamer: major and minor decide, the rest matters to quirks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl std::str::FromStr for Version {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let mut parts = text.split('.').map(|part| part.parse::<u32>().map_err(|_| BadVersion(text.into())));
        let mut next = || parts.next().transpose().map(Option::unwrap_or_default);
        Ok(Self(next()?, next()?, next()?))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version; write 1.22 or 1.22.4")]
pub struct BadVersion(String);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What an element is used for. Each use is proved or refused on its own: a decoder may do H.264 and no AV1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use<'a> {
    /// Pictures come out in `memory`, by the profile's name.
    Decode { codec: Codec, memory: &'a str },
    /// Pictures go from one kind of memory to another.
    Scale { from: &'a str, to: &'a str },
    /// Pictures go in in `memory`.
    Encode { codec: Codec, memory: &'a str },
}

impl Use<'_> {
    pub fn kind(self) -> CapabilityKind {
        match self {
            Use::Decode { .. } => CapabilityKind::Decode,
            Use::Scale { .. } => CapabilityKind::Scale,
            Use::Encode { .. } => CapabilityKind::Encode,
        }
    }

    /// `decode:h264:nvv4l2decoder:nvmm`: names this use of `factory` in [`Machine::refused`] and in a probe's results.
    pub fn key(self, factory: &str) -> String {
        let name = |codec: Codec| format!("{codec:?}").to_lowercase();
        match self {
            Use::Decode { codec, memory } => format!("decode:{}:{factory}:{memory}", name(codec)),
            Use::Scale { from, to } => format!("scale:{factory}:{from}:{to}"),
            Use::Encode { codec, memory } => format!("encode:{}:{factory}:{memory}", name(codec)),
        }
    }
}

impl Machine {
    /// Takes over the controls that a device was heard to have. What is known already has ranges too, and stays.
    pub fn learn_controls(&mut self, factory: &str, heard: &BTreeSet<String>) {
        if let Some(facts) = self.elements.get_mut(factory) {
            facts.controls.get_or_insert_with(|| heard.iter().map(|name| (name.clone(), None)).collect());
        }
    }

    /// Whether a probe found that the use needs a new element for each segment.
    pub fn needs_fresh(&self, factory: &str, used: Use<'_>) -> bool {
        self.fresh.contains(&used.key(factory))
    }

    /// Why the element is not to be used like this, where it is refused.
    pub fn refusal(&self, factory: &str, used: Use<'_>) -> Option<&str> {
        self.refused.get(factory).or_else(|| self.refused.get(&used.key(factory))).map(String::as_str)
    }

    /// Those of `factories` that can be used like this.
    pub fn all_for<'a>(
        &self,
        factories: &'a [String],
        used: Use<'_>,
    ) -> impl Iterator<Item = (&'a str, &ElementFacts)> {
        let can = move |name: &&String| self.refusal(name, used).is_none();
        factories.iter().filter(can).filter_map(|name| self.usable(name).map(|facts| (name.as_str(), facts)))
    }

    /// The first of `factories` that can be used like this.
    pub fn first_for<'a>(&self, factories: &'a [String], used: Use<'_>) -> Option<(&'a str, &ElementFacts)> {
        self.all_for(factories, used).next()
    }

    /// The element's facts, unless it is missing or refused.
    pub fn usable(&self, factory: &str) -> Option<&ElementFacts> {
        if self.refused.contains_key(factory) { None } else { self.elements.get(factory) }
    }

    /// The first of `factories` that can be used.
    pub fn first<'a>(&self, factories: &'a [String]) -> Option<(&'a str, &ElementFacts)> {
        factories.iter().find_map(|name| self.usable(name).map(|facts| (name.as_str(), facts)))
    }
}
