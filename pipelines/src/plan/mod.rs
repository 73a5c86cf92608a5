//! Board profile + ladder + input facts -> concrete elements and properties. Pure: no registry, no clock.
//!
//! ```text
//! codec of the input ───────────────▶ decoder() ─▶ DecodePlan: elements, the memory its pictures are in
//! first decoded picture, rate ──────▶ outputs() ─▶ OutputPlan: one RungPlan per rendition, and how pictures get there
//!                                        ├─ native    each rung from the decoded picture, by the board's scalers
//!                                        └─ software  one cascade in system memory for all rungs
//! ```
//!
//! Two plans are equal exactly if the pipeline of one can do the work of the other.

mod encode;
mod explain;
mod route;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use headwater_protocol::{Code, Codec, Fault, FrameRate, Ladder};
use serde::Serialize;

pub(crate) use self::encode::fixed;
pub use self::explain::{Explanation, explain};
pub(crate) use self::route::raw_caps;
use crate::board::{Board, Decoder, ForceKey, Interlaced, LossyInput, Properties, Quirk, SYSTEM};
use crate::es::Rotation;
use crate::fit::{Origin, Size};
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
    /// As the decoder gives them; each rung's own elements do the rest.
    Native,
    /// Scaled by Headwater in system memory.
    Software,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputPlan {
    pub way: Way,
    /// Distinct sizes of all renditions, largest first; for the software way.
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

/// Frame threads of a decoder. More cost more than they give: of a ladder's work less than a third is decoding, and
/// each has pictures of its own in memory. With a single one GStreamer's libav decoders lose pictures after a gap in
/// the frame numbers, which is where open groups of pictures were cut.
const DECODER_THREADS: std::ops::RangeInclusive<u32> = 2..=4;

/// Whether input can have lost pictures without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A file whose index would tell.
    Whole,
    /// A transport stream, which came over some network.
    Lossy,
}

/// The first decoder of the profile that the machine can use.
pub fn decoder(board: &Board, machine: &Machine, codec: Codec, trust: Trust) -> Result<DecodePlan, Fault> {
    let known = board.decoders.iter().filter(|decoder| decoder.codec == codec);
    for one in known.clone() {
        if one.lossy_input == LossyInput::Avoid && trust == Trust::Lossy {
            continue;
        }
        if let Ok(plan) = decode_with(board, machine, one) {
            return Ok(plan);
        }
    }
    let packages: Vec<&str> = known.map(|decoder| decoder.package.as_str()).collect();
    Err(if packages.is_empty() {
        let text = format!("input video is {codec:?}; Headwater reads {} here", codecs_in(board));
        Fault::new(Code::UnsupportedCodec, text)
    } else {
        let text = format!("no decoder for {codec:?} works here; install {}", packages.join(" or "));
        Fault::new(Code::NoDecoder, text)
    })
}

/// One decoder's plan, or why it cannot be used.
pub(crate) fn decode_with(board: &Board, machine: &Machine, one: &Decoder) -> Result<DecodePlan, String> {
    let used = Use::Decode { codec: one.codec, memory: &one.out.memory };
    let (factory, facts) =
        machine.first_for(&one.factory, used).ok_or_else(|| absent(machine, &one.factory, used))?;
    let mut properties = encode::fixed(facts, &one.set, &one.set_if)?;
    if let Some(threads) = one.threads.as_ref().filter(|name| facts.properties.contains_key(*name)) {
        let count = machine.cores.div_ceil(2).clamp(*DECODER_THREADS.start(), *DECODER_THREADS.end());
        properties.insert(threads.clone(), count.to_string());
    }
    let parser = one
        .parser
        .iter()
        .map(|parser| Element { factory: parser.factory.clone(), properties: parser.set.clone() });
    let decoder = Element { factory: factory.to_owned(), properties };
    let carrier = match board.memory.get(&one.out.memory) {
        Some(memory) => machine.first(&memory.to_system).map(|(carrier, _)| carrier),
        None => None,
    };
    let download = match carrier {
        Some(carrier) => vec![
            Element { factory: carrier.to_owned(), properties: Properties::new() },
            // Any of them: a carrier may not convert, and ten bits are of use to tone mapping.
            route::raw_caps(None, &format!("{{{}}}", one.out.formats.join(",")), None),
        ],
        None => Vec::new(),
    };
    Ok(DecodePlan {
        codec: one.codec,
        elements: parser.chain([decoder]).collect(),
        memory: one.out.memory.clone(),
        feature: board.memory.get(&one.out.memory).and_then(|memory| memory.feature.clone()),
        format: one.out.formats.first().filter(|_| one.fixed_format).cloned(),
        download,
        deinterlaces: one.interlaced == Interlaced::Deinterlaces,
        fresh: machine.needs_fresh(factory, used)
            || (!one.software && board.quirks.contains(&Quirk::FreshDecoderPerSegment)),
        hardware: !one.software,
        copies: one.copies,
    })
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

fn codecs_in(board: &Board) -> String {
    let mut names: Vec<String> =
        board.decoders.iter().map(|decoder| format!("{:?}", decoder.codec)).collect();
    names.sort();
    names.dedup();
    names.join(", ")
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

/// The picture and its pixels after it was turned to stand upright.
pub fn upright(picture: &Picture) -> (Size, (u32, u32)) {
    match picture.rotation {
        Rotation::None | Rotation::Half => (picture.coded, picture.aspect),
        Rotation::Clockwise90 | Rotation::Clockwise270 => {
            (picture.coded.turned(), (picture.aspect.1, picture.aspect.0))
        }
    }
}
