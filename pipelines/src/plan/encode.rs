//! A rendition said to one encoder: the board's mappings applied to what the element really has.

use headwater_protocol::{Code, Codec, Fault, FrameRate, Gop, Profile, Rate, Rendition};

use super::Element;
use super::lacks::{self, Lack, Work};
use super::sessions::{Taken, Why};
use crate::board::{Board, Encoder, ForceKey, Limits, Mapping, Properties, Quirk, Recycle, Target, Unit};
use crate::fit::{Size, frames_in};
use crate::machine::{EXTRA_CONTROLS, ElementFacts, Machine, PropertyFacts, PropertyKind, Use};

/// For encoders only, where neither input nor ladder tells.
const FALLBACK_RATE: (u32, u32) = (30, 1);

const MAX_ENCODER_THREADS: u32 = 16;

/// One second of the bitrate: what a rendition's bitrate promises.
const VBV_MS: i64 = 1000;

/// An encoder with everything said to it but where its pictures come from.
#[derive(Debug, Clone)]
pub(super) struct Said<'a> {
    pub encoder: &'a Encoder,
    pub facts: &'a ElementFacts,
    pub element: Element,
    pub after: Vec<Element>,
    pub caps: Properties,
    pub size: Size,
    pub rate: FrameRate,
    pub force_key: Option<ForceKey>,
    pub fresh: bool,
    pub by_ready: bool,
    /// Its frames are dropped and doubled to a rate of its own.
    pub gated: bool,
    /// What could not be said exactly.
    pub notes: Vec<String>,
}

/// What a rendition is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub rendition: &'a Rendition,
    /// The size that the picture has in the rendition's box, before an encoder's alignment.
    pub fitted: Size,
    pub source_rate: Option<FrameRate>,
    pub threads: u32,
    /// By renditions that were planned before.
    pub taken: &'a Taken,
}

/// All encoders together have one thread per core; each has its share by pixels, and at least one.
pub(super) fn threads(cores: u32, pixels: u64, all_pixels: u64) -> u32 {
    let share = (u64::from(cores) * pixels + all_pixels / 2) / all_pixels.max(1);
    u32::try_from(share).unwrap_or(MAX_ENCODER_THREADS).clamp(1, MAX_ENCODER_THREADS)
}

/// Encoders for a rendition, best first, each with what it is told or why it cannot be used.
pub(super) fn candidates<'a>(
    board: &'a Board,
    machine: &'a Machine,
    wanted: Wanted<'_>,
) -> Vec<(&'a Encoder, Result<Said<'a>, Why>)> {
    let codec = wanted.rendition.codec;
    let of_codec = board.encoders.iter().filter(|encoder| encoder.codec == codec);
    of_codec.map(|encoder| (encoder, say(board, machine, encoder, wanted))).collect()
}

/// The order in which renditions are planned: what a device does only so often at once spares the processor most
/// with the largest pictures.
pub(super) fn largest_first(fitted: &[Size]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..fitted.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(fitted[at].pixels()));
    order
}

