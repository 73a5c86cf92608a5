//! Which decoder takes an input: the first of the board's that can be used here, takes pictures of that format, and has
//! a session left.

use headwater_protocol::{Code, Codec, Fault};

use super::encode::aligned;
use super::lacks::{self, Lack, Work};
use super::sessions::{Taken, Why};
use super::{DecodePlan, Element, encode, route};
use crate::board::{Board, Decoder, Interlaced, Limits, LossyInput, Properties, Quirk};
pub use crate::coded::Chroma;
use crate::fit::Size;
use crate::machine::{Machine, Use};

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

/// What a keyframe says of its pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coded {
    pub size: Size,
    /// Bits a sample.
    pub depth: u8,
    pub chroma: Chroma,
}

/// Video before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    pub codec: Codec,
    pub trust: Trust,
    /// None where nothing has come yet, or nothing that can be read.
    pub coded: Option<Coded>,
}

impl Input {
    /// Of any size, depth and chroma.
    pub fn any(codec: Codec, trust: Trust) -> Self {
        Self { codec, trust, coded: None }
    }
}

impl std::fmt::Display for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.codec)?;
        match self.coded {
            Some(Coded { size, depth, chroma }) => {
                write!(f, " of {}x{} with {depth} bits a sample", size.width, size.height)?;
                if chroma == Chroma::Quarter { Ok(()) } else { write!(f, " in {chroma}") }
            }
            None => Ok(()),
        }
    }
}

/// The first decoder of the profile that can take the input.
pub fn decoder(board: &Board, machine: &Machine, input: Input) -> Result<DecodePlan, Fault> {
    let mut lacks = Vec::new();
    for one in board.decoders.iter().filter(|decoder| decoder.codec == input.codec) {
        match decode_input(board, machine, one, input) {
            Ok(plan) => return Ok(plan),
            Err(why) => lacks.push(Lack { factory: &one.factory, package: &one.package, why }),
        }
    }
    Err(no_decoder(board, machine, input, &lacks))
}

/// The decoder's plan for this input, or why it is none for it.
pub(super) fn decode_input(
    board: &Board,
    machine: &Machine,
    one: &Decoder,
    input: Input,
) -> Result<DecodePlan, Why> {
    match (decode_with(board, machine, one), takes(one, input)) {
        (plan, Ok(())) => plan,
        // What is full would not take it with a free session either.
        (Ok(_) | Err(Why { full: Some(_), .. }), Err(text)) => Err(text.into()),
        (Err(why @ Why { full: None, .. }), Err(_)) => Err(why),
    }
}

/// Whether the input is within the decoder's limits.
fn takes(one: &Decoder, input: Input) -> Result<(), String> {
    if one.lossy_input == LossyInput::Avoid && input.trust == Trust::Lossy {
        return Err("a lost picture can hang it, and this input may have lost some".to_owned());
    }
    let Some(Coded { size, depth, chroma }) = input.coded else { return Ok(()) };
    // Devices' pictures are asked for as 4:2:0 and shared as they are; software's are converted.
    if !one.software && chroma != Chroma::Quarter {
        return Err(format!("it decodes 4:2:0, and this is {chroma}"));
    }
    // Whose profile says nothing of sizes is believed to take any. Odd sides are cut off behind it.
    if one.size != Limits::default() && aligned(size, Limits { align: (1, 1), ..one.size }).is_none() {
        let Limits { min, max, align: _ } = one.size;
        let (Size { width, height }, (low, least), (high, most)) = (size, min, max);
        return Err(format!("it decodes {low}x{least} to {high}x{most}, and this is {width}x{height}"));
    }
    let depths = if one.bit_depth.is_empty() { &[8][..] } else { &one.bit_depth };
    if depths.contains(&depth) {
        return Ok(());
    }
    let depths: Vec<String> = depths.iter().map(ToString::to_string).collect();
    Err(format!("it decodes {} bits a sample, and this has {depth}", depths.join(" or ")))
}

fn no_decoder(board: &Board, machine: &Machine, input: Input, lacks: &[Lack<'_>]) -> Fault {
    if lacks.is_empty() {
        let text = format!("input video is {:?}; Headwater reads {} here", input.codec, codecs_in(board));
        return Fault::new(Code::UnsupportedCodec, text);
    }
    let work = Work {
        whose: String::new(),
        who: "decoder",
        does: "decodes",
        what: input.to_string(),
        code: Code::NoDecoder,
    };
    lacks::fault(machine, &work, lacks)
}

/// One decoder's plan, or why it cannot be used.
pub(crate) fn decode_with(board: &Board, machine: &Machine, one: &Decoder) -> Result<DecodePlan, Why> {
    let used = Use::Decode { codec: one.codec, memory: &one.out.memory };
    let (factory, facts) = Taken::default().first(machine, &one.factory, &one.block, used)?;
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

fn codecs_in(board: &Board) -> String {
    let mut names: Vec<String> =
        board.decoders.iter().map(|decoder| format!("{:?}", decoder.codec)).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}
