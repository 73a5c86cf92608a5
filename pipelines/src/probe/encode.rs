//! An encoder's proof: every picture comes out, keyframes where they were asked for, decodable, alike, in the bitrate,
//! and a second segment begins as the first did.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use headwater_protocol::{
    Audio, BitsPerSecond, Codec, Container, Fault, FrameRate, Gop, Ladder, Millis, Pixels, Profile, Rate,
    Rendition, RenditionName,
};

use super::coded::{CodedFrame, Start};
use super::drive::{Driven, Patience, Shelf, Unready, take};
use super::finding::Proof;
use super::instances::{AtOnce, known};
use super::pictures::{Luma, draw, info, psnr};
use super::prove::{ALIKE, Bench, proof, speed};
use super::sample::{self, Clip};
use super::{SIZE, SOFTWARE_FEW, colours, words};
use crate::board::{Board, Encoder, SYSTEM};
use crate::es::{CLOCK, Frame, Rotation, Ticks};
use crate::fit::Size;
use crate::graph::{self, Chain};
use crate::plan::{self, DecodePlan, RungPlan};
use crate::stage::lock;

/// Asked for, bits a second.
const BITRATE: u32 = 3_000_000;
/// Asked for where there is no bitrate: of still pictures, of FWHT.
const QUALITY: u8 = 11;
/// An encoder told kilobits in bits, or the other way round, is wrong by a thousand. What an honest one makes of two
/// seconds of a plain picture lies within these factors of what it was asked for.
const LEAST: f64 = 0.05;
const MOST: f64 = 2.5;
/// Keyframes are asked for each so many pictures. It divides no segment's count: else an encoder that counts on over a
/// flush would begin the second segment with a keyframe by accident.
const GOP: usize = 13;
/// Pictures of the second segment, which then has a second keyframe, and of each when several run at once.
const FEW: u64 = 15;

/// Where the pictures come from.
#[derive(Clone)]
enum Source {
    Drawn,
    /// Only a decoder brings pictures into the encoder's memory.
    Decoded(Arc<DecodePlan>, Clip),
}

struct Trial<'a> {
    bench: &'a Bench<'a>,
    codec: Codec,
    rung: RungPlan,
    source: Source,
}

/// What the candidate makes of the first `count` drawn pictures, for a decoder that no sample is there for.
pub(super) fn drawn(bench: &Bench<'_>, codec: Codec, count: u64) -> Result<Clip, Fault> {
    let (_, rung, source) = plan(bench, codec)?;
    let trial = Trial { bench, codec, rung, source };
    let (driven, shelf) = trial.build()?;
    let ran = trial.run(&driven, count, bench.first, false);
    let (coded, _) = trial.judge(ran, take(&shelf), count)?;
    Ok(clip(codec, &coded))
}

fn clip(codec: Codec, coded: &[CodedFrame]) -> Clip {
    let frame = |(number, frame): (usize, &CodedFrame)| {
        let time = Ticks(number as i64 * CLOCK / 30);
        Frame { pts: time, dts: time, key: frame.key(), data: frame.data.clone().into() }
    };
    Clip::new(codec, coded.iter().enumerate().map(frame).collect())
}

pub(super) fn prove(bench: &Bench<'_>) -> Result<(Proof, Option<AtOnce>), Fault> {
    let candidate = bench.candidate;
    let Some(codec) = candidate.codec else { return Err(words::wrong(candidate, "has no codec")) };
    let (entry, rung, source) = plan(bench, codec)?;
    let has_bitrate = entry.map.bitrate.is_some();
    let trial = Trial { bench, codec, rung, source };
    let (driven, shelf) = trial.build().map_err(|unready| unready.told(candidate))?;
    let pictures = candidate.pictures();
    let ran = trial.run(&driven, pictures, bench.first, false);
    let (coded, time) = trial.judge(ran, take(&shelf), pictures)?;
    trial.keyframes(&coded)?;
    if has_bitrate {
        trial.bits(&coded)?;
    }
    // Told as of whole pictures: an encoder's time goes by their pixels.
    let share = area(candidate.size()) / area(SIZE);
    let mut found = proof(speed(pictures, time.div_f64(share)));
    trial.again(driven, &shelf, &mut found)?;
    trial.likeness(&coded, &mut found)?;
    // What a decoder tells its encoder of colours is not known here.
    if matches!(trial.source, Source::Drawn) {
        found.notes.extend(colours::look(candidate, codec, &coded[0].data)?);
    }
    found.limit = known(entry.max_instances);
    let at_once = (!candidate.software).then(|| trial.at_once(&entry)).flatten();
    Ok((found, at_once))
}