pub(super) fn no_encoder(
    board: &Board,
    machine: &Machine,
    rendition: &Rendition,
    lacks: &[Lack<'_>],
) -> Fault {
    let (name, codec) = (&rendition.name, rendition.codec);
    if lacks.is_empty() {
        let text = format!("rendition {name}: board {} has no encoder for {codec:?}", board.id);
        return Fault::new(Code::NoEncoder, text);
    }
    let work = Work {
        whose: format!("rendition {name}: "),
        who: "encoder",
        does: "encodes",
        what: format!("{codec:?}"),
        code: Code::NoEncoder,
    };
    lacks::fault(machine, &work, lacks)
}

/// Fixed properties: those that must exist, and those that may.
pub(crate) fn fixed(
    facts: &ElementFacts,
    set: &Properties,
    set_if: &Properties,
) -> Result<Properties, String> {
    if let Some(missing) = set.keys().find(|name| !facts.properties.contains_key(*name)) {
        return Err(format!("this version has no property {missing}"));
    }
    let mut properties: Properties =
        set_if.iter().filter(|(name, _)| facts.properties.contains_key(*name)).map(owned).collect();
    properties.extend(set.iter().map(owned));
    Ok(properties)
}

fn owned((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

/// `size` within the limits: rounded down to the alignment. None where it is outside.
pub(super) fn aligned(size: Size, limits: Limits) -> Option<Size> {
    let down = |side: u32, align: u32| side / align.max(1) * align.max(1);
    let size = Size::new(down(size.width, limits.align.0), down(size.height, limits.align.1));
    let (long, short) = (size.width.max(size.height), size.width.min(size.height));
    // A block that takes a picture takes it turned.
    let (longest, shortest) = (limits.max.0.max(limits.max.1), limits.max.0.min(limits.max.1));
    let inside =
        size.width >= limits.min.0 && size.height >= limits.min.1 && long <= longest && short <= shortest;
    inside.then_some(size)
}

fn say<'a>(
    board: &Board,
    machine: &'a Machine,
    encoder: &'a Encoder,
    wanted: Wanted<'_>,
) -> Result<Said<'a>, Why> {
    let used = Use::Encode { codec: encoder.codec, memory: &encoder.input.memory };
    let Wanted { rendition, fitted, source_rate, threads, taken } = wanted;
    let (factory, facts) = taken.first(machine, &encoder.factory, &encoder.block, used)?;
    let size = aligned(fitted, encoder.size)
        .ok_or_else(|| format!("{}x{} is outside of what it encodes", fitted.width, fitted.height))?;
    let rate = match rendition.fps.or(source_rate) {
        Some(rate) => rate,
        None => FrameRate::new(FALLBACK_RATE.0, FALLBACK_RATE.1).map_err(|bad| bad.to_string())?,
    };
    let mut telling = Telling {
        facts,
        properties: fixed(facts, &encoder.set, &encoder.set_if)?,
        controls: encoder.controls.iter().filter(|(name, _)| facts.has_control(name)).map(owned).collect(),
        caps: Properties::new(),
        notes: Vec::new(),
    };
    let map = &encoder.map;
    match rendition.rate {
        Rate::Bitrate(bits) => {
            let bits = i64::from(bits.0);
            telling.must("bitrate", map.bitrate.as_ref(), Value::Number(bits))?;
            telling.may(map.max_bitrate.as_ref(), Value::Number(bits));
            telling.may(map.vbv.as_ref(), Value::Number(VBV_MS));
        }
        Rate::Quality(quality) => {
            telling.must("constant quality", map.quality.as_ref(), Value::Number(i64::from(quality)))?;
        }
    }
    let gop = match rendition.gop {
        Gop::Segment => Value::Never,
        Gop::Every(distance) => Value::Number(i64::from(frames_in(distance.0, rate))),
        Gop::Intra => Value::Number(1),
    };
    if encoder.codec != Codec::Jpeg {
        telling.must("distance of keyframes", map.gop.as_ref(), gop)?;
    }
    if let Some(profile) = profile(rendition.profile)
        && !telling.may(map.profile.as_ref(), Value::Name(profile))
    {
        telling.notes.push(format!("profile {profile} cannot be said; the encoder chooses"));
    }
    telling.may(map.threads.as_ref(), Value::Number(i64::from(threads)));
    if board.quirks.contains(&Quirk::LevelInCaps) && encoder.codec == Codec::H264 && !encoder.software {
        let bits = match rendition.rate {
            Rate::Bitrate(bits) => u64::from(bits.0),
            Rate::Quality(_) => 0,
        };
        telling.caps.insert("level".into(), h264_level(size, rate, bits).to_owned());
    }
    if !telling.controls.is_empty() {
        let list: Vec<String> =
            telling.controls.iter().map(|(name, value)| format!("{name}=(int){value}")).collect();
        telling.properties.insert(EXTRA_CONTROLS.into(), format!("controls,{}", list.join(",")));
    }
    Ok(Said {
        encoder,
        facts,
        element: Element { factory: factory.to_owned(), properties: telling.properties },
        after: encoder
            .after
            .iter()
            .map(|one| Element { factory: one.factory.clone(), properties: one.set.clone() })
            .collect(),
        caps: telling.caps,
        size,
        rate,
        force_key: map.force_key.clone(),
        fresh: machine.needs_fresh(factory, used)
            || (!encoder.software && board.quirks.contains(&Quirk::FreshEncoderPerSegment)),
        by_ready: encoder.recycle == Recycle::Ready,
        gated: rendition.fps.is_some(),
        notes: telling.notes,
    })
}

/// Without B-frames, which a segment that stands alone never has, High is Constrained High.
fn profile(profile: Profile) -> Option<&'static str> {
    match profile {
        Profile::Auto => None,
        Profile::Baseline => Some("constrained-baseline"),
        Profile::Main => Some("main"),
        Profile::High | Profile::ConstrainedHigh => Some("high"),
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Number(i64),
    Name(&'static str),
    /// A keyframe only at the start.
    Never,
}

struct Telling<'a> {
    facts: &'a ElementFacts,
    properties: Properties,
    controls: Properties,
    caps: Properties,
    notes: Vec<String>,
}

impl Telling<'_> {
    fn must(&mut self, what: &str, mapping: Option<&Mapping>, value: Value) -> Result<(), String> {
        if self.may(mapping, value) { Ok(()) } else { Err(format!("it cannot be told a {what}")) }
    }

    /// True if one of the targets applied.
    fn may(&mut self, mapping: Option<&Mapping>, value: Value) -> bool {
        mapping.is_some_and(|mapping| mapping.0.iter().any(|target| self.by(target, value)))
    }

    fn by(&mut self, target: &Target, value: Value) -> bool {
        if target.with.keys().any(|name| !self.facts.properties.contains_key(name)) {
            return false;
        }
        let Some(text) = said(target, value) else { return false };
        let done = if !target.prop.is_empty() {
            self.by_property(target, text)
        } else if !target.control.is_empty() {
            self.by_control(target, &text)
        } else if let Some(field) = &target.caps {
            self.caps.insert(field.clone(), text.text());
            true
        } else {
            false
        };
        if done {
            self.properties.extend(target.with.iter().map(owned));
        }
        done
    }

    fn by_property(&mut self, target: &Target, said: Word) -> bool {
        let known = target.prop.iter().filter(|name| self.facts.properties.contains_key(*name));
        let names: Vec<&String> = known.take(if target.all { usize::MAX } else { 1 }).collect();
        for name in &names {
            let facts = &self.facts.properties[*name];
            let text = match &said {
                Word::Number(number) => number_for(facts, *number, name, &mut self.notes),
                Word::Text(text) => text.clone(),
            };
            self.properties.insert((*name).clone(), text);
        }
        !names.is_empty()
    }

    fn by_control(&mut self, target: &Target, said: &Word) -> bool {
        let known = target.control.iter().filter(|name| self.facts.has_control(name));
        let names: Vec<&String> = known.take(if target.all { usize::MAX } else { 1 }).collect();
        for name in &names {
            let text = match (said, self.facts.range(name)) {
                (Word::Number(number), Some(range)) => {
                    let step = target.step.unwrap_or(range.step).max(1);
                    let held = ((*number).clamp(range.min, range.max) / step * step).max(range.min);
                    self.note(name, *number, held);
                    held.to_string()
                }
                (Word::Number(_) | Word::Text(_), _) => said.text(),
            };
            self.controls.insert((*name).clone(), text);
        }
        !names.is_empty()
    }

    fn note(&mut self, name: &str, asked: i64, held: i64) {
        if asked != held {
            self.notes.push(format!("{name} takes {held}, not {asked}"));
        }
    }
}

