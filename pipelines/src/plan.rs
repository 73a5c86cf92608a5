//! Board profile + ladder + input facts -> concrete elements and properties. Pure: no registry, no clock.
//!
//! ```text
//! codec of the input ──────────▶ decoder()  ─▶ DecodePlan
//! first decoded picture, rate ─▶ renditions() ─▶ OutputPlan: sizes, cascade, one RungPlan per rendition
//! ```
//!
//! Two plans are equal exactly if the pipeline of one can do the work of the other.

use std::collections::BTreeSet;

use headwater_protocol::{Code, Codec, Fault, FrameRate, Gop, Ladder, Profile, Rate, Rendition};

use crate::board::{BitrateUnit, Board, Encoder, Properties};
use crate::es::Rotation;
use crate::fit::{Origin, Size, cascade, fit, frames_in};

/// What a machine has: the names of elements that are there, or that a probe has proved.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub elements: BTreeSet<String>,
    pub cores: u32,
}

/// One element with its properties set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub factory: String,
    pub properties: Properties,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodePlan {
    pub codec: Codec,
    /// In the order of the stream; the last one decodes.
    pub elements: Vec<Element>,
}

/// What the first decoded picture and the first timestamps say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// As decoded, before rotation.
    pub coded: Size,
    /// Width to height of a pixel.
    pub aspect: (u32, u32),
    pub rotation: Rotation,
    /// None where a segment is too short to tell.
    pub rate: Option<FrameRate>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPlan {
    /// Distinct sizes of all renditions.
    pub sizes: Vec<Size>,
    pub origins: Vec<Origin>,
    /// In the order of the ladder.
    pub rungs: Vec<RungPlan>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RungPlan {
    pub codec: Codec,
    pub element: Element,
    /// Index into [`OutputPlan::sizes`].
    pub size: usize,
    pub width: u32,
    pub height: u32,
    /// Profile in the caps after the encoder.
    pub profile: Option<&'static str>,
    /// What the encoder plans its bits with.
    pub rate: FrameRate,
    /// Frames are dropped and doubled to this rate.
    pub gate: Option<FrameRate>,
}

/// For encoders only, where neither input nor ladder tells.
const FALLBACK_RATE: (u32, u32) = (30, 1);

/// More frame threads than this cost more than they give.
const MAX_DECODER_THREADS: u32 = 4;
const MAX_ENCODER_THREADS: u32 = 16;

/// The first decoder of the profile that the machine has.
pub fn decoder(board: &Board, machine: &Machine, codec: Codec) -> Result<DecodePlan, Fault> {
    let known: Vec<_> = board.decoders.iter().filter(|decoder| decoder.codec == codec).collect();
    let Some(decoder) = known.iter().find(|decoder| machine.elements.contains(&decoder.element)) else {
        let packages: Vec<&str> = known.iter().map(|decoder| decoder.package.as_str()).collect();
        return Err(if packages.is_empty() {
            let text = format!("input video is {codec:?}; Headwater reads {}", codecs_in(board));
            Fault::new(Code::UnsupportedCodec, text)
        } else {
            let text = format!("no decoder for {codec:?} here; install {}", packages.join(" or "));
            Fault::new(Code::NoDecoder, text)
        });
    };
    let mut properties = decoder.fixed.clone();
    if let Some(threads) = &decoder.threads {
        let count = machine.cores.clamp(1, MAX_DECODER_THREADS);
        properties.insert(threads.clone(), count.to_string());
    }
    let parser = decoder
        .parser
        .iter()
        .map(|parser| Element { factory: parser.clone(), properties: Properties::new() });
    let decoder = Element { factory: decoder.element.clone(), properties };
    Ok(DecodePlan { codec, elements: parser.chain([decoder]).collect() })
}

fn codecs_in(board: &Board) -> String {
    let mut names: Vec<String> =
        board.decoders.iter().map(|decoder| format!("{:?}", decoder.codec)).collect();
    names.dedup();
    names.join(" and ")
}

/// Everything after the decoder.
pub fn renditions(
    board: &Board,
    machine: &Machine,
    ladder: &Ladder,
    picture: Picture,
) -> Result<OutputPlan, Fault> {
    let (upright, aspect) = upright(picture);
    let fitted: Vec<Size> = ladder
        .renditions()
        .iter()
        .map(|rendition| fit(upright, aspect, Size::new(rendition.width.0, rendition.height.0)))
        .collect();
    let mut sizes = fitted.clone();
    sizes.sort_unstable_by_key(|size| (std::cmp::Reverse(size.pixels()), *size));
    sizes.dedup();
    let all_pixels: u64 = fitted.iter().map(|size| size.pixels()).sum();
    let rungs = ladder
        .renditions()
        .iter()
        .zip(&fitted)
        .map(|(rendition, &size)| {
            let at = sizes.iter().position(|other| *other == size).unwrap_or_default();
            let threads = threads(machine.cores, size.pixels(), all_pixels);
            rung(board, machine, rendition, picture.rate, size, at, threads)
        })
        .collect::<Result<_, _>>()?;
    // A picture with odd sides loses its last column or row, so it is scaled even to its own size.
    Ok(OutputPlan { origins: cascade(upright, &sizes), sizes, rungs })
}

/// The picture and its pixels after it was turned to stand upright.
pub fn upright(picture: Picture) -> (Size, (u32, u32)) {
    match picture.rotation {
        Rotation::None | Rotation::Half => (picture.coded, picture.aspect),
        Rotation::Clockwise90 | Rotation::Clockwise270 => {
            (picture.coded.turned(), (picture.aspect.1, picture.aspect.0))
        }
    }
}

/// All encoders together have one thread per core; each has its share by pixels, and at least one.
fn threads(cores: u32, pixels: u64, all_pixels: u64) -> u32 {
    let share = (u64::from(cores) * pixels + all_pixels / 2) / all_pixels.max(1);
    u32::try_from(share).unwrap_or(MAX_ENCODER_THREADS).clamp(1, MAX_ENCODER_THREADS)
}

fn rung(
    board: &Board,
    machine: &Machine,
    rendition: &Rendition,
    source_rate: Option<FrameRate>,
    size: Size,
    at: usize,
    threads: u32,
) -> Result<RungPlan, Fault> {
    let encoder = encoder(board, machine, rendition)?;
    let rate = match rendition.fps.or(source_rate) {
        Some(rate) => rate,
        None => FrameRate::new(FALLBACK_RATE.0, FALLBACK_RATE.1)
            .map_err(|bad| Fault::new(Code::PipelineFailed, bad.to_string()))?,
    };
    let mut properties = encoder.fixed.clone();
    if let Some(property) = &encoder.threads {
        properties.insert(property.clone(), threads.to_string());
    }
    match (rendition.rate, &encoder.quality) {
        (Rate::Bitrate(bitrate), _) => {
            let value = match encoder.bitrate.unit {
                BitrateUnit::Bits => bitrate.0,
                BitrateUnit::Kilobits => (bitrate.0 + 500) / 1000,
            };
            properties.insert(encoder.bitrate.property.clone(), value.to_string());
            properties.extend(encoder.bitrate.fixed.clone());
        }
        (Rate::Quality(quality), Some(by)) => {
            properties.insert(by.property.clone(), quality.min(by.max).to_string());
            properties.extend(by.fixed.clone());
        }
        (Rate::Quality(_), None) => return Err(no_encoder(board, rendition)),
    }
    let gop = match rendition.gop {
        Gop::Segment => encoder.gop.never,
        Gop::Every(distance) => frames_in(distance.0, rate),
        Gop::Intra => 1,
    };
    properties.insert(encoder.gop.property.clone(), gop.to_string());
    Ok(RungPlan {
        codec: rendition.codec,
        element: Element { factory: encoder.element.clone(), properties },
        size: at,
        width: size.width,
        height: size.height,
        profile: if encoder.profiles { profile(rendition.profile) } else { None },
        rate,
        gate: rendition.fps,
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

fn encoder<'a>(board: &'a Board, machine: &Machine, rendition: &Rendition) -> Result<&'a Encoder, Fault> {
    board
        .encoders
        .iter()
        .filter(|encoder| encoder.codec == rendition.codec)
        .filter(|encoder| encoder.quality.is_some() || matches!(rendition.rate, Rate::Bitrate(_)))
        .find(|encoder| machine.elements.contains(&encoder.element))
        .ok_or_else(|| no_encoder(board, rendition))
}

fn no_encoder(board: &Board, rendition: &Rendition) -> Fault {
    let (name, codec) = (&rendition.name, rendition.codec);
    let packages: BTreeSet<&str> = board
        .encoders
        .iter()
        .filter(|encoder| encoder.codec == codec)
        .map(|encoder| encoder.package.as_str())
        .collect();
    let text = if packages.is_empty() {
        format!("rendition {name}: board {} has no encoder for {codec:?}", board.name)
    } else {
        let packages: Vec<&str> = packages.into_iter().collect();
        format!("rendition {name}: no encoder for {codec:?} here; install {}", packages.join(" or "))
    };
    Fault::new(Code::NoEncoder, text)
}

#[cfg(test)]
mod tests {
    use headwater_protocol::{BitsPerSecond, Container, Millis, Pixels, RenditionName};

    use super::*;

    fn machine(elements: &[&str]) -> Machine {
        Machine { elements: elements.iter().map(|name| (*name).to_owned()).collect(), cores: 2 }
    }

    fn rendition(name: &str, width: u32, height: u32) -> Rendition {
        Rendition {
            name: RenditionName::new(name).unwrap(),
            codec: Codec::H264,
            width: Pixels(width),
            height: Pixels(height),
            fps: None,
            rate: Rate::Bitrate(BitsPerSecond(1_600_400)),
            gop: Gop::Segment,
            profile: Profile::Auto,
            container: Container::Ts,
        }
    }

    fn picture() -> Picture {
        Picture {
            coded: Size::new(1920, 1080),
            aspect: (1, 1),
            rotation: Rotation::None,
            rate: Some(FrameRate::new(30_000, 1001).unwrap()),
        }
    }

    fn plan_of(change: fn(&mut Rendition), elements: &[&str]) -> Result<RungPlan, Fault> {
        let mut one = rendition("a", 1280, 720);
        change(&mut one);
        let ladder = Ladder::new(vec![one]).unwrap();
        renditions(&Board::software().unwrap(), &machine(elements), &ladder, picture())
            .map(|mut plan| plan.rungs.remove(0))
    }

    #[test]
    fn units_and_gop_become_the_properties_of_the_encoder_at_hand() {
        let x264 = plan_of(|r| r.gop = Gop::Every(Millis(2000)), &["x264enc", "openh264enc"]).unwrap();
        assert_eq!(x264.element.factory, "x264enc");
        let property = |name: &str| x264.element.properties[name].as_str();
        assert_eq!([property("bitrate"), property("key-int-max"), property("pass")], ["1600", "60", "cbr"]);
        let open = plan_of(|_| (), &["openh264enc"]).unwrap();
        assert_eq!(open.element.properties["bitrate"], "1600400");
        let intra = plan_of(|r| r.gop = Gop::Intra, &["x264enc"]).unwrap();
        assert_eq!(intra.element.properties["key-int-max"], "1");
        let quality = plan_of(|r| r.rate = Rate::Quality(23), &["x264enc"]).unwrap();
        assert_eq!(quality.element.properties["quantizer"], "23");
        assert!(!quality.element.properties.contains_key("bitrate"));
    }

    #[test]
    fn what_is_missing_is_said_with_the_package_that_brings_it() {
        let fault = plan_of(|_| (), &[]).unwrap_err();
        assert_eq!(fault.code, Code::NoEncoder);
        assert!(fault.text.contains("gstreamer1.0-plugins-ugly"), "{}", fault.text);
        let fault = plan_of(|r| r.rate = Rate::Quality(23), &["openh264enc"]).unwrap_err();
        assert_eq!(fault.code, Code::NoEncoder, "openh264enc has no constant quality");
        let board = Board::software().unwrap();
        assert_eq!(decoder(&board, &machine(&[]), Codec::Hevc).unwrap_err().code, Code::NoDecoder);
        assert_eq!(decoder(&board, &machine(&[]), Codec::Av1).unwrap_err().code, Code::NoDecoder);
    }

    #[test]
    fn renditions_of_one_size_share_a_picture() {
        let ladder = Ladder::new(vec![
            rendition("small", 640, 360),
            rendition("big", 1280, 720),
            rendition("cheap", 1280, 720),
        ])
        .unwrap();
        let plan =
            renditions(&Board::software().unwrap(), &machine(&["x264enc"]), &ladder, picture()).unwrap();
        assert_eq!(plan.sizes, [Size::new(1280, 720), Size::new(640, 360)]);
        assert_eq!(plan.origins, [Origin::Decoded, Origin::Size(0)]);
        assert_eq!(plan.rungs.iter().map(|rung| rung.size).collect::<Vec<_>>(), [1, 0, 0]);
    }

    #[test]
    fn a_turned_picture_is_fitted_as_it_stands() {
        let ladder = Ladder::new(vec![rendition("a", 1280, 720)]).unwrap();
        let turned = Picture { rotation: Rotation::Clockwise90, ..picture() };
        let plan = renditions(&Board::software().unwrap(), &machine(&["x264enc"]), &ladder, turned).unwrap();
        assert_eq!(plan.sizes, [Size::new(720, 1280)]);
    }
}