/// One that carries the codec.
fn container(codec: Codec) -> Container {
    match codec {
        Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9 | Codec::Vp8 => Container::Mp4,
        Codec::Jpeg => Container::Jpeg,
        Codec::Fwht => Container::Ts,
    }
}

fn area(size: Size) -> f64 {
    f64::from(size.width) * f64::from(size.height)
}

/// The profile's entry with no other name for it, what it is told, and where its pictures come from.
fn plan(bench: &Bench<'_>, codec: Codec) -> Result<(Encoder, RungPlan, Source), Fault> {
    let candidate = bench.candidate;
    let wrong = |text: String| words::wrong(candidate, text);
    let entry = bench.board.encoders.iter().find(|one| {
        one.codec == codec && one.input.memory == candidate.memory && one.factory.contains(&candidate.element)
    });
    let mut entry = entry.cloned().ok_or_else(|| wrong("is not in the profile".to_owned()))?;
    entry.factory = vec![candidate.element.clone()];
    let still = codec == Codec::Jpeg;
    let by_quality = entry.map.bitrate.is_none();
    let rendition = Rendition {
        name: RenditionName::new("probe").map_err(|bad| wrong(bad.to_string()))?,
        codec,
        width: Pixels(candidate.size().width),
        height: Pixels(candidate.size().height),
        fps: None,
        rate: if by_quality { Rate::Quality(QUALITY) } else { Rate::Bitrate(BitsPerSecond(BITRATE)) },
        gop: if still { Gop::Segment } else { Gop::Every(Millis(GOP as u64 * 1000 / 30)) },
        profile: Profile::Auto,
        // What comes out is looked at as it is.
        container: container(codec),
        audio: Audio::Copy,
        tiles: None,
    };
    let ladder = Ladder::new(vec![rendition]).map_err(|bad| wrong(bad.to_string()))?;
    // Nothing else to choose from.
    let board = Board { encoders: vec![entry.clone()], ..bench.board.clone() };
    let picture = |format: &str| plan::Picture {
        coded: candidate.size(),
        aspect: (1, 1),
        rotation: Rotation::None,
        rate: FrameRate::new(30, 1).ok(),
        interlaced: false,
        format: format.to_owned(),
        mapped: false,
    };
    let first = |decode: &DecodePlan, board: &Board, format: &str| {
        let outputs = plan::outputs(board, bench.machine, &ladder, decode, &picture(format))?;
        outputs.rungs.into_iter().next().ok_or_else(|| wrong("has an empty plan".to_owned()))
    };
    let alone = Board { scalers: Vec::new(), ..board.clone() };
    let drawn = first(&DecodePlan::nothing(), &alone, "I420");
    let why = match drawn {
        Ok(rung) => return Ok((entry, rung, Source::Drawn)),
        Err(why) => why,
    };
    if candidate.memory != SYSTEM
        && let Some(clip) = sample::clip(Codec::H264)?
    {
        for one in board.decoders.iter().filter(|one| one.codec == Codec::H264 && !one.software) {
            let Ok(decode) = plan::decode_with(&board, bench.machine, one) else { continue };
            let format = one.out.formats.first().map_or("NV12", String::as_str);
            if let Ok(rung) = first(&decode, &board, format) {
                return Ok((entry, rung, Source::Decoded(Arc::new(decode), clip)));
            }
        }
    }
    let reason = if why.detail.is_empty() { why.text } else { why.detail };
    Err(wrong(format!("cannot be used as its profile says: {reason}")))
}