enum Word {
    Number(i64),
    Text(String),
}

impl Word {
    fn text(&self) -> String {
        match self {
            Word::Number(number) => number.to_string(),
            Word::Text(text) => text.clone(),
        }
    }
}

/// The value in the target's words; None where it has none for it.
fn said(target: &Target, value: Value) -> Option<Word> {
    let number = match value {
        Value::Name(name) if target.values.is_empty() => return Some(Word::Text(name.to_owned())),
        Value::Name(name) => return target.values.get(name).cloned().map(Word::Text),
        Value::Never => target.never?,
        Value::Number(number) => match target.unit {
            Unit::Plain | Unit::Bits | Unit::Milliseconds | Unit::Frames => number,
            Unit::Kilobits => (number + 500) / 1000,
            Unit::Seconds => (number + 500) / 1000,
        },
    };
    let number = match target.best.zip(target.worst) {
        // From 1, the best, to 51, the worst.
        Some((best, worst)) => {
            let span = (worst - best) * (number - 1);
            best + (span + 25 * span.signum()) / 50
        }
        None => number,
    };
    let number = number.clamp(target.min.unwrap_or(i64::MIN), target.max.unwrap_or(i64::MAX));
    let step = target.step.unwrap_or(1).max(1);
    Some(Word::Number((number / step * step).max(target.min.unwrap_or(i64::MIN))))
}

