//! How a neutral value is said to an element: by the first of several targets that applies.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::Properties;

/// What a property counts in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Unit {
    /// The neutral value as it is: bit/s, frames, threads, pixels.
    #[default]
    #[serde(rename = "plain")]
    Plain,
    #[serde(rename = "bit/s")]
    Bits,
    #[serde(rename = "kbit/s")]
    Kilobits,
    /// Of a second of the bitrate: buffers.
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "frames")]
    Frames,
    #[serde(rename = "s")]
    Seconds,
}

/// One way. It applies where its property, control or signal exists on the element at hand.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    /// The first that exists is set; every one with `all`.
    #[serde(deserialize_with = "one_or_many")]
    pub prop: Vec<String>,
    pub all: bool,
    /// V4L2 controls, set through `extra-controls`; as with properties.
    #[serde(deserialize_with = "one_or_many")]
    pub control: Vec<String>,
    /// A field of the caps after the encoder.
    pub caps: Option<String>,
    pub unit: Unit,
    /// Neutral name to the element's; a name that is not here cannot be said this way.
    pub values: BTreeMap<String, String>,
    /// Bounds tighter than the property's own.
    pub min: Option<i64>,
    pub max: Option<i64>,
    /// Rounded down to a multiple of this.
    pub step: Option<i64>,
    /// For a distance of keyframes: more frames than a segment has.
    pub never: Option<i64>,
    /// For qualities that count otherwise: the values that stand for 1 and for 51.
    pub best: Option<i64>,
    pub worst: Option<i64>,
    /// Set along with it.
    pub with: Properties,
}

/// The first target that applies is used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mapping(pub Vec<Target>);

impl<'de> Deserialize<'de> for Mapping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(Box<Target>),
            Many(Vec<Target>),
        }
        Ok(match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(target) => Self(vec![*target]),
            OneOrMany::Many(targets) => Self(targets),
        })
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(name) => vec![name],
        OneOrMany::Many(names) => names,
    })
}

/// Neutral value to the encoder's. An absent mapping cannot be said; whether that matters depends on the value.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderMap {
    /// Bits a second, constant over a second of buffer.
    pub bitrate: Option<Mapping>,
    /// The same as `bitrate`, where the encoder wants its peak said too.
    pub max_bitrate: Option<Mapping>,
    /// Buffer, in milliseconds of the bitrate.
    pub vbv: Option<Mapping>,
    /// Constant quality, 1 best to 51 worst. Absent: such renditions need another encoder.
    pub quality: Option<Mapping>,
    /// Frames between keyframes.
    pub gop: Option<Mapping>,
    /// `constrained-baseline`, `main`, `high`.
    pub profile: Option<Mapping>,
    /// Number of threads.
    pub threads: Option<Mapping>,
    /// Sides of the output, where the encoder scales.
    pub width: Option<Mapping>,
    pub height: Option<Mapping>,
    /// How a keyframe is asked for at the start of a segment.
    pub force_key: Option<ForceKey>,
}

/// How an encoder is asked for a keyframe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ForceKey {
    /// GStreamer's force-key-unit event, in the stream.
    Event,
    /// An action signal without arguments.
    Signal(String),
}
