//! Board profile + ladder + input facts -> concrete elements and properties. Pure: no registry, no clock.
//!
//! ```text
//! codec and format of the input ────▶ decoder() ─▶ DecodePlan: elements, the memory its pictures are in
//! first decoded picture, rate ──────▶ outputs() ─▶ OutputPlan: one RungPlan per rendition, and how pictures get there
//!                                        ├─ native    each rung from the decoded picture, by the board's scalers; stills apart
//!                                        └─ software  one cascade in system memory for all rungs
//! ```
//!
//! Two plans are equal exactly if the pipeline of one can do the work of the other.

mod decode;
mod encode;
mod explain;
mod lacks;
mod route;
mod sessions;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use headwater_protocol::{Codec, Fault, FrameRate, Ladder};
use serde::Serialize;

pub(crate) use self::decode::decode_with;
pub use self::decode::{Chroma, Coded, Input, Trust, decoder};
pub(crate) use self::encode::fixed;
pub use self::explain::{Explanation, explain};
pub(crate) use self::route::raw_caps;
use crate::board::{Board, ForceKey, Properties, SYSTEM};
use crate::es::Rotation;
use crate::fit::{Origin, Size, is_double};
use crate::machine::{Machine, Use};
use crate::still::Grid;

/// One element with its properties set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Element {
    pub factory: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: Properties,
}

impl Element {
    pub(crate) fn plain(factory: &str, properties: &[(&str, &str)]) -> Self {
        Self {
            factory: factory.to_owned(),
            properties: properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DecodePlan {
    pub codec: Codec,
    /// In the order of the stream; the last one decodes.
    pub elements: Vec<Element>,
    /// Where its pictures are, by the profile's name.
    pub memory: String,
    /// The memory's feature in caps: a decoder that is not asked for it may give system memory.
    #[serde(skip)]
    pub feature: Option<String>,
    /// The one pixel format it may be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Carries pictures into system memory, where they are elsewhere and have to be worked on in software.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub download: Vec<Element>,
    /// Its pictures are progressive, whatever came in.
    pub deinterlaces: bool,
    /// A new one for each segment.
    pub fresh: bool,
    /// It drives a device.
    pub hardware: bool,
    /// See [`Decoder::copies`].
    #[serde(skip)]
    pub copies: bool,
}

impl DecodePlan {
    /// For pictures that were never decoded: those that prove encoders or warm them up.
    pub fn nothing() -> Self {
        Self {
            codec: Codec::H264,
            elements: Vec::new(),
            memory: SYSTEM.to_owned(),
            feature: None,
            format: None,
            download: Vec::new(),
            deinterlaces: false,
            fresh: false,
            hardware: false,
            copies: false,
        }
    }
}

/// What the first decoded picture and the first timestamps say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// As decoded, before rotation.
    pub coded: Size,
    /// Width to height of a pixel.
    pub aspect: (u32, u32),
    pub rotation: Rotation,
    /// None where a segment is too short to tell.
    pub rate: Option<FrameRate>,
    /// Woven fields.
    pub interlaced: bool,
    /// GStreamer's name of the pixel format.
    pub format: String,
    /// Colours that have to become those of BT.709: high dynamic range, BT.2020, Display P3.
    pub mapped: bool,
}

impl Picture {
    /// Upright, progressive, square pixels, as software decodes them.
    pub fn plain(coded: Size, rate: Option<FrameRate>) -> Self {
        Self {
            coded,
            aspect: (1, 1),
            rotation: Rotation::None,
            rate,
            interlaced: false,
            format: "I420".to_owned(),
            mapped: false,
        }
    }
}

/// How pictures come to the encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// As the decoder gives them; each rung's own elements do the rest. Still pictures are scaled by Headwater, from the few
    /// pictures that they are due from.
    Native,
    /// Scaled by Headwater in system memory.
    Software,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputPlan {
    pub way: Way,
    /// Distinct sizes of all renditions that Headwater scales, largest first; on the native way those are still pictures.
    pub sizes: Vec<Size>,
    pub origins: Vec<Origin>,
    /// Scalers that make several rungs' pictures in one pass.
    pub splits: Vec<Element>,
    /// In the order of the ladder.
    pub rungs: Vec<RungPlan>,
}

/// What a rung's chain is fed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// Index into [`OutputPlan::sizes`].
    Canvas(usize),
    Decoded,
    /// Index into [`OutputPlan::splits`].
    Split(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RungPlan {
    pub codec: Codec,
    pub feed: Feed,
    /// Scalers, carriers and caps in front of the encoder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Element>,
    pub element: Element,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Element>,
    /// Fields of the caps after the encoder: profile, level.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub caps: Properties,
    pub width: u32,
    pub height: u32,
    /// What the encoder plans its bits with.
    pub rate: FrameRate,
    /// Frames are dropped and doubled to this rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<FrameRate>,
    /// Asked at the start of each segment but the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_key: Option<ForceKey>,
    /// A new encoder for each segment.
    pub fresh: bool,
    /// The chain goes through the state READY between segments.
    pub by_ready: bool,
    /// It drives a device.
    pub hardware: bool,
    /// See [`Encoder::copies`](crate::board::Encoder::copies).
    #[serde(skip)]
    pub copies: bool,
    /// Only some pictures are encoded, on sheets; the feed's size is that of one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub still: Option<Grid>,
}

/// In words, why none of `factories` can be used.
fn absent(machine: &Machine, factories: &[String], used: Use<'_>) -> String {
    let refused = factories.iter().find_map(|name| {
        let why = machine.refusal(name, used)?;
        // A probe's sentence names the element itself.
        Some(if why.starts_with(name) { why.to_owned() } else { format!("{name}: {why}") })
    });
    refused.unwrap_or_else(|| format!("{} is not installed", factories.join(" or ")))
}

/// Everything after the decoder: the cheaper of both ways.
pub fn outputs(
    board: &Board,
    machine: &Machine,
    ladder: &Ladder,
    decode: &DecodePlan,
    picture: &Picture,
) -> Result<OutputPlan, Fault> {
    let native = route::native(board, machine, ladder, decode, picture);
    let software = route::software(board, machine, ladder, decode, picture);
    match (native, software) {
        (Ok(native), Ok(software)) if native.cost < software.cost => Ok(native.plan),
        (_, Ok(software)) => Ok(software.plan),
        (Ok(native), Err(_)) => Ok(native.plan),
        (Err(_), Err(fault)) => Err(fault),
    }
}

/// Whether woven frames at `rate` are to give a picture of each of their two fields: a rendition asks for so many.
pub fn both_fields(ladder: &Ladder, rate: Option<FrameRate>) -> bool {
    let mut asked = ladder.renditions().iter().filter_map(|rendition| rendition.fps);
    rate.is_some_and(|rate| asked.any(|asked| is_double(asked, rate)))
}

/// The picture and its pixels after it was turned to stand upright.
pub fn upright(picture: &Picture) -> (Size, (u32, u32)) {
    match picture.rotation {
        Rotation::None | Rotation::Half => (picture.coded, picture.aspect),
        Rotation::Clockwise90 | Rotation::Clockwise270 => {
            (picture.coded.turned(), (picture.aspect.1, picture.aspect.0))
        }
    }
}