/// Within the property's own range; a range that cuts is noted.
fn number_for(facts: &PropertyFacts, number: i64, name: &str, notes: &mut Vec<String>) -> String {
    match facts.kind {
        PropertyKind::Bool => (number > 1).to_string(),
        PropertyKind::Int
        | PropertyKind::Uint
        | PropertyKind::Int64
        | PropertyKind::Uint64
        | PropertyKind::Float
        | PropertyKind::Double => {
            // Ranges of 64-bit properties beyond 2^53 lose digits that no bitrate reaches.
            let low = facts.min.map_or(i64::MIN, |min| min.ceil() as i64);
            let high = facts.max.map_or(i64::MAX, |max| max.floor() as i64).max(low);
            let held = number.clamp(low, high);
            if held != number {
                notes.push(format!("{name} takes {held}, not {number}"));
            }
            held.to_string()
        }
        PropertyKind::Text | PropertyKind::Enum | PropertyKind::Flags | PropertyKind::Other => {
            number.to_string()
        }
    }
}

/// Levels of H.264, table A-1 of ITU-T H.264: name, macroblocks a second, macroblocks a picture, kbit/s in Main.
const H264_LEVELS: [(&str, u64, u64, u64); 16] = [
    ("1", 1_485, 99, 64),
    ("1.1", 3_000, 396, 192),
    ("1.2", 6_000, 396, 384),
    ("1.3", 11_880, 396, 768),
    ("2", 11_880, 396, 2_000),
    ("2.1", 19_800, 792, 4_000),
    ("2.2", 20_250, 1_620, 4_000),
    ("3", 40_500, 1_620, 10_000),
    ("3.1", 108_000, 3_600, 14_000),
    ("3.2", 216_000, 5_120, 20_000),
    ("4", 245_760, 8_192, 20_000),
    ("4.1", 245_760, 8_192, 50_000),
    ("4.2", 522_240, 8_704, 50_000),
    ("5", 589_824, 22_080, 135_000),
    ("5.1", 983_040, 36_864, 240_000),
    ("5.2", 2_073_600, 36_864, 240_000),
];

/// The lowest level that holds `size` at `rate` and `bits` a second.
fn h264_level(size: Size, rate: FrameRate, bits: u64) -> &'static str {
    let blocks = u64::from(size.width.div_ceil(16)) * u64::from(size.height.div_ceil(16));
    let each_second = (blocks as f64 * rate.as_f64()).ceil() as u64;
    H264_LEVELS
        .iter()
        .find(|(_, second, picture, kilobits)| {
            each_second <= *second && blocks <= *picture && bits <= kilobits * 1000
        })
        .map_or("5.2", |(name, ..)| name)
}

/// Sides of the output said to an encoder that scales; false where it does not here.
pub(super) fn say_size(said: &mut Said<'_>) -> bool {
    let map = &said.encoder.map;
    let mut telling = Telling {
        facts: said.facts,
        properties: Properties::new(),
        controls: Properties::new(),
        caps: Properties::new(),
        notes: Vec::new(),
    };
    let done = telling.may(map.width.as_ref(), Value::Number(i64::from(said.size.width)))
        && telling.may(map.height.as_ref(), Value::Number(i64::from(said.size.height)));
    if done {
        said.element.properties.extend(telling.properties);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_lowest_that_holds_the_picture_its_rate_and_its_bits() {
        let rate = |fps| FrameRate::new(fps, 1).unwrap();
        assert_eq!(h264_level(Size::new(1280, 720), rate(30), 3_000_000), "3.1");
        assert_eq!(h264_level(Size::new(1280, 720), rate(60), 3_000_000), "3.2");
        assert_eq!(h264_level(Size::new(1920, 1080), rate(30), 6_000_000), "4");
        assert_eq!(h264_level(Size::new(426, 240), rate(30), 250_000), "2.1");
    }

    #[test]
    fn a_size_is_rounded_down_to_what_a_block_takes() {
        let limits = Limits { min: (256, 128), max: (8192, 4320), align: (8, 8) };
        assert_eq!(aligned(Size::new(854, 480), limits), Some(Size::new(848, 480)));
        assert_eq!(aligned(Size::new(426, 240), limits), Some(Size::new(424, 240)));
        assert_eq!(aligned(Size::new(160, 90), limits), None);
        assert_eq!(aligned(Size::new(1080, 1920), limits), Some(Size::new(1080, 1920)));
    }
}
