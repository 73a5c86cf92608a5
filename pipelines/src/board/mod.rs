//! Board profiles: data that says which elements a kind of board has and how a rendition maps to their
//! properties. A profile holds no code and no expressions; what needs code is a named [`Quirk`].
//!
//! ```text
//! boards/*.toml, the user's own ─ load: extends, merge ─▶ Board ─ matching: Machine ─▶ the board in use ─▶ plan
//! ```

mod load;
mod mapping;
mod matching;

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::Codec;
use serde::Deserialize;

pub use self::load::{BadProfile, Boards, Profile, Reason, user_folder};
pub use self::mapping::{EncoderMap, ForceKey, Mapping, Target, Unit};
pub use self::matching::{Match, Mismatch};

/// Property name to value, as `gst-inspect-1.0` writes them.
pub type Properties = BTreeMap<String, String>;

/// Name of the memory that a processor can read: plain caps without a feature.
pub const SYSTEM: &str = "system";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A report from that very kind of board says so.
    Verified,
    /// Somebody runs it; no report from us.
    Community,
    /// Written from documentation and sources; never seen on the board.
    Experimental,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Version of this form: 1.
    pub schema: u32,
    pub id: String,
    pub title: String,
    pub status: Status,
    /// The highest of several that match wins.
    #[serde(default)]
    pub priority: i32,
    /// What a profile builds on and gives its name to no machine.
    #[serde(default, rename = "abstract")]
    pub is_abstract: bool,
    #[serde(default, rename = "match")]
    pub rules: Match,
    /// Set in the worker before GStreamer starts.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Kinds of memory besides `system`, by the name used in this profile.
    #[serde(default)]
    pub memory: BTreeMap<String, Memory>,
    /// Best first.
    #[serde(default, rename = "decoder")]
    pub decoders: Vec<Decoder>,
    #[serde(default, rename = "scaler")]
    pub scalers: Vec<Scaler>,
    /// Best first.
    #[serde(default, rename = "encoder")]
    pub encoders: Vec<Encoder>,
    #[serde(default)]
    pub quirks: Vec<Quirk>,
    #[serde(default)]
    pub budget: Budget,
    /// What a person should know: where the facts come from, what was never tried, what to install or switch on.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A kind of memory that pictures can be in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// In caps: `memory:NVMM`. Absent where the pictures say nothing of it (Rockchip's DMABuf in plain caps).
    pub feature: Option<String>,
    /// Elements that carry pictures from and to `system`, first that exists; absent where only scalers do.
    #[serde(default)]
    pub from_system: Vec<String>,
    #[serde(default)]
    pub to_system: Vec<String>,
}

/// Pictures as they go in or come out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pictures {
    #[serde(default = "system")]
    pub memory: String,
    /// GStreamer's names, best first.
    pub formats: Vec<String>,
}

fn system() -> String {
    SYSTEM.to_owned()
}

/// Limits of a codec block in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub min: (u32, u32),
    pub max: (u32, u32),
    /// Both sides must be multiples of these.
    pub align: (u32, u32),
}

impl Default for Limits {
    fn default() -> Self {
        Self { min: (16, 16), max: (16384, 16384), align: (2, 2) }
    }
}

