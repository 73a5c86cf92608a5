//! Board profiles: data that says which elements a kind of board has and how a rendition maps to their
//! properties. A profile holds no code and no expressions; [`crate::plan`] reads it.

use std::collections::BTreeMap;

use headwater_protocol::Codec;
use serde::Deserialize;

/// Property name to value, as `gst-inspect-1.0` writes them.
pub type Properties = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A report from that board says so.
    Verified,
    Community,
    Experimental,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    pub name: String,
    pub title: String,
    pub status: Status,
    /// Where frames are between the elements.
    pub memory: String,
    /// Name of the scaler, for the probe's report.
    pub scaler: String,
    #[serde(rename = "decoder")]
    pub decoders: Vec<Decoder>,
    #[serde(rename = "encoder")]
    pub encoders: Vec<Encoder>,
    #[serde(rename = "still", default)]
    pub stills: Vec<Still>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoder {
    pub codec: Codec,
    pub element: String,
    /// Debian package that brings the element.
    pub package: String,
    /// Element before it, where it wants to know more of the stream than its codec.
    pub parser: Option<String>,
    /// Property that takes the number of threads.
    pub threads: Option<String>,
    #[serde(default)]
    pub fixed: Properties,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    pub codec: Codec,
    pub element: String,
    pub package: String,
    pub threads: Option<String>,
    #[serde(default)]
    pub fixed: Properties,
    pub bitrate: Bitrate,
    /// Absent where the encoder has no constant quality; such renditions then need another encoder.
    pub quality: Option<Quality>,
    pub gop: GopFrames,
    /// The encoder follows the profile in the caps after it.
    #[serde(default)]
    pub profiles: bool,
}

/// An encoder of still pictures: no rate control, no GOP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Still {
    pub codec: Codec,
    pub element: String,
    pub package: String,
    #[serde(default)]
    pub fixed: Properties,
    pub quality: StillQuality,
}

/// A property whose scale runs the other way than a rendition's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StillQuality {
    pub property: String,
    /// Its value for a rendition's quality of 1; others lie evenly between.
    pub best: u32,
    /// And of 51.
    pub worst: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum BitrateUnit {
    #[serde(rename = "bit/s")]
    Bits,
    #[serde(rename = "kbit/s")]
    Kilobits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bitrate {
    pub property: String,
    pub unit: BitrateUnit,
    #[serde(default)]
    pub fixed: Properties,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    pub property: String,
    /// Worst value the property takes.
    pub max: u8,
    #[serde(default)]
    pub fixed: Properties,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GopFrames {
    /// Takes a number of frames.
    pub property: String,
    /// More frames than a segment has.
    pub never: u32,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("board profile {name}: {source}")]
pub struct BadProfile {
    name: &'static str,
    source: toml::de::Error,
}

const SOFTWARE: &str = include_str!("../boards/software.toml");

impl Board {
    /// The profile for every machine without one of its own.
    pub fn software() -> Result<Self, BadProfile> {
        toml::from_str(SOFTWARE).map_err(|source| BadProfile { name: "software", source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_profiles_are_read() {
        let board = Board::software().unwrap();
        assert_eq!(board.name, "software");
        assert!(board.encoders.iter().any(|encoder| encoder.codec == Codec::H264));
    }
}