impl Trial<'_> {
    fn size(&self) -> Size {
        Size::new(self.rung.width, self.rung.height)
    }

    fn chain(
        rung: &RungPlan,
        source: &Source,
        each: impl FnMut(gst::Sample) -> Result<(), gst::FlowError> + Send + 'static,
    ) -> Result<Driven, Unready> {
        let input = match source {
            Source::Drawn => Some(info(Size::new(rung.width, rung.height)).map_err(Unready::Unbuilt)?),
            Source::Decoded(..) => None,
        };
        Driven::new(each, |faults, hand| graph::encode_chain(rung, input.as_ref(), None, faults, hand))
    }

    fn build(&self) -> Result<(Driven, Shelf<CodedFrame>), Unready> {
        let shelf = Shelf::default();
        let (onto, codec) = (Arc::clone(&shelf), self.codec);
        let driven = Self::chain(&self.rung, &self.source, move |sample| {
            let map = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
            let data = map.ok_or(gst::FlowError::Error)?.to_vec();
            lock(&onto).push(CodedFrame::new(codec, data));
            Ok(())
        })?;
        Ok((driven, shelf))
    }

    /// `recycle`: the chain has had a segment before.
    fn run(
        &self,
        driven: &Driven,
        count: u64,
        patience: Patience<'_>,
        recycle: bool,
    ) -> Result<Duration, Fault> {
        let (source, size) = (self.source.clone(), self.size());
        // Drawn before, so that only the encoder's time counts.
        let pictures = match source {
            Source::Drawn => (0..count).map(|number| draw(number, size)).collect(),
            Source::Decoded(..) => Vec::new(),
        };
        let (into, until) = (Arc::clone(driven.chain()), patience.until);
        driven.segment(patience, move |chain| {
            // In the feeder's thread, for a flush may hang too.
            if recycle {
                chain.recycle();
            }
            match source {
                Source::Drawn => pictures.into_iter().try_for_each(|picture| chain.push(picture)),
                Source::Decoded(plan, clip) => decoded(&plan, &clip, into, count, until),
            }
        })
    }

    fn judge<T>(
        &self,
        ran: Result<T, Fault>,
        coded: Vec<CodedFrame>,
        want: u64,
    ) -> Result<(Vec<CodedFrame>, T), Fault> {
        let candidate = self.bench.candidate;
        let done = match ran {
            Err(fault) if coded.is_empty() => return Err(words::nothing(candidate, &fault)),
            Err(fault) => return Err(fault),
            Ok(_) if coded.is_empty() => {
                let text = "it came to its end without one";
                let fault = Fault::new(headwater_protocol::Code::BadOutput, text);
                return Err(words::nothing(candidate, &fault.with_detail(crate::log::tail())));
            }
            Ok(done) => done,
        };
        if coded.len() as u64 != want {
            return Err(words::wrong(candidate, format!("encoded {} of {want} pictures", coded.len())));
        }
        if !coded[0].key() {
            return Err(words::wrong(candidate, "does not begin a segment with a keyframe"));
        }
        Ok((coded, done))
    }

    fn keyframes(&self, coded: &[CodedFrame]) -> Result<(), Fault> {
        let candidate = self.bench.candidate;
        // Still pictures have no distance of keyframes.
        if self.codec == Codec::Jpeg {
            return Ok(());
        }
        let keys: Vec<usize> = (0..coded.len()).filter(|at| coded[*at].key()).collect();
        if keys.iter().copied().ne((0..coded.len()).step_by(GOP)) {
            let text = format!("was asked for a keyframe each {GOP} pictures and made them at {keys:?}");
            return Err(words::wrong(candidate, text));
        }
        match keys.iter().find(|at| coded[**at].start == Start::WithoutSets) {
            Some(at) => {
                let text = format!("puts no parameter sets before the keyframe at {at}");
                Err(words::wrong(candidate, text))
            }
            None => Ok(()),
        }
    }

    fn bits(&self, coded: &[CodedFrame]) -> Result<(), Fault> {
        let bits: usize = coded.iter().map(|frame| frame.data.len() * 8).sum();
        let rate = bits as f64 * 30.0 / coded.len() as f64;
        let factor = rate / f64::from(BITRATE);
        if (LEAST..=MOST).contains(&factor) {
            return Ok(());
        }
        let text = format!("was asked for {} kbit/s and made {:.0}", BITRATE / 1000, rate / 1000.0);
        Err(words::wrong(self.bench.candidate, text))
    }

    /// A second segment in the same chain, as a worker does it; where that fails, in a new one.
    fn again(&self, driven: Driven, shelf: &Shelf<CodedFrame>, found: &mut Proof) -> Result<(), Fault> {
        let bench = self.bench;
        let second = |fault: Fault| {
            let text = format!("did not get through a second segment: {}", fault.text);
            words::wrong(bench.candidate, text).with_detail(fault.detail)
        };
        let few = if bench.candidate.software { SOFTWARE_FEW } else { FEW };
        let segment = |driven: &Driven, shelf: &Shelf<CodedFrame>, recycle| {
            let ran = self.run(driven, few, bench.again, recycle);
            let (coded, _) = self.judge(ran, take(shelf), few)?;
            self.keyframes(&coded)
        };
        if !self.rung.fresh {
            match segment(&driven, shelf, true) {
                Ok(()) => return Ok(()),
                Err(fault) if bench.candidate.software => return Err(second(fault)),
                Err(fault) => {
                    found.fresh = true;
                    found.notes.push(format!("needs a fresh encoder per segment: {}", fault.text));
                }
            }
        }
        drop(driven);
        let (driven, shelf) = self.build()?;
        segment(&driven, &shelf, false).map_err(second)
    }

    /// What another decoder makes of the frames, against what went in.
    fn likeness(&self, coded: &[CodedFrame], found: &mut Proof) -> Result<(), Fault> {
        let bench = self.bench;
        let clip = clip(self.codec, coded);
        let Some(ours) = bench.reference(&clip)? else {
            found.notes.push("no software decoder is here to look at its pictures".into());
            return Ok(());
        };
        // A device's own decoder may lose the first pictures; from the second keyframe on they are as good.
        let spared = if sample::exists(self.codec) || ours.len() == coded.len() { 0 } else { GOP };
        let compared = coded.len().saturating_sub(spared);
        if ours.len() < compared || ours.len() > coded.len() {
            let text = format!("made {} frames of which {} can be decoded", coded.len(), ours.len());
            return Err(words::wrong(bench.candidate, text));
        }
        let theirs: Vec<Luma> = match &self.source {
            Source::Drawn => (0..coded.len() as u64).map(|number| Luma::drawn(number, self.size())).collect(),
            Source::Decoded(..) => {
                found.notes.push("fed by the decoder, so its pictures were counted and not compared".into());
                return Ok(());
            }
        };
        let likeness = psnr(&ours[ours.len() - compared..], &theirs[theirs.len() - compared..]);
        tracing::debug!(element = bench.candidate.element, likeness, "encoded");
        if likeness < ALIKE {
            let text = format!("makes pictures that are not like the original ({likeness:.1} dB)");
            return Err(words::wrong(bench.candidate, text));
        }
        Ok(())
    }

    /// None where a decoder feeds it: then the two would be counted together.
    fn at_once(&self, entry: &Encoder) -> Option<AtOnce> {
        if matches!(self.source, Source::Decoded(..)) {
            return None;
        }
        let (rung, source, size) = (self.rung.clone(), self.source.clone(), self.size());
        Some(AtOnce {
            build: Box::new(move || Ok(Self::chain(&rung, &source, |_| Ok(()))?)),
            feed: Arc::new(move |chain: &Chain| {
                (0..FEW).try_for_each(|number| chain.push(draw(number, size)))
            }),
            pictures: FEW,
            limit: known(entry.max_instances),
            patience: self.bench.again.still,
            until: self.bench.again.until,
        })
    }
}

/// Pushes `count` pictures of a decoder into an encoder's chain.
fn decoded(
    plan: &DecodePlan,
    clip: &Clip,
    into: Arc<Chain>,
    count: u64,
    until: Instant,
) -> Result<(), gst::FlowError> {
    let mut left = count;
    let driven = Driven::new(
        move |sample| {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            into.push_sample(&sample)
        },
        |faults, hand| graph::decode_chain(plan, faults, hand),
    );
    let (clip, rounds) = (clip.clone(), count.div_ceil(clip.len().max(1)));
    // Whether it moves is seen behind the encoder.
    let patience = Patience::fixed(until.saturating_duration_since(Instant::now()));
    let ran = driven
        .map_err(Fault::from)
        .and_then(|driven| driven.segment(patience, move |chain| clip.feed(chain, rounds)));
    ran.map(drop).map_err(|fault| {
        tracing::debug!(%fault, "the decoder in front of an encoder");
        gst::FlowError::Error
    })
}