/// An element beside the one that does the work.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Helper {
    pub factory: String,
    #[serde(default)]
    pub set: Properties,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoder {
    pub codec: Codec,
    /// The first that exists; forks and versions have several names for one block.
    pub factory: Vec<String>,
    /// Package or source that brings it, for a person.
    pub package: String,
    /// Element before it, where it wants to know more of the stream than its codec.
    pub parser: Option<Helper>,
    pub out: Pictures,
    /// Asked for the first of its formats alone: it offers others that it cannot give.
    #[serde(default)]
    pub fixed_format: bool,
    #[serde(default)]
    pub size: Limits,
    /// Bits a sample; empty: 8.
    #[serde(default)]
    pub bit_depth: Vec<u8>,
    /// Must be there; an element without one of these is another element.
    #[serde(default)]
    pub set: Properties,
    /// Skipped where missing.
    #[serde(default)]
    pub set_if: Properties,
    /// Property that takes the number of threads.
    pub threads: Option<String>,
    #[serde(default)]
    pub interlaced: Interlaced,
    #[serde(default)]
    pub lossy_input: LossyInput,
    /// It copies each picture into memory that it is offered, and keeps that as long as it looks back.
    #[serde(default)]
    pub copies: bool,
    /// 0: not known, a probe counts them.
    #[serde(default)]
    pub max_instances: u32,
    /// What people call the device behind it: NVDEC. For a sentence that says that it is not there.
    #[serde(default)]
    pub block: String,
    /// Drives no device; set when a profile is read, for the elements of the profile `software`.
    #[serde(skip)]
    pub software: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interlaced {
    /// Cannot be decoded.
    No,
    /// Comes out woven and is deinterlaced after.
    #[default]
    Frames,
    /// Comes out progressive.
    Deinterlaces,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossyInput {
    #[default]
    Ok,
    /// A lost picture can hang the device: only for input that cannot lose any.
    Avoid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skill {
    Scale,
    /// Changes the pixel format.
    Convert,
    Crop,
    Rotate,
    Deinterlace,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaler {
    pub factory: Vec<String>,
    pub package: String,
    /// Kinds of memory it reads and writes.
    #[serde(rename = "in")]
    pub input: Vec<String>,
    pub out: Vec<String>,
    pub formats: Vec<String>,
    pub can: Vec<Skill>,
    /// Pictures it makes of one in a single pass.
    #[serde(default = "one")]
    pub outputs: u32,
    /// Property that is told how many of them are wanted.
    pub outputs_prop: Option<String>,
    /// Largest factor between input and output sides.
    #[serde(default = "any_factor")]
    pub max_downscale: f64,
    #[serde(default)]
    pub size: Limits,
    #[serde(default)]
    pub set: Properties,
    #[serde(default)]
    pub set_if: Properties,
    /// How a turn is said, clockwise degrees to value.
    pub rotate: Option<Rotate>,
}

fn one() -> u32 {
    1
}

fn any_factor() -> f64 {
    f64::INFINITY
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    pub prop: String,
    /// Keys `0`, `90`, `180`, `270`.
    pub values: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// `jpeg` for still pictures.
    pub codec: Codec,
    pub factory: Vec<String>,
    pub package: String,
    #[serde(rename = "in")]
    pub input: Pictures,
    #[serde(default)]
    pub size: Limits,
    #[serde(default)]
    pub set: Properties,
    #[serde(default)]
    pub set_if: Properties,
    /// V4L2 controls that are always set; skipped where the device lacks them.
    #[serde(default)]
    pub controls: Properties,
    /// Between the encoder and us.
    #[serde(default)]
    pub after: Vec<Helper>,
    #[serde(default)]
    pub map: EncoderMap,
    #[serde(default)]
    pub recycle: Recycle,
    /// It copies each picture before it takes the next, and keeps what it was given as long as it looks ahead.
    #[serde(default)]
    pub copies: bool,
    #[serde(default)]
    pub max_instances: u32,
    /// As a decoder's: NVENC.
    #[serde(default)]
    pub block: String,
    #[serde(skip)]
    pub software: bool,
}

impl Board {
    /// Elements with a device behind them.
    pub fn hardware(&self) -> BTreeSet<String> {
        let decoders = self.decoders.iter().filter(|one| !one.software).flat_map(|one| &one.factory);
        let encoders = self.encoders.iter().filter(|one| !one.software).flat_map(|one| &one.factory);
        let scalers = self.scalers.iter().flat_map(|one| &one.factory);
        let carriers = self.memory.values().flat_map(|one| one.from_system.iter().chain(&one.to_system));
        decoders.chain(encoders).chain(scalers).chain(carriers).cloned().collect()
    }

    /// This board with the elements of `software` behind its own, for what it cannot do.
    pub fn with_last_resort(mut self, software: &Board) -> Self {
        if self.id != software.id {
            self.decoders.extend(software.decoders.iter().cloned());
            self.encoders.extend(software.encoders.iter().cloned());
        }
        self
    }
}

/// How a drained encoder is made ready for the next segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recycle {
    /// By a flush, which keeps every context.
    #[default]
    Flush,
    /// Through the state READY, where a flush does not make it begin afresh.
    Ready,
}

/// Behaviour that needs code. Each is explained where it is implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quirk {
    /// The encoder does not start its next segment with a keyframe, or hangs after a flush: a new one for each.
    FreshEncoderPerSegment,
    /// The decoder keeps its last pictures or hangs after a flush: a new one for each segment.
    FreshDecoderPerSegment,
    /// A failed session that looks like lack of memory means that the device has all the work it can do.
    OutOfMemoryMeansBusy,
    /// The level must be in the caps after the encoder, and high enough for size and rate.
    LevelInCaps,
}

/// What the board's blocks can do together; 0: not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Millions of pixels a second.
    pub decode_mpps: u32,
    pub encode_mpps: u32,
    /// Memory that one worker may take.
    pub memory_mb: u32,
}
